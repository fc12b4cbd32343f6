//! IKE_SA_INIT (RFC 7296 section 1.2): algorithms, key exchange, nonces, NAT detection.
//!
//! Nothing in this exchange is authenticated. So a responder keeps no state for what it refuses, and an
//! initiator that gets an answer of no use goes on waiting for a better one; only NO_PROPOSAL_CHOSEN, an
//! impossible group and a public value that is none end the attempt at once, since waiting would only delay the
//! answer people need.

use std::{cmp::Reverse, net::SocketAddr, sync::Arc, time::Instant};

use sha2::{Digest, Sha256};

use super::{
    Channel, Extensions, Flow, Handshake, IkeSa, Purpose, Role, State, Window, child, handshake::IntAuth,
    nat, ppk,
};
use crate::{
    algorithm::Group,
    config::{NatT, TunnelConfig, Version},
    counters::ExchangeResult,
    crypto::{
        dh::{InvalidPublic, Job, Secret, Shared, Work},
        keys::{self, Exchanged},
    },
    endpoint::Endpoint,
    error::Cause,
    event::{Event, Nat, Path, Phase},
    proposal::{self, IkeSuite, accept_ike, offer_ike, select_ike},
    timer::TimerKind,
    wire::{
        ExchangeType, Header, Notify, NotifyType, Payload, Proposal, WireError, encode_message,
        payload::decode_chain,
    },
};

/// How often a cookie or another group is given in to, in one attempt.
const MAX_RETRIES: u32 = 8;
const NONCE_LEN: usize = 32;
/// Octets of a first message, several times those of an honest one: a responder keeps it until IKE_AUTH.
const MAX_FIRST_MESSAGE: usize = 8192;

/// An initiator up to the key exchange.
#[derive(Debug)]
pub(crate) struct Opening {
    cookie: Option<Vec<u8>>,
    retries: u32,
    /// The group of the running attempt.
    group: Group,
    /// Our part of the key exchange; not here while a job has it.
    secret: Option<(Secret, Vec<u8>)>,
    /// The answer whose key exchange is being computed.
    answer: Option<Answer>,
    /// What was wrong with the last answer of no use, to be told if none better comes.
    trouble: Option<Cause>,
    /// Whether anything came back at all.
    heard: bool,
}

impl Opening {
    /// The peer has answered in IKEv1.
    pub(crate) fn other_version(&mut self) {
        self.heard = true;
        self.trouble = Some(Cause::VersionMismatch { ours: Version::Ikev2, theirs: Version::Ikev1 });
    }

    /// What is known of why no answer of use came, and whether any came at all.
    pub(crate) fn take_trouble(&mut self) -> (Option<Cause>, bool) {
        (self.trouble.take(), self.heard)
    }
}

/// A well-formed answer.
#[derive(Debug)]
struct Answer {
    suite: IkeSuite,
    peer_spi: u64,
    nonce: Vec<u8>,
    message: Vec<u8>,
    nat: Option<Nat>,
    extensions: Extensions,
}

/// A responder while its key exchange is computed.
#[derive(Debug)]
pub(crate) struct Answering {
    suite: IkeSuite,
    chosen: Proposal,
    request: Vec<u8>,
    payloads: Vec<Payload>,
}

/// The three payloads that an IKE_SA_INIT message of either side must have.
struct Essentials<'a> {
    proposals: &'a [Proposal],
    group: u16,
    public: &'a [u8],
    nonce: &'a [u8],
}

impl<'a> Essentials<'a> {
    fn of(payloads: &'a [Payload]) -> Option<Self> {
        let proposals =
            payloads.iter().find_map(|p| if let Payload::Sa(sa) = p { Some(sa) } else { None })?;
        let (group, public) = payloads.iter().find_map(|p| match p {
            Payload::KeyExchange { group, public } => Some((*group, public)),
            _ => None,
        })?;
        let nonce = payloads.iter().find_map(|p| if let Payload::Nonce(n) = p { Some(n) } else { None })?;
        Some(Self { proposals, group, public, nonce })
    }
}

/// As initiator.
impl Endpoint {
    /// Begins an IKE SA. The first message goes out when our public value is computed.
    pub(crate) fn initiate(
        &mut self,
        now: Instant,
        tunnel: Arc<TunnelConfig>,
        path: Path,
        flow: Option<Flow>,
    ) {
        let Some(&group) = tunnel.ike.dh.first() else {
            let cause = Cause::NoProposal { ours: Vec::new(), theirs: None, first_difference: None };
            return self.failed(Some(tunnel.id), path, true, Phase::One, ExchangeType::IkeSaInit, cause);
        };
        if let Some(cause) = child::unsayable(&tunnel) {
            return self.failed(Some(tunnel.id), path, true, Phase::Two, ExchangeType::IkeSaInit, cause);
        }
        let spi = self.draw_spi();
        let mut initiator_nonce = vec![0; NONCE_LEN];
        self.rng.fill_bytes(&mut initiator_nonce);
        let opening = Opening {
            cookie: None,
            retries: 0,
            group,
            secret: None,
            answer: None,
            trouble: None,
            heard: false,
        };
        self.of_tunnel.insert((tunnel.id, spi));
        let sa = IkeSa {
            spi,
            peer_spi: 0,
            role: Role::Initiator,
            path,
            tunnel: Some(tunnel),
            started: now,
            initiator_nonce,
            extensions: Extensions::default(),
            flow,
            window: Window::default(),
            esp_spis: Vec::new(),
            first_message: None,
            doomed: false,
            state: State::Opening(Box::new(opening)),
        };
        self.sas.insert(spi, sa);
        self.generate(spi, group);
    }

    pub(super) fn generate(&mut self, sa: u64, group: Group) {
        let secret = Secret::random(group, &mut *self.rng);
        self.jobs.push_back(Job { sa, secret, work: Work::Generate });
    }

    /// Our public value is computed: the first message can go.
    pub(crate) fn generated(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        secret: Secret,
        public: Vec<u8>,
    ) -> Option<IkeSa> {
        if let State::Opening(opening) = &mut sa.state
            && opening.group == secret.group()
        {
            opening.secret = Some((secret, public));
            self.send_init(now, &mut sa);
        }
        Some(sa)
    }

    fn send_init(&mut self, now: Instant, sa: &mut IkeSa) {
        let (State::Opening(opening), Some(tunnel)) = (&sa.state, &sa.tunnel) else { return };
        let Some((secret, public)) = &opening.secret else { return };
        let mut payloads = Vec::with_capacity(10);
        payloads.extend(
            opening.cookie.as_ref().map(|c| Payload::Notify(Notify::new(NotifyType::COOKIE, &c[..]))),
        );
        payloads.push(Payload::Sa(offer_ike(&tunnel.ike)));
        payloads.push(Payload::KeyExchange { group: secret.group().number(), public: public.clone() });
        payloads.push(Payload::Nonce(sa.initiator_nonce.clone()));
        payloads.extend(nat::notifies(tunnel.nat_t, (sa.spi, 0), sa.path));
        payloads.extend(Extensions::of_tunnel(tunnel).notifies());
        let message = encode_message(header(sa.spi, 0, false), &payloads);
        sa.window.next = 1;
        self.send_request(now, sa, ExchangeType::IkeSaInit, 0, vec![message], Purpose::Establish);
    }

    /// An answer to our first message, from whoever.
    pub(crate) fn init_answer(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        path: Path,
        header: &Header,
        message: &[u8],
    ) -> Option<IkeSa> {
        let expected = header.message_id == 0
            && !header.from_initiator
            && path.remote.ip() == sa.path.remote.ip()
            && sa.window.outstanding.is_some();
        let (State::Opening(opening), Some(tunnel)) = (&mut sa.state, sa.tunnel.clone()) else {
            self.counters.old_message_id += 1;
            return Some(sa);
        };
        if !expected || opening.answer.is_some() || opening.secret.is_none() {
            self.counters.old_message_id += 1;
            return Some(sa);
        }
        let payloads = match Header::decode(message).and_then(|(_, first, rest)| decode_chain(first, rest)) {
            Ok(payloads) => payloads,
            Err(error) => {
                self.counters.malformed += 1;
                opening.trouble = Some(Cause::Undecodable(error));
                return Some(sa);
            }
        };
        opening.heard = true;
        if let Some(notify) = payloads.iter().find_map(retry_or_error) {
            return self.init_refused(now, sa, &tunnel, notify);
        }
        match read_answer(&tunnel, sa.spi, path, opening.group, header, message, &payloads) {
            Ok((answer, public)) => {
                if let Some((secret, _)) = opening.secret.take() {
                    opening.answer = Some(answer);
                    self.jobs.push_back(Job { sa: sa.spi, secret, work: Work::Agree(public) });
                }
            }
            Err(cause) => opening.trouble = Some(cause),
        }
        Some(sa)
    }

    fn init_refused(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        tunnel: &TunnelConfig,
        notify: Notify,
    ) -> Option<IkeSa> {
        let State::Opening(opening) = &mut sa.state else { return Some(sa) };
        let offered = || offer_ike(&tunnel.ike).iter().map(proposal::in_words).collect();
        match notify.kind {
            // A copy of the answer that was given in to.
            NotifyType::COOKIE if opening.cookie.as_ref() == Some(&notify.data) => Some(sa),
            NotifyType::COOKIE | NotifyType::INVALID_KE_PAYLOAD if opening.retries == MAX_RETRIES => {
                self.attempt_failed(sa, Phase::One, ExchangeType::IkeSaInit, Cause::TooManyRetries)
            }
            NotifyType::COOKIE => {
                if (1..=64).contains(&notify.data.len()) {
                    opening.retries += 1;
                    opening.cookie = Some(notify.data);
                    self.send_init(now, &mut sa);
                }
                Some(sa)
            }
            NotifyType::INVALID_KE_PAYLOAD => {
                let Ok(wanted) = <[u8; 2]>::try_from(notify.data).map(u16::from_be_bytes) else {
                    return Some(sa);
                };
                match Group::from_number(wanted).filter(|g| tunnel.ike.dh.contains(g)) {
                    Some(group) if group == opening.group => Some(sa),
                    Some(group) => {
                        opening.retries += 1;
                        opening.group = group;
                        opening.secret = None;
                        sa.window.outstanding = None;
                        self.timers.stop(sa.spi, TimerKind::Retransmit);
                        self.generate(sa.spi, group);
                        Some(sa)
                    }
                    None => {
                        let cause = Cause::InvalidGroup { ours: tunnel.ike.dh.clone(), theirs: wanted };
                        self.attempt_failed(sa, Phase::One, ExchangeType::IkeSaInit, cause)
                    }
                }
            }
            NotifyType::NO_PROPOSAL_CHOSEN => {
                let cause = Cause::NoProposal { ours: offered(), theirs: None, first_difference: None };
                self.attempt_failed(sa, Phase::One, ExchangeType::IkeSaInit, cause)
            }
            NotifyType::INVALID_MAJOR_VERSION => {
                opening.other_version();
                Some(sa)
            }
            kind => {
                opening.trouble = Some(Cause::PeerRefused { notify: kind });
                Some(sa)
            }
        }
    }

    /// The shared secret is computed: IKE_AUTH can go.
    pub(crate) fn agreed(
        &mut self,
        now: Instant,
        mut sa: IkeSa,
        shared: Result<Shared, InvalidPublic>,
    ) -> Option<IkeSa> {
        let State::Opening(opening) = &mut sa.state else { return Some(sa) };
        let Some(answer) = opening.answer.take() else { return Some(sa) };
        let request = sa.window.outstanding.take().and_then(|request| request.messages.into_iter().next());
        let Some(request) = request else { return Some(sa) };
        let Ok(shared) = shared else {
            let cause = Cause::InvalidPublicValue { group: opening.group };
            return self.attempt_failed(sa, Phase::One, ExchangeType::IkeSaInit, cause);
        };
        self.timers.stop(sa.spi, TimerKind::Retransmit);
        self.counters.exchange(ExchangeType::IkeSaInit, ExchangeResult::Done);
        sa.peer_spi = answer.peer_spi;
        sa.extensions = answer.extensions;
        let exchanged = Exchanged {
            initiator_nonce: &sa.initiator_nonce,
            responder_nonce: &answer.nonce,
            initiator_spi: sa.spi,
            responder_spi: sa.peer_spi,
        };
        let (keys, outgoing, incoming) = keys::derive(&answer.suite, &shared, &exchanged);
        let handshake = Handshake {
            channel: Channel { outgoing, incoming },
            keys,
            suite: answer.suite,
            nat: answer.nat,
            initiator_nonce: sa.initiator_nonce.clone(),
            responder_nonce: answer.nonce,
            request,
            answer: answer.message,
            int_auth: IntAuth::default(),
            computing: None,
        };
        if handshake.nat.is_some_and(Nat::any) {
            self.float(&mut sa);
        }
        match handshake.additional() {
            Some(group) => self.begin_intermediate(sa, handshake, group),
            None => {
                let tunnel = sa.tunnel.clone()?;
                let (state, payloads) =
                    self.auth_payloads(&tunnel, sa.extensions, sa.flow.as_ref(), &mut sa.esp_spis, handshake);
                sa.state = state;
                self.request(now, &mut sa, ExchangeType::IkeAuth, payloads, Purpose::Establish);
                Some(sa)
            }
        }
    }

    /// Goes on at the NAT traversal port. A path that is there already keeps the peer's port, which a NAT may have
    /// mapped.
    fn float(&self, sa: &mut IkeSa) {
        let float = |address: SocketAddr| SocketAddr::new(address.ip(), self.config.nat_t_port);
        if sa.path.local.port() != self.config.nat_t_port {
            sa.path = Path { local: float(sa.path.local), remote: float(sa.path.remote) };
        }
    }
}

/// The notify that makes an answer something else than an agreement.
fn retry_or_error(payload: &Payload) -> Option<Notify> {
    match payload {
        Payload::Notify(notify) if notify.kind.is_error() || notify.kind == NotifyType::COOKIE => {
            Some(notify.clone())
        }
        _ => None,
    }
}

fn read_answer(
    tunnel: &TunnelConfig,
    spi: u64,
    path: Path,
    group: Group,
    header: &Header,
    message: &[u8],
    payloads: &[Payload],
) -> Result<(Answer, Vec<u8>), Cause> {
    let essentials =
        Essentials::of(payloads).ok_or(Cause::Malformed { what: "SA, KE or Nonce is missing" })?;
    if header.responder_spi == 0 {
        return Err(Cause::Malformed { what: "the responder's SPI is zero" });
    }
    let suite = accept_ike(&tunnel.ike, essentials.proposals).ok_or_else(|| {
        let ours = offer_ike(&tunnel.ike);
        no_proposal(&ours, essentials.proposals)
    })?;
    if suite.group != group || essentials.group != group.number() {
        return Err(Cause::Malformed { what: "the group of KE is not the one agreed on" });
    }
    let extensions = Extensions::of(payloads);
    if suite.additional.is_some() && !extensions.intermediate {
        return Err(Cause::Malformed { what: "an additional key exchange without IKE_INTERMEDIATE" });
    }
    if let Some(ppk) = tunnel.ppk.as_ref().filter(|ppk| ppk.required && !extensions.ppk) {
        return Err(ppk::missing(ppk));
    }
    let nat = nat::detect(tunnel.nat_t, (spi, header.responder_spi), path, payloads);
    let answer = Answer {
        suite,
        peer_spi: header.responder_spi,
        nonce: essentials.nonce.to_vec(),
        message: message.to_vec(),
        nat,
        extensions,
    };
    Ok((answer, essentials.public.to_vec()))
}

pub(super) fn no_proposal(ours: &[Proposal], theirs: &[Proposal]) -> Cause {
    Cause::NoProposal {
        ours: ours.iter().map(proposal::in_words).collect(),
        theirs: Some(theirs.iter().map(proposal::in_words).collect()),
        first_difference: proposal::first_difference(ours, theirs),
    }
}

/// As responder.
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
        let candidates = self.candidates(path, Version::Ikev2);
        let Some(first) = candidates.first() else {
            self.counters.no_tunnel += 1;
            let other = self.candidates(path, Version::Ikev1);
            let cause = match other.is_empty() {
                true => Cause::NoTunnel { local: path.local.ip(), remote: path.remote.ip() },
                false => Cause::VersionMismatch { ours: Version::Ikev1, theirs: Version::Ikev2 },
            };
            self.refuse_init(path, header, cause.to_notify());
            let tunnel = self.sole(&other);
            return self.stranger_failed(now, tunnel, path, cause);
        };
        let Some((suite, chosen)) = choose(&candidates, &essentials) else {
            let cause = no_proposal(&offer_ike(&first.ike), essentials.proposals);
            self.refuse_init(path, header, cause.to_notify());
            let tunnel = self.sole(&candidates);
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
        if self.half_open.len() >= self.config.half_open_limit {
            self.counters.overloaded += 1;
            return false;
        }
        // Above the threshold, so that nobody can use up an address' share without receiving there.
        let share = (self.config.half_open_limit / 8).max(self.config.cookie_threshold.saturating_add(1));
        let of_address = self.half_open.values().filter(|ip| **ip == path.remote.ip()).count();
        if of_address >= share {
            self.counters.overloaded += 1;
            return false;
        }
        if self.half_open.len() < self.config.cookie_threshold {
            return true;
        }
        let came = payloads.iter().find_map(|p| match p {
            Payload::Notify(notify) if notify.kind == NotifyType::COOKIE => Some(&notify.data),
            _ => None,
        });
        if came.is_some_and(|came| self.cookies.verify(came, path.remote, header.initiator_spi, nonce)) {
            return true;
        }
        self.counters.cookie_demanded += 1;
        let cookie = self.cookies.make(now, &mut *self.rng, path.remote, header.initiator_spi, nonce);
        self.refuse_init(path, header, Notify::new(NotifyType::COOKIE, cookie));
        false
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
        let candidates = self.candidates(sa.path, Version::Ikev2);
        let nat_t = candidates.first().map_or(NatT::Auto, |tunnel| tunnel.nat_t);
        let nat = nat::detect(nat_t, (sa.peer_spi, 0), sa.path, &payloads);
        let mut answer = vec![
            Payload::Sa(vec![chosen]),
            Payload::KeyExchange { group: suite.group.number(), public },
            Payload::Nonce(nonce.clone()),
        ];
        if nat.is_some() {
            answer.extend(nat::notifies(nat_t, (sa.peer_spi, sa.spi), sa.path));
        }
        sa.extensions = Extensions::of(&payloads).answer(&candidates);
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
            computing: None,
        }));
        Some(sa)
    }

    /// The tunnels that an initiator at this path may be: those of its address before those of any, and first of
    /// all the one it was last known to want.
    pub(crate) fn candidates(&self, path: Path, version: Version) -> Vec<Arc<TunnelConfig>> {
        let (local, remote) = (path.local.ip(), path.remote.ip());
        let here = self.tunnels.values().filter(|t| t.local == local && t.ike.version == version);
        let mut candidates: Vec<_> =
            here.filter(|t| t.peer.is_none_or(|peer| peer == remote)).cloned().collect();
        candidates.sort_by_key(|t| (self.wanted.get(&t.id) != Some(&(local, remote)), t.peer.is_none()));
        candidates
    }

    /// The tunnel that a failure is of, where only one can be meant. Nobody is authenticated in IKE_SA_INIT: a
    /// tunnel that is up must not look as if it had failed.
    pub(super) fn sole(&self, candidates: &[Arc<TunnelConfig>]) -> Option<crate::TunnelId> {
        let [tunnel] = candidates else { return None };
        (!self.has_usable(tunnel.id, 0)).then_some(tunnel.id)
    }

    /// An initiator has gone no further than IKE_SA_INIT.
    pub(crate) fn half_open_expired(&mut self, now: Instant, sa: &IkeSa) {
        if !matches!(sa.state, State::HalfOpen(_)) {
            return;
        }
        let candidates = self.candidates(sa.path, Version::Ikev2);
        if let Some(tunnel) = self.sole(&candidates) {
            let waited = now.saturating_duration_since(sa.started);
            let cause = Cause::NotContinued { path: sa.path, waited };
            self.stranger_failed(now, Some(tunnel), sa.path, cause);
        }
    }

    /// Reports a failure that anybody can bring about, now and then.
    fn stranger_failed(&mut self, now: Instant, tunnel: Option<crate::TunnelId>, path: Path, cause: Cause) {
        self.failed_now_and_then(now, tunnel, path, ExchangeType::IkeSaInit, cause);
    }

    pub(super) fn failed_now_and_then(
        &mut self,
        now: Instant,
        tunnel: Option<crate::TunnelId>,
        path: Path,
        exchange: ExchangeType,
        cause: Cause,
    ) {
        if self.reports.permit(now, tunnel) {
            self.failed(tunnel, path, false, Phase::One, exchange, cause);
        }
    }

    pub(crate) fn failed(
        &mut self,
        tunnel: Option<crate::TunnelId>,
        path: Path,
        initiator: bool,
        phase: Phase,
        exchange: ExchangeType,
        cause: Cause,
    ) {
        self.events.push_back(Event::Failed { tunnel, peer: path.remote, initiator, phase, exchange, cause });
    }
}

fn header(initiator_spi: u64, responder_spi: u64, response: bool) -> Header {
    let exchange = ExchangeType::IkeSaInit;
    Header { initiator_spi, responder_spi, exchange, from_initiator: !response, response, message_id: 0 }
}

/// The responder's choice while it cannot know which tunnel is meant: what most of the tunnels that may be meant
/// allow. Of several such choices one in the group that the peer has guessed, and then that of the first tunnel.
fn choose(candidates: &[Arc<TunnelConfig>], offer: &Essentials<'_>) -> Option<(IkeSuite, Proposal)> {
    let choices = candidates.iter().filter_map(|tunnel| select_ike(&tunnel.ike, offer.proposals));
    choices.min_by_key(|(suite, _)| {
        let allow = candidates.iter().filter(|tunnel| suite.is_within(&tunnel.ike)).count();
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
