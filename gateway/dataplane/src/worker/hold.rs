//! Packets that wait for a neighbour's address.

use crate::{nexthop::Way, xsk::Frame};
use adit_maps::address::Address;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Packets that wait in all.
pub(super) const MAX_HELD: usize = 1024;
/// Packets that wait for one destination.
const MAX_PER_DESTINATION: usize = 64;
/// How long a packet waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// A packet ready but for its Ethernet header: an IP packet at `start..end` of the frame.
pub(super) struct Outgoing {
    pub(super) frame: Frame,
    pub(super) start: usize,
    pub(super) end: usize,
    /// The SA it is counted under.
    pub(super) sa: u32,
    pub(super) way: Way,
    pub(super) destination: Address,
}

/// The packets that wait, oldest first.
#[derive(Default)]
pub(super) struct Hold {
    packets: Vec<(Instant, Outgoing)>,
    per_destination: HashMap<(Way, Address), usize>,
}

impl Hold {
    pub(super) fn new() -> Self {
        Hold { packets: Vec::with_capacity(MAX_HELD), per_destination: HashMap::with_capacity(MAX_HELD) }
    }

    /// Lets a packet wait; whether it is the first for its destination.
    ///
    /// # Errors
    /// The packet, when too many wait already.
    pub(super) fn push(&mut self, packet: Outgoing, now: Instant) -> Result<bool, Outgoing> {
        if self.packets.len() >= MAX_HELD {
            return Err(packet);
        }
        let waiting = self.per_destination.entry((packet.way, packet.destination)).or_default();
        if *waiting >= MAX_PER_DESTINATION {
            return Err(packet);
        }
        *waiting += 1;
        let is_first = *waiting == 1;
        self.packets.push((now + PATIENCE, packet));
        Ok(is_first)
    }

    /// Takes out every packet that `is_ready`, or whose time is over, in order.
    pub(super) fn take(
        &mut self,
        now: Instant,
        mut is_ready: impl FnMut(&Outgoing) -> bool,
        mut out: impl FnMut(Outgoing),
    ) {
        for (deadline, packet) in
            self.packets.extract_if(.., |(deadline, packet)| *deadline <= now || is_ready(packet))
        {
            let _ = deadline;
            let key = (packet.way, packet.destination);
            if let Some(waiting) = self.per_destination.get_mut(&key) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.per_destination.remove(&key);
                }
            }
            out(packet);
        }
    }

    /// When the oldest packet's time is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.packets.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xsk::Umem;

    fn packet(umem: &mut Umem, last: u8) -> Outgoing {
        let frame = umem.take().unwrap();
        let destination = Address::v4([10, 0, 0, last]);
        Outgoing { frame, start: 256, end: 300, sa: 0, way: Way::Inner, destination }
    }

    #[test]
    fn a_destination_has_its_share_and_time_runs_out() {
        let mut umem = Umem::new(80, 0).unwrap();
        let (mut hold, now) = (Hold::new(), Instant::now());
        for i in 0..MAX_PER_DESTINATION {
            assert_eq!(hold.push(packet(&mut umem, 1), now).map_err(drop), Ok(i == 0));
        }
        assert!(hold.push(packet(&mut umem, 1), now).is_err());
        assert_eq!(hold.push(packet(&mut umem, 2), now + PATIENCE / 2).map_err(drop), Ok(true));
        assert_eq!(hold.deadline(), Some(now + PATIENCE));

        let mut taken = Vec::new();
        hold.take(now, |p| p.destination == Address::v4([10, 0, 0, 2]), |p| taken.push(p));
        assert_eq!((taken.len(), hold.len()), (1, MAX_PER_DESTINATION));
        hold.take(now + PATIENCE, |_| false, |p| taken.push(p));
        assert_eq!((taken.len(), hold.len(), hold.deadline()), (1 + MAX_PER_DESTINATION, 0, None));
        assert_eq!(hold.push(packet(&mut umem, 1), now).map_err(drop), Ok(true));
    }
}
