//! A peer that has the right keys and says what it likes.

mod extensions;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    Dpd, Encryption, EndpointConfig, Event, Group, IkePolicy, IpsecPolicy, Job, JobResult, NatT, Prf, Psk,
    TrafficSelector, Version,
    endpoint::Endpoint,
    wire::{
        ExchangeType, HEADER_LEN, Header, Notify, NotifyType, Payload, encode_message, payload::decode_chain,
        tests::payload,
    },
};

pub(crate) const ADDRESSES: [&str; 2] = ["192.0.2.1", "198.51.100.1"];

pub(crate) fn tunnel(own: usize) -> TunnelConfig {
    let [local, peer] = [own, 1 - own].map(|side| ADDRESSES[side].parse().unwrap());
    let lifetime = Duration::from_secs(3600);
    let subnets = ["10.1.0.0", "10.2.0.0"].map(|s| TrafficSelector::from_prefix(s.parse().unwrap(), 16));
    TunnelConfig {
        id: TunnelId(1),
        name: "tunnel".into(),
        local,
        other_local: None,
        peer: Some(peer),
        local_id: local.into(),
        peer_id: peer.into(),
        psk: Psk::new("secret"),
        ike: IkePolicy {
            encryption: vec![Encryption::Aes128Gcm16],
            integrity: vec![],
            prf: vec![Prf::Sha256],
            dh: vec![Group::X25519],
            lifetime,
            ..IkePolicy::default()
        },
        ipsec: IpsecPolicy {
            encryption: vec![Encryption::Aes128Gcm16],
            integrity: vec![],
            esn: true,
            lifetime,
            ..IpsecPolicy::default()
        },
        local_ts: vec![subnets[own].clone()],
        remote_ts: vec![subnets[1 - own].clone()],
        nat_t: NatT::Auto,
        dpd: Some(Dpd { delay: Duration::from_secs(8), timeout: Duration::from_secs(13) }),
        initiates: true,
        childless: false,
        ppk: None,
    }
}

/// Tunnels with an additional key exchange.
fn with_additional(own: usize) -> TunnelConfig {
    let tunnel = tunnel(own);
    TunnelConfig { ike: IkePolicy { additional_ke: vec![Group::P256], ..tunnel.ike }, ..tunnel }
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) ends: [Endpoint; 2],
}

impl Pair {
    pub(crate) fn new() -> Self {
        #[allow(clippy::disallowed_methods, reason = "std offers no other way to come by an Instant")]
        let now = Instant::now();
        let ends = [0, 1].map(|own| {
            let rng = ChaCha20Rng::seed_from_u64(own as u64);
            let mut endpoint = Endpoint::new(EndpointConfig::default(), Box::new(rng));
            endpoint.set_tunnel(now, tunnel(own));
            endpoint
        });
        Self { now, ends }
    }

    /// What an end has to send, once its jobs are run.
    pub(crate) fn sent(&mut self, side: usize) -> Vec<Vec<u8>> {
        let end = &mut self.ends[side];
        while let Some(job) = end.poll_job() {
            end.handle_job(self.now, job.run());
        }
        std::iter::from_fn(|| end.poll_transmit()).map(|transmit| transmit.payload).collect()
    }

    pub(crate) fn deliver(&mut self, to: usize, datagrams: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let [local, remote] = [to, 1 - to].map(|side| format!("{}:500", ADDRESSES[side]).parse().unwrap());
        datagrams
            .iter()
            .for_each(|bytes| self.ends[to].handle_datagram(self.now, Path { local, remote }, bytes));
        self.sent(to)
    }

    /// A handshake, stopped before this many messages have arrived; the message that is next.
    pub(super) fn until(messages: usize) -> (Self, Vec<Vec<u8>>) {
        Self::new().go_on(messages)
    }

    fn with_additional_until(messages: usize) -> (Self, Vec<Vec<u8>>) {
        let mut pair = Self::new();
        for side in [0, 1] {
            pair.ends[side].set_tunnel(pair.now, with_additional(side));
        }
        pair.go_on(messages)
    }

    pub(super) fn go_on(self, messages: usize) -> (Self, Vec<Vec<u8>>) {
        let mut pair = self;
        pair.ends[0].connect(pair.now, TunnelId(1), ADDRESSES[1].parse().unwrap());
        let mut flight = pair.sent(0);
        for message in 0..messages {
            flight = pair.deliver(1 - message % 2, flight);
        }
        (pair, flight)
    }

    /// Puts other payloads in the place of what `from` sends, under its own keys.
    pub(super) fn forge(
        &mut self,
        from: usize,
        exchange: ExchangeType,
        response: bool,
        id: u32,
        payloads: &[Payload],
    ) -> Vec<u8> {
        let end = &mut self.ends[from];
        let sa = end.sas.values_mut().next().unwrap();
        let header = Header {
            initiator_spi: sa.initiator_spi(),
            responder_spi: sa.responder_spi(),
            exchange,
            from_initiator: sa.role == Role::Initiator,
            response,
            message_id: id,
        };
        sa.channel().unwrap().outgoing.seal(header, payloads, &mut *end.rng)
    }

    pub(super) fn is_up(&mut self, side: usize) -> bool {
        std::iter::from_fn(|| self.ends[side].poll_event()).any(|event| matches!(event, Event::IkeUp { .. }))
    }

    /// Lets a long time pass: nothing that was said may leave an SA or a deadline behind for ever.
    fn pass(&mut self) {
        for _ in 0..2000 {
            let Some((at, _)) = self.ends[1].poll_timeout() else { return };
            self.now = at;
            self.ends[1].handle_timeout(at);
            self.sent(1);
        }
        panic!("deadlines without end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_initiator_may_say_anything_in_ike_auth(payloads in proptest::collection::vec(payload(), 0..8)) {
        let (mut pair, _) = Pair::until(2);
        let forged = pair.forge(0, ExchangeType::IkeAuth, false, 1, &payloads);
        prop_assert_eq!(pair.deliver(1, vec![forged]).len(), 1);
        prop_assert!(!pair.is_up(1));
        pair.pass();
        prop_assert!(pair.ends[1].sas.is_empty() && pair.ends[1].half_open.len() == 0);
        prop_assert!(pair.ends[1].counts().first_messages == 0 && pair.ends[1].esp_spis.is_empty());
    }

    #[test]
    fn either_side_may_say_anything_in_ike_intermediate(
        to in 0..2usize,
        group in prop::option::of(Just(19u16)),
        payloads in proptest::collection::vec(payload(), 0..8),
    ) {
        let (mut pair, _) = Pair::with_additional_until(3 - to);
        let good = group.map(|group| Payload::KeyExchange { group, public: vec![7; 64] });
        let said: Vec<_> = payloads.into_iter().chain(good).collect();
        let forged = pair.forge(1 - to, ExchangeType::IkeIntermediate, to == 0, 1, &said);
        pair.deliver(to, vec![forged]);
        prop_assert!(!pair.is_up(to));
        pair.pass();
        prop_assert!(pair.ends[1].sas.is_empty() && pair.ends[1].half_open.len() == 0);
    }

    #[test]
    fn a_responder_may_say_anything_in_ike_auth(payloads in proptest::collection::vec(payload(), 0..8)) {
        let (mut pair, _) = Pair::until(3);
        let forged = pair.forge(1, ExchangeType::IkeAuth, true, 1, &payloads);
        pair.deliver(0, vec![forged]);
        prop_assert!(!pair.is_up(0));
    }

    #[test]
    fn a_peer_may_say_anything_on_an_sa_in_use(
        requests in proptest::collection::vec(
            (prop::sample::select(ExchangeType::of(Version::Ikev2).skip(1).collect::<Vec<_>>()), proptest::collection::vec(payload(), 0..5)), 1..6),
    ) {
        let (mut pair, flight) = Pair::until(3);
        pair.deliver(0, flight);
        for (id, (exchange, payloads)) in requests.into_iter().enumerate() {
            let forged = pair.forge(0, exchange, false, 2 + id as u32, &payloads);
            pair.deliver(1, vec![forged]);
        }
        pair.pass();
        prop_assert!(pair.ends[1].sas.is_empty() && pair.ends[1].of_tunnel.is_empty());
        prop_assert!(pair.ends[1].esp_spis.is_empty());
    }
}

#[test]
fn what_crosses_threads_may() {
    fn is_send<T: Send>() {}
    is_send::<Endpoint>();
    is_send::<Job>();
    is_send::<JobResult>();
}

pub(super) fn notify(kind: NotifyType, data: impl Into<Vec<u8>>) -> Payload {
    Payload::Notify(Notify::new(kind, data))
}

fn kind_of(message: &[u8]) -> ExchangeType {
    Header::decode(message).unwrap().0.exchange
}

#[test]
fn initial_contact_is_said_once_between_two_identities() {
    let mut pair = Pair::new();
    for id in [2, 3] {
        for side in [0, 1] {
            pair.ends[side].set_tunnel(pair.now, TunnelConfig { id: TunnelId(id), ..tunnel(side) });
        }
    }
    let stranger = "ops@example.net".parse().unwrap();
    let other = TunnelConfig { id: TunnelId(4), local_id: stranger, ..tunnel(0) };
    pair.ends[0].set_tunnel(pair.now, other);
    let mut said = Vec::new();
    for id in 1..=4 {
        pair.ends[0].connect(pair.now, TunnelId(id), ADDRESSES[1].parse().unwrap());
        let first = pair.sent(0);
        let answer = pair.deliver(1, first);
        for message in pair.deliver(0, answer) {
            let header = Header::decode(&message).unwrap().0;
            let channel = pair.ends[1].sas.get_mut(&header.responder_spi).unwrap().channel().unwrap();
            said.push(
                channel.incoming.open(&message).unwrap().payloads().unwrap().iter().any(
                    |p| matches!(p, Payload::Notify(notify) if notify.kind == NotifyType::INITIAL_CONTACT),
                ),
            );
            // The second is sent while the first waits for its answer, the third when that is up.
            if id == 2 {
                let answer = pair.deliver(1, vec![message]);
                pair.deliver(0, answer);
            }
        }
    }
    assert_eq!(said, [true, false, false, true]);
}

#[test]
fn a_peer_on_the_nat_traversal_port_without_a_nat_gets_bare_esp() {
    let (mut pair, flight) = Pair::until(2);
    let [local, remote] = [1, 0].map(|side| format!("{}:4500", ADDRESSES[side]).parse().unwrap());
    let marked = [&[0; 4][..], &flight[0]].concat();
    pair.ends[1].handle_datagram(pair.now, Path { local, remote }, &marked);
    let child = std::iter::from_fn(|| pair.ends[1].poll_event()).find_map(|event| match event {
        Event::ChildUp { child, .. } => Some(child),
        _ => None,
    });
    assert_eq!(child.unwrap().encapsulation, None);
    assert_eq!(pair.ends[1].poll_transmit().unwrap().path, Path { local, remote });
}

#[test]
fn a_psk_that_was_changed_counts_from_then_on() {
    let (mut pair, flight) = Pair::until(2);
    pair.ends[1].set_tunnel(pair.now, TunnelConfig { psk: Psk::new("another"), ..tunnel(1) });
    pair.deliver(1, flight);
    assert!(!pair.is_up(1));
}

#[test]
fn the_tunnel_that_fits_best_is_chosen() {
    let any = vec![TrafficSelector::from_prefix("0.0.0.0".parse().unwrap(), 0)];
    let route = |id, side| TunnelConfig {
        id: TunnelId(id),
        local_ts: any.clone(),
        remote_ts: any.clone(),
        ..tunnel(side)
    };
    for (offer, chosen) in [(tunnel(0), 1), (route(1, 0), 3)] {
        let mut pair = Pair::new();
        pair.ends[0].set_tunnel(pair.now, offer);
        pair.ends[1].set_tunnel(pair.now, route(0, 1));
        pair.ends[1].set_tunnel(pair.now, route(3, 1));
        if chosen == 3 {
            pair.ends[1].remove_tunnel(pair.now, TunnelId(0));
        }
        pair.ends[0].connect(pair.now, TunnelId(1), ADDRESSES[1].parse().unwrap());
        let mut flight = pair.sent(0);
        for message in 0..3 {
            flight = pair.deliver(1 - message % 2, flight);
        }
        let up = std::iter::from_fn(|| pair.ends[1].poll_event()).find_map(|event| match event {
            Event::IkeUp { tunnel, .. } => Some(tunnel),
            _ => None,
        });
        assert_eq!(up, Some(TunnelId(chosen)));
    }
}

#[test]
fn a_first_message_of_no_honest_size_is_dropped() {
    let (mut pair, flight) = Pair::until(0);
    let (header, first, rest) = Header::decode(&flight[0]).unwrap();
    let mut payloads = decode_chain(first, rest).unwrap();
    let vain = 8192 - flight[0].len() - HEADER_LEN;
    payloads.push(Payload::Notify(Notify::new(NotifyType(40_000), vec![0; vain])));
    assert_eq!(pair.deliver(1, vec![encode_message(header, &payloads)]).len(), 1);
    payloads.push(Payload::Notify(Notify::new(NotifyType(40_000), [0; 64])));
    assert!(pair.deliver(1, vec![encode_message(header, &payloads)]).is_empty());
    assert_eq!((pair.ends[1].counters().malformed, pair.ends[1].half_open.len()), (1, 1));
}

#[test]
fn one_address_cannot_use_up_what_is_there_for_all() {
    let (mut pair, flight) = Pair::until(0);
    let other = "203.0.113.1".parse().unwrap();
    (1..=3000).for_each(|spi| pair.ends[1].half_open.insert(spi, other));
    let answer = pair.deliver(1, flight.clone());
    assert_eq!((kind_of(&answer[0]), pair.ends[1].counters().cookie_demanded), (ExchangeType::IkeSaInit, 1));
    let peer = ADDRESSES[0].parse().unwrap();
    (4001..=4512).for_each(|spi| pair.ends[1].half_open.insert(spi, peer));
    let with_cookie = pair.deliver(0, answer);
    assert!(pair.deliver(1, with_cookie.clone()).is_empty());
    assert_eq!(pair.ends[1].counters().overloaded, 1);
    pair.ends[1].half_open.remove(&4001);
    assert_eq!(pair.deliver(1, with_cookie).len(), 1);
    assert_eq!(pair.ends[1].half_open.len(), 3512);
}

#[test]
fn a_demand_for_a_cookie_that_comes_twice_is_met_once() {
    let (mut pair, flight) = Pair::until(0);
    pair.ends[1].config.cookie_threshold = 0;
    let demand = pair.deliver(1, flight);
    assert_eq!(pair.deliver(0, [demand.clone(), demand].concat()).len(), 1);
}

#[test]
fn what_a_stranger_is_called_is_short() {
    let (mut pair, _) = Pair::until(2);
    let payloads = [
        Payload::IdInitiator { kind: 2, data: vec![b'a'; 60_000] },
        Payload::Auth { method: 2, data: vec![0; 32] },
    ];
    let forged = pair.forge(0, ExchangeType::IkeAuth, false, 1, &payloads);
    pair.deliver(1, vec![forged]);
    let Some(Event::Failed { cause, .. }) = pair.ends[1].poll_event() else { panic!("not reported") };
    assert!(cause.to_string().len() < 300, "{cause}");
}
