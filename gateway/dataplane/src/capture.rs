//! Copies of a tunnel's packets for whoever watches it.
//!
//! A worker looks once a round whether anybody watches. Only then are packets copied, into a bounded queue for each who
//! does: one who does not keep up misses packets, which are counted, and holds nobody up.

mod keys;
mod pcapng;

pub(crate) use keys::Keys;
pub(crate) use pcapng::Writer;

use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Packets that wait to be written.
const QUEUE: usize = 4096;

/// Which packet of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    /// In clear, before sealing or after opening.
    Inner,
    /// Sealed.
    Outer,
}

/// A copy of a packet.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    /// Since 1970.
    pub(crate) at: Duration,
    pub(crate) side: Side,
    pub(crate) is_outbound: bool,
    /// From the IP header on.
    pub(crate) packet: Box<[u8]>,
}

/// Somebody who watches a tunnel.
pub(crate) struct Tap {
    tunnel: u32,
    sides: Vec<Side>,
    copies: SyncSender<Copied>,
    missed: AtomicU64,
}

impl Tap {
    /// Copies a packet, if it is one of those that are watched. A packet of which some bytes are not there is not.
    pub(crate) fn copy(&self, tunnel: u32, side: Side, is_outbound: bool, packet: Option<&[u8]>) {
        let Some(packet) = packet.filter(|_| tunnel == self.tunnel && self.sides.contains(&side)) else {
            return;
        };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let copied = Copied { at, side, is_outbound, packet: packet.into() };
        if self.copies.try_send(copied).is_err() {
            self.missed.fetch_add(1, Relaxed);
        }
    }

    /// How many packets found the queue full.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }
}

/// All who watch.
#[derive(Default)]
pub(crate) struct Taps {
    /// Raised with every change.
    epoch: AtomicU32,
    list: Mutex<Vec<Arc<Tap>>>,
}

impl Taps {
    /// Lets somebody watch a tunnel, until what is returned is dropped.
    pub(crate) fn watch(self: &Arc<Self>, tunnel: u32, sides: Vec<Side>) -> Watch {
        let (sender, copies) = sync_channel(QUEUE);
        let tap = Arc::new(Tap { tunnel, sides, copies: sender, missed: AtomicU64::new(0) });
        self.change(|list| list.push(tap.clone()));
        Watch { tap, copies, taps: self.clone() }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>)) {
        change(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner));
        self.epoch.fetch_add(1, Release);
    }
}

/// A worker's eyes on those who watch.
pub(crate) struct Watched {
    taps: Arc<Taps>,
    epoch: u32,
    list: Vec<Arc<Tap>>,
}

impl Watched {
    pub(crate) fn new(taps: Arc<Taps>) -> Self {
        Watched { taps, epoch: 0, list: Vec::new() }
    }

    /// Takes notice of who watches now.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        let epoch = self.taps.epoch.load(Acquire);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.list = self.taps.list.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
    }

    /// Whether anybody watches.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        !self.list.is_empty()
    }

    /// Those who watch.
    pub(crate) fn list(&self) -> &[Arc<Tap>] {
        &self.list
    }
}

/// What somebody sees who watches.
pub(crate) struct Watch {
    tap: Arc<Tap>,
    copies: Receiver<Copied>,
    taps: Arc<Taps>,
}

impl Watch {
    /// The next packet; `None` when there is none for so long.
    pub(crate) fn next(&self, patience: Duration) -> Option<Copied> {
        self.copies.recv_timeout(patience).ok()
    }

    /// How many packets have been missed.
    pub(crate) fn missed(&self) -> u64 {
        self.tap.missed()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.taps.change(|list| list.retain(|tap| !Arc::ptr_eq(tap, &self.tap)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_sees_what_is_asked_for_and_misses_what_is_too_much() {
        let taps = Arc::<Taps>::default();
        let mut watched = Watched::new(taps.clone());
        watched.refresh();
        assert!(watched.list().is_empty());
        let watch = taps.watch(7, vec![Side::Inner]);
        watched.refresh();
        let tap = watched.list()[0].clone();
        tap.copy(8, Side::Inner, true, Some(b"another tunnel's"));
        tap.copy(7, Side::Outer, true, Some(b"sealed"));
        tap.copy(7, Side::Inner, false, None);
        tap.copy(7, Side::Inner, true, Some(b"in clear"));
        let seen = watch.next(Duration::ZERO).unwrap();
        assert_eq!((&*seen.packet, seen.is_outbound), (&b"in clear"[..], true));
        assert!(watch.next(Duration::ZERO).is_none());
        for _ in 0..QUEUE + 3 {
            tap.copy(7, Side::Inner, true, Some(b"x"));
        }
        assert_eq!(watch.missed(), 3);
        drop(watch);
        watched.refresh();
        assert!(watched.list().is_empty());
    }
}
