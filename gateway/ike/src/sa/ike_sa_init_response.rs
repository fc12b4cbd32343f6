//! IKE_SA_INIT (RFC 7296 section 1.2) as responder: whom it answers, with what, and at what cost.
//!
//! Nothing here is authenticated, and which of several tunnels is meant is not known before IKE_AUTH. Whatever is
//! refused leaves no trace but a count.

use std::{cmp::Reverse, sync::Arc, time::Instant};

use sha2::{Digest, Sha256};

use super::{
    Channel, Extensions, Handshake, IkeSa, Role, State, Window,
    handshake::IntAuth,
    ike_sa_init::{Essentials, NONCE_LEN, header, no_proposal},
    nat,
};
use crate::{
    config::{Id, NatT, TunnelConfig, Version},
    counters::ExchangeResult,
    crypto::{
        dh::{InvalidPublic, Job, Secret, Shared, Work},
        keys::{self, Exchanged},
    },
    endpoint::Endpoint,
    error::Cause,
    event::Path,
    half_open::Room,
    proposal::{IkeSuite, offer_ike, select_ike},
    timer::TimerKind,
    tunnels::{Dialect, Kind},
    wire::{
        ExchangeType, Header, Notify, NotifyType, Payload, Proposal, WireError, encode_message,
        payload::decode_chain,
    },
};

/// Octets of a first message, several times those of an honest one: a responder keeps it until IKE_AUTH.
const MAX_FIRST_MESSAGE: usize = 8192;

/// A responder while its key exchange is computed.
#[derive(Debug)]
pub(crate) struct Answering {
    suite: IkeSuite,
    chosen: Proposal,
    request: Vec<u8>,
    payloads: Vec<Payload>,
}

impl Endpoint {
    /// A first message, from whoever. Whatever is refused here leaves no trace but a count.
    pub(crate) fn init_request(&mut self, now: Instant, path: Path, header: &Header, message: &[u8]) {
        let first = header.responder_spi == 0 && header.message_id == 0 && header.from_initiator;
        if !first || message.len() > MAX_FIRST_MESSAGE {
            self.counters.malformed += 1;
            return;
        }
        let digest = first_message_digest(path, message);
        if let Some(&spi) = self.first_messages.get(&digest) {
            return self.init_repeated(spi, path);
        }
        let payloads = match Header::decode(message).and_then(|(_, first, rest)| decode_chain(first, rest)) {
            Ok(payloads) => payloads,
            Err(error) => {
                self.counters.malformed += 1;
                if matches!(error, WireError::Critical(_)) {
                    self.refuse_init(path, header, Cause::Undecodable(error).to_notify());
                }
                return;
            }
        };
        let Some(essentials) = Essentials::of(&payloads) else {
            self.counters.malformed += 1;
            return;
        };
        if !self.is_admitted(now, path, header, essentials.nonce, &payloads) {
            return;
        }
        let kinds = self.kinds(path);
        let Some(Kind { tunnel: first, .. }) = kinds.first() else {
            self.counters.no_tunnel += 1;
            let cause = match self.tunnels.at(path, Version::Ikev1).next().is_none() {
                true => Cause::NoTunnel { local: path.local.ip(), remote: path.remote.ip() },
                false => Cause::VersionMismatch { ours: Version::Ikev1, theirs: Version::Ikev2 },
            };
            self.refuse_init(path, header, cause.to_notify());
            let tunnel = self.sole(path, Version::Ikev1);
            return self.stranger_failed(now, tunnel, path, cause);
        };
        let wanted = self.wanted.get(&(path.local.ip(), path.remote.ip())) == Some(&first.id);
        let certain = if wanted { &kinds[..1] } else { &kinds[..] };
        let chosen = choose(certain, &essentials).or_else(|| choose(&kinds, &essentials));
        let Some((suite, chosen)) = chosen else {
            let cause = no_proposal(&offer_ike(&first.ike), essentials.proposals);
            self.refuse_init(path, header, cause.to_notify());
            let tunnel = self.sole(path, Version::Ikev2);
            return self.stranger_failed(now, tunnel, path, cause);
        };
        if suite.additional.is_some() && !Extensions::of(&payloads).intermediate {
            self.counters.malformed += 1;
            return self.refuse_init(path, header, Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, []));
        }
        if essentials.group != suite.group.number() {
            let cause = Cause::InvalidGroup { ours: vec![suite.group], theirs: essentials.group };
            return self.refuse_init(path, header, cause.to_notify());
        }
        let (nonce, public) = (essentials.nonce.to_vec(), essentials.public.to_vec());
        let spi = self.draw_spi();
        let answering = Answering { suite, chosen, request: message.to_vec(), payloads };
        let sa = IkeSa {
            spi,
            peer_spi: header.initiator_spi,
            role: Role::Responder,
            path,
            tunnel: None,
            started: now,
            initiator_nonce: nonce,
            extensions: Extensions::default(),
            flow: None,
            window: Window::default(),
            esp_spis: Vec::new(),
            first_message: Some(digest),
            doomed: false,
            state: State::Answering(Box::new(answering)),
        };
        self.first_messages.insert(digest, spi);
        self.half_open.insert(spi, path.remote.ip());
        self.sas.insert(spi, sa);
        self.timers.set(spi, TimerKind::HalfOpen, now + self.config.half_open_timeout);
        let secret = Secret::random(suite.group, &mut *self.rng);
        self.jobs.push_back(Job { sa: spi, secret, work: Work::Respond(public) });
    }

    /// A first message that came before: the same answer, as long as the peer may not have got it.
    fn init_repeated(&mut self, spi: u64, path: Path) {
        let answer =
            self.sas.get(&spi).filter(|sa| sa.window.expected == 1).and_then(|sa| sa.window.answer.clone());
        match answer {
            Some(answer) => {
                self.counters.repeated_answers += 1;
                self.transmit(path, &answer);
            }
            None => self.counters.old_message_id += 1,
        }
    }

    /// Whether a first message may cost memory and a key exchange: few may at all, fewer of one address, and
    /// from some number on only those that have proved to receive at theirs.
    fn is_admitted(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        nonce: &[u8],
        payloads: &[Payload],
    ) -> bool {
        let room = self.room(path);
        if room == Room::None || self.half_open.len() < self.config.cookie_threshold {
            return self.take_room(room);
        }
        let came = payloads.iter().find_map(|p| match p {
            Payload::Notify(notify) if notify.kind == NotifyType::COOKIE => Some(&notify.data),
            _ => None,
        });
        if came.is_some_and(|came| self.cookies.verify(came, path.remote, header.initiator_spi, nonce)) {
            return self.take_room(room);
        }
        self.counters.cookie_demanded += 1;
        let cookie = self.cookies.make(now, &mut *self.rng, path.remote, header.initiator_spi, nonce);
        self.refuse_init(path, header, Notify::new(NotifyType::COOKIE, cookie));
        false
    }

    /// Whether one more half-open IKE SA may be kept of an initiator at this path.
    pub(crate) fn room(&self, path: Path) -> Room {
        // Above the threshold, so that nobody can use up an address' share of IKEv2 without receiving there.
        let share = (self.config.half_open_limit / 8).max(self.config.cookie_threshold.saturating_add(1));
        self.half_open.room(path.remote.ip(), self.config.half_open_limit, share)
    }

    /// Makes the room that there is to be made; whether there is any.
    pub(crate) fn take_room(&mut self, room: Room) -> bool {
        if room != Room::Free {
            self.counters.overloaded += 1;
        }
        if let Room::Instead(spi) = room {
            self.v1_give_way(spi);
        }
        room != Room::None
    }

    /// Answers with a notify alone, and keeps nothing.
    fn refuse_init(&mut self, path: Path, request: &Header, notify: Notify) {
        self.counters.exchange(ExchangeType::IkeSaInit, ExchangeResult::Refused);
        let message = encode_message(header(request.initiator_spi, 0, true), &[Payload::Notify(notify)]);
        self.transmit(path, &[message]);
    }

    /// The key exchange is computed: the answer can go.
    pub(crate) fn responded(
        &mut self,
        mut sa: IkeSa,
        result: Result<(Vec<u8>, Shared), InvalidPublic>,
    ) -> Option<IkeSa> {
        let State::Answering(answering) = sa.state else { return Some(sa) };
        let Answering { suite, chosen, request, payloads } = *answering;
        let Ok((public, shared)) = result else {
            self.counters.malformed += 1;
            return None;
        };
        let mut nonce = vec![0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        let kinds = self.kinds(sa.path);
        let nat_t = kinds.first().map_or(NatT::Auto, |kind| kind.tunnel.nat_t);
        let nat = nat::detect(nat_t, (sa.peer_spi, 0), sa.path, &payloads);
        let mut answer = vec![
            Payload::Sa(vec![chosen]),
            Payload::KeyExchange { group: suite.group.number(), public },
            Payload::Nonce(nonce.clone()),
        ];
        if nat.is_some() {
            answer.extend(nat::notifies(nat_t, (sa.peer_spi, sa.spi), sa.path));
        }
        sa.extensions = Extensions::of(&payloads).answer(&kinds);
        answer.extend(sa.extensions.notifies());
        let answer = encode_message(header(sa.peer_spi, sa.spi, true), &answer);
        let exchanged = Exchanged {
            initiator_nonce: &sa.initiator_nonce,
            responder_nonce: &nonce,
            initiator_spi: sa.peer_spi,
            responder_spi: sa.spi,
        };
        let (keys, incoming, outgoing) = keys::derive(&suite, &shared, &exchanged);
        sa.window.expected = 1;
        sa.window.answer = Some(vec![answer.clone()]);
        self.transmit(sa.path, std::slice::from_ref(&answer));
        self.counters.exchange(ExchangeType::IkeSaInit, ExchangeResult::Done);
        sa.state = State::HalfOpen(Box::new(Handshake {
            channel: Channel { outgoing, incoming },
            keys,
            suite,
            nat,
            initiator_nonce: sa.initiator_nonce.clone(),
            responder_nonce: nonce,
            request,
            answer,
            int_auth: IntAuth::default(),
            last_incoming: None,
            computing: None,
        }));
        Some(sa)
    }

    /// The tunnels that an initiator at this path may be whose peer has this identity: those of its address before those
    /// of any, and first of all the one it was last known to want.
    pub(super) fn candidates_named(&self, path: Path, peer: &Id) -> Vec<Arc<TunnelConfig>> {
        let mut named = self.tunnels.of_peer(path, Dialect::Ikev2, peer);
        if let Some(wanted) = self.wanted.get(&(path.local.ip(), path.remote.ip())) {
            named.sort_by_key(|tunnel| tunnel.id != *wanted);
        }
        named
    }

    /// What kinds of tunnels an initiator at this path may be, in the same order.
    fn kinds(&self, path: Path) -> Vec<Kind> {
        let mut kinds = self.tunnels.kinds_at(path, Dialect::Ikev2);
        let wanted = self.wanted.get(&(path.local.ip(), path.remote.ip()));
        if let Some(tunnel) = wanted.and_then(|id| self.tunnels.get(id))
            && tunnel.is_at(path, Version::Ikev2)
        {
            // It counts among its kind; here it only says what is tried first.
            kinds.insert(0, Kind { tunnel: tunnel.clone(), count: 0 });
        }
        kinds
    }

    /// The tunnel that a failure is of, where only one can be meant. Nobody is authenticated in IKE_SA_INIT: a
    /// tunnel that is up must not look as if it had failed.
    pub(crate) fn sole(&self, path: Path, version: Version) -> Option<crate::TunnelId> {
        let tunnel = self.tunnels.only(path, version)?;
        (!self.has_usable(tunnel.id, 0)).then_some(tunnel.id)
    }

    /// An initiator has gone no further than IKE_SA_INIT.
    pub(crate) fn half_open_expired(&mut self, now: Instant, sa: &IkeSa) {
        if !matches!(sa.state, State::HalfOpen(_)) {
            return;
        }
        if let Some(tunnel) = self.sole(sa.path, Version::Ikev2) {
            let waited = now.saturating_duration_since(sa.started);
            let cause = Cause::NotContinued { path: sa.path, waited };
            self.stranger_failed(now, Some(tunnel), sa.path, cause);
        }
    }
}

/// The responder's choice while it cannot know which tunnel is meant: what most of the tunnels that may be meant
/// allow. Of several such choices one in the group that the peer has guessed, and then that of the first tunnel.
fn choose(kinds: &[Kind], offer: &Essentials<'_>) -> Option<(IkeSuite, Proposal)> {
    let choices = kinds.iter().filter_map(|kind| select_ike(&kind.tunnel.ike, offer.proposals));
    choices.min_by_key(|(suite, _)| {
        let within = kinds.iter().filter(|kind| suite.is_within(&kind.tunnel.ike));
        let allow: usize = within.map(|kind| kind.count).sum();
        (Reverse(allow), suite.group.number() != offer.group)
    })
}

fn first_message_digest(path: Path, message: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(path.remote.to_string());
    hash.update([0]);
    hash.update(message);
    hash.finalize().into()
}
