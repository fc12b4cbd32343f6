//! Bad input changes nothing but a counter.

use adit_ike::*;
use proptest::prelude::*;
use rand_chacha::rand_core::Rng;

use crate::world::*;

fn path_to_b() -> Path {
    Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_datagrams_are_counted_and_nothing_else(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..40),
        port in prop::sample::select(vec![500u16, 4500]),
    ) {
        let mut world = World::new(1, plain_tunnels());
        let mut path = path_to_b();
        path.local.set_port(port);
        for datagram in &datagrams {
            prop_assert!(world.deliver(B, path, datagram).is_empty());
        }
        let counters = world.ends[B].endpoint.counters();
        let dropped: u64 = counters.drops().iter().map(|(_, count)| count).sum();
        prop_assert_eq!(dropped, counters.received);
        prop_assert!(world.ends[B].endpoint.poll_timeout().is_none());
    }
}

#[test]
fn truncated_and_changed_datagrams_do_not_disturb_a_handshake() {
    for seed in 0..40 {
        let mut world = World::new(seed, plain_tunnels());
        world.connect(A);
        for step in 0..8 {
            let wire: Vec<_> = world.wire.clone();
            for (side, payload) in wire {
                let to = 1 - side;
                let mut path = path_to_b();
                if to == A {
                    std::mem::swap(&mut path.local, &mut path.remote);
                }
                let cut = world.rng.next_u32() as usize % payload.len();
                world.deliver(to, path, &payload[..cut]);
                let mut changed = payload.clone();
                // Not in a first message: nothing there is authenticated, and another one is another attempt.
                if step > 2 && payload[18] != 34 {
                    let at = world.rng.next_u32() as usize % changed.len();
                    changed[at] ^= 1 << (world.rng.next_u32() % 8);
                    world.deliver(to, path, &changed);
                }
            }
            world.run(std::time::Duration::from_millis(4));
        }
        world.assert_up();
        assert!(world.ends.iter().all(|end| end.failures.is_empty() && end.downs.is_empty()));
        world.seconds(60);
        world.assert_up();
    }
}

#[test]
fn every_bit_of_a_protected_message_counts() {
    let mut world = World::new(3, plain_tunnels());
    world.connect(A);
    world.seconds(9);
    let (_, probe) =
        world.wire.iter().find(|(side, payload)| *side == A && payload[18] == 37).unwrap().clone();
    let before = world.ends[B].endpoint.counters().clone();
    for at in 0..probe.len() {
        for bit in 0..8 {
            let mut changed = probe.clone();
            changed[at] ^= 1 << bit;
            world.deliver(B, path_to_b(), &changed);
        }
    }
    let after = world.ends[B].endpoint.counters().clone();
    assert_eq!(after.repeated_answers, before.repeated_answers);
    let done = |counters: &Counters| counters.exchanges(ExchangeType::Informational, ExchangeResult::Done);
    assert_eq!(done(&after), done(&before));
    assert!(after.failed_integrity > before.failed_integrity + 100);
    world.assert_up();
}

#[test]
fn replays_get_the_same_answer_or_none() {
    let mut world = World::new(4, plain_tunnels());
    world.connect(A);
    world.seconds(20);
    let wire = world.wire.clone();
    for (side, payload) in &wire {
        let mut path = path_to_b();
        if *side == B {
            std::mem::swap(&mut path.local, &mut path.remote);
        }
        world.deliver(1 - side, path, payload);
    }
    world.assert_up();
    assert!(world.ends[B].endpoint.counters().old_message_id > 0);
}

#[test]
fn esp_and_keepalives_on_the_nat_traversal_port_are_left_alone() {
    let mut world = World::new(5, plain_tunnels());
    let mut path = path_to_b();
    path.local.set_port(4500);
    for datagram in [&[0xff][..], &[0, 0, 1, 1, 0, 0, 0, 1, 9, 9], &[], &[0, 0, 0]] {
        assert!(world.deliver(B, path, datagram).is_empty());
    }
    assert_eq!(*world.ends[B].endpoint.counters(), Counters::default());
}

#[test]
fn other_versions_are_counted() {
    let mut world = World::new(6, plain_tunnels());
    world.connect(A);
    let mut version_3 = world.wire[0].1.clone();
    version_3[17] = 0x30;
    world.deliver(B, path_to_b(), &version_3);
    assert_eq!(world.ends[B].endpoint.counters().unsupported_version, 1);
}

#[test]
fn a_strangers_proposal_does_not_touch_a_tunnel_that_is_up() {
    let mut tunnels = plain_tunnels();
    tunnels[A].ike.encryption = vec![Encryption::Aes128];
    let mut stranger = World::new(7, tunnels);
    stranger.connect(A);
    let mut world = World::new(8, plain_tunnels());
    world.connect(A);
    world.seconds(1);
    world.deliver(B, path_to_b(), &stranger.wire[0].1);
    world.assert_up();
    let end = &world.ends[B];
    assert!(
        end.failures.iter().all(|failure| failure.starts_with("no tunnel One IKE_SA_INIT")),
        "{}",
        world.story()
    );
    assert_eq!(end.failures.len(), 1);
}

#[test]
fn strangers_are_reported_now_and_then() {
    for known in [true, false] {
        let mut tunnels = plain_tunnels();
        tunnels[A].ike.encryption = vec![Encryption::Aes128];
        if !known {
            tunnels[B].peer = Some("192.0.2.77".parse().unwrap());
        }
        let mut world = World::new(9, tunnels);
        world.connect(A);
        let mut forged = world.wire[0].1.clone();
        for spi in 1..=200u8 {
            forged[..8].fill(spi);
            assert_eq!(world.deliver(B, path_to_b(), &forged).len(), 1, "every one is answered");
        }
        assert_eq!(world.ends[B].failures.len(), 8);
        world.seconds(10);
        for spi in 1..=200u8 {
            forged[..8].fill(spi);
            world.deliver(B, path_to_b(), &forged);
        }
        assert_eq!(world.ends[B].failures.len(), 9);
    }
}
