//! Random sequences of changes against a plain model: what is taken, what is refused, and what is there then.

use super::{tests::*, *};
use crate::resource::{Alarm, Gateway, Peer, Tunnel};
use adit_ike::Psk;
use proptest::{collection, prelude::*};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One of few names, so that changes meet.
type Name = u8;

#[derive(Clone, Debug)]
enum Op {
    CreatePeer(Name, u8),
    MovePeer(Name, u8),
    RenamePeer(Name, Name),
    DeletePeer(Name),
    CreateTunnel {
        name: Name,
        peer: Name,
        remote: u8,
    },
    ChangeTunnel(Name, Edited),
    ReplaceTunnel {
        name: Name,
        peer: Name,
        remote: u8,
    },
    DeleteTunnel(Name),
    /// With a figure of gateways or one of tunnels.
    CreateAlarm(Name, bool),
    ChangeAlarm(Name, bool),
    RenameAlarm(Name, Name),
    DeleteAlarm(Name),
    /// `None` is null.
    NameAlarm(Option<Name>),
    Apply {
        peers: BTreeMap<Name, u8>,
        tunnels: BTreeMap<Name, (Name, u8)>,
        prune: bool,
    },
    Reopen,
}

#[derive(Clone, Debug)]
enum Edited {
    Name(Name),
    Peer(Name),
    Remote(u8),
    /// `None` is null.
    Lifetime(Option<u32>),
    Psk(u8),
    /// `None` is null.
    Alarm(Option<Name>),
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..4u8;
    let edited = prop_oneof![
        name().prop_map(Edited::Name),
        name().prop_map(Edited::Peer),
        name().prop_map(Edited::Remote),
        proptest::option::of(60..86_400u32).prop_map(Edited::Lifetime),
        any::<u8>().prop_map(Edited::Psk),
        proptest::option::of(name()).prop_map(Edited::Alarm),
    ];
    let tunnels = collection::btree_map(name(), (name(), name()), 0..4);
    let tunnel = || (name(), name(), name());
    prop_oneof![
        3 => (name(), any::<u8>()).prop_map(|(name, at)| Op::CreatePeer(name, at)),
        1 => (name(), any::<u8>()).prop_map(|(name, at)| Op::MovePeer(name, at)),
        1 => (name(), name()).prop_map(|(from, to)| Op::RenamePeer(from, to)),
        1 => name().prop_map(Op::DeletePeer),
        4 => tunnel().prop_map(|(name, peer, remote)| Op::CreateTunnel { name, peer, remote }),
        4 => (name(), edited).prop_map(|(name, edited)| Op::ChangeTunnel(name, edited)),
        1 => tunnel().prop_map(|(name, peer, remote)| Op::ReplaceTunnel { name, peer, remote }),
        1 => name().prop_map(Op::DeleteTunnel),
        2 => (name(), any::<bool>()).prop_map(|(name, of_gateway)| Op::CreateAlarm(name, of_gateway)),
        1 => (name(), any::<bool>()).prop_map(|(name, of_gateway)| Op::ChangeAlarm(name, of_gateway)),
        1 => (name(), name()).prop_map(|(from, to)| Op::RenameAlarm(from, to)),
        1 => name().prop_map(Op::DeleteAlarm),
        1 => proptest::option::of(name()).prop_map(Op::NameAlarm),
        2 => (collection::btree_map(name(), any::<u8>(), 0..4), tunnels, any::<bool>())
            .prop_map(|(peers, tunnels, prune)| Op::Apply { peers, tunnels, prune }),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OfTunnel {
    peer: Name,
    remote: u8,
    lifetime: Option<u32>,
    /// `None` where one is generated.
    psk: Option<String>,
    alarm: Option<Name>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    peers: BTreeMap<Name, u8>,
    tunnels: BTreeMap<Name, OfTunnel>,
    /// Whether each is of gateways.
    alarms: BTreeMap<Name, bool>,
    /// The gateway's.
    alarm: Option<Name>,
}

impl Model {
    /// What it is after a change; `None` where that is refused.
    fn after(&self, op: &Op) -> Option<Model> {
        let mut next = self.clone();
        match op.clone() {
            Op::CreatePeer(name, at) => next.peers.insert(name, at).is_none().then_some(())?,
            Op::MovePeer(name, at) => *next.peers.get_mut(&name)? = at,
            Op::RenamePeer(from, to) => {
                let at = next.peers.remove(&from)?;
                next.peers.insert(to, at).is_none().then_some(())?;
                next.tunnels.values_mut().filter(|t| t.peer == from).for_each(|t| t.peer = to);
            }
            Op::DeletePeer(name) => drop(next.peers.remove(&name)?),
            Op::CreateTunnel { name, peer, remote } => {
                let psk = Some(psk(name));
                let tunnel = OfTunnel { peer, remote, lifetime: None, psk, alarm: None };
                next.tunnels.insert(name, tunnel).is_none().then_some(())?;
            }
            Op::ChangeTunnel(name, edited) => {
                let mut tunnel = next.tunnels.remove(&name)?;
                let mut called = name;
                match edited {
                    Edited::Name(name) => called = name,
                    Edited::Peer(peer) => tunnel.peer = peer,
                    Edited::Remote(remote) => tunnel.remote = remote,
                    Edited::Lifetime(lifetime) => tunnel.lifetime = lifetime,
                    Edited::Psk(of) => tunnel.psk = Some(psk(of)),
                    Edited::Alarm(alarm) => tunnel.alarm = alarm,
                }
                next.tunnels.insert(called, tunnel).is_none().then_some(())?;
            }
            Op::ReplaceTunnel { name, peer, remote } => {
                let tunnel = next.tunnels.get_mut(&name)?;
                *tunnel = OfTunnel { peer, remote, lifetime: None, psk: tunnel.psk.take(), alarm: None };
            }
            Op::DeleteTunnel(name) => drop(next.tunnels.remove(&name)?),
            Op::CreateAlarm(name, of_gateway) => {
                next.alarms.insert(name, of_gateway).is_none().then_some(())?;
            }
            Op::ChangeAlarm(name, of_gateway) => *next.alarms.get_mut(&name)? = of_gateway,
            Op::RenameAlarm(from, to) => {
                let of_gateway = next.alarms.remove(&from)?;
                next.alarms.insert(to, of_gateway).is_none().then_some(())?;
                let named = next.tunnels.values_mut().map(|t| &mut t.alarm).chain([&mut next.alarm]);
                named.filter(|alarm| **alarm == Some(from)).for_each(|alarm| *alarm = Some(to));
            }
            Op::DeleteAlarm(name) => drop(next.alarms.remove(&name)?),
            Op::NameAlarm(alarm) => next.alarm = alarm,
            Op::Apply { peers, tunnels, prune } => {
                if prune {
                    next.peers.clear();
                    next.tunnels.retain(|name, _| tunnels.contains_key(name));
                    next.alarms.clear();
                }
                // The document has a gateway and names no template.
                next.alarm = None;
                next.peers.extend(peers);
                for (name, (peer, remote)) in tunnels {
                    let psk = next.tunnels.get(&name).and_then(|t| t.psk.clone());
                    next.tunnels.insert(name, OfTunnel { peer, remote, lifetime: None, psk, alarm: None });
                }
            }
            Op::Reopen => {}
        }
        next.is_whole().then_some(next)
    }

    fn is_whole(&self) -> bool {
        let mut remotes: Vec<_> = self.tunnels.values().map(|t| t.remote).collect();
        remotes.sort_unstable();
        remotes.windows(2).all(|pair| pair[0] != pair[1])
            && self.tunnels.values().all(|t| self.peers.contains_key(&t.peer))
            && self
                .tunnels
                .values()
                .filter_map(|t| t.alarm)
                .all(|alarm| self.alarms.get(&alarm) == Some(&false))
            && self.alarm.is_none_or(|alarm| self.alarms.contains_key(&alarm))
    }
}

fn psk(of: u8) -> String {
    format!("the-key-of-a-tunnel-{of}")
}

fn object(value: Value) -> Given {
    value.as_object().unwrap().clone()
}

fn tunnel(name: Name, peer: Name, remote: u8) -> Value {
    json!({
        "name": format!("t{name}"), "peer": format!("p{peer}"), "local_subnets": ["10.200.0.0/16"],
        "remote_subnets": [format!("10.{remote}.0.0/16")],
    })
}

fn alarm(name: Name) -> String {
    format!("m{name}")
}

fn figure(of_gateway: bool) -> &'static str {
    if of_gateway { "restarts" } else { "health" }
}

fn rules(of_gateway: bool) -> Value {
    json!([{"figure": figure(of_gateway), "threshold": 1}])
}

fn document(peers: &BTreeMap<Name, u8>, tunnels: &BTreeMap<Name, (Name, u8)>) -> String {
    let mut text =
        "[gateway]\nname = \"a\"\naddress = \"192.0.2.1\"\nwan = \"eth0\"\nlan = \"eth1\"\n".to_owned();
    for (name, at) in peers {
        text += &format!("[[peer]]\nname = \"p{name}\"\naddress = \"198.51.100.{at}\"\n");
    }
    for (name, (peer, remote)) in tunnels {
        text += &format!(
            "[[tunnel]]\nname = \"t{name}\"\npeer = \"p{peer}\"\nlocal_subnets = \"10.200.0.0/16\"\n\
             remote_subnets = \"10.{remote}.0.0/16\"\n"
        );
    }
    text
}

/// Does the same to the store.
async fn act(store: &Store, op: Op) -> Result<(), StoreError> {
    let address = |at: u8| format!("198.51.100.{at}");
    let edit_peer = async |name: Name, patch: Value| {
        let edit = Edit::Merge(object(patch));
        store.update::<Peer>(&format!("p{name}"), None, edit, nobody()).await.map(drop)
    };
    match op {
        Op::CreatePeer(name, at) => {
            store.create::<Peer>(peer(&format!("p{name}"), &address(at)), nobody()).await.map(drop)
        }
        Op::MovePeer(name, at) => edit_peer(name, json!({"address": address(at)})).await,
        Op::RenamePeer(from, to) => edit_peer(from, json!({"name": format!("p{to}")})).await,
        Op::DeletePeer(name) => {
            store.delete::<Peer>(vec![(format!("p{name}"), None)], nobody()).await.map(drop)
        }
        Op::CreateTunnel { name, peer, remote } => {
            let mut given = object(tunnel(name, peer, remote));
            given.insert("psk".into(), psk(name).into());
            store.create::<Tunnel>(given, nobody()).await.map(drop)
        }
        Op::ChangeTunnel(name, edited) => {
            let patch = match edited {
                Edited::Name(name) => json!({"name": format!("t{name}")}),
                Edited::Peer(peer) => json!({"peer": format!("p{peer}")}),
                Edited::Remote(remote) => json!({"remote_subnets": format!("10.{remote}.0.0/16")}),
                Edited::Lifetime(lifetime) => json!({"ike": {"lifetime": lifetime}}),
                Edited::Psk(of) => json!({"psk": psk(of)}),
                Edited::Alarm(of) => json!({"alarm_template": of.map(alarm)}),
            };
            let edit = Edit::Merge(object(patch));
            store.update::<Tunnel>(&format!("t{name}"), None, edit, nobody()).await.map(drop)
        }
        Op::ReplaceTunnel { name, peer, remote } => {
            let edit = Edit::Replace(object(tunnel(name, peer, remote)));
            store.update::<Tunnel>(&format!("t{name}"), None, edit, nobody()).await.map(drop)
        }
        Op::DeleteTunnel(name) => {
            store.delete::<Tunnel>(vec![(format!("t{name}"), None)], nobody()).await.map(drop)
        }
        Op::CreateAlarm(name, of_gateway) => {
            let given = json!({"name": alarm(name), "rules": rules(of_gateway)});
            store.create::<Alarm>(object(given), nobody()).await.map(drop)
        }
        Op::ChangeAlarm(name, of_gateway) => {
            let edit = Edit::Merge(object(json!({"rules": rules(of_gateway)})));
            store.update::<Alarm>(&alarm(name), None, edit, nobody()).await.map(drop)
        }
        Op::RenameAlarm(from, to) => {
            let edit = Edit::Merge(object(json!({"name": alarm(to)})));
            store.update::<Alarm>(&alarm(from), None, edit, nobody()).await.map(drop)
        }
        Op::DeleteAlarm(name) => store.delete::<Alarm>(vec![(alarm(name), None)], nobody()).await.map(drop),
        Op::NameAlarm(of) => {
            let edit = Edit::Merge(object(json!({"alarm_template": of.map(alarm)})));
            store.update::<Gateway>("a", None, edit, nobody()).await.map(drop)
        }
        Op::Apply { peers, tunnels, prune } => {
            let text = document(&peers, &tunnels).into();
            let document =
                Document { text, name: "t".into(), prune, dry_run: false, digest: None, is_own: false };
            store.apply(document, nobody()).await.map(drop)
        }
        Op::Reopen => Ok(()),
    }
}

/// Takes the keys that were generated, and compares everything else.
async fn agree(store: &Store, model: &mut Model) {
    let mut peers: Vec<_> = store.list::<Peer>().await.unwrap();
    peers.sort_by(|a, b| a.meta.name.cmp(&b.meta.name));
    let peers: Vec<_> = peers.into_iter().map(|p| (p.meta.name, p.spec.address)).collect();
    let wanted: Vec<_> =
        model.peers.iter().map(|(n, at)| (format!("p{n}"), format!("198.51.100.{at}"))).collect();
    assert_eq!(peers, wanted);
    assert_eq!(store.list::<Tunnel>().await.unwrap().len(), model.tunnels.len());
    for (name, of) in &mut model.tunnels {
        let name = format!("t{name}");
        let tunnel = store.get::<Tunnel>(&name).await.unwrap();
        assert_eq!(tunnel.spec.peer, format!("p{}", of.peer));
        assert_eq!(tunnel.spec.alarm_template, of.alarm.map(alarm));
        assert_eq!(tunnel.spec.remote_subnets, [format!("10.{}.0.0/16", of.remote)]);
        assert_eq!(tunnel.spec.ike.lifetime, u64::from(of.lifetime.unwrap_or(86_400)));
        assert_eq!(tunnel.spec.ike.peer_id, format!("198.51.100.{}", model.peers[&of.peer]));
        let found: Psk = store.reveal(&name).await.unwrap().psk;
        let found = String::from_utf8(found.reveal().to_vec()).unwrap();
        assert_eq!(*of.psk.get_or_insert_with(|| found.clone()), found);
    }
    let mut alarms: Vec<_> = store.list::<Alarm>().await.unwrap();
    alarms.sort_by(|a, b| a.meta.name.cmp(&b.meta.name));
    let alarms: Vec<_> = alarms.into_iter().map(|a| (a.meta.name, a.spec.rules[0].figure.clone())).collect();
    let wanted: Vec<_> = model.alarms.iter().map(|(n, of)| (alarm(*n), figure(*of).to_owned())).collect();
    assert_eq!(alarms, wanted);
    assert_eq!(store.get::<Gateway>("a").await.unwrap().spec.alarm_template, model.alarm.map(alarm));
    let text = store.alarm_rules().await.unwrap();
    for name in 0..4 {
        let named = model.alarm == Some(name) || model.tunnels.values().any(|t| t.alarm == Some(name));
        assert_eq!(text.contains(&format!("- name: \"adit: {}\"\n", alarm(name))), named, "{text}");
    }
}

async fn run_all(ops: Vec<Op>) {
    let dir = Dir::new();
    let mut store = dir.open();
    let gateway = json!({"name": "a", "address": "192.0.2.1", "wan": "eth0", "lan": ["eth1"]});
    store.create::<Gateway>(object(gateway), nobody()).await.unwrap();
    let mut model = Model::default();
    for op in ops {
        if matches!(op, Op::Reopen) {
            drop(store);
            store = dir.open();
        }
        let next = model.after(&op);
        let done = act(&store, op.clone()).await;
        assert_eq!(done.is_ok(), next.is_some(), "{op:?} of {model:?}: {done:?}");
        model = next.unwrap_or(model);
        agree(&store, &mut model).await;
    }
    // What is exported makes the same of another store, and nothing of this one.
    let text = store.export(true).await.unwrap();
    let document = || Document {
        text: text.clone(),
        name: "t".into(),
        prune: true,
        dry_run: false,
        digest: None,
        is_own: false,
    };
    let (plan, change) = store.apply(document(), nobody()).await.unwrap();
    assert_eq!((plan.changes.len(), &*change), (0, &Change::default()), "{}", *text);
    let other = Dir::new();
    let copy = other.open();
    copy.apply(document(), nobody()).await.unwrap();
    agree(&copy, &mut model).await;
    assert_eq!(*copy.export(true).await.unwrap(), *text);
    let configured = copy.config(config::Api::default()).await.unwrap().unwrap();
    assert_eq!(configured, store.config(config::Api::default()).await.unwrap().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_sequence_of_changes_ends_where_the_model_does(ops in collection::vec(op(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run_all(ops));
    }
}
