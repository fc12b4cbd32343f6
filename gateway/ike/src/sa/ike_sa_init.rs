//! IKE_SA_INIT (RFC 7296 section 1.2) as initiator: algorithms, key exchange, nonces, NAT detection.
//!
//! Nothing in this exchange is authenticated. So a responder keeps no state for what it refuses, and an
//! initiator that gets an answer of no use goes on waiting for a better one; only NO_PROPOSAL_CHOSEN, an
//! impossible group and a public value that is none end the attempt at once, since waiting would only delay the
//! answer people need.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{
    Channel, Extensions, Flow, Handshake, IkeSa, Purpose, Role, State, Window, child, handshake::IntAuth,
    nat, ppk,
};
use crate::{
    algorithm::Group,
    config::{TunnelConfig, Version},
    counters::ExchangeResult,
    crypto::{
        dh::{InvalidPublic, Job, Secret, Shared, Work},
        keys::{self, Exchanged},
    },
    endpoint::Endpoint,
    error::Cause,
    event::{Nat, Path, Phase},
    proposal::{self, IkeSuite, accept_ike, offer_ike},
    timer::TimerKind,
    wire::{
        ExchangeType, Header, Notify, NotifyType, Payload, Proposal, encode_message, payload::decode_chain,
    },
};

/// How often a cookie or another group is given in to, in one attempt.
const MAX_RETRIES: u32 = 8;
pub(super) const NONCE_LEN: usize = 32;
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

/// The three payloads that an IKE_SA_INIT message of either side must have.
pub(super) struct Essentials<'a> {
    pub(super) proposals: &'a [Proposal],
    pub(super) group: u16,
    pub(super) public: &'a [u8],
    pub(super) nonce: &'a [u8],
}

impl<'a> Essentials<'a> {
    pub(super) fn of(payloads: &'a [Payload]) -> Option<Self> {
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
        self.of_tunnel.insert(&tunnel, spi);
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
                let cause = Cause::NothingChosen { ours: offered() };
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
            last_incoming: None,
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

/// The header of an IKE_SA_INIT message.
pub(super) fn header(initiator_spi: u64, responder_spi: u64, response: bool) -> Header {
    let exchange = ExchangeType::IkeSaInit;
    Header { initiator_spi, responder_spi, exchange, from_initiator: !response, response, message_id: 0 }
}
