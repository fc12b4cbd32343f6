//! From an inner packet to an outer one.

use super::{BATCH, Job, Origin, TUN_BATCH, Tally, Wire, Worker, cause, hold::Outgoing};
use crate::{
    capture::Side,
    nexthop::{Resolution, Way},
    packet::{
        Cut, MAX_FRAGMENTS, Pieces, Problem, answer, clamp_mss, complete_checksum, decrement_hop_limit,
        forbids_fragmentation,
    },
    report::count,
    xsk::{Frame, HEADROOM},
};
use adit_esp::{Outcome, Packet};
use adit_maps::{
    address::Address,
    decode::{self, ETHERNET, Headers},
    sa::{DropCause, direction},
};
use arrayvec::ArrayVec;
use std::time::Instant;

/// Packets that are sealed together: what a round collects, and room for fragments.
const MAX: usize = BATCH + TUN_BATCH + MAX_FRAGMENTS;

/// What every IPv6 link takes (RFC 8200 section 5), and so every tunnel.
const IPV6_LEAST_MTU: usize = 1280;

/// What all packets of an SA have in common, as long as the view of the network stays the same.
#[derive(Clone, Copy)]
pub(super) struct Route {
    sa: u32,
    generation: u32,
    peer: Address,
    resolution: Resolution,
    /// Bytes of the longest outer packet.
    mtu: u16,
    /// Bytes of the longest inner packet.
    longest: usize,
    /// Largest TCP segment in bytes, `None` to derive it.
    mss: Option<u16>,
}

/// What is known of a packet before it is sealed.
#[derive(Clone, Copy)]
struct Plan {
    /// Which of the batch's routes it takes.
    route: usize,
    inner_len: usize,
    /// The path's MTU, when it must not be cut and yet has to pass: then the sealed packet is (RFC 2473 section 7.1).
    cut_sealed: Option<u16>,
}

/// A packet after the engine.
#[derive(Clone, Copy)]
struct Sealed {
    start: usize,
    end: usize,
    outcome: Outcome,
}

/// Packets that are ready to be sealed, and what is known of each.
#[derive(Default)]
struct Ready {
    jobs: ArrayVec<Job, MAX>,
    plans: ArrayVec<Plan, MAX>,
    /// One for each run of packets of one SA.
    routes: ArrayVec<Route, MAX>,
}

impl Ready {
    fn push(&mut self, job: Job, plan: Plan) {
        self.jobs.push(job);
        self.plans.push(plan);
    }
}

impl Worker {
    /// Seals everything collected for it, and sends it.
    pub(super) fn seal_batch(&mut self, now: Instant) {
        let mut collected = std::mem::take(&mut self.seal);
        let mut ready = Ready::default();
        let mut rest = collected.drain(..);
        while let Some(job) = rest.next() {
            self.prefetch(rest.as_slice(), job.sa);
            if ready.jobs.remaining_capacity() <= MAX_FRAGMENTS || ready.routes.is_full() {
                self.seal_ready(&mut ready, now);
            }
            // Changed where it stays: a copy of what has only just been written in parts would wait for it.
            let Ready { jobs, plans, routes } = &mut ready;
            let last = jobs.len();
            jobs.push(job);
            match self.prepare(&mut jobs[last], routes) {
                Ok((plan, None)) => plans.push(plan),
                Ok((plan, Some(cut))) => self.fragment(plan, cut, &mut ready),
                Err(cause) => jobs.drain(last..).for_each(|job| self.discard(job.frame, job.sa, cause)),
            }
        }
        drop(rest);
        self.seal = collected;
        self.seal_ready(&mut ready, now);
    }

    fn seal_ready(&mut self, ready: &mut Ready, now: Instant) {
        let Ready { jobs, plans, routes } = ready;
        if jobs.is_empty() {
            return routes.clear();
        }
        let sequence = self.reserve(jobs);
        let is_watched = self.watched.is_any();
        if is_watched {
            for job in jobs.iter_mut() {
                let inner = (job.start, job.end);
                self.show(job, inner, Side::Inner, true);
            }
        }

        let mut sealed = ArrayVec::<Sealed, MAX>::new();
        {
            let mut batch = ArrayVec::<Packet<'_>, MAX>::new();
            for (job, seq) in jobs.iter_mut().zip(&sequence) {
                let buf = self.wire.umem.bytes(&mut job.frame);
                let mut packet = Packet::new(buf, job.start, job.end, job.sa, seq.unwrap_or(0));
                if seq.is_none() {
                    packet.outcome = Outcome::Dropped(adit_esp::Drop::NoSa);
                }
                batch.push(packet);
            }
            self.sas.engine.seal(&mut batch);
            for p in &batch {
                sealed.push(Sealed { start: p.start, end: p.end, outcome: p.outcome });
            }
        }

        if is_watched {
            for (job, sealed) in jobs.iter_mut().zip(&sealed).filter(|(_, s)| s.outcome == Outcome::Done) {
                self.show(job, (sealed.start, sealed.end), Side::Outer, true);
            }
        }
        let mut tally = Tally::new(&self.sas);
        for (((job, plan), sealed), seq) in jobs.drain(..).zip(plans.drain(..)).zip(&sealed).zip(&sequence) {
            let sent = match sealed.outcome {
                Outcome::Done => {
                    tally.add(job.sa, plan.inner_len);
                    let Route { peer, resolution, .. } = routes[plan.route];
                    let packet = Outgoing {
                        frame: job.frame,
                        start: sealed.start,
                        end: sealed.end,
                        sa: job.sa,
                        way: Way::Outer,
                        destination: peer,
                    };
                    match plan.cut_sealed {
                        Some(mtu) if sealed.end - sealed.start > usize::from(mtu) => {
                            // Neither another packet of the SA has this ID for long, nor one of its successor.
                            let id = seq.unwrap_or(0) as u32 ^ job.generation.wrapping_mul(0x9e37_79b1);
                            send_in_pieces(&mut self.wire, packet, (usize::from(mtu), id), resolution, now)
                        }
                        _ => self.wire.send(packet, resolution, now),
                    }
                }
                Outcome::Dropped(drop) => Err((job.frame, cause(drop))),
                Outcome::Pending => Err((job.frame, DropCause::NoSa)),
            };
            if let Err((frame, cause)) = sent {
                self.sas.count_drop(job.sa, cause);
                self.wire.umem.give(frame);
            }
        }
        routes.clear();
    }

    /// Makes the fragments of the last packet ready in its place, all or none of them (RFC 4301 section 8.2.1: before sealing,
    /// so that the peer need not put anything together).
    fn fragment(&mut self, plan: Plan, cut: Cut, ready: &mut Ready) {
        let Some(mut job) = ready.jobs.pop() else { return };
        if self.wire.umem.free_for(cut.longest()) < cut.count() {
            count(self.shared.counters.no_frame());
            return self.discard(job.frame, job.sa, DropCause::QueueFull);
        }
        let before = ready.jobs.len();
        for n in 0..cut.count() {
            let Some(mut frame) = self.wire.umem.take_for(cut.longest()) else { break };
            let packet = &self.wire.umem.bytes(&mut job.frame)[job.start..job.end];
            let out = &mut self.wire.umem.bytes(&mut frame)[HEADROOM..];
            let Some(inner_len) = cut.write(packet, n, out) else {
                self.wire.umem.give(frame);
                break;
            };
            let (ethernet, start, end) = (HEADROOM, HEADROOM, HEADROOM + inner_len);
            let piece = Job { frame, ethernet, start, end, ..job };
            ready.push(piece, Plan { inner_len, ..plan });
        }
        if ready.jobs.len() - before == cut.count() {
            self.cut += cut.count() as u64 - 1;
            return self.wire.umem.give(job.frame);
        }
        ready.plans.truncate(before);
        for piece in ready.jobs.drain(before..) {
            self.wire.umem.give(piece.frame);
        }
        self.discard(job.frame, job.sa, DropCause::Malformed);
    }

    /// The way of the packets of an outbound SA.
    fn route(&mut self, sa: u32, generation: u32) -> Result<Route, DropCause> {
        let known = self.sas.current(sa, generation).ok_or(DropCause::NoSa)?;
        let stamp = self.wire.view.stamp();
        if let Some((of, route)) = known.route
            && of == stamp
        {
            return Ok(route);
        }
        if known.direction != direction::OUTBOUND {
            return Err(DropCause::NoSa);
        }
        let (peer, mtu, mss) = (known.peer, known.mtu, known.mss);
        let resolution = self.wire.view.resolve(Way::Outer, &peer);
        let path = match resolution {
            Resolution::Hop(hop) => hop.mtu,
            Resolution::Unresolved { mtu, .. } => mtu,
            Resolution::Local | Resolution::None => return Err(DropCause::NoRoute),
        };
        let mtu = mtu.map_or(path, |m| m.min(path));
        let longest = self.sas.engine.max_inner(sa, usize::from(mtu));
        let route = Route { sa, generation, peer, resolution, mtu, longest, mss };
        if let Some(known) = self.sas.get_mut(sa) {
            known.route = Some((stamp, route));
        }
        Ok(route)
    }

    /// Everything that a forwarder does to an inner packet before it is sealed; how to cut it, when it does not fit and
    /// may be cut.
    fn prepare(
        &mut self,
        job: &mut Job,
        routes: &mut ArrayVec<Route, MAX>,
    ) -> Result<(Plan, Option<Cut>), DropCause> {
        let is_like = |last: &Route| (last.sa, last.generation) == (job.sa, job.generation);
        if !routes.last().is_some_and(is_like) {
            routes.push(self.route(job.sa, job.generation)?);
        }
        let route = routes.len() - 1;
        let Route { mtu, longest, mss, .. } = routes[route];

        let buf = self.wire.umem.bytes(&mut job.frame);
        let headers = decode::ip(&buf[..job.end], job.start).map_err(|_| DropCause::BadInner)?;
        job.end = headers.end;
        let inner_len = job.end - job.start;
        // Before anything is changed that the checksum covers, and before the packet is cut.
        complete_checksum(buf, &headers);
        let (mut cut, mut cut_sealed) = (None, None);
        if inner_len > longest && !forbids_fragmentation(buf, &headers) {
            cut = Some(Cut::plan(buf, &headers, longest).ok_or(DropCause::TooBig)?);
        } else if inner_len > longest && headers.v6 && inner_len <= IPV6_LEAST_MTU {
            cut_sealed = Some(mtu);
        } else if inner_len > longest {
            let told = if headers.v6 { longest.max(IPV6_LEAST_MTU) } else { longest };
            self.answer(job, &headers, Problem::TooBig(told.min(usize::from(u16::MAX)) as u16));
            return Err(DropCause::TooBig);
        }
        // What the kernel hands over has been counted down by it, or started here (RFC 4301 section 5.1.2.1).
        if job.origin != Origin::Tun && !decrement_hop_limit(buf, &headers) {
            self.answer(job, &headers, Problem::HopLimit);
            return Err(DropCause::HopLimit);
        }
        clamp_mss(buf, &headers, || mss.unwrap_or_else(|| largest_segment(longest, &headers)));
        Ok((Plan { route, inner_len, cut_sealed }, cut))
    }

    /// Sequence numbers, reserved once for each run of packets of one SA.
    fn reserve(&self, jobs: &[Job]) -> ArrayVec<Option<u64>, MAX> {
        let mut sequence = ArrayVec::new();
        for run in jobs.chunk_by(|a, b| (a.sa, a.generation) == (b.sa, b.generation)) {
            let first = self.sas.reserve(run[0].sa, run[0].generation, run.len());
            sequence.extend((0..run.len() as u64).map(|i| first.map(|f| f + i)));
        }
        sequence
    }

    /// Answers the sender of an inner packet with an ICMP error.
    fn answer(&mut self, job: &mut Job, headers: &Headers, problem: Problem) {
        if self.icmp_left == 0 {
            return;
        }
        let Ok(flow) = decode::flow(&self.wire.umem.bytes(&mut job.frame)[..job.end], headers) else {
            return;
        };
        let from = self.wire.own_address(job.origin, &flow.source).unwrap_or(flow.destination);
        let macs = match job.origin {
            Origin::Socket(_) => mac_addresses(&self.wire.umem.bytes(&mut job.frame)[job.ethernet..]),
            Origin::Tun => None,
        };
        // Nor is there one to what came to everybody on the link (RFC 1812 section 4.3.2.7).
        if macs.is_some_and(|[to, _]| to[0] & 1 != 0) {
            return;
        }
        let Some(mut reply) = self.wire.umem.take() else { return };
        let packet = self.wire.umem.bytes(&mut job.frame);
        let out = self.wire.umem.bytes(&mut reply);
        let Some(len) = answer(&mut out[HEADROOM..], packet, headers, &flow, &from, problem) else {
            return self.wire.umem.give(reply);
        };
        let sent = match macs {
            Some([ours, theirs]) => {
                self.wire.send_back(reply, HEADROOM, HEADROOM + len, job.origin, [theirs, ours]).map_err(Some)
            }
            None => {
                let written = self.shared.tun.write(&out[HEADROOM..HEADROOM + len]);
                self.wire.umem.give(reply);
                if written { Ok(()) } else { Err(None) }
            }
        };
        match sent {
            Ok(()) => {
                self.icmp_left -= 1;
                count(self.shared.counters.icmp_sent());
            }
            Err(frame) => {
                if let Some(frame) = frame {
                    self.wire.umem.give(frame);
                }
            }
        }
    }
}

/// Sends a sealed packet in fragments of at most `longest` bytes that have this ID; behind one that is lost, no other.
fn send_in_pieces(
    wire: &mut Wire,
    mut packet: Outgoing,
    (longest, id): (usize, u32),
    resolution: Resolution,
    now: Instant,
) -> Result<(), (Frame, DropCause)> {
    let whole = packet.start..packet.end;
    let sealed = &mut wire.umem.bytes(&mut packet.frame)[whole.clone()];
    let Some(pieces) = Pieces::plan(sealed, longest, id) else {
        return Err((packet.frame, DropCause::TooBig));
    };
    if wire.umem.free_for(pieces.longest()) < pieces.count() {
        return Err((packet.frame, DropCause::QueueFull));
    }
    let mut lost = None;
    for n in 0..pieces.count() {
        let Some(mut frame) = wire.umem.take_for(pieces.longest()) else {
            lost = Some(DropCause::QueueFull);
            break;
        };
        let sealed = &wire.umem.bytes(&mut packet.frame)[whole.clone()];
        let Some(len) = pieces.write(sealed, n, &mut wire.umem.bytes(&mut frame)[HEADROOM..]) else {
            wire.umem.give(frame);
            lost = Some(DropCause::TooBig);
            break;
        };
        let (start, end) = (HEADROOM, HEADROOM + len);
        let Outgoing { sa, way, destination, .. } = packet;
        let piece = Outgoing { frame, start, end, sa, way, destination };
        if let Err((frame, cause)) = wire.send(piece, resolution, now) {
            wire.umem.give(frame);
            lost = Some(cause);
            break;
        }
    }
    match lost {
        Some(cause) => Err((packet.frame, cause)),
        None => {
            wire.umem.give(packet.frame);
            Ok(())
        }
    }
}

/// Destination and source of an Ethernet header.
fn mac_addresses(frame: &[u8]) -> Option<[[u8; 6]; 2]> {
    let header = frame.first_chunk::<ETHERNET>()?;
    Some([header[..6].try_into().ok()?, header[6..12].try_into().ok()?])
}

/// The largest TCP segment whose packet has `longest` bytes, without options.
pub(super) fn largest_segment(longest: usize, headers: &Headers) -> u16 {
    let overhead = if headers.v6 { 60 } else { 40 };
    longest.saturating_sub(overhead).clamp(1, usize::from(u16::MAX)) as u16
}
