//! TOTALS in shared memory.

use super::{Directory, Error, Mapped, name};
use crate::{
    MMAPABLE,
    totals::{Totals, WORDS},
};
use aya::maps::{Array, MapData, MapError};
use std::{io, ops::Deref};

/// The entry of TOTALS, shared with every other process that maps it.
pub struct TotalsMap(Mapped<WORDS>);

impl TotalsMap {
    /// Maps it; where it is not there yet, makes it first, with the entry `first`.
    ///
    /// # Errors
    /// As [`Directory::check`] and [`Mapped::open`], or when it cannot be made.
    pub fn open_or_make(dir: &Directory, first: &[u64; WORDS]) -> Result<Self, Error> {
        dir.check()?;
        let pin = dir.pin(name::TOTALS);
        if !pin.exists() {
            let failed = |e: MapError| dir.failed(name::TOTALS, e);
            let mut map = Array::<MapData, [u64; WORDS]>::create(1, MMAPABLE as u32).map_err(failed)?;
            map.set(0, first, 0).map_err(failed)?;
            map.pin(&pin)
                .map_err(|e| failed(MapError::PinError { name: Some(name::TOTALS.into()), error: e }))?;
        }
        TotalsMap::of(Mapped::open(dir, name::TOTALS)?)
    }

    fn of(map: Mapped<WORDS>) -> Result<Self, Error> {
        if map.is_empty() {
            return Err(Error::Mmap { name: name::TOTALS, source: io::Error::other("it has no entry") });
        }
        Ok(TotalsMap(map))
    }
}

impl Deref for TotalsMap {
    type Target = Totals;

    fn deref(&self) -> &Totals {
        let words = self.0.get(0).expect("a map without an entry is not opened");
        // SAFETY: Totals is `repr(C)`, consists of WORDS AtomicU64 and nothing else (asserted beside it), so a reference
        // to that many AtomicU64 is a reference to it.
        unsafe { &*words.as_ptr().cast::<Totals>() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sa::DropCause;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn every_counter_has_a_word_of_its_own() {
        assert!(TotalsMap::of(Mapped::anonymous(0)).is_err());
        let totals = TotalsMap::of(Mapped::anonymous(1)).unwrap();
        DropCause::ALL.iter().for_each(|cause| totals.count_drop(*cause));
        for event in &totals.events {
            event.fetch_add(2, Relaxed);
        }
        totals.count_drop(DropCause::Replay);
        assert_eq!(totals.dropped(DropCause::Replay), 2);
        assert_eq!(totals.dropped(DropCause::HopLimit), 1);
        let words = totals.0.get(0).unwrap();
        let sum: u64 = words.iter().map(|word| word.load(Relaxed)).sum();
        assert_eq!(sum, DropCause::ALL.len() as u64 + 1 + 2 * totals.events.len() as u64);
    }
}
