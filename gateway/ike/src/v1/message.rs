//! The way of a datagram to the ISAKMP SA it is for, and messages as such: fragments, flights that are sent again,
//! what comes again.

use std::time::Instant;

use sha2::{Digest, Sha256};

use super::{
    Flight, Sa, State, fragment,
    wire::{Chain, FragmentPayload, Header, Notify, Payload, VendorId, encode_message, payload::FRAGMENT},
};
use crate::{
    config::{EndpointConfig, Version},
    endpoint::Endpoint,
    error::Cause,
    event::Path,
    sa::Role,
    timer::TimerKind,
    wire::ExchangeType,
};

/// Octets of a message that anybody may send, several times those of an honest one.
pub(super) const MAX_FIRST_MESSAGE: usize = 8192;
/// How long the fragments of a message are waited for.
pub(super) const REASSEMBLY: std::time::Duration = std::time::Duration::from_secs(15);

/// What is said to every peer: what this endpoint can do beyond the RFCs.
pub(super) fn vendor_ids(nat_t: bool) -> Vec<Payload> {
    use super::wire::NatTraversal::{Draft, Rfc3947};
    let nat = [VendorId::NatTraversal(Rfc3947), VendorId::NatTraversal(Draft)];
    let other = [VendorId::DeadPeerDetection, VendorId::Fragmentation];
    let said = nat.into_iter().filter(|_| nat_t).chain(other);
    said.flat_map(VendorId::octets).map(Payload::VendorId).collect()
}

pub(super) fn digest(octets: &[u8]) -> [u8; 32] {
    Sha256::digest(octets).into()
}

/// A whole message, by whichever path it came.
#[derive(Clone, Copy)]
pub(super) struct Came<'a> {
    pub(super) path: Path,
    pub(super) header: &'a Header,
    pub(super) octets: &'a [u8],
    /// What tells it from others: of a first message, with where it came from.
    pub(super) digest: [u8; 32],
}

impl Flight {
    /// Due again after the wait that its number of sendings asks for.
    pub(super) fn schedule(&mut self, now: Instant, settings: &EndpointConfig) {
        self.attempts += 1;
        self.first_sent.get_or_insert(now);
        self.resend_at = Some(now + settings.retransmission.wait(self.attempts));
    }

    pub(super) fn stop(&mut self) {
        self.resend_at = None;
    }
}

impl Endpoint {
    /// A message of IKEv1, from whoever.
    pub(crate) fn v1_datagram(&mut self, now: Instant, path: Path, message: &[u8]) {
        let (header, first) = match Header::decode(message) {
            Ok((header, first, _)) => (header, first),
            Err(_) => {
                self.counters.malformed += 1;
                return;
            }
        };
        let Some(cookie) = self.v1_owner(&header) else {
            if header.responder_cookie == 0
                && !header.encrypted
                && matches!(header.exchange, ExchangeType::MainMode | ExchangeType::AggressiveMode)
            {
                return match first {
                    FRAGMENT => self.v1_first_fragment(now, path, &header, message),
                    _ => self.v1_first_message(now, path, &header, message),
                };
            }
            self.counters.unknown_spi += 1;
            return;
        };
        self.with_v1(cookie, |endpoint, sa| match first {
            FRAGMENT if !header.encrypted => endpoint.v1_fragment(now, sa, path, &header, message),
            _ => endpoint.v1_message(now, sa, path, &header, message),
        });
    }

    /// Our cookie of the SA that a message is of.
    fn v1_owner(&self, header: &Header) -> Option<u64> {
        let (initiator, responder) = (header.initiator_cookie, header.responder_cookie);
        let ours = |cookie: u64, role| self.v1.sa(cookie).filter(|sa| sa.role == role);
        if let Some(sa) = ours(initiator, Role::Initiator) {
            // Who refuses a first message may do so without a cookie of its own.
            let refusal = header.exchange == ExchangeType::InformationalMode && responder == 0;
            return (sa.peer_cookie == responder || sa.peer_cookie == 0 || refusal).then_some(initiator);
        }
        ours(responder, Role::Responder).filter(|sa| sa.peer_cookie == initiator).map(|sa| sa.cookie)
    }

    /// A first message that came before, or one that asks for a new SA.
    fn v1_first_message(&mut self, now: Instant, path: Path, header: &Header, message: &[u8]) {
        if header.message_id != 0 || message.len() > MAX_FIRST_MESSAGE {
            self.counters.malformed += 1;
            return;
        }
        let digest = digest(&[path.remote.to_string().as_bytes(), &[0], message].concat());
        if let Some(cookie) = self.v1.first_messages.get(&digest).copied() {
            let waiting =
                |sa: &&Sa| matches!(&sa.state, State::PhaseOne(one) if one.step.answers_first_message());
            match self.v1.sa(cookie).filter(waiting).map(|sa| (sa.path, sa.flight.messages.clone())) {
                Some((path, messages)) if !messages.is_empty() => {
                    self.counters.repeated_answers += 1;
                    self.transmit(path, &messages);
                }
                _ => self.counters.old_message_id += 1,
            }
            return;
        }
        let came = Came { path, header, octets: message, digest };
        match Chain::of(message) {
            Ok(chain) if header.exchange == ExchangeType::MainMode => {
                self.main_mode_first(now, &came, &chain);
            }
            Ok(chain) => self.aggressive_first(now, &came, &chain),
            Err(_) => self.counters.malformed += 1,
        }
    }

    /// A fragment of a first message: strongSwan sends such where it is told to force fragmentation.
    fn v1_first_fragment(&mut self, now: Instant, path: Path, header: &Header, message: &[u8]) {
        let Some(fragment) = self.v1_sole_fragment(message) else { return };
        let from = (path.remote, header.initiator_cookie);
        let Some(whole) = self.v1.first_fragments.add(now, from, fragment) else { return };
        match Header::decode(&whole) {
            Ok((inner, first, _))
                if fragment::belongs(header, &whole)
                    && (inner.exchange, inner.responder_cookie) == (header.exchange, 0)
                    && first != FRAGMENT
                    && !inner.encrypted =>
            {
                self.v1_first_message(now, path, &inner, &whole);
            }
            _ => self.counters.malformed += 1,
        }
    }

    /// The fragment that is all of a message.
    fn v1_sole_fragment(&mut self, message: &[u8]) -> Option<FragmentPayload> {
        match Chain::of(message).map(|chain| chain.payloads).as_deref() {
            Ok([Payload::Fragment(fragment)]) => Some(fragment.clone()),
            _ => {
                self.counters.malformed += 1;
                None
            }
        }
    }

    fn v1_fragment(
        &mut self,
        now: Instant,
        mut sa: Sa,
        path: Path,
        header: &Header,
        message: &[u8],
    ) -> Option<Sa> {
        let Some(fragment) = self.v1_sole_fragment(message) else { return Some(sa) };
        self.timers.set(sa.cookie, TimerKind::Reassembly, now + REASSEMBLY);
        // From whoever has not proved who it is, little is kept.
        let longest = if sa.established().is_some() { usize::MAX } else { MAX_FIRST_MESSAGE };
        let Some(whole) = sa.fragments.add(fragment, longest) else { return Some(sa) };
        self.timers.stop(sa.cookie, TimerKind::Reassembly);
        match Header::decode(&whole) {
            Ok((inner, first, _)) if fragment::belongs(header, &whole) && first != FRAGMENT => {
                self.v1_message(now, sa, path, &inner, &whole)
            }
            _ => {
                self.counters.malformed += 1;
                Some(sa)
            }
        }
    }

    /// A whole message with the cookies of an SA.
    fn v1_message(
        &mut self,
        now: Instant,
        sa: Sa,
        path: Path,
        header: &Header,
        message: &[u8],
    ) -> Option<Sa> {
        if sa.peer_cookie != 0
            && header.responder_cookie != 0
            && header.responder_cookie != sa.responder_cookie()
        {
            self.counters.unknown_spi += 1;
            return Some(sa);
        }
        match (&sa.state, header.exchange) {
            (State::PhaseOne(_), ExchangeType::MainMode | ExchangeType::AggressiveMode) => {
                self.phase_one_message(now, sa, path, header, message)
            }
            (State::PhaseOne(_), ExchangeType::InformationalMode) => {
                self.hint(now, sa, path, header, message)
            }
            (State::PhaseOne(_), _) => {
                // The peer is up already, and our side lacks its last message.
                self.repeat_flight(&sa, path);
                Some(sa)
            }
            (
                State::Established(_) | State::Closing(_),
                ExchangeType::MainMode | ExchangeType::AggressiveMode,
            ) => self.phase_one_again(sa, path, message),
            (State::Established(_) | State::Closing(_), _) => self.protected(now, sa, path, header, message),
        }
    }

    /// A message of phase 1 when that is over. Whoever repeats its last one lacks ours.
    fn phase_one_again(&mut self, sa: Sa, path: Path, message: &[u8]) -> Option<Sa> {
        match sa.received {
            Some(last) if sa.role == Role::Responder && last == digest(message) => {
                self.repeat_flight(&sa, path)
            }
            // The responder of aggressive mode repeats its only message until it gets our second.
            _ if sa.role == Role::Initiator && sa.mode == crate::Mode::Aggressive => {
                self.repeat_flight(&sa, path)
            }
            _ => self.counters.old_message_id += 1,
        }
        Some(sa)
    }

    /// Sends the last messages of phase 1 again because the peer seems to lack them.
    pub(super) fn repeat_flight(&mut self, sa: &Sa, path: Path) {
        if path.remote.ip() == sa.path.remote.ip() && !sa.flight.messages.is_empty() {
            self.counters.repeated_answers += 1;
            self.transmit(sa.path, &sa.flight.messages);
        }
    }

    /// Sends a message of an SA, in fragments where it is too long and the peer can put them together; gives the
    /// datagrams, for when they are to be sent again.
    pub(super) fn v1_send(&mut self, sa: &mut Sa, message: Vec<u8>) -> Vec<Vec<u8>> {
        let messages = if sa.peer.fragmentation {
            sa.fragmented = sa.fragmented.wrapping_add(1).max(1);
            let (size, v6) = (self.config.fragment_size, sa.path.remote.is_ipv6());
            fragment::split(message, sa.fragmented, sa.exchange(), size, v6)
        } else {
            vec![message]
        };
        self.transmit(sa.path, &messages);
        messages
    }

    /// Sends a message of phase 1. An initiator sends it again until it is answered.
    pub(super) fn send_flight(&mut self, now: Instant, sa: &mut Sa, message: Vec<u8>) {
        let messages = self.v1_send(sa, message);
        sa.flight = Flight { messages, ..Flight::default() };
        if sa.role == Role::Initiator {
            sa.flight.schedule(now, &self.config);
        }
    }

    /// Something of an SA was not answered in time.
    pub(super) fn v1_retransmit(&mut self, now: Instant, mut sa: Sa) -> Option<Sa> {
        let attempts = self.config.retransmission.attempts;
        if sa.flight.resend_at.is_some_and(|at| at <= now) {
            if sa.flight.attempts >= attempts {
                return self.flight_unanswered(now, sa);
            }
            sa.flight.schedule(now, &self.config);
            self.counters.retransmissions += 1;
            self.transmit(sa.path, &sa.flight.messages);
        }
        self.resend_exchanges(now, sa)
    }

    fn flight_unanswered(&mut self, now: Instant, sa: Sa) -> Option<Sa> {
        let State::PhaseOne(one) = &sa.state else { return Some(sa) };
        let waited =
            sa.flight.first_sent.map_or_else(Default::default, |at| now.saturating_duration_since(at));
        let cause = one.unanswered(&sa, sa.flight.attempts, waited);
        let exchange = sa.exchange();
        self.counters.exchange(exchange, crate::ExchangeResult::TimedOut);
        self.phase_one_failed(now, &sa, cause);
        None
    }

    /// Answers something unprotected with a notify alone.
    pub(super) fn refuse_unprotected(
        &mut self,
        path: Path,
        cookies: (u64, u64),
        notify: super::wire::NotifyType,
    ) {
        let message_id = loop {
            match self.rng.next_u32() {
                0 => {}
                id => break id,
            }
        };
        let header = Header::new(cookies.0, cookies.1, ExchangeType::InformationalMode, message_id);
        let notify = Payload::Notify(Notify::about_isakmp(notify, cookies, []));
        let message = encode_message(header, &[notify]);
        self.transmit(path, &[message]);
    }

    /// An informational message while there is no SA yet: anybody may have sent it, so it is only what people are told
    /// if nothing better comes; what refuses a first message ends the attempt, as waiting would only delay the answer.
    fn hint(&mut self, now: Instant, mut sa: Sa, path: Path, header: &Header, message: &[u8]) -> Option<Sa> {
        if path.remote.ip() != sa.path.remote.ip() || sa.role != Role::Initiator {
            self.counters.unexpected += 1;
            return Some(sa);
        }
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        one.heard = true;
        if header.encrypted {
            // It speaks with other keys than we have.
            one.garbled = true;
            return Some(sa);
        }
        let Ok(chain) = Chain::of(message) else { return Some(sa) };
        let error = chain.payloads.iter().find_map(|p| match p {
            Payload::Notify(notify) if notify.kind.is_error() => Some(notify.kind),
            _ => None,
        });
        let Some(kind) = error else { return Some(sa) };
        let cause = one.refusal(&sa.tunnel, kind);
        if one.step.is_first() {
            let exchange = sa.exchange();
            self.counters.exchange(exchange, crate::ExchangeResult::Refused);
            self.phase_one_failed(now, &sa, cause);
            return None;
        }
        one.trouble = Some(cause);
        Some(sa)
    }

    /// The peer of an SA that we begin has answered in IKEv2.
    pub(crate) fn v1_answered_in_v2(&mut self, path: Path, cookie: u64) {
        if let Some(sa) = self.v1.sas.get_mut(&cookie)
            && sa.path.remote.ip() == path.remote.ip()
            && let State::PhaseOne(one) = &mut sa.state
        {
            one.heard = true;
            one.trouble = Some(Cause::VersionMismatch { ours: Version::Ikev1, theirs: Version::Ikev2 });
        }
    }
}
