//! IKE messages that are longer than a packet (RFC 7383).

use std::{collections::BTreeSet, time::Duration};

use adit_ike::*;

use crate::world::*;

/// Two ends whose IKE_AUTH does not fit in a packet.
fn long(seed: u64, addresses: [&str; 2], settings: EndpointConfig) -> World {
    let mut tunnels = tunnels(addresses, [addresses[1], addresses[0]]);
    let hosts: Vec<_> = (0..250).map(|n| subnet(&format!("10.1.{}.0/24", n))).collect();
    tunnels[A].local_ts = hosts.clone();
    tunnels[B].remote_ts = hosts;
    World::with_settings(seed, tunnels, settings)
}

const V4: [&str; 2] = ["192.0.2.1", "198.51.100.1"];
const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// The number of a fragment and how many there are, of a message without marker.
fn fragment(message: &[u8]) -> Option<(u8, u8)> {
    (message.len() > 36 && message[16] == 53).then(|| (message[33], message[35]))
}

#[test]
fn no_packet_is_longer_than_configured() {
    for (addresses, ip) in [(V4, 20), (V6, 40)] {
        for fragment_size in [576, 1280, 1500] {
            let settings = EndpointConfig { fragment_size, ..EndpointConfig::default() };
            let mut world = long(1, addresses, settings);
            world.connect(A);
            world.seconds(1);
            world.assert_up();
            assert_eq!(world.child(B).remote_ts.len(), 250);
            let longest = world.wire.iter().map(|(_, payload)| payload.len() + 8 + ip).max().unwrap();
            assert!((fragment_size - 16..=fragment_size).contains(&longest), "{longest} of {fragment_size}");
        }
    }
}

#[test]
fn the_non_esp_marker_counts_too() {
    let mut tunnels = tunnels(["10.0.0.1", "198.51.100.1"], ["198.51.100.1", "203.0.113.9"]);
    tunnels[A].local_ts = (0..250).map(|n| subnet(&format!("10.1.{n}.0/24"))).collect();
    let mut world = World::new(2, tunnels).behind_nat(A, "203.0.113.9", false);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    let longest = world.wire.iter().map(|(_, payload)| payload.len() + 28).max().unwrap();
    assert_eq!(longest, 1280);
}

#[test]
fn a_lost_fragment_brings_them_all_again_and_one_answer_each_time() {
    let mut world = long(3, V4, EndpointConfig::default());
    world.connect(A);
    world.run(Duration::from_millis(12));
    let request: Vec<_> = world.wire.iter().filter(|(side, m)| *side == A && fragment(m).is_some()).collect();
    let total = request.len();
    assert!(total >= 4, "{total}");
    assert!(world.ends[B].ups.is_empty());
    // All of the answer is lost.
    world.run(Duration::from_millis(2));
    world.faults.loss = 1000;
    world.run(Duration::from_millis(2));
    assert_eq!(world.ends[B].ups.len(), 1);
    world.faults = PERFECT;
    world.seconds(2);
    world.assert_up();
    let sent = |side| world.wire.iter().filter(|(s, m)| *s == side && fragment(m).is_some()).count();
    assert_eq!(sent(A), 2 * total);
    let answer = world.wire.iter().find_map(|(s, m)| fragment(m).filter(|_| *s == B)).unwrap().1;
    assert_eq!(sent(B), 2 * usize::from(answer), "one answer to all fragments of the repeated request");
    assert_eq!(world.ends[B].endpoint.counters().repeated_answers, 1);
}

#[test]
fn fragments_come_in_any_order_and_more_than_once() {
    for seed in 0..200 {
        let settings = EndpointConfig { fragment_size: 600, ..EndpointConfig::default() };
        let mut world = long(seed, V4, settings);
        world.faults = Faults {
            loss: 30,
            duplication: 300,
            delay: (Duration::from_millis(1), Duration::from_millis(300)),
        };
        world.ends[A].keeps_trying = true;
        world.connect(A);
        world.seconds(20);
        world.faults = PERFECT;
        world.seconds(60);
        world.assert_up();
        let numbers: BTreeSet<_> = world.wire.iter().filter_map(|(_, m)| fragment(m)).collect();
        assert!(numbers.len() > 8);
    }
}

#[test]
fn a_fragment_that_was_changed_is_not_believed() {
    let mut world = long(5, V4, EndpointConfig::default());
    world.connect(A);
    world.run(Duration::from_millis(12));
    let path = Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() };
    let (_, mut forged) =
        world.wire.iter().find(|(s, m)| *s == A && fragment(m).is_some_and(|f| f.0 == 2)).unwrap().clone();
    // Of more fragments than there are: would throw away what has come, if it were believed.
    forged[35] += 1;
    world.deliver(B, path, &forged);
    assert_eq!(world.ends[B].endpoint.counters().failed_integrity, 1);
    world.seconds(1);
    world.assert_up();
    assert_eq!(world.ends[A].endpoint.counters().retransmissions, 0);
}
