//! Requests and answers as such: protection, message IDs, retransmission. What they say is the business of
//! `sa`.

use std::time::Instant;

use crate::{
    counters::ExchangeResult,
    crypto::cipher::Inner,
    endpoint::{Endpoint, NON_ESP_MARKER},
    error::Cause,
    event::{DownReason, Path, Phase, Transmit},
    sa::{IkeSa, Pending, Purpose, Queued, Request, Role, Standing, State, Turn},
    timer::TimerKind,
    wire::{ExchangeType, Header, Payload, WireError},
};

impl Endpoint {
    /// Sends a protected request, or puts it in the queue while another waits for its answer.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        exchange: ExchangeType,
        payloads: Vec<Payload>,
        purpose: Purpose,
    ) {
        if sa.is_busy() {
            sa.window.queue.push_back(Queued { exchange, payloads, purpose });
            return;
        }
        self.request_next(now, sa, exchange, payloads, purpose);
    }

    /// Sends a protected request though others may wait; none is under way.
    pub(crate) fn request_next(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        exchange: ExchangeType,
        payloads: Vec<Payload>,
        purpose: Purpose,
    ) {
        let id = sa.window.next;
        if id == u32::MAX {
            // Nothing can be said on it any more, not even that it is closed.
            let end = if sa.established().is_some() { TimerKind::HardLifetime } else { TimerKind::Linger };
            return self.timers.set(sa.spi, end, now);
        }
        let header = header(sa, exchange, false, id);
        let path = sa.path;
        let Some(messages) = self.seal(sa, path, header, &payloads) else { return };
        sa.window.next = id.wrapping_add(1);
        self.send_request(now, sa, exchange, id, messages, purpose);
    }

    /// Sends a request that is whole, and starts to wait for its answer.
    pub(crate) fn send_request(
        &mut self,
        now: Instant,
        sa: &mut IkeSa,
        exchange: ExchangeType,
        id: u32,
        messages: Vec<Vec<u8>>,
        purpose: Purpose,
    ) {
        self.transmit(sa.path, &messages);
        self.timers.set(sa.spi, TimerKind::Retransmit, now + self.config.retransmission.wait(1));
        sa.window.outstanding =
            Some(Request { exchange, id, messages, purpose, attempts: 1, first_sent: now });
    }

    /// Sends a protected answer to the peer's latest request, and keeps it for when that comes again.
    pub(crate) fn answer(
        &mut self,
        sa: &mut IkeSa,
        path: Path,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) {
        if let Some(messages) = self.prepare_answer(sa, path, exchange, payloads) {
            self.transmit(path, messages);
        }
    }

    /// As [`Self::answer`], but sent at `at`, or before where the request comes again.
    pub(crate) fn answer_at(
        &mut self,
        at: Instant,
        sa: &mut IkeSa,
        path: Path,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) {
        if self.prepare_answer(sa, path, exchange, payloads).is_some() {
            self.timers.set(sa.spi, TimerKind::Answer, at);
        }
    }

    /// Sends the answer that was held back.
    pub(crate) fn send_answer(&mut self, sa: &IkeSa) {
        if let Some(answer) = &sa.window.answer {
            self.transmit(sa.path, answer);
        }
    }

    fn prepare_answer<'a>(
        &mut self,
        sa: &'a mut IkeSa,
        path: Path,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) -> Option<&'a [Vec<u8>]> {
        let header = header(sa, exchange, true, sa.window.expected);
        let messages = self.seal(sa, path, header, payloads)?;
        sa.window.expected = sa.window.expected.wrapping_add(1);
        Some(sa.window.answer.insert(messages))
    }

    /// A protected message, in fragments where it is too long for one packet and the peer can put them together.
    fn seal(
        &mut self,
        sa: &mut IkeSa,
        path: Path,
        header: Header,
        payloads: &[Payload],
    ) -> Option<Vec<Vec<u8>>> {
        let longest = if sa.extensions.fragmentation { self.longest_message(path) } else { usize::MAX };
        let channel = sa.channel()?;
        Some(channel.outgoing.seal_within(longest, header, payloads, &mut *self.rng))
    }

    /// Sends a message: one datagram, or one for each fragment.
    pub(crate) fn transmit(&mut self, path: Path, messages: &[Vec<u8>]) {
        let marked = path.local.port() == self.config.nat_t_port;
        let marker = if marked { &NON_ESP_MARKER[..] } else { &[] };
        for message in messages {
            self.counters.sent += 1;
            self.transmits.push_back(Transmit { path, payload: [marker, message].concat() });
        }
    }

    /// The peer's last request has come again: it gets the answer that it got.
    pub(crate) fn repeat_answer(&mut self, sa: &IkeSa, path: Path) {
        if let Some(answer) = &sa.window.answer {
            self.counters.repeated_answers += 1;
            self.timers.stop(sa.spi, TimerKind::Answer);
            self.transmit(path, answer);
        }
    }

    /// An authentic request of the peer.
    pub(crate) fn protected_request(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        header: &Header,
        inner: Result<Inner, WireError>,
    ) -> Option<IkeSa> {
        match sa.window.turn(header.message_id) {
            Turn::New => {}
            // The answer to a first message is for those who send that again.
            Turn::Repeated if header.message_id > 0 || !sa.is_half_open() => {
                self.repeat_answer(&sa, path);
                return Some(sa);
            }
            _ => {
                self.counters.old_message_id += 1;
                return Some(sa);
            }
        }
        let expected = match &sa.state {
            State::HalfOpen(handshake) => match handshake.additional() {
                Some(_) => header.exchange == ExchangeType::IkeIntermediate,
                None => header.exchange == ExchangeType::IkeAuth,
            },
            // Who has not proved who it is was told all there is to tell, and is only answered again.
            State::Closing(_) if self.half_open.contains_key(&sa.spi) => false,
            State::Established(_) | State::Closing(_) => {
                matches!(
                    header.exchange,
                    ExchangeType::Informational | ExchangeType::CreateChildSa | ExchangeType::IkeFollowupKe
                )
            }
            State::Opening(_) | State::Intermediate(_) | State::AuthSent(_) | State::Answering(_) => false,
        };
        if !expected {
            self.counters.unexpected += 1;
            return Some(sa);
        }
        // A copy of the request whose key exchange is being computed.
        let computing = |pending: &Pending| pending.computing.is_some();
        if sa
            .established()
            .is_some_and(|e| e.answering.is_some() || e.pending.as_deref().is_some_and(computing))
        {
            self.counters.old_message_id += 1;
            return Some(sa);
        }
        self.alive(now, &mut sa);
        self.follow(&mut sa, path);
        if sa.window.is_nearly_used_up() && sa.established().is_some_and(|e| e.standing == Standing::InUse) {
            self.timers.set(sa.spi, TimerKind::SoftLifetime, now);
        }
        let said = inner.and_then(|inner| inner.payloads().map(|payloads| (inner, payloads)));
        let (inner, payloads) = match said {
            Ok(said) => said,
            Err(error) => return self.broken_request(now, sa, path, header.exchange, error),
        };
        match header.exchange {
            ExchangeType::IkeAuth => self.auth_request(now, sa, path, &payloads),
            ExchangeType::CreateChildSa => self.create_child_sa_request(now, sa, path, payloads),
            ExchangeType::Informational => self.informational_request(now, sa, path, &payloads),
            ExchangeType::IkeFollowupKe => self.follow_up_request(sa, path, &payloads),
            ExchangeType::IkeIntermediate => self.intermediate_request(now, sa, path, &inner, &payloads),
            _ => Some(sa),
        }
    }

    /// A request that is the peer's and yet malformed: it is told, and unless only a payload is too new, the
    /// SA ends (RFC 7296 section 2.21.3).
    fn broken_request(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        exchange: ExchangeType,
        error: WireError,
    ) -> Option<IkeSa> {
        self.counters.malformed += 1;
        self.counters.exchange(exchange, ExchangeResult::Refused);
        let cause = Cause::Undecodable(error);
        self.answer(&mut sa, path, exchange, &[Payload::Notify(cause.to_notify())]);
        if matches!(error, WireError::Critical(_)) && sa.established().is_some() {
            return Some(sa);
        }
        if sa.is_half_open() {
            self.report_failure(&sa, Phase::One, exchange, cause);
        }
        self.broken(now, sa)
    }

    /// A request of the peer's on an SA in use breaks the protocol: it is told, and the SA ends.
    pub(crate) fn break_off(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        exchange: ExchangeType,
        cause: &Cause,
    ) -> Option<IkeSa> {
        self.counters.malformed += 1;
        self.answer(&mut sa, path, exchange, &[Payload::Notify(cause.to_notify())]);
        self.broken(now, sa)
    }

    /// An SA ends without a DELETE: the peer knows. It stays to answer what comes again.
    fn broken(&mut self, now: Instant, mut sa: IkeSa) -> Option<IkeSa> {
        self.down(&mut sa, DownReason::Broken);
        self.timers.stop_all(sa.spi);
        // The peer has forgotten what it was asked, too.
        sa.window.outstanding = None;
        sa.window.queue.clear();
        sa.state = match sa.state {
            State::HalfOpen(handshake) => State::Closing(handshake.into_channel()),
            State::Established(established) => State::Closing(established.channel),
            State::Closing(channel) => State::Closing(channel),
            State::Opening(_) | State::Intermediate(_) | State::AuthSent(_) | State::Answering(_) => {
                return None;
            }
        };
        self.timers.set(sa.spi, TimerKind::Linger, now + self.config.linger);
        Some(sa)
    }

    /// An authentic answer of the peer.
    pub(crate) fn protected_answer(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        header: &Header,
        inner: Result<Inner, WireError>,
    ) -> Option<IkeSa> {
        let Some(request) = sa.window.take_answered(header.exchange, header.message_id) else {
            self.counters.old_message_id += 1;
            return Some(sa);
        };
        self.timers.stop(sa.spi, TimerKind::Retransmit);
        if request.purpose == Purpose::Liveness && request.attempts == 1 {
            self.answered_probe(sa.tunnel.as_deref(), now.saturating_duration_since(request.first_sent));
        }
        self.alive(now, &mut sa);
        self.follow(&mut sa, path);
        if sa.window.is_nearly_used_up() && sa.established().is_some_and(|e| e.standing == Standing::InUse) {
            self.timers.set(sa.spi, TimerKind::SoftLifetime, now);
        }
        let said = inner.and_then(|inner| inner.payloads().map(|payloads| (Some(inner), payloads)));
        let (inner, payloads) = match said {
            Ok(said) => said,
            Err(error) => {
                self.counters.malformed += 1;
                if sa.is_attempt() {
                    return self.attempt_failed(sa, Phase::One, header.exchange, Cause::Undecodable(error));
                }
                if header.exchange == ExchangeType::CreateChildSa {
                    let mut sa = self.create_child_sa_answer(now, sa, request, Err(error))?;
                    self.next_request(now, &mut sa);
                    return Some(sa);
                }
                if header.exchange == ExchangeType::IkeFollowupKe {
                    let mut sa = self.follow_up_answer(now, sa, Err(error))?;
                    self.next_request(now, &mut sa);
                    return Some(sa);
                }
                (None, Vec::new())
            }
        };
        let sa = match (header.exchange, inner) {
            (ExchangeType::IkeIntermediate, Some(said)) => self.intermediate_answer(sa, &said, &payloads),
            (ExchangeType::IkeAuth, _) => self.auth_answer(now, sa, &payloads),
            (ExchangeType::IkeFollowupKe, _) => self.follow_up_answer(now, sa, Ok(&payloads)),
            (ExchangeType::CreateChildSa, _) => self.create_child_sa_answer(now, sa, request, Ok(&payloads)),
            _ => self.informational_answer(now, sa, request.purpose),
        };
        let mut sa = sa?;
        self.next_request(now, &mut sa);
        Some(sa)
    }

    /// Sends the next request whose turn it is, if any.
    pub(crate) fn next_request(&mut self, now: Instant, sa: &mut IkeSa) {
        if !sa.is_busy()
            && let Some(Queued { exchange, payloads, purpose }) = sa.window.queue.pop_front()
        {
            self.request(now, sa, exchange, payloads, purpose);
        }
        self.pursue(now, sa);
    }

    /// A request was not answered in time.
    pub(crate) fn retransmit(&mut self, now: Instant, mut sa: IkeSa) -> Option<IkeSa> {
        let settings = self.config.retransmission;
        let (closing, path, spi) = (matches!(sa.state, State::Closing(_)), sa.path, sa.spi);
        let Some(request) = &mut sa.window.outstanding else { return Some(sa) };
        // A probe goes on until dead peer detection has its verdict, by its own times.
        let endless = request.purpose == Purpose::Liveness && !closing;
        if request.attempts < settings.attempts || endless {
            request.attempts += 1;
            let messages = request.messages.clone();
            self.timers.set(spi, TimerKind::Retransmit, now + settings.wait(request.attempts));
            self.counters.retransmissions += 1;
            self.transmit(path, &messages);
            return Some(sa);
        }
        let (exchange, attempts) = (request.exchange, request.attempts);
        let waited = now.saturating_duration_since(request.first_sent);
        self.counters.exchange(exchange, ExchangeResult::TimedOut);
        let (trouble, heard) = match &mut sa.state {
            State::Closing(_) => return None,
            State::Established(_) => return self.dead(sa),
            State::Opening(opening) => opening.take_trouble(),
            _ => (None, true),
        };
        let cause = trouble.unwrap_or(Cause::NoAnswer { path, attempts, waited, heard });
        self.report_failure(&sa, Phase::One, exchange, cause);
        None
    }

    /// Gives up an attempt that has failed.
    pub(crate) fn attempt_failed(
        &mut self,
        sa: IkeSa,
        phase: Phase,
        exchange: ExchangeType,
        cause: Cause,
    ) -> Option<IkeSa> {
        self.counters.exchange(exchange, ExchangeResult::Refused);
        self.report_failure(&sa, phase, exchange, cause);
        None
    }

    /// Reports that an attempt has failed, unless the tunnel is up all the same or nobody waits for it any
    /// more.
    pub(crate) fn report_failure(&mut self, sa: &IkeSa, phase: Phase, exchange: ExchangeType, cause: Cause) {
        let up = sa.tunnel_id().is_some_and(|tunnel| self.has_usable(tunnel, sa.spi));
        if !up && !sa.doomed {
            self.failed(sa.tunnel_id(), sa.path, sa.role == Role::Initiator, phase, exchange, cause);
        }
    }
}

/// The header of a protected message of ours.
pub(crate) fn header(sa: &IkeSa, exchange: ExchangeType, response: bool, message_id: u32) -> Header {
    Header {
        initiator_spi: sa.initiator_spi(),
        responder_spi: sa.responder_spi(),
        exchange,
        from_initiator: sa.role == Role::Initiator,
        response,
        message_id,
    }
}
