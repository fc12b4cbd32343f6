//! What the data plane tells of itself.

use serde::Serialize;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// A moment of the data plane.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The interfaces that carry the XDP program.
    pub ports: Vec<PortReport>,
    /// The threads that seal and open.
    pub workers: Vec<WorkerReport>,
    /// Packets that belong to no SA.
    pub counters: CounterReport,
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
    /// `driver` or `generic`.
    pub xdp_mode: &'static str,
    /// Why it is not `driver`, when that was tried.
    pub fallback: Option<String>,
    /// Whether the NIC reads and writes packets in the workers' memory; else the kernel copies them.
    pub zero_copy: bool,
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
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of all workers; none of these packets belongs to an SA.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct CounterReport {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        /// The counters as workers count.
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)+
        }

        impl Counters {
            pub(crate) fn report(&self) -> CounterReport {
                CounterReport { $($name: self.$name.load(Relaxed),)+ }
            }
        }
    };
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
    /// ICMP errors sent.
    icmp_sent,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// A worker's own figures. One thread writes; whoever reports reads.
#[derive(Default)]
pub(crate) struct Figures {
    batches: AtomicU64,
    packets: AtomicU64,
    busy_ns: AtomicU64,
    held: AtomicU64,
    free_frames: AtomicU64,
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

    pub(crate) fn report(
        &self,
        id: usize,
        cpu: Option<usize>,
        running: bool,
        elapsed_ns: u64,
    ) -> WorkerReport {
        WorkerReport {
            id,
            cpu,
            running,
            batches: self.batches.load(Acquire),
            packets: self.packets.load(Relaxed),
            busy_ns: self.busy_ns.load(Relaxed),
            elapsed_ns,
            held: self.held.load(Relaxed),
            free_frames: self.free_frames.load(Relaxed),
        }
    }
}
