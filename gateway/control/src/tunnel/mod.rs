//! One tunnel as it runs: its configuration, its state, its log, and what is known of its SAs.

mod bgp;
mod connection_group;
mod failure;
mod groups;
mod health;
mod machine;
#[cfg(test)]
mod tests;

pub use connection_group::{ConnectionGroup, ConnectionGroups, Fitness, carriers};
pub use failure::Failed;
pub use groups::{Groups, KeptGroups, Served, Slots, Unserved};
pub use health::{Health, PATIENCE, Turn};
pub use machine::{Machine, State};

use crate::{
    config,
    echo::Echo,
    log::{self, Log},
    maps::Counters,
    sadb::{Limits, SadbError, Totals},
    spd::Policy,
    status::{
        ChildStatus, Failure, HealthStatus, Rekeys, ResourceStatus, Timestamp, Traffic, TunnelStatus,
        timestamp,
    },
};
use adit_ike::{
    Advice, ChildSa, DownReason, Group, Mode, Nat, Path, Protocol, Restored, RestoredChild, TrafficSelector,
    TunnelConfig, TunnelId, Version,
};
use adit_maps::sa::DropCause;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Display,
    net::IpAddr,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

/// What a packet has on our side and on the peer's.
pub type Flow = (TrafficSelector, TrafficSelector);

/// How long after traffic asked a tunnel that is up for another Child SA it may ask again; doubled each time it was in
/// vain, up to [`ASK_CEILING`].
const ASK: Duration = Duration::from_secs(1);

/// The longest such wait.
const ASK_CEILING: Duration = Duration::from_secs(64);

/// A configured tunnel.
pub struct Tunnel {
    id: TunnelId,
    config: config::Tunnel,
    groups: Groups,
    machine: Machine,
    since: SystemTime,
    log: Log,
    ike: Option<Ike>,
    /// By inbound SPI.
    children: BTreeMap<u32, Box<Child>>,
    remote: Option<IpAddr>,
    last_error: Option<Failure>,
    /// Its health check, if it has one.
    health: Option<Box<Health>>,
    /// Why the last request of the check did not leave.
    unsent: Option<String>,
    /// Its session of BGP, if it has one.
    session: Option<Box<bgp::Session>>,
    rekeys: Rekeys,
    /// How often the peer was found dead.
    losses: u64,
    /// Taken down by hand.
    held: bool,
    /// The flow of the packet that wants the tunnel, for the next negotiation.
    flow: Option<Flow>,
    /// When traffic may ask for another Child SA of a tunnel that is up, and how long it has to wait after that.
    ask: Option<(Instant, Duration)>,
    /// [`config::Tunnel::fingerprint`], once somebody wants to know it.
    fingerprint: OnceLock<[u8; 32]>,
}

struct Ike {
    suite: String,
    handshake: Duration,
    nat: Nat,
    since: SystemTime,
    initiator: bool,
    /// Of the last sign of life that was asked for.
    round_trip: Option<Duration>,
}

/// A pair of Child SAs. There are thousands: its words are made when somebody asks.
struct Child {
    outbound_spi: u32,
    protocol: Protocol,
    suite: Box<str>,
    pfs: Option<Group>,
    esn: bool,
    encapsulated: bool,
    local: Box<[TrafficSelector]>,
    remote: Box<[TrafficSelector]>,
    installed_at: Timestamp,
    expires_at: Timestamp,
    lifetime_bytes: Option<u64>,
}

impl Child {
    fn status(
        &self,
        inbound_spi: u32,
        lifetime_packets: Option<u64>,
        counters: [Counters; 2],
    ) -> ChildStatus {
        let mtu = counters[1].mtu.filter(|mtu| mtu.outer != 0);
        let [inbound, outbound] = counters.map(traffic);
        let words = |side: &[TrafficSelector]| side.iter().map(ToString::to_string).collect();
        ChildStatus {
            inbound_spi: spi(inbound_spi),
            outbound_spi: spi(self.outbound_spi),
            protocol: if self.protocol == Protocol::Ah { "ah" } else { "esp" }.into(),
            suite: self.suite.to_string(),
            pfs: self.pfs.map(|group| group.to_string()),
            esn: self.esn,
            encapsulated: self.encapsulated,
            local: words(&self.local),
            remote: words(&self.remote),
            installed_at: self.installed_at,
            expires_at: self.expires_at,
            lifetime_bytes: self.lifetime_bytes,
            lifetime_packets,
            mtu: mtu.map(|mtu| mtu.inner),
            path_mtu: mtu.map(|mtu| mtu.outer),
            inbound,
            outbound,
        }
    }
}

fn traffic(counters: Counters) -> Traffic {
    Traffic { packets: counters.packets, bytes: counters.bytes }
}

impl Tunnel {
    /// A tunnel that does nothing yet.
    pub fn new(id: TunnelId, config: config::Tunnel, groups: Groups) -> Self {
        Tunnel {
            id,
            groups,
            machine: Machine::new(config.enabled, config.start, config.dpd_action),
            health: config.health_check.map(|check| Box::new(Health::new(check))),
            unsent: None,
            session: bgp::Session::of(config.bgp.as_deref()),
            config,
            since: SystemTime::now(),
            log: Log::default(),
            ike: None,
            children: BTreeMap::new(),
            remote: None,
            last_error: None,
            rekeys: Rekeys::default(),
            losses: 0,
            held: false,
            flow: None,
            ask: None,
            fingerprint: OnceLock::new(),
        }
    }

    /// Takes another configuration and other slots; to be followed by [`Tunnel::reset`].
    pub fn reconfigure(&mut self, config: config::Tunnel, groups: Groups) {
        self.health = config.health_check.map(|check| Box::new(Health::new(check)));
        self.session = bgp::Session::of(config.bgp.as_deref());
        (self.config, self.groups, self.held) = (config, groups, false);
        self.fingerprint = OnceLock::new();
    }

    /// Takes what another configuration of the same traffic may have otherwise: the names, its own and its peer's, and the
    /// health check and BGP, which begin anew where they are others.
    pub fn rename(&mut self, config: &config::Tunnel) {
        if self.config.health_check != config.health_check {
            self.config.health_check = config.health_check;
            self.groups.check(config.health_check.as_ref());
            self.health = config.health_check.map(|check| Box::new(Health::new(check)));
            self.unsent = None;
            self.last_error.take_if(|e| e.is_of_health());
            let words =
                if self.health.is_some() { "the health check begins anew" } else { "no health check" };
            self.note(words);
            self.follow_state();
        }
        if self.config.bgp != config.bgp {
            self.config.bgp.clone_from(&config.bgp);
            self.groups.speak(config.bgp.as_deref());
            self.session = bgp::Session::of(config.bgp.as_deref());
            self.note(if self.session.is_some() { "BGP begins anew" } else { "no BGP" });
        }
        self.config.name.clone_from(&config.name);
        self.config.peer_name.clone_from(&config.peer_name);
        self.fingerprint = OnceLock::new();
    }

    /// Goes back to where a tunnel starts; the log stays. The caller has closed what was up.
    pub fn reset(&mut self, why: &str) {
        let config = &self.config;
        self.machine = Machine::new(config.enabled && !self.held, config.start, config.dpd_action);
        self.since = SystemTime::now();
        (self.ike, self.remote, self.last_error) = (None, None, None);
        (self.flow, self.ask) = (None, None);
        self.children.clear();
        self.note(why);
        self.follow_state();
    }

    /// Its number.
    pub fn id(&self) -> TunnelId {
        self.id
    }

    /// Its configuration.
    pub fn config(&self) -> &config::Tunnel {
        &self.config
    }

    /// By which a later process knows its configuration.
    pub fn fingerprint(&self) -> [u8; 32] {
        *self.fingerprint.get_or_init(|| self.config.fingerprint())
    }

    /// Whether it was taken down by hand.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Rekeys of the IKE SA, and of Child SAs.
    pub fn rekeys(&self) -> Rekeys {
        self.rekeys
    }

    /// How often the peer was found dead since this process has the tunnel.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// Its slots of OUTBOUND.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Whether its IKE is to be known to the endpoint at all.
    pub fn is_enabled(&self) -> bool {
        self.config.enabled && !self.held
    }

    /// The connection status.
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// When [`Tunnel::handle_timeout`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.machine.due()
    }

    /// Whether packets can pass: the tunnel is up, and nothing is known to be wrong at the other end.
    pub fn is_healthy(&self) -> bool {
        self.state() == State::Connected && !self.is_silent()
    }

    /// Whether its health check gets no answers.
    pub fn is_silent(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.is_silent())
    }

    /// Whether its routes are withdrawn: its health check wants that, and it is not healthy. Not while it waits for a packet
    /// to be begun: by those routes one gets to where it is asked for.
    pub fn is_withdrawn(&self) -> bool {
        let switches = self.config.health_check.is_some_and(|check| check.switch_route);
        switches && !self.is_healthy() && !self.machine.awaits_traffic()
    }

    /// When [`Tunnel::check`] has something to do.
    pub fn check_due(&self) -> Option<Instant> {
        self.health.as_ref()?.due()
    }

    /// Whether a negotiation that we began has neither failed nor succeeded yet.
    pub fn is_attempting(&self) -> bool {
        self.machine.is_attempting()
    }

    /// Whether an IKE SA is established.
    pub fn has_ike(&self) -> bool {
        self.ike.is_some()
    }

    /// The connection log, oldest first.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What the IKE endpoint is told.
    pub fn ike_config(&self) -> TunnelConfig {
        let c = &self.config;
        let selectors = |subnets: &[config::Subnet]| subnets.iter().map(config::Subnet::selector).collect();
        TunnelConfig {
            id: self.id,
            name: c.name.clone(),
            local: c.local,
            other_local: c.other_local,
            peer: match c.peer {
                config::PeerAddress::Ip(ip) => Some(ip),
                // A name may have other addresses than the one we connect to.
                config::PeerAddress::Name(_) | config::PeerAddress::Any => None,
            },
            local_id: c.local_id.clone(),
            peer_id: c.peer_id.clone(),
            psk: c.psk.clone(),
            ike: c.ike.clone(),
            ipsec: c.ipsec.clone(),
            local_ts: selectors(&c.local_subnets),
            remote_ts: selectors(&c.remote_subnets),
            nat_t: c.nat_t,
            dpd: c.dpd,
            initiates: c.start != config::Start::Respond,
            childless: c.childless,
            ppk: c.ppk.clone(),
        }
    }

    /// What the data plane is told beyond what was negotiated.
    pub fn limits(&self) -> Limits {
        Limits {
            replay_window: self.config.replay_window,
            mtu: self.config.mtu.unwrap_or(0),
            mss: self.config.mss_clamp.unwrap_or(0),
            lifetime_bytes: self.config.ipsec.lifetime_bytes,
            lifetime_packets: self.config.lifetime_packets,
        }
    }

    /// The slots of OUTBOUND for a Child SA, and whether the policies are others because of it.
    ///
    /// # Errors
    /// [`SadbError::Slots`], [`SadbError::Selectors`].
    pub fn serve(&mut self, child: &ChildSa, slots: &mut Slots) -> Result<Served, SadbError> {
        self.groups.serve(self.id, &child.local_ts, &child.remote_ts, slots).map_err(|why| match why {
            Unserved::Full => SadbError::Slots,
            Unserved::Selectors => SadbError::Selectors(format!(
                "{} to {}",
                log::line(&list(&child.local_ts)),
                log::line(&list(&child.remote_ts))
            )),
        })
    }

    /// Forgets the slots of what the peer narrowed a Child SA to that `serves` says nothing serves any more; see
    /// [`Groups::forget`].
    pub fn forget_slots(&mut self, serves: impl Fn(u32) -> bool) -> Vec<u32> {
        self.groups.forget(serves)
    }

    /// Goes on with its health check. The request that is to leave, with `nonce`.
    pub fn check(&mut self, now: Instant, nonce: u64) -> Option<Echo> {
        let due = self.health.as_mut()?.handle_timeout(now, nonce);
        self.turned(due.turn);
        let sequence = due.ask?;
        self.unsent = None;
        Some(Echo { tunnel: self.id.0, nonce, sequence })
    }

    /// The request did not leave. It counts as one that is not answered.
    pub fn not_asked(&mut self, why: &dyn Display) {
        self.unsent = Some(log::line(&why.to_string()));
    }

    /// A request of its health check was answered.
    pub fn check_answered(&mut self, now: Instant, nonce: u64) {
        let turn = self.health.as_mut().and_then(|health| health.handle_answer(now, nonce));
        self.turned(turn);
    }

    /// Nothing answered its health check in an earlier process.
    pub fn distrust(&mut self) {
        self.health.iter_mut().for_each(|health| health.distrust());
    }

    fn turned(&mut self, turn: Option<Turn>) {
        let Some(health) = &self.health else { return };
        let check = *health.check();
        let (from, to, n) = (check.source, check.destination, check.retries);
        match turn {
            Some(Turn::Silent) => {
                let why = self
                    .unsent
                    .as_ref()
                    .map_or(String::new(), |why| format!(", the last did not leave: {why}"));
                let withdrawn = if check.switch_route { ", routes are withdrawn" } else { "" };
                let requests = if n == 1 { "echo request" } else { "echo requests in a row" };
                let cause = format!("{to} does not answer {n} {requests} from {from}{why}");
                self.note(format!("health 0: {cause}{withdrawn}"));
                self.last_error = Some(failure::of_health(to, cause));
            }
            Some(Turn::Answers(took)) => {
                let ms = took.as_secs_f64() * 1e3;
                let back = if check.switch_route { "; routes are back" } else { "" };
                self.note(format!(
                    "health 1: {to} answers again, {n} in a row, the last in {ms:.1} ms{back}"
                ));
                self.last_error.take_if(|e| e.is_of_health());
            }
            None => {}
        }
    }

    /// The health check goes on while there are SAs.
    fn follow_state(&mut self) {
        let is_up = self.state() == State::Connected;
        let Some(health) = &mut self.health else { return };
        if is_up { health.begin(Instant::now()) } else { health.end() }
    }

    /// It was taken down by hand in an earlier process.
    pub fn hold(&mut self) {
        self.held = true;
        self.machine.hold();
    }

    /// Goes on counting where an earlier process was.
    pub fn carry(&mut self, rekeys: Rekeys) {
        self.rekeys = rekeys;
    }

    /// Goes on with what an earlier process had.
    pub fn resume(&mut self, now: Instant, restored: &Restored) {
        self.machine.begin(now);
        if let Some(ike) = &restored.ike {
            self.remote = Some(ike.path.remote.ip());
            let age = now.saturating_duration_since(ike.since);
            self.note(format!("the IKE SA goes on: {}, {}, up for {} s", ike.path, ike.suite, age.as_secs()));
            self.ike = Some(Ike {
                suite: ike.suite.clone(),
                handshake: ike.handshake,
                nat: ike.nat,
                since: SystemTime::now() - age,
                initiator: ike.initiator,
                round_trip: None,
            });
        }
        for RestoredChild { child, .. } in &restored.children {
            let (inbound, outbound) = (spi(child.inbound.spi), spi(child.outbound.spi));
            self.note(format!("a Child SA goes on: SPI in {inbound} out {outbound}"));
            let began = SystemTime::now() + child.lifetime - self.config.ipsec.lifetime;
            self.keep_child(child, began);
            self.step(|m| m.child_up(child.inbound.spi));
        }
    }

    /// From now on the tunnel is to be up, as its configuration says.
    pub fn begin(&mut self, now: Instant) {
        self.machine.begin(now);
        match self.state() {
            State::Disabled if self.held => self.note("stays down: it was taken down by hand"),
            State::Disabled => self.note("disabled"),
            _ => self.note_what_it_waits_for(),
        }
    }

    /// Says in the log what is to come before it negotiates, where that is not time.
    fn note_what_it_waits_for(&mut self) {
        let waits = matches!(self.state(), State::Idle | State::Connecting);
        if !waits || self.due().is_some() || self.is_attempting() {
            return;
        }
        self.note(match self.config.start {
            _ if self.machine.awaits_traffic() => "waits for traffic",
            config::Start::Respond => "waits for the peer",
            config::Start::Immediate | config::Start::OnDemand => {
                "waits for the peer, or to be wanted up by hand"
            }
        });
    }

    /// Whether it is time to negotiate.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.machine.handle_timeout(now)
    }

    /// A negotiation begins with the peer at this address. Gives the flow of the packet that asked for it.
    pub fn connecting_to(&mut self, peer: IpAddr) -> Option<Flow> {
        self.remote = Some(peer);
        self.note(format!("negotiates with {peer}"));
        self.flow.take()
    }

    /// Traffic found no SA. Where the tunnel is up all the same, the flow has no Child SA yet: gives the peer's address
    /// when one is to be asked for.
    pub fn acquire(&mut self, now: Instant, flow: Option<&Flow>) -> Option<IpAddr> {
        if self.state() == State::Connected {
            return self.ask_for_another(now, flow?);
        }
        let before = self.state();
        self.step(|m| m.acquire(now));
        if self.state() != before {
            self.flow = flow.cloned();
            self.note("traffic wants the tunnel");
        }
        None
    }

    fn ask_for_another(&mut self, now: Instant, flow: &Flow) -> Option<IpAddr> {
        let covers = |side: &[TrafficSelector], ts: &TrafficSelector| side.iter().any(|t| t.contains(ts));
        let covered = self.children.values().any(|c| covers(&c.local, &flow.0) && covers(&c.remote, &flow.1));
        // What a Child SA covers is about to be sent with it: the policies are on their way.
        if covered || self.config.start == config::Start::Respond {
            return None;
        }
        let (at, wait) = self.ask.unwrap_or((now, ASK));
        if now < at {
            return None;
        }
        self.ask = Some((now + wait, (wait * 2).min(ASK_CEILING)));
        self.note(format!("traffic from {} to {} wants another Child SA", flow.0, flow.1));
        self.remote
    }

    /// Somebody wants it up; without a data plane that is left for later. What is answered, and whether the endpoint is to
    /// know it again.
    ///
    /// # Errors
    /// In words, when it cannot be.
    pub fn up(&mut self, now: Instant, data_plane: bool) -> Result<(&'static str, bool), &'static str> {
        if !self.config.enabled {
            return Err("is disabled in the configuration");
        }
        let held = std::mem::take(&mut self.held);
        if held {
            self.reset("wanted up by hand");
        } else {
            self.note("wanted up by hand");
        }
        if !data_plane {
            return Ok(("waits for the data plane", false));
        }
        if held {
            self.machine.begin(now);
        }
        let mut woken = false;
        self.step(|m| woken = m.wake(now));
        let answer = match (self.state(), woken) {
            (State::Connected, _) => "is up",
            (_, true) => "negotiates",
            _ if self.is_attempting() => "is negotiating",
            _ => "waits for the peer, which is to begin",
        };
        Ok((answer, held))
    }

    /// Somebody wants it down, until somebody wants it up.
    ///
    /// # Errors
    /// In words, when it is down for good.
    pub fn down(&mut self) -> Result<(), &'static str> {
        if !self.config.enabled {
            return Err("is disabled in the configuration");
        }
        self.held = true;
        self.note("taken down by hand");
        self.step(Machine::hold);
        Ok(())
    }

    /// The pairs of Child SAs that are up, by their inbound SPIs.
    pub fn child_spis(&self) -> Vec<u32> {
        self.children.keys().copied().collect()
    }

    /// Says in the log what somebody asked for by hand, or what else happens to it.
    pub fn say(&mut self, text: &str) {
        self.note(text);
    }

    /// An IKE SA is established.
    pub fn ike_up(&mut self, path: Path, suite: String, handshake: Duration, nat: Nat, initiator: bool) {
        self.remote = Some(path.remote.ip());
        let who = if initiator { "us" } else { "the peer" };
        let behind = nat_words(nat).map_or(String::new(), |side| format!(", NAT: {side}"));
        let ms = handshake.as_secs_f64() * 1e3;
        self.note(format!("IKE SA up: {path}, {suite}, begun by {who}, {ms:.1} ms{behind}"));
        self.ike = Some(Ike { suite, handshake, nat, since: SystemTime::now(), initiator, round_trip: None });
    }

    /// The peer gave the sign of life that it was asked for.
    pub fn peer_answered(&mut self, round_trip: Duration) {
        if let Some(ike) = &mut self.ike {
            ike.round_trip = Some(round_trip);
        }
    }

    /// A Child SA is installed.
    pub fn child_up(&mut self, child: &ChildSa) {
        let suite = suite_of(child);
        let (inbound, outbound) = (spi(child.inbound.spi), spi(child.outbound.spi));
        let (local, remote) = (list(&child.local_ts), list(&child.remote_ts));
        let pfs = child.pfs.map_or(String::new(), |group| format!(", PFS with {group}"));
        let place = child.replaces.map_or(String::new(), |old| format!(", in place of {}", spi(old)));
        self.note(format!(
            "Child SA up: {suite}{pfs}, SPI in {inbound} out {outbound}, {local} to {remote}{place}"
        ));
        self.rekeys.child += u64::from(child.replaces.is_some());
        self.keep_child(child, SystemTime::now());
        self.ask = None;
        // That nobody answers behind the peer is no matter of SAs.
        self.last_error.take_if(|e| !e.is_of_health());
        self.step(|m| m.child_up(child.inbound.spi));
    }

    /// Keeps what people want to know of a Child SA.
    fn keep_child(&mut self, child: &ChildSa, installed: SystemTime) {
        let limits = [self.config.ipsec.lifetime_bytes, child.lifetime_bytes];
        let known = Child {
            outbound_spi: child.outbound.spi,
            protocol: child.protocol,
            suite: suite_of(child).into(),
            pfs: child.pfs,
            esn: child.esn,
            encapsulated: child.encapsulation.is_some(),
            local: child.local_ts.as_slice().into(),
            remote: child.remote_ts.as_slice().into(),
            installed_at: timestamp(installed),
            expires_at: timestamp(SystemTime::now() + child.lifetime),
            lifetime_bytes: limits.into_iter().flatten().min(),
        };
        self.children.insert(child.inbound.spi, Box::new(known));
    }

    /// A Child SA has another way to the peer.
    pub fn child_moved(&mut self, inbound_spi: u32, peer: IpAddr, encapsulated: bool) {
        self.remote = Some(peer);
        if let Some(child) = self.children.get_mut(&inbound_spi) {
            child.encapsulated = encapsulated;
        }
        self.note(format!("the peer is now at {peer}"));
    }

    /// A Child SA is gone.
    pub fn child_down(&mut self, inbound_spi: u32, reason: DownReason) {
        if self.children.remove(&inbound_spi).is_some() {
            self.note(format!("Child SA down: SPI in {}, {reason}", spi(inbound_spi)));
        }
        self.step(|m| m.child_down(inbound_spi));
    }

    /// The IKE SA is gone.
    pub fn ike_down(&mut self, now: Instant, reason: DownReason) {
        self.note(format!("IKE SA down: {reason}"));
        if reason == DownReason::Replaced {
            self.rekeys.ike += 1;
        } else {
            self.ike = None;
            self.children.clear();
        }
        self.losses += u64::from(reason == DownReason::PeerDead);
        if matches!(reason, DownReason::PeerDead | DownReason::Broken) {
            self.last_error = Some(failure::failure(self.remote, reason));
        }
        self.step(|m| m.ike_down(now, reason));
        if reason != DownReason::Replaced {
            self.note_what_it_waits_for();
        }
    }

    /// A negotiation failed. `advice` is there where it is a matter between the two sides.
    pub fn failed(&mut self, now: Instant, failed: Failed, cause: &dyn Display, advice: Option<Advice>) {
        self.note(format!("{}: {cause}", failed.words()));
        let (phase, ours) = (failed.phase, failed.ours);
        // What became of our own attempt says more than what became of the peer's.
        let kept = !ours && self.last_error.as_ref().is_some_and(|e| e.ours);
        if self.children.is_empty() && !kept {
            self.last_error = Some(failed.kept(cause, advice));
        }
        self.step(|m| m.failed(now, phase, ours));
    }

    /// What was negotiated cannot be installed.
    pub fn not_installed(&mut self, now: Instant, cause: &dyn Display) {
        self.note(format!("Child SA not installed: {cause}"));
        self.last_error = Some(Failure { phase: Some(2), ..failure::failure(self.remote, cause) });
        self.step(|m| m.not_installed(now));
    }

    /// What people see of it.
    pub fn status(&self, totals: Totals, children: &BTreeMap<u32, [Counters; 2]>) -> TunnelStatus {
        let c = &self.config;
        let ikev1 = c.ike.version == Version::Ikev1;
        let mut drops = totals.inbound;
        drops += totals.outbound;
        TunnelStatus {
            name: c.name.clone(),
            id: self.id.0,
            status: ResourceStatus::Running,
            state: self.state(),
            since: timestamp(self.since),
            peer: c.peer_name.clone(),
            peer_address: c.peer.to_string(),
            remote: self.remote,
            local: self.remote.map_or(c.local, |remote| c.local_to(remote)),
            local_subnets: c.local_subnets.iter().map(ToString::to_string).collect(),
            remote_subnets: c.remote_subnets.iter().map(ToString::to_string).collect(),
            routes: c.routes.iter().flatten().map(ToString::to_string).collect(),
            version: if ikev1 { "ikev1" } else { "ikev2" }.into(),
            mode: ikev1.then(|| if c.ike.mode == Mode::Main { "main" } else { "aggressive" }.into()),
            ike_since: self.ike.as_ref().map(|i| timestamp(i.since)),
            ike_begun_by_us: self.ike.as_ref().map(|i| i.initiator),
            ike_suite: self.ike.as_ref().map(|i| i.suite.clone()),
            handshake_ms: self.ike.as_ref().map(|i| i.handshake.as_secs_f64() * 1e3),
            dpd_round_trip_ms: self.ike.as_ref().and_then(|i| i.round_trip).map(|t| t.as_secs_f64() * 1e3),
            nat: self.ike.as_ref().and_then(|i| nat_words(i.nat)).map(str::to_owned),
            children: self
                .children
                .iter()
                .map(|(spi, child)| {
                    let counters = children.get(spi).copied().unwrap_or_default();
                    child.status(*spi, c.lifetime_packets, counters)
                })
                .collect(),
            rekeys: self.rekeys,
            inbound: traffic(totals.inbound),
            outbound: traffic(totals.outbound),
            drops: DropCause::ALL.iter().map(|c| (c.label().into(), drops.drops[*c as usize])).collect(),
            last_error: self.last_error.clone(),
            healthy: self.is_healthy(),
            health_check: self.health.as_ref().map(|health| HealthStatus {
                destination: health.check().destination,
                source: health.check().source,
                answers: !health.is_silent(),
                round_trip_ms: health.round_trip().map(|t| t.as_secs_f64() * 1e3),
            }),
            bgp: self.bgp_status(),
        }
    }

    fn note(&mut self, text: impl Into<String>) {
        let text = log::line(&text.into());
        tracing::info!(tunnel = %self.config.name, "{text}");
        self.log.push(SystemTime::now(), text);
    }

    fn step(&mut self, step: impl FnOnce(&mut Machine)) {
        let before = self.state();
        step(&mut self.machine);
        self.follow_state();
        if self.state() != before {
            self.since = SystemTime::now();
            self.note(format!("{before} → {}", self.state()));
        }
    }
}

/// The SPD of some tunnels: between two pairs of prefixes that overlap the more specific one decides, first by the
/// remote prefix, then by the local one; the order of the configuration decides the rest. A disabled tunnel protects
/// all the same, behind others that have the same pairs: what it covers must not leave in clear. So does a group whose members
/// all are. Health checks and sessions of BGP come before everything. What members of groups protect, their groups do. What a tunnel with BGP is for and BGP
/// leads through no tunnel is dropped; where `learned` is false, that is all of it.
pub fn policies<'a>(
    tunnels: impl Iterator<Item = (TunnelId, &'a Groups)>,
    connection_groups: &ConnectionGroups,
    learned: bool,
) -> Vec<Policy> {
    let (mut checks, mut bounds) = (Vec::new(), BTreeSet::new());
    let mut tunnels: Vec<_> = tunnels.collect();
    tunnels.sort_by_key(|(_, groups)| groups.is_disabled());
    let enabled: HashSet<TunnelId> =
        tunnels.iter().filter(|(_, groups)| !groups.is_disabled()).map(|(id, _)| *id).collect();
    let (running, idle): (Vec<_>, Vec<_>) =
        connection_groups.values().partition(|group| group.members().iter().any(|id| enabled.contains(id)));
    let mut pairs: Vec<_> = running.into_iter().flat_map(ConnectionGroup::policies).collect();
    for (id, groups) in tunnels {
        checks.extend(groups.check_policy());
        checks.extend(groups.session_policy());
        bounds.extend(groups.bounds());
        match connection_groups.of(id) {
            Some(_) => {}
            None if learned => pairs.extend(groups.policies()),
            None => pairs.extend(groups.configured_policies()),
        }
    }
    pairs.extend(idle.into_iter().flat_map(ConnectionGroup::policies));
    // Behind what is learned of the same prefix.
    pairs.extend(bounds.into_iter().map(|(l, r)| ((l, r), vec![Policy::discard(l.prefix(), r.prefix())])));
    pairs.sort_by_key(|((local, remote), _)| (Reverse(remote.prefix().len), Reverse(local.prefix().len)));
    checks.into_iter().chain(pairs.into_iter().flat_map(|(_, policies)| policies)).collect()
}

fn suite_of(child: &ChildSa) -> String {
    let ah = (child.protocol == Protocol::Ah).then(|| "ah".to_owned());
    let names = [ah, child.encryption.map(|e| e.to_string()), child.integrity.map(|i| i.to_string())];
    names.into_iter().flatten().collect::<Vec<_>>().join("-")
}

fn spi(spi: u32) -> String {
    format!("{spi:#010x}")
}

fn list(selectors: &[TrafficSelector]) -> String {
    selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn nat_words(nat: Nat) -> Option<&'static str> {
    match (nat.local, nat.peer) {
        (false, false) => None,
        (true, false) => Some("local"),
        (false, true) => Some("peer"),
        (true, true) => Some("both"),
    }
}
