//! The task's state and its loop.

use super::{
    Command, Configured, ControlError, Options,
    data_plane::{DataPlane, Policies},
    follow::Underway,
    negotiate::Done,
    pace::Pace,
    policies::{Following, Writing, next_written},
    pool::Pool,
    probes::Probes,
    resume::{self, Legacy},
    sockets::Sockets,
    tunnels::Tunnels,
};
use crate::{
    bird::{self, Goal, Learned, Report, Sessions},
    config::Gateway,
    echo::Echo,
    kept::Keeper,
    links,
    log::GatewayLog,
    memory,
    routes::{self, Interfaces, Wanted},
    sadb::Totals,
    spd::{self, Policy, Tables},
    tunnel::{ConnectionGroups, Slots, Tunnel, policies},
};
use adit_ike::{Endpoint, ExchangeResult, ExchangeType, Path, TunnelId};
use adit_maps::event::Event;
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, yield_now},
    time::{MissedTickBehavior, interval, interval_at, sleep_until, timeout},
};

/// How often the maps are looked for until they are there: at first, and when they have not come for a while.
const LOOK: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// How often they are looked for at first.
const LOOKS: u32 = 150;
/// How often counters are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often they are where a Child SA ends after some bytes or packets.
const POLL_LIMITS: Duration = Duration::from_millis(100);
/// How long policies that are to change are collected.
const COLLECT: Duration = Duration::from_millis(5);
/// How long until the next try after a map has refused them.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
/// How many datagrams and results are taken in before what follows from them is brought out.
const BATCH: usize = 64;
/// How long peers have to answer our good-bye.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// Everything that the task owns.
pub(super) struct Daemon {
    pub(super) options: Options,
    pub(super) endpoint: Endpoint,
    /// What happens to the gateway itself.
    pub(super) log: GatewayLog,
    /// What the gateway is, for whoever runs its data plane.
    pub(super) gateway: watch::Sender<Gateway>,
    pub(super) sockets: Sockets,
    pub(super) tunnels: Tunnels,
    pub(super) pool: Pool,
    pub(super) slots: Slots,
    /// The tunnels in the order of the configuration.
    pub(super) order: Vec<TunnelId>,
    pub(super) groups: ConnectionGroups,
    /// What each member of a group last carried of it, in percent.
    pub(super) carried: HashMap<TunnelId, usize>,
    pub(super) data_plane: Option<DataPlane>,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) probes: Probes,
    /// What BIRD is to do.
    pub(super) bird: watch::Sender<Goal>,
    /// What it has learned.
    pub(super) learned: Learned,
    /// How its sessions are, as it last said.
    pub(super) sessions: Option<Sessions>,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) refused_reload: Option<String>,
    /// Removed tunnels whose policies may still be in the maps.
    pub(super) gone: Vec<TunnelId>,
    /// Slots that no tunnel has any more, and that policies in the maps may still name.
    pub(super) stale: Vec<u32>,
    /// When policies in the maps are to follow what peers have narrowed Child SAs to.
    pub(super) policies_due: Option<Instant>,
    /// Policies that are being written.
    pub(super) writing: Option<Writing>,
    /// Whether others are to be written after that.
    pub(super) unwritten: bool,
    /// Changes that those are of.
    pub(super) waiting: Vec<Following>,
    /// A change that is being followed.
    pub(super) underway: Option<Underway>,
    /// Tunnels that it has changed so far, and that begin when it is through.
    pub(super) changed: Vec<TunnelId>,
    /// Tunnels that are to begin.
    pub(super) beginning: BTreeSet<TunnelId>,
    /// New tunnels whose policies are not in the maps yet.
    pub(super) creating: HashSet<TunnelId>,
    pub(super) pace: Pace,
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
    pub(super) interfaces: Interfaces,
    routes: JoinHandle<std::io::Result<()>>,
    pub(super) started: SystemTime,
    datagrams: mpsc::Receiver<(Path, Vec<u8>)>,
    echoes: mpsc::Receiver<Echo>,
    reports: mpsc::Receiver<Report>,
    finished: mpsc::UnboundedReceiver<Done>,
}

impl Daemon {
    /// What there is before there is a data plane. What takes long and is not IKE's is done by `others`.
    ///
    /// # Errors
    /// As [`super::Control::start`].
    pub(super) async fn new(mut options: Options, others: &Handle) -> Result<Self, ControlError> {
        let ike = options.config.gateway.ike.clone();
        // A full channel leaves datagrams in the sockets' own buffers, where the kernel drops what is too much.
        let (received, datagrams) = mpsc::channel(1024);
        let mut sockets = Sockets::new(received);
        sockets.change(&options.config.gateway.addresses, &ike).await?;
        let (done, finished) = mpsc::unbounded_channel();
        let results = done.clone();
        let pool = Pool::start(move |result| results.send(Done::Job(result)).is_ok());
        let pool = pool.map_err(ControlError::Threads)?;
        let gateway = watch::Sender::new(options.config.gateway.clone());
        let (keeper, found) = resume::open(&options.state_dir);
        // Each tunnel has its own from here on.
        let configured = std::mem::take(&mut options.config.tunnels);
        let (mut slots, mut next_id) = (Slots::default(), 0);
        let (mut legacy, configured) = Legacy::tunnels(found, configured, &mut slots, &mut next_id)?;
        let totals = std::mem::take(&mut legacy.totals);
        let order = configured.iter().map(Tunnel::id).collect();
        let (wanted, wanted_receiver) =
            watch::channel(legacy.wanted(&options.config.gateway, configured.iter()));
        let (heard, echoes) = mpsc::channel(1024);
        let (bird, bird_goal) = watch::channel(Goal::default());
        let (tells, reports) = mpsc::channel(16);
        others.spawn(bird::keep(bird_goal, tells));
        let interfaces = Interfaces::default();
        let routes = others.spawn(routes::keep(wanted_receiver, interfaces.clone()));
        let mut tunnels = Tunnels::default();
        configured.into_iter().for_each(|tunnel| tunnels.insert(tunnel));
        let log = GatewayLog::new(tunnels.events());
        let mut daemon = Daemon {
            // Without randomness no key may be made: SysRng fails only where the kernel has no getrandom(2).
            endpoint: Endpoint::new(ike, Box::new(UnwrapErr(SysRng))),
            log,
            gateway,
            sockets,
            tunnels,
            pool,
            slots,
            order,
            groups: ConnectionGroups::default(),
            carried: HashMap::new(),
            data_plane: None,
            wanted,
            probes: Probes::new(heard),
            bird,
            learned: Learned::new(),
            sessions: None,
            done,
            refused_reload: None,
            gone: Vec::new(),
            stale: Vec::new(),
            policies_due: None,
            writing: None,
            unwritten: false,
            waiting: Vec::new(),
            underway: None,
            changed: Vec::new(),
            beginning: BTreeSet::new(),
            creating: HashSet::new(),
            pace: Pace::default(),
            totals,
            keeper,
            legacy,
            spent_spis: HashSet::new(),
            next_id,
            interfaces,
            routes,
            started: SystemTime::now(),
            datagrams,
            echoes,
            reports,
            finished,
            options,
        };
        daemon.groups = daemon.next_groups(&daemon.options.config.groups)?;
        // Whatever an earlier process left BIRD with: what is learned and does not fit is left out.
        spd::plan(&daemon.configured_policies(), &Tables::default())?;
        if daemon.tunnels.values().any(|tunnel| tunnel.config().bgp.is_some()) {
            match bird::learned_now().await {
                Ok(learned) => daemon.resume_learned(learned),
                Err(e) => tracing::warn!("what BGP has learned is not known: {e}"),
            }
        }
        daemon.follow_bgp();
        memory::give_back();
        let name = match &daemon.options.config.gateway {
            gateway if gateway.is_there() => format!("gateway {:?}", gateway.name),
            _ => "no gateway yet".into(),
        };
        let version = env!("CARGO_PKG_VERSION");
        let tunnels = match daemon.tunnels.len() {
            1 => "1 tunnel".into(),
            count => format!("{count} tunnels"),
        };
        daemon.log.info(format!("control {version} starts: {name}, {tunnels}"));
        if let Some(adopted) = daemon.options.adopted.take() {
            daemon.log.info(adopted.words(None));
        }
        others.spawn(links::watch(daemon.gateway.subscribe(), daemon.log.clone()));
        Ok(daemon)
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), ControlError> {
        let mut look = interval(LOOK[0]);
        let mut looks = 0;
        let mut poll = interval(POLL);
        let mut limits = interval(POLL_LIMITS);
        limits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = false;
        loop {
            let wake_at = self.next_wake();
            let wake = wake_at.unwrap_or_else(Instant::now);
            let woken = tokio::select! {
                command = commands.recv() => Woken::Command(command),
                _ = look.tick(), if self.data_plane.is_none() && self.underway.is_none() => Woken::Look,
                Some(first) = self.datagrams.recv(), if self.data_plane.is_some() => Woken::Datagram(first),
                Some(done) = self.finished.recv() => Woken::Done(done),
                Some(echo) = self.echoes.recv() => Woken::Echo(echo),
                Some(report) = self.reports.recv() => Woken::Report(report),
                events = next_events(&mut self.data_plane) => Woken::Events(events),
                written = next_written(&mut self.writing) => Woken::Written(written),
                _ = poll.tick() => Woken::Poll,
                _ = limits.tick(), if self.has_limits() => Woken::Limits,
                ended = &mut self.routes => {
                    let why = ended.map_err(std::io::Error::other).and_then(|result| result).err();
                    return Err(ControlError::Routes(why.unwrap_or_else(|| std::io::Error::other("it ended"))));
                }
                () = sleep_until(wake.into()), if wake_at.is_some() => Woken::Time,
                // Whatever else is ready comes first.
                () = yield_now(), if self.has_work() => Woken::Time,
            };
            let (now, met) = (Instant::now(), self.data_plane.is_some());
            match woken {
                Woken::Command(Some(Command::Shutdown(closes, answer))) => {
                    if closes {
                        self.log.info("control stops, and closes every tunnel");
                        self.good_bye().await;
                    } else {
                        self.log.info("control stops; every SA is left to the next one");
                    }
                    // Who asked need not wait for the answer.
                    let _ = answer.send(());
                    return Ok(());
                }
                Woken::Command(Some(command)) => self.handle_command(command).await,
                Woken::Command(None) => {
                    self.good_bye().await;
                    return Ok(());
                }
                Woken::Look => {
                    looks += 1;
                    if looks == LOOKS {
                        look = interval_at(tokio::time::Instant::now() + LOOK[1], LOOK[1]);
                        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                    self.meet_data_plane().await?;
                    if self.data_plane.is_none() && !said {
                        said = true;
                        tracing::info!("{}", self.waiting_for());
                    }
                }
                Woken::Datagram((path, datagram)) => {
                    self.endpoint.handle_datagram(now, path, &datagram);
                    for _ in 1..BATCH {
                        let Ok((path, datagram)) = self.datagrams.try_recv() else { break };
                        self.endpoint.handle_datagram(now, path, &datagram);
                    }
                }
                Woken::Done(done) => {
                    self.handle_done(now, done);
                    for _ in 1..BATCH {
                        let Ok(done) = self.finished.try_recv() else { break };
                        self.handle_done(now, done);
                    }
                }
                Woken::Echo(echo) => {
                    self.handle_echo(now, &echo);
                    for _ in 1..BATCH {
                        let Ok(echo) = self.echoes.try_recv() else { break };
                        self.handle_echo(now, &echo);
                    }
                }
                Woken::Report(report) => self.handle_report(now, report),
                Woken::Events(events) => events.iter().for_each(|event| self.handle_map_event(now, event)),
                Woken::Written(result) => self.written(now, result),
                Woken::Poll => {
                    self.leave_data_plane(now);
                    self.look_at_traffic(now);
                    self.log.settle(now);
                }
                Woken::Limits => self.look_at_traffic(now),
                Woken::Time => {}
            }
            self.work(now).await;
            self.step(Instant::now());
            if self.policies_due.is_some_and(|at| at <= Instant::now()) {
                self.policies_due = None;
                self.protect(None);
            }
            // Nobody negotiates before there is a data plane.
            if met {
                self.pace.note(now.elapsed());
            }
        }
    }

    /// A tunnel's number that no other had.
    pub(super) fn new_id(&mut self) -> TunnelId {
        self.next_id += 1;
        TunnelId(self.next_id)
    }

    /// What the tunnels want the SPD to say.
    pub(super) fn policies(&self) -> Policies {
        let tunnels = || self.order.iter().filter_map(|id| self.tunnels.get(*id));
        let learned = tunnels().any(|tunnel| tunnel.groups().learned().next().is_some());
        let all = tunnels().map(|tunnel| (tunnel.id(), tunnel.groups()));
        Policies {
            all: policies(all, &self.groups, true),
            configured: learned.then(|| self.configured_policies()),
        }
    }

    /// The same without what BGP teaches.
    pub(super) fn configured_policies(&self) -> Vec<Policy> {
        let tunnels = self.order.iter().filter_map(|id| self.tunnels.get(*id));
        policies(tunnels.map(|tunnel| (tunnel.id(), tunnel.groups())), &self.groups, false)
    }

    /// The policies in the maps are to follow soon what peers have narrowed Child SAs to. Until then, and where that fails,
    /// what is not covered by a whole slot's SA is dropped.
    pub(super) fn policies_changed(&mut self, now: Instant) {
        self.policies_due = self.policies_due.or(Some(now + COLLECT));
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
        let Some(data_plane) = self.data_plane.as_mut().filter(|_| self.tunnels.get(id).is_some()) else {
            return;
        };
        data_plane.sadb.begin(id);
        let endpoint = &mut self.endpoint;
        self.tunnels.with(id, |tunnel| {
            if tunnel.is_enabled() {
                endpoint.set_tunnel(now, tunnel.ike_config());
            }
            tunnel.begin(now);
        });
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
        // In the middle of a change some prefix may be nobody's: it would lose its routes.
        if self.underway.is_none() && self.tunnels.take_rerouted() {
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
        let routed = self.legacy.wanted(&self.options.config.gateway, tunnels);
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
        self.log.warn("the maps of the data plane are gone: every tunnel begins anew when there are others");
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
        let runs = self.groups.take_resting();
        self.free_runs(runs);
    }

    async fn handle_command(&mut self, command: Command) {
        // Who asked may have gone away: then nobody needs the answer.
        match command {
            Command::Status(answer) => drop(answer.send(self.status())),
            Command::Statuses(some, answer) => drop(answer.send(self.statuses(&some))),
            Command::StatusOf(name, answer) => {
                let some: Vec<TunnelId> = self.tunnels.named(&name).into_iter().collect();
                drop(answer.send(self.statuses(&some).pop()));
            }
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
            Command::Plan(change, answer) => self.plan(&change, answer),
            Command::Follow(change, answer) => self.follow(change, answer),
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
}

/// What the task is woken by.
enum Woken {
    Command(Option<Command>),
    Look,
    Datagram((Path, Vec<u8>)),
    Done(Done),
    Echo(Echo),
    Report(Report),
    Events(Vec<Event>),
    Written(Result<(), ControlError>),
    Poll,
    Limits,
    Time,
}

async fn next_events(data_plane: &mut Option<DataPlane>) -> Vec<Event> {
    match data_plane {
        Some(data_plane) => data_plane.next_events().await,
        None => std::future::pending().await,
    }
}
