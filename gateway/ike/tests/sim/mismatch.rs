//! What people are told when two configurations do not fit.

use adit_ike::*;

use crate::world::*;

/// Connects two ends that do not fit; what each tells.
fn failures(change: impl FnOnce(&mut [TunnelConfig; 2])) -> [Vec<String>; 2] {
    let mut tunnels = plain_tunnels();
    change(&mut tunnels);
    let mut world = World::new(1, tunnels);
    world.connect(A);
    world.seconds(60);
    world.assert_down();
    assert!(world.ends.iter().all(|end| end.endpoint.poll_timeout().is_none()), "nothing is left behind");
    world.ends.map(|end| end.failures)
}

#[test]
fn different_pre_shared_keys() {
    let [a, b] = failures(|tunnels| tunnels[B].psk = Psk::new("something else"));
    assert_eq!(
        a,
        [
            "One IKE_AUTH: the peer refused our authentication after a good key exchange: the pre-shared keys differ, or it \
          does not know the IDs (we are a.example, we expect b.example)"
        ]
    );
    assert_eq!(
        b,
        [
            "One IKE_AUTH: authentication failed after a good key exchange: the pre-shared keys differ (we are b.example, \
          the peer is a.example)"
        ]
    );
}

#[test]
fn an_initiator_with_another_id() {
    let [a, b] = failures(|tunnels| tunnels[A].local_id = "ops@a.example".parse().unwrap());
    assert!(a[0].contains("the peer refused our authentication"), "{a:?}");
    assert_eq!(
        b,
        ["One IKE_AUTH: the peer's ID is not the expected one: we expect a.example, ops@a.example came"]
    );
}

#[test]
fn a_responder_with_another_id() {
    let [a, b] = failures(|tunnels| tunnels[B].local_id = "10.0.0.5".parse().unwrap());
    assert_eq!(
        a,
        ["One IKE_AUTH: the peer's ID is not the expected one: we expect b.example, 10.0.0.5 came"]
    );
    assert!(b[0].contains("the peer refused our authentication"), "{b:?}");
}

#[test]
fn no_ike_proposal_in_common() {
    let [a, b] = failures(|tunnels| {
        tunnels[B].ike = ike_policy(Encryption::Aes256Gcm16, Integrity::Sha256, Prf::Sha256, Group::Modp2048);
    });
    assert_eq!(
        a,
        [
            "One IKE_SA_INIT: no proposal in common; we offer IKEv2 with aes256gcm16-prfsha256-x25519; the peer refused it \
          without saying what it takes (NO_PROPOSAL_CHOSEN): compare ike.encryption, ike.integrity, ike.prf and ike.dh \
          with the peer's; it also refuses so where it has no tunnel to this address, or one of IKEv1 (ike.version)"
        ]
    );
    assert_eq!(
        b,
        ["One IKE_SA_INIT: no proposal in common; we offer aes256gcm16-prfsha256-modp2048; the peer offers \
          aes256gcm16-prfsha256-x25519; first difference: dh: modp2048 here, x25519 there"]
    );
}

#[test]
fn no_esp_proposal_in_common() {
    let [a, b] = failures(|tunnels| {
        tunnels[B].ipsec.encryption = vec![Encryption::Aes128];
    });
    assert_eq!(
        a,
        [
            "Two IKE_AUTH: no proposal in common for packets; we offer ESP with aes256gcm16-esn|noesn; the peer refused it \
          without saying what it takes (NO_PROPOSAL_CHOSEN): compare ipsec.encryption, ipsec.integrity and ipsec.esn with \
          the peer's, and ipsec.protocol, for it may use AH"
        ]
    );
    assert_eq!(
        b,
        ["Two IKE_AUTH: no proposal in common; we offer aes128-sha256-esn|noesn; the peer offers \
          aes256gcm16-esn|noesn; first difference: encryption: aes128 here, aes256gcm16 there"]
    );
}

#[test]
fn no_subnets_in_common() {
    let [a, b] = failures(|tunnels| tunnels[B].local_ts = vec![subnet("172.16.0.0/12")]);
    assert_eq!(
        a,
        [
            "Two IKE_AUTH: subnets do not match; ours: local 10.1.0.0/16, remote 10.2.0.0/16; the peer refused them \
          without saying what it takes (TS_UNACCEPTABLE)"
        ]
    );
    assert_eq!(
        b,
        [
            "Two IKE_AUTH: subnets do not match; ours: local 172.16.0.0/12, remote 10.1.0.0/16; the peer's, seen from \
          here: local 10.2.0.0/16, remote 10.1.0.0/16"
        ]
    );
}

#[test]
fn no_tunnel_for_the_address() {
    let [a, b] = failures(|tunnels| tunnels[B].peer = Some("192.0.2.77".parse().unwrap()));
    assert!(a[0].starts_with("One IKE_SA_INIT: no proposal in common"), "{a:?}");
    assert_eq!(b, ["no tunnel One IKE_SA_INIT: no tunnel is configured between 198.51.100.1 and 192.0.2.1"]);
}

fn hosts(count: usize) -> Vec<TrafficSelector> {
    (0..count).map(|n| subnet(&format!("10.1.{}.{}/32", n / 100, n % 100))).collect()
}

#[test]
fn more_subnets_than_can_be_said() {
    let words = "256 or more subnets on one side, and IKEv2 holds 255 a tunnel: join some of them, or divide them among \
                 several tunnels";
    let [a, b] = failures(|tunnels| tunnels[A].local_ts = hosts(256));
    assert_eq!((a, b), (vec![format!("Two IKE_SA_INIT: {words}")], vec![]));
    let [a, b] = failures(|tunnels| tunnels[B].remote_ts = hosts(256));
    assert!(a[0].contains("TS_UNACCEPTABLE"), "{a:?}");
    assert_eq!(b, [format!("Two IKE_AUTH: {words}")]);

    let mut tunnels = plain_tunnels();
    tunnels[A].local_ts = hosts(255);
    let mut world = World::new(3, tunnels);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert_eq!(world.child(B).remote_ts.len(), 255);
}

#[test]
fn nobody_answers() {
    let mut tunnels = plain_tunnels();
    tunnels[A].peer = None;
    let mut world = World::new(2, tunnels);
    world.ends[A].peer = "198.51.100.99".parse().unwrap();
    world.connect(A);
    world.seconds(60);
    assert_eq!(
        world.ends[A].failures,
        [
            "One IKE_SA_INIT: no answer from 198.51.100.99:500 to 5 requests from UDP port 500 within 15.5 s; nothing \
          ever came back: check the peer's address, that it runs IKE, and that UDP ports 500 and 4500 pass the \
          firewalls both ways"
        ]
    );
    assert_eq!(world.wire.len(), 5);
    let counters = world.ends[A].endpoint.counters();
    assert_eq!(counters.retransmissions, 4);
    assert_eq!(counters.exchanges(ExchangeType::IkeSaInit, ExchangeResult::TimedOut), 1);
}

#[test]
fn the_blame_is_sorted() {
    let cause = Cause::NoTunnel { local: [0; 4].into(), remote: [0; 4].into() };
    assert_eq!(cause.blame(), Blame::ConfigMismatch);
    assert_eq!(Cause::TooManyRetries.blame(), Blame::PeerMisbehaved);
}
