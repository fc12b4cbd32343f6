//! Alarm templates in the store: who names them, and the rules that are made of them.

use super::{tests::*, *};
use crate::{
    config::Tunnel as Configured,
    resource::{Alarm, Gateway, Kind, Peer, Tunnel},
};
use serde_json::{Value, json};

fn given(value: Value) -> Given {
    value.as_object().unwrap().clone()
}

fn alarm(name: &str, figure: &str) -> Given {
    given(json!({"name": name, "rules": [{"figure": figure, "threshold": 1, "for": 0}]}))
}

async fn filled(dir: &Dir) -> Store {
    let store = dir.open();
    let gateway = json!({"name": "a", "address": "192.0.2.1", "wan": "eth0", "lan": ["eth1"]});
    store.create::<Gateway>(given(gateway), nobody()).await.unwrap();
    store.create::<Peer>(peer("b", "198.51.100.1"), nobody()).await.unwrap();
    for (name, remote) in [("one", 2), ("two", 3)] {
        let tunnel = json!({
            "name": name, "peer": "b", "local_subnets": "10.1.0.0/16", "remote_subnets": format!("10.{remote}.0.0/16"),
            "psk": SECRET,
        });
        store.create::<Tunnel>(given(tunnel), nobody()).await.unwrap();
    }
    store.create::<Alarm>(alarm("of-gateway", "worker-up"), nobody()).await.unwrap();
    store.create::<Alarm>(alarm("of-tunnel", "health"), nobody()).await.unwrap();
    store
}

async fn name<R: Resource>(store: &Store, of: &str, template: Value) -> Result<Arc<Change>, StoreError> {
    let edit = Edit::Merge(given(json!({"alarm_template": template})));
    store.update::<R>(of, None, edit, nobody()).await.map(|written| written.change)
}

#[tokio::test]
async fn a_template_in_use_stays_and_takes_its_name_along() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    name::<Tunnel>(&store, "one", json!("of-tunnel")).await.unwrap();
    name::<Gateway>(&store, "a", json!("of-gateway")).await.unwrap();
    for (of, by) in [("of-tunnel", "tunnel \"one\""), ("of-gateway", "gateway \"a\"")] {
        let refused = store.delete::<Alarm>(vec![(of.into(), None)], nobody()).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("alarm {of:?} is in use by {by}"));
    }
    let before = store.get::<Tunnel>("one").await.unwrap().meta.revision;
    let edit = Edit::Merge(given(json!({"name": "night's \"é\""})));
    let written = store.update::<Alarm>("of-tunnel", None, edit, nobody()).await.unwrap();
    assert!(written.resource.meta.id.starts_with("alm-"));
    assert_eq!(*written.change, Change::default(), "it touches no traffic");
    let after = store.get::<Tunnel>("one").await.unwrap();
    assert_eq!(
        (after.spec.alarm_template.as_deref(), after.meta.revision),
        (Some("night's \"é\""), before + 1)
    );
    let text = store.export(true).await.unwrap();
    let document =
        Document { text, name: "t".into(), prune: true, dry_run: false, digest: None, is_own: false };
    let (plan, change) = store.apply(document, nobody()).await.unwrap();
    assert_eq!(
        (plan.changes, &*change),
        (Vec::new(), &Change::default()),
        "what was renamed is as if it was given so"
    );

    name::<Tunnel>(&store, "one", Value::Null).await.unwrap();
    name::<Gateway>(&store, "a", Value::Null).await.unwrap();
    let both = vec![("of-gateway".into(), None), ("night's \"é\"".into(), None)];
    store.delete::<Alarm>(both, nobody()).await.unwrap();
    assert_eq!(store.list::<Alarm>().await.unwrap(), []);
}

#[tokio::test]
async fn what_a_template_cannot_be_for_those_that_name_it_is_refused() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let refused = name::<Tunnel>(&store, "one", json!("of-gateway")).await.unwrap_err().to_string();
    assert!(refused.contains("alarm_template: \"of-gateway\" has a rule for worker-up"), "{refused}");
    for refused in [
        name::<Tunnel>(&store, "one", json!("none")).await.unwrap_err(),
        name::<Gateway>(&store, "a", json!("none")).await.unwrap_err(),
    ] {
        let refused = refused.to_string();
        assert!(
            refused.contains("\"none\" is no alarm template; allowed: of-gateway, of-tunnel"),
            "{refused}"
        );
    }
    name::<Tunnel>(&store, "one", json!("of-tunnel")).await.unwrap();
    let edit = Edit::Merge(alarm("of-tunnel", "restarts"));
    match store.update::<Alarm>("of-tunnel", None, edit, nobody()).await.unwrap_err() {
        StoreError::Invalid(problems) => {
            let clash = problems[0].clashes_with.as_ref().unwrap();
            assert_eq!(
                (problems[0].field.as_str(), clash.kind, clash.name.as_str()),
                ("rules", Kind::Tunnel, "one")
            );
        }
        other => panic!("{other}"),
    }
    let edit = Edit::Merge(alarm("of-gateway", "restarts"));
    store.update::<Alarm>("of-gateway", None, edit, nobody()).await.unwrap();
}

#[tokio::test]
async fn a_template_is_nothing_that_is_negotiated() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let tunnel = async || -> Configured {
        let config = store.config(config::Api::default()).await.unwrap().unwrap();
        config.tunnels.into_iter().find(|tunnel| tunnel.name == "one").unwrap()
    };
    let before = tunnel().await;
    let change = name::<Tunnel>(&store, "one", json!("of-tunnel")).await.unwrap();
    assert!(change.tunnels.len() == 1 && change.tunnels[0].1.is_same_traffic(&before));
    assert_eq!(tunnel().await.fingerprint(), before.fingerprint());
}

#[tokio::test]
async fn the_rules_follow_what_is_configured() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let mut changes = store.changes();
    assert!(!changes.has_changed().unwrap());
    let rules = async || store.alarm_rules().await.unwrap();
    assert!(rules().await.contains("- name: \"adit\"\n"), "the usual one");
    name::<Tunnel>(&store, "two", json!("of-tunnel")).await.unwrap();
    assert!(changes.has_changed().unwrap());
    let text = rules().await;
    assert!(text.contains("tunnel!=\\\"two\\\"") && text.contains("tunnel=\\\"two\\\""), "{text}");
    name::<Gateway>(&store, "a", json!("of-gateway")).await.unwrap();
    let text = rules().await;
    assert!(!text.contains("- name: \"adit\"\n") && text.matches("- alert: ").count() == 2, "{text}");
    changes.borrow_and_update();
    let dry = Document {
        text: "[[alarm]]\nname = \"of-tunnel\"\nrules = []\n".to_owned().into(),
        name: "t".into(),
        prune: false,
        dry_run: true,
        digest: None,
        is_own: false,
    };
    let (plan, _) = store.apply(dry.clone(), nobody()).await.unwrap();
    assert_eq!((plan.changes.len(), plan.changes[0].kind), (1, Kind::Alarm));
    assert_eq!(rules().await, text);
    store.apply(Document { dry_run: false, ..dry }, nobody()).await.unwrap();
    assert!(!rules().await.contains("tunnel="), "its rules are gone");
    store.delete::<Tunnel>(vec![("one".into(), None), ("two".into(), None)], nobody()).await.unwrap();
    store.delete::<Gateway>(vec![("a".into(), None)], nobody()).await.unwrap();
    assert!(rules().await.ends_with("groups: []\n"));
}

#[tokio::test]
async fn a_document_brings_templates_and_takes_them_away() {
    let dir = Dir::new();
    let store = filled(&dir).await;
    let document = |text: &str| Document {
        text: text.to_owned().into(),
        name: "t".into(),
        prune: true,
        dry_run: false,
        digest: None,
        is_own: false,
    };
    let base = store.export(false).await.unwrap();
    let head = base.find("[gateway]").unwrap();
    let without = &base[head..];
    let planned =
        |plan: Plan| -> Vec<_> { plan.changes.into_iter().map(|c| (c.action, c.kind, c.name)).collect() };
    let (plan, _) = store.apply(document(without), nobody()).await.unwrap();
    let gone = |name: &str| (Verb::Delete, Kind::Alarm, name.to_owned());
    assert_eq!(planned(plan), [gone("of-gateway"), gone("of-tunnel")], "{without}");
    let named = without.replace("[gateway]", "[gateway]\nalarm_template = \"new\"");
    let with =
        format!("{named}[[alarm]]\nname = \"new\"\n[[alarm.rules]]\nfigure = \"restarts\"\nthreshold = 2\n");
    let (plan, _) = store.apply(document(&with), nobody()).await.unwrap();
    let wanted =
        [(Verb::Create, Kind::Alarm, "new".to_owned()), (Verb::Change, Kind::Gateway, "a".to_owned())];
    assert_eq!(planned(plan), wanted);
    let in_use = store.delete::<Alarm>(vec![("new".into(), None)], nobody()).await.unwrap_err();
    assert!(matches!(in_use, StoreError::InUse { .. }));
    let refused = store.apply(document(&named), nobody()).await.unwrap_err().to_string();
    assert!(refused.contains("gateway.alarm_template: \"new\" is no alarm template"), "{refused}");
    // Whoever let go of it in the same document does not hold it back.
    let (plan, _) = store.apply(document(without), nobody()).await.unwrap();
    assert_eq!(planned(plan), [(Verb::Change, Kind::Gateway, "a".to_owned()), gone("new")]);
}
