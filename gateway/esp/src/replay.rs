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

const BLOCK: u64 = 32;

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
    pub(crate) fn check(&self, seq: u64, window: u32) -> bool {
        if window == 0 {
            return seq != 0;
        }
        !self.is_left_of(seq, window)
            && self.place(seq).is_some_and(|place| place.accept(place.slot.load(Relaxed)).is_some())
    }

    /// Marks `seq`, which has authenticated, as seen; false when it was seen already or is too old by now.
    #[must_use]
    pub(crate) fn commit(&self, seq: u64, window: u32) -> bool {
        if window > 0 {
            let Some(place) = self.place(seq) else { return false };
            // One location carries the decision, so its modification order is all the ordering there has to be.
            let accept = |word| place.accept(word);
            if self.is_left_of(seq, window) || place.slot.fetch_update(Relaxed, Relaxed, accept).is_err() {
                return false;
            }
        }
        self.top.fetch_max(seq, Relaxed);
        true
    }

    /// The 64-bit sequence number whose low half was received, after RFC 4303 appendix A2.
    ///
    /// A number left of the window is taken for one of the next 2^32, so it fails to authenticate.
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

    fn is_left_of(&self, seq: u64, window: u32) -> bool {
        seq == 0 || seq.saturating_add(u64::from(window)) <= self.top.load(Relaxed)
    }

    fn place(&self, seq: u64) -> Option<Place<'_>> {
        let block = seq / BLOCK;
        let count = self.slots.len() as u64;
        let slot = &self.slots[block.checked_rem(count)? as usize];
        Some(Place { slot, lap: (block / count) as u32, bit: 1 << (seq % BLOCK) })
    }
}

/// Where the mark of a sequence number goes.
struct Place<'a> {
    slot: &'a AtomicU64,
    lap: u32,
    bit: u64,
}

impl Place<'_> {
    /// The slot's next word when the number is new there. A word of 0 was never written: those written hold a bit.
    fn accept(&self, word: u64) -> Option<u64> {
        let lap = (word >> 32) as u32;
        // Laps wrap after 2^44 packets; two that meet here are never 2^31 laps apart.
        match self.lap.wrapping_sub(lap) as i32 {
            0 if word & self.bit == 0 => Some(u64::from(self.lap) << 32 | word & 0xffff_ffff | self.bit),
            1.. => Some(u64::from(self.lap) << 32 | self.bit),
            _ if word == 0 => Some(u64::from(self.lap) << 32 | self.bit),
            _ => None,
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "replay_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "replay_interleavings.rs"]
mod interleavings;
