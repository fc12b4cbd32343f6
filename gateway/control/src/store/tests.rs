use super::*;
use crate::resource::{Gateway, Kind, Peer, Tunnel};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

pub(super) const SECRET: &str = "Sentinel-0f-the-secret-key";

/// A directory that goes with the test.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("adit-store-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Dir(dir)
    }

    pub(super) fn open(&self) -> Store {
        Store::open(&self.0, None).unwrap()
    }

    fn refused(&self) -> String {
        Store::open(&self.0, None).unwrap_err().to_string()
    }

    /// Waits until the threads of a store that was dropped have let go of the database, and puts what is in its log into
    /// its file: where both close it at once, neither does.
    fn closed(&self) {
        let _lock = Lock::take(&self.0).unwrap();
        let connection = rusqlite::Connection::open(self.0.join("adit.db")).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn given(value: Value) -> Given {
    value.as_object().unwrap().clone()
}

fn gateway() -> Given {
    given(json!({"name": "a", "address": "192.0.2.1", "wan": "eth0", "lan": ["eth1"]}))
}

pub(super) fn peer(name: &str, address: &str) -> Given {
    given(json!({"name": name, "address": address}))
}

fn tunnel(name: &str, remote: u8) -> Given {
    given(json!({
        "name": name, "peer": "b", "local_subnets": "10.1.0.0/16",
        "remote_subnets": [format!("10.{remote}.0.0/16")], "psk": SECRET,
    }))
}

async fn filled(dir: &Dir) -> Store {
    let store = dir.open();
    store.create::<Gateway>(gateway(), nobody()).await.unwrap();
    store.create::<Peer>(peer("b", "198.51.100.1"), nobody()).await.unwrap();
    store.create::<Tunnel>(tunnel("t", 2), nobody()).await.unwrap();
    store
}

fn fields(error: StoreError) -> Vec<String> {
    match error {
        StoreError::Invalid(problems) => problems.into_iter().map(|p| p.field).collect(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_is_created_is_shown_with_its_defaults_and_survives() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let before = store.get::<Tunnel>("t").await.unwrap();
    assert_eq!((before.spec.ike.lifetime, before.spec.ike.peer_id.as_str()), (86_400, "198.51.100.1"));
    assert_eq!((before.meta.revision, &before.meta.created_at), (1, &before.meta.updated_at));
    assert!(before.meta.id.starts_with("tun-"), "{}", before.meta.id);
    let shown = serde_json::to_string(&before).unwrap();
    assert!(!shown.contains(SECRET) && !shown.contains("psk"), "{shown}");
    drop(store);
    let store = dir.open();
    assert_eq!(store.get::<Tunnel>(&before.meta.id).await.unwrap(), before);
    assert_eq!(store.list::<Tunnel>().await.unwrap(), [before]);
    assert_eq!(store.reveal("t").await.unwrap().psk.reveal(), SECRET.as_bytes());
}

#[tokio::test]
async fn what_is_shown_can_be_given_back() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let v1 = json!({"version": "ikev1", "mode": "aggressive"});
    let more = [
        json!({"name": "u", "peer": "b", "routing_mode": "route", "routes": ["10.3.0.0/16"], "mtu": 1400}),
        json!({"name": "v", "peer": "b", "local_subnets": ["10.1.0.0/16"], "remote_subnets": ["10.4.0.0/16"], "ike": v1,
               "ipsec": {"protocol": "ah", "pfs": "disabled"}, "dpd": {"enabled": false}, "labels": {"a": "b"}}),
        json!({"name": "w", "peer": "b", "local_subnets": ["10.1.0.0/16"], "remote_subnets": ["10.5.0.0/16"],
               "ike": {"ppk": {"id": "w", "key": "0x0102030405060708010203040506070801020304050607080102030405060708"}}}),
    ];
    for object in more {
        store.create::<Tunnel>(given(object), nobody()).await.unwrap();
    }
    for before in store.list::<Tunnel>().await.unwrap() {
        let keys = store.reveal(&before.meta.id).await.unwrap();
        let back = given(serde_json::to_value(&before).unwrap());
        let edit = Edit::Replace(back);
        let after = store.update::<Tunnel>(&before.meta.name, Some(1), edit, nobody()).await.unwrap();
        assert_eq!((after.resource.spec, after.resource.meta.revision), (before.spec, 2));
        assert_eq!(store.reveal(&before.meta.id).await.unwrap(), keys);
    }
    let gateway = store.get::<Gateway>("a").await.unwrap();
    let back = Edit::Replace(given(serde_json::to_value(&gateway).unwrap()));
    assert_eq!(store.update::<Gateway>("a", None, back, nobody()).await.unwrap().resource.spec, gateway.spec);
}

#[tokio::test]
async fn a_key_is_generated_where_none_is_given() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let mut keyless = tunnel("u", 3);
    keyless.remove("psk");
    let written = store.create::<Tunnel>(keyless, nobody()).await.unwrap();
    assert_eq!(written.warnings, []);
    let psk = store.reveal("u").await.unwrap().psk;
    assert!(psk.reveal().len() == 32 && psk.reveal().iter().all(u8::is_ascii_alphanumeric));
    assert_ne!(psk, store.reveal("t").await.unwrap().psk);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_field() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let with = |name: &str, value: Value| {
        let mut object = tunnel("u", 3);
        object.insert(name.into(), value);
        object
    };
    for (name, value, field) in [
        ("name", json!(""), "name"),
        ("peer", json!("c"), "peer"),
        ("psk", json!("with space"), "psk"),
        ("psk", json!(7), "psk"),
        ("remote_subnets", json!("10.2.0.0/16"), "local_subnets"),
        ("remote_subnets", json!(["10.1.2.0/24"]), "remote_subnets"),
        ("ike", json!({"dh": 17}), "ike.dh"),
        ("ike", json!({"lifetime": 59}), "ike.lifetime"),
        ("ike", json!({"lifetime": 1e30}), "ike.lifetime"),
        ("ike", json!("fast"), "ike"),
        ("ipsec", json!({"replay_window": -1}), "ipsec.replay_window"),
        ("dpd", json!({"delai": 3}), "dpd.delai"),
        ("group", json!("g"), "group"),
        ("remark", json!("x".repeat(257)), "remark"),
        ("labels", json!({"a": 1}), "labels.a"),
    ] {
        let refused = store.create::<Tunnel>(with(name, value), nobody()).await.unwrap_err();
        assert!(!refused.to_string().contains("with space"));
        assert_eq!(fields(refused), [field]);
    }
    let clash = store.create::<Tunnel>(tunnel("u", 2), nobody()).await.unwrap_err();
    let StoreError::Invalid(problems) = clash else { panic!("{clash}") };
    let with = problems[0].clashes_with.as_ref().unwrap();
    assert_eq!((with.kind, with.name.as_str(), with.id.is_some()), (Kind::Tunnel, "t", true));
    let taken = store.create::<Tunnel>(tunnel("t", 3), nobody()).await.unwrap_err();
    assert!(matches!(&taken, StoreError::NameTaken(other) if other.name == "t"), "{taken}");
    assert_eq!(store.list::<Tunnel>().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_in_use_stays_and_says_by_what() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let peer = store.delete::<Peer>(vec![("b".into(), None)], nobody()).await.unwrap_err();
    assert_eq!(peer.to_string(), "peer \"b\" is in use by tunnel \"t\"");
    let gateway = store.delete::<Gateway>(vec![("a".into(), None)], nobody()).await.unwrap_err();
    assert_eq!(gateway.to_string(), "gateway \"a\" is in use by tunnel \"t\"");
    store.create::<Tunnel>(tunnel("u", 3), nobody()).await.unwrap();
    // All or none.
    let both = vec![("t".into(), None), ("x".into(), None)];
    assert!(matches!(store.delete::<Tunnel>(both, nobody()).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.list::<Tunnel>().await.unwrap().len(), 2);
    let both = vec![("t".into(), Some(1)), ("u".into(), None)];
    let change = store.delete::<Tunnel>(both, nobody()).await.unwrap().change;
    assert_eq!(change.removed, ["t", "u"]);
    store.delete::<Peer>(vec![("b".into(), None)], nobody()).await.unwrap();
}

#[tokio::test]
async fn who_has_not_seen_the_last_change_changes_nothing() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let remark = |text: &str| Edit::Merge(given(json!({"remark": text})));
    store.update::<Tunnel>("t", Some(1), remark("first"), nobody()).await.unwrap();
    let late = store.update::<Tunnel>("t", Some(1), remark("second"), nobody()).await.unwrap_err();
    assert!(matches!(late, StoreError::Changed { revision: 2, .. }), "{late}");
    let late = store.delete::<Tunnel>(vec![("t".into(), Some(1))], nobody()).await.unwrap_err();
    assert!(matches!(late, StoreError::Changed { revision: 2, .. }), "{late}");
    struct Refuses;
    impl Follow for Refuses {
        fn approve(&mut self, _: &Arc<Change>) -> Result<(), StoreError> {
            Err(StoreError::Refused("no".into()))
        }
        fn follow(&mut self, _: &Arc<Change>) -> Result<(), StoreError> {
            panic!("nobody follows what is refused")
        }
    }
    let refused = Box::new(Refuses);
    assert!(store.update::<Tunnel>("t", None, remark("third"), refused).await.is_err());
    assert_eq!(store.get::<Tunnel>("t").await.unwrap().meta.remark, "first");
}

#[tokio::test]
async fn a_merge_changes_what_it_names_and_null_goes_back_to_the_default() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let merge = |value| Edit::Merge(given(value));
    let ike = merge(json!({"ike": {"dh": [14], "lifetime": 3600}}));
    let after = store.update::<Tunnel>("t", None, ike, nobody()).await.unwrap().resource.spec;
    // What was never given follows.
    assert_eq!((after.ike.lifetime, &after.ipsec.pfs), (3600, &after.ike.dh));
    let back = merge(json!({"ike": {"lifetime": null}}));
    let after = store.update::<Tunnel>("t", None, back, nobody()).await.unwrap();
    assert_eq!(after.resource.spec.ike.lifetime, 86_400);
    assert_eq!(after.change.tunnels.len(), 1);
}

#[tokio::test]
async fn a_peer_that_changes_takes_its_tunnels_along() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let edit = Edit::Merge(given(json!({"name": "c", "address": "203.0.113.9"})));
    let change = store.update::<Peer>("b", None, edit, nobody()).await.unwrap().change;
    assert_eq!(change.tunnels[0].1.peer.to_string(), "203.0.113.9");
    let spec = store.get::<Tunnel>("t").await.unwrap().spec;
    assert_eq!((spec.peer.as_str(), spec.ike.peer_id.as_str()), ("c", "203.0.113.9"));
    let any = Edit::Merge(given(json!({"address": "any"})));
    let refused = store.update::<Peer>("c", None, any, nobody()).await.unwrap_err();
    assert!(refused.to_string().contains("does not go with tunnel \"t\""), "{refused}");
    assert_eq!(store.get::<Peer>("c").await.unwrap().spec.address, "203.0.113.9");
}

#[tokio::test]
async fn no_secret_lies_in_a_file_in_clear() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let secret = SECRET.as_bytes();
    let files: Vec<_> = fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let octets = fs::read(&file).unwrap();
        assert!(!octets.windows(secret.len()).any(|w| w == secret), "{}", file.display());
    }
    drop(store);
}

#[tokio::test]
async fn a_wrong_database_or_key_is_refused_in_words() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let store = filled(&dir).await;
    assert!(dir.refused().contains("another Adit works with"), "{}", dir.refused());
    drop(store);
    let (db, key) = (dir.0.join("adit.db"), dir.0.join("adit.key"));
    drop(dir.open());
    dir.closed();
    let (good, good_key) = (fs::read(&db).unwrap(), fs::read(&key).unwrap());

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(dir.refused().contains("mode 644"), "{}", dir.refused());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, [7; 32]).unwrap();
    assert!(dir.refused().contains("is not the key that"), "{}", dir.refused());
    fs::write(&key, "short").unwrap();
    assert!(dir.refused().contains("32 octets"), "{}", dir.refused());
    fs::remove_file(&key).unwrap();
    assert!(dir.refused().contains("is gone"), "{}", dir.refused());
    // systemd's credential comes first.
    let credentials = Dir::new();
    fs::create_dir_all(&credentials.0).unwrap();
    fs::write(credentials.0.join("adit.key"), &good_key).unwrap();
    fs::set_permissions(credentials.0.join("adit.key"), fs::Permissions::from_mode(0o400)).unwrap();
    let store = Store::open(&dir.0, Some(&credentials.0)).unwrap();
    assert_eq!(store.reveal("t").await.unwrap().psk.reveal(), SECRET.as_bytes());
    drop(store);
    fs::copy(credentials.0.join("adit.key"), &key).unwrap();
    drop(dir.open());
    dir.closed();

    let connection = rusqlite::Connection::open(&db).unwrap();
    connection.pragma_update(None, "user_version", 9999).unwrap();
    drop(connection);
    assert!(dir.refused().contains("version 9999"), "{}", dir.refused());
    fs::write(&db, "this is no database at all, and longer than its header would be".repeat(9)).unwrap();
    assert!(dir.refused().contains("is damaged"), "{}", dir.refused());
    let mut torn = good.clone();
    torn[4096..].iter_mut().step_by(3).for_each(|octet| *octet ^= 0x55);
    fs::write(&db, torn).unwrap();
    assert!(dir.refused().contains("is damaged"), "{}", dir.refused());
    fs::write(&db, good).unwrap();
    drop(dir.open());
}

#[tokio::test]
async fn a_key_that_is_taken_back_is_gone() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let patch =
        async |patch: Value| store.update::<Tunnel>("t", None, Edit::Merge(given(patch)), nobody()).await;
    patch(json!({"psk": null})).await.unwrap();
    let psk = store.reveal("t").await.unwrap().psk;
    assert!(psk.reveal().len() == 32 && psk.reveal() != SECRET.as_bytes());
    patch(json!({"ike": {"ppk": {"id": "p", "key": "0x01020304"}}})).await.unwrap();
    assert_eq!(fields(patch(json!({"ike": {"ppk": {"key": null}}})).await.unwrap_err()), ["ike.ppk.key"]);
    assert!(store.reveal("t").await.unwrap().ppk_key.is_some());
    patch(json!({"ike": {"ppk": null}})).await.unwrap();
    assert_eq!(store.reveal("t").await.unwrap().ppk_key, None);
    assert_eq!(fields(patch(json!({"ike": {"ppk": {"id": "p"}}})).await.unwrap_err()), ["ike.ppk.key"]);
    assert_eq!(store.reveal("t").await.unwrap().psk, psk, "what is not named stays");
}

/// Says that a change has begun, and lets it go on when it is told to.
struct Slow(std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>);

impl Follow for Slow {
    fn approve(&mut self, _: &Arc<Change>) -> Result<(), StoreError> {
        self.0.send(()).unwrap();
        self.1.recv().unwrap();
        Ok(())
    }

    fn follow(&mut self, _: &Arc<Change>) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_begun_and_what_has_begun_is_done() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let asked = async |work: &mut (dyn Future<Output = ()> + Send + Unpin)| {
        std::future::poll_fn(|context| {
            assert!(std::pin::Pin::new(&mut *work).poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    };
    let creating = |name: &'static str, follower: Box<dyn Follow>| {
        let store = store.clone();
        Box::pin(async move { drop(store.create::<Peer>(peer(name, "any"), follower).await) })
    };
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go, may_go) = std::sync::mpsc::channel();
    let mut first = creating("first", Box::new(Slow(begun, may_go)));
    asked(&mut first).await;
    let mut second = creating("second", nobody());
    asked(&mut second).await;
    has_begun.recv().unwrap();
    drop((first, second));
    go.send(()).unwrap();
    creating("third", nobody()).await;
    let names: Vec<_> = store.list::<Peer>().await.unwrap().into_iter().map(|peer| peer.meta.name).collect();
    assert_eq!(names, ["b", "first", "third"]);
}

#[tokio::test]
async fn a_health_check_does_not_ask_where_the_peer_of_another_tunnel_is() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let c = "198.51.100.7";
    store.create::<Peer>(peer("c", c), nobody()).await.unwrap();
    let by_route = |destination: &str| {
        given(json!({
            "name": "u", "peer": "b", "routing_mode": "route", "routes": ["198.51.100.0/30", "198.51.100.7/32"],
            "psk": SECRET, "health_check": {"source": "198.51.100.2", "destination": destination},
        }))
    };
    let clash = |refused: StoreError| match refused {
        StoreError::Invalid(mut problems) if problems.len() == 1 => {
            let Violation { field, why, clashes_with, .. } = problems.remove(0);
            (field, why, clashes_with.map(|of| of.name).unwrap_or_default())
        }
        other => panic!("{other}"),
    };
    let mut alone = by_route(c);
    alone["routes"] = json!(["198.51.100.4/30"]);
    alone["health_check"]["source"] = json!("198.51.100.5");
    // Nobody's peer is there yet.
    store.create::<Tunnel>(alone.clone(), nobody()).await.unwrap();
    // A tunnel takes such a peer.
    let mut other = tunnel("v", 3);
    other.insert("peer".into(), "c".into());
    let (field, why, with) = clash(store.create::<Tunnel>(other.clone(), nobody()).await.unwrap_err());
    assert_eq!((field.as_str(), with.as_str()), ("peer", "u"));
    assert!(why.contains("198.51.100.7") && why.contains("\"u\""), "{why}");
    other.insert("peer".into(), "b".into());
    store.create::<Tunnel>(other, nobody()).await.unwrap();
    let takes = || Edit::Merge(given(json!({"peer": "c"})));
    let taken = clash(store.update::<Tunnel>("v", None, takes(), nobody()).await.unwrap_err());
    assert_eq!((taken.0.as_str(), taken.2.as_str()), ("peer", "u"));
    // A peer moves there.
    store.delete::<Peer>(vec![("c".into(), None)], nobody()).await.unwrap();
    store.create::<Peer>(peer("c", "198.51.100.9"), nobody()).await.unwrap();
    store.update::<Tunnel>("v", None, takes(), nobody()).await.unwrap();
    let moved = Edit::Merge(given(json!({"address": c})));
    let (field, why, _) = clash(store.update::<Peer>("c", None, moved, nobody()).await.unwrap_err());
    assert!(
        field == "address" && why.contains("\"v\"") && why.contains("health check of tunnel \"u\""),
        "{why}"
    );
    // A check comes to ask where a peer is, of a tunnel that is new or changes.
    let asks = || {
        Edit::Merge(given(json!({"routes": ["198.51.100.8/30"], "health_check": {
        "source": "198.51.100.10", "destination": "198.51.100.9"}})))
    };
    let asked = clash(store.update::<Tunnel>("u", None, asks(), nobody()).await.unwrap_err());
    assert_eq!((asked.0.as_str(), asked.2.as_str()), ("health_check", "v"));
    store.delete::<Tunnel>(vec![("u".into(), None)], nobody()).await.unwrap();
    alone["routes"] = json!(["198.51.100.8/30"]);
    alone["health_check"] = json!({"source": "198.51.100.10", "destination": "198.51.100.9"});
    let asked = clash(store.create::<Tunnel>(alone.clone(), nobody()).await.unwrap_err());
    assert_eq!((asked.0.as_str(), asked.2.as_str()), ("health_check", "v"));
    // As a whole it can be applied again, whatever was refused before.
    let text = store.export(true).await.unwrap();
    config::Config::parse("t".as_ref(), &text).unwrap();
}

#[tokio::test]
async fn who_is_asked_is_looked_up_and_not_searched_for() {
    let dir = Dir::new();
    drop(filled(&dir).await);
    dir.closed();
    let connection = rusqlite::Connection::open(dir.0.join("adit.db")).unwrap();
    for (sql, index) in [(write::PEERS_TUNNEL, "resource_peer_at"), (write::ASKING, "resource_asks")] {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = plan.query_map(("x", "y"), |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        assert!(steps[0].contains(&format!("INDEX {index} (<expr>=?)")), "{steps:?}");
        let is_looked_up = |step: &String| step.starts_with("SEARCH ") && !step.contains("(kind=?)");
        assert!(steps.iter().all(is_looked_up), "{steps:?}");
    }
}
