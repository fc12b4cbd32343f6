//! What main mode and aggressive mode have in common: the material, the proof of the pre-shared key, the end.

use std::{
    collections::BTreeSet,
    iter,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Capabilities, Established, Flight, Sa, State,
    cipher::MessageCipher,
    fragment::Reassembly,
    id::Identification,
    keys::{self, Exchanged, SaKeys, same_hash},
    message::{Came, digest},
    proposal::{Lifetime, PhaseOneSuite, first_difference, in_words, offer_phase_one, other_authentication},
    wire::{Chain, Header, Notify, NotifyType, Payload, SecurityAssociation},
};
use crate::{
    TunnelId,
    config::{Mode, NatT, TunnelConfig, Version},
    counters::ExchangeResult,
    crypto::dh::{InvalidPublic, Job, Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::{DownReason, Event, Nat, Path, Phase},
    sa::Role,
    selector::TrafficSelector,
    timer::TimerKind,
};

pub(super) const NONCE_LEN: usize = 32;

/// Where phase 1 stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// MM1 is sent.
    OfferSent,
    /// Our public value is being computed, for MM3.
    Generating,
    /// MM3 is sent.
    KeySent,
    /// The shared secret is being computed, for MM5.
    Agreeing,
    /// MM5 is sent.
    IdSent,
    /// MM2 is sent.
    OfferAnswered,
    /// The key exchange is being computed, for MM4.
    Responding,
    /// MM4 is sent.
    KeyAnswered,
    /// Our public value is being computed, for AM1.
    AggressiveGenerating,
    /// AM1 is sent.
    AggressiveSent,
    /// The shared secret is being computed, for AM3.
    AggressiveAgreeing,
    /// The key exchange is being computed, for AM2.
    AggressiveResponding,
    /// AM2 is sent.
    AggressiveAnswered,
}

impl Step {
    /// Whether the peer may hold the SA for established, so that it has to be told when it is given up.
    pub(super) fn may_be_up_at_peer(self) -> bool {
        self == Self::IdSent
    }

    /// Whether nothing but the first message has been sent.
    pub(super) fn is_first(self) -> bool {
        matches!(self, Self::OfferSent | Self::AggressiveSent)
    }

    /// Whether a first message that comes again is to be answered as it was.
    pub(super) fn answers_first_message(self) -> bool {
        matches!(self, Self::OfferAnswered | Self::AggressiveAnswered)
    }
}

/// An SA in phase 1.
#[derive(Debug)]
pub(super) struct PhaseOne {
    pub(super) step: Step,
    /// The tunnels that may be meant (responder): of main mode one with each pre-shared key, of aggressive mode those of
    /// the peer's identity.
    pub(super) candidates: Vec<Arc<TunnelConfig>>,
    /// The tunnel that is meant, where it can only be one, and nobody has been told yet what is wrong with it.
    pub(super) sole: Option<Arc<TunnelConfig>>,
    /// SAi_b.
    pub(super) offer: Vec<u8>,
    /// What the responder's SA payload says.
    pub(super) answer: SecurityAssociation,
    pub(super) suite: Option<PhaseOneSuite>,
    /// Our part of the key exchange; not here while a job has it.
    pub(super) secret: Option<Secret>,
    pub(super) public: Vec<u8>,
    pub(super) peer_public: Vec<u8>,
    pub(super) nonce: Vec<u8>,
    pub(super) peer_nonce: Vec<u8>,
    pub(super) nat: Option<Nat>,
    /// The peer's identity, where it came before the keys.
    pub(super) peer_id: Option<Identification>,
    /// The octets of its body, which its hash covers.
    pub(super) peer_id_body: Vec<u8>,
    /// HASH_R, until it can be checked (initiator of aggressive mode).
    pub(super) peer_hash: Vec<u8>,
    /// The keys with each PSK that may be meant, and the tunnels it is of.
    pub(super) keys: Vec<Keyed>,
    /// What is told if nothing better comes.
    pub(super) trouble: Option<Cause>,
    /// Whether anything came back at all.
    pub(super) heard: bool,
    /// Whether the peer encrypts with other keys than ours.
    pub(super) garbled: bool,
}

/// Keys from one PSK.
#[derive(Debug)]
pub(super) struct Keyed {
    pub(super) tunnels: Vec<Arc<TunnelConfig>>,
    pub(super) keys: SaKeys,
    pub(super) cipher: MessageCipher,
}

impl PhaseOne {
    pub(super) fn new(step: Step, offer: Vec<u8>, nonce: Vec<u8>) -> Self {
        Self {
            step,
            candidates: Vec::new(),
            sole: None,
            offer,
            answer: SecurityAssociation::default(),
            suite: None,
            secret: None,
            public: Vec::new(),
            peer_public: Vec::new(),
            nonce,
            peer_nonce: Vec::new(),
            nat: None,
            peer_id: None,
            peer_id_body: Vec::new(),
            peer_hash: Vec::new(),
            keys: Vec::new(),
            trouble: None,
            heard: false,
            garbled: false,
        }
    }

    /// What both sides know when the public values and nonces are exchanged.
    pub(super) fn exchanged(&self, role: Role, cookies: (u64, u64)) -> Exchanged<'_> {
        let (initiator_nonce, responder_nonce, initiator_public, responder_public) = match role {
            Role::Initiator => (&self.nonce, &self.peer_nonce, &self.public, &self.peer_public),
            Role::Responder => (&self.peer_nonce, &self.nonce, &self.peer_public, &self.public),
        };
        let (initiator_cookie, responder_cookie) = cookies;
        Exchanged {
            initiator_cookie,
            responder_cookie,
            initiator_nonce,
            responder_nonce,
            initiator_public,
            responder_public,
        }
    }

    /// Derives the keys with the PSK of each of `groups`, which are of tunnels that share one.
    pub(super) fn derive(
        &mut self,
        role: Role,
        cookies: (u64, u64),
        shared: &Shared,
        groups: Vec<Vec<Arc<TunnelConfig>>>,
    ) {
        let Some(suite) = self.suite else { return };
        let keyed = groups.into_iter().map(|tunnels| {
            let exchanged = self.exchanged(role, cookies);
            let (keys, cipher) = keys::derive(&suite, tunnels[0].psk.as_bytes(), shared, &exchanged);
            Keyed { tunnels, keys, cipher }
        });
        self.keys = keyed.collect();
    }

    /// Why an attempt of ours came to nothing when nothing of use answers any more.
    pub(super) fn unanswered(&self, sa: &Sa, attempts: u32, waited: Duration) -> Cause {
        if let Some(trouble) = &self.trouble {
            return trouble.clone();
        }
        let path = sa.path;
        match (&sa.tunnel, self.step) {
            (Some(tunnel), Step::IdSent) => Cause::IdentityUnanswered {
                port: path.remote.port(),
                garbled: self.garbled,
                local_id: tunnel.local_id.clone(),
                peer_id: tunnel.peer_id.clone(),
            },
            _ => Cause::NoAnswer { path, attempts, waited, heard: self.heard || sa.peer_cookie != 0 },
        }
    }

    /// What a refusal without a proof of its origin says.
    pub(super) fn refusal(&self, tunnel: &Option<Arc<TunnelConfig>>, kind: NotifyType) -> Cause {
        let Some(tunnel) = tunnel else { return Cause::PeerRefusedV1 { notify: kind } };
        match kind {
            NotifyType::NO_PROPOSAL_CHOSEN if self.step.is_first() => {
                let ours = offer_phase_one(&tunnel.ike).map_or_else(|_| Vec::new(), |offer| in_words(&offer));
                Cause::NothingChosenV1 { mode: tunnel.ike.mode, ours }
            }
            NotifyType::UNSUPPORTED_EXCHANGE_TYPE if self.step.is_first() => {
                Cause::ModeRefused { ours: tunnel.ike.mode }
            }
            NotifyType::INVALID_MAJOR_VERSION => {
                Cause::VersionMismatch { ours: Version::Ikev1, theirs: Version::Ikev2 }
            }
            NotifyType::AUTHENTICATION_FAILED
            | NotifyType::INVALID_HASH_INFORMATION
            | NotifyType::INVALID_ID_INFORMATION
            | NotifyType::PAYLOAD_MALFORMED => Cause::RefusedV1 {
                mode: tunnel.ike.mode,
                local_id: tunnel.local_id.clone(),
                peer_id: tunnel.peer_id.clone(),
            },
            notify => Cause::PeerRefusedV1 { notify },
        }
    }
}

pub(super) fn authentication_failed(tunnel: &TunnelConfig) -> Cause {
    Cause::AuthenticationFailed {
        told_by_peer: false,
        local_id: tunnel.local_id.clone(),
        peer_id: tunnel.peer_id.clone(),
    }
}

/// Why nothing of what the peer offers can be taken.
pub(super) fn no_proposal(tunnel: &TunnelConfig, theirs: &SecurityAssociation) -> Cause {
    if let Some(theirs) = other_authentication(theirs) {
        return Cause::OtherAuthentication { theirs };
    }
    match offer_phase_one(&tunnel.ike) {
        Ok(ours) => Cause::NoProposal {
            ours: in_words(&ours),
            theirs: Some(in_words(theirs)),
            first_difference: first_difference(&ours, theirs),
        },
        Err(cause) => cause,
    }
}

/// The one payload of a kind.
macro_rules! find {
    ($payloads:expr, $kind:ident) => {
        $payloads.iter().find_map(|p| if let Payload::$kind(body) = p { Some(body) } else { None })
    };
}
pub(super) use find;

/// The same, with the octets of its body.
macro_rules! find_with_body {
    ($chain:expr, $kind:ident) => {
        $chain
            .iter()
            .find_map(|(p, octets)| if let Payload::$kind(body) = p { Some((body, octets)) } else { None })
    };
}
pub(super) use find_with_body;

pub(super) fn says_initial_contact(payloads: &[Payload]) -> bool {
    payloads
        .iter()
        .any(|p| matches!(p, Payload::Notify(notify) if notify.kind == NotifyType::INITIAL_CONTACT))
}

impl Endpoint {
    pub(super) fn v1_initiate(
        &mut self,
        now: Instant,
        tunnel: Arc<TunnelConfig>,
        peer: IpAddr,
        flow: Option<(TrafficSelector, TrafficSelector)>,
        anew: bool,
    ) {
        let path = self.path_to(&tunnel, peer);
        self.v1_initiate_on(now, tunnel, path, flow, anew);
    }

    /// Begins an ISAKMP SA.
    pub(super) fn v1_initiate_on(
        &mut self,
        now: Instant,
        tunnel: Arc<TunnelConfig>,
        path: Path,
        flow: Option<(TrafficSelector, TrafficSelector)>,
        anew: bool,
    ) {
        let (id, mode) = (tunnel.id, tunnel.ike.mode);
        let offer = match offer_phase_one(&tunnel.ike) {
            Ok(offer) => offer,
            Err(cause) => {
                let exchange = match mode {
                    Mode::Main => crate::ExchangeType::MainMode,
                    Mode::Aggressive => crate::ExchangeType::AggressiveMode,
                };
                return self.failed(Some(id), path, true, Phase::One, exchange, cause);
            }
        };
        let cookie = self.draw_spi();
        let nonce = self.v1_nonce();
        let offer = Payload::Sa(offer);
        let step = match mode {
            Mode::Main => Step::OfferSent,
            Mode::Aggressive => Step::AggressiveGenerating,
        };
        let one = PhaseOne::new(step, offer.body(), nonce.clone());
        let mut sa = Sa {
            cookie,
            peer_cookie: 0,
            role: Role::Initiator,
            mode,
            path,
            tunnel: Some(tunnel.clone()),
            started: now,
            initiator_nonce: nonce,
            peer: Capabilities::default(),
            first_message: None,
            doomed: false,
            anew,
            waiting: BTreeSet::new(),
            flow,
            fragments: Reassembly::default(),
            fragmented: 0,
            received: None,
            flight: Flight::default(),
            state: State::PhaseOne(Box::new(one)),
        };
        self.family(id).sas.insert(cookie);
        self.v1.of_tunnel.insert(&tunnel, cookie);
        match mode {
            Mode::Main => self.send_main_offer(now, &mut sa, offer),
            Mode::Aggressive => {
                if let Some(group) = tunnel.ike.dh.first() {
                    let secret = Secret::random(*group, &mut *self.rng);
                    self.jobs.push_back(Job { sa: cookie, secret, work: Work::Generate });
                }
            }
        }
        self.arm(&sa);
        self.v1.sas.insert(cookie, sa);
    }

    /// An SA of which a first message asks for, where there is room.
    pub(super) fn v1_respond(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        mode: Mode,
        digest: [u8; 32],
        one: PhaseOne,
    ) -> Sa {
        let cookie = self.draw_spi();
        self.v1.first_messages.insert(digest, cookie);
        self.half_open.insert(cookie, path.remote.ip());
        self.timers.set(cookie, TimerKind::HalfOpen, now + self.config.half_open_timeout);
        Sa {
            cookie,
            peer_cookie: header.initiator_cookie,
            role: Role::Responder,
            mode,
            path,
            tunnel: None,
            started: now,
            initiator_nonce: one.peer_nonce.clone(),
            peer: Capabilities::default(),
            first_message: Some(digest),
            doomed: false,
            anew: false,
            waiting: BTreeSet::new(),
            flow: None,
            fragments: Reassembly::default(),
            fragmented: 0,
            received: Some(digest),
            flight: Flight::default(),
            state: State::PhaseOne(Box::new(one)),
        }
    }

    /// Whether a first message may cost memory: few may at all, fewer of one address. IKEv1 has no cookies that cost
    /// none, so that the oldest who have not shown to receive at their address make room.
    pub(super) fn v1_admits(&mut self, path: Path) -> bool {
        let room = self.room(path);
        self.take_room(room)
    }

    /// Forgets an SA of a stranger.
    pub(crate) fn v1_give_way(&mut self, cookie: u64) {
        self.with_v1(cookie, |_, _| None);
    }

    pub(super) fn v1_nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// A message of phase 1 while that is under way.
    pub(super) fn phase_one_message(
        &mut self,
        now: Instant,
        mut sa: Sa,
        path: Path,
        header: &Header,
        message: &[u8],
    ) -> Option<Sa> {
        let came = Came { path, header, octets: message, digest: digest(message) };
        let expected = header.exchange == sa.exchange() && header.message_id == 0;
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        if sa.received == Some(came.digest) {
            // An initiator goes by its own time.
            if sa.role == Role::Responder {
                self.repeat_flight(&sa, path);
            }
            return Some(sa);
        }
        if !expected || path.remote.ip() != sa.path.remote.ip() {
            self.counters.unexpected += 1;
            return Some(sa);
        }
        one.heard = true;
        let step = one.step;
        match step {
            Step::OfferSent | Step::KeySent | Step::OfferAnswered if !header.encrypted => {
                self.main_mode_clear(sa, &came)
            }
            Step::IdSent | Step::KeyAnswered if header.encrypted => self.main_mode_identity(now, sa, &came),
            Step::AggressiveSent if !header.encrypted => self.aggressive_answer(sa, &came),
            Step::AggressiveAnswered => self.aggressive_proof(now, sa, &came),
            _ => {
                self.counters.unexpected += 1;
                Some(sa)
            }
        }
    }

    /// What a message in clear says; that it says nothing is told if nothing better comes.
    pub(super) fn phase_one_payloads<'a>(&mut self, sa: &mut Sa, came: &Came<'a>) -> Option<Chain<'a>> {
        let decoded = Chain::of(came.octets);
        if let (Err(error), State::PhaseOne(one)) = (&decoded, &mut sa.state) {
            self.counters.malformed += 1;
            one.trouble = Some(Cause::Undecodable(*error));
        }
        decoded.ok()
    }

    /// A key exchange of phase 1 is computed.
    pub(super) fn phase_one_generated(
        &mut self,
        now: Instant,
        mut sa: Sa,
        secret: Secret,
        public: Vec<u8>,
    ) -> Option<Sa> {
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        (one.secret, one.public) = (Some(secret), public);
        match one.step {
            Step::Generating => self.send_main_key(now, &mut sa),
            Step::AggressiveGenerating => self.send_aggressive_offer(now, &mut sa),
            _ => {}
        }
        Some(sa)
    }

    /// The key exchange of a responder in phase 1.
    pub(super) fn phase_one_responded(
        &mut self,
        now: Instant,
        mut sa: Sa,
        result: Result<(Vec<u8>, Shared), InvalidPublic>,
    ) -> Option<Sa> {
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        let Ok((public, shared)) = result else {
            self.counters.malformed += 1;
            return None;
        };
        one.public = public;
        match one.step {
            Step::Responding => self.send_main_key_answer(now, &mut sa, &shared),
            Step::AggressiveResponding => self.send_aggressive_answer(now, &mut sa, &shared),
            _ => {}
        }
        Some(sa)
    }

    pub(super) fn phase_one_agreed(
        &mut self,
        now: Instant,
        mut sa: Sa,
        shared: Result<Shared, InvalidPublic>,
    ) -> Option<Sa> {
        let State::PhaseOne(one) = &mut sa.state else { return Some(sa) };
        let (Ok(shared), Some(_), Some(tunnel)) = (shared, one.suite, sa.tunnel.clone()) else {
            let cause = one.suite.map(|suite| Cause::InvalidPublicValue { group: suite.group });
            return self.attempt_over(
                now,
                sa,
                cause.unwrap_or(Cause::Malformed { what: "no suite was chosen" }),
            );
        };
        let cookies = (sa.cookie, sa.peer_cookie);
        one.derive(Role::Initiator, cookies, &shared, vec![vec![tunnel.clone()]]);
        match one.step {
            Step::Agreeing => {
                self.send_main_identity(now, &mut sa, &tunnel);
                Some(sa)
            }
            Step::AggressiveAgreeing => self.aggressive_agreed(now, sa, &tunnel),
            _ => Some(sa),
        }
    }

    /// An attempt ends.
    pub(super) fn attempt_over(&mut self, now: Instant, sa: Sa, cause: Cause) -> Option<Sa> {
        let exchange = sa.exchange();
        self.counters.exchange(exchange, ExchangeResult::Refused);
        self.phase_one_failed(now, &sa, cause);
        None
    }

    /// Reports that phase 1 failed, unless the tunnel is up all the same or nobody waits for it any more.
    pub(super) fn phase_one_failed(&mut self, now: Instant, sa: &Sa, cause: Cause) {
        let initiator = sa.role == Role::Initiator;
        let mut waiting: Vec<_> =
            iter::once(sa.tunnel_id()).chain(sa.waiting.iter().copied().map(Some)).collect();
        waiting.retain(|tunnel| !tunnel.is_some_and(|id| self.v1.is_up(id)));
        if waiting.is_empty() || sa.doomed || (!initiator && !self.reports.permit(now, sa.tunnel_id())) {
            return;
        }
        for tunnel in waiting {
            self.failed(tunnel, sa.path, initiator, Phase::One, sa.exchange(), cause.clone());
        }
    }

    /// A failure that anybody can bring about, reported now and then.
    pub(super) fn v1_stranger_failed(
        &mut self,
        now: Instant,
        tunnel: Option<TunnelId>,
        path: Path,
        exchange: crate::ExchangeType,
        cause: Cause,
    ) {
        let tunnel = tunnel.filter(|id| !self.v1.is_up(*id));
        self.counters.exchange(exchange, ExchangeResult::Refused);
        if self.reports.permit(now, tunnel) {
            self.failed(tunnel, path, false, Phase::One, exchange, cause);
        }
    }

    /// An initiator has gone no further.
    pub(super) fn v1_half_open_expired(&mut self, now: Instant, mut sa: Sa) -> Option<Sa> {
        if let State::PhaseOne(one) = &sa.state
            && let Some(only) = &one.sole
            && one.step != Step::OfferAnswered
        {
            sa.tunnel = Some(only.clone());
            let waited = now.saturating_duration_since(sa.started);
            let cause = one.trouble.clone().unwrap_or(Cause::NotContinued { path: sa.path, waited });
            self.phase_one_failed(now, &sa, cause);
            sa.tunnel = None;
        }
        None
    }

    /// Phase 1 is done: the ISAKMP SA is up.
    #[expect(clippy::too_many_arguments, reason = "all that phase 1 came to, used up here")]
    pub(super) fn v1_establish(
        &mut self,
        now: Instant,
        mut sa: Sa,
        tunnel: Arc<TunnelConfig>,
        keys: SaKeys,
        cipher: MessageCipher,
        suite: PhaseOneSuite,
        nat: Nat,
        initial_contact: bool,
    ) -> Option<Sa> {
        let exchange = sa.exchange();
        self.counters.exchange(exchange, ExchangeResult::Done);
        self.half_open.remove(&sa.cookie);
        self.timers.stop(sa.cookie, TimerKind::HalfOpen);
        sa.flight.stop();
        let initiator = sa.role == Role::Initiator;
        let tunnel = match &sa.tunnel {
            // A sibling's, if its own was closed meanwhile.
            Some(known) if initiator => known.clone(),
            _ => self.tunnel_to_renew(tunnel),
        };
        let family = self.family(tunnel.id);
        family.sas.insert(sa.cookie);
        family.host = None;
        self.v1.of_tunnel.insert(&tunnel, sa.cookie);
        sa.tunnel = Some(tunnel.clone());
        sa.state = State::Established(Box::new(Established {
            keys,
            cipher,
            suite,
            nat,
            since: now,
            heard: now,
            probed: None,
            sequence: self.rng.next_u32() >> 1,
            asked: None,
            superseded: false,
            unconfirmed: initiator && sa.mode == Mode::Aggressive,
            exchanges: Default::default(),
            wants: Default::default(),
            answers: Default::default(),
            worn: false,
        }));
        self.events.push_back(Event::IkeUp {
            tunnel: tunnel.id,
            path: sa.path,
            suite: suite.to_string(),
            handshake: now.saturating_duration_since(sa.started),
            nat,
            initiator,
        });
        if sa.doomed {
            return self.v1_close_sa(now, sa, DownReason::ClosedByUs);
        }
        self.start_v1_lifetimes(now, &sa, &tunnel);
        let shorter = suite.lifetime.time.is_some_and(|offered| tunnel.ike.lifetime < offered);
        if !initiator && shorter {
            let lifetime = Lifetime { time: Some(tunnel.ike.lifetime), bytes: None };
            let notify = lifetime.notify_isakmp(sa.cookies());
            self.inform(now, &mut sa, Payload::Notify(notify), false);
        }
        self.settle_sas(now, &mut sa, initial_contact);
        self.tell_guests(&sa);
        if initiator {
            let flow = sa.flow.take();
            let waiting = std::mem::take(&mut sa.waiting);
            for tunnel in iter::once(tunnel.id).chain(waiting) {
                self.want_missing(now, &mut sa, tunnel, flow.as_ref());
            }
        }
        self.expect_children(now, &sa);
        Some(sa)
    }

    /// INITIAL-CONTACT, where no other SA with this peer is up or may be when it hears of this one.
    pub(super) fn initial_contact(&self, sa: &Sa, tunnel: &TunnelConfig) -> Option<Payload> {
        let mut between = self.v1.of_tunnel.between(tunnel).filter_map(|cookie| self.v1.sa(cookie));
        let known = between.any(|other| {
            let same = other
                .tunnel
                .as_ref()
                .is_some_and(|t| t.local_id.matches(&tunnel.local_id) && t.peer_id.matches(&tunnel.peer_id));
            let pending = matches!(&other.state, State::PhaseOne(one) if one.step.may_be_up_at_peer());
            same && (pending || matches!(other.state, State::Established(_)))
        });
        let notify = Notify::about_isakmp(NotifyType::INITIAL_CONTACT, sa.cookies(), []);
        (!known && !self.v1.is_up(tunnel.id)).then_some(Payload::Notify(notify))
    }
}

/// The tunnel that an identity and its proof are of, among `candidates`, which have the PSK of `keyed`.
pub(super) fn identified(
    keyed: &Keyed,
    candidates: &[Arc<TunnelConfig>],
    suite: &PhaseOneSuite,
    id: &Identification,
    expected: &[u8],
    came: &[u8],
) -> Result<Arc<TunnelConfig>, Cause> {
    if !same_hash(expected, came) {
        return Err(authentication_failed(&keyed.tunnels[0]));
    }
    let known = id.identity();
    let matching = candidates.iter().filter(|t| known.as_ref().is_some_and(|came| t.peer_id.matches(came)));
    let policy = |t: &TunnelConfig| {
        t.ike.encryption.contains(&suite.encryption)
            && t.ike.integrity.contains(&suite.integrity)
            && t.ike.dh.contains(&suite.group)
    };
    let mut matching: Vec<_> = matching.collect();
    matching.sort_by_key(|t| !policy(t));
    matching.first().map(|t| Arc::clone(t)).ok_or_else(|| {
        let mut expected: Vec<_> = candidates.iter().map(|t| t.peer_id.clone()).collect();
        expected.dedup();
        Cause::IdMismatch { expected, came: id.to_string() }
    })
}

/// Whether NAT traversal is spoken of at all.
pub(super) fn says_nat_t<'a>(tunnels: impl IntoIterator<Item = &'a Arc<TunnelConfig>>) -> bool {
    tunnels.into_iter().any(|tunnel| tunnel.nat_t != NatT::Off)
}
