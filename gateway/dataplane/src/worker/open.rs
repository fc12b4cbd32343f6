//! From an outer packet to an inner one.

use super::{BATCH, Job, TUN_BATCH, Tally, Worker, cause, hold::Outgoing, seal::largest_segment};
use crate::{
    nexthop::{Resolution, Way},
    packet::{clamp_mss, decrement_hop_limit},
    report::count,
};
use adit_esp::{Outcome, Packet};
use adit_maps::{
    decode,
    sa::{DropCause, direction},
};
use arrayvec::ArrayVec;
use std::time::Instant;

/// Outer packets are no longer than this where an SA and its port do not say.
const ETHERNET_MTU: usize = 1500;

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
        let mut jobs = ArrayVec::<Job, MAX>::new();
        for job in collected.drain(..) {
            match self.sas.current(job.sa, job.generation) {
                Some(sa) if sa.direction == direction::INBOUND => jobs.push(job),
                _ => self.discard(job.frame, job.sa, DropCause::NoSa),
            }
        }
        self.open = collected;
        if jobs.is_empty() {
            return;
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

        // Counted by the run: a forward borrows all of the worker, so the tally cannot live across it.
        let mut counted = ArrayVec::<(u32, usize), MAX>::new();
        for (mut job, opened) in jobs.drain(..).zip(&opened) {
            let sa = job.sa;
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
        let mut tally = Tally::new(&self.sas);
        for (sa, bytes) in counted {
            tally.add(sa, bytes);
        }
    }

    /// Checks an opened packet against the SA's selectors and sends it on, or hands it to the kernel when it is ours.
    fn forward(&mut self, mut job: Job, now: Instant) -> Result<(), (crate::xsk::Frame, DropCause)> {
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
        let longest = self.sas.engine.max_inner(job.sa, sa.mtu.map_or(ETHERNET_MTU, usize::from));
        clamp_mss(buf, &headers, sa.mss.unwrap_or_else(|| largest_segment(longest, &headers)));

        let resolution = self.wire.view.resolve(Way::Inner, &flow.destination);
        if resolution == Resolution::Local {
            if !self.shared.tun.write(&buf[job.start..headers.end]) {
                count(&self.shared.counters.tun_refused);
            }
            self.wire.umem.give(job.frame);
            return Ok(());
        }
        let mtu = match resolution {
            Resolution::Hop(hop) => hop.mtu,
            Resolution::Unresolved { mtu, .. } => mtu,
            Resolution::Local | Resolution::None => return Err((job.frame, DropCause::NoRoute)),
        };
        if headers.end - job.start > usize::from(mtu) {
            return Err((job.frame, DropCause::TooBig));
        }
        if !decrement_hop_limit(buf, &headers) {
            return Err((job.frame, DropCause::HopLimit));
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
}
