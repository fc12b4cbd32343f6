//! Connection groups in the store: what binds their members.

use super::{tests::*, *};
use crate::resource::{Gateway, Group, Kind, Peer, Tunnel};
use serde_json::{Value, json};

fn given(value: Value) -> Given {
    value.as_object().unwrap().clone()
}

/// A tunnel to the networks that all of them here join.
fn same(name: &str, enabled: bool) -> Given {
    given(json!({
        "name": name, "peer": "b", "local_subnets": "10.1.0.0/16", "remote_subnets": "10.9.0.0/16",
        "psk": SECRET, "enabled": enabled,
    }))
}

fn group(members: &[&str]) -> Given {
    given(json!({"name": "g", "members": members}))
}

async fn two(dir: &Dir) -> Store {
    let store = dir.open();
    let gateway = json!({"name": "a", "address": "192.0.2.1", "wan": "eth0", "lan": ["eth1"]});
    store.create::<Gateway>(given(gateway), nobody()).await.unwrap();
    store.create::<Peer>(peer("b", "198.51.100.1"), nobody()).await.unwrap();
    store.create::<Tunnel>(same("one", true), nobody()).await.unwrap();
    let taken = store.create::<Tunnel>(same("two", true), nobody()).await.unwrap_err().to_string();
    assert!(taken.contains("is also that of tunnel \"one\""), "{taken}");
    store.create::<Tunnel>(same("two", false), nobody()).await.unwrap();
    let written = store.create::<Group>(group(&["one", "two"]), nobody()).await.unwrap();
    assert_eq!(
        (written.resource.spec.mode.as_str(), &written.resource.meta.id[..4]),
        ("active-standby", "grp-")
    );
    assert_eq!(written.change.groups.as_ref().unwrap()[0].members, ["one", "two"]);
    enable(&store, "two", true).await.unwrap();
    store
}

async fn enable(store: &Store, tunnel: &str, enabled: bool) -> Result<(), StoreError> {
    let edit = Edit::Merge(given(json!({"enabled": enabled})));
    store.update::<Tunnel>(tunnel, None, edit, nobody()).await.map(drop)
}

async fn members(store: &Store, members: &[&str]) -> Result<(), StoreError> {
    let edit = Edit::Merge(given(json!({"members": members})));
    store.update::<Group>("g", None, edit, nobody()).await.map(drop)
}

#[tokio::test]
async fn a_group_grows_and_shrinks_one_tunnel_at_a_time() {
    let dir = Dir::new();
    let store = two(&dir).await;
    let in_use = store.delete::<Tunnel>(vec![("two".into(), None)], nobody()).await.unwrap_err();
    assert_eq!(in_use.to_string(), "tunnel \"two\" is in use by group \"g\"");
    for refused in [
        members(&store, &["one"]).await.unwrap_err().to_string(),
        store.delete::<Group>(vec![("g".into(), None)], nobody()).await.unwrap_err().to_string(),
    ] {
        assert!(refused.contains("cannot be without the group"), "{refused}");
    }
    enable(&store, "two", false).await.unwrap();
    members(&store, &["one"]).await.unwrap();
    assert!(enable(&store, "two", true).await.is_err(), "it is in no group");
    store.delete::<Tunnel>(vec![("two".into(), None)], nobody()).await.unwrap();
    let change = store.delete::<Group>(vec![("g".into(), None)], nobody()).await.unwrap().change;
    assert_eq!(change.groups, Some(Vec::new()));
}

#[tokio::test]
async fn a_member_keeps_the_groups_subnets_and_the_group_its_name() {
    let dir = Dir::new();
    let store = two(&dir).await;
    let edit = Edit::Merge(given(json!({"remote_subnets": "10.8.0.0/16"})));
    let refused = store.update::<Tunnel>("two", None, edit, nobody()).await.unwrap_err().to_string();
    assert!(
        refused.contains("does not go with group \"g\"") && refused.contains("joins other networks"),
        "{refused}"
    );
    let edit = Edit::Merge(given(json!({"name": "second"})));
    store.update::<Tunnel>("two", None, edit, nobody()).await.unwrap();
    assert_eq!(store.get::<Group>("g").await.unwrap().spec.members, ["one", "second"]);
    store.create::<Tunnel>(same("three", false), nobody()).await.unwrap();
    let other = given(json!({"name": "h", "members": ["three", "one"]}));
    let refused = store.create::<Group>(other, nobody()).await.unwrap_err().to_string();
    assert!(refused.contains("tunnel \"one\" is in group \"g\" already"), "{refused}");
    let check = json!({"health_check": {"source": "10.1.0.1", "destination": "10.9.0.1"}});
    for (tunnel, taken) in [("one", false), ("second", true)] {
        let edit = Edit::Merge(given(check.clone()));
        assert_eq!(store.update::<Tunnel>(tunnel, None, edit, nobody()).await.is_err(), taken, "{tunnel}");
    }
    drop(store);
    let config = dir.open().config(config::Api::default()).await.unwrap().unwrap();
    assert_eq!(config.groups[0].members, ["one", "second"]);
}

#[tokio::test]
async fn what_is_exported_is_applied_and_pruned() {
    let dir = Dir::new();
    let store = two(&dir).await;
    let document = |text: &str| Document {
        text: zeroize::Zeroizing::new(text.to_owned()),
        name: "t".into(),
        prune: true,
        dry_run: false,
        digest: None,
        is_own: false,
    };
    let text = store.export(false).await.unwrap();
    let (plan, change) = store.apply(document(&text), nobody()).await.unwrap();
    assert_eq!((plan.changes, change.groups.as_ref()), (Vec::new(), None), "{}", *text);
    let in_use = store.delete::<Tunnel>(vec![("two".into(), None)], nobody()).await;
    assert!(matches!(in_use, Err(StoreError::InUse { .. })), "it still is a member");

    // Without the second tunnel and the group, and the pair is the first one's alone.
    let at = text.rfind("[[group]]").unwrap();
    let (second, _) = text.match_indices("[[tunnel]]").nth(1).unwrap();
    assert!(second < at);
    let (plan, change) = store.apply(document(&text[..second]), nobody()).await.unwrap();
    let deleted: Vec<_> = plan.changes.iter().map(|c| (c.action, c.kind, c.name.as_str())).collect();
    assert_eq!(deleted, [(Verb::Delete, Kind::Group, "g"), (Verb::Delete, Kind::Tunnel, "two")]);
    assert_eq!(change.groups, Some(Vec::new()));
    let (plan, _) = store.apply(document(&text), nobody()).await.unwrap();
    assert_eq!(plan.changes.len(), 2, "{plan:?}");
    assert_eq!(store.get::<Group>("g").await.unwrap().spec.members, ["one", "two"]);
}
