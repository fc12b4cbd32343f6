//! One tunnel as it runs: its configuration, its state, its log, and what is known of its SAs.

mod log;
mod machine;

pub use log::{KEPT, Log};
pub use machine::{Machine, State};

use crate::{
    config,
    sadb::{Limits, Totals},
    spd::Policy,
    status::{ChildStatus, Failure, LogEntry, Traffic, TunnelStatus, timestamp},
};
use adit_ike::{ChildSa, DownReason, Nat, Path, Phase, TrafficSelector, TunnelConfig, TunnelId};
use adit_maps::sa::DropCause;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::Display,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

/// A configured tunnel.
pub struct Tunnel {
    id: TunnelId,
    config: config::Tunnel,
    machine: Machine,
    since: SystemTime,
    log: Log,
    ike: Option<Ike>,
    children: BTreeMap<u32, ChildStatus>,
    remote: Option<IpAddr>,
    last_error: Option<Failure>,
    /// Packets opened at the last look, to see whether the peer is alive.
    opened: u64,
}

struct Ike {
    suite: String,
    handshake: Duration,
    nat: Nat,
}

impl Tunnel {
    /// A tunnel that does nothing yet. `id` is also its slot of OUTBOUND.
    pub fn new(id: TunnelId, config: config::Tunnel) -> Self {
        Tunnel {
            id,
            machine: Machine::new(config.enabled, config.start, config.dpd_action),
            config,
            since: SystemTime::now(),
            log: Log::default(),
            ike: None,
            children: BTreeMap::new(),
            remote: None,
            last_error: None,
            opened: 0,
        }
    }

    /// Takes another configuration; to be followed by [`Tunnel::reset`].
    pub fn reconfigure(&mut self, config: config::Tunnel) {
        self.config = config;
    }

    /// Takes the peer's name of another configuration that is the same in all else.
    pub fn rename_peer(&mut self, config: &config::Tunnel) {
        self.config.peer_name.clone_from(&config.peer_name);
    }

    /// Goes back to where a tunnel starts; the log stays. The caller has closed what was up.
    pub fn reset(&mut self, why: &str) {
        let config = &self.config;
        self.machine = Machine::new(config.enabled, config.start, config.dpd_action);
        self.since = SystemTime::now();
        (self.ike, self.remote, self.last_error) = (None, None, None);
        self.children.clear();
        self.note(why);
    }

    /// Its number.
    pub fn id(&self) -> TunnelId {
        self.id
    }

    /// Its configuration.
    pub fn config(&self) -> &config::Tunnel {
        &self.config
    }

    /// The connection status.
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// When [`Tunnel::handle_timeout`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.machine.due()
    }

    /// Whether an IKE SA is established.
    pub fn has_ike(&self) -> bool {
        self.ike.is_some()
    }

    /// The connection log, oldest first.
    pub fn log(&self) -> Vec<LogEntry> {
        self.log.entries()
    }

    /// What the IKE endpoint is told.
    pub fn ike_config(&self) -> TunnelConfig {
        let c = &self.config;
        let selectors = |subnets: &[config::Subnet]| subnets.iter().map(config::Subnet::selector).collect();
        TunnelConfig {
            id: self.id,
            name: c.name.clone(),
            local: c.local,
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
        }
    }

    /// From now on the tunnel is to be up, as its configuration says.
    pub fn begin(&mut self, now: Instant) {
        self.machine.begin(now);
        match (self.state(), self.config.start) {
            (State::Disabled, _) => self.note("disabled"),
            (State::Idle, config::Start::OnDemand) => self.note("waits for traffic"),
            (State::Idle, _) => self.note("waits for the peer"),
            _ => {}
        }
    }

    /// Whether it is time to negotiate.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.machine.handle_timeout(now)
    }

    /// A negotiation begins with the peer at this address.
    pub fn connecting_to(&mut self, peer: IpAddr) {
        self.remote = Some(peer);
        self.note(format!("negotiates with {peer}"));
    }

    /// Traffic found no SA.
    pub fn acquire(&mut self, now: Instant) {
        let before = self.state();
        self.step(|m| m.acquire(now));
        if self.state() != before {
            self.note("traffic wants the tunnel");
        }
    }

    /// An IKE SA is established.
    pub fn ike_up(&mut self, path: Path, suite: String, handshake: Duration, nat: Nat, initiator: bool) {
        self.remote = Some(path.remote.ip());
        let who = if initiator { "us" } else { "the peer" };
        let behind = nat_words(nat).map_or(String::new(), |side| format!(", NAT: {side}"));
        let ms = handshake.as_secs_f64() * 1e3;
        self.note(format!("IKE SA up: {path}, {suite}, begun by {who}, {ms:.1} ms{behind}"));
        self.ike = Some(Ike { suite, handshake, nat });
    }

    /// A Child SA is installed.
    pub fn child_up(&mut self, child: &ChildSa) {
        let names = [child.encryption.map(|e| e.to_string()), child.integrity.map(|i| i.to_string())];
        let suite = names.into_iter().flatten().collect::<Vec<_>>().join("-");
        let (inbound, outbound) = (spi(child.inbound.spi), spi(child.outbound.spi));
        let (local, remote) = (list(&child.local_ts), list(&child.remote_ts));
        self.note(format!("Child SA up: {suite}, SPI in {inbound} out {outbound}, {local} to {remote}"));
        let status = ChildStatus {
            inbound_spi: inbound,
            outbound_spi: outbound,
            suite,
            encapsulated: child.encapsulation.is_some(),
            expires_at: timestamp(SystemTime::now() + child.lifetime),
        };
        self.children.insert(child.inbound.spi, status);
        self.last_error = None;
        self.step(|m| m.child_up(child.inbound.spi));
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
        if reason != DownReason::Replaced {
            self.ike = None;
            self.children.clear();
        }
        if matches!(reason, DownReason::PeerDead | DownReason::Broken) {
            self.last_error = Some(failure(None, None, reason));
        }
        self.step(|m| m.ike_down(now, reason));
    }

    /// A negotiation failed.
    pub fn failed(&mut self, now: Instant, phase: Phase, exchange: Option<String>, cause: &dyn Display) {
        let number = match phase {
            Phase::One => 1,
            Phase::Two => 2,
        };
        let place = exchange.as_deref().map_or(String::new(), |e| format!(" in {e}"));
        self.note(format!("phase {number} failed{place}: {cause}"));
        if self.children.is_empty() {
            self.last_error = Some(failure(Some(number), exchange, cause));
        }
        self.step(|m| m.failed(now, phase));
    }

    /// What was negotiated cannot be installed.
    pub fn not_installed(&mut self, now: Instant, cause: &dyn Display) {
        self.note(format!("Child SA not installed: {cause}"));
        self.last_error = Some(failure(Some(2), None, cause));
        self.step(|m| m.not_installed(now));
    }

    /// Whether packets were opened since the last call.
    pub fn heard(&mut self, totals: &Totals) -> bool {
        let before = std::mem::replace(&mut self.opened, totals.inbound.packets);
        totals.inbound.packets > before
    }

    /// What people see of it.
    pub fn status(&self, totals: Totals) -> TunnelStatus {
        let c = &self.config;
        let mut drops = totals.inbound;
        drops += totals.outbound;
        let traffic = |c: crate::maps::Counters| Traffic { packets: c.packets, bytes: c.bytes };
        TunnelStatus {
            name: c.name.clone(),
            state: self.state(),
            since: timestamp(self.since),
            peer: c.peer_name.clone(),
            peer_address: c.peer.to_string(),
            remote: self.remote,
            local: c.local,
            local_subnets: c.local_subnets.iter().map(ToString::to_string).collect(),
            remote_subnets: c.remote_subnets.iter().map(ToString::to_string).collect(),
            ike_suite: self.ike.as_ref().map(|i| i.suite.clone()),
            handshake_ms: self.ike.as_ref().map(|i| i.handshake.as_secs_f64() * 1e3),
            nat: self.ike.as_ref().and_then(|i| nat_words(i.nat)).map(str::to_owned),
            children: self.children.values().cloned().collect(),
            inbound: traffic(totals.inbound),
            outbound: traffic(totals.outbound),
            drops: DropCause::ALL.iter().map(|c| (c.label().to_owned(), drops.drops[*c as usize])).collect(),
            last_error: self.last_error.clone(),
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
        if self.state() != before {
            self.since = SystemTime::now();
            self.note(format!("{before} → {}", self.state()));
        }
    }
}

/// The SPD of some tunnels: between two pairs of prefixes that overlap the more specific one decides, first by the
/// remote prefix, then by the local one; the order of the configuration decides the rest. A disabled tunnel protects
/// all the same: what it covers must not leave in clear.
pub fn policies<'a>(tunnels: impl Iterator<Item = &'a Tunnel>) -> Vec<Policy> {
    let mut policies: Vec<Policy> = tunnels
        .flat_map(|t| {
            let remotes = &t.config.remote_subnets;
            let pairs = t.config.local_subnets.iter().flat_map(move |l| remotes.iter().map(move |r| (l, r)));
            pairs.map(|(l, r)| Policy::protect(l.prefix(), r.prefix(), t.id.0))
        })
        .collect();
    policies.sort_by_key(|p| (Reverse(p.remote.len), Reverse(p.local.len)));
    policies
}

fn failure(phase: Option<u8>, exchange: Option<String>, cause: impl Display) -> Failure {
    Failure { at: timestamp(SystemTime::now()), phase, exchange, cause: log::line(&cause.to_string()) }
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
