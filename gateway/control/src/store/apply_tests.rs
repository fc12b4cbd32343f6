use super::{tests::*, *};
use crate::{
    config::Config,
    import::{Extra, Format, import},
    resource::{Gateway, Peer, Tunnel},
};

const FILE: &str = include_str!("../config/tests/good.toml");

fn document(text: &str) -> Document {
    let text = zeroize::Zeroizing::new(text.to_owned());
    Document { text, name: "adit.toml".into(), prune: true, dry_run: false, digest: None, is_own: false }
}

async fn apply(store: &Store, text: &str) -> Vec<String> {
    let (plan, _) = store.apply(document(text), nobody()).await.unwrap();
    plan.changes.iter().map(|p| format!("{:?} {} {}", p.action, p.kind, p.name)).collect()
}

#[tokio::test]
async fn what_is_exported_is_imported_with_its_keys_or_with_words_in_their_place() {
    let dir = Dir::new();
    let store = dir.open();
    apply(&store, FILE).await;
    let more = "[[tunnel]]\nname = \"u\"\npeer = \"b\"\nrouting_mode = \"route\"\nroutes = \"10.3.0.0/16\"\n\
                ike = { ppk = { id = \"u\", key = \"abc\" } }\n";
    apply(&store, &format!("{FILE}{more}")).await;
    let gateway = "[gateway]\nname = \"here\"\naddress = \"203.0.113.12\"\nwan = \"w\"\nlan = [\"l\"]\n";
    let whole = |text: &str| Config::parse("here".as_ref(), &format!("{gateway}{text}"));
    let words = [("PUT THE PRE SHARED KEY HERE", SECRET), ("PUT THE POST QUANTUM KEY HERE", "abc")];
    for (with_psk, marks) in [(true, [0, 0]), (false, [2, 1])] {
        let exported = store.export(with_psk).await.unwrap();
        let imported = import(Format::Adit, &exported, Extra::default()).unwrap();
        assert_eq!(imported.tunnels, ["a-b", "u"]);
        assert_eq!(words.map(|(word, _)| imported.text.matches(word).count()), marks, "{}", *imported.text);
        assert_eq!(whole(&imported.text).is_ok(), with_psk);
        let filled = words.iter().fold(imported.text.to_string(), |t, (word, key)| t.replace(word, key));
        let read = whole(&filled).unwrap();
        let [first, second] = &read.tunnels[..] else { panic!("{filled}") };
        assert_eq!(first.psk.reveal(), SECRET.as_bytes());
        assert_eq!(second.ppk.as_ref().map(|ppk| ppk.key.reveal()), Some(&b"abc"[..]));
        // Lines are those of the file, whether it has keys or not.
        let wrong = exported.replace("10.3.0.0/16", "10.3.0.0/33");
        let line = wrong.lines().position(|line| line.contains("/33")).unwrap() + 1;
        let refused = import(Format::Adit, &wrong, Extra::default()).unwrap_err();
        assert!(refused.line == line && refused.message.contains("routes"), "{refused}");
    }
}

#[tokio::test]
async fn what_is_exported_is_what_is_there() {
    let dir = Dir::new();
    let store = dir.open();
    assert_eq!(apply(&store, FILE).await, ["Create gateway a", "Create peer b", "Create tunnel a-b"]);
    let more = "[[tunnel]]\nname = \"u\"\npeer = \"b\"\nrouting_mode = \"route\"\nroutes = \"10.3.0.0/16\"\n\
                labels = { \"a b\" = \"c\" }\nike = { ppk = { id = \"u\", key = \"abc\" } }\n";
    assert_eq!(apply(&store, &format!("{FILE}{more}")).await, ["Create tunnel u"]);
    let keys = store.reveal("u").await.unwrap();
    for with_psk in [false, true] {
        let text = store.export(with_psk).await.unwrap();
        assert_eq!(text.contains(SECRET), with_psk);
        assert_eq!(apply(&store, &text).await, [""; 0], "{}", *text);
    }
    // Keys that are not named stay; into another store the whole goes with its keys.
    assert_eq!(store.reveal("u").await.unwrap(), keys);
    let other = Dir::new();
    let copy = other.open();
    apply(&copy, &store.export(true).await.unwrap()).await;
    assert_eq!(copy.reveal("u").await.unwrap(), keys);
    assert_eq!(*copy.export(true).await.unwrap(), *store.export(true).await.unwrap());
}

#[tokio::test]
async fn what_the_process_itself_does_is_not_for_a_document_to_say_and_it_is_told() {
    let dir = Dir::new();
    let store = dir.open();
    let text = format!("{FILE}[api]\nlisten = \"127.0.0.1:8443\"\n");
    let (plan, change) = store.apply(document(&text), nobody()).await.unwrap();
    assert_eq!((plan.changes.len(), plan.warnings.len(), &change.own), (3, 1, &None));
    assert!(plan.warnings[0].contains("[api] is not applied"), "{:?}", plan.warnings);
    let Adopted { own, plan } = store.adopt(document(&text), nobody()).await.unwrap();
    assert!(plan.warnings.is_empty() && own.api.listen.is_some());
}

#[tokio::test]
async fn what_would_be_done_is_said_field_by_field_and_not_done() {
    let dir = Dir::new();
    let store = dir.open();
    apply(&store, FILE).await;
    let text = FILE.replace("10.2.0.0/16", "10.9.0.0/16").replace(SECRET, "another-key-of-enough-length");
    let tried = Document { dry_run: true, ..document(&text) };
    let (plan, change) = store.apply(tried, nobody()).await.unwrap();
    let fields: Vec<_> = plan.changes[0].fields.iter().map(|f| f.field.as_str()).collect();
    assert_eq!((plan.changes.len(), plan.unchanged, fields), (1, 2, vec!["remote_subnets", "psk"]));
    assert!(!format!("{plan:?}").contains("another-key"));
    assert_eq!(change.tunnels.len(), 1);
    assert_eq!(store.get::<Tunnel>("a-b").await.unwrap().spec.remote_subnets, ["10.2.0.0/16"]);
    assert_eq!(store.reveal("a-b").await.unwrap().psk.reveal(), SECRET.as_bytes());
}

#[tokio::test]
async fn pairs_may_pass_from_one_tunnel_to_another_and_what_is_not_named_goes() {
    let dir = Dir::new();
    let store = dir.open();
    let text = |t: u8, u: u8| {
        let tunnel = |name: &str, remote: u8| {
            format!(
                "[[tunnel]]\nname = \"{name}\"\npeer = \"b\"\nlocal_subnets = \"10.1.0.0/16\"\n\
                 remote_subnets = \"10.{remote}.0.0/16\"\n"
            )
        };
        format!("{FILE}{}{}", tunnel("t", t), tunnel("u", u))
    };
    apply(&store, &text(3, 4)).await;
    assert_eq!(apply(&store, &text(4, 3)).await, ["Change tunnel t", "Change tunnel u"]);
    let part = "[[peer]]\nname = \"b\"\naddress = \"198.51.100.9\"\n";
    let (plan, change) = store.apply(Document { prune: false, ..document(part) }, nobody()).await.unwrap();
    // Their peer's identity is its address.
    assert_eq!((plan.changes.len(), change.tunnels.len()), (4, 3));
    assert_eq!(apply(&store, FILE).await.len(), 4);
    assert_eq!(store.list::<Tunnel>().await.unwrap().len(), 1);
}

#[tokio::test]
async fn where_a_peer_is_counts_even_if_its_tunnels_are_shown_as_before() {
    let dir = Dir::new();
    let store = dir.open();
    let file = FILE.replace("[tunnel.ike]", "[tunnel.ike]\npeer_id = \"b.example\"");
    apply(&store, &file).await;
    let moved = document(&file.replace("198.51.100.1", "198.51.100.7"));
    let (plan, change) = store.apply(moved, nobody()).await.unwrap();
    assert_eq!((plan.changes.len(), plan.unchanged), (1, 2));
    assert_eq!(change.tunnels[0].1.peer.to_string(), "198.51.100.7");
    let edit = Edit::Merge(peer("b", "198.51.100.8"));
    let change = store.update::<Peer>("b", None, edit, nobody()).await.unwrap().change;
    assert_eq!(change.tunnels[0].1.peer.to_string(), "198.51.100.8");
}

#[tokio::test]
async fn a_wrong_document_is_refused_with_its_lines_and_changes_nothing() {
    let dir = Dir::new();
    let store = dir.open();
    apply(&store, FILE).await;
    let wrong = FILE.replace("\"10.2.0.0/16\"", "\"10.2.0.1/16\"");
    let said = store.apply(document(&wrong), nobody()).await.unwrap_err().to_string();
    assert!(said.starts_with("adit.toml:13:19: tunnel \"a-b\".remote_subnets:"), "{said}");
    let clash = "[[tunnel]]\nname = \"t\"\npeer = \"b\"\nlocal_subnets = \"10.1.0.0/16\"\nremote_subnets = \"10.2.0.0/16\"\n";
    let beside = Document { prune: false, ..document(clash) };
    let said = store.apply(beside, nobody()).await.unwrap_err().to_string();
    assert!(said.contains("is also that of tunnel \"t\"") || said.contains("tunnel \"a-b\""), "{said}");
    assert_eq!(store.list::<Tunnel>().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_daemon_is_given_what_is_stored() {
    let dir = Dir::new();
    let store = dir.open();
    assert_eq!(store.config(config::Api::default()).await.unwrap(), None);
    apply(&store, FILE).await;
    let config = store.config(config::Api::default()).await.unwrap().unwrap();
    let read = config::Config::parse("t".as_ref(), FILE).unwrap();
    assert_eq!((&config.tunnels, &config.gateway), (&read.tunnels, &read.gateway));
    assert_eq!(gateway_of(&dir.0).unwrap().unwrap(), read.gateway);
}

#[tokio::test]
async fn what_is_given_counts_even_if_it_is_what_the_default_says_today() {
    let dir = Dir::new();
    let store = dir.open();
    apply(&store, FILE).await;
    let pinned = FILE.replace("[tunnel.ike]", "[tunnel.ike]\nlocal_id = \"192.0.2.1\"");
    let (plan, change) = store.apply(document(&pinned), nobody()).await.unwrap();
    let fields = &plan.changes[0].fields;
    assert_eq!(
        (plan.changes.len(), fields.len(), fields[0].field.as_str()),
        (1, 1, "ike.local_id"),
        "{plan:?}"
    );
    assert_eq!((&fields[0].old, fields[0].new.as_deref()), (&None, Some("\"192.0.2.1\"")));
    let read = config::Config::parse("t".as_ref(), FILE).unwrap();
    assert!(change.tunnels.iter().all(|(_, tunnel)| tunnel.is_same_traffic(&read.tunnels[0])));
    let moved = || Edit::Merge(given(serde_json::json!({"address": "192.0.2.9"})));
    let local_id = async || store.get::<Tunnel>("a-b").await.unwrap().spec.ike.local_id;
    store.update::<Gateway>("a", None, moved(), nobody()).await.unwrap();
    assert_eq!(local_id().await, "192.0.2.1");
    // And back: what is given no more follows again.
    assert_eq!(apply(&store, &pinned).await, ["Change gateway a"]);
    assert_eq!(apply(&store, FILE).await, ["Change tunnel a-b"]);
    store.update::<Gateway>("a", None, moved(), nobody()).await.unwrap();
    assert_eq!(local_id().await, "192.0.2.9");
    // The same in other words is the same.
    apply(&store, FILE).await;
    assert_eq!(apply(&store, &FILE.replace("[\"10.2.0.0/16\"]", "\"10.2.0.0/16\"")).await, [""; 0]);
}

#[tokio::test]
async fn a_plan_that_somebody_agreed_to_is_done_as_it_was_shown_or_not_at_all() {
    let dir = Dir::new();
    let store = dir.open();
    apply(&store, FILE).await;
    let wanted = FILE.replace("10.2.0.0/16", "10.9.0.0/16");
    let tried = || Document { dry_run: true, ..document(&wanted) };
    let shown = store.apply(tried(), nobody()).await.unwrap().0.digest;
    assert_eq!(shown, store.apply(tried(), nobody()).await.unwrap().0.digest);
    let more = given(serde_json::json!({"name": "c", "address": "any"}));
    store.create::<Peer>(more, nobody()).await.unwrap();
    let agreed = |digest: String| Document { digest: Some(digest), ..document(&wanted) };
    let refused = store.apply(agreed(shown), nobody()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Moved), "{refused}");
    assert_eq!(store.list::<Peer>().await.unwrap().len(), 2);
    let plan = store.apply(tried(), nobody()).await.unwrap().0;
    let done = store.apply(agreed(plan.digest.clone()), nobody()).await.unwrap().0;
    assert_eq!(done, plan);
    assert_eq!(store.list::<Peer>().await.unwrap().len(), 1);
}

const API: &str = "[api]\nlisten = \"127.0.0.1:8443\"\n";

async fn adopt(store: &Store, text: &str) -> Adopted {
    store.adopt(document(text), nobody()).await.unwrap()
}

#[tokio::test]
async fn a_file_that_names_no_resource_leaves_what_is_stored_as_it_is() {
    let dir = Dir::new();
    let store = dir.open();
    // Where there is no gateway yet, one may be created.
    let Adopted { own, plan } = adopt(&store, API).await;
    assert!(
        own.api.listen.is_some()
            && !own.governs
            && plan == Plan { digest: plan.digest.clone(), ..Plan::default() }
    );
    assert_eq!(store.config(own.api).await.unwrap(), None);
    apply(&store, FILE).await;
    let before = store.export(true).await.unwrap();
    for text in [API, "", "# emptied\n"] {
        let adopted = adopt(&store, text).await;
        assert_eq!((adopted.plan.changes.len(), adopted.plan.unchanged, adopted.own.governs), (0, 3, false));
        assert_eq!(adopted.own.api.listen.is_some(), text == API);
        assert_eq!(
            adopted.words(None),
            "adit.toml is read: it names no resource, so what is stored stays as it is"
        );
        // Nor does one that somebody applies.
        let (plan, change) = store.apply(document(text), nobody()).await.unwrap();
        assert_eq!((plan.changes.len(), plan.unchanged, &*change), (0, 3, &Change::default()));
        assert!(plan.warnings.iter().any(|words| words.contains("names no resource")), "{:?}", plan.warnings);
    }
    assert_eq!(*store.export(true).await.unwrap(), *before);
    // One that is wrong is none of those.
    let wrong = store.adopt(document("[[tunel]]\nname = \"x\"\n"), nobody()).await.unwrap_err().to_string();
    assert!(wrong.contains("did you mean tunnel?"), "{wrong}");
}

#[tokio::test]
async fn whoever_changes_what_a_file_governs_is_told_that_it_is_undone() {
    let dir = Dir::new();
    let store = dir.open();
    let said = adopt(&store, FILE).await.words(Some("uid 0"));
    let created = "gateway \"a\" created; peer \"b\" created; tunnel \"a-b\" created; 0 unchanged";
    assert_eq!(said, format!("adit.toml is applied again, by uid 0: {created}"));
    let words =
        "adit.toml says what there is: this is undone at the next start or reload, unless it says so too";
    let create = async |name: &str| {
        let warnings = store.create::<Peer>(peer(name, "any"), nobody()).await.unwrap().warnings;
        warnings.into_iter().map(|w| (w.field, w.why)).collect::<Vec<_>>()
    };
    let told = [(String::new(), words.to_owned())];
    assert_eq!(create("c").await, told);
    let edit = Edit::Merge(given(serde_json::json!({"remark": "x"})));
    let changed = store.update::<Peer>("c", None, edit, nobody()).await.unwrap();
    assert_eq!(changed.warnings[0].why, words);
    let more = || Document { prune: false, ..document("[[peer]]\nname = \"d\"\naddress = \"any\"\n") };
    let tried = Document { dry_run: true, ..more() };
    for document in [tried, more()] {
        assert_eq!(store.apply(document, nobody()).await.unwrap().0.warnings, [words]);
    }
    // What changes nothing is undone by nothing.
    assert_eq!(store.apply(more(), nobody()).await.unwrap().0.warnings, [""; 0]);
    let plan = adopt(&store, FILE).await.plan;
    assert_eq!(plan.to_string(), "peer \"c\" deleted; peer \"d\" deleted; 3 unchanged");
    assert_eq!(plan.warnings, [""; 0]);
    // A file that is refused governs nothing new, and one that names no resource nothing at all.
    store.adopt(document("[api]\nx = 1\n"), nobody()).await.unwrap_err();
    assert_eq!(create("e").await, told);
    let gone = async || store.delete::<Peer>(vec![("e".into(), None)], nobody()).await.unwrap().warnings;
    assert_eq!(gone().await[0].why, words);
    adopt(&store, API).await;
    assert_eq!(create("e").await, []);
    assert_eq!(gone().await, []);
}
