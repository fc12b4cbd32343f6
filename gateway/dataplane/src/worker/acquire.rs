//! Packets that wait for their policy to have an SA (RFC 4301 section 4.4.1: what raises an "acquire" is not lost).

use super::{Job, Worker};
use crate::report::count;
use adit_maps::{
    decode::{self, ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    sa::SaRef,
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How often the policies are looked at while packets wait.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// Packets that wait in all.
const MAX_WAITING: usize = 256;
/// Packets that wait for one policy.
const MAX_PER_POLICY: usize = 8;
/// How long a packet waits: what comes later than this, its sender has sent again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The packets that wait, oldest first, each for its policy.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<(Instant, u32, Job)>);

/// Why a packet waits no longer.
#[derive(Debug, PartialEq, Eq)]
enum Released {
    /// Its policy has this SA.
    Sa(SaRef),
    /// It has waited long enough.
    TooLate,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether another packet may wait for this policy.
    fn has_room(&self, policy: u32) -> bool {
        let of_policy = self.0.iter().filter(|(_, p, _)| *p == policy).count();
        self.0.len() < MAX_WAITING && of_policy < MAX_PER_POLICY
    }

    /// Lets a packet wait.
    ///
    /// # Errors
    /// The packet, when too many wait already.
    fn push(&mut self, job: Job, policy: u32, now: Instant) -> Result<(), Job> {
        if !self.has_room(policy) {
            return Err(job);
        }
        self.0.push_back((now + PATIENCE, policy, job));
        Ok(())
    }

    /// Takes out the first packet whose policy has an SA or whose time is over.
    fn pop(&mut self, now: Instant, sa: impl Fn(u32) -> Option<SaRef>) -> Option<(Job, Released)> {
        let (at, released) = self.0.iter().enumerate().find_map(|(at, (deadline, policy, _))| {
            let too_late = (*deadline <= now).then_some(Released::TooLate);
            sa(*policy).map(Released::Sa).or(too_late).map(|released| (at, released))
        })?;
        self.0.remove(at).map(|(_, _, job)| (job, released))
    }
}

impl Worker {
    /// Lets a packet wait for the SA of its policy.
    pub(super) fn wait(&mut self, job: Job, policy: u32, now: Instant) {
        if let Err(job) = self.waiting.push(job, policy, now) {
            count(self.shared.counters.no_sa());
            self.wire.umem.give(job.frame);
        }
    }

    /// Asks for the SA of a packet of the gateway's own, unless as many wait for it as may.
    pub(super) fn ask(&mut self, job: &mut Job, policy: u32) {
        if !self.waiting.has_room(policy) {
            return;
        }
        let Some(asker) = self.slow_path.as_ref().and_then(|s| s.asker.get()) else { return };
        let Some(ethernet) = job.start.checked_sub(ETHERNET) else { return };
        let buf = self.wire.umem.bytes(&mut job.frame);
        let kind = if buf[job.start] >> 4 == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        buf[ethernet..][..12].fill(0xff);
        buf[ethernet + 12..job.start].copy_from_slice(&kind.to_be_bytes());
        if asker.ask(&buf[ethernet..job.end]) {
            count(self.shared.counters.handled());
        }
    }

    /// Gives the packets to be sealed whose policy has an SA by now; how many there are.
    pub(super) fn collect_waiting(&mut self, now: Instant) -> usize {
        if self.waiting.len() == 0 {
            return 0;
        }
        let mut packets = 0;
        while let Some((mut job, released)) =
            self.waiting.pop(now, |policy| self.shared.outbounds.get(policy))
        {
            let packet = &self.wire.umem.bytes(&mut job.frame)[..job.end];
            let flow = decode::ip(packet, job.start).and_then(|headers| decode::flow(packet, &headers));
            // While it waited, the slot may have become another policy's.
            if let (Released::Sa(sa), Ok(flow)) = (released, flow)
                && self.sas.current(sa.index, sa.generation).is_some_and(|sa| sa.admits_outbound(&flow))
            {
                (job.sa, job.generation) = (sa.index, sa.generation);
                self.seal.push(job);
                packets += 1;
            } else {
                count(self.shared.counters.no_sa());
                self.wire.umem.give(job.frame);
            }
        }
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{worker::Origin, xsk::Umem};

    fn job(umem: &mut Umem, mark: usize) -> Job {
        let frame = umem.take().unwrap();
        Job { frame, ethernet: 0, start: mark, end: 0, sa: 0, generation: 0, origin: Origin::Tun }
    }

    #[test]
    fn packets_wait_for_their_own_policy_in_order_and_not_for_ever() {
        let mut umem = Umem::new(8, 0).unwrap();
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for (mark, policy) in [(1, 7), (2, 9), (3, 7)] {
            waiting.push(job(&mut umem, mark), policy, now).map_err(drop).unwrap();
        }
        let sa = SaRef { index: 4, generation: 1 };
        let mut pop = |now, policy| {
            waiting.pop(now, |p| (p == policy).then_some(sa)).map(|(job, released)| (job.start, released))
        };
        assert_eq!(pop(now, 8), None);
        assert_eq!(pop(now, 7), Some((1, Released::Sa(sa))));
        assert_eq!(pop(now, 7), Some((3, Released::Sa(sa))));
        assert_eq!(pop(now, 7), None);
        assert_eq!(pop(now + PATIENCE, 7), Some((2, Released::TooLate)));
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn a_policy_has_its_share_and_all_have_a_bound() {
        let mut umem = Umem::new(MAX_WAITING as u32 + 1, 0).unwrap();
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..MAX_WAITING {
            let refused = (n % MAX_PER_POLICY == 0 && n > 0).then(|| {
                let packet = job(&mut umem, 0);
                let refused = waiting.push(packet, (n / MAX_PER_POLICY) as u32 - 1, now).unwrap_err();
                umem.give(refused.frame);
            });
            assert_eq!(refused.is_some(), n % MAX_PER_POLICY == 0 && n > 0);
            waiting.push(job(&mut umem, 0), (n / MAX_PER_POLICY) as u32, now).map_err(drop).unwrap();
        }
        assert!(waiting.push(job(&mut umem, 0), u32::MAX, now).is_err());
    }
}
