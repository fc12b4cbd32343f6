//! A peer, or a stranger, that means ill: what it says costs no panic, no memory without bound, and no word to people
//! that is not true.

use std::time::Duration;

use super::{
    tests::{Pair, notify, tunnel},
    *,
};
use crate::{
    Counts, Event,
    wire::{ExchangeType, Header, NotifyType, Payload, Protocol},
};

const TUNNEL: TunnelId = TunnelId(1);

/// A pair that is up, with all events taken.
fn up(mut pair: Pair, flight: Vec<Vec<u8>>) -> Pair {
    pair.deliver(0, flight);
    [0, 1].into_iter().for_each(|side| drop(events(&mut pair, side)));
    pair
}

fn plain() -> Pair {
    let (pair, flight) = Pair::until(3);
    up(pair, flight)
}

fn events(pair: &mut Pair, side: usize) -> Vec<Event> {
    std::iter::from_fn(|| pair.ends[side].poll_event()).collect()
}

fn established(pair: &Pair, side: usize) -> &Established {
    pair.ends[side].sas.values().find_map(IkeSa::established).unwrap()
}

#[test]
fn a_cookie2_of_another_length_than_there_are_is_not_given_back() {
    for (length, answers) in [(0, 0), (7, 0), (8, 1), (64, 1), (65, 0), (65_450, 0)] {
        let mut pair = plain();
        // What MOBIKE's own requests say beside it, and the answer to which is longer.
        let nat = notify(NotifyType::NAT_DETECTION_SOURCE_IP, []);
        let cookie = notify(NotifyType::COOKIE2, vec![7; length]);
        let request = pair.forge(0, ExchangeType::Informational, false, 2, &[cookie.clone(), nat]);
        let answer = pair.deliver(1, vec![request]).remove(0);
        let spi = Header::decode(&answer).unwrap().0.initiator_spi;
        let channel = pair.ends[0].sas.get_mut(&spi).unwrap().channel().unwrap();
        let said = channel.incoming.open(&answer).unwrap().payloads().unwrap();
        assert_eq!(said.iter().filter(|payload| **payload == cookie).count(), answers, "{length} octets");
        assert!(pair.ends[1].sas.values().any(IkeSa::is_usable));
    }
}

#[test]
fn who_was_refused_in_ike_auth_neither_reports_failures_nor_keeps_its_place() {
    let (mut pair, _) = Pair::until(2);
    let refused = pair.forge(0, ExchangeType::IkeAuth, false, 1, &[Payload::Nonce(vec![0; 32])]);
    assert_eq!(pair.deliver(1, vec![refused]).len(), 1);
    events(&mut pair, 1);
    let (begun, linger) = (pair.now, pair.ends[1].config.linger);
    for id in 2..10 {
        let kind = NotifyType::AUTHENTICATION_FAILED;
        let request = pair.forge(0, ExchangeType::Informational, false, id, &[notify(kind, [])]);
        assert!(pair.deliver(1, vec![request]).is_empty());
        assert!(events(&mut pair, 1).is_empty(), "nothing that people need to know");
        pair.now += linger / 4;
        pair.ends[1].handle_timeout(pair.now);
    }
    assert!(pair.now >= begun + linger);
    assert_eq!(pair.ends[1].counts(), Counts::default());
}

#[test]
fn an_ike_sa_that_is_closed_again_and_again_is_forgotten_all_the_same() {
    let mut pair = plain();
    let (begun, linger) = (pair.now, pair.ends[1].config.linger);
    let close = [Payload::Delete { protocol: Protocol::Ike, spis: vec![] }];
    for id in 2..10 {
        let said = [&close[..], &[notify(NotifyType::AUTHENTICATION_FAILED, [])]].concat();
        let request = pair.forge(0, ExchangeType::Informational, false, id, &said[..1 + usize::from(id > 2)]);
        pair.deliver(1, vec![request]);
        let told = events(&mut pair, 1);
        assert_eq!(told.is_empty(), id > 2, "{told:?}");
        pair.now += linger / 4;
        pair.ends[1].handle_timeout(pair.now);
    }
    assert!(pair.now >= begun + linger);
    assert_eq!(pair.ends[1].counts(), Counts::default());
}

#[test]
fn nothing_more_is_asked_on_an_ike_sa_that_ended_in_a_syntax_error() {
    let mut pair = plain();
    let inbound = established(&pair, 1).children[0].inbound_spi;
    // A probe is under way, and a DELETE waits for its answer.
    pair.now += Duration::from_secs(9);
    pair.ends[1].handle_timeout(pair.now);
    let probe = pair.sent(1);
    pair.ends[1].close_child(pair.now, TUNNEL, inbound);
    let answer = pair.deliver(0, probe);
    let request = pair.forge(0, ExchangeType::CreateChildSa, false, 2, &[Payload::Nonce(vec![0; 32])]);
    assert_eq!(pair.deliver(1, vec![request]).len(), 1, "INVALID_SYNTAX");
    assert!(pair.deliver(1, answer).is_empty());
}
