//! Many tunnels, and a peer with the right keys that says what no honest one does.

use std::time::Duration;

use super::{
    cipher::MessageCipher,
    quick::tests::{established, exchange, go_on, v1_tunnel},
    wire::{Attribute, Notify, NotifyType, ProtocolId, sa::Value},
    *,
};
use crate::{
    codec::{Reader, Writer},
    sa::tests::{ADDRESSES, Pair},
};

/// This many tunnels between two addresses, told apart by their identities.
const MANY: u32 = 5000;

fn identity(id: u32) -> crate::Id {
    format!("peer-{id}.example").parse().unwrap()
}

#[test]
fn thousands_of_tunnels_between_two_addresses_come_up_at_the_cost_of_one_each() {
    for mode in [Mode::Main, Mode::Aggressive] {
        let mut pair = Pair::new();
        for side in [0, 1] {
            pair.ends[side].remove_tunnel(pair.now, TunnelId(1));
            for id in 1..=MANY {
                let mut tunnel = TunnelConfig { id: TunnelId(id), ..v1_tunnel(side, mode) };
                let end = if side == 0 { &mut tunnel.local_id } else { &mut tunnel.peer_id };
                *end = identity(id);
                pair.ends[side].set_tunnel(pair.now, tunnel);
            }
        }
        for id in (1..=MANY).rev() {
            pair.ends[0].connect(pair.now, TunnelId(id), ADDRESSES[1].parse().unwrap());
            let first = pair.sent(0);
            let answer = pair.deliver(1, first);
            let half_open = pair.ends[1].v1.sas.values().find_map(|sa| match &sa.state {
                State::PhaseOne(one) => Some(one.candidates.len()),
                _ => None,
            });
            assert_eq!(half_open, Some(1), "what is kept of a stranger does not grow with the tunnels");
            let next = pair.deliver(0, answer);
            go_on(&mut pair, next);
            pair.ends.iter_mut().for_each(|end| while end.poll_event().is_some() {});
        }
        for end in &pair.ends {
            let counts = end.counts();
            let many = MANY as usize;
            assert_eq!((counts.established, counts.child_sas, counts.half_open), (many, many, 0));
            assert!((1..=MANY).all(|id| end.v1.is_up(TunnelId(id))));
        }
    }
}

#[test]
fn a_lifetime_that_no_clock_can_hold_changes_nothing() {
    for seconds in [u64::MAX, u64::MAX >> 1, u64::MAX / 1000, 1 << 40] {
        let mut pair = established();
        let cookie = pair.ends[0].v1.current(TunnelId(1)).unwrap();
        let peers = pair.ends[1].v1.current(TunnelId(1)).unwrap();
        let deadlines = pair.ends[1].timers.of(peers);
        let now = pair.now;
        pair.ends[0].with_v1(cookie, |end, mut sa| {
            let lifetime = [
                Attribute { kind: 11, value: Value::Short(1) },
                Attribute { kind: 12, value: Value::Long(seconds.to_be_bytes().to_vec()) },
            ];
            let notify = Notify::about_isakmp(NotifyType::RESPONDER_LIFETIME, sa.cookies(), []);
            end.inform(now, &mut sa, Payload::Notify(notify.with_attributes(&lifetime)), false);
            Some(sa)
        });
        let heard = |pair: &Pair| {
            let counters = pair.ends[1].counters();
            counters.exchanges(ExchangeType::InformationalMode, crate::ExchangeResult::Done)
        };
        let before = heard(&pair);
        exchange(&mut pair);
        assert_eq!(pair.ends[1].timers.of(peers), deadlines, "{seconds}");
        assert_eq!(heard(&pair), before + 1);
    }
}

/// A message of the peer's after our third one: HASH(2) or HASH(1) over a notify, under the keys and the IV of the quick
/// mode of the first end's that is done.
fn after_third(pair: &mut Pair, kind: NotifyType, second_hash: bool) -> Vec<u8> {
    let cookie = pair.ends[0].v1.current(TunnelId(1)).unwrap();
    let sa = pair.ends[0].v1.sa(cookie).unwrap();
    let (cookies, established) = (sa.cookies(), sa.established().unwrap());
    let (id, quick) = established.quicks().max_by_key(|(_, quick)| quick.began).unwrap();
    let notify = Notify {
        protocol: ProtocolId::Esp,
        spi: quick.outbound_spi.to_be_bytes().to_vec(),
        kind,
        data: Vec::new(),
    };
    let payloads = vec![Payload::Notify(notify)];
    let mut octets = Vec::new();
    wire::payload::encode_chain(&payloads, &mut octets);
    let hash = match second_hash {
        true => established.keys.hash_2(id, &quick.nonce, &octets),
        false => established.keys.hash_1(id, &octets),
    };
    // Both directions have one key, and one chain of IVs a message ID.
    let mut copy = Writer::new(pair.now);
    established.cipher.write(|_| true, &mut copy);
    let mut cipher = MessageCipher::read(&mut Reader::new(&copy.into_octets(), pair.now)).unwrap();
    let header = wire::Header::new(cookies.0, cookies.1, ExchangeType::QuickMode, id);
    cipher.seal(header, &[vec![Payload::Hash(hash)], payloads].concat())
}

#[test]
fn the_peers_connected_says_that_it_has_the_new_pair() {
    for (kind, second_hash, switches) in [
        (NotifyType::CONNECTED, true, true),
        (NotifyType::CONNECTED, false, true),
        (NotifyType::INITIAL_CONTACT, true, false),
    ] {
        let mut pair = established();
        pair.now += Duration::from_secs(1);
        let old = pair.ends[0].v1.families[&TunnelId(1)].children[0].inbound_spi;
        let now = pair.now;
        pair.ends[0].rekey_child(now, TunnelId(1), old);
        exchange(&mut pair);
        while pair.ends[0].poll_event().is_some() {}
        let message = after_third(&mut pair, kind, second_hash);
        let mut spoilt = message.clone();
        *spoilt.last_mut().unwrap() ^= 1;
        pair.deliver(0, vec![spoilt]);
        assert!(pair.ends[0].poll_event().is_none(), "what does not prove to be the peer's changes nothing");
        pair.deliver(0, vec![message]);
        let event = pair.ends[0].poll_event();
        let switched =
            matches!(event, Some(crate::Event::SwitchOutbound { inbound_spi, .. }) if inbound_spi != old);
        assert_eq!(switched, switches, "{event:?}");
    }
}
