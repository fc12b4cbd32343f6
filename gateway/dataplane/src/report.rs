//! What the data plane tells of itself.

use crate::capture::Taps;
use adit_esp::Backend;
use adit_maps::{
    sa::DropCause,
    totals::{PER_KIND, WORDS},
    user::{Directory, Error, TotalsMap},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Instant,
};

/// A moment of the data plane.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The interfaces that carry the XDP program.
    pub ports: Vec<PortReport>,
    /// The threads that seal and open.
    pub workers: Vec<WorkerReport>,
    /// What the cryptography runs on: `avx512`, `avx2`, `aesni`, `portable`.
    pub crypto: String,
    /// Packets that belong to no SA, since the maps were made.
    pub counters: CounterReport,
    /// Packets of SAs that were dropped, by cause, since the maps were made: also of SAs that are gone.
    pub drops: BTreeMap<&'static str, u64>,
}

/// One interface.
#[derive(Clone, Debug, Serialize)]
pub struct PortReport {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Which part of XSKS and VERDICTS is this port's.
    pub slot: u32,
    /// Bits of `adit_maps::port::role`.
    pub roles: u32,
    /// Receive queues that are served.
    pub queues: u32,
    /// How packets come and go.
    pub mode: PortMode,
    /// Why so, in words.
    pub reason: String,
}

/// How packets come and go by an interface, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMode {
    /// XDP in the driver; the NIC reads and writes packets in the workers' memory.
    ZeroCopy,
    /// XDP in the driver; the kernel copies packets.
    Driver,
    /// XDP in the kernel's generic path; the kernel copies packets.
    Generic,
    /// No XDP: the TUN device and raw sockets.
    Sockets,
}

impl std::fmt::Display for PortMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Driver => "driver",
            Self::Generic => "generic",
            Self::Sockets => "sockets",
        })
    }
}

/// One worker since its start.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerReport {
    /// 0..
    pub id: usize,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Whether its thread lives.
    pub running: bool,
    /// Rounds that had packets in them.
    pub batches: u64,
    /// Packets that came in, by all ways.
    pub packets: u64,
    /// Nanoseconds spent on packets.
    pub busy_ns: u64,
    /// Nanoseconds since its start.
    pub elapsed_ns: u64,
    /// Packets that wait for a neighbour's address or for an SA.
    pub held: u64,
    /// Frames that are free in its memory.
    pub free_frames: u64,
    /// What part of its fullest receive ring waited when a round began, the last time in a second, in millionths.
    pub receive_fill: u64,
    /// The same of its fullest transmit ring.
    pub transmit_fill: u64,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of all workers since the maps were made; none of these packets belongs to an SA.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct CounterReport {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        /// Where each counts among the events of TOTALS; stable within a layout version.
        #[allow(non_camel_case_types, reason = "named as the counters are")]
        enum Event { $($name,)+ Count }

        const _: () = assert!(Event::Count as usize <= PER_KIND);

        impl Counters {
            $($(#[doc = $doc])+ pub(crate) fn $name(&self) -> &AtomicU64 {
                &self.0.events[Event::$name as usize]
            })+

            pub(crate) fn report(&self) -> CounterReport {
                CounterReport { $($name: self.$name().load(Relaxed),)+ }
            }
        }
    };
}

/// The counters as workers count, in the map TOTALS: they outlive this process.
pub(crate) struct Counters(TotalsMap);

impl Counters {
    /// Goes on where an earlier process was. Where none has counted, what was `redirected` before is not looked into.
    pub(crate) fn open(dir: &Directory, redirected: u64) -> Result<Self, Error> {
        let mut first = [0; WORDS];
        first[PER_KIND + Event::handled as usize] = redirected;
        TotalsMap::open_or_make(dir, &first).map(Counters)
    }

    /// Counts a packet of an SA that was dropped.
    pub(crate) fn dropped(&self, cause: DropCause) {
        self.0.count_drop(cause);
    }

    /// Counts what an earlier process was given of the `redirected` frames and was not done with when it ended. To be
    /// called when that has ended, and before this one is given any.
    pub(crate) fn settle(&self, redirected: u64) {
        let known = [self.handled(), self.ring_full(), self.left_behind()];
        let known = known.iter().fold(0, |sum: u64, n| sum.wrapping_add(n.load(Relaxed)));
        // Never below zero: a frame is counted by the program before a worker has it.
        let left = (redirected.wrapping_sub(known) as i64).max(0);
        self.left_behind().fetch_add(left as u64, Relaxed);
    }

    fn drops(&self) -> BTreeMap<&'static str, u64> {
        DropCause::ALL.iter().map(|cause| (cause.label(), self.0.dropped(*cause))).collect()
    }
}

counters! {
    /// Frames from AF_XDP without metadata of ours: another program redirects to our sockets.
    bad_metadata,
    /// Packets from the TUN device that are no IP packets.
    tun_malformed,
    /// Packets from the TUN device that no policy protects. They are dropped, never sent in clear.
    tun_no_policy,
    /// Packets that waited for their policy's SA in vain, or were too many to wait.
    no_sa,
    /// Packets that the kernel did not take from the TUN device.
    tun_refused,
    /// Times that no frame was free: to read the TUN device into, or to put a packet together in.
    no_frame,
    /// ESP and AH packets that came in fragments and were put together by the kernel.
    reassembled,
    /// Those among them that no SA is for, or that are longer than a frame.
    reassembled_dropped,
    /// ESP and AH packets from raw sockets, where there is no AF_XDP.
    by_socket,
    /// Those among them that no SA is for, or that are longer than a frame.
    by_socket_dropped,
    /// ICMP errors sent.
    icmp_sent,
    /// Fragments that inner packets were cut into, the first of each packet not counted.
    cut,
    /// Frames that workers were given by the XDP program, and were done with: handed to the kernel, or dropped and counted.
    handled,
    /// Frames that the XDP program gave to a worker whose receive ring, or store of frames, was full: dropped.
    ring_full,
    /// Frames that a data plane was given and was not done with when it ended: dropped with it. Where it was killed in the
    /// middle of a round, some of that round may have been sent.
    left_behind,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// A worker's own figures. One thread writes; whoever reports reads.
#[derive(Default)]
pub(crate) struct Figures {
    ended: AtomicBool,
    batches: AtomicU64,
    packets: AtomicU64,
    busy_ns: AtomicU64,
    held: AtomicU64,
    free_frames: AtomicU64,
    fill: [AtomicU64; 2],
}

impl Figures {
    pub(crate) fn batch(&self, packets: u64, busy_ns: u64) {
        self.packets.store(self.packets.load(Relaxed) + packets, Relaxed);
        self.busy_ns.store(self.busy_ns.load(Relaxed) + busy_ns, Relaxed);
        self.batches.store(self.batches.load(Relaxed) + 1, Release);
    }

    pub(crate) fn fill(&self, held: usize, free_frames: usize) {
        self.held.store(held as u64, Relaxed);
        self.free_frames.store(free_frames as u64, Relaxed);
    }

    /// What part of the fullest receive ring and of the fullest transmit ring waits, in millionths.
    pub(crate) fn rings(&self, fill: [u64; 2]) {
        self.fill.iter().zip(fill).for_each(|(to, part)| to.store(part, Relaxed));
    }

    /// Tells, when what is returned is dropped, that the thread has ended: by itself or by a panic.
    pub(crate) fn alive(&self) -> Alive<'_> {
        Alive(self)
    }

    pub(crate) fn report(&self, id: usize, cpu: Option<usize>, elapsed_ns: u64) -> WorkerReport {
        WorkerReport {
            id,
            cpu,
            running: !self.ended.load(Acquire),
            batches: self.batches.load(Acquire),
            packets: self.packets.load(Relaxed),
            busy_ns: self.busy_ns.load(Relaxed),
            elapsed_ns,
            held: self.held.load(Relaxed),
            free_frames: self.free_frames.load(Relaxed),
            receive_fill: self.fill[0].load(Relaxed),
            transmit_fill: self.fill[1].load(Relaxed),
        }
    }
}

/// Of [`Figures::alive`].
pub(crate) struct Alive<'a>(&'a Figures);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Release);
    }
}

/// Makes [`Report`]s, for whoever asks from whichever thread.
pub(crate) struct Reporter {
    pub(crate) ports: Vec<PortReport>,
    /// CPU and figures of each worker.
    pub(crate) workers: Vec<(Option<usize>, Arc<Figures>)>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) crypto: Backend,
    pub(crate) taps: Arc<Taps>,
    pub(crate) started: Instant,
}

impl Reporter {
    pub(crate) fn report(&self) -> Report {
        let elapsed = self.started.elapsed().as_nanos() as u64;
        let workers = self.workers.iter().enumerate();
        Report {
            ports: self.ports.clone(),
            workers: workers.map(|(id, (cpu, figures))| figures.report(id, *cpu, elapsed)).collect(),
            crypto: self.crypto.to_string(),
            counters: self.counters.report(),
            drops: self.counters.drops(),
        }
    }
}
