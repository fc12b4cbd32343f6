//! The threads that seal and open.
//!
//! Worker `k` of `n` owns every queue `q` of every port with `q % n == k`: its sockets, their memory, its copy of the
//! SAs. What workers share are the maps: sequence numbers and anti-replay windows in SAD_STATE are atomic. A round
//! takes up to [`BATCH`] frames, seals and opens them, hands the results to transmit rings, and tells the kernel once
//! for each socket. An idle worker sleeps in `poll`.
//!
//! What a packet passes through on its way is inlined, and is changed where it lies: a structure that is returned, or
//! copied, right after its parts were written is loaded late as a whole, which costs as much as twenty instructions.
//!
//! | file | story |
//! |---|---|
//! | `sa` | the SAs as this worker knows them |
//! | `seal` | from an inner packet to an outer one |
//! | `open` | from an outer packet to an inner one |
//! | `wire` | sockets, memory, Ethernet headers, packets that wait for a neighbour |
//! | `hold` | the bounded queue of those |
//! | `acquire` | packets that wait for their policy to have an SA |
//! | `in_memory` | a worker without a kernel around it, for who measures it |

mod acquire;
mod hold;
#[cfg(feature = "in-memory")]
pub mod in_memory;
mod open;
mod sa;
mod seal;
mod wire;

pub(crate) use sa::parameters;
pub(crate) use wire::Wire;

use crate::{
    capture::{Side, Taps, Watched},
    defrag::Defrag,
    load::Asker,
    raw::Taken,
    report::{Counters, Figures, count},
    sys::{self, Waker, poll, readable},
    tun::Tun,
    xsk::{Frame, HEADROOM},
};
use acquire::Waiting;
use adit_esp::Backend;
use adit_maps::{
    decode::{self, protocol},
    meta::{Meta, task},
    policy::{action, look_up},
    sa::{DropCause, SaRef, SpiKey},
    user::{Outbounds, Sad, Selectors, SpdTables, SpiIndex},
};
use sa::Sas;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use zerocopy::FromBytes;

/// Frames of one round.
pub(crate) const BATCH: usize = 256;
/// How many packets ahead the headers of one are fetched, and its SA.
const AHEAD: usize = 6;
/// Packets that are read from the TUN device in one round.
const TUN_BATCH: usize = 64;
/// Where a packet from the TUN device starts: room for all that sealing puts before it.
const TUN_START: usize = HEADROOM;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// Where the SPI lies in an Authentication Header.
const AH_SPI: usize = 4;
/// How often freed SAs are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How soon the TUN device is looked at again while other packets come: every look is a system call.
const TUN_PAUSE: Duration = Duration::from_micros(100);
/// How soon a full device, or an empty store of frames, is looked at again: neither ends a `poll`.
const RETRY: Duration = Duration::from_millis(1);
/// ICMP errors that one worker sends in a second at most.
const ICMP_PER_SWEEP: u32 = 200;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) sad: Arc<Sad>,
    pub(crate) selectors: Arc<Selectors>,
    pub(crate) outbounds: Outbounds,
    pub(crate) tun: Tun,
    pub(crate) counters: Arc<Counters>,
    /// What SAs are worked with.
    pub(crate) crypto: Backend,
    /// Who watches.
    pub(crate) taps: Arc<Taps>,
    /// Ends every thread.
    pub(crate) stop: Arc<AtomicBool>,
}

/// What the worker needs that takes packets from the kernel: the gateway's own, and those that came in fragments.
pub(crate) struct SlowPath {
    pub(crate) spd: SpdTables,
    pub(crate) spis: SpiIndex,
    /// Set once the program is loaded; never, where no port is a LAN's.
    pub(crate) asker: Arc<OnceLock<Asker>>,
    pub(crate) defrag: Defrag,
    /// When the sockets of `defrag` were last found empty.
    pub(crate) looked: Instant,
    /// When the TUN device was last found empty, unless this worker has had nothing to do since.
    pub(crate) tun_looked: Option<Instant>,
}

/// Where a packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// By the socket of this number.
    Socket(usize),
    /// From the gateway itself, or through its kernel.
    Tun,
}

/// A packet under work: an IP packet at `start..end` of the frame.
struct Job {
    frame: Frame,
    /// Offset of the Ethernet header, when there is one.
    ethernet: usize,
    start: usize,
    end: usize,
    sa: u32,
    generation: u32,
    origin: Origin,
}

pub(crate) struct Worker {
    wire: Wire,
    sas: Sas,
    shared: Arc<Shared>,
    slow_path: Option<SlowPath>,
    seal: Vec<Job>,
    open: Vec<Job>,
    /// Those that are being opened.
    opening: Vec<Job>,
    waiting: Waiting,
    watched: Watched,
    icmp_left: u32,
    /// When freed SAs are looked for next.
    sweep: Instant,
    /// Fragments beyond the first of each packet, of this round.
    cut: u64,
    /// Packets that were neither sent nor dropped at the end of the last round.
    kept: usize,
}

impl Worker {
    pub(crate) fn new(wire: Wire, shared: Arc<Shared>, slow_path: Option<SlowPath>) -> Self {
        Worker {
            wire,
            watched: Watched::new(shared.taps.clone()),
            sas: Sas::new(
                shared.sad.clone(),
                shared.selectors.clone(),
                shared.counters.clone(),
                shared.crypto,
            ),
            shared,
            slow_path,
            seal: Vec::with_capacity(BATCH + TUN_BATCH),
            open: Vec::with_capacity(BATCH + TUN_BATCH),
            opening: Vec::with_capacity(BATCH + TUN_BATCH),
            waiting: Waiting::default(),
            icmp_left: ICMP_PER_SWEEP,
            sweep: Instant::now() + SWEEP,
            cut: 0,
            kept: 0,
        }
    }

    /// Works until it is told to stop.
    pub(crate) fn run(mut self, figures: &Figures, waker: &Waker) {
        let mut fds = vec![readable(waker)];
        fds.extend(self.wire.sockets().map(readable));
        if let Some(slow_path) = &self.slow_path {
            fds.push(readable(&self.shared.tun));
            fds.extend(slow_path.defrag.sockets().map(readable));
        }
        while !self.shared.stop.load(Relaxed) {
            let (packets, ended) = self.turn(figures);
            if packets == 0 {
                let mut until = self.wire.deadline().map_or(self.sweep, |d| d.min(self.sweep));
                if self.wire.awaits_frames() {
                    until = until.min(ended + RETRY);
                }
                if self.waiting.len() > 0 {
                    until = until.min(ended + acquire::LOOK);
                }
                // Rounded up: a deadline a fraction of a millisecond away must not be waited for by spinning.
                let wait = until.saturating_duration_since(ended).as_millis() as i32 + 1;
                poll(&mut fds, wait);
                waker.reset();
                if let Some(slow_path) = &mut self.slow_path {
                    slow_path.tun_looked = None;
                }
            }
        }
    }

    /// One round, and what is due after it; how many packets were in it, and when it ended.
    fn turn(&mut self, figures: &Figures) -> (usize, Instant) {
        let started = Instant::now();
        if started >= self.sweep {
            // As a round finds them: after it they are as empty as it could make them.
            figures.rings(self.wire.fill());
        }
        let packets = self.round(started);
        let ended = Instant::now();
        if packets > 0 {
            figures.batch(packets as u64, (ended - started).as_nanos() as u64);
        }
        if ended >= self.sweep {
            self.sas.sweep();
            self.wire.view.forget();
            self.icmp_left = ICMP_PER_SWEEP;
            self.shared.counters.ring_full().fetch_add(self.wire.missed(), Relaxed);
            figures.fill(self.wire.held() + self.waiting.len(), self.wire.free_frames());
            self.sweep = ended + SWEEP;
        }
        (packets, ended)
    }

    /// One round; how many packets were in it.
    fn round(&mut self, now: Instant) -> usize {
        self.watched.refresh();
        self.wire.settle(now, &self.sas);
        let given = self.collect(now);
        let packets =
            given + self.collect_tun(now) + self.collect_reassembled(now) + self.collect_waiting(now);
        if packets > 0 {
            self.seal_batch(now);
            self.open_batch(now);
            // Answers to what was opened.
            self.seal_batch(now);
        }
        self.wire.flush();
        self.account(given);
        packets
    }

    /// Counts what of the `given` frames, and of those kept before, is done with. Only now that the kernel has what is
    /// sent: whenever this process is killed, no packet is lost that counts as handled.
    fn account(&mut self, given: usize) {
        let kept = self.waiting.len() + self.wire.held() + self.wire.unsent();
        let before = std::mem::replace(&mut self.kept, kept);
        if self.cut > 0 {
            self.shared.counters.cut().fetch_add(std::mem::take(&mut self.cut), Relaxed);
        }
        if given + before != kept {
            let handled = ((given + before) as u64).wrapping_sub(kept as u64);
            self.shared.counters.handled().fetch_add(handled, Relaxed);
        }
    }

    /// Takes frames out of all receive rings and tells by their metadata what to do with them: first each socket's share
    /// of a round, then what others have left of theirs.
    fn collect(&mut self, now: Instant) -> usize {
        let sockets = self.wire.sockets().len();
        let share = (BATCH / sockets.max(1)).max(1);
        let mut packets = 0;
        for most in [share, BATCH] {
            for number in 0..sockets {
                packets += self.collect_from(number, most.min(BATCH - packets), now);
            }
        }
        packets
    }

    /// The same of one socket, and of so many frames at most.
    fn collect_from(&mut self, number: usize, most: usize, now: Instant) -> usize {
        for packets in 0..most {
            let Some(received) = self.wire.receive(number) else { return packets };
            let Ok(received) = received else {
                count(self.shared.counters.no_frame());
                continue;
            };
            let (mut frame, ethernet, end) = (received.frame, received.start, received.end);
            let meta = ethernet
                .checked_sub(Meta::SIZE)
                .and_then(|at| Meta::read_from_bytes(&self.wire.umem.bytes(&mut frame)[at..ethernet]).ok());
            let known = meta.map(|m| (m.task, ethernet + usize::from(m.ip), m.sa, m.generation));
            let is_known = |task| matches!(task, task::SEAL | task::OPEN | task::HOLD);
            let known = known.filter(|(task, start, ..)| *start < end && is_known(*task));
            let Some((task, start, sa, generation)) = known else {
                count(self.shared.counters.bad_metadata());
                self.wire.umem.give(frame);
                continue;
            };
            let origin = Origin::Socket(number);
            let job = move || Job { frame, ethernet, start, end, sa, generation, origin };
            // Each is made where it goes: a copy of what has only just been written in parts would wait for it.
            match task {
                task::SEAL => self.seal.push(job()),
                task::OPEN => self.open.push(job()),
                _ => self.wait(job(), sa, now),
            }
        }
        most
    }

    /// Takes packets from the TUN device. What no policy protects is dropped: the device stands for tunnels only.
    fn collect_tun(&mut self, now: Instant) -> usize {
        let mut packets = 0;
        let looked = self.slow_path.as_ref().and_then(|slow_path| slow_path.tun_looked);
        if looked.is_some_and(|looked| now.saturating_duration_since(looked) < TUN_PAUSE) {
            return 0;
        }
        for _ in 0..TUN_BATCH {
            let Some(slow_path) = &mut self.slow_path else { break };
            let counters = &self.shared.counters;
            let Some(mut frame) = self.wire.umem.take() else {
                count(counters.no_frame());
                break;
            };
            let buf = self.wire.umem.bytes(&mut frame);
            let Some(len) = self.shared.tun.read(&mut buf[TUN_START..]) else {
                self.wire.umem.give(frame);
                slow_path.tun_looked = Some(now);
                break;
            };
            packets += 1;
            let end = TUN_START + len;
            let packet = &buf[..end];
            let flow = decode::ip(packet, TUN_START).and_then(|headers| {
                Ok((decode::flow(packet, &headers)?, headers.fragment == decode::Fragment::Whole))
            });
            let policy = match flow {
                Ok((flow, is_whole)) => match look_up(&slow_path.spd, &flow) {
                    Some(rule) if rule.action == action::PROTECT => Ok(rule.slot(&flow, is_whole)),
                    _ => Err(counters.tun_no_policy()),
                },
                Err(_) => Err(counters.tun_malformed()),
            };
            let policy = match policy {
                Ok(policy) => policy,
                Err(counter) => {
                    count(counter);
                    self.wire.umem.give(frame);
                    continue;
                }
            };
            let sa = self.shared.outbounds.get(policy);
            let SaRef { index, generation } = sa.unwrap_or_default();
            let (ethernet, start, origin) = (TUN_START, TUN_START, Origin::Tun);
            let mut job = Job { frame, ethernet, start, end, sa: index, generation, origin };
            match sa {
                Some(_) => self.seal.push(job),
                None => {
                    self.ask(&mut job, policy);
                    self.wait(job, policy, now);
                }
            }
        }
        packets
    }

    /// Takes ESP and AH from the kernel: all of it where there is no AF_XDP, else what came in fragments. The latter not
    /// in every round: they are rare, and every look costs system calls.
    fn collect_reassembled(&mut self, now: Instant) -> usize {
        let Some(slow_path) = &mut self.slow_path else { return 0 };
        let everything = self.wire.is_by_kernel();
        if !everything && now.saturating_duration_since(slow_path.looked) < RETRY {
            return 0;
        }
        let (counters, mut packets) = (&self.shared.counters, 0);
        while packets < TUN_BATCH {
            let Some(mut frame) = self.wire.umem.take_long() else {
                count(counters.no_frame());
                break;
            };
            let buf = self.wire.umem.bytes(&mut frame);
            let Some(taken) = slow_path.defrag.take(&mut buf[TUN_START..]) else {
                self.wire.umem.give(frame);
                slow_path.looked = now;
                break;
            };
            packets += 1;
            let counter = if everything { counters.by_socket() } else { counters.reassembled() };
            count(counter);
            let found = match taken {
                Taken::Packet(len) => {
                    let key = spi_key(&buf[..TUN_START + len], TUN_START);
                    key.and_then(|key| slow_path.spis.get(&key).ok()?).map(|sa| (sa, TUN_START + len))
                }
                Taken::TooLong => None,
            };
            let Some((SaRef { index, generation }, end)) = found else {
                let counter =
                    if everything { counters.by_socket_dropped() } else { counters.reassembled_dropped() };
                count(counter);
                self.wire.umem.give(frame);
                continue;
            };
            let (ethernet, start, origin) = (TUN_START, TUN_START, Origin::Tun);
            self.open.push(Job { frame, ethernet, start, end, sa: index, generation, origin });
        }
        packets
    }

    /// Shows a packet, `start..end` of the job's frame, to who watches its tunnel.
    fn show(&mut self, job: &mut Job, (start, end): (usize, usize), side: Side, is_outbound: bool) {
        let Some(sa) = self.sas.get(job.sa) else { return };
        let packet = self.wire.umem.bytes(&mut job.frame).get(start..end);
        for tap in self.watched.list() {
            tap.copy(sa.tunnel, side, is_outbound, packet);
        }
    }

    /// Fetches the headers of a packet that is dealt with soon, and its SA where it is another than that of the packet now.
    #[inline]
    fn prefetch(&self, rest: &[Job], sa: u32) {
        if let Some(ahead) = rest.get(AHEAD) {
            self.wire.umem.prefetch(&ahead.frame, ahead.start);
            if ahead.sa != sa {
                self.sas.prefetch(ahead.sa);
            }
        }
    }

    /// Drops a packet under its cause.
    fn discard(&mut self, frame: Frame, sa: u32, cause: DropCause) {
        self.sas.count_drop(sa, cause);
        self.wire.umem.give(frame);
    }
}

/// What the inbound SA of the ESP or AH packet at `start` is looked up by; `None` when there is no whole one.
fn spi_key(packet: &[u8], start: usize) -> Option<SpiKey> {
    let headers = decode::ip(packet, start).ok()?;
    let (_, destination) = decode::addresses(packet, &headers).ok()?;
    let (at, protocol) = match headers.protocol {
        protocol::ESP => (0, protocol::ESP),
        protocol::AH => (AH_SPI, protocol::AH),
        protocol::UDP => (UDP_HEADER, protocol::ESP),
        _ => return None,
    };
    let spi = packet.get(headers.payload + at..headers.end)?.first_chunk::<4>()?;
    Some(SpiKey { destination, spi: u32::from_be_bytes(*spi), protocol: protocol.into() })
}

/// Packets and bytes of one SA, counted together and added to its state once a run.
struct Tally<'a> {
    sas: &'a Sas,
    /// Milliseconds of CLOCK_BOOTTIME, asked for once: it costs as much as a short packet.
    seen: u64,
    sa: u32,
    packets: u64,
    bytes: u64,
}

impl<'a> Tally<'a> {
    fn new(sas: &'a Sas) -> Self {
        Tally { sas, seen: sys::boottime_ms(), sa: 0, packets: 0, bytes: 0 }
    }

    fn add(&mut self, sa: u32, bytes: usize) {
        if sa != self.sa {
            self.flush();
            self.sa = sa;
        }
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    fn flush(&mut self) {
        if self.packets > 0
            && let Some(state) = self.sas.state(self.sa)
        {
            state.packets.fetch_add(self.packets, Relaxed);
            state.bytes.fetch_add(self.bytes, Relaxed);
            state.last_seen.store(self.seen, Relaxed);
        }
        (self.packets, self.bytes) = (0, 0);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The cause as it is counted.
fn cause(drop: adit_esp::Drop) -> DropCause {
    match drop {
        adit_esp::Drop::NoSa => DropCause::NoSa,
        adit_esp::Drop::Malformed => DropCause::Malformed,
        adit_esp::Drop::Authentication => DropCause::Authentication,
        adit_esp::Drop::Replay => DropCause::Replay,
        adit_esp::Drop::TooBig => DropCause::TooBig,
        adit_esp::Drop::SequenceExhausted => DropCause::SequenceExhausted,
        adit_esp::Drop::BadPadding => DropCause::Padding,
        adit_esp::Drop::Dummy => DropCause::Dummy,
        adit_esp::Drop::BadInner => DropCause::BadInner,
    }
}
