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
//! | `defrag` | ESP and AH that came in fragments |
//! | `raw` | raw sockets |
//! | `tun` | the TUN device for the gateway's own traffic |
//! | `report`, `error` | what the data plane tells of itself, and why it does not start |
//!
//! `unsafe` is kept to `xsk` (memory shared with the kernel) and to the system calls in `sys`, `tun`, `raw` and
//! `bpffs`.

mod bpffs;
mod defrag;
mod error;
mod load;
mod nexthop;
mod packet;
mod port;
mod raw;
mod report;
mod sys;
mod tun;
mod worker;
mod xsk;

pub use error::Error;
pub use load::unload;
pub use report::{CounterReport, PortReport, Report, WorkerReport};

use adit_maps::user::{Directory, Locals, Outbounds, Ports, Sad, Selectors, SpdTables, SpiIndex, Xsks};
use defrag::Defrag;
use nexthop::{Followed, View};
use port::Port;
use report::{Counters, Figures};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};
use sys::Waker;
use tun::Tun;
use worker::{Shared, SlowPath, Wire, Worker};
use xsk::{Bind, RING, SHORT_PACKET, Umem};

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
    /// How the XDP program is attached.
    pub mode: XdpMode,
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

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver where it can, else in the kernel's generic path. A program that is attached already stays where
    /// it is: to move it would let packets pass meanwhile.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Driver,
    /// In the kernel's generic path: slower, for every driver.
    Generic,
}

/// A running data plane.
pub struct Dataplane {
    ports: Vec<PortReport>,
    shared: Arc<Shared>,
    followed: Option<Followed>,
    workers: Vec<Running>,
    started: Instant,
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
        let ports = port::find(&config.ports)?;
        let tun = Tun::open(&config.tun)?;
        let dir = Directory::new(&config.bpf_dir);
        let mut ebpf = load::load(&dir, config.max_sas)?;

        let cpus = sys::allowed_cpus();
        let count = worker_count(&ports, config.workers, cpus.len());
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
            counters: Counters::default(),
            stop: stop.clone(),
        });
        // The program must know ports and addresses before it sees a frame.
        load::write_ports(&dir, &ports)?;
        let followed = Followed::start(
            &ports,
            &config.tun,
            (Locals::open(&dir)?, Ports::open(&dir)?, shared.sad.clone()),
            wakers.clone(),
            stop,
        )?;
        let (published, wanted) = (followed.published.clone(), followed.wanted.clone());
        let asking = followed.waker.clone();
        // From here on, a failure ends what has been started when `dataplane` is dropped.
        let mut dataplane = Dataplane {
            ports: Vec::new(),
            shared: shared.clone(),
            followed: Some(followed),
            workers: Vec::new(),
            started: Instant::now(),
        };
        let attached = load::attach(&mut ebpf, &dir, &ports, config.mode)?;
        let mut asker = load::Asker::new(ebpf, &ports);
        let mut xsks = Xsks::open(&dir)?;
        let mut zero_copy = true;
        for (id, waker) in wakers.into_iter().enumerate() {
            let view = View::new(published.clone(), wanted.clone(), asking.clone());
            let (wire, is_zero_copy) = wire(id, count, &ports, view, &mut xsks)?;
            zero_copy &= is_zero_copy;
            let slow_path = match id {
                0 => Some(SlowPath {
                    spd: SpdTables::open(&dir)?,
                    spis: SpiIndex::open(&dir)?,
                    asker: asker.take(),
                    defrag: Defrag::open().map_err(Error::system("opening raw sockets"))?,
                    looked: Instant::now(),
                }),
                _ => None,
            };
            let cpu = (count > 1).then(|| cpus[id % cpus.len()]);
            dataplane.workers.push(spawn(id, cpu, wire, shared.clone(), slow_path, waker)?);
        }

        dataplane.ports = ports.iter().zip(attached).map(|(p, a)| port_report(p, a, zero_copy)).collect();
        Ok(dataplane)
    }

    /// What it does at this moment.
    pub fn report(&self) -> Report {
        let elapsed = self.started.elapsed().as_nanos() as u64;
        let workers = self
            .workers
            .iter()
            .enumerate()
            .map(|(id, w)| w.figures.report(id, w.cpu, !w.thread.is_finished(), elapsed))
            .collect();
        Report { ports: self.ports.clone(), workers, counters: self.shared.counters.report() }
    }

    /// Ends the threads. The XDP program stays attached, the maps stay pinned and the TUN device stays: protected
    /// traffic is dropped until the next start, or until [`unload`].
    ///
    /// # Errors
    /// [`Error::Died`] when a thread had ended by a panic.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end_threads()
    }

    fn end_threads(&mut self) -> Result<(), Error> {
        self.shared.stop.store(true, Ordering::Release);
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
impl Drop for Dataplane {
    fn drop(&mut self) {
        if let Err(error) = self.end_threads() {
            tracing::error!(%error, "stopping the data plane");
        }
    }
}

/// As many workers as every port has a queue for, and no more than CPUs.
fn worker_count(ports: &[Port], wanted: Option<usize>, cpus: usize) -> usize {
    let queues = ports.iter().map(|p| p.queues as usize).min().unwrap_or(1);
    queues.min(wanted.unwrap_or(cpus)).clamp(1, cpus.max(1))
}

/// Binds worker `id` of `count` to its queues, and directs them to it.
fn wire(id: usize, count: usize, ports: &[Port], view: View, xsks: &mut Xsks) -> Result<(Wire, bool), Error> {
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
    let (sockets, is_zero_copy) = xsk::open_all(&plain, &umem).map_err(|(bind, e)| {
        let interface = binds.iter().find(|(p, _)| p.ifindex == bind.ifindex).map(|(p, _)| &p.interface);
        match e.kind() {
            std::io::ErrorKind::PermissionDenied => Error::Privilege { what: "opening an AF_XDP socket" },
            _ => Error::interface(
                interface.map_or("", |i| i.as_str()),
                format!("AF_XDP socket on queue {}: {e}{}", bind.queue, hint(&e)),
            ),
        }
    })?;
    for ((port, bind), socket) in binds.iter().zip(&sockets) {
        xsks.set(port.slot, bind.queue, socket)?;
    }
    let slots = binds.iter().map(|(p, _)| p.slot).collect();
    Ok((Wire::new(umem, sockets, slots, view), is_zero_copy))
}

fn hint(e: &std::io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EBUSY) => "; another process is bound to it: is a data plane running already?",
        Some(libc::EAFNOSUPPORT) => "; this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS)",
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
            Worker::new(wire, shared, slow_path).run(&theirs, &woken);
        })
        .map_err(Error::system("starting a thread"))?;
    Ok(Running { cpu, figures, waker, thread })
}

fn port_report(port: &Port, attached: load::Attached, zero_copy: bool) -> PortReport {
    if let Some(reason) = &attached.fallback {
        tracing::warn!(interface = port.interface, reason, "XDP in generic mode: the driver refuses it");
    }
    PortReport {
        interface: port.interface.clone(),
        ifindex: port.ifindex,
        slot: port.slot,
        roles: port.roles,
        queues: port.queues,
        xdp_mode: if attached.in_driver { "driver" } else { "generic" },
        fallback: attached.fallback,
        zero_copy,
    }
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
