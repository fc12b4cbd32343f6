//! IKEv1 (RFC 2407, 2408, 2409) with pre-shared keys.
//!
//! ```text
//! main        MM1 ─▶ ◀─ MM2   MM3 ─▶ ◀─ MM4   MM5 ─▶ ◀─ MM6     six messages, identities encrypted
//! aggressive  AM1 ─▶ ◀─ AM2   AM3 ─▶                            three, identities in clear
//! quick       QM1 ─▶ ◀─ QM2   QM3 ─▶                            one for each pair of subnets, on an ISAKMP SA
//! ```
//!
//! An ISAKMP SA and the Child SAs made on it live apart: Child SAs belong to the tunnel ([`Family`]), and whichever
//! ISAKMP SA of the tunnel is current speaks for them. So a new phase 1 takes them over as they are. Only when the last
//! ISAKMP SA goes do they go with it.
//!
//! Informational messages are not answered in IKEv1. A DELETE is said several times for that reason, and what is lost
//! all the same is found out by dead peer detection.

mod aggressive;
mod children;
pub(crate) mod cipher;
mod collision;
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
    first_fragments::FirstFragments,
    fragment::Reassembly,
    keys::SaKeys,
    phase_one::PhaseOne,
    proposal::PhaseOneSuite,
    quick::{Exchange, Want},
    wire::{NatTraversal, Payload, VendorId},
};
use crate::{
    TunnelId,
    config::{Mode, TunnelConfig},
    endpoint::Endpoint,
    event::{DownReason, Nat, Path},
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

    /// The ISAKMP SA that speaks for a tunnel's Child SAs.
    fn current(&self, tunnel: TunnelId) -> Option<u64> {
        let sas = self.others(tunnel, 0).into_iter().filter_map(|cookie| self.sa(cookie));
        let established = sas.filter_map(|sa| Some((sa, sa.established()?)));
        let newest = established.max_by_key(|(_, established)| (!established.superseded, established.since));
        newest.map(|(sa, _)| sa.cookie)
    }
}

/// What a tunnel has: ISAKMP SAs in any state, and Child SAs.
#[derive(Debug)]
struct Family {
    /// The number that its deadlines go by.
    key: u64,
    sas: BTreeSet<u64>,
    children: Vec<Child>,
    /// We gave up an attempt of ours for one of the peer's: what that does not bring about is for us to do.
    wanted: bool,
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
        if let Some(begun) = self.v1_begun(tunnel.id) {
            // What waits longest goes first.
            if let Some(sa) = self.v1.sas.get_mut(&begun)
                && sa.flow.is_none()
            {
                sa.flow = flow;
            }
            return;
        }
        match self.v1.current(tunnel.id) {
            Some(cookie) => self.with_v1(cookie, |endpoint, mut sa| {
                endpoint.want_missing(now, &mut sa, flow.as_ref());
                Some(sa)
            }),
            None => self.v1_initiate(now, tunnel, peer, flow, false),
        }
    }

    pub(crate) fn v1_reconnect(&mut self, now: Instant, tunnel: Arc<TunnelConfig>, peer: IpAddr) {
        if !self.v1_is_begun(tunnel.id) {
            self.v1_initiate(now, tunnel, peer, None, true);
        }
    }

    /// Makes a new ISAKMP SA for a tunnel that is up. Its Child SAs stay.
    pub(crate) fn v1_rekey_ike(&mut self, now: Instant, id: TunnelId) {
        if let Some(cookie) = self.v1.current(id) {
            self.with_v1(cookie, |endpoint, sa| {
                endpoint.v1_renew(now, &sa);
                Some(sa)
            });
        }
    }

    pub(crate) fn v1_rekey_child(&mut self, now: Instant, id: TunnelId, inbound_spi: u32) {
        if let Some(cookie) = self.v1.current(id) {
            self.with_v1(cookie, |endpoint, mut sa| {
                endpoint.want_rekey(now, &mut sa, inbound_spi);
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
        if let Some(family) = self.v1.families.get_mut(&id) {
            family.wanted = false;
        }
        // The one that speaks for the Child SAs goes last.
        let mut sas = self.v1.others(id, 0);
        let current = self.v1.current(id);
        sas.sort_by_key(|cookie| Some(*cookie) == current);
        for cookie in sas {
            self.with_v1(cookie, |endpoint, mut sa| match &sa.state {
                State::PhaseOne(one) if sa.role == Role::Initiator && !one.step.may_be_up_at_peer() => None,
                State::PhaseOne(_) => {
                    sa.doomed = true;
                    Some(sa)
                }
                State::Established(_) => endpoint.v1_close_sa(now, sa, DownReason::ClosedByUs),
                State::Closing(_) => Some(sa),
            });
        }
    }

    pub(crate) fn v1_traffic_seen(&mut self, now: Instant, id: TunnelId, inbound_spi: u32) {
        let Some(cookie) = self.v1.current(id) else { return };
        let Some(established) = self.v1.sas.get_mut(&cookie).and_then(Sa::established_mut) else { return };
        established.heard = established.heard.max(now);
        let awaited = established.quicks().any(|(_, quick)| quick.awaits_traffic(inbound_spi));
        if awaited {
            self.with_v1(cookie, |endpoint, mut sa| {
                endpoint.confirm_by_traffic(now, &mut sa, inbound_spi);
                Some(sa)
            });
        }
    }

    /// Whether a tunnel has anything of IKEv1.
    pub(crate) fn v1_has(&self, id: TunnelId) -> bool {
        self.v1.families.contains_key(&id)
    }

    /// Whether a tunnel is being established by us.
    fn v1_is_begun(&self, id: TunnelId) -> bool {
        self.v1_begun(id).is_some()
    }

    /// Our attempt at establishing a tunnel.
    fn v1_begun(&self, id: TunnelId) -> Option<u64> {
        let begun =
            |sa: &&Sa| matches!(sa.state, State::PhaseOne(_)) && sa.role == Role::Initiator && !sa.doomed;
        let sas = self.v1.others(id, 0).into_iter().filter_map(|cookie| self.v1.sa(cookie));
        sas.filter(begun).map(|sa| sa.cookie).next()
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
            TimerKind::Reassembly | TimerKind::Children => {
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
            let family = Family { key, sas: BTreeSet::new(), children: Vec::new(), wanted: false };
            self.v1.families.insert(tunnel, family);
        }
        self.v1.families.get_mut(&tunnel).expect("put there just now")
    }
}
