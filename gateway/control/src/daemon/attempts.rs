//! How many negotiations we have under way at a time.
//!
//! Whoever starts with thousands of tunnels begins them in the order of the configuration, a few dozen at a time: a
//! peer answers more of one address only against a cookie, or not at all, and what waits for an answer takes memory. A
//! peer that does not answer holds nobody up for long: what has not ended after [`PATIENCE`] counts no more.

use adit_ike::TunnelId;
use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// Negotiations that are begun before the first of them has ended; as many half-open IKE SAs a responder takes by
/// default without asking for a cookie.
pub(super) const AT_ONCE: usize = 64;

/// How long one counts: no longer than an initiator waits before it sends its first message again.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// The negotiations under way that still count, by when each began.
#[derive(Default)]
pub(super) struct Attempts {
    began: BTreeSet<(Instant, TunnelId)>,
    of: HashMap<TunnelId, Instant>,
    /// How many have begun since last there were none.
    many: usize,
}

impl Attempts {
    pub(super) fn begin(&mut self, now: Instant, id: TunnelId) {
        self.end(id);
        self.began.insert((now, id));
        self.of.insert(id, now);
        self.many += 1;
    }

    pub(super) fn end(&mut self, id: TunnelId) {
        if let Some(at) = self.of.remove(&id) {
            self.began.remove(&(at, id));
        }
    }

    /// Whether another may begin.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        while let Some((at, id)) = self.began.first().copied().filter(|(at, _)| *at + PATIENCE <= now) {
            self.began.remove(&(at, id));
            self.of.remove(&id);
        }
        self.began.len() < AT_ONCE
    }

    /// Whether there were many, more than at a time, and none is left: said once.
    pub(super) fn have_ended(&mut self) -> bool {
        self.began.is_empty() && std::mem::take(&mut self.many) > AT_ONCE
    }

    /// When there is room without that any of them ends; `None` when there is.
    pub(super) fn room_at(&self) -> Option<Instant> {
        self.began.first().filter(|_| self.began.len() >= AT_ONCE).map(|(at, _)| *at + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_many_is_said_once() {
        let (now, mut attempts) = (Instant::now(), Attempts::default());
        let mut some = |count: u32| {
            let mut said = Vec::new();
            for id in (0..count).map(TunnelId) {
                attempts.begin(now, id);
            }
            for id in (0..count).map(TunnelId) {
                said.push(attempts.have_ended());
                attempts.end(id);
            }
            said.extend([attempts.have_ended(), attempts.have_ended()]);
            said.iter().filter(|said| **said).count() == 1 && said[count as usize]
        };
        let many = AT_ONCE as u32 + 1;
        assert_eq!([many, 1, many - 1, many].map(&mut some), [true, false, false, true]);
    }
}
