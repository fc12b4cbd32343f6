//! Peers that turn out to be somebody else, or to speak something else, than expected.

use std::time::Duration;

use adit_ike::*;

use crate::world::*;

fn path_to_b() -> Path {
    Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() }
}

#[test]
fn a_request_of_a_higher_version_is_told_ours_now_and_then() {
    let mut world = World::new(1, plain_tunnels());
    world.connect(A);
    let mut version_3 = world.wire[0].1.clone();
    version_3[17] = 0x30;
    version_3[18] = 99;
    let [answer] = &world.deliver(B, path_to_b(), &version_3)[..] else { panic!("one answer") };
    assert_eq!(answer[..16], version_3[..16]);
    // Notify, version 2.0, the exchange that came, a response; INVALID_MAJOR_VERSION.
    assert_eq!(answer[16..20], [41, 0x20, 99, 0x20]);
    assert_eq!(answer[28..], [0, 0, 0, 8, 0, 0, 0, 5]);
    let answers = (0..100).map(|_| world.deliver(B, path_to_b(), &version_3).len()).sum::<usize>();
    assert_eq!(answers, 7);
    assert_eq!(world.ends[B].endpoint.counters().unsupported_version, 101);

    version_3[19] |= 0x20;
    world.seconds(60);
    assert!(world.deliver(B, path_to_b(), &version_3).is_empty(), "an answer is not answered");
}

#[test]
fn a_peer_that_answers_in_ikev1_is_told_from_one_that_does_not_answer() {
    let mut world = World::new(2, plain_tunnels());
    world.faults.loss = 1000;
    world.connect(A);
    let mut answer = world.wire[0].1[..28].to_vec();
    answer[17] = 0x10;
    answer[27] = 28;
    let back = Path { local: path_to_b().remote, remote: path_to_b().local };
    world.deliver(A, back, &answer);
    world.seconds(60);
    assert_eq!(
        world.ends[A].failures,
        ["One IKE_SA_INIT: different versions of IKE: we are configured for IKEv2, the peer speaks IKEv1"]
    );
}

#[test]
fn ikev2_to_a_tunnel_of_ikev1_is_refused_in_words() {
    let mut tunnels = plain_tunnels();
    tunnels[B].ike.version = Version::Ikev1;
    let mut world = World::new(3, tunnels);
    world.connect(A);
    world.seconds(1);
    assert_eq!(
        world.ends[B].failures,
        ["One IKE_SA_INIT: different versions of IKE: we are configured for IKEv1, the peer speaks IKEv2"]
    );
    assert!(world.ends[A].failures[0].contains("NO_PROPOSAL_CHOSEN"), "{:?}", world.ends[A].failures);
}

#[test]
fn an_initiator_that_goes_no_further_is_reported_once() {
    let mut world = World::new(4, plain_tunnels());
    world.connect(A);
    world.run(Duration::from_millis(6));
    world.faults.loss = 1000;
    world.seconds(60);
    let [failure] = &world.ends[B].failures[..] else { panic!("{}", world.story()) };
    assert_eq!(
        failure,
        "One IKE_SA_INIT: the peer began, was answered at 192.0.2.1:500, and did not go on within 30.0 s: check that \
         our answers pass the firewalls, and UDP port 4500 both ways if one side is behind a NAT"
    );
}

/// B has several tunnels between the same addresses, and A wants the last one.
fn several_tunnels(seed: u64, first: &[Encryption], second: &[Encryption], offer: &[Encryption]) -> World {
    let mut tunnels = plain_tunnels();
    tunnels[A].ike.encryption = offer.to_vec();
    tunnels[B].ike.encryption = second.to_vec();
    let mut other = TunnelConfig {
        id: TunnelId(1),
        peer_id: "c.example".parse().unwrap(),
        psk: Psk::new("another"),
        ..tunnels[B].clone()
    };
    other.ike.encryption = first.to_vec();
    let mut world = World::new(seed, tunnels);
    let now = world.now;
    // A third one is like the first: what most allow is not what A wants.
    for id in [1, 2] {
        world.ends[B].endpoint.set_tunnel(now, TunnelConfig { id: TunnelId(id), ..other.clone() });
    }
    world
}

#[test]
fn tunnels_between_the_same_addresses_are_answered_with_what_they_share() {
    use Encryption::*;
    let mut world = several_tunnels(5, &[Aes128, Aes256], &[Aes256], &[Aes128, Aes256]);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    assert!(world.ends[A].ups[0].0.starts_with("aes256-"), "{:?}", world.ends[A].ups);
}

#[test]
fn a_tunnel_that_shares_nothing_with_another_comes_up_at_the_second_attempt() {
    use Encryption::*;
    let mut world = several_tunnels(6, &[Aes128], &[Aes256], &[Aes128, Aes256]);
    world.ends[A].keeps_trying = true;
    world.connect(A);
    world.seconds(1);
    assert_eq!(
        world.ends[B].failures,
        [
            "One IKE_AUTH: several tunnels have these addresses, and the peer was given the algorithms of another one, \
          aes128-sha256-prfsha256-x25519; this one offers aes256-sha256-prfsha256-x25519: the next attempt is given \
          those"
        ]
    );
    world.seconds(10);
    world.assert_up();
    assert_eq!(world.ends[B].failures.len(), 1);
}

#[test]
fn a_tunnel_is_looked_up_by_ids_then_by_addresses_then_among_those_of_any_peer() {
    let [a, b] = plain_tunnels();
    let any = TunnelConfig { id: TunnelId(1), peer: None, ..b.clone() };
    let chosen = |b: TunnelConfig, any: TunnelConfig| {
        let mut world = World::new(7, [a.clone(), b]);
        let now = world.now;
        world.ends[B].endpoint.set_tunnel(now, any);
        world.connect(A);
        world.seconds(1);
        world.assert_up();
        let mut up = [TUNNEL, TunnelId(1)].into_iter();
        up.find(|id| {
            let before = world.ends[B].downs.len();
            let now = world.now;
            world.ends[B].endpoint.close(now, *id);
            world.settle(B);
            world.ends[B].downs.len() > before
        })
    };
    assert_eq!(chosen(b.clone(), any.clone()), Some(TUNNEL), "both fit: that of its address");
    let other_id = TunnelConfig { peer_id: "c.example".parse().unwrap(), ..b.clone() };
    assert_eq!(chosen(other_id, any.clone()), Some(TunnelId(1)), "only that of any has its ID");
    let other_key = TunnelConfig { psk: Psk::new("another"), ..b };
    assert_eq!(chosen(other_key, any), Some(TunnelId(1)), "only that of any has its key");
}
