//! The security association database in shared memory.

use super::{Directory, Error, Mapped, name};
use crate::sa::{STATE_WORDS, SaRef, SadConfig, SadState};
use std::sync::atomic::{
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use zerocopy::transmute;
use zeroize::Zeroize;

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
        self.config.get(index).map_or(0, |words| generations(words[0].load(Acquire))[0])
    }

    /// A consistent copy of an entry, `None` when it is free or changes at this moment. The copy holds keys: the
    /// caller wipes it.
    pub fn read(&self, index: u32) -> Option<SadConfig> {
        let words = self.config.get(index)?;
        let before = words[0].load(Acquire);
        if generations(before)[0] == 0 {
            return None;
        }
        let mut copy = [0u64; SadConfig::WORDS];
        for (to, from) in copy.iter_mut().zip(words) {
            *to = from.load(Relaxed);
        }
        fence(Acquire);
        let config = (words[0].load(Relaxed) == before).then(|| transmute!(copy));
        copy.zeroize();
        config
    }

    /// State and counters of an entry.
    #[inline]
    pub fn state(&self, index: u32) -> Option<&SadState> {
        // SAFETY: SadState is `repr(C)`, consists of STATE_WORDS AtomicU64 and nothing else (asserted beside it), so a
        // reference to that many AtomicU64 is a reference to it.
        self.state.get(index).map(|words| unsafe { &*words.as_ptr().cast::<SadState>() })
    }

    /// Writes an entry and resets its state; from the return on, workers may use it. Its generation becomes another
    /// than any it had before; `config`'s own is ignored. Only `control` calls this. `None` when the index does not exist.
    pub fn install(&self, index: u32, config: &SadConfig) -> Option<SaRef> {
        let words = self.config.get(index)?;
        let state = self.state.get(index)?;
        let [_, last] = generations(words[0].load(Relaxed));
        let generation = last.wrapping_add(1).max(1);
        words[0].store(transmute!([0, last]), Relaxed);
        fence(Release);
        let mut copy: [u64; SadConfig::WORDS] = transmute!(*config);
        for (to, from) in words.iter().zip(&copy).skip(1) {
            to.store(*from, Relaxed);
        }
        copy.zeroize();
        for word in state {
            word.store(0, Relaxed);
        }
        words[0].store(transmute!([generation, generation]), Release);
        Some(SaRef { index, generation })
    }

    /// Frees an entry and overwrites its keys. Only `control` calls this.
    pub fn free(&self, index: u32) {
        let Some(words) = self.config.get(index) else { return };
        let [_, last] = generations(words[0].load(Relaxed));
        words[0].store(transmute!([0, last]), Relaxed);
        fence(Release);
        for word in &words[1..] {
            word.store(0, Relaxed);
        }
    }
}

/// The first word of an entry: its generation and the last one it had.
fn generations(word: u64) -> [u32; 2] {
    transmute!(word)
}
