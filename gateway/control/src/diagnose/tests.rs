use super::*;
use crate::{
    config::Config,
    maps::Counters,
    status::{Mismatch, Traffic},
    tunnel::{Groups, Tunnel},
};
use adit_ike::TunnelId;
use adit_maps::sa::DropCause;
use std::{collections::BTreeMap, path::Path};

fn status() -> Status {
    serde_json::from_str(include_str!("../../../adit/tests/status.json")).unwrap()
}

fn inspected() -> Inspected {
    let text = include_str!("../config/tests/good.toml");
    let mut config = Config::parse(Path::new("t"), text).unwrap();
    Inspected {
        config: config.tunnels.remove(0),
        wan: "eth0".into(),
        drops: Default::default(),
        missing: Vec::new(),
        losses: 0,
    }
}

/// A tunnel that is up and carries packets both ways, of a gateway where all is well.
fn up() -> (TunnelStatus, Status, Inspected) {
    let mut status = status();
    let mut tunnel = status.tunnels.iter().find(|t| t.state == State::Connected).unwrap().clone();
    status.gateway.waiting_for = None;
    status.data_plane.iter_mut().flat_map(|d| &mut d.workers).for_each(|w| w.running = true);
    tunnel.nat = None;
    tunnel.last_error = None;
    tunnel.ike_suite = Some("aes256gcm16-prfsha256-x25519".into());
    for child in &mut tunnel.children {
        (child.suite, child.pfs) = ("aes256gcm16".into(), None);
        child.inbound = Traffic { packets: 9, bytes: 900 };
        child.outbound = child.inbound;
    }
    (tunnel, status, inspected())
}

fn abouts(diagnosis: &Diagnosis, severity: Severity) -> Vec<&str> {
    let found = diagnosis.findings.iter().filter(|f| f.severity == severity);
    found.map(|f| f.about.as_str()).collect()
}

#[test]
fn a_tunnel_that_works_has_no_error() {
    let (tunnel, status, inspected) = up();
    let diagnosis = diagnose(&tunnel, &status, &inspected, &Machine::default());
    assert_eq!(abouts(&diagnosis, Severity::Error), [""; 0], "{diagnosis:?}");
    assert_eq!(diagnosis.findings[0].about, "none", "{diagnosis:?}");
}

#[test]
fn health_is_told_as_it_is_whatever_was_negotiated_since() {
    let (mut tunnel, status, inspected) = up();
    tunnel.health_check = Some(crate::status::HealthStatus {
        destination: [10, 2, 0, 9].into(),
        source: [10, 1, 0, 1].into(),
        answers: false,
        round_trip_ms: None,
    });
    let diagnosis = diagnose(&tunnel, &status, &inspected, &Machine::default());
    assert_eq!(abouts(&diagnosis, Severity::Error), ["health"], "{diagnosis:?}");
    assert_eq!(diagnosis.findings[0].fields, ["health_check.destination", "health_check.source"]);
    tunnel.health_check.iter_mut().for_each(|check| check.answers = true);
    let diagnosis = diagnose(&tunnel, &status, &inspected, &Machine::default());
    assert_eq!(abouts(&diagnosis, Severity::Error), [""; 0], "{diagnosis:?}");
}

#[test]
fn a_member_of_a_group_may_carry_one_way() {
    let (mut tunnel, mut status, inspected) = up();
    tunnel.children.iter_mut().for_each(|child| child.inbound = Traffic::default());
    let diagnosis = diagnose(&tunnel, &status, &inspected, &Machine::default());
    assert_eq!(abouts(&diagnosis, Severity::Error), ["one-way"], "{diagnosis:?}");
    status.groups = vec![crate::status::GroupStatus {
        name: "g".into(),
        mode: "active-active".into(),
        members: vec![crate::status::MemberStatus { tunnel: tunnel.name.clone(), healthy: true, share: 1.0 }],
    }];
    let diagnosis = diagnose(&tunnel, &status, &inspected, &Machine::default());
    assert_eq!(abouts(&diagnosis, Severity::Error), [""; 0], "{diagnosis:?}");
    assert!(abouts(&diagnosis, Severity::Note).contains(&"one-way"), "{diagnosis:?}");
}

#[test]
fn a_mismatch_names_the_field_and_both_values() {
    let (mut tunnel, status, inspected) = up();
    (tunnel.state, tunnel.children) = (State::Phase1Failed, Vec::new());
    let mismatch = Mismatch {
        about: "version".into(),
        fields: vec!["ike.version".into()],
        ours: vec!["IKEv2".into()],
        theirs: Some(vec!["IKEv1".into()]),
        first_difference: None,
    };
    tunnel.last_error = Some(Failure {
        at: 1,
        phase: Some(1),
        exchange: Some("IKE_SA_INIT".into()),
        peer: Some([198, 51, 100, 1].into()),
        ours: true,
        cause: "different versions of IKE".into(),
        mismatch: Some(Box::new(mismatch)),
    });
    let diagnosis = diagnose(&tunnel, &status, &inspected, &Machine::default());
    let finding = &diagnosis.findings[0];
    assert_eq!((finding.severity, finding.about.as_str()), (Severity::Error, "version"));
    assert!(finding.remedy.as_ref().unwrap().contains("ike.version"), "{finding:?}");
    assert_eq!((finding.ours[0].as_str(), finding.theirs.as_ref().unwrap()[0].as_str()), ("IKEv2", "IKEv1"));
    assert!(
        finding.cause.starts_with("phase 1 failed in IKE_SA_INIT with 198.51.100.1: different"),
        "{finding:?}"
    );
}

#[test]
fn one_way_traffic_is_told_with_the_side_that_drops() {
    let (mut tunnel, status, mut inspected) = up();
    let only = |tunnel: &mut TunnelStatus, came, went| {
        for child in &mut tunnel.children {
            (child.inbound.packets, child.outbound.packets) = (came, went);
        }
    };
    only(&mut tunnel, 0, 5);
    let words = |tunnel: &TunnelStatus, inspected: &Inspected| {
        let diagnosis = diagnose(tunnel, &status, inspected, &Machine::default());
        let first = diagnosis.findings[0].clone();
        assert_eq!((first.severity, first.about.as_str()), (Severity::Error, "one-way"), "{diagnosis:?}");
        first.cause + &first.remedy.unwrap()
    };
    assert!(words(&tunnel, &inspected).contains("nothing ever came"));
    let mut counters = Counters::default();
    counters.drops[DropCause::Authentication as usize] = 7;
    counters.drops[DropCause::Dummy as usize] = 7;
    inspected.drops[0] = Drops::of(&counters);
    let dropped = words(&tunnel, &inspected);
    assert!(dropped.contains("authentication 7") && !dropped.contains("dummy"), "{dropped}");
    inspected.drops[0] = Drops::default();
    only(&mut tunnel, 5, 0);
    assert!(words(&tunnel, &inspected).contains("no host here answers"));
    inspected.drops[1] = Drops::of(&counters);
    assert!(words(&tunnel, &inspected).contains("dropped here: authentication 7"));
}

#[test]
fn the_machine_comes_before_the_negotiation() {
    let (mut tunnel, status, inspected) = up();
    tunnel.remote = Some("198.51.100.1".parse().unwrap());
    let way = |interface: &str, is_local| Some(Ok(machine::Way { interface: interface.into(), is_local }));
    for (machine, about) in [
        (Machine { addresses: ["192.0.2.77".parse().unwrap()].into(), ..Machine::default() }, "address"),
        (
            Machine { links: [("eth0".into(), false), ("adit0".into(), true)].into(), ..Machine::default() },
            "interface",
        ),
        (Machine { links: [("eth0".into(), true)].into(), ..Machine::default() }, "interface"),
        (Machine { deaf: Some(vec![500]), ..Machine::default() }, "socket"),
        (Machine { way: Some(Err("Network is unreachable".into())), ..Machine::default() }, "route"),
        (Machine { way: way("adit0", false), ..Machine::default() }, "route"),
        (Machine { way: way("eth0", true), ..Machine::default() }, "route"),
    ] {
        let diagnosis = diagnose(&tunnel, &status, &inspected, &machine);
        assert_eq!(abouts(&diagnosis, Severity::Error), [about], "{diagnosis:?}");
    }
    let machine = Machine { way: way("eth7", false), ..Machine::default() };
    assert_eq!(abouts(&diagnose(&tunnel, &status, &inspected, &machine), Severity::Warning), ["route"]);
}

#[test]
fn what_is_weak_is_said_of_what_is_in_use() {
    let (mut tunnel, status, inspected) = up();
    tunnel.ike_suite = Some("3des-sha1-prfsha1-modp1024".into());
    tunnel.children.last_mut().unwrap().suite = "aes128-md5".into();
    tunnel.children.last_mut().unwrap().pfs = Some("modp768".into());
    let diagnosis = diagnose(&tunnel, &status, &inspected, &Machine::default());
    let fields: Vec<_> =
        diagnosis.findings.iter().filter(|f| f.about == "weak").map(|f| &f.fields[0]).collect();
    assert_eq!(
        fields,
        ["ike.encryption", "ike.integrity", "ike.prf", "ike.dh", "ipsec.integrity", "ipsec.pfs"]
    );
}

#[test]
fn what_is_missing_or_lost_is_told() {
    let (tunnel, mut status, mut inspected) = up();
    inspected.missing.push("0x00000001".into());
    inspected.losses = 3;
    status.data_plane = None;
    let diagnosis = diagnose(&tunnel, &status, &inspected, &Machine::default());
    assert_eq!(abouts(&diagnosis, Severity::Error), ["data-plane", "sa"], "{diagnosis:?}");
    assert_eq!(abouts(&diagnosis, Severity::Warning), ["dpd"]);
}

#[test]
fn a_tunnel_that_waits_says_for_what() {
    let config = inspected().config;
    for (start, about) in [(Start::Respond, "respond"), (Start::OnDemand, "on-demand")] {
        let config = config::Tunnel { start, ..config.clone() };
        let tunnel = Tunnel::new(TunnelId(1), config.clone(), Groups::default());
        let shown = tunnel.status(Default::default(), &BTreeMap::new());
        let inspected = Inspected { config, ..inspected() };
        let diagnosis = diagnose(&shown, &status(), &inspected, &Machine::default());
        let idle = diagnosis.findings.iter().find(|f| f.about == "idle").unwrap();
        assert_eq!((idle.fields[0].as_str(), idle.ours[0].as_str()), ("start", about));
    }
}

#[test]
fn a_responder_that_was_up_waits_for_its_peer_again() {
    let (mut tunnel, status, inspected) = up();
    (tunnel.state, tunnel.children) = (State::Connecting, Vec::new());
    let config = config::Tunnel { start: Start::Respond, ..inspected.config.clone() };
    let diagnosis = diagnose(&tunnel, &status, &Inspected { config, ..inspected }, &Machine::default());
    let connecting = diagnosis.findings.iter().find(|f| f.about == "connecting").unwrap();
    assert!(connecting.cause.contains("waits for the peer"), "{connecting:?}");
}
