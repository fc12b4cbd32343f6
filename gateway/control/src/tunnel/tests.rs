use super::*;
use crate::{config::Config, sadb::tests::child, status};
use adit_ike::Phase;

fn tunnel(change: impl FnOnce(&mut config::Tunnel)) -> Tunnel {
    let text = include_str!("../config/tests/good.toml");
    let mut config = Config::parse(std::path::Path::new("t"), text).unwrap().tunnels.remove(0);
    change(&mut config);
    Tunnel::new(TunnelId(1), config, Groups::default())
}

fn check(destination: [u8; 4]) -> config::HealthCheck {
    config::HealthCheck {
        destination: destination.into(),
        source: [10, 1, 0, 1].into(),
        interval: Duration::from_secs(1),
        retries: 1,
        switch_route: true,
    }
}

fn in_log(tunnel: &Tunnel, words: &str) -> bool {
    tunnel.log().since(0).iter().any(|entry| entry.text.contains(words))
}

#[test]
fn another_health_check_knows_nothing_of_the_errors_of_the_first() {
    for next in [None, Some(check([10, 2, 0, 2]))] {
        let mut tunnel = tunnel(|config| config.health_check = Some(check([10, 2, 0, 1])));
        tunnel.child_up(&child(256));
        let now = tunnel.check_due().unwrap();
        tunnel.check(now, 1);
        tunnel.check(now + PATIENCE, 2);
        assert!(tunnel.is_silent() && tunnel.last_error.as_ref().unwrap().is_of_health());
        let renamed = config::Tunnel { name: "other".into(), ..tunnel.config().clone() };
        tunnel.rename(&renamed);
        assert!(tunnel.last_error.is_some(), "the check is the same");
        tunnel.rename(&config::Tunnel { health_check: next, ..renamed });
        assert!(tunnel.is_healthy());
        assert_eq!(tunnel.last_error, None);
    }
    // What is not of the check stays.
    let mut tunnel = tunnel(|config| config.health_check = Some(check([10, 2, 0, 1])));
    tunnel.failed(Instant::now(), Failed { ours: false, ..Failed::early() }, &"refused", None);
    let other = config::Tunnel { health_check: None, ..tunnel.config().clone() };
    tunnel.rename(&other);
    assert!(tunnel.last_error.is_some());
}

#[test]
fn who_wants_it_up_is_told_what_it_does() {
    let now = Instant::now();
    let mut tunnel = tunnel(|_| ());
    tunnel.begin(now);
    let up = |tunnel: &mut Tunnel, now| tunnel.up(now, true).unwrap().0;
    assert_eq!(up(&mut tunnel, now), "negotiates");
    let mut at = now;
    for _ in 0..4 {
        assert!(tunnel.handle_timeout(at));
        assert_eq!(up(&mut tunnel, at), "is negotiating");
        tunnel.failed(at, Failed::early(), &"refused", None);
        at = tunnel.due().unwrap();
    }
    assert!(tunnel.handle_timeout(at));
    assert_eq!((tunnel.state(), up(&mut tunnel, at)), (State::Phase1Failed, "is negotiating"));
    tunnel.failed(at, Failed::early(), &"refused", None);
    assert_eq!(up(&mut tunnel, at), "negotiates");
    tunnel.child_up(&child(256));
    assert_eq!(up(&mut tunnel, at), "is up");
}

#[test]
fn a_responder_says_that_it_waits_for_its_peer() {
    let now = Instant::now();
    let mut tunnel = tunnel(|config| config.start = config::Start::Respond);
    tunnel.begin(now);
    for reason in [DownReason::PeerDead, DownReason::Expired, DownReason::ClosedByPeer] {
        tunnel.child_up(&child(256));
        tunnel.ike_down(now, reason);
        assert_eq!(tunnel.log().since(0).last().unwrap().text, "waits for the peer", "{reason}");
        assert_eq!(tunnel.up(now, true).unwrap().0, "waits for the peer, which is to begin", "{reason}");
    }
}

#[test]
fn routes_are_withdrawn_unless_traffic_is_to_begin_it() {
    for (start, action, withdrawn) in [
        (config::Start::Immediate, config::DpdAction::Hold, false),
        (config::Start::Immediate, config::DpdAction::Clear, true),
        (config::Start::OnDemand, config::DpdAction::Clear, false),
        (config::Start::Respond, config::DpdAction::Hold, true),
    ] {
        let now = Instant::now();
        let mut tunnel = tunnel(|config| {
            (config.start, config.dpd_action) = (start, action);
            config.health_check = Some(check([10, 2, 0, 1]));
        });
        assert_eq!(tunnel.is_withdrawn(), start != config::Start::OnDemand);
        tunnel.begin(now);
        tunnel.child_up(&child(256));
        assert!(!tunnel.is_withdrawn());
        tunnel.ike_down(now, DownReason::PeerDead);
        assert_eq!((tunnel.state(), tunnel.is_withdrawn()), (State::Connecting, withdrawn), "{start:?}");
        assert_eq!(in_log(&tunnel, "waits for traffic"), !withdrawn || start == config::Start::OnDemand);
    }
}

#[test]
fn a_failure_names_the_address_that_it_was_with() {
    let now = Instant::now();
    let mut tunnel = tunnel(|_| ());
    tunnel.begin(now);
    assert!(tunnel.handle_timeout(now));
    let peer = Some([198, 51, 100, 7].into());
    let exchange = Some("IKE_AUTH".to_owned());
    tunnel.failed(now, Failed { phase: Phase::Two, exchange, peer, ours: true }, &"refused", None);
    assert!(in_log(&tunnel, "phase 2 failed in IKE_AUTH with 198.51.100.7: refused"));
    let kept = tunnel.last_error.clone().unwrap();
    assert_eq!((kept.phase, kept.peer, kept.ours), (Some(2), peer, true));
    let mut json = serde_json::to_value(&kept).unwrap();
    assert_eq!(json["peer"], "198.51.100.7");
    json.as_object_mut().unwrap().remove("peer");
    let read: status::Failure = serde_json::from_value(json).unwrap();
    assert_eq!(read.peer, None, "as an older Adit writes it");
    assert!(serde_json::to_value(&read).unwrap().get("peer").is_none());
    // The address of what was up is known as well.
    tunnel.connecting_to([198, 51, 100, 8].into());
    tunnel.child_up(&child(256));
    tunnel.ike_down(now, DownReason::PeerDead);
    assert_eq!(tunnel.last_error.unwrap().peer, Some([198, 51, 100, 8].into()));
}
