//! A peer with the right keys that begins more quick modes, and makes more pairs, than it needs.

use super::*;
use crate::{
    Encryption, Event, Integrity, Mode, Version,
    sa::tests::{ADDRESSES, Pair, tunnel},
};

/// An end's view of a tunnel of IKEv1.
pub(in crate::v1) fn v1_tunnel(own: usize, mode: Mode) -> TunnelConfig {
    let mut tunnel = tunnel(own);
    (tunnel.ike.version, tunnel.ike.mode) = (Version::Ikev1, mode);
    tunnel.ike.encryption = vec![Encryption::Aes128];
    tunnel.ike.integrity = vec![Integrity::Sha256];
    tunnel.ipsec.esn = false;
    tunnel
}

/// Two ends with a tunnel of IKEv1 that is up, without PFS.
pub(in crate::v1) fn established() -> Pair {
    let mut pair = Pair::new();
    [0, 1].into_iter().for_each(|side| pair.ends[side].set_tunnel(pair.now, v1_tunnel(side, Mode::Main)));
    pair.ends[0].connect(pair.now, TunnelId(1), ADDRESSES[1].parse().unwrap());
    exchange(&mut pair);
    assert_eq!(children(&pair), [1, 1]);
    pair
}

/// Lets what the ends say to each other arrive until they have nothing more to say.
pub(in crate::v1) fn exchange(pair: &mut Pair) {
    let flight = pair.sent(0);
    go_on(pair, flight);
}

/// The same, from what the first end has said.
pub(in crate::v1) fn go_on(pair: &mut Pair, mut flight: Vec<Vec<u8>>) {
    while !flight.is_empty() {
        flight = pair.deliver(1, flight);
        flight = pair.deliver(0, flight);
    }
}

fn children(pair: &Pair) -> [usize; 2] {
    [0, 1].map(|side| pair.ends[side].counts().child_sas)
}

/// The first end begins a quick mode, however many it has under way.
fn begin(pair: &mut Pair, subnet: &str, length: u8) {
    let (now, end) = (pair.now, &mut pair.ends[0]);
    let local = TrafficSelector::from_prefix(subnet.parse().unwrap(), length);
    let remote = TrafficSelector::from_prefix("10.2.0.0".parse().unwrap(), 16);
    let current = end.v1.current(TunnelId(1)).unwrap();
    end.with_v1(current, |end, mut sa| {
        end.begin_quick(now, &mut sa, Want { tunnel: TunnelId(1), local, remote, replaces: None });
        Some(sa)
    });
}

fn quicks(pair: &Pair, side: usize) -> usize {
    let table = &pair.ends[side].v1;
    table.current(TunnelId(1)).and_then(|cookie| table.sa(cookie)?.established()).unwrap().quicks().count()
}

#[test]
fn quick_modes_that_are_not_gone_on_with_are_few() {
    let mut pair = established();
    for subnet in 0..200 {
        begin(&mut pair, &format!("10.1.{subnet}.0"), 24);
        let offers = pair.sent(0);
        pair.deliver(1, offers);
    }
    assert_eq!(quicks(&pair, 1), PEERS_AT_ONCE);
    assert_eq!(pair.ends[1].counters().overloaded, 200 - PEERS_AT_ONCE as u64);
    assert_eq!(pair.ends[1].counts().spis, 1 + PEERS_AT_ONCE, "what was refused holds no SPI");
}

#[test]
fn pairs_for_the_same_subnets_that_are_never_used_are_few() {
    let mut pair = established();
    for _ in 0..60 {
        begin(&mut pair, "10.1.0.0", 16);
        let offers = pair.sent(0);
        pair.deliver(1, offers);
    }
    assert_eq!(pair.ends[1].counts().child_sas, PAIRS_ALIKE);
    assert_eq!((pair.ends[1].counts().spis, quicks(&pair, 1)), (PAIRS_ALIKE, PAIRS_ALIKE - 1));
}

#[test]
fn a_pair_that_was_replaced_makes_room_for_the_next() {
    let mut pair = established();
    for _ in 0..60 {
        pair.now += std::time::Duration::from_millis(1);
        begin(&mut pair, "10.1.0.0", 16);
        exchange(&mut pair);
        assert!(children(&pair)[1] <= PAIRS_ALIKE);
    }
    assert_eq!(pair.ends[1].counters().overloaded, 0);
    let newest = |side: usize| {
        let children = pair.ends[side].v1.families[&TunnelId(1)].children.iter();
        let child =
            children.filter(|child| child.retire_at.is_none()).max_by_key(|child| child.since).unwrap();
        (child.inbound_spi, child.outbound_spi)
    };
    let (inbound, outbound) = newest(0);
    assert_eq!(newest(1), (outbound, inbound), "the last pair is the one that both use");
    let told = children(&pair);
    assert_eq!(told[0], told[1], "what made room is said to be gone");
}

#[test]
fn an_sa_whose_message_ids_come_to_an_end_is_renewed() {
    let mut pair = established();
    std::iter::from_fn(|| pair.ends[1].poll_event()).for_each(drop);
    let header = |id| Header::new(1, 2, ExchangeType::InformationalMode, id);
    let current = pair.ends[1].v1.current(TunnelId(1)).unwrap();
    let established = pair.ends[1].v1.sas.get_mut(&current).and_then(Sa::established_mut).unwrap();
    for id in 1.. {
        if established.cipher.is_worn() {
            break;
        }
        established.cipher.seal(header(id), &[]);
        established.cipher.finish(id);
    }
    begin(&mut pair, "10.1.0.0", 16);
    exchange(&mut pair);
    let ups = std::iter::from_fn(|| pair.ends[1].poll_event()).filter(|e| matches!(e, Event::IkeUp { .. }));
    assert_eq!(ups.count(), 0, "a quick mode is not what wears");
    let probe = pair.now + std::time::Duration::from_secs(9);
    pair.now = probe;
    pair.ends[0].handle_timeout(probe);
    exchange(&mut pair);
    let ups = std::iter::from_fn(|| pair.ends[1].poll_event()).filter(|e| matches!(e, Event::IkeUp { .. }));
    assert_eq!(ups.count(), 1);
    assert_ne!(pair.ends[1].v1.current(TunnelId(1)), Some(current));
    assert_eq!(pair.ends[1].v1.sas.values().filter(|sa| sa.role == crate::sa::Role::Initiator).count(), 1);
}
