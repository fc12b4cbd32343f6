//! The Internet of a soak: it loses, delays past others and doubles what crosses it, by a seed, and counts all it does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::sites::Outside;
use crate::inject::Noise;
use crate::namespace::Namespace;
use crate::sys::PacketSocket;
use crate::topology::{TO_A, TO_B, Topology, WAN};

/// Of 10,000 packets, how many are lost, delayed and doubled.
const LOST: u64 = 100;
const DELAYED: u64 = 200;
const DOUBLED: u64 = 10;
/// How many packets may pass one that is delayed.
const PASSED_BY: u64 = 16;
/// Milliseconds without another packet after which what is delayed goes.
const IDLE: i32 = 5;

const ETHERNET: usize = 14;
const UDP: u8 = 17;
const ESP: u8 = 50;

/// What became of the ESP packets of one direction, and how many of IKE were lost.
#[derive(Debug, Default)]
struct Counters {
    taken: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    delayed: AtomicU64,
    given: AtomicU64,
    ike_lost: AtomicU64,
}

/// What a direction of the line has done so far, in packets of ESP unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Crossed {
    /// Taken from the gateway.
    pub(super) taken: u64,
    /// Lost on purpose.
    pub(super) lost: u64,
    /// Given to the other gateway once more.
    pub(super) doubled: u64,
    /// Given later than some that came later.
    pub(super) delayed: u64,
    /// Given to the other gateway, copies included.
    pub(super) given: u64,
    /// Datagrams of IKE that were lost on purpose.
    pub(super) ike_lost: u64,
    /// Frames of any kind that the line was too slow for.
    pub(super) missed: u64,
}

/// The line between the router's two interfaces, both ways, until it is dropped.
pub(super) struct Line {
    ways: [Way; 2],
    stop: Arc<AtomicBool>,
    perfect: Arc<AtomicBool>,
}

struct Way {
    counters: Arc<Counters>,
    socket: Arc<PacketSocket>,
    missed: u64,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Line {
    /// Takes the place of the router's forwarding. The first direction is from gateway A to gateway B.
    pub(super) fn start(topology: &Topology, outside: Outside, seed: u64) -> Result<Line> {
        let router = &topology.router;
        router.sysctl(&["net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"])?;
        let [(index_a, mac_a), (index_b, mac_b)] = [interface(router, TO_A)?, interface(router, TO_B)?];
        let (ethertype, protocol) = match outside {
            Outside::V4 => (libc::ETH_P_IP as u16, ETHERNET + 9),
            Outside::V6 => (libc::ETH_P_IPV6 as u16, ETHERNET + 6),
        };
        let open = |index| router.inside(move || Ok(Arc::new(PacketSocket::open(index, ethertype)?)));
        let (a, b) = (open(index_a)?, open(index_b)?);
        let macs = [
            [interface(&topology.gateway_b, WAN)?.1, mac_b],
            [interface(&topology.gateway_a, WAN)?.1, mac_a],
        ];
        let (stop, perfect) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let way = |from: &Arc<PacketSocket>, to: &Arc<PacketSocket>, macs, seed| {
            let counters = Arc::<Counters>::default();
            let carrier = Carrier {
                from: from.clone(),
                to: to.clone(),
                protocol,
                macs,
                noise: Noise::new(seed),
                counters: counters.clone(),
                perfect: perfect.clone(),
                late: VecDeque::new(),
            };
            let stop = stop.clone();
            let thread = Some(thread::spawn(move || carrier.run(&stop)));
            Way { counters, socket: from.clone(), missed: 0, thread }
        };
        let ways = [way(&a, &b, macs[0], seed), way(&b, &a, macs[1], seed.rotate_left(32))];
        Ok(Line { ways, stop, perfect })
    }

    /// From now on nothing is lost, delayed or doubled.
    pub(super) fn mend(&self) {
        self.perfect.store(true, Relaxed);
    }

    /// What has crossed so far, from A to B and from B to A.
    pub(super) fn crossed(&mut self) -> Result<[Crossed; 2]> {
        let mut both = [Crossed::default(); 2];
        for (way, crossed) in self.ways.iter_mut().zip(&mut both) {
            ensure!(way.thread.as_ref().is_some_and(|t| !t.is_finished()), "the line has ended");
            way.missed += way.socket.missed()?;
            let Counters { taken, lost, doubled, delayed, given, ike_lost } = &*way.counters;
            let [taken, lost, doubled, delayed, given, ike_lost] =
                [taken, lost, doubled, delayed, given, ike_lost].map(|counter| counter.load(Relaxed));
            *crossed = Crossed { taken, lost, doubled, delayed, given, ike_lost, missed: way.missed };
        }
        Ok(both)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for way in &mut self.ways {
            if let Some(thread) = way.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// One direction.
struct Carrier {
    from: Arc<PacketSocket>,
    to: Arc<PacketSocket>,
    /// Where in a frame the protocol of its IP packet is.
    protocol: usize,
    /// Destination and source of what goes on.
    macs: [[u8; 6]; 2],
    noise: Noise,
    counters: Arc<Counters>,
    perfect: Arc<AtomicBool>,
    /// What is delayed, and how many may pass it.
    late: VecDeque<(u64, Vec<u8>)>,
}

impl Carrier {
    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let mut frame = [0u8; 2048];
        while !stop.load(Relaxed) {
            let Some(length) = self.from.receive(&mut frame, IDLE)? else {
                self.give_late(u64::MAX)?;
                continue;
            };
            // What neighbours ask each other stays on their link.
            let crosses =
                |frame: &&mut [u8]| frame.get(self.protocol).is_some_and(|p| [ESP, UDP].contains(p));
            let Some(frame) = frame.get_mut(..length).filter(crosses) else { continue };
            for (place, mac) in frame.chunks_exact_mut(6).zip(self.macs) {
                place.copy_from_slice(&mac);
            }
            self.carry(frame)?;
            self.give_late(1)?;
        }
        Ok(())
    }

    fn carry(&mut self, frame: &[u8]) -> Result<()> {
        let is_esp = frame[self.protocol] == ESP;
        if is_esp {
            count(&self.counters.taken);
        }
        let fate = if self.perfect.load(Relaxed) { u64::MAX } else { self.noise.number() % 10_000 };
        if fate < LOST {
            count(if is_esp { &self.counters.lost } else { &self.counters.ike_lost });
            return Ok(());
        }
        if fate < LOST + DELAYED {
            let passed_by = 1 + self.noise.number() % PASSED_BY;
            self.late.push_back((passed_by, frame.to_vec()));
            if is_esp {
                count(&self.counters.delayed);
            }
            return Ok(());
        }
        if fate < LOST + DELAYED + DOUBLED {
            self.give(frame)?;
            if is_esp {
                count(&self.counters.doubled);
            }
        }
        self.give(frame)
    }

    /// Gives on what enough have passed by, after `passed` more.
    fn give_late(&mut self, passed: u64) -> Result<()> {
        for _ in 0..self.late.len() {
            let Some((left, frame)) = self.late.pop_front() else { break };
            match left.saturating_sub(passed) {
                0 => self.give(&frame)?,
                left => self.late.push_back((left, frame)),
            }
        }
        Ok(())
    }

    fn give(&self, frame: &[u8]) -> Result<()> {
        if frame[self.protocol] == ESP {
            count(&self.counters.given);
        }
        self.to.send(frame).context("the line cannot send")
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Index and MAC address of an interface.
pub(super) fn interface(namespace: &Namespace, name: &str) -> Result<(u32, [u8; 6])> {
    let shown = namespace.ip(&["-json", "link", "show", "dev", name])?;
    let shown: Value = serde_json::from_str(&shown)?;
    let (index, address) = (shown[0]["ifindex"].as_u64(), shown[0]["address"].as_str());
    let mac: Option<Vec<u8>> =
        address.and_then(|text| text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect());
    let found = index.and_then(|index| u32::try_from(index).ok()).zip(mac.and_then(|m| m.try_into().ok()));
    found.with_context(|| format!("{name} of {} has no index or no MAC address", namespace.name()))
}

/// Frames that an interface could not send because the other end had no room.
pub(super) fn refused(namespace: &Namespace, name: &str) -> Result<u64> {
    let shown = namespace.ip(&["-statistics", "-json", "link", "show", "dev", name])?;
    let shown: Value = serde_json::from_str(&shown)?;
    shown[0]["stats64"]["tx"]["dropped"].as_u64().context("`ip` tells no drops")
}
