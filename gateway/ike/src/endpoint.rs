//! The endpoint: its tables, its commands and polls, and the way of a datagram to the IKE SA it is for.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use rand_core::CryptoRng;

use crate::{
    config::{EndpointConfig, TunnelConfig, TunnelId, Version},
    counters::Counters,
    crypto::dh::{Job, JobResult, Outcome},
    event::{DownReason, Event, Path, Transmit},
    half_open::HalfOpen,
    of_tunnel::OfTunnel,
    sa::{Child, Cookies, Flow, Goal, IkeSa, Opened, Reports, Role, Stage, Standing, State},
    selector::TrafficSelector,
    timer::{TimerKind, Timers},
    tunnels::Tunnels,
    v1::Table,
    wire::{ExchangeType, Header, WireError, header::refuse_version},
};

/// Marks IKE messages on the NAT traversal port, where ESP has its SPI (RFC 3948 section 2.2).
pub(crate) const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// First messages of IKE SAs that are gone which are remembered.
const SPENT_FIRST_MESSAGES: usize = 256;
/// Octets of an IKE message that every path carries.
const SHORTEST_FRAGMENT: usize = 256;

/// IKE for any number of tunnels. See the crate's documentation for how to drive it.
pub struct Endpoint {
    pub(crate) config: EndpointConfig,
    pub(crate) rng: Box<dyn CryptoRng + Send>,
    pub(crate) tunnels: Tunnels,
    /// By our SPI.
    pub(crate) sas: BTreeMap<u64, IkeSa>,
    pub(crate) of_tunnel: OfTunnel,
    /// Responder's IKE SAs by the digest of their first message, and such as are gone.
    pub(crate) first_messages: BTreeMap<[u8; 32], u64>,
    /// First messages of IKE SAs that came further and are gone, the oldest first: a late copy begins nothing.
    spent_first_messages: VecDeque<[u8; 32]>,
    pub(crate) half_open: HalfOpen,
    pub(crate) reports: Reports,
    /// Bounds the answers to other major versions.
    version_refusals: Reports,
    /// By our address and the peer's, the tunnel that a peer turned out to want when it had been given algorithms of
    /// another one: the next attempt from there is answered as it should be. No more of them than tunnels.
    pub(crate) wanted: BTreeMap<(IpAddr, IpAddr), TunnelId>,
    /// Inbound SPIs of ESP in use.
    pub(crate) esp_spis: BTreeSet<u32>,
    /// Whatever is of IKEv1.
    pub(crate) v1: Table,
    pub(crate) cookies: Cookies,
    pub(crate) timers: Timers,
    pub(crate) counters: Counters,
    pub(crate) events: VecDeque<Event>,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) jobs: VecDeque<Job>,
    /// Tunnels whose records may be others than when they were last asked for.
    pub(crate) changed: BTreeSet<TunnelId>,
}

/// How much an endpoint has in its tables. All of it goes back to zero when no tunnel is up or being established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// IKE SAs in any state.
    pub ike_sas: usize,
    /// Of these, those that are established and not being closed.
    pub established: usize,
    /// Pairs of Child SAs that are installed.
    pub child_sas: usize,
    /// Of the IKE SAs, those whose initiator has not proved who it is.
    pub half_open: usize,
    /// Inbound SPIs that are not free.
    pub spis: usize,
    /// IKE SAs of which the tunnel is known.
    pub of_tunnels: usize,
    /// IKE SAs that answer their first message again when it comes again.
    pub first_messages: usize,
    /// Deadlines.
    pub deadlines: usize,
}

impl Endpoint {
    /// An endpoint without tunnels. All its randomness, keys included, comes from `rng`.
    pub fn new(config: EndpointConfig, mut rng: Box<dyn CryptoRng + Send>) -> Self {
        let cookies = Cookies::new(&mut *rng);
        Self {
            config,
            rng,
            tunnels: Tunnels::default(),
            sas: BTreeMap::new(),
            of_tunnel: OfTunnel::default(),
            first_messages: BTreeMap::new(),
            spent_first_messages: VecDeque::new(),
            half_open: HalfOpen::default(),
            reports: Reports::default(),
            version_refusals: Reports::default(),
            wanted: BTreeMap::new(),
            esp_spis: BTreeSet::new(),
            v1: Table::default(),
            cookies,
            timers: Timers::default(),
            counters: Counters::default(),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            jobs: VecDeque::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Takes other settings; only the ports stay what they are. What is under way goes on, by the new settings from its next
    /// step on. A NAT keepalive that would leave later than they say leaves by then.
    pub fn set_config(&mut self, now: Instant, config: EndpointConfig) {
        let EndpointConfig { port, nat_t_port, .. } = self.config;
        self.timers.bring_forward(TimerKind::Keepalive, now + config.keepalive);
        self.config = EndpointConfig { port, nat_t_port, ..config };
    }

    /// Adds a tunnel or replaces its configuration. An SA that is up stays as it was negotiated until it is
    /// renewed or closed.
    pub fn set_tunnel(&mut self, _now: Instant, tunnel: TunnelConfig) {
        self.tunnels.insert(tunnel);
    }

    /// Closes a tunnel's SAs and forgets the tunnel.
    pub fn remove_tunnel(&mut self, now: Instant, id: TunnelId) {
        self.close(now, id);
        self.tunnels.remove(&id);
        self.reports.forget(id);
        self.wanted.retain(|_, wanted| *wanted != id);
    }

    /// Begins to establish a tunnel with the peer at `peer`. Does nothing for a tunnel that is up, that is
    /// being established by us, or that is unknown.
    pub fn connect(&mut self, now: Instant, id: TunnelId, peer: IpAddr) {
        self.acquire(now, id, peer, None);
    }

    /// A packet asks for a tunnel: what [`Self::connect`] does, with the packet's own flow first in the traffic
    /// selectors (RFC 7296 section 2.9). A tunnel that is up without a Child SA for the flow gets another one.
    ///
    /// `flow` is what the packet has on our side and on the peer's.
    pub fn acquire(
        &mut self,
        now: Instant,
        id: TunnelId,
        peer: IpAddr,
        flow: Option<(TrafficSelector, TrafficSelector)>,
    ) {
        if let Some(tunnel) = self.speaks_v1(now, id) {
            return self.v1_acquire(now, tunnel, peer, flow);
        }
        let others = self.others(id, 0);
        let established = || others.iter().filter_map(|spi| Some((*spi, self.sas.get(spi)?.established()?)));
        let served = established().any(|(_, e)| match &flow {
            Some(flow) => e.children.iter().any(|child| child.is_usable() && child.covers(flow)),
            None => e.is_usable(),
        });
        if served || self.is_begun(id) {
            return;
        }
        let in_use = established().filter(|(_, e)| e.standing == Standing::InUse);
        match in_use.max_by_key(|(_, e)| e.is_usable()).map(|(spi, _)| spi) {
            Some(spi) => self.with_sa(spi, |endpoint, mut sa| {
                endpoint.want(now, &mut sa, Goal::Create(flow));
                Some(sa)
            }),
            None => self.begin(now, id, peer, flow),
        }
    }

    /// Negotiates a tunnel anew while the SA that is up, if any, carries on until the new one is: for a
    /// changed configuration. Does nothing for a tunnel that is being established by us, or that is unknown.
    pub fn reconnect(&mut self, now: Instant, id: TunnelId, peer: IpAddr) {
        if let Some(tunnel) = self.speaks_v1(now, id) {
            return self.v1_reconnect(now, tunnel, peer);
        }
        if !self.is_begun(id) {
            self.begin(now, id, peer, None);
        }
    }

    /// Rekeys a tunnel's IKE SA, which keeps its Child SAs (RFC 7296 section 1.3.2), or authenticates it anew where that
    /// is how the tunnel is renewed. Does nothing for a tunnel that is not up.
    pub fn rekey_ike(&mut self, now: Instant, id: TunnelId) {
        self.v1_rekey_ike(now, id);
        self.with_established(id, |endpoint, sa| match &sa.tunnel {
            Some(tunnel) if tunnel.ike.reauthenticate && tunnel.initiates => endpoint.renew(now, sa),
            _ => endpoint.want(now, sa, Goal::RekeyIke),
        });
    }

    /// Rekeys one pair of Child SAs, named by its inbound SPI (RFC 7296 section 1.3.3): where bytes, packets or
    /// sequence numbers that the caller counts are about to run out, or by hand. Its place is taken by another
    /// pair, of which [`ChildSa::replaces`](crate::ChildSa::replaces) says so.
    pub fn rekey_child(&mut self, now: Instant, id: TunnelId, inbound_spi: u32) {
        self.v1_rekey_child(now, id, inbound_spi);
        self.with_established(id, |endpoint, sa| {
            if sa.established().is_some_and(|e| e.children.iter().any(|c| c.inbound_spi == inbound_spi)) {
                endpoint.want(now, sa, Goal::RekeyChild(inbound_spi));
            }
        });
    }

    /// Ends one pair of Child SAs whose bytes, packets or sequence numbers have run out before another took its
    /// place; the IKE SA too, if it has no other.
    pub fn expire_child(&mut self, now: Instant, id: TunnelId, inbound_spi: u32) {
        self.v1_close_child(now, id, inbound_spi, DownReason::Expired);
        for spi in self.others(id, 0) {
            self.with_sa(spi, |endpoint, sa| match sa.established() {
                Some(e) if e.children.iter().any(|c| c.inbound_spi == inbound_spi && c.is_usable()) => {
                    endpoint.child_expired(now, sa, inbound_spi)
                }
                _ => Some(sa),
            });
        }
    }

    /// Whether we are about to establish a tunnel.
    fn is_begun(&self, id: TunnelId) -> bool {
        let attempt = |sa: &IkeSa| sa.is_attempt() && !sa.doomed;
        self.others(id, 0).iter().any(|spi| self.sas.get(spi).is_some_and(attempt))
    }

    fn with_established(&mut self, id: TunnelId, mut f: impl FnMut(&mut Self, &mut IkeSa)) {
        for spi in self.others(id, 0) {
            self.with_sa(spi, |endpoint, mut sa| {
                if sa.established().is_some() {
                    f(endpoint, &mut sa);
                }
                Some(sa)
            });
        }
    }

    fn begin(&mut self, now: Instant, id: TunnelId, peer: IpAddr, flow: Option<Flow>) {
        if let Some(tunnel) = self.tunnels.get(&id).cloned() {
            let path = self.path_to(&tunnel, peer);
            self.initiate(now, tunnel, path, flow);
        }
    }

    /// Closes a tunnel's SAs with DELETE and gives up attempts at it. The tunnel stays known.
    pub fn close(&mut self, now: Instant, id: TunnelId) {
        self.v1_close(now, id);
        self.v2_close(now, id);
    }

    /// The tunnel, if it is configured for IKEv1. Whatever it still has of the other version than it is configured for
    /// is closed.
    fn speaks_v1(&mut self, now: Instant, id: TunnelId) -> Option<Arc<TunnelConfig>> {
        let tunnel = self.tunnels.get(&id).cloned()?;
        match tunnel.ike.version {
            Version::Ikev1 => self.v2_close(now, id),
            Version::Ikev2 if self.v1_has(id) => self.v1_close(now, id),
            Version::Ikev2 => {}
        }
        Some(tunnel).filter(|tunnel| tunnel.ike.version == Version::Ikev1)
    }

    fn v2_close(&mut self, now: Instant, id: TunnelId) {
        for spi in self.others(id, 0) {
            self.with_sa(spi, |endpoint, mut sa| match sa.state {
                State::Opening(_) | State::Intermediate(_) => None,
                State::AuthSent(_) => {
                    sa.doomed = true;
                    Some(sa)
                }
                State::Established(_) => endpoint.close_sa(now, sa, DownReason::ClosedByUs),
                State::Answering(_) | State::HalfOpen(_) | State::Closing(_) => Some(sa),
            });
        }
    }

    /// Closes one pair of Child SAs with DELETE, named by its inbound SPI. Left without any, the IKE SA is
    /// closed too, after a while.
    pub fn close_child(&mut self, now: Instant, id: TunnelId, inbound_spi: u32) {
        self.v1_close_child(now, id, inbound_spi, DownReason::ClosedByUs);
        self.with_established(id, |endpoint, sa| {
            endpoint.close_child_of(now, sa, inbound_spi, DownReason::ClosedByUs);
        });
    }

    /// Authentic ESP or AH came in for a tunnel, with this SPI: a sign of life for dead peer detection, and that
    /// the peer sends with this pair of Child SAs.
    pub fn traffic_seen(&mut self, now: Instant, id: TunnelId, inbound_spi: u32) {
        self.v1_traffic_seen(now, id, inbound_spi);
        for spi in self.others(id, 0) {
            let Some(established) = self.sas.get_mut(&spi).and_then(IkeSa::established_mut) else { continue };
            established.heard = established.heard.max(now);
            let awaited =
                |child: &Child| child.inbound_spi == inbound_spi && matches!(child.stage, Stage::Awaited(_));
            if established.children.iter().any(awaited) {
                self.with_sa(spi, |endpoint, mut sa| {
                    endpoint.switch_to(now, &mut sa, inbound_spi);
                    Some(sa)
                });
            }
        }
    }

    /// Takes a UDP payload from one of the two ports. On the NAT traversal port, what is not marked as IKE is
    /// left alone.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        let mut message = bytes;
        if path.local.port() == self.config.nat_t_port {
            match bytes.strip_prefix(&NON_ESP_MARKER) {
                Some(rest) => message = rest,
                None => return,
            }
        }
        self.counters.received += 1;
        let header = match Header::decode(message) {
            Ok((header, ..)) => header,
            Err(WireError::Version(1)) if !self.answers_v2(path, message) => {
                return self.v1_datagram(now, path, message);
            }
            Err(WireError::Version(version)) => return self.other_version(now, path, version, message),
            Err(_) => {
                self.counters.malformed += 1;
                return;
            }
        };
        self.v1_answered_in_v2(path, header.initiator_spi);
        match (header.exchange, header.response) {
            (ExchangeType::IkeSaInit, false) => self.init_request(now, path, &header, message),
            (ExchangeType::IkeSaInit, true) => {
                if self.sas.get(&header.initiator_spi).is_none_or(|sa| sa.role != Role::Initiator) {
                    self.counters.unknown_spi += 1;
                    return;
                }
                self.with_sa(header.initiator_spi, |endpoint, sa| {
                    endpoint.init_answer(now, sa, path, &header, message)
                });
            }
            _ => self.protected_message(now, path, &header, message),
        }
    }

    /// Whether a message of another version is about an attempt of ours in IKEv2.
    fn answers_v2(&self, path: Path, message: &[u8]) -> bool {
        let spi = message.first_chunk().copied().map(u64::from_be_bytes);
        let sa = spi.and_then(|spi| self.sas.get(&spi));
        sa.is_some_and(|sa| sa.path.remote.ip() == path.remote.ip() && matches!(sa.state, State::Opening(_)))
    }

    /// A message of another major version: a higher one is told ours, a lower one in answer to ours is what people
    /// are told if nothing better comes.
    fn other_version(&mut self, now: Instant, path: Path, version: u8, message: &[u8]) {
        self.counters.unsupported_version += 1;
        if let Some(answer) = refuse_version(message)
            && self.version_refusals.permit(now, None)
        {
            self.transmit(path, &[answer]);
        }
        if version == 1
            && let Some(spi) = message.first_chunk().copied().map(u64::from_be_bytes)
            && let Some(sa) = self.sas.get_mut(&spi)
            && sa.path.remote.ip() == path.remote.ip()
            && let State::Opening(opening) = &mut sa.state
        {
            opening.other_version();
        }
    }

    fn protected_message(&mut self, now: Instant, path: Path, header: &Header, message: &[u8]) {
        let (spi, role) = if header.from_initiator {
            (header.responder_spi, Role::Responder)
        } else {
            (header.initiator_spi, Role::Initiator)
        };
        let known = self.sas.get(&spi).is_some_and(|sa| {
            sa.role == role
                && sa.initiator_spi() == header.initiator_spi
                && sa.responder_spi() == header.responder_spi
        });
        if !known {
            self.counters.unknown_spi += 1;
            return;
        }
        self.with_sa(spi, |endpoint, mut sa| {
            let inner = match endpoint.open(now, &mut sa, path, header, message) {
                Opened::Message(inner) => inner,
                Opened::Nothing => return Some(sa),
            };
            if header.response {
                endpoint.protected_answer(now, sa, path, header, inner)
            } else {
                endpoint.protected_request(now, sa, path, header, inner)
            }
        });
    }

    /// Every deadline that `now` has reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((spi, kind)) = self.timers.pop(now) {
            if self.v1.owns(spi) {
                self.v1_timeout(now, spi, kind);
                continue;
            }
            self.with_sa(spi, |endpoint, sa| match kind {
                TimerKind::Retransmit => endpoint.retransmit(now, sa),
                TimerKind::Reassembly => Some(endpoint.drop_fragments(sa)),
                TimerKind::HalfOpen => {
                    endpoint.half_open_expired(now, &sa);
                    None
                }
                TimerKind::Linger => None,
                TimerKind::Answer => {
                    endpoint.send_answer(&sa);
                    Some(sa)
                }
                TimerKind::Liveness => endpoint.liveness(now, sa),
                TimerKind::Keepalive => {
                    endpoint.keepalive(now, &sa);
                    Some(sa)
                }
                TimerKind::Children => endpoint.children_due(now, sa),
                TimerKind::SoftLifetime => endpoint.soft_lifetime(now, sa),
                TimerKind::HardLifetime => endpoint.hard_lifetime(now, sa),
                TimerKind::Superseded => endpoint.superseded(now, sa),
            });
        }
    }

    /// When `handle_timeout` is to be called, and why; changes with every call into the endpoint.
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        self.timers.next()
    }

    /// What has happened. To be drained before [`Self::poll_transmit`]: an inbound SA must be in place before
    /// the peer hears that it may use it.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next computation to run.
    pub fn poll_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    /// Whether a computation is for a stranger: for an IKE SA whose initiator has not proved who it is. Others had better
    /// go first.
    pub fn is_strangers(&self, job: &Job) -> bool {
        self.half_open.contains_key(&job.sa)
    }

    /// What a computation came to. Late results, of attempts given up, are ignored.
    pub fn handle_job(&mut self, now: Instant, result: JobResult) {
        let JobResult { sa, outcome } = result;
        if self.v1.owns(sa) {
            return self.v1_job(now, sa, outcome);
        }
        self.with_sa(sa, |endpoint, sa| match (outcome, &sa.state) {
            (Outcome::Generated { secret, public }, State::Opening(_)) => {
                endpoint.generated(now, sa, secret, public)
            }
            (Outcome::Generated { secret, public }, State::Intermediate(_)) => {
                endpoint.intermediate_generated(now, sa, secret, public)
            }
            (Outcome::Generated { secret, public }, State::Established(_)) => {
                endpoint.child_generated(now, sa, secret, public)
            }
            (Outcome::Agreed(shared), State::Opening(_)) => endpoint.agreed(now, sa, shared),
            (Outcome::Agreed(shared), State::Intermediate(_)) => {
                endpoint.intermediate_agreed(now, sa, shared)
            }
            (Outcome::Agreed(shared), State::Established(_)) => endpoint.child_agreed(now, sa, shared),
            (Outcome::Responded(result), State::Answering(_)) => endpoint.responded(sa, result),
            (Outcome::Responded(result), State::HalfOpen(_)) => {
                endpoint.intermediate_responded(now, sa, result)
            }
            (Outcome::Responded(result), State::Established(_)) => endpoint.child_responded(now, sa, result),
            _ => Some(sa),
        });
    }

    /// What is in the endpoint's tables.
    pub fn counts(&self) -> Counts {
        let established = || self.sas.values().filter_map(IkeSa::established);
        Counts {
            ike_sas: self.sas.len() + self.v1.sas(),
            established: established().count() + self.v1.established(),
            child_sas: established().map(|e| e.children.len()).sum::<usize>() + self.v1.children(),
            half_open: self.half_open.len(),
            spis: self.esp_spis.len(),
            of_tunnels: self.of_tunnel.len() + self.v1.of_tunnels(),
            first_messages: self.first_messages.len() - self.spent_first_messages.len()
                + self.v1.first_messages(),
            deadlines: self.timers.len(),
        }
    }

    /// What has been counted since the endpoint was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes an IKE SA out of the table, gives it to `f`, and puts back what `f` gives, or forgets it.
    pub(crate) fn with_sa(&mut self, spi: u64, f: impl FnOnce(&mut Self, IkeSa) -> Option<IkeSa>) {
        let Some(sa) = self.sas.remove(&spi) else { return };
        let traces = Traces::of(&sa);
        self.changed.extend(traces.tunnel.as_ref().map(|tunnel| tunnel.id));
        match f(self, sa) {
            Some(sa) => {
                self.changed.extend(sa.tunnel_id());
                self.sas.insert(spi, sa);
            }
            None => self.erase(&traces),
        }
    }

    /// Removes what the tables hold of an SA that is not in them any more.
    pub(crate) fn forget(&mut self, sa: &IkeSa) {
        self.erase(&Traces::of(sa));
    }

    fn erase(&mut self, traces: &Traces) {
        let spi = traces.spi;
        self.timers.stop_all(spi);
        self.half_open.remove(&spi);
        if let Some(tunnel) = &traces.tunnel {
            self.of_tunnel.remove(tunnel, spi);
        }
        match traces.first_message {
            Some(digest) if traces.came_further => self.spend_first_message(digest),
            Some(digest) => drop(self.first_messages.remove(&digest)),
            None => {}
        }
        traces.esp_spis.iter().for_each(|spi| {
            self.esp_spis.remove(spi);
        });
    }

    fn spend_first_message(&mut self, digest: [u8; 32]) {
        self.spent_first_messages.push_back(digest);
        if self.spent_first_messages.len() > SPENT_FIRST_MESSAGES
            && let Some(oldest) = self.spent_first_messages.pop_front()
        {
            self.first_messages.remove(&oldest);
        }
    }

    pub(crate) fn draw_spi(&mut self) -> u64 {
        loop {
            let spi = self.rng.next_u64();
            if spi != 0 && !self.sas.contains_key(&spi) && !self.v1.owns(spi) {
                return spi;
            }
        }
    }

    /// An SPI for inbound ESP; 1 to 255 are reserved (RFC 4303 section 2.1).
    pub(crate) fn draw_esp_spi(&mut self, drawn: &mut Vec<u32>) -> u32 {
        loop {
            let spi = self.rng.next_u32();
            if spi > 255 && self.esp_spis.insert(spi) {
                drawn.push(spi);
                return spi;
            }
        }
    }

    /// Octets of the longest IKE message that goes in one packet of the configured size: without the headers of
    /// IP and UDP and the non-ESP marker. Never so few that fragments would hold next to nothing.
    pub(crate) fn longest_message(&self, path: Path) -> usize {
        let ip = if path.remote.is_ipv4() { 20 } else { 40 };
        let marker = if path.local.port() == self.config.nat_t_port { NON_ESP_MARKER.len() } else { 0 };
        self.config.fragment_size.saturating_sub(ip + 8 + marker).max(SHORTEST_FRAGMENT)
    }

    pub(crate) fn path_to(&self, tunnel: &TunnelConfig, peer: IpAddr) -> Path {
        Path {
            local: SocketAddr::new(tunnel.local_to(peer), self.config.port),
            remote: SocketAddr::new(peer, self.config.port),
        }
    }
}

/// Where an IKE SA has left traces in the endpoint's tables.
struct Traces {
    spi: u64,
    tunnel: Option<Arc<TunnelConfig>>,
    first_message: Option<[u8; 32]>,
    /// The peer has said more than that, under the keys of the IKE SA.
    came_further: bool,
    esp_spis: Vec<u32>,
}

impl Traces {
    fn of(sa: &IkeSa) -> Self {
        Self {
            spi: sa.spi,
            tunnel: sa.tunnel.clone(),
            first_message: sa.first_message,
            came_further: sa.window.expected > 1,
            esp_spis: sa.esp_spis.clone(),
        }
    }
}
