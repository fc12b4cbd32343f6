//! TOTALS: what the workers of a gateway have done in all, since the maps were made. Unlike an SA's state it outlives
//! every SA, and unlike a process's memory every process, also one that is killed. The XDP program knows nothing
//! of it: the data plane makes the map.

use crate::sa::DropCause;

/// Counters of each kind; more than there are, to leave room within a layout version.
pub const PER_KIND: usize = 32;
/// 64-bit words of the map's one entry.
pub const WORDS: usize = 2 * PER_KIND;

const _: () = assert!(DropCause::ALL.len() <= PER_KIND);

#[cfg(any(test, feature = "user"))]
mod shared {
    use super::*;
    use crate::atomic::AtomicU64;
    use core::sync::atomic::Ordering::Relaxed;

    /// The entry of TOTALS: all atomics, because every worker counts here.
    #[repr(C)]
    pub struct Totals {
        /// Packets dropped, by [`DropCause`], whichever SA they were of.
        pub drops: [AtomicU64; PER_KIND],
        /// Packets of no SA, by the data plane's own numbers of what became of them.
        pub events: [AtomicU64; PER_KIND],
    }

    const _: () = assert!(size_of::<Totals>() == WORDS * size_of::<AtomicU64>());

    impl Totals {
        /// Counts a packet that was dropped.
        pub fn count_drop(&self, cause: DropCause) {
            self.drops[cause as usize].fetch_add(1, Relaxed);
        }

        /// Packets dropped for a cause.
        pub fn dropped(&self, cause: DropCause) -> u64 {
            self.drops[cause as usize].load(Relaxed)
        }
    }
}
#[cfg(any(test, feature = "user"))]
pub use shared::Totals;
