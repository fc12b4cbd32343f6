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
}

impl Attempts {
    pub(super) fn begin(&mut self, now: Instant, id: TunnelId) {
        self.end(id);
        self.began.insert((now, id));
        self.of.insert(id, now);
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

    /// When there is room without that any of them ends; `None` when there is.
    pub(super) fn room_at(&self) -> Option<Instant> {
        self.began.first().filter(|_| self.began.len() >= AT_ONCE).map(|(at, _)| *at + PATIENCE)
    }
}
