//! From an outer packet to an inner one.

use super::{
    AHEAD, BATCH, Job, Origin, TUN_BATCH, Tally, Worker, cause, hold::Outgoing, sa::Sa, seal::largest_segment,
};
use crate::{
    capture::Side,
    nexthop::{Resolution, Way},
    packet::{Cut, MAX_FRAGMENTS, Problem, answer, clamp_mss, decrement_hop_limit, forbids_fragmentation},
    report::count,
    xsk::{Frame, HEADROOM},
};
use adit_esp::{Outcome, Packet};
use adit_maps::{
    address::Address,
    decode::{self, Headers, protocol},
    policy::Flow,
    sa::{DropCause, SaRef, direction},
};
use arrayvec::ArrayVec;
use std::time::Instant;

/// Outer packets are no longer than this where there is no way to the peer at the moment.
const ETHERNET_MTU: u16 = 1500;

/// Packets that are opened together: what a round collects.
const MAX: usize = BATCH + TUN_BATCH;

/// A packet after the engine.
#[derive(Clone, Copy)]
struct Opened {
    start: usize,
    end: usize,
    outcome: Outcome,
}

impl Worker {
    /// Opens everything collected for it, and forwards it.
    pub(super) fn open_batch(&mut self, now: Instant) {
        let mut collected = std::mem::take(&mut self.open);
        let mut jobs = std::mem::take(&mut self.opening);
        let mut last = None;
        let mut rest = collected.drain(..);
        while let Some(job) = rest.next() {
            self.prefetch(rest.as_slice(), job.sa);
            let sa = (job.sa, job.generation);
            let is_inbound = |sa: &Sa| sa.direction == direction::INBOUND;
            if last == Some(sa) || self.sas.current(sa.0, sa.1).is_some_and(is_inbound) {
                last = Some(sa);
                jobs.push(job);
            } else {
                self.discard(job.frame, job.sa, DropCause::NoSa);
            }
        }
        drop(rest);
        self.open = collected;
        if jobs.is_empty() {
            self.opening = jobs;
            return;
        }

        let is_watched = self.watched.is_any();
        if is_watched {
            for job in &mut jobs {
                let outer = (job.start, job.end);
                self.show(job, outer, Side::Outer, false);
            }
        }
        let mut opened = ArrayVec::<Opened, MAX>::new();
        {
            let mut batch = ArrayVec::<Packet<'_>, MAX>::new();
            for job in &mut jobs {
                let buf = self.wire.umem.bytes(&mut job.frame);
                batch.push(Packet::new(buf, job.start, job.end, job.sa, 0));
            }
            let (engine, states) = self.sas.engine_and_states();
            engine.open(&mut batch, &states);
            for p in &batch {
                opened.push(Opened { start: p.start, end: p.end, outcome: p.outcome });
            }
        }

        if is_watched {
            for (job, opened) in jobs.iter_mut().zip(&opened).filter(|(_, o)| o.outcome == Outcome::Done) {
                self.show(job, (opened.start, opened.end), Side::Inner, false);
            }
        }
        // Counted by the run: a forward borrows all of the worker, so the tally cannot live across it.
        let mut counted = ArrayVec::<(u32, usize), MAX>::new();
        let (mut rest, mut opened) = (jobs.drain(..), opened.iter());
        while let (Some(mut job), Some(opened)) = (rest.next(), opened.next()) {
            let sa = job.sa;
            if let Some(ahead) = rest.as_slice().get(AHEAD) {
                self.wire.umem.prefetch(&ahead.frame, opened.start);
                if ahead.sa != sa
                    && let Some(ahead) = self.sas.get(ahead.sa)
                {
                    ahead.prefetch_selectors();
                }
            }
            let forwarded = match opened.outcome {
                Outcome::Done => {
                    (job.start, job.end) = (opened.start, opened.end);
                    let bytes = job.end - job.start;
                    self.forward(job, now).inspect(|()| counted.push((sa, bytes)))
                }
                Outcome::Dropped(drop) => Err((job.frame, cause(drop))),
                Outcome::Pending => Err((job.frame, DropCause::NoSa)),
            };
            if let Err((frame, cause)) = forwarded {
                self.discard(frame, sa, cause);
            }
        }
        drop(rest);
        self.opening = jobs;
        let mut tally = Tally::new(&self.sas);
        for (sa, bytes) in counted {
            tally.add(sa, bytes);
        }
    }

    /// Checks an opened packet against the SA's selectors and sends it on, or hands it to the kernel when it is ours.
    fn forward(&mut self, mut job: Job, now: Instant) -> Result<(), (Frame, DropCause)> {
        let Some(sa) = self.sas.get(job.sa) else { return Err((job.frame, DropCause::NoSa)) };
        let buf = self.wire.umem.bytes(&mut job.frame);
        let Ok(headers) = decode::ip(&buf[..job.end], job.start) else {
            return Err((job.frame, DropCause::BadInner));
        };
        let Ok(flow) = decode::flow(&buf[..job.end], &headers) else {
            return Err((job.frame, DropCause::BadInner));
        };
        if !sa.admits_inbound(&flow) {
            return Err((job.frame, DropCause::Selector));
        }
        // The way back is as long as the way here, as far as anybody knows.
        let engine = &self.sas.engine;
        let view = &mut self.wire.view;
        clamp_mss(buf, &headers, || {
            let path = match view.resolve(Way::Outer, &sa.peer) {
                Resolution::Hop(hop) => hop.mtu,
                Resolution::Unresolved { mtu, .. } => mtu,
                Resolution::Local | Resolution::None => ETHERNET_MTU,
            };
            let outer = sa.mtu.map_or(path, |mtu| mtu.min(path));
            sa.mss.unwrap_or_else(|| largest_segment(engine.max_inner(job.sa, usize::from(outer)), &headers))
        });

        let resolution = self.wire.view.resolve(Way::Inner, &flow.destination);
        // Without AF_XDP the kernel forwards, and does all that a forwarder has to. It is not asked where the packet
        // would leave in clear by a port that only faces peers.
        let is_known = matches!(resolution, Resolution::Hop(_) | Resolution::Unresolved { .. });
        if resolution == Resolution::Local || (self.wire.is_by_kernel() && is_known) {
            if !self.shared.tun.write(&buf[job.start..headers.end]) {
                count(self.shared.counters.tun_refused());
            }
            self.wire.umem.give(job.frame);
            return Ok(());
        }
        let mtu = match resolution {
            Resolution::Hop(hop) => hop.mtu,
            Resolution::Unresolved { mtu, .. } => mtu,
            Resolution::Local | Resolution::None => return Err((job.frame, DropCause::NoRoute)),
        };
        job.end = headers.end;
        let is_long = headers.end - job.start > usize::from(mtu);
        if is_long && forbids_fragmentation(buf, &headers) {
            self.answer_through(&mut job, &headers, &flow, resolution, Problem::TooBig(mtu));
            return Err((job.frame, DropCause::TooBig));
        }
        if !decrement_hop_limit(buf, &headers) {
            self.answer_through(&mut job, &headers, &flow, resolution, Problem::HopLimit);
            return Err((job.frame, DropCause::HopLimit));
        }
        if is_long {
            return self.forward_in_pieces(job, &headers, &flow, mtu, resolution, now);
        }
        let packet = Outgoing {
            frame: job.frame,
            start: job.start,
            end: headers.end,
            sa: job.sa,
            way: Way::Inner,
            destination: flow.destination,
        };
        self.wire.send(packet, resolution, now)
    }

    /// Sends an opened packet on in fragments, all or none of them.
    fn forward_in_pieces(
        &mut self,
        mut job: Job,
        headers: &Headers,
        flow: &Flow,
        mtu: u16,
        resolution: Resolution,
        now: Instant,
    ) -> Result<(), (Frame, DropCause)> {
        let umem = &mut self.wire.umem;
        let buf = umem.bytes(&mut job.frame);
        let Some(cut) = Cut::plan(buf, headers, usize::from(mtu)) else {
            return Err((job.frame, DropCause::TooBig));
        };
        let mut pieces = ArrayVec::<(Frame, usize), MAX_FRAGMENTS>::new();
        while pieces.len() < cut.count()
            && let Some(mut frame) = umem.take_for(cut.longest())
        {
            let packet = &umem.bytes(&mut job.frame)[job.start..job.end];
            let len = cut.write(packet, pieces.len(), &mut umem.bytes(&mut frame)[HEADROOM..]);
            pieces.push((frame, len.unwrap_or(0)));
        }
        if pieces.len() < cut.count() || pieces.iter().any(|(_, len)| *len == 0) {
            pieces.into_iter().for_each(|(frame, _)| umem.give(frame));
            return Err((job.frame, DropCause::TooBig));
        }
        umem.give(job.frame);
        self.cut += pieces.len() as u64 - 1;
        for (frame, len) in pieces {
            let (start, end, way) = (HEADROOM, HEADROOM + len, Way::Inner);
            let piece = Outgoing { frame, start, end, sa: job.sa, way, destination: flow.destination };
            if let Err((frame, cause)) = self.wire.send(piece, resolution, now) {
                self.discard(frame, job.sa, cause);
            }
        }
        Ok(())
    }

    /// Answers the sender of an opened packet with an ICMP error, through the tunnel it came by: sealed after this batch.
    fn answer_through(
        &mut self,
        job: &mut Job,
        headers: &Headers,
        flow: &Flow,
        resolution: Resolution,
        problem: Problem,
    ) {
        let Some(policy) = self.sas.get(job.sa).map(|sa| sa.policy) else { return };
        let Some(SaRef { index, generation }) = self.shared.outbounds.get(policy) else { return };
        if self.icmp_left == 0 || self.seal.len() == self.seal.capacity() {
            return;
        }
        let own = match resolution {
            Resolution::Hop(hop) => self.wire.view.snapshot().own_address(hop.slot, &flow.source),
            _ => None,
        };
        let Some(sa) = self.sas.current(index, generation) else { return };
        let protocol = if headers.v6 { protocol::ICMPV6 } else { protocol::ICMP };
        // An address of ours that the tunnel does not carry is no use; the one that was asked for it does carry.
        let is_carried = |from: &Address| sa.admits_outbound(&Flow::new(*from, flow.source, protocol, None));
        let candidates = [own.as_ref(), Some(&flow.destination)];
        let Some(from) = candidates.into_iter().flatten().find(|from| is_carried(from)) else { return };
        let Some(mut frame) = self.wire.umem.take() else { return };
        let packet = self.wire.umem.bytes(&mut job.frame);
        let out = &mut self.wire.umem.bytes(&mut frame)[HEADROOM..];
        let Some(len) = answer(out, packet, headers, flow, from, problem) else {
            return self.wire.umem.give(frame);
        };
        self.icmp_left -= 1;
        count(self.shared.counters.icmp_sent());
        let (ethernet, start, end, origin) = (HEADROOM, HEADROOM, HEADROOM + len, Origin::Tun);
        self.seal.push(Job { frame, ethernet, start, end, sa: index, generation, origin });
    }
}
