//! A peer, or a stranger, that means ill: what it says costs no panic, no memory without bound, and no word to people
//! that is not true.

use std::time::Duration;

use super::{
    tests::{Pair, notify, tunnel},
    *,
};
use crate::{
    Counts, Event, Group,
    config::IkePolicy,
    crypto::dh::{JobResult, Outcome},
    wire::{ExchangeType, Header, Notify, NotifyType, Payload, Protocol},
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

fn with_additional() -> Pair {
    let mut pair = Pair::new();
    for side in [0, 1] {
        let tunnel = tunnel(side);
        let ike = IkePolicy { additional_ke: vec![Group::P256], ..tunnel.ike };
        pair.ends[side].set_tunnel(pair.now, TunnelConfig { ike, ..tunnel });
    }
    let (pair, flight) = pair.go_on(5);
    up(pair, flight)
}

fn events(pair: &mut Pair, side: usize) -> Vec<Event> {
    std::iter::from_fn(|| pair.ends[side].poll_event()).collect()
}

fn established(pair: &Pair, side: usize) -> &Established {
    pair.ends[side].sas.values().find_map(IkeSa::established).unwrap()
}

/// The message that an end sends, with an unknown critical payload in the place of what it says.
fn undecodable(pair: &mut Pair, from: usize, message: &[u8]) -> Vec<u8> {
    let header = Header::decode(message).unwrap().0;
    let end = &mut pair.ends[from];
    let spi = if header.from_initiator { header.initiator_spi } else { header.responder_spi };
    let channel = end.sas.get_mut(&spi).unwrap().channel().unwrap();
    channel.outgoing.seal_critical(header, 200, &mut *end.rng)
}

/// Whatever came, what is given back must fit in a message, which a peer that knows no fragments gets whole.
#[test]
fn a_cookie2_of_another_length_than_there_are_is_not_given_back() {
    for (length, answers) in [(0, 0), (7, 0), (8, 1), (64, 1), (65, 0), (65_450, 0)] {
        let mut pair = plain();
        let sas = pair.ends.iter_mut().flat_map(|end| end.sas.values_mut());
        sas.for_each(|sa| sa.extensions.fragmentation = false);
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
fn a_late_copy_of_the_first_message_of_an_ike_sa_that_is_gone_begins_nothing() {
    let (mut pair, flight) = Pair::until(0);
    let first = flight[0].clone();
    let answer = pair.deliver(1, flight);
    let flight = pair.deliver(0, answer);
    let flight = pair.deliver(1, flight);
    let mut pair = up(pair, flight);
    let now = pair.now;
    pair.ends[1].close(now, TUNNEL);
    let closing: Vec<_> = std::iter::from_fn(|| pair.ends[1].poll_transmit()).map(|t| t.payload).collect();
    let answer = pair.deliver(0, closing);
    pair.deliver(1, answer);
    assert_eq!(pair.ends[1].counts(), Counts::default());
    assert!(pair.deliver(1, vec![first]).is_empty());
    assert_eq!(pair.ends[1].counts(), Counts::default());
}

#[test]
fn a_pair_that_is_rekeyed_without_end_makes_no_more_than_so_many() {
    let mut pair = plain();
    let outbound = established(&pair, 0).children[0].inbound_spi;
    let about = Some((Protocol::Esp, outbound.to_be_bytes().to_vec()));
    for id in 2..1000 {
        let [offer, ts_initiator, ts_responder] = child::offer(&tunnel(0), None, id + 1000, &[]);
        let payloads = [
            Payload::Notify(Notify { kind: NotifyType::REKEY_SA, about: about.clone(), data: vec![] }),
            offer,
            Payload::Nonce(vec![0; 32]),
            ts_initiator,
            ts_responder,
        ];
        let request = pair.forge(0, ExchangeType::CreateChildSa, false, id, &payloads);
        assert_eq!(pair.deliver(1, vec![request]).len(), 1);
    }
    let counts = pair.ends[1].counts();
    assert_eq!((counts.child_sas, counts.spis), (512, 512));
}

#[test]
fn a_pair_that_the_peer_made_by_an_answer_that_cannot_be_read_is_deleted() {
    let mut pair = plain();
    let old = established(&pair, 0).children[0].inbound_spi;
    pair.ends[0].set_tunnel(pair.now, TunnelConfig { initiates: false, ..tunnel(0) });
    pair.ends[0].rekey_child(pair.now, TUNNEL, old);
    let request = pair.sent(0);
    let answer = pair.deliver(1, request).remove(0);
    assert_eq!(pair.ends[1].counts().child_sas, 2);
    let changed = undecodable(&mut pair, 1, &answer);
    let delete = pair.deliver(0, vec![changed]);
    let answer = pair.deliver(1, delete);
    pair.deliver(0, answer);
    assert_eq!([0, 1].map(|side| pair.ends[side].counts().child_sas), [1, 1]);
    assert_eq!([0, 1].map(|side| pair.ends[side].counts().spis), [1, 1]);
    assert_eq!(established(&pair, 0).children[0].inbound_spi, old);
}

#[test]
fn an_ike_sa_whose_rekey_was_answered_so_is_closed_on_both_sides() {
    for exchanges in [1, 2] {
        let mut pair = if exchanges == 1 { plain() } else { with_additional() };
        pair.ends[0].rekey_ike(pair.now, TUNNEL);
        let mut flight = pair.sent(0);
        for _ in 1..exchanges {
            flight = pair.deliver(1, flight);
            flight = pair.deliver(0, flight);
        }
        let answer = pair.deliver(1, flight).remove(0);
        let moved = pair.ends[1].sas.values().filter(|sa| sa.is_usable()).count();
        assert_eq!((moved, pair.ends[1].counts().ike_sas), (1, 2), "the peer's pair has moved");
        let changed = undecodable(&mut pair, 1, &answer);
        let close = pair.deliver(0, vec![changed]);
        assert_eq!(pair.ends[0].counts().child_sas, 0);
        assert_eq!(Header::decode(&close[0]).unwrap().0.exchange, ExchangeType::Informational);
        pair.deliver(1, close);
    }
}

#[test]
fn a_value_that_was_computed_for_another_exchange_is_not_sent_in_a_follow_up() {
    let mut pair = with_additional();
    pair.ends[0].rekey_ike(pair.now, TUNNEL);
    let flight = pair.sent(0);
    let flight = pair.deliver(1, flight);
    let path = pair.ends[0].sas.values().next().unwrap().path;
    flight.iter().for_each(|bytes| pair.ends[0].handle_datagram(pair.now, path, bytes));
    // The secret of CREATE_CHILD_SA, and with it the public value of what follows.
    let job = pair.ends[0].poll_job().unwrap();
    pair.ends[0].handle_job(pair.now, job.run());
    let following = pair.ends[0].poll_job().unwrap();
    let JobResult { sa, outcome } = following.run();
    let secret = crate::crypto::dh::Secret::random(Group::X25519, &mut *pair.ends[0].rng);
    let public = secret.public();
    pair.ends[0].handle_job(pair.now, JobResult { sa, outcome: Outcome::Generated { secret, public } });
    assert!(pair.ends[0].poll_transmit().is_none(), "of another group");
    pair.ends[0].handle_job(pair.now, JobResult { sa, outcome });
    let request = pair.sent(0);
    assert_eq!(request.len(), 1);
    let answer = pair.deliver(1, request);
    pair.deliver(0, answer);
    assert!(established(&pair, 0).is_usable());
}

#[test]
fn a_tunnel_that_was_closed_is_not_brought_back_by_the_rest_of_a_rekey() {
    let mut pair = with_additional();
    pair.ends[0].rekey_ike(pair.now, TUNNEL);
    let flight = pair.sent(0);
    let flight = pair.deliver(1, flight);
    let follow_up = pair.deliver(0, flight);
    assert_eq!(Header::decode(&follow_up[0]).unwrap().0.exchange, ExchangeType::IkeFollowupKe);
    // The other end's own rekey is on its way when it is closed there: it is kept until that is answered.
    pair.ends[1].rekey_ike(pair.now, TUNNEL);
    assert_eq!(pair.sent(1).len(), 1);
    pair.ends[1].close(pair.now, TUNNEL);
    events(&mut pair, 1);
    pair.deliver(1, follow_up);
    let told = events(&mut pair, 1);
    assert!(!told.iter().any(|event| matches!(event, Event::IkeUp { .. })), "{told:?}");
    assert_eq!(pair.ends[1].counts().ike_sas, 1);
}

#[test]
fn an_ike_sa_without_a_child_sa_holds_no_spi_for_one() {
    let elsewhere = crate::TrafficSelector::from_prefix("10.77.0.0".parse().unwrap(), 16);
    let mut pair = Pair::new();
    pair.ends[1].set_tunnel(pair.now, TunnelConfig { local_ts: vec![elsewhere], ..tunnel(1) });
    let (pair, _) = pair.go_on(3);
    let counts = pair.ends[1].counts();
    assert_eq!((counts.established, counts.child_sas, counts.spis), (1, 0, 0));
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
