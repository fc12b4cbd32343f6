//! The task's state and its loop.

use super::{
    Command, Configured, ControlError, Options,
    data_plane::DataPlane,
    negotiate::Done,
    pool::Pool,
    probes::Probes,
    resume::{self, Legacy},
    sockets::Sockets,
    tunnels::Tunnels,
};
use crate::{
    config::Gateway,
    echo::Echo,
    kept::Keeper,
    memory,
    routes::{self, Interfaces, Wanted},
    sadb::Totals,
    spd::{self, Policy, Tables},
    status::{ExchangeCount, GatewayStatus, IkeStatus, PortStatus, Status, timestamp},
    tunnel::{ConnectionGroups, Slots, Tunnel, policies},
};
use adit_ike::{Endpoint, ExchangeResult, ExchangeType, Path, TunnelId};
use adit_maps::event::Event;
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};

/// How often the maps are looked for until they are there.
const LOOK: Duration = Duration::from_millis(200);
/// How often counters are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often they are where a Child SA ends after some bytes or packets.
const POLL_LIMITS: Duration = Duration::from_millis(100);
/// How long policies that are to change are collected.
const COLLECT: Duration = Duration::from_millis(5);
/// How long until the next try after a map has refused them.
const AGAIN: Duration = Duration::from_secs(5);
/// How many datagrams and results are taken in before what follows from them is brought out.
const BATCH: usize = 64;
/// How long peers have to answer our good-bye.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// Everything that the task owns.
pub(super) struct Daemon {
    pub(super) options: Options,
    pub(super) endpoint: Endpoint,
    /// What the gateway is, for whoever runs its data plane.
    pub(super) gateway: watch::Sender<Gateway>,
    pub(super) sockets: Sockets,
    pub(super) tunnels: Tunnels,
    pub(super) pool: Pool,
    pub(super) slots: Slots,
    /// The tunnels in the order of the configuration.
    pub(super) order: Vec<TunnelId>,
    pub(super) groups: ConnectionGroups,
    pub(super) data_plane: Option<DataPlane>,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) probes: Probes,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) refused_reload: Option<String>,
    /// Removed tunnels whose policies may still be in the maps.
    pub(super) gone: Vec<TunnelId>,
    /// Slots that no tunnel has any more, and that policies in the maps may still name.
    pub(super) stale: Vec<u32>,
    /// When policies in the maps are to follow what peers have narrowed Child SAs to.
    policies_due: Option<Instant>,
    /// What the tunnels had done in all when there last was a data plane.
    pub(super) totals: HashMap<TunnelId, Totals>,
    /// Where what a later process needs is kept.
    pub(super) keeper: Option<Keeper>,
    /// What an earlier one has left.
    pub(super) legacy: Legacy,
    /// Inbound SPIs of SAs that an earlier process installed and did not live to keep: another SA with their keys would
    /// use sequence numbers twice.
    pub(super) spent_spis: HashSet<u32>,
    next_id: u32,
    interfaces: Interfaces,
    routes: JoinHandle<std::io::Result<()>>,
    started: SystemTime,
    datagrams: mpsc::Receiver<(Path, Vec<u8>)>,
    echoes: mpsc::Receiver<Echo>,
    finished: mpsc::UnboundedReceiver<Done>,
}

impl Daemon {
    pub(super) async fn new(options: Options) -> Result<Self, ControlError> {
        let ike = options.config.gateway.ike.clone();
        // A full channel leaves datagrams in the sockets' own buffers, where the kernel drops what is too much.
        let (received, datagrams) = mpsc::channel(1024);
        let mut sockets = Sockets::new(received);
        sockets.change(&options.config.gateway.addresses, &ike).await?;
        let (done, finished) = mpsc::unbounded_channel();
        let results = done.clone();
        let pool = Pool::start(move |result| results.send(Done::Job(result)).is_ok());
        let pool = pool.map_err(ControlError::Threads)?;
        let configured = options.config.tunnels.iter().map(|tunnel| (tunnel, false));
        let gateway = watch::Sender::new(options.config.gateway.clone());
        let (wanted, wanted_receiver) = watch::channel(Wanted::of(&options.config.gateway, configured));
        let (heard, echoes) = mpsc::channel(1024);
        let interfaces = Interfaces::default();
        let routes = tokio::spawn(routes::keep(wanted_receiver, interfaces.clone()));
        let mut daemon = Daemon {
            // Without randomness no key may be made: SysRng fails only where the kernel has no getrandom(2).
            endpoint: Endpoint::new(ike, Box::new(UnwrapErr(SysRng))),
            gateway,
            sockets,
            tunnels: Tunnels::default(),
            pool,
            slots: Slots::default(),
            order: Vec::new(),
            groups: ConnectionGroups::default(),
            data_plane: None,
            wanted,
            probes: Probes::new(heard),
            done,
            refused_reload: None,
            gone: Vec::new(),
            stale: Vec::new(),
            policies_due: None,
            totals: HashMap::new(),
            keeper: None,
            legacy: Legacy::default(),
            spent_spis: HashSet::new(),
            next_id: 0,
            interfaces,
            routes,
            started: SystemTime::now(),
            datagrams,
            echoes,
            finished,
            options,
        };
        let (keeper, found) = resume::open(&daemon.options.state_dir);
        daemon.keeper = keeper;
        // Each tunnel has its own from here on.
        let configured = std::mem::take(&mut daemon.options.config.tunnels);
        let (legacy, tunnels) = Legacy::tunnels(found, configured, &mut daemon.slots, &mut daemon.next_id)?;
        daemon.legacy = legacy;
        daemon.totals = std::mem::take(&mut daemon.legacy.totals);
        daemon.order = tunnels.iter().map(Tunnel::id).collect();
        tunnels.into_iter().for_each(|tunnel| daemon.tunnels.insert(tunnel));
        daemon.groups = daemon.next_groups(&daemon.options.config.groups)?;
        spd::plan(&daemon.policies(), &Tables::default())?;
        memory::give_back();
        Ok(daemon)
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), ControlError> {
        let mut look = interval(LOOK);
        let mut poll = interval(POLL);
        let mut limits = interval(POLL_LIMITS);
        limits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = false;
        loop {
            let wake_at = self.next_wake();
            let wake = wake_at.unwrap_or_else(Instant::now);
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Shutdown(closes, answer)) => {
                        if closes {
                            self.good_bye().await;
                        } else {
                            tracing::info!("stops; every SA is left to the next control");
                        }
                        // Who asked need not wait for the answer.
                        let _ = answer.send(());
                        return Ok(());
                    }
                    Some(command) => self.handle_command(command).await,
                    None => {
                        self.good_bye().await;
                        return Ok(());
                    }
                },
                _ = look.tick(), if self.data_plane.is_none() => {
                    self.meet_data_plane().await?;
                    if self.data_plane.is_none() && !said {
                        said = true;
                        tracing::info!("{}", self.waiting_for());
                    }
                }
                Some((path, datagram)) = self.datagrams.recv(), if self.data_plane.is_some() => {
                    let now = Instant::now();
                    self.endpoint.handle_datagram(now, path, &datagram);
                    for _ in 1..BATCH {
                        let Ok((path, datagram)) = self.datagrams.try_recv() else { break };
                        self.endpoint.handle_datagram(now, path, &datagram);
                    }
                }
                Some(done) = self.finished.recv() => {
                    let now = Instant::now();
                    self.handle_done(now, done);
                    for _ in 1..BATCH {
                        let Ok(done) = self.finished.try_recv() else { break };
                        self.handle_done(now, done);
                    }
                }
                Some(echo) = self.echoes.recv() => {
                    let now = Instant::now();
                    self.handle_echo(now, &echo);
                    for _ in 1..BATCH {
                        let Ok(echo) = self.echoes.try_recv() else { break };
                        self.handle_echo(now, &echo);
                    }
                }
                events = next_events(&mut self.data_plane) => {
                    let now = Instant::now();
                    events.iter().for_each(|event| self.handle_map_event(now, event));
                }
                _ = poll.tick() => {
                    let now = Instant::now();
                    self.leave_data_plane(now);
                    self.look_at_traffic(now);
                }
                _ = limits.tick(), if self.has_limits() => self.look_at_traffic(Instant::now()),
                ended = &mut self.routes => {
                    let why = ended.map_err(std::io::Error::other).and_then(|result| result).err();
                    return Err(ControlError::Routes(why.unwrap_or_else(|| std::io::Error::other("it ended"))));
                }
                () = sleep_until(wake.into()), if wake_at.is_some() => {}
            }
            self.step(Instant::now());
            if self.policies_due.is_some_and(|at| at <= Instant::now()) {
                self.follow_narrowing().await;
            }
        }
    }

    /// A tunnel's number that no other had.
    pub(super) fn new_id(&mut self) -> TunnelId {
        self.next_id += 1;
        TunnelId(self.next_id)
    }

    /// What the tunnels want the SPD to say.
    pub(super) fn policies(&self) -> Vec<Policy> {
        let tunnels = self.order.iter().filter_map(|id| self.tunnels.get(*id));
        policies(tunnels.map(|tunnel| (tunnel.id(), tunnel.groups())), &self.groups)
    }

    /// The policies in the maps are to follow soon.
    pub(super) fn policies_changed(&mut self, now: Instant) {
        self.policies_due = self.policies_due.or(Some(now + COLLECT));
    }

    /// Makes the policies in the maps what peers have narrowed Child SAs to. Until then, and where that fails, what is not
    /// covered by a whole slot's SA is dropped.
    async fn follow_narrowing(&mut self) {
        self.policies_due = None;
        if let Err(e) = self.protect().await {
            tracing::error!("what peers narrowed their Child SAs to is not sent: {e}");
            self.policies_due = Some(Instant::now() + AGAIN);
        }
    }

    fn handle_done(&mut self, now: Instant, done: Done) {
        match done {
            Done::Job(result) => self.endpoint.handle_job(now, result),
            Done::Resolved(id, name, found) => self.resolved(now, id, name, found),
        }
    }

    /// Whether a Child SA may end after some bytes or packets.
    fn has_limits(&self) -> bool {
        self.data_plane.as_ref().is_some_and(|d| d.sadb.has_limits())
    }

    /// Tells the endpoint of a tunnel and lets it begin, once its SAs have somewhere to go.
    pub(super) fn begin(&mut self, now: Instant, id: TunnelId) {
        let Some(data_plane) = &mut self.data_plane else { return };
        data_plane.sadb.begin(id);
        let endpoint = &mut self.endpoint;
        self.tunnels.with(id, |tunnel| {
            if tunnel.is_enabled() {
                endpoint.set_tunnel(now, tunnel.ike_config());
            }
            tunnel.begin(now);
        });
    }

    /// Makes the SPD say what the tunnels say.
    pub(super) async fn protect(&mut self) -> Result<(), ControlError> {
        let policies = self.policies();
        if let Some(data_plane) = &mut self.data_plane {
            data_plane.protect(&policies).await?;
        }
        std::mem::take(&mut self.stale).into_iter().for_each(|slot| self.slots.give_back(slot));
        Ok(())
    }

    /// Lets everything whose time has come happen, and brings out what follows.
    fn step(&mut self, now: Instant) {
        if self.endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        self.negotiate(now);
        self.check(now);
        self.drain(now);
        self.follow_members();
        if self.tunnels.take_rerouted() {
            self.route();
        }
    }

    /// Lets the health checks go on whose time has come.
    fn check(&mut self, now: Instant) {
        while let Some(id) = self.tunnels.due_check(now) {
            let nonce = UnwrapErr(SysRng).next_u64();
            let Some((silent, asked)) = self.tunnels.with(id, |tunnel| {
                let silent = tunnel.is_silent();
                let echo = tunnel.check(now, nonce);
                let ends = tunnel.config().health_check.map(|check| (check.source, check.destination));
                (silent != tunnel.is_silent(), echo.zip(ends))
            }) else {
                return;
            };
            if let Some((echo, (source, destination))) = asked
                && let Err(e) = self.probes.ask(&echo, source, destination)
            {
                self.tunnels.with(id, |tunnel| tunnel.not_asked(&e));
            }
            if silent {
                self.keep(id);
            }
        }
    }

    fn handle_echo(&mut self, now: Instant, echo: &Echo) {
        let id = TunnelId(echo.tunnel);
        let turned = self.tunnels.with(id, |tunnel| {
            let silent = tunnel.is_silent();
            tunnel.check_answered(now, echo.nonce);
            silent != tunnel.is_silent()
        });
        if turned == Some(true) {
            self.keep(id);
        }
    }

    /// Has the routes follow the tunnels.
    pub(super) fn route(&mut self) {
        let tunnels = self.order.iter().filter_map(|id| self.tunnels.get(*id));
        let tunnels = tunnels.map(|tunnel| (tunnel.config(), tunnel.is_withdrawn()));
        let routed = Wanted::of(&self.options.config.gateway, tunnels);
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != routed;
            *wanted = routed;
            differs
        });
    }

    fn next_wake(&self) -> Option<Instant> {
        let endpoint = self.endpoint.poll_timeout().map(|(at, _)| at);
        // A pool that is busy wakes the task by what it has done.
        let begin = self.tunnels.next_due().filter(|_| !self.pool.is_busy());
        [endpoint, begin, self.tunnels.next_check(), self.policies_due].into_iter().flatten().min()
    }

    async fn meet_data_plane(&mut self) -> Result<(), ControlError> {
        match DataPlane::open(&self.options.bpf_dir, self.totals.clone())? {
            Some(data_plane) => self.take_over(data_plane).await,
            None => Ok(()),
        }
    }

    /// Lets go of maps that no data plane works with any more, as after `adit unload`; the next ones are met as the first
    /// ones were.
    fn leave_data_plane(&mut self, now: Instant) {
        let Some(data_plane) = self.data_plane.as_ref().filter(|d| !d.is_current()) else { return };
        self.totals = data_plane.sadb.totals(&data_plane.maps);
        tracing::warn!("the maps of the data plane are gone: every tunnel begins anew when there are others");
        for id in self.order.clone() {
            self.endpoint.remove_tunnel(now, id);
            self.tunnels.with(id, |tunnel| tunnel.reset("the data plane is gone"));
            self.discard_events(id);
        }
        self.data_plane = None;
        self.probes.close();
        for id in self.order.clone() {
            let unserved = self.tunnels.with(id, |tunnel| tunnel.forget_slots(|_| false));
            self.stale.extend(unserved.into_iter().flatten());
        }
        std::mem::take(&mut self.stale).into_iter().for_each(|slot| self.slots.give_back(slot));
    }

    async fn handle_command(&mut self, command: Command) {
        // Who asked may have gone away: then nobody needs the answer.
        match command {
            Command::Status(answer) => drop(answer.send(self.status())),
            Command::Log(name, answer) => {
                let tunnel = self.tunnels.named(&name).and_then(|id| self.tunnels.get(id));
                drop(answer.send(tunnel.map(|t| t.log().since(0))));
            }
            Command::Configured(name, answer) => {
                let tunnel = self.tunnels.named(&name).and_then(|id| self.tunnels.get(id));
                let config = &self.options.config;
                drop(answer.send(tunnel.map(|tunnel| Configured {
                    gateway: config.gateway.name.clone(),
                    tunnel: tunnel.config().clone(),
                    reveals_secrets: config.api.reveal_secrets,
                })));
            }
            Command::Inspect(name, answer) => drop(answer.send(self.inspect(&name).map(Box::new))),
            Command::Act(name, action, answer) => {
                let result = self.act(Instant::now(), &name, action);
                drop(answer.send(result));
            }
            Command::RevealsSecrets(answer) => drop(answer.send(self.options.config.api.reveal_secrets)),
            Command::Plan(change, answer) => drop(answer.send(self.plan(&change))),
            Command::Follow(change, answer) => drop(answer.send(self.follow(&change).await)),
            Command::Refused(why) => self.refused_reload = why,
            Command::Shutdown(_, answer) => drop::<oneshot::Sender<()>>(answer),
        }
    }

    /// Closes every tunnel and takes its SAs out of the maps, giving the peers a moment to answer.
    async fn good_bye(&mut self) {
        let answered =
            |e: &Endpoint| e.counters().exchanges(ExchangeType::Informational, ExchangeResult::Done);
        let now = Instant::now();
        let up = self.tunnels.values().filter(|t| t.has_ike()).count() as u64;
        let goal = answered(&self.endpoint) + up;
        for id in self.order.clone() {
            self.endpoint.close(now, id);
        }
        self.drain(now);
        let answers = async {
            while answered(&self.endpoint) < goal {
                let Some((path, datagram)) = self.datagrams.recv().await else { return };
                let now = Instant::now();
                self.endpoint.handle_datagram(now, path, &datagram);
                self.drain(now);
            }
        };
        // A peer that does not answer finds out by itself.
        let _ = timeout(GOOD_BYE, answers).await;
    }

    fn waiting_for(&self) -> String {
        if !self.options.config.gateway.is_there() {
            return "waits for a gateway to be created: `adit gateway create NAME address=IP wan=INTERFACE \
                    lan=INTERFACE`, or a whole configuration with `adit apply -f FILE`"
                .into();
        }
        format!("waits for the data plane: no maps are pinned in {}", self.options.bpf_dir.display())
    }

    fn status(&self) -> Status {
        let gateway = &self.options.config.gateway;
        let data_plane = self.data_plane.as_ref();
        let known = data_plane.map(|d| d.sadb.totals_of(&d.maps));
        let totals = |id| match &known {
            Some(totals_of) => totals_of(id),
            None => self.totals.get(&id).copied().unwrap_or_default(),
        };
        let mut tunnels = Vec::with_capacity(self.order.len());
        tunnels.extend(self.order.iter().filter_map(|id| self.tunnels.get(*id)).map(|t| {
            let children = data_plane.map(|d| d.sadb.counters(&d.maps, t.id())).unwrap_or_default();
            t.status(totals(t.id()), &children)
        }));
        let groups = self.group_status();
        let ports = data_plane.and_then(|d| d.maps.verdicts().ok()).unwrap_or_default();
        Status {
            gateway: GatewayStatus {
                name: gateway.name.clone(),
                addresses: gateway.addresses.clone(),
                version: env!("CARGO_PKG_VERSION").into(),
                started_at: timestamp(self.started),
                waiting_for: (self.data_plane.is_none() || !gateway.is_there()).then(|| self.waiting_for()),
                refused_reload: self.refused_reload.clone(),
            },
            tunnels,
            groups,
            ike: ike_status(&self.endpoint),
            ports: ports
                .into_iter()
                .map(|(ifindex, verdicts)| PortStatus {
                    interface: self.interfaces.name(ifindex),
                    mode: None,
                    reason: None,
                    nic: None,
                    verdicts: verdicts.into_iter().map(|(v, n)| (v.label().to_owned(), n)).collect(),
                })
                .collect(),
            // It is asked by whoever shows this.
            data_plane: None,
            api: None,
        }
    }
}

async fn next_events(data_plane: &mut Option<DataPlane>) -> Vec<Event> {
    match data_plane {
        Some(data_plane) => data_plane.next_events().await,
        None => std::future::pending().await,
    }
}

fn ike_status(endpoint: &Endpoint) -> IkeStatus {
    let counters = endpoint.counters();
    let result = |r| match r {
        ExchangeResult::Done => "done",
        ExchangeResult::Refused => "refused",
        ExchangeResult::TimedOut => "timed_out",
    };
    let exchanges =
        ExchangeType::ALL.into_iter().flat_map(|e| ExchangeResult::ALL.into_iter().map(move |r| (e, r)));
    IkeStatus {
        received: counters.received,
        sent: counters.sent,
        retransmissions: counters.retransmissions,
        dropped: counters.drops().into_iter().map(|(cause, n)| (cause.to_owned(), n)).collect(),
        exchanges: exchanges
            .map(|(e, r)| ExchangeCount {
                exchange: e.to_string().to_lowercase(),
                result: result(r).into(),
                count: counters.exchanges(e, r),
            })
            .collect(),
    }
}
