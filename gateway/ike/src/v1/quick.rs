//! Quick mode (RFC 2409 section 5.5): one for each pair of subnets, as initiator and as responder.
//!
//! A responder installs its Child SAs before it answers, and sends with them from the third message on, or from when
//! packets of the peer's come in. Nobody answers the third message: an initiator that rekeys sends with the old ones until
//! packets come in with the new, or long enough for the peer to have asked for that message again.

use std::time::Instant;

use super::{
    Established, Flight, Sa, State,
    id::Identification,
    keys::{QuickExchanged, same_hash},
    phase_one::find,
    proposal::{
        Encapsulation, Lifetime, PhaseTwoSuite, accept_phase_two, first_difference, in_words,
        offer_phase_two, other_protocol, pfs_group, select_phase_two,
    },
    wire::{Chain, Header, NatTraversal, NotifyType, Payload, ProtocolId, SecurityAssociation, payload},
};
use crate::{
    TunnelId,
    config::{IpsecPolicy, TunnelConfig},
    counters::ExchangeResult,
    crypto::dh::{InvalidPublic, Job, Secret, Shared, Work},
    endpoint::Endpoint,
    error::Cause,
    event::{DownReason, Phase},
    selector::TrafficSelector,
    wire::ExchangeType,
};

const QUICK: ExchangeType = ExchangeType::QuickMode;
/// Quick modes of ours that an SA has under way at a time. strongSwan loses one of four that overlap.
const AT_ONCE: usize = 1;
/// Quick modes of the peer's that an SA has under way at a time.
const PEERS_AT_ONCE: usize = 128;
/// Pairs for the same subnets, those included that another has taken the place of. More than a peer needs that rekeys,
/// and few enough to hold.
const PAIRS_ALIKE: usize = 16;

/// A pair of Child SAs to be negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// Whose pair it is: the ISAKMP SA's tunnel, or a sibling of it.
    pub(super) tunnel: TunnelId,
    pub(super) local: TrafficSelector,
    pub(super) remote: TrafficSelector,
    /// The pair it is to take the place of, by its inbound SPI.
    pub(super) replaces: Option<u32>,
}

impl Want {
    pub(super) fn is_of(&self, tunnel: TunnelId, local: &TrafficSelector, remote: &TrafficSelector) -> bool {
        (self.tunnel, &self.local, &self.remote) == (tunnel, local, remote)
    }
}

/// Something of phase 2 with a message ID of its own.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) flight: Flight,
    pub(super) forget_at: Option<Instant>,
    /// `None` for an informational message that is said several times.
    pub(super) quick: Option<Box<Quick>>,
}

impl Exchange {
    pub(super) fn due(&self) -> Option<Instant> {
        self.flight.resend_at.into_iter().chain(self.forget_at).min()
    }
}

/// Where a quick mode stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Our public value is being computed, for QM1.
    Generating,
    /// QM1 is sent.
    OfferSent,
    /// The shared secret is being computed, for QM3.
    Agreeing,
    /// The key exchange is being computed, for QM2.
    Responding,
    /// QM2 is sent.
    Answered,
    /// QM3 is sent.
    Done,
}

/// A quick mode.
#[derive(Debug)]
pub(super) struct Quick {
    pub(super) step: Step,
    pub(super) want: Want,
    pub(super) inbound_spi: u32,
    pub(super) outbound_spi: u32,
    pub(super) suite: Option<PhaseTwoSuite>,
    /// The shorter of both sides'.
    pub(super) lifetime: Lifetime,
    pub(super) nonce: Vec<u8>,
    pub(super) peer_nonce: Vec<u8>,
    pub(super) began: Instant,
    secret: Option<Secret>,
    public: Option<Vec<u8>>,
    /// The responder's choice, until it is sent.
    answer: SecurityAssociation,
    /// IDci and IDcr, as they go back.
    ids: Vec<Payload>,
}

impl Quick {
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.step, Step::Generating | Step::OfferSent | Step::Agreeing | Step::Done)
    }

    /// Whether packets with this SPI say that the peer has the pair.
    pub(super) fn awaits_traffic(&self, inbound_spi: u32) -> bool {
        self.step == Step::Answered && self.inbound_spi == inbound_spi
    }

    pub(super) fn new(now: Instant, step: Step, want: Want, inbound_spi: u32, nonce: Vec<u8>) -> Self {
        Self {
            step,
            want,
            inbound_spi,
            outbound_spi: 0,
            suite: None,
            lifetime: Lifetime::default(),
            nonce,
            peer_nonce: Vec::new(),
            began: now,
            secret: None,
            public: None,
            answer: SecurityAssociation::default(),
            ids: Vec::new(),
        }
    }
}

impl Established {
    fn quick_mut(&mut self, id: u32) -> Option<&mut Quick> {
        self.exchanges.get_mut(&id)?.quick.as_deref_mut()
    }

    pub(super) fn quicks(&self) -> impl Iterator<Item = (u32, &Quick)> {
        self.exchanges.iter().filter_map(|(id, exchange)| Some((*id, exchange.quick.as_deref()?)))
    }

    /// Whether a quick mode is under way, or to come.
    pub(super) fn is_negotiating(&self) -> bool {
        !self.wants.is_empty() || self.quicks().any(|(_, quick)| quick.step != Step::Done)
    }
}

/// A message of phase 2 with its hash in front.
fn seal(
    established: &mut Established,
    cookies: (u64, u64),
    id: u32,
    rest: Vec<Payload>,
    hash: &Hash<'_>,
) -> Vec<u8> {
    let mut octets = Vec::new();
    payload::encode_chain(&rest, &mut octets);
    let hash = match hash {
        Hash::One => established.keys.hash_1(id, &octets),
        Hash::Two(nonce) => established.keys.hash_2(id, nonce, &octets),
        Hash::Three(exchanged) => established.keys.hash_3(id, exchanged),
    };
    let payloads: Vec<_> = [Payload::Hash(hash)].into_iter().chain(rest).collect();
    established.cipher.seal(Header::new(cookies.0, cookies.1, QUICK, id), &payloads)
}

enum Hash<'a> {
    One,
    Two(&'a [u8]),
    Three(QuickExchanged<'a>),
}

/// How packets are to go, as the path of the SA says.
fn encapsulations(sa: &Sa, established: &Established, nat_t_port: u16) -> Vec<Encapsulation> {
    let way = sa.peer.nat_traversal.unwrap_or(NatTraversal::Rfc3947);
    if established.nat.any() && sa.path.local.port() == nat_t_port {
        let other = match way {
            NatTraversal::Rfc3947 => NatTraversal::Draft,
            NatTraversal::Draft => NatTraversal::Rfc3947,
        };
        return vec![Encapsulation::UdpTunnel(way), Encapsulation::UdpTunnel(other)];
    }
    vec![Encapsulation::Tunnel]
}

/// As initiator.
impl Endpoint {
    /// Negotiates a Child SA for every pair of subnets that has none; that of `flow` first.
    pub(super) fn want_missing(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        tunnel: TunnelId,
        flow: Option<&(TrafficSelector, TrafficSelector)>,
    ) {
        let Some(tunnel) = self.tunnels.get(&tunnel).cloned() else { return };
        let children = self.v1.families.get(&tunnel.id).map_or(&[][..], |family| &family.children[..]);
        let anew = std::mem::take(&mut sa.anew);
        let Some(established) = sa.established_mut() else { return };
        let mut wants = Vec::new();
        for (local, remote) in pairs(&tunnel) {
            let existing = children.iter().find(|c| c.is_of(&local, &remote) && c.retire_at.is_none());
            let same = |want: &Want| want.is_of(tunnel.id, &local, &remote);
            let under_way = established.wants.iter().any(same)
                || established.quicks().any(|(_, quick)| quick.step != Step::Done && same(&quick.want));
            if !under_way && (anew || existing.is_none()) {
                let replaces = existing.map(|child| child.inbound_spi);
                wants.push(Want { tunnel: tunnel.id, local, remote, replaces });
            }
        }
        established.wants.extend(wants);
        if let Some((local, remote)) = flow {
            let holds = |want: &Want| want.local.contains(local) && want.remote.contains(remote);
            established.wants.make_contiguous().sort_by_key(|want| !holds(want));
        }
        self.next_quick_modes(now, sa);
    }

    /// Begins the quick modes for which there is room.
    pub(super) fn next_quick_modes(&mut self, now: Instant, sa: &mut Sa) {
        loop {
            let Some(established) = sa.established_mut() else { return };
            let ours = established.quicks().filter(|(_, quick)| quick.is_ours() && quick.step != Step::Done);
            if ours.count() >= AT_ONCE {
                return;
            }
            let Some(want) = established.wants.pop_front() else { return };
            self.begin_quick(now, sa, want);
        }
    }

    fn begin_quick(&mut self, now: Instant, sa: &mut Sa, want: Want) {
        let Some(tunnel) = self.tunnels.get(&want.tunnel).cloned() else { return };
        let inbound_spi = self.draw_esp_spi(&mut Vec::new());
        let nonce = self.v1_nonce();
        let cookie = sa.cookie;
        let Some(established) = sa.established_mut() else { return };
        let id = loop {
            let id = self.rng.next_u32();
            if id != 0 && !established.cipher.knows(id) && !established.exchanges.contains_key(&id) {
                break id;
            }
        };
        let quick = Quick::new(now, Step::Generating, want, inbound_spi, nonce);
        let exchange = Exchange { flight: Flight::default(), forget_at: None, quick: Some(Box::new(quick)) };
        established.exchanges.insert(id, exchange);
        match pfs_group(&tunnel.ipsec) {
            Some(group) => {
                let secret = Secret::random(group, &mut *self.rng);
                self.quick_job(cookie, id, secret, Work::Generate);
            }
            None => self.send_quick_offer(now, sa, id, &tunnel),
        }
    }

    fn quick_job(&mut self, cookie: u64, id: u32, secret: Secret, work: Work) {
        let key = self.draw_spi();
        self.v1.jobs.insert(key, (cookie, id));
        self.v1.jobs_of.insert((cookie, id), key);
        self.jobs.push_back(Job { sa: key, secret, work });
    }

    /// QM1.
    fn send_quick_offer(&mut self, now: Instant, sa: &mut Sa, id: u32, tunnel: &TunnelConfig) {
        let (cookies, nat_t_port) = (sa.cookies(), self.config.nat_t_port);
        let State::Established(established) = &sa.state else { return };
        let encapsulation = encapsulations(sa, established, nat_t_port)[0];
        let Some(established) = sa.established_mut() else { return };
        let Some(quick) = established.quick_mut(id) else { return };
        let offer = offer_phase_two(&tunnel.ipsec, quick.inbound_spi, encapsulation);
        let ids = [&quick.want.local, &quick.want.remote].map(Identification::of_selector);
        let (offer, ids) = match (offer, ids) {
            (Ok(offer), [Some(local), Some(remote)]) => {
                (offer, vec![Payload::Id(local), Payload::Id(remote)])
            }
            (Err(cause), _) => return self.quick_failed(now, sa, id, cause),
            (Ok(_), _) => return self.quick_failed(now, sa, id, selectors(tunnel, None)),
        };
        quick.ids = ids;
        quick.step = Step::OfferSent;
        let mut rest = vec![Payload::Sa(offer), Payload::Nonce(quick.nonce.clone())];
        rest.extend(quick.public.clone().map(Payload::KeyExchange));
        rest.extend(quick.ids.iter().cloned());
        let message = seal(established, cookies, id, rest, &Hash::One);
        self.send_exchange(now, sa, id, message, true);
    }

    /// Sends a message of an exchange; again until it is answered, if it is to be.
    pub(super) fn send_exchange(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        message: Vec<u8>,
        repeat: bool,
    ) {
        let messages = self.v1_send(sa, message);
        let exchange = match &mut sa.state {
            State::Established(e) | State::Closing(e) => e.exchanges.get_mut(&id),
            State::PhaseOne(_) => None,
        };
        if let Some(exchange) = exchange {
            exchange.flight = Flight { messages, ..Flight::default() };
            if repeat {
                exchange.flight.schedule(now, &self.config);
            }
        }
    }

    /// QM2.
    fn quick_answer(&mut self, now: Instant, sa: &mut Sa, id: u32, payloads: &[Payload]) {
        let nat_t_port = self.config.nat_t_port;
        let State::Established(established) = &sa.state else { return };
        let offered = encapsulations(sa, established, nat_t_port)[0];
        let cookie = sa.cookie;
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let Some(quick) = sa.established_mut().and_then(|e| e.quick_mut(id)) else { return };
        let tunnel = self.tunnels.get(&quick.want.tunnel).cloned().unwrap_or(tunnel);
        let (Some(answered), Some(nonce)) = (find!(payloads, Sa), find!(payloads, Nonce)) else {
            return self.quick_failed(now, sa, id, Cause::Malformed { what: "SA or Nonce is missing" });
        };
        let Some((suite, outbound_spi)) = accept_phase_two(&tunnel.ipsec, answered, offered) else {
            let cause = mismatch(&tunnel.ipsec, answered, offered);
            return self.quick_failed(now, sa, id, cause);
        };
        let ids = ids_of(payloads);
        let same = |at: usize, own: &TrafficSelector| {
            ids.get(at).is_none_or(|id| id.selector().as_ref() == Some(own))
        };
        if !same(0, &quick.want.local) || !same(1, &quick.want.remote) {
            let theirs = ids.iter().map(|id| id.selector().into_iter().collect());
            let [local, remote]: [Vec<_>; 2] = theirs.collect::<Vec<_>>().try_into().unwrap_or_default();
            return self.quick_failed(now, sa, id, selectors(&tunnel, Some((local, remote))));
        }
        let own = Lifetime { time: Some(tunnel.ipsec.lifetime), bytes: tunnel.ipsec.lifetime_bytes };
        let said = payloads
            .iter()
            .filter_map(|p| if let Payload::Notify(n) = p { Lifetime::of_notify(n) } else { None });
        quick.lifetime = said.fold(own, Lifetime::min);
        (quick.suite, quick.outbound_spi, quick.peer_nonce) = (Some(suite), outbound_spi, nonce.clone());
        match (quick.secret.take(), find!(payloads, KeyExchange)) {
            (Some(secret), Some(public)) => {
                quick.step = Step::Agreeing;
                let work = Work::Agree(public.clone());
                if let Some(exchange) = sa.established_mut().and_then(|e| e.exchanges.get_mut(&id)) {
                    // There is nothing to say until the secret is shared. Our offer would have the peer answer again a
                    // copy of its answer, and that copy us again, without end.
                    exchange.flight = Flight::default();
                }
                self.quick_job(cookie, id, secret, work);
            }
            (None, _) => self.quick_done(now, sa, id, None),
            (Some(_), None) => self.quick_failed(now, sa, id, Cause::Malformed { what: "KE is missing" }),
        }
    }

    /// QM3.
    fn quick_done(&mut self, now: Instant, sa: &mut Sa, id: u32, shared: Option<&Shared>) {
        let cookies = sa.cookies();
        let Some(established) = sa.established_mut() else { return };
        let Some(quick) = established.quick_mut(id) else { return };
        quick.step = Step::Done;
        let (nonce, peer_nonce) = (quick.nonce.clone(), quick.peer_nonce.clone());
        let exchanged =
            QuickExchanged { initiator_nonce: &nonce, responder_nonce: &peer_nonce, shared: None };
        let message = seal(established, cookies, id, Vec::new(), &Hash::Three(exchanged));
        self.counters.exchange(QUICK, ExchangeResult::Done);
        self.install_child(now, sa, id, shared, true);
        self.send_exchange(now, sa, id, message, false);
        let forget_at = now + self.config.linger;
        if let Some(exchange) = sa.established_mut().and_then(|e| e.exchanges.get_mut(&id)) {
            exchange.forget_at = Some(forget_at);
        }
        self.next_quick_modes(now, sa);
    }

    /// A quick mode of ours has come to nothing.
    pub(super) fn quick_failed(&mut self, now: Instant, sa: &mut Sa, id: u32, cause: Cause) {
        let Some(quick) = self.drop_quick(sa, id) else { return };
        self.esp_spis.remove(&quick.inbound_spi);
        let tunnel = quick.want.tunnel;
        self.counters.exchange(QUICK, ExchangeResult::Refused);
        match quick.want.replaces {
            Some(spi) => self.rekey_later(now, tunnel, spi),
            None if !sa.doomed => self.failed(Some(tunnel), sa.path, true, Phase::Two, QUICK, cause),
            None => {}
        }
        self.next_quick_modes(now, sa);
        self.expect_children(now, sa);
    }

    /// Takes an exchange away; what still comes of it is an old message.
    pub(super) fn drop_quick(&mut self, sa: &mut Sa, id: u32) -> Option<Box<Quick>> {
        self.v1.drop_job((sa.cookie, id));
        let established = match &mut sa.state {
            State::Established(e) | State::Closing(e) => e,
            State::PhaseOne(_) => return None,
        };
        established.cipher.finish(id);
        established.exchanges.remove(&id)?.quick
    }

    /// The peer refuses a quick mode of ours, named by our SPI or else the oldest.
    pub(super) fn quick_refused(&mut self, now: Instant, sa: &mut Sa, kind: NotifyType, spi: &[u8]) {
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let Some(established) = sa.established() else { return };
        let offers = || established.quicks().filter(|(_, quick)| quick.step == Step::OfferSent);
        let named = offers().find(|(_, quick)| quick.inbound_spi.to_be_bytes() == *spi);
        let Some((id, quick)) = named.or_else(|| offers().min_by_key(|(_, quick)| quick.began)) else {
            return;
        };
        let tunnel = self.tunnels.get(&quick.want.tunnel).cloned().unwrap_or(tunnel);
        let encapsulation = Encapsulation::Tunnel;
        let cause = match kind {
            NotifyType::NO_PROPOSAL_CHOSEN => {
                let ours = offer_phase_two(&tunnel.ipsec, quick.inbound_spi, encapsulation);
                let ours = ours.map_or_else(|_| Vec::new(), |ours| in_words(&ours));
                let pfs = pfs_group(&tunnel.ipsec);
                Cause::NoPairChosen { protocol: tunnel.ipsec.protocol, ours, pfs }
            }
            NotifyType::INVALID_ID_INFORMATION => {
                Cause::PairRefused { local: quick.want.local.clone(), remote: quick.want.remote.clone() }
            }
            notify => Cause::PeerRefusedV1 { notify },
        };
        self.quick_failed(now, sa, id, cause);
    }
}

/// As responder.
impl Endpoint {
    /// QM1.
    fn quick_offer(&mut self, now: Instant, sa: &mut Sa, id: u32, payloads: &[Payload]) {
        let (nat_t_port, cookie) = (self.config.nat_t_port, sa.cookie);
        let Some(tunnel) = sa.tunnel.clone() else { return };
        let tunnel = self.tunnels.get(&tunnel.id).cloned().unwrap_or(tunnel);
        let State::Established(established) = &sa.state else { return };
        let allowed = encapsulations(sa, established, nat_t_port);
        let crowded = established.quicks().filter(|(_, quick)| !quick.is_ours()).count() >= PEERS_AT_ONCE;
        let (Some(offered), Some(nonce), false) = (find!(payloads, Sa), find!(payloads, Nonce), crowded)
        else {
            self.counters.overloaded += u64::from(crowded);
            self.counters.malformed += u64::from(!crowded);
            self.drop_quick(sa, id);
            return;
        };
        let ids = ids_of(payloads);
        let host = |ip| TrafficSelector::from_prefix(ip, 128);
        let (remote, local) = match &ids[..] {
            [initiator, responder] => (initiator.selector(), responder.selector()),
            _ => (Some(host(sa.path.remote.ip())), Some(host(sa.path.local.ip()))),
        };
        let pair = local.clone().zip(remote.clone());
        let fitting = pair.as_ref().and_then(|(local, remote)| self.tunnel_of_pair(&tunnel, local, remote));
        let Some((tunnel, (local, remote))) = fitting.zip(pair) else {
            let theirs = (local.into_iter().collect(), remote.into_iter().collect());
            return self.refuse_pair(now, sa, id, offered, theirs);
        };
        let spi = self.draw_esp_spi(&mut Vec::new());
        let chosen = select_phase_two(&tunnel.ipsec, offered, spi, &allowed);
        let Some((suite, outbound_spi, answer)) = chosen else {
            self.esp_spis.remove(&spi);
            let cause = mismatch(&tunnel.ipsec, offered, allowed[0]);
            return self.refuse_quick(
                now,
                sa,
                id,
                NotifyType::NO_PROPOSAL_CHOSEN,
                offered,
                &[tunnel.id],
                cause,
            );
        };
        if !self.has_room_for_child(now, sa, tunnel.id, (&local, &remote)) {
            self.esp_spis.remove(&spi);
            self.drop_quick(sa, id);
            self.counters.overloaded += 1;
            return;
        }
        let public = find!(payloads, KeyExchange);
        if suite.group.is_some() != public.is_some() {
            self.esp_spis.remove(&spi);
            let cause = Cause::Malformed { what: "KE is missing, or not asked for" };
            let kind = NotifyType::INVALID_KEY_INFORMATION;
            return self.refuse_quick(now, sa, id, kind, offered, &[tunnel.id], cause);
        }
        let own = self.v1_nonce();
        let want = Want { tunnel: tunnel.id, local, remote, replaces: None };
        let mut quick = Quick::new(now, Step::Responding, want, spi, own);
        let policy = Lifetime { time: Some(tunnel.ipsec.lifetime), bytes: tunnel.ipsec.lifetime_bytes };
        quick.lifetime = policy.min(suite.lifetime);
        (quick.suite, quick.outbound_spi, quick.answer) = (Some(suite), outbound_spi, answer);
        quick.peer_nonce = nonce.clone();
        quick.ids = ids.into_iter().cloned().map(Payload::Id).collect();
        let exchange = Exchange { flight: Flight::default(), forget_at: None, quick: Some(Box::new(quick)) };
        if let Some(established) = sa.established_mut() {
            established.exchanges.insert(id, exchange);
        }
        match (suite.group, public) {
            (Some(group), Some(public)) => {
                let secret = Secret::random(group, &mut *self.rng);
                self.quick_job(cookie, id, secret, Work::Respond(public.clone()));
            }
            _ => self.send_quick_answer(now, sa, id, None),
        }
    }

    /// Whether there is room for one more pair between these subnets; the oldest of those that another has taken the
    /// place of makes it.
    fn has_room_for_child(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        tunnel: TunnelId,
        (local, remote): (&TrafficSelector, &TrafficSelector),
    ) -> bool {
        let children = self.v1.families.get(&tunnel).map_or(&[][..], |family| &family.children[..]);
        let alike = || children.iter().filter(|child| child.is_of(local, remote));
        let computing = sa.established().into_iter().flat_map(Established::quicks);
        let computing = computing.filter(|(_, quick)| {
            quick.step == Step::Responding && (&quick.want.local, &quick.want.remote) == (local, remote)
        });
        if alike().count() + computing.count() < PAIRS_ALIKE {
            return true;
        }
        let replaced = alike().filter(|child| child.retire_at.is_some() && child.confirmed);
        let Some(spi) = replaced.min_by_key(|child| child.since).map(|child| child.inbound_spi) else {
            return false;
        };
        self.remove_child_on(now, Some(sa), tunnel, spi, DownReason::Replaced, true);
        true
    }

    /// The peer asks for subnets that are of no tunnel. Those that have no pair are told, for each may be the one that is
    /// meant.
    fn refuse_pair(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        offered: &SecurityAssociation,
        theirs: (Vec<TrafficSelector>, Vec<TrafficSelector>),
    ) {
        let Some(owner) = sa.tunnel.clone() else { return };
        let kin = self.kin(&owner);
        let mut cause = selectors(&owner, Some(theirs));
        if let Cause::TrafficSelectors { our_local, our_remote, .. } = &mut cause {
            for (ours, own) in kin.iter().skip(1).flat_map(|t| [(0, &t.local_ts), (1, &t.remote_ts)]) {
                let ours = if ours == 0 { &mut *our_local } else { &mut *our_remote };
                ours.extend(own.iter().filter(|ts| !ours.contains(ts)).cloned().collect::<Vec<_>>());
            }
        }
        let mut told: Vec<_> = kin.iter().map(|t| t.id).filter(|id| !self.v1.is_up(*id)).collect();
        if told.is_empty() {
            told.push(owner.id);
        }
        self.refuse_quick(now, sa, id, NotifyType::INVALID_ID_INFORMATION, offered, &told, cause);
    }

    #[expect(clippy::too_many_arguments, reason = "what is refused, and who is told of it")]
    fn refuse_quick(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        kind: NotifyType,
        offered: &SecurityAssociation,
        tunnels: &[TunnelId],
        cause: Cause,
    ) {
        self.counters.exchange(QUICK, ExchangeResult::Refused);
        let spi = offered.proposals.first().map_or_else(Vec::new, |proposal| proposal.spi.clone());
        let protocol = offered.proposals.first().map_or(ProtocolId::Esp, |proposal| proposal.protocol);
        let notify = super::wire::Notify { protocol, spi, kind, data: Vec::new() };
        if let Some(established) = sa.established_mut() {
            established.cipher.finish(id);
        }
        self.inform(now, sa, Payload::Notify(notify), false);
        for tunnel in tunnels {
            if !sa.doomed && self.reports.permit(now, Some(*tunnel)) {
                self.failed(Some(*tunnel), sa.path, false, Phase::Two, QUICK, cause.clone());
            }
        }
    }

    /// QM2.
    fn send_quick_answer(&mut self, now: Instant, sa: &mut Sa, id: u32, shared: Option<&Shared>) {
        let cookies = sa.cookies();
        self.install_child(now, sa, id, shared, false);
        let Some(established) = sa.established_mut() else { return };
        let Some(quick) = established.quick_mut(id) else { return };
        let Some(suite) = quick.suite else { return };
        quick.step = Step::Answered;
        let answer = std::mem::take(&mut quick.answer);
        let mut rest = vec![Payload::Sa(answer), Payload::Nonce(quick.nonce.clone())];
        rest.extend(quick.public.clone().map(Payload::KeyExchange));
        rest.extend(quick.ids.iter().cloned());
        if quick.lifetime != suite.lifetime {
            let protocol = ProtocolId::from(suite.protocol);
            rest.push(Payload::Notify(quick.lifetime.notify_child(protocol, quick.inbound_spi)));
        }
        let nonce = quick.peer_nonce.clone();
        let message = seal(established, cookies, id, rest, &Hash::Two(&nonce));
        self.send_exchange(now, sa, id, message, true);
    }

    /// QM3, or packets that tell as much.
    pub(super) fn quick_confirmed(&mut self, now: Instant, sa: &mut Sa, id: u32) {
        let Some(quick) = self.drop_quick(sa, id) else { return };
        self.counters.exchange(QUICK, ExchangeResult::Done);
        self.confirm_child(now, quick.want.tunnel, quick.inbound_spi);
    }

    /// Packets of the peer's have come in with a pair that waits for QM3.
    pub(super) fn confirm_by_traffic(&mut self, now: Instant, sa: &mut Sa, inbound_spi: u32) {
        let answered = sa.established().and_then(|established| {
            let mut quicks = established.quicks();
            quicks.find(|(_, quick)| quick.awaits_traffic(inbound_spi)).map(|(id, _)| id)
        });
        if let Some(id) = answered {
            self.quick_confirmed(now, sa, id);
        }
    }
}

/// As either.
impl Endpoint {
    /// A decrypted message of quick mode. Its hash tells whether it is the peer's.
    pub(super) fn quick_message(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        opened: &super::cipher::Opened,
        chain: &Chain<'_>,
    ) -> bool {
        let Some(Payload::Hash(came)) = chain.payloads.first() else { return false };
        let Some(established) = sa.established_mut() else { return false };
        let rest = chain.after_first();
        let (expected, step) = match established.exchanges.get(&id).and_then(|e| e.quick.as_deref()) {
            None if established.exchanges.contains_key(&id) => return false,
            None => (established.keys.hash_1(id, rest), None),
            Some(quick) => match quick.step {
                Step::OfferSent => (established.keys.hash_2(id, &quick.nonce, rest), Some(quick.step)),
                Step::Answered => {
                    let exchanged = QuickExchanged {
                        initiator_nonce: &quick.peer_nonce,
                        responder_nonce: &quick.nonce,
                        shared: None,
                    };
                    (established.keys.hash_3(id, &exchanged), Some(quick.step))
                }
                Step::Done => {
                    // The message that the commit bit promises (RFC 2408 section 3.1): the peer has the pair.
                    // Its hash is of either form with the peers in the field.
                    let connected = chain
                        .payloads
                        .iter()
                        .any(|p| matches!(p, Payload::Notify(n) if n.kind == NotifyType::CONNECTED));
                    let keys = &established.keys;
                    let forms = [keys.hash_2(id, &quick.nonce, rest), keys.hash_1(id, rest)];
                    let authentic = connected && forms.iter().any(|form| same_hash(form, came));
                    if authentic {
                        let (tunnel, inbound_spi) = (quick.want.tunnel, quick.inbound_spi);
                        established.cipher.accept(opened);
                        self.confirm_child(now, tunnel, inbound_spi);
                    }
                    return authentic;
                }
                _ => return false,
            },
        };
        if !same_hash(&expected, came) {
            return false;
        }
        established.cipher.accept(opened);
        match step {
            None => self.quick_offer(now, sa, id, &chain.payloads),
            Some(Step::OfferSent) => self.quick_answer(now, sa, id, &chain.payloads),
            Some(_) => self.quick_confirmed(now, sa, id),
        }
        true
    }

    /// A key exchange of a quick mode is computed.
    pub(super) fn quick_generated(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        secret: Secret,
        public: Vec<u8>,
    ) {
        let Some(quick) = sa.established_mut().and_then(|e| e.quick_mut(id)) else { return };
        let Some(tunnel) = self.tunnels.get(&quick.want.tunnel).cloned() else { return };
        (quick.secret, quick.public) = (Some(secret), Some(public));
        self.send_quick_offer(now, sa, id, &tunnel);
    }

    pub(super) fn quick_agreed(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        shared: Result<Shared, InvalidPublic>,
    ) {
        let group =
            sa.established_mut().and_then(|e| e.quick_mut(id)).and_then(|q| q.suite).and_then(|s| s.group);
        match (shared, group) {
            (Ok(shared), Some(_)) => self.quick_done(now, sa, id, Some(&shared)),
            (Err(_), Some(group)) => self.quick_failed(now, sa, id, Cause::InvalidPublicValue { group }),
            (_, None) => {}
        }
    }

    pub(super) fn quick_responded(
        &mut self,
        now: Instant,
        sa: &mut Sa,
        id: u32,
        result: Result<(Vec<u8>, Shared), InvalidPublic>,
    ) {
        let Some(quick) = sa.established_mut().and_then(|e| e.quick_mut(id)) else { return };
        match result {
            Ok((public, shared)) => {
                quick.public = Some(public);
                self.send_quick_answer(now, sa, id, Some(&shared));
            }
            Err(InvalidPublic) => {
                self.counters.malformed += 1;
                if let Some(quick) = self.drop_quick(sa, id) {
                    self.esp_spis.remove(&quick.inbound_spi);
                }
            }
        }
    }

    /// Sends again what was not answered in time, and forgets what is over.
    pub(super) fn resend_exchanges(&mut self, now: Instant, mut sa: Sa) -> Option<Sa> {
        let settings = self.config.retransmission;
        let (State::Established(established) | State::Closing(established)) = &sa.state else {
            return Some(sa);
        };
        let due = |exchange: &Exchange| exchange.due().is_some_and(|at| at <= now);
        let due: Vec<u32> = established.exchanges.iter().filter(|(_, e)| due(e)).map(|(id, _)| *id).collect();
        for id in due {
            let (path, unconfirmed) = match &sa.state {
                State::Established(e) => (sa.path, e.unconfirmed),
                _ => (sa.path, false),
            };
            let (State::Established(established) | State::Closing(established)) = &mut sa.state else {
                continue;
            };
            let Some(exchange) = established.exchanges.get_mut(&id) else { continue };
            if exchange.forget_at.is_some_and(|at| at <= now) {
                self.drop_quick(&mut sa, id);
                continue;
            }
            if exchange.flight.attempts < settings.attempts {
                exchange.flight.schedule(now, &self.config);
                self.counters.retransmissions += 1;
                // The peer may lack the last message of phase 1, without which it cannot read this one.
                if unconfirmed {
                    self.transmit(path, &sa.flight.messages);
                }
                let messages = exchange.flight.messages.clone();
                self.transmit(path, &messages);
                continue;
            }
            match exchange.quick.as_ref().map(|quick| (quick.step, quick.inbound_spi, quick.want.tunnel)) {
                None => {
                    self.drop_quick(&mut sa, id);
                }
                Some((Step::Answered, spi, tunnel)) => {
                    self.counters.exchange(QUICK, ExchangeResult::TimedOut);
                    self.drop_quick(&mut sa, id);
                    self.remove_child_on(now, Some(&mut sa), tunnel, spi, DownReason::Broken, true);
                }
                Some(_) => {
                    self.counters.exchange(QUICK, ExchangeResult::TimedOut);
                    let flight = &exchange.flight;
                    let waited = flight
                        .first_sent
                        .map_or_else(Default::default, |at| now.saturating_duration_since(at));
                    let cause = Cause::NoAnswer { path, attempts: flight.attempts, waited, heard: true };
                    self.quick_failed(now, &mut sa, id, cause);
                }
            }
        }
        Some(sa)
    }

    /// What a computation of phase 1 or of a quick mode came to.
    pub(crate) fn v1_job(&mut self, now: Instant, key: u64, outcome: crate::crypto::dh::Outcome) {
        use crate::crypto::dh::Outcome;
        if let Some((cookie, id)) = self.v1.jobs.remove(&key) {
            self.v1.jobs_of.remove(&(cookie, id));
            return self.with_v1(cookie, |endpoint, mut sa| {
                match outcome {
                    Outcome::Generated { secret, public } => {
                        endpoint.quick_generated(now, &mut sa, id, secret, public);
                    }
                    Outcome::Agreed(shared) => endpoint.quick_agreed(now, &mut sa, id, shared),
                    Outcome::Responded(result) => endpoint.quick_responded(now, &mut sa, id, result),
                }
                Some(sa)
            });
        }
        self.with_v1(key, |endpoint, sa| match outcome {
            Outcome::Generated { secret, public } => endpoint.phase_one_generated(now, sa, secret, public),
            Outcome::Agreed(shared) => endpoint.phase_one_agreed(now, sa, shared),
            Outcome::Responded(result) => endpoint.phase_one_responded(now, sa, result),
        });
    }

    /// The key exchange of a responder in phase 1.
    fn phase_one_responded(
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
            super::phase_one::Step::Responding => self.send_main_key_answer(now, &mut sa, &shared),
            super::phase_one::Step::AggressiveResponding => {
                self.send_aggressive_answer(now, &mut sa, &shared)
            }
            _ => {}
        }
        Some(sa)
    }
}

/// Every pair of subnets of one family.
fn pairs(tunnel: &TunnelConfig) -> impl Iterator<Item = (TrafficSelector, TrafficSelector)> {
    tunnel.local_ts.iter().flat_map(|local| {
        let same = tunnel.remote_ts.iter().filter(|remote| remote.start.is_ipv4() == local.start.is_ipv4());
        same.map(|remote| (local.clone(), remote.clone()))
    })
}

fn ids_of(payloads: &[Payload]) -> Vec<&Identification> {
    payloads.iter().filter_map(|p| if let Payload::Id(id) = p { Some(id) } else { None }).take(2).collect()
}

fn selectors(tunnel: &TunnelConfig, theirs: Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)>) -> Cause {
    Cause::TrafficSelectors {
        our_local: tunnel.local_ts.clone(),
        our_remote: tunnel.remote_ts.clone(),
        theirs,
    }
}

/// Why nothing of what the peer offers for a Child SA can be taken.
fn mismatch(policy: &IpsecPolicy, theirs: &SecurityAssociation, encapsulation: Encapsulation) -> Cause {
    if let Some(theirs) = other_protocol(policy.protocol, theirs) {
        return Cause::ProtocolMismatch { ours: policy.protocol, theirs };
    }
    let groups = super::proposal::pfs_groups(theirs);
    let theirs_pfs: Vec<_> = groups.iter().filter_map(|number| crate::Group::from_number(*number)).collect();
    let as_theirs = IpsecPolicy { pfs: theirs_pfs, ..policy.clone() };
    if select_phase_two(&as_theirs, theirs, 256, &[encapsulation]).is_some() {
        return Cause::PfsMismatch { ours: policy.pfs.clone(), theirs: Some(groups) };
    }
    match offer_phase_two(policy, 256, encapsulation) {
        Ok(ours) => Cause::NoProposal {
            ours: in_words(&ours),
            theirs: Some(in_words(theirs)),
            first_difference: first_difference(&ours, theirs),
        },
        Err(cause) => cause,
    }
}

#[cfg(test)]
pub(super) mod tests;
