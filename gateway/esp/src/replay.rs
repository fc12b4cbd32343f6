//! The anti-replay window (RFC 4303 section 3.4.3) in memory that workers share, and extended sequence numbers.
//!
//! Sequence numbers come in blocks of 32. Block `b` is kept in slot `b % slots.len()`, a word that holds its lap
//! `b / slots.len()` in the upper half and one bit a sequence number in the lower half. A word changes only by a
//! compare-and-swap that sets a bit, or that starts a later lap with one bit set; a lap never comes back. So no number
//! is accepted twice, whatever threads race and whenever a process dies between two steps. `top` only decides what is
//! too old and which high half an extended sequence number has; it may lag behind.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Sequence numbers of a block. Those of one block that are marked together are judged together: only with a window that
/// is no smaller does that come to the same as one after the other.
pub(crate) const BLOCK: u64 = 32;

/// Words of a replay window: 4,352 sequence numbers, the largest window and a block in motion at either end.
pub const REPLAY_SLOTS: usize = 136;

const _: () = assert!(REPLAY_SLOTS as u64 * BLOCK >= crate::REPLAY_WINDOW_MAX as u64 + BLOCK);

/// Where the anti-replay windows of SAs live.
pub trait SaStates {
    /// The window of the SA at this index; without one its packets are dropped.
    fn replay(&self, sa: u32) -> Option<ReplayState<'_>>;
}

/// The anti-replay window of one SA, all zero before its first packet.
///
/// With fewer than [`REPLAY_SLOTS`] slots the window is smaller than agreed, but still accepts nothing twice.
#[derive(Clone, Copy, Debug)]
pub struct ReplayState<'a> {
    /// Highest sequence number accepted.
    pub top: &'a AtomicU64,
    /// The blocks.
    pub slots: &'a [AtomicU64],
}

impl ReplayState<'_> {
    /// Whether `seq` is new and within `window`, 0 being off. Read-only: authenticate, then [`ReplayState::commit`].
    #[inline]
    pub(crate) fn check(&self, seq: u64, window: u32) -> bool {
        if window == 0 {
            return seq != 0;
        }
        let (block, bit) = block_of(seq);
        !self.is_left_of(seq, window)
            && self.place(block).is_some_and(|place| place.seen(place.slot.load(Relaxed)) & bit == 0)
    }

    /// Marks `seq`, which has authenticated, as seen; false when it was seen already or is too old by now.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn commit(&self, seq: u64, window: u32) -> bool {
        let (block, bit) = block_of(seq);
        self.commit_block(block, bit, window) != 0
    }

    /// Marks numbers of one block, which have authenticated, as seen: those of [`block_of`], together. Gives those that were
    /// neither seen already nor are too old by now.
    #[inline]
    #[must_use]
    pub(crate) fn commit_block(&self, block: u64, bits: u32, window: u32) -> u32 {
        let mut fresh = bits;
        if window > 0 {
            let Some(place) = self.place(block) else { return 0 };
            let reach = self.top.load(Relaxed).checked_sub(u64::from(window));
            let too_old = reach.map_or(0, |last| (last + 1).saturating_sub(block * BLOCK));
            fresh &= u32::MAX.checked_shl(too_old.min(BLOCK) as u32).unwrap_or(0);
            if block == 0 {
                fresh &= !1;
            }
            // One location carries the decision, so its modification order is all the ordering there has to be.
            let mut word = place.slot.load(Relaxed);
            loop {
                fresh &= !place.seen(word);
                if fresh == 0 {
                    return 0;
                }
                match place.slot.compare_exchange_weak(word, place.marked(word, fresh), Relaxed, Relaxed) {
                    Ok(_) => break,
                    Err(now) => word = now,
                }
            }
        }
        if fresh != 0 {
            self.top.fetch_max(block * BLOCK + u64::from(fresh.ilog2()), Relaxed);
        }
        fresh
    }

    /// The 64-bit sequence number whose low half was received, after RFC 4303 appendix A2.
    ///
    /// A number left of the window is taken for one of the next 2^32, so it fails to authenticate.
    #[inline]
    pub(crate) fn extend(&self, low: u32, window: u32) -> u64 {
        let top = self.top.load(Relaxed);
        let (top_high, top_low) = (top >> 32, top as u32);
        // Without anti-replay nothing is too old; half of the number space goes to either side.
        let reach = if window == 0 { 1 << 31 } else { window };
        let bottom = top_low.wrapping_sub(reach - 1);
        let high = match (top_low >= reach - 1, low >= bottom) {
            (true, true) => top_high,
            (true, false) => top_high.wrapping_add(1),
            // The window reaches back into the previous 2^32 numbers, if there were any.
            (false, true) => top_high.saturating_sub(1),
            (false, false) => top_high,
        };
        high << 32 | u64::from(low)
    }

    #[inline]
    fn is_left_of(&self, seq: u64, window: u32) -> bool {
        seq == 0 || seq.saturating_add(u64::from(window)) <= self.top.load(Relaxed)
    }

    #[inline(always)]
    fn place(&self, block: u64) -> Option<Place<'_>> {
        // What is divided by is known almost always, and then there is no division.
        let (lap, at) = match self.slots.len() {
            0 => return None,
            REPLAY_SLOTS => (block / REPLAY_SLOTS as u64, block % REPLAY_SLOTS as u64),
            count => (block / count as u64, block % count as u64),
        };
        Some(Place { slot: self.slots.get(at as usize)?, lap: lap as u32 })
    }
}

/// The block of a sequence number, and its bit there.
#[inline]
pub(crate) const fn block_of(seq: u64) -> (u64, u32) {
    (seq / BLOCK, 1 << (seq % BLOCK))
}

/// Where the marks of a block go.
struct Place<'a> {
    slot: &'a AtomicU64,
    lap: u32,
}

impl Place<'_> {
    /// The numbers that the slot's word says were seen, or are of a lap that is over. A word of 0 was never written: those
    /// written hold a bit.
    #[inline]
    fn seen(&self, word: u64) -> u32 {
        // Laps wrap after 2^44 packets; two that meet here are never 2^31 laps apart.
        match self.lap.wrapping_sub((word >> 32) as u32) as i32 {
            0 => word as u32,
            1.. => 0,
            _ if word == 0 => 0,
            _ => u32::MAX,
        }
    }

    /// The slot's next word, with the marks of numbers of which none was [seen](Place::seen) in this one.
    #[inline]
    fn marked(&self, word: u64, fresh: u32) -> u64 {
        let kept = if (word >> 32) as u32 == self.lap { word as u32 } else { 0 };
        u64::from(self.lap) << 32 | u64::from(kept | fresh)
    }
}

#[cfg(all(test, not(loom)))]
#[path = "replay_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "replay_interleavings.rs"]
mod interleavings;
