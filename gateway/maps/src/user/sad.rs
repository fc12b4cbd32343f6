//! The security association database in shared memory.

use super::{Directory, Error, Mapped, name};
use crate::{
    address::Address,
    atomic::{AtomicU64, fence},
    sa::{STATE_WORDS, SaRef, SadConfig, SadState, flags},
};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use zerocopy::transmute;
use zeroize::Zeroize;

/// What of an entry a worker has to look at with every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// 0 when the entry is free, being written, or does not exist.
    pub generation: u32,
    /// Odd while the entry is being changed.
    pub revision: u32,
}

/// SAD_CONFIG and SAD_STATE.
pub struct Sad {
    config: Mapped<{ SadConfig::WORDS }>,
    state: Mapped<STATE_WORDS>,
}

impl Sad {
    /// Maps both arrays.
    ///
    /// # Errors
    /// As [`Directory::check`] and [`Mapped::open`].
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        dir.check()?;
        Ok(Sad { config: Mapped::open(dir, name::SAD_CONFIG)?, state: Mapped::open(dir, name::SAD_STATE)? })
    }

    /// SAs that fit.
    pub fn capacity(&self) -> u32 {
        self.config.len().min(self.state.len())
    }

    /// The generation of an entry; 0 when it is free, being written, or does not exist.
    #[inline]
    pub fn generation(&self, index: u32) -> u32 {
        self.config.get(index).map_or(0, |words| halves(words[0].load(Acquire))[0])
    }

    /// Generation and revision of an entry.
    #[inline]
    pub fn version(&self, index: u32) -> Version {
        self.config.get(index).map_or_else(Version::default, |words| {
            let [generation, _] = halves(words[0].load(Acquire));
            let [revision, _] = halves(words[1].load(Acquire));
            Version { generation, revision }
        })
    }

    /// A consistent copy of an entry, `None` when it is free or changes at this moment. The copy holds keys: the
    /// caller wipes it.
    pub fn read(&self, index: u32) -> Option<SadConfig> {
        let mut copy = copied(self.config.get(index)?)?;
        let config = transmute!(copy);
        copy.zeroize();
        Some(config)
    }

    /// State and counters of an entry.
    #[inline]
    pub fn state(&self, index: u32) -> Option<&SadState> {
        // SAFETY: SadState is `repr(C)`, consists of STATE_WORDS AtomicU64 and nothing else (asserted beside it), so a
        // reference to that many AtomicU64 is a reference to it.
        self.state.get(index).map(|words| unsafe { &*words.as_ptr().cast::<SadState>() })
    }

    /// Where the entry lies in SAD_CONFIG and in SAD_STATE: for who wants to have it near before it is needed.
    #[inline]
    pub fn places(&self, index: u32) -> Option<[*const u8; 2]> {
        Some([self.config.get(index)?.as_ptr().cast(), self.state.get(index)?.as_ptr().cast()])
    }

    /// Reserves `count` sequence numbers under the key of this generation and gives the first. `None` when the SA has
    /// changed: then the numbers may have come from the counter of its successor, and must not be used with the old key.
    #[inline]
    pub fn reserve(&self, sa: SaRef, count: u64) -> Option<u64> {
        let first = self.state(sa.index)?.reserve(count);
        // The generation goes before the counter is reset: who got a number of the new counter sees, after this fence,
        // that it is gone.
        fence(Acquire);
        (self.generation(sa.index) == sa.generation).then_some(first)
    }

    /// Writes an entry and resets its state; from the return on, workers may use it. Its generation becomes another
    /// than any it had before; `config`'s own and its revision are ignored. Only `control` calls this. `None` when the index does not exist.
    pub fn install(&self, index: u32, config: &SadConfig) -> Option<SaRef> {
        let words = self.config.get(index)?;
        let state = self.state.get(index)?;
        let mut copy: [u64; SadConfig::WORDS] = transmute!(SadConfig { revision: 0, ..*config });
        let generation = replace(words, &copy, || state.iter().for_each(|word| word.store(0, Relaxed)));
        copy.zeroize();
        Some(SaRef { index, generation })
    }

    /// Sends the packets of an SA from and to other addresses and ports from now on (RFC 7296 section 2.23), and expects
    /// them from there. Index, generation, keys, state and with it the sequence numbers stay: no packet on its way is
    /// lost, and workers that have not seen the change yet go on with what they know.
    ///
    /// An inbound SA is found by our address: where that changes, its new entry of SPI_INDEX comes first. Only `control`
    /// calls this. Whether the SA is still the one meant; if not, nothing has changed.
    pub fn relocate(
        &self,
        sa: SaRef,
        local: Address,
        peer: Address,
        encapsulation: Option<(u16, u16)>,
    ) -> bool {
        let Some(words) = self.config.get(sa.index) else { return false };
        if sa.generation == 0 || halves(words[0].load(Acquire))[0] != sa.generation {
            return false;
        }
        let mut copy: [u64; SadConfig::WORDS] = std::array::from_fn(|i| words[i].load(Relaxed));
        let mut config: SadConfig = transmute!(copy);
        copy.zeroize();
        (config.local, config.peer) = (local, peer);
        (config.local_port, config.peer_port) = encapsulation.unwrap_or_default();
        config.flags = config.flags & !flags::UDP | if encapsulation.is_some() { flags::UDP } else { 0 };
        copy = transmute!(config);
        config.wipe();
        change(words, &copy);
        copy.zeroize();
        true
    }

    /// Frees an entry and overwrites its keys. Only `control` calls this.
    pub fn free(&self, index: u32) {
        let Some(words) = self.config.get(index) else { return };
        let [_, last] = halves(words[0].load(Relaxed));
        words[0].store(transmute!([0, last]), Relaxed);
        fence(Release);
        for word in &words[1..] {
            word.store(0, Relaxed);
        }
    }
}

/// A consistent copy of an entry's words; `None` while it is free or changes.
fn copied<const WORDS: usize>(words: &[AtomicU64; WORDS]) -> Option<[u64; WORDS]> {
    let before = [words[0].load(Acquire), words[1].load(Acquire)];
    if halves(before[0])[0] == 0 || halves(before[1])[0] % 2 == 1 {
        return None;
    }
    let mut copy = [0u64; WORDS];
    for (to, from) in copy.iter_mut().zip(words) {
        *to = from.load(Relaxed);
    }
    fence(Acquire);
    if before == [words[0].load(Relaxed), words[1].load(Relaxed)] {
        return Some(copy);
    }
    copy.zeroize();
    None
}

/// Makes an entry another SA's: all words but the first are `new`'s, what belongs to it is put right by `reset`. Gives
/// its generation.
fn replace<const WORDS: usize>(words: &[AtomicU64; WORDS], new: &[u64; WORDS], reset: impl FnOnce()) -> u32 {
    let [_, last] = halves(words[0].load(Relaxed));
    let generation = last.wrapping_add(1).max(1);
    words[0].store(transmute!([0, last]), Relaxed);
    fence(Release);
    for (to, from) in words.iter().zip(new).skip(1) {
        to.store(*from, Relaxed);
    }
    reset();
    words[0].store(transmute!([generation, generation]), Release);
    generation
}

/// Changes an entry behind its first two words, while it stays the same SA's.
fn change<const WORDS: usize>(words: &[AtomicU64; WORDS], new: &[u64; WORDS]) {
    let [revision, tunnel] = halves(words[1].load(Relaxed));
    // Odd already where a `control` died in the middle of this.
    let revision = revision | 1;
    words[1].store(transmute!([revision, tunnel]), Relaxed);
    fence(Release);
    for (to, from) in words.iter().zip(new).skip(2) {
        to.store(*from, Relaxed);
    }
    words[1].store(transmute!([revision.wrapping_add(1), tunnel]), Release);
}

/// The two fields of a word: of an entry's first its generation and the last one it had, of its second the revision
/// and the tunnel.
fn halves(word: u64) -> [u32; 2] {
    transmute!(word)
}

#[cfg(all(test, not(loom)))]
#[path = "sad_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "sad_interleavings.rs"]
mod interleavings;
