//! Moves packets: from the XDP program by AF_XDP to `adit-esp` and out again.
//!
//! [`Dataplane::start`] loads and attaches the XDP program, creates the maps or finds those of the last run, and starts
//! the workers. From then on everything it needs to know comes by the maps (SAs, policies; `control` writes them) and
//! from the kernel (addresses, routes, neighbours). When it stops or dies, the program stays attached and the maps
//! pinned: protected traffic is dropped, never sent in clear, and the next start goes on with every SA.
//!
//! | module | story |
//! |---|---|
//! | `load`, `bpffs` | the XDP program: maps, links, pins |
//! | `port` | the interfaces it is attached to |
//! | `xsk` | AF_XDP: memory, rings, sockets |
//! | `worker` | the way of a packet through a worker |
//! | `packet` | changes to inner packets, ICMP errors |
//! | `nexthop` | routes and neighbours, followed by netlink; what is learned of paths |
//! | `defrag` | ESP and AH that came in fragments, or by no XDP program |
//! | `raw` | raw sockets |
//! | `outlet` | those that packets leave by where there is no AF_XDP |
//! | `tun` | the TUN device for the gateway's own traffic |
//! | `report`, `error` | what the data plane tells of itself, and why it does not start |
//! | `bare` | sockets without a worker, for who measures what a worker adds |
//! | `capture` | copies of packets for whoever watches a tunnel |
//! | `service` | the Unix socket for that, and for reports |
//!
//! `unsafe` is kept to `xsk` (memory shared with the kernel) and to the system calls in `sys`, `tun`, `raw`, `outlet`
//! and `bpffs`.

#[cfg(feature = "bare")]
pub mod bare;
mod bpffs;
mod capture;
mod defrag;
mod error;
mod load;
mod nexthop;
mod outlet;
mod packet;
mod port;
mod raw;
mod report;
mod service;
mod sys;
mod tun;
mod worker;
mod xsk;

pub use adit_esp::Backend;
pub use error::Error;
pub use load::unload;
pub use report::{CounterReport, PortMode, PortReport, Report, WorkerReport};
#[cfg(feature = "in-memory")]
pub use worker::in_memory;

use adit_maps::{
    port::MAX_PORTS,
    user::{self, Directory, Locals, Outbounds, Ports, Sad, Selectors, SpdTables, SpiIndex, Verdicts, Xsks},
    verdict::{Action, Verdict},
};
use defrag::Defrag;
use load::Asker;
use nexthop::{Followed, View};
use outlet::Outlet;
use port::Port;
use report::{Counters, Figures, Reporter};
use service::Service;
use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};
use sys::Waker;
use tun::Tun;
use worker::{Shared, SlowPath, Wire, Worker};
use xsk::{Bind, Copying, Memory, RING, SHORT_PACKET, Umem};

/// Name of the TUN device unless told otherwise.
pub const DEFAULT_TUN: &str = "adit0";

/// Frames of a worker beyond those in its rings: batches under work and packets that wait for a neighbour.
const SPARE_FRAMES: u32 = 2048;

/// Frames of a worker for packets that are longer than a chunk, where an interface takes such; and where none does, for
/// what the kernel has put together.
const LONG_FRAMES: u32 = 2048;
const REASSEMBLED_FRAMES: u32 = 128;

/// How to run a data plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where maps and links are pinned: a directory in a bpffs, or one to mount a bpffs at. Made when absent.
    pub bpf_dir: PathBuf,
    /// The interfaces, at least one.
    pub ports: Vec<PortConfig>,
    /// Name of the TUN device.
    pub tun: String,
    /// Workers at most; by default as many as there are CPUs, and never more than an interface has queues.
    pub workers: Option<usize>,
    /// SAs that the maps hold, when they are created: a tunnel takes two, four during a rekey.
    pub max_sas: u32,
    /// How packets come and go.
    pub mode: XdpMode,
    /// Where the Unix socket is made that tells what the data plane does; nowhere, unless it is said.
    pub socket: Option<PathBuf>,
    /// Whether who may open the socket may have the keys of SAs.
    pub gives_keys: bool,
    /// What the cryptography runs on; by default the fastest that this processor has. One that it does not have leaves
    /// the portable one.
    pub crypto: Option<Backend>,
}

impl Config {
    fn check(&self) -> Result<(), Error> {
        let refused = |why: &str| Err(Error::Config(why.into()));
        if self.max_sas == 0 {
            return refused("max_sas is 0: a tunnel takes two SAs, four during a rekey");
        }
        if self.workers == Some(0) {
            return refused("workers is 0: at least one is needed");
        }
        if self.ports.is_empty() {
            return refused("no interface is given: name at least one WAN interface");
        }
        Ok(())
    }
}

/// One interface.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Its name.
    pub interface: String,
    /// Bits of `adit_maps::port::role`.
    pub roles: u32,
}

/// How packets come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// By XDP, in the driver where it can, else in the kernel's generic path; without copying where every driver can. A
    /// program that is attached already stays where it is: to move it would let packets pass meanwhile.
    #[default]
    Auto,
    /// By XDP in the driver and without copying, or not at all.
    ZeroCopy,
    /// By XDP in the driver with copying, or not at all.
    Driver,
    /// By XDP in the kernel's generic path: slower, for every driver.
    Generic,
    /// By the TUN device and raw sockets, without any XDP. The kernel forwards; what keeps traffic from passing in clear is
    /// its routes and rules.
    None,
}

impl XdpMode {
    fn copying(self) -> Copying {
        match self {
            Self::Auto => Copying::WhereNeeded,
            Self::ZeroCopy => Copying::Never,
            Self::Driver | Self::Generic | Self::None => Copying::Always,
        }
    }
}

/// A running data plane.
pub struct Dataplane {
    reporter: Arc<Reporter>,
    service: Option<Service>,
    threads: Threads,
}

/// The threads that have been started; dropping it ends them.
struct Threads {
    stop: Arc<AtomicBool>,
    followed: Option<Followed>,
    workers: Vec<Running>,
}

struct Running {
    cpu: Option<usize>,
    figures: Arc<Figures>,
    waker: Waker,
    thread: JoinHandle<()>,
}

impl Dataplane {
    /// Loads, attaches, and starts the threads, all in the network namespace of the caller.
    ///
    /// # Errors
    /// [`Error`] says by whom it can be helped. When it fails after the program was attached, the program stays
    /// attached as after [`Dataplane::stop`].
    pub fn start(config: Config) -> Result<Self, Error> {
        load::is_built()?;
        config.check()?;
        let ports = port::find(&config.ports, config.mode)?;
        let tun = Tun::open(&config.tun)?;
        let dir = Directory::new(&config.bpf_dir);
        // Where a program of an earlier run still takes packets to sockets, the workers come first and the program is
        // replaced behind them: nothing passes meanwhile, and what the verifier needs is the most of a restart.
        let stands = load::stands(&dir, &ports, config.mode)?;
        let loaded = match stands {
            true => None,
            false => Some(load::load(&dir, config.max_sas, config.mode)?),
        };

        let cpus = sys::allowed_cpus();
        let count = match config.mode {
            XdpMode::None => 1,
            _ => worker_count(&ports, config.workers, cpus.len()),
        };
        let wakers = (0..count)
            .map(|_| Waker::new())
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::system("making an eventfd"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            sad: Arc::new(Sad::open(&dir)?),
            selectors: Arc::new(Selectors::open(&dir)?),
            outbounds: Outbounds::open(&dir)?,
            tun,
            counters: Arc::new(Counters::open(&dir, redirected(&dir)?)?),
            crypto: backend(config.crypto),
            taps: Arc::default(),
            stop: stop.clone(),
        });
        // The program must know ports and addresses before it sees a frame.
        load::write_ports(&dir, &ports)?;
        let followed = Followed::start(
            &ports,
            &config.tun,
            (Locals::open(&dir)?, Ports::open(&dir)?, shared.sad.clone()),
            wakers.clone(),
            stop.clone(),
        )?;
        let (published, wanted) = (followed.published.clone(), followed.wanted.clone());
        let asking = followed.waker.clone();
        // From here on, a failure ends what has been started when `threads` is dropped.
        let mut threads = Threads { stop, followed: Some(followed), workers: Vec::new() };
        let asker = Arc::<OnceLock<Asker>>::default();
        let attach = |mut ebpf| {
            let attached = load::attach(&mut ebpf, &dir, &ports, config.mode)?;
            // It is filled but once.
            let _ = Asker::new(ebpf, &ports).map(|new| asker.set(new));
            Ok::<_, Error>(attached)
        };
        let attached = loaded.map(&attach).transpose()?;
        let mut xsks = Xsks::open(&dir)?;
        let mut memory = Memory::ZeroCopy;
        let mut wires = Vec::with_capacity(count);
        for id in 0..count {
            let view = View::new(published.clone(), wanted.clone(), asking.clone());
            wires.push(match config.mode {
                XdpMode::None => (wire_by_kernel(&ports, view)?, Vec::new()),
                mode => {
                    let (wire, queues, of_worker) = wire((id, count), &ports, view, mode.copying())?;
                    if matches!(memory, Memory::ZeroCopy) {
                        memory = of_worker;
                    }
                    (wire, queues)
                }
            });
        }
        // That the queues are ours says that an earlier process has ended.
        shared.counters.settle(redirected(&dir)?);
        for (id, (waker, (wire, queues))) in wakers.into_iter().zip(wires).enumerate() {
            for ((slot, queue), socket) in queues.into_iter().zip(wire.sockets()) {
                xsks.set(slot, queue, socket)?;
            }
            let slow_path = match id {
                0 => Some(SlowPath {
                    spd: SpdTables::open(&dir)?,
                    spis: SpiIndex::open(&dir)?,
                    asker: asker.clone(),
                    defrag: Defrag::open().map_err(Error::system("opening raw sockets"))?,
                    looked: Instant::now(),
                    tun_looked: None,
                }),
                _ => None,
            };
            let cpu = (count > 1).then(|| cpus[id % cpus.len()]);
            threads.workers.push(spawn(id, cpu, wire, shared.clone(), slow_path, waker)?);
        }

        let attached = match attached {
            Some(attached) => attached,
            None => attach(load::load(&dir, config.max_sas, config.mode)?)?,
        };
        let reporter = Arc::new(Reporter {
            ports: port::reports(&ports, &attached, &memory, config.mode),
            workers: threads.workers.iter().map(|w| (w.cpu, w.figures.clone())).collect(),
            counters: shared.counters.clone(),
            crypto: shared.crypto,
            taps: shared.taps.clone(),
            started: Instant::now(),
        });
        let keys = config.gives_keys.then(|| shared.sad.clone());
        let service = config.socket.map(|path| Service::start(&path, reporter.clone(), keys)).transpose()?;
        Ok(Dataplane { reporter, service, threads })
    }

    /// What it does at this moment.
    pub fn report(&self) -> Report {
        self.reporter.report()
    }

    /// Ends the threads. The XDP program stays attached, the maps stay pinned and the TUN device stays: protected
    /// traffic is dropped until the next start, or until [`unload`].
    ///
    /// # Errors
    /// [`Error::Died`] when a thread had ended by a panic.
    pub fn stop(self) -> Result<(), Error> {
        let Dataplane { service, mut threads, .. } = self;
        drop(service);
        threads.end()
    }
}

impl Threads {
    fn end(&mut self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Release);
        let mut result = Ok(());
        for (id, worker) in self.workers.drain(..).enumerate() {
            worker.waker.wake();
            if worker.thread.join().is_err() {
                result = Err(Error::Died(format!("worker {id}")));
            }
        }
        self.followed.take().map_or(Ok(()), Followed::stop).and(result)
    }
}

/// As [`Dataplane::stop`], with nobody to tell of a thread that has died.
impl Drop for Threads {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "stopping the data plane");
        }
    }
}

fn backend(wanted: Option<Backend>) -> Backend {
    let backend = wanted.unwrap_or_else(Backend::detect);
    if backend.is_available() { backend } else { Backend::Portable }
}

/// As many workers as every port has a queue for, and no more than CPUs.
fn worker_count(ports: &[Port], wanted: Option<usize>, cpus: usize) -> usize {
    let queues = ports.iter().map(|p| p.queues as usize).min().unwrap_or(1);
    queues.min(wanted.unwrap_or(cpus)).clamp(1, cpus.max(1))
}

/// Without AF_XDP: all that comes and goes passes through the kernel.
fn wire_by_kernel(ports: &[Port], view: View) -> Result<Wire, Error> {
    let umem =
        Umem::new(SPARE_FRAMES, REASSEMBLED_FRAMES).map_err(Error::system("mapping memory for packets"))?;
    let outlet = Outlet::open(ports).map_err(Error::system("opening raw sockets"))?;
    sys::tell_if_nothing_is_forwarded();
    Ok(Wire::by_kernel(umem, outlet, view))
}

/// Frames that the XDP program has given to workers since the maps were made.
fn redirected(dir: &Directory) -> Result<u64, user::Error> {
    let verdicts = Verdicts::open(dir)?;
    let given = Verdict::ALL.iter().filter(|verdict| verdict.action() == Action::Redirect);
    given.flat_map(|verdict| (0..MAX_PORTS).map(|slot| verdicts.read(slot, *verdict))).sum()
}

/// Queues, each as the slot of its port and its number.
type Queues = Vec<(u32, u32)>;

/// Binds worker `id` of `count` to its queues; these in the order of its sockets.
fn wire(
    (id, count): (usize, usize),
    ports: &[Port],
    view: View,
    copying: Copying,
) -> Result<(Wire, Queues, Memory), Error> {
    let mut binds = Vec::new();
    let long = ports.iter().any(|port| port.mtu as usize > SHORT_PACKET);
    for port in ports {
        let queues = (0..port.queues).filter(|q| *q as usize % count == id);
        binds.extend(queues.map(|queue| (port, Bind { ifindex: port.ifindex, queue, long })));
    }
    let long_frames = if long { LONG_FRAMES } else { REASSEMBLED_FRAMES };
    let umem = Umem::new(binds.len() as u32 * 2 * RING + SPARE_FRAMES, long_frames)
        .map_err(Error::system("mapping memory for packets"))?;
    let plain: Vec<Bind> = binds.iter().map(|(_, bind)| *bind).collect();
    let (sockets, memory) = xsk::open_all(&plain, &umem, copying).map_err(|(bind, e)| {
        let interface = binds.iter().find(|(p, _)| p.ifindex == bind.ifindex).map(|(p, _)| &p.interface);
        match e.kind() {
            std::io::ErrorKind::PermissionDenied => Error::Privilege { what: "opening an AF_XDP socket" },
            _ => Error::interface(
                interface.map_or("", |i| i.as_str()),
                format!("AF_XDP socket on queue {}: {e}{}", bind.queue, hint(&e)),
            ),
        }
    })?;
    let slots = binds.iter().map(|(p, _)| p.slot).collect();
    let queues = binds.iter().map(|(port, bind)| (port.slot, bind.queue)).collect();
    Ok((Wire::new(umem, sockets, slots, view), queues, memory))
}

fn hint(e: &std::io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EBUSY) => "; another process is bound to it: is a data plane running already?",
        Some(libc::EAFNOSUPPORT) => {
            "; this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS): gateway.xdp = \"none\" does without"
        }
        Some(libc::EOPNOTSUPP) => "; its driver has no zero-copy: gateway.xdp = \"auto\" takes what there is",
        Some(libc::ENOBUFS | libc::ENOMEM) => "; not enough memory may be locked (LimitMEMLOCK=infinity)",
        _ => "",
    }
}

fn spawn(
    id: usize,
    cpu: Option<usize>,
    wire: Wire,
    shared: Arc<Shared>,
    slow_path: Option<SlowPath>,
    waker: Waker,
) -> Result<Running, Error> {
    let figures = Arc::new(Figures::default());
    let (theirs, woken) = (figures.clone(), waker.clone());
    let thread = thread::Builder::new()
        .name(format!("adit-worker-{id}"))
        .spawn(move || {
            if let Some(cpu) = cpu
                && let Err(error) = sys::pin_to(cpu)
            {
                tracing::warn!(worker = id, cpu, %error, "not pinned to its CPU");
            }
            let _alive = theirs.alive();
            Worker::new(wire, shared, slow_path).run(&theirs, &woken);
        })
        .map_err(Error::system("starting a thread"))?;
    Ok(Running { cpu, figures, waker, thread })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(queues: u32) -> Port {
        Port { slot: 0, interface: "eth0".into(), ifindex: 1, roles: 3, queues, mtu: 1500 }
    }

    #[test]
    fn every_worker_has_a_queue_on_every_port() {
        assert_eq!(worker_count(&[port(8), port(2)], None, 16), 2);
        assert_eq!(worker_count(&[port(8)], None, 4), 4);
        assert_eq!(worker_count(&[port(8)], Some(3), 4), 3);
        assert_eq!(worker_count(&[port(1)], Some(3), 4), 1);
        assert_eq!(worker_count(&[port(8)], Some(64), 1), 1);
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_in_words() {
        let config = Config {
            bpf_dir: "/nonexistent/adit".into(),
            ports: vec![],
            tun: DEFAULT_TUN.into(),
            workers: Some(0),
            max_sas: 8,
            mode: XdpMode::Auto,
            socket: None,
            gives_keys: false,
            crypto: None,
        };
        for (change, word) in [
            (Config { workers: None, ..config.clone() }, "WAN"),
            (Config { max_sas: 0, ..config.clone() }, "max_sas"),
            (config.clone(), "workers"),
        ] {
            let error = change.check().err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(word), "{error}");
        }
    }
}
