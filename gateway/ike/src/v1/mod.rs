//! IKEv1 (RFC 2407, 2408, 2409) with pre-shared keys.
//!
//! ```text
//! main        MM1 ─▶ ◀─ MM2   MM3 ─▶ ◀─ MM4   MM5 ─▶ ◀─ MM6     six messages, identities encrypted
//! aggressive  AM1 ─▶ ◀─ AM2   AM3 ─▶                            three, identities in clear
//! quick       QM1 ─▶ ◀─ QM2   QM3 ─▶                            one for each pair of subnets, on an ISAKMP SA
//! ```
//!
//! An ISAKMP SA and the Child SAs made on it live apart: Child SAs belong to the tunnel ([`Family`]), and whichever
//! ISAKMP SA of the tunnel, or of one that phase 1 cannot tell from it ([`siblings`]), is current speaks for them. So a
//! new phase 1 takes them over as they are. Only when the last ISAKMP SA goes do they go with it.
//!
//! Informational messages are not answered in IKEv1. A DELETE is said several times for that reason, and what is lost
//! all the same is found out by dead peer detection.

mod aggressive;
mod children;
pub(crate) mod cipher;
mod collision;
mod exchanges;
mod first_fragments;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod forge;
pub(crate) mod fragment;
pub(crate) mod id;
mod informational;
mod kept;
pub(crate) mod keys;
mod lifetime;
mod main_mode;
mod message;
mod nat;
mod phase_one;
pub(crate) mod proposal;
mod psk;
mod quick;
mod siblings;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

pub(crate) use self::kept::ResumedFamily;
use self::{
    children::Child,
    cipher::MessageCipher,
    exchanges::Exchange,
    first_fragments::FirstFragments,
    fragment::Reassembly,
    keys::SaKeys,
    phase_one::PhaseOne,
    proposal::PhaseOneSuite,
    quick::Want,
    siblings::{Host, newest},
    wire::{NatTraversal, Payload, VendorId},
};
use crate::{
    TunnelId,
    config::{Mode, TunnelConfig},
    endpoint::Endpoint,
    event::{DownReason, Event, Nat, Path},
    of_tunnel::OfTunnel,
    sa::Role,
    selector::TrafficSelector,
    timer::TimerKind,
    wire::ExchangeType,
};

/// All that IKEv1 keeps.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// ISAKMP SAs by our cookie, which is drawn from the same space as the SPIs of IKEv2.
    sas: BTreeMap<u64, Sa>,
    families: BTreeMap<TunnelId, Family>,
    /// Tunnels by the number that their family's deadlines go by.
    family_keys: BTreeMap<u64, TunnelId>,
    /// Where the key exchanges of quick modes belong, by the number that their jobs go by.
    jobs: BTreeMap<u64, (u64, u32)>,
    /// The other way round: no quick mode has more than one.
    jobs_of: BTreeMap<(u64, u32), u64>,
    /// ISAKMP SAs of tunnels, by identities.
    of_tunnel: OfTunnel,
    /// Responder's SAs by the digest of their first message.
    first_messages: BTreeMap<[u8; 32], u64>,
    first_fragments: FirstFragments,
}

impl Table {
    /// Whether a number names anything here.
    pub(crate) fn owns(&self, key: u64) -> bool {
        self.sas.contains_key(&key) || self.family_keys.contains_key(&key) || self.jobs.contains_key(&key)
    }

    pub(crate) fn sas(&self) -> usize {
        self.sas.len()
    }

    pub(crate) fn established(&self) -> usize {
        self.sas.values().filter(|sa| sa.established().is_some()).count()
    }

    pub(crate) fn children(&self) -> usize {
        self.families.values().map(|family| family.children.len()).sum()
    }

    /// As whichever table has more of them.
    pub(crate) fn of_tunnels(&self) -> usize {
        self.families.values().map(|family| family.sas.len()).sum::<usize>().max(self.of_tunnel.len())
    }

    pub(crate) fn first_messages(&self) -> usize {
        self.first_messages.len()
    }

    /// Gives up the computation of a quick mode.
    fn drop_job(&mut self, exchange: (u64, u32)) {
        if let Some(key) = self.jobs_of.remove(&exchange) {
            self.jobs.remove(&key);
        }
    }

    /// Gives up those of an ISAKMP SA.
    fn drop_jobs(&mut self, cookie: u64) {
        let exchanges = self.jobs_of.range((cookie, 0)..=(cookie, u32::MAX)).map(|(exchange, _)| *exchange);
        exchanges.collect::<Vec<_>>().into_iter().for_each(|exchange| self.drop_job(exchange));
    }

    fn sa(&self, cookie: u64) -> Option<&Sa> {
        self.sas.get(&cookie)
    }

    /// Whether a tunnel has a Child SA.
    fn is_up(&self, tunnel: TunnelId) -> bool {
        self.families.get(&tunnel).is_some_and(|family| !family.children.is_empty())
    }

    /// A tunnel's ISAKMP SAs but for one.
    fn others(&self, tunnel: TunnelId, cookie: u64) -> Vec<u64> {
        let family = self.families.get(&tunnel);
        family.map_or_else(Vec::new, |f| f.sas.iter().copied().filter(|other| *other != cookie).collect())
    }

    /// The newest ISAKMP SA of a tunnel's own that is up.
    fn current(&self, tunnel: TunnelId) -> Option<u64> {
        let sas = self.others(tunnel, 0).into_iter().filter_map(|cookie| self.sa(cookie));
        Some(newest(sas)?.cookie)
    }
}

/// What a tunnel has: ISAKMP SAs in any state, and Child SAs.
#[derive(Debug)]
struct Family {
    /// The number that its deadlines go by.
    key: u64,
    sas: BTreeSet<u64>,
    children: Vec<Child>,
    /// Whose guest the tunnel is.
    host: Option<Box<Host>>,
}

/// One ISAKMP SA from its first message on.
#[derive(Debug)]
pub(crate) struct Sa {
    /// Our cookie.
    cookie: u64,
    /// The peer's; zero until it is known.
    peer_cookie: u64,
    role: Role,
    mode: Mode,
    path: Path,
    /// Known from the start to an initiator, from its identity on to a responder.
    tunnel: Option<Arc<TunnelConfig>>,
    /// When the first message was sent or came.
    started: Instant,
    /// Ni, which settles simultaneous initiations.
    initiator_nonce: Vec<u8>,
    peer: Capabilities,
    first_message: Option<[u8; 32]>,
    /// To be closed as soon as it is established.
    doomed: bool,
    /// Every pair of subnets is to be negotiated anew, and not only those that have no Child SA.
    anew: bool,
    /// Tunnels whose pairs it is to bring about once it is up: siblings; and where an attempt of ours was given up for it,
    /// those that the peer does not bring about.
    waiting: BTreeSet<TunnelId>,
    /// A flow that is asked for, before all others.
    flow: Option<(TrafficSelector, TrafficSelector)>,
    fragments: Reassembly,
    fragmented: u16,
    /// The digest of the last message of phase 1 that was acted on.
    received: Option<[u8; 32]>,
    /// The last messages of phase 1.
    flight: Flight,
    state: State,
}

/// What the peer's vendor IDs say.
#[derive(Clone, Copy, Debug, Default)]
struct Capabilities {
    nat_traversal: Option<NatTraversal>,
    dpd: bool,
    fragmentation: bool,
}

impl Capabilities {
    fn learn(&mut self, payloads: &[Payload]) {
        for octets in
            payloads.iter().filter_map(|p| if let Payload::VendorId(id) = p { Some(id) } else { None })
        {
            match VendorId::recognise(octets) {
                Some(VendorId::NatTraversal(way)) => {
                    self.nat_traversal = Some(self.nat_traversal.map_or(way, |known| known.max(way)));
                }
                Some(VendorId::DeadPeerDetection) => self.dpd = true,
                Some(VendorId::Fragmentation) => self.fragmentation = true,
                Some(VendorId::Xauth) | None => {}
            }
        }
    }
}

/// Messages that were sent, and are sent again until the next one comes.
#[derive(Debug, Default)]
struct Flight {
    messages: Vec<Vec<u8>>,
    attempts: u32,
    first_sent: Option<Instant>,
    resend_at: Option<Instant>,
}

/// Where an ISAKMP SA stands.
#[derive(Debug)]
enum State {
    PhaseOne(Box<PhaseOne>),
    Established(Box<Established>),
    /// Only says again that it is closed.
    Closing(Box<Established>),
}

/// An ISAKMP SA in use.
#[derive(Debug)]
struct Established {
    keys: SaKeys,
    cipher: MessageCipher,
    suite: PhaseOneSuite,
    nat: Nat,
    since: Instant,
    /// The last authenticated sign of life.
    heard: Instant,
    /// When the peer was first asked for a sign of life that has not come yet.
    probed: Option<Instant>,
    /// The sequence number of our last R-U-THERE.
    sequence: u32,
    /// When that was sent, until it is answered.
    asked: Option<Instant>,
    /// Another one is to be used.
    superseded: bool,
    /// Nothing has come back yet since our last message of phase 1, which the peer may not have got.
    unconfirmed: bool,
    /// Phase 2 by message ID.
    exchanges: BTreeMap<u32, Exchange>,
    /// Child SAs to negotiate when there is room.
    wants: VecDeque<Want>,
    /// Answers to the last informational messages, by their octets' digest.
    answers: VecDeque<([u8; 32], Vec<Vec<u8>>)>,
    /// It has been seen that the message IDs come to an end.
    worn: bool,
}

impl Established {
    /// Whether the message IDs have just come near their end, so that another SA is to take the place of this one.
    fn begins_to_wear(&mut self) -> bool {
        let worn = self.cipher.is_worn();
        worn && !std::mem::replace(&mut self.worn, worn)
    }
}

impl Sa {
    fn tunnel_id(&self) -> Option<TunnelId> {
        self.tunnel.as_ref().map(|tunnel| tunnel.id)
    }

    fn initiator_cookie(&self) -> u64 {
        if self.role == Role::Initiator { self.cookie } else { self.peer_cookie }
    }

    fn responder_cookie(&self) -> u64 {
        if self.role == Role::Initiator { self.peer_cookie } else { self.cookie }
    }

    /// CKY-I and CKY-R.
    fn cookies(&self) -> (u64, u64) {
        (self.initiator_cookie(), self.responder_cookie())
    }

    fn exchange(&self) -> ExchangeType {
        match self.mode {
            Mode::Main => ExchangeType::MainMode,
            Mode::Aggressive => ExchangeType::AggressiveMode,
        }
    }

    fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }

    fn established_mut(&mut self) -> Option<&mut Established> {
        match &mut self.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }
}

/// Commands, for a tunnel that is configured for IKEv1.
impl Endpoint {
    pub(crate) fn v1_acquire(
        &mut self,
        now: Instant,
        tunnel: Arc<TunnelConfig>,
        peer: IpAddr,
        flow: Option<(TrafficSelector, TrafficSelector)>,
    ) {
        if self.v1_joins(tunnel.id, flow.as_ref()) {
            return;
        }
        match self.speaker(tunnel.id) {
            Some(cookie) => self.with_v1(cookie, |endpoint, mut sa| {
                endpoint.want_missing(now, &mut sa, tunnel.id, flow.as_ref());
                Some(sa)
            }),
            None => self.v1_initiate(now, tunnel, peer, flow, false),
        }
    }

    pub(crate) fn v1_reconnect(&mut self, now: Instant, tunnel: Arc<TunnelConfig>, peer: IpAddr) {
        if !self.v1_joins(tunnel.id, None) {
            self.v1_initiate(now, tunnel, peer, None, true);
        }
    }

    /// Has a tunnel wait for our attempt at phase 1, if there is one.
    fn v1_joins(&mut self, id: TunnelId, flow: Option<&(TrafficSelector, TrafficSelector)>) -> bool {
        let begun = self.v1_begun(id).and_then(|begun| self.v1.sas.get_mut(&begun));
        let Some(sa) = begun else { return false };
        if sa.tunnel_id() != Some(id) {
            sa.waiting.insert(id);
        }
        // What waits longest goes first.
        sa.flow = sa.flow.take().or_else(|| flow.cloned());
        true
    }

    /// Makes a new ISAKMP SA for a tunnel that is up. Its Child SAs stay.
    pub(crate) fn v1_rekey_ike(&mut self, now: Instant, id: TunnelId) {
        if let Some(cookie) = self.speaker(id) {
            self.with_v1(cookie, |endpoint, sa| {
                endpoint.v1_renew(now, &sa);
                Some(sa)
            });
        }
    }

    pub(crate) fn v1_rekey_child(&mut self, now: Instant, id: TunnelId, inbound_spi: u32) {
        if let Some(cookie) = self.speaker(id) {
            self.with_v1(cookie, |endpoint, mut sa| {
                endpoint.want_rekey(now, &mut sa, id, inbound_spi);
                Some(sa)
            });
        }
    }

    pub(crate) fn v1_close_child(
        &mut self,
        now: Instant,
        id: TunnelId,
        inbound_spi: u32,
        reason: DownReason,
    ) {
        self.v1_remove_child(now, id, inbound_spi, reason, true);
    }

    /// Closes a tunnel's SAs with DELETE, and gives up attempts at it.
    pub(crate) fn v1_close(&mut self, now: Instant, id: TunnelId) {
        // The one that speaks for the Child SAs goes last.
        let mut sas: Vec<_> = self.kin_sas(id, 0).into_iter().collect();
        let speaker = self.speaker(id);
        sas.sort_by_key(|cookie| Some(*cookie) == speaker);
        for cookie in sas {
            let speaks = Some(cookie) == speaker;
            self.with_v1(cookie, |endpoint, sa| endpoint.close_on(now, sa, id, speaks));
        }
    }

    /// Closes what an ISAKMP SA is to a tunnel, of which it is itself or a sibling; `speaks` if it does so for both.
    fn close_on(&mut self, now: Instant, mut sa: Sa, id: TunnelId, speaks: bool) -> Option<Sa> {
        let own = sa.tunnel_id() == Some(id);
        let is_needed = self.has_heir(&sa);
        match &sa.state {
            State::Closing(_) => {}
            State::PhaseOne(_) if !own => {
                sa.waiting.remove(&id);
            }
            State::PhaseOne(_) if is_needed => {
                self.v1_hand_over(now, &mut sa);
            }
            State::PhaseOne(one) => {
                let is_known = sa.role == Role::Responder || one.step.may_be_up_at_peer();
                self.leave_siblings(now, &sa, DownReason::ClosedByUs);
                sa.waiting.clear();
                sa.doomed = true;
                return is_known.then_some(sa);
            }
            State::Established(_) if own && !is_needed => {
                if speaks {
                    self.close_children(now, &mut sa, id, DownReason::ClosedByUs);
                }
                return self.v1_close_sa(now, sa, DownReason::ClosedByUs);
            }
            State::Established(_) => {
                self.withdraw(now, &mut sa, id, speaks);
                if own {
                    self.v1_hand_over(now, &mut sa);
                    self.events.push_back(Event::IkeDown { tunnel: id, reason: DownReason::ClosedByUs });
                } else {
                    self.expect_children(now, &sa);
                }
            }
        }
        Some(sa)
    }

    pub(crate) fn v1_traffic_seen(&mut self, now: Instant, id: TunnelId, inbound_spi: u32) {
        let Some(cookie) = self.speaker(id) else { return };
        let Some(established) = self.v1.sas.get_mut(&cookie).and_then(Sa::established_mut) else { return };
        established.heard = established.heard.max(now);
        let awaited = established.quicks().any(|(_, quick)| quick.awaits_traffic(inbound_spi));
        if awaited {
            self.with_v1(cookie, |endpoint, mut sa| {
                endpoint.confirm_by_traffic(now, &mut sa, inbound_spi);
                Some(sa)
            });
        }
        let waits = |child: &Child| child.inbound_spi == inbound_spi && child.switch_at.is_some();
        if self.v1.families.get(&id).is_some_and(|family| family.children.iter().any(waits)) {
            self.confirm_child(now, id, inbound_spi);
        }
    }

    /// Whether a tunnel has anything of IKEv1.
    pub(crate) fn v1_has(&self, id: TunnelId) -> bool {
        self.v1.families.contains_key(&id)
    }

    /// A deadline of an SA or of a family.
    pub(crate) fn v1_timeout(&mut self, now: Instant, key: u64, kind: TimerKind) {
        if let Some(tunnel) = self.v1.family_keys.get(&key).copied() {
            self.changed.insert(tunnel);
            return self.v1_children_due(now, tunnel);
        }
        self.with_v1(key, |endpoint, mut sa| match kind {
            TimerKind::Retransmit => endpoint.v1_retransmit(now, sa),
            TimerKind::HalfOpen => endpoint.v1_half_open_expired(now, sa),
            TimerKind::Liveness => endpoint.v1_liveness(now, sa),
            TimerKind::Keepalive => {
                endpoint.v1_keepalive(now, &sa);
                Some(sa)
            }
            TimerKind::SoftLifetime => {
                endpoint.v1_soft_lifetime(now, &sa);
                Some(sa)
            }
            TimerKind::HardLifetime => endpoint.v1_close_sa(now, sa, DownReason::Expired),
            TimerKind::Superseded => endpoint.v1_superseded(now, sa),
            TimerKind::Linger => None,
            TimerKind::Reassembly | TimerKind::Children | TimerKind::Answer => {
                sa.fragments = Reassembly::default();
                Some(sa)
            }
        });
    }

    /// Takes an SA out of the table, gives it to `f`, and puts back what `f` gives, or forgets it.
    fn with_v1(&mut self, cookie: u64, f: impl FnOnce(&mut Self, Sa) -> Option<Sa>) {
        let Some(sa) = self.v1.sas.remove(&cookie) else { return };
        let (first_message, tunnel) = (sa.first_message, sa.tunnel.clone());
        self.changed.extend(sa.tunnel_id());
        match f(self, sa) {
            Some(sa) => {
                self.changed.extend(sa.tunnel_id());
                self.arm(&sa);
                self.v1.sas.insert(cookie, sa);
            }
            None => self.v1_forget(cookie, first_message, tunnel),
        }
    }

    /// The next deadline of whatever is to be sent again.
    fn arm(&mut self, sa: &Sa) {
        let exchanges = match &sa.state {
            State::Established(e) | State::Closing(e) => Some(&e.exchanges),
            State::PhaseOne(_) => None,
        };
        let due = exchanges.into_iter().flat_map(|all| all.values().filter_map(Exchange::due));
        match due.chain(sa.flight.resend_at).min() {
            Some(at) => self.timers.set(sa.cookie, TimerKind::Retransmit, at),
            None => self.timers.stop(sa.cookie, TimerKind::Retransmit),
        }
    }

    fn v1_forget(&mut self, cookie: u64, first_message: Option<[u8; 32]>, tunnel: Option<Arc<TunnelConfig>>) {
        self.timers.stop_all(cookie);
        self.half_open.remove(&cookie);
        if let Some(digest) = first_message {
            self.v1.first_messages.remove(&digest);
        }
        self.v1.drop_jobs(cookie);
        if let Some(tunnel) = tunnel {
            self.v1.of_tunnel.remove(&tunnel, cookie);
            let tunnel = tunnel.id;
            if let Some(family) = self.v1.families.get_mut(&tunnel) {
                family.sas.remove(&cookie);
            }
            self.drop_empty_family(tunnel);
        }
    }

    fn drop_empty_family(&mut self, tunnel: TunnelId) {
        let empty = |family: &Family| family.sas.is_empty() && family.children.is_empty();
        if self.v1.families.get(&tunnel).is_some_and(empty)
            && let Some(family) = self.v1.families.remove(&tunnel)
        {
            self.timers.stop_all(family.key);
            self.v1.family_keys.remove(&family.key);
        }
    }

    /// The family of a tunnel, made where there is none yet.
    fn family(&mut self, tunnel: TunnelId) -> &mut Family {
        if !self.v1.families.contains_key(&tunnel) {
            let key = self.draw_spi();
            self.v1.family_keys.insert(key, tunnel);
            let family = Family { key, sas: BTreeSet::new(), children: Vec::new(), host: None };
            self.v1.families.insert(tunnel, family);
        }
        self.v1.families.get_mut(&tunnel).expect("put there just now")
    }
}
