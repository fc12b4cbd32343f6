//! CREATE_CHILD_SA with a peer that has the right keys and says what it likes.

use std::{sync::Arc, time::Duration};

use super::{
    tests::{ADDRESSES, Pair, notify, tunnel},
    *,
};
use crate::{
    Cause, Event, TrafficSelector, TunnelId,
    event::DownReason,
    wire::{ExchangeType, Header, Notify, NotifyType, Payload, Protocol},
};

const TUNNEL: TunnelId = TunnelId(1);

/// A pair that is up, with all events taken.
fn up() -> Pair {
    let (mut pair, flight) = Pair::until(3);
    pair.deliver(0, flight);
    [0, 1].into_iter().for_each(|side| drop(events(&mut pair, side)));
    pair
}

fn events(pair: &mut Pair, side: usize) -> Vec<Event> {
    std::iter::from_fn(|| pair.ends[side].poll_event()).collect()
}

fn child(pair: &Pair, side: usize) -> (u32, u32) {
    let established = pair.ends[side].sas.values().next().unwrap().established().unwrap();
    (established.children[0].inbound_spi, established.children[0].outbound_spi)
}

/// What a message between the two says, by the keys of the one that gets it.
fn opened(pair: &mut Pair, to: usize, message: &[u8]) -> (Header, Vec<Payload>) {
    let header = Header::decode(message).unwrap().0;
    let spi = if header.from_initiator { header.responder_spi } else { header.initiator_spi };
    let channel = pair.ends[to].sas.get_mut(&spi).unwrap().channel().unwrap();
    (header, channel.incoming.open(message).unwrap().payloads().unwrap())
}

fn kinds(payloads: &[Payload]) -> Vec<NotifyType> {
    payloads.iter().filter_map(|p| if let Payload::Notify(n) = p { Some(n.kind) } else { None }).collect()
}

/// Has the first end rekey its Child SA, and gives it this for an answer. What it sends then.
fn refused(pair: &mut Pair, kind: NotifyType) -> Vec<Vec<u8>> {
    let (spi, _) = child(pair, 0);
    pair.ends[0].rekey_child(pair.now, TUNNEL, spi);
    let request = pair.sent(0).remove(0);
    let (header, payloads) = opened(pair, 1, &request);
    assert_eq!(
        (header.exchange, kinds(&payloads)),
        (ExchangeType::CreateChildSa, vec![NotifyType::REKEY_SA])
    );
    let answer = pair.forge(1, header.exchange, true, header.message_id, &[notify(kind, [])]);
    pair.ends[1].sas.values_mut().next().unwrap().window.expected += 1;
    pair.deliver(0, vec![answer])
}

#[test]
fn what_the_peer_will_not_rekey_is_renewed_from_scratch_by_who_may() {
    for initiates in [true, false] {
        let mut pair = up();
        pair.ends[0].set_tunnel(pair.now, TunnelConfig { initiates, ..tunnel(0) });
        let sent = refused(&mut pair, NotifyType::NO_ADDITIONAL_SAS);
        let exchanges: Vec<_> = sent.iter().map(|m| Header::decode(m).unwrap().0.exchange).collect();
        assert_eq!(exchanges, if initiates { vec![ExchangeType::IkeSaInit] } else { vec![] });
        assert!(events(&mut pair, 0).is_empty(), "nothing has failed that people should know");
        assert!(pair.ends[0].sas.values().any(IkeSa::is_usable));
    }
}

#[test]
fn a_pair_that_the_peer_does_not_have_is_made_anew() {
    let mut pair = up();
    let (old, _) = child(&pair, 0);
    let sent = refused(&mut pair, NotifyType::CHILD_SA_NOT_FOUND);
    let down = events(&mut pair, 0);
    assert!(matches!(down[..], [Event::ChildDown { inbound_spi, .. }] if inbound_spi == old), "{down:?}");
    let (header, payloads) = opened(&mut pair, 1, &sent[0]);
    assert_eq!((header.exchange, kinds(&payloads)), (ExchangeType::CreateChildSa, vec![]));
    let answer = pair.deliver(1, sent);
    pair.deliver(0, answer);
    assert!(matches!(events(&mut pair, 0)[..], [Event::ChildUp { .. }]));
}

#[test]
fn what_cannot_be_done_at_the_time_is_asked_for_again_later() {
    let mut pair = up();
    assert!(refused(&mut pair, NotifyType::TEMPORARY_FAILURE).is_empty());
    let (at, kind) = pair.ends[0].poll_timeout().unwrap();
    assert_eq!(kind, crate::TimerKind::Children);
    assert!((Duration::from_secs(1)..=Duration::from_secs(5)).contains(&(at - pair.now)));
    pair.now = at;
    pair.ends[0].handle_timeout(at);
    let again = pair.sent(0).remove(0);
    assert_eq!(kinds(&opened(&mut pair, 1, &again).1), [NotifyType::REKEY_SA]);
}

#[test]
fn a_syntax_error_ends_the_ike_sa_on_both_sides_without_a_delete() {
    let mut pair = up();
    assert!(refused(&mut pair, NotifyType::INVALID_SYNTAX).is_empty());
    let told = events(&mut pair, 0);
    let cause = Cause::PeerRefused { notify: NotifyType::INVALID_SYNTAX };
    assert!(matches!(&told[0], Event::Failed { cause: c, .. } if *c == cause), "{told:?}");
    assert!(matches!(told[2], Event::IkeDown { reason: DownReason::Broken, .. }), "{told:?}");
    assert_eq!(pair.ends[0].counts(), crate::Counts::default());

    let mut pair = up();
    let request = pair.forge(0, ExchangeType::CreateChildSa, false, 2, &[Payload::Nonce(vec![0; 32])]);
    let answer = pair.deliver(1, vec![request.clone()]);
    let told = events(&mut pair, 1);
    assert!(matches!(told[1], Event::IkeDown { reason: DownReason::Broken, .. }), "{told:?}");
    assert_eq!(pair.deliver(1, vec![request]), answer, "a copy gets the same");
}

#[test]
fn a_rekey_of_no_pair_here_is_told_with_the_spi_that_came() {
    let mut pair = up();
    let about = Some((Protocol::Esp, 0xdead_beefu32.to_be_bytes().to_vec()));
    let payloads = [
        Payload::Notify(Notify { kind: NotifyType::REKEY_SA, about: about.clone(), data: vec![] }),
        child::offer(&tunnel(0), None, 0x1234, &[])[0].clone(),
        Payload::Nonce(vec![0; 32]),
    ];
    let request = pair.forge(0, ExchangeType::CreateChildSa, false, 2, &payloads);
    let answer = pair.deliver(1, vec![request]).remove(0);
    // The answer is to the first end, which has sent nothing of the kind.
    let (_, payloads) = opened(&mut pair, 0, &answer);
    let expected = Notify { kind: NotifyType::CHILD_SA_NOT_FOUND, about, data: vec![] };
    assert_eq!(payloads, [Payload::Notify(expected)]);
    assert!(pair.ends[1].sas.values().any(IkeSa::is_usable));
}

#[test]
fn message_ids_that_run_out_lead_to_a_rekey_of_the_ike_sa() {
    let mut pair = up();
    let near = u32::MAX - 100;
    for side in [0, 1] {
        let window = &mut pair.ends[side].sas.values_mut().next().unwrap().window;
        if side == 0 { window.next = near } else { window.expected = near }
    }
    let probe = {
        pair.now += Duration::from_secs(9);
        pair.ends[0].handle_timeout(pair.now);
        pair.sent(0)
    };
    let answer = pair.deliver(1, probe);
    pair.deliver(0, answer);
    let mut rekeys = 0;
    for side in [0, 1] {
        pair.ends[side].handle_timeout(pair.now);
        for message in pair.sent(side) {
            let (header, payloads) = opened(&mut pair, 1 - side, &message);
            let of_ike =
                payloads.iter().any(|p| matches!(p, Payload::Sa(sa) if sa[0].protocol == Protocol::Ike));
            rekeys += u32::from(header.exchange == ExchangeType::CreateChildSa && of_ike);
        }
    }
    assert_eq!(rekeys, 2, "whoever sees it first");
}

#[test]
fn a_flow_that_the_peer_left_out_gets_a_child_sa_when_the_peer_takes_it() {
    let mut pair = Pair::new();
    let narrow = TrafficSelector::from_prefix("10.1.7.0".parse().unwrap(), 24);
    let narrowed = TunnelConfig { remote_ts: vec![narrow.clone()], ..tunnel(1) };
    pair.ends[1].set_tunnel(pair.now, narrowed);
    pair.ends[0].connect(pair.now, TUNNEL, ADDRESSES[1].parse().unwrap());
    let mut flight = pair.sent(0);
    for message in 0..4 {
        flight = pair.deliver(1 - message % 2, flight);
    }
    let selectors = |pair: &Pair, side: usize| {
        let established = pair.ends[side].sas.values().next().unwrap().established().unwrap();
        established.children.iter().map(|child| child.local_ts.clone()).collect::<Vec<_>>()
    };
    assert_eq!(selectors(&pair, 0), [vec![narrow.clone()]]);
    // From here on the peer's policy takes all of it.
    pair.ends[1].sas.values_mut().next().unwrap().tunnel = Some(Arc::new(tunnel(1)));
    let host = |text: &str| TrafficSelector::from_prefix(text.parse().unwrap(), 32);
    let flow = (host("10.1.9.9"), host("10.2.0.1"));
    for expected in [1, 0] {
        pair.ends[0].acquire(pair.now, TUNNEL, ADDRESSES[1].parse().unwrap(), Some(flow.clone()));
        let request = pair.sent(0);
        assert_eq!(request.len(), expected, "one Child SA for a flow");
        if let Some(request) = request.first() {
            let (_, payloads) = opened(&mut pair, 1, request);
            let first = payloads
                .iter()
                .find_map(|p| if let Payload::TsInitiator(ts) = p { ts.first() } else { None });
            assert_eq!(first, Some(&flow.0), "the packet's own selectors go first");
        }
        let answer = pair.deliver(1, request);
        pair.deliver(0, answer);
    }
    assert_eq!(selectors(&pair, 0), [vec![narrow], tunnel(0).local_ts]);
}

#[test]
fn initial_contact_ends_what_is_up_for_other_tunnels_of_the_same_peer() {
    let mut pair = up();
    for side in [0, 1] {
        pair.ends[side].set_tunnel(pair.now, TunnelConfig { id: TunnelId(2), ..tunnel(side) });
    }
    // A restarted peer comes with the other tunnel first.
    let subnets = |side| TunnelConfig { id: TunnelId(2), ..tunnel(side) };
    let mut restarted = Pair::new();
    restarted.now = pair.now + Duration::from_secs(1);
    restarted.ends[0].remove_tunnel(restarted.now, TUNNEL);
    restarted.ends[0].draw_spi();
    restarted.ends[0].set_tunnel(restarted.now, subnets(0));
    // It is chosen because the first one is not configured any more, though its SA is still there.
    pair.ends[1].tunnels.remove(&TUNNEL);
    std::mem::swap(&mut restarted.ends[1], &mut pair.ends[1]);
    restarted.ends[0].connect(restarted.now, TunnelId(2), ADDRESSES[1].parse().unwrap());
    let mut flight = restarted.sent(0);
    for message in 0..4 {
        flight = restarted.deliver(1 - message % 2, flight);
    }
    let told = events(&mut restarted, 1);
    assert!(
        told.iter().any(|event| matches!(
            event,
            Event::IkeDown { tunnel: TUNNEL, reason: DownReason::ClosedByPeer }
        )),
        "{told:?}"
    );
    assert_eq!(restarted.ends[1].counts().ike_sas, 1);
}
