//! The security association database in shared memory.

use super::{Directory, Error, Mapped, name};
use crate::{
    address::Address,
    sa::{STATE_WORDS, SaRef, SadConfig, SadState, flags},
};
use std::sync::atomic::{
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
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
        let words = self.config.get(index)?;
        let before = [words[0].load(Acquire), words[1].load(Acquire)];
        if halves(before[0])[0] == 0 || halves(before[1])[0] % 2 == 1 {
            return None;
        }
        let mut copy = [0u64; SadConfig::WORDS];
        for (to, from) in copy.iter_mut().zip(words) {
            *to = from.load(Relaxed);
        }
        fence(Acquire);
        let after = [words[0].load(Relaxed), words[1].load(Relaxed)];
        let config = (before == after).then(|| transmute!(copy));
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
    /// than any it had before; `config`'s own and its revision are ignored. Only `control` calls this. `None` when the index does not exist.
    pub fn install(&self, index: u32, config: &SadConfig) -> Option<SaRef> {
        let words = self.config.get(index)?;
        let state = self.state.get(index)?;
        let [_, last] = halves(words[0].load(Relaxed));
        let generation = last.wrapping_add(1).max(1);
        words[0].store(transmute!([0, last]), Relaxed);
        fence(Release);
        let mut copy: [u64; SadConfig::WORDS] = transmute!(SadConfig { revision: 0, ..*config });
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
        // Odd already where a `control` died in the middle of this.
        config.revision |= 1;
        let tunnel = config.tunnel;
        words[1].store(transmute!([config.revision, tunnel]), Relaxed);
        fence(Release);
        copy = transmute!(config);
        config.wipe();
        for (to, from) in words.iter().zip(&copy).skip(2) {
            to.store(*from, Relaxed);
        }
        copy.zeroize();
        words[1].store(transmute!([config.revision.wrapping_add(1), tunnel]), Release);
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

/// The two fields of a word: of an entry's first its generation and the last one it had, of its second the revision
/// and the tunnel.
fn halves(word: u64) -> [u32; 2] {
    transmute!(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sa::cipher;
    use std::sync::atomic::AtomicBool;

    fn sad() -> Sad {
        Sad { config: Mapped::anonymous(4), state: Mapped::anonymous(4) }
    }

    fn config(peer: [u8; 4]) -> SadConfig {
        SadConfig {
            tunnel: 7,
            spi: 0x100,
            cipher: cipher::AES128_CBC,
            flags: flags::ESN,
            local: Address::v4([192, 0, 2, 1]),
            peer: Address::v4(peer),
            key: [9; 32],
            ..SadConfig::free()
        }
    }

    #[test]
    fn a_move_keeps_generation_keys_and_state_and_shows() {
        let sad = sad();
        let sa = sad.install(2, &config([198, 51, 100, 1])).unwrap();
        let before = sad.version(2);
        assert_eq!((before.generation, before.revision), (sa.generation, 0));
        assert_eq!(sad.state(2).unwrap().reserve(10), 1);

        let (local, peer) = (Address::v4([192, 0, 2, 9]), Address::v4([203, 0, 113, 9]));
        assert!(sad.relocate(sa, local, peer, Some((4500, 1024))));
        assert_eq!(sad.version(2), Version { revision: 2, ..before });
        let now = sad.read(2).unwrap();
        let expected = SadConfig {
            generation: sa.generation,
            last_generation: sa.generation,
            revision: 2,
            local,
            peer,
            local_port: 4500,
            peer_port: 1024,
            flags: flags::ESN | flags::UDP,
            ..config([198, 51, 100, 1])
        };
        assert!(now == expected);
        assert_eq!(sad.state(2).unwrap().reserve(1), 11);

        assert!(sad.relocate(sa, local, peer, None));
        let now = sad.read(2).unwrap();
        assert_eq!((now.flags, now.local_port, now.peer_port, now.revision), (flags::ESN, 0, 0, 4));
    }

    #[test]
    fn an_sa_that_went_is_not_moved() {
        let sad = sad();
        let old = sad.install(0, &config([198, 51, 100, 1])).unwrap();
        sad.free(0);
        let peer = Address::v4([203, 0, 113, 9]);
        assert!(!sad.relocate(old, peer, peer, None));
        assert!(sad.read(0).is_none());
        let new = sad.install(0, &config([198, 51, 100, 2])).unwrap();
        assert_ne!(new.generation, old.generation);
        assert!(!sad.relocate(old, peer, peer, None));
        assert!(!sad.relocate(SaRef { index: 1, generation: 0 }, peer, peer, None));
        assert!(!sad.relocate(SaRef { index: 99, generation: 1 }, peer, peer, None));
        assert_eq!(sad.read(0).unwrap().peer, Address::v4([198, 51, 100, 2]));
    }

    #[test]
    fn a_move_that_was_cut_short_is_read_by_nobody_until_the_next() {
        let sad = sad();
        let sa = sad.install(0, &config([198, 51, 100, 1])).unwrap();
        sad.config.get(0).unwrap()[1].store(transmute!([5u32, 7u32]), Relaxed);
        assert!(sad.read(0).is_none());
        let peer = Address::v4([203, 0, 113, 9]);
        assert!(sad.relocate(sa, peer, peer, None));
        let now = sad.read(0).unwrap();
        assert_eq!((now.peer, now.revision, now.tunnel), (peer, 6, 7));
    }

    #[test]
    fn no_copy_is_half_of_one_place_and_half_of_another() {
        let sad = sad();
        let sa = sad.install(0, &config([1; 4])).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut seen, mut is_last) = (0, false);
                while !is_last {
                    is_last = done.load(Acquire);
                    let Some(copy) = sad.read(0) else { continue };
                    let n = copy.peer.0[15];
                    assert!(copy.peer == Address::v4([n; 4]));
                    assert!(copy.revision == 0 || copy.local == copy.peer);
                    assert!(copy.revision == 0 || copy.peer_port == u16::from(n));
                    seen += 1;
                }
                seen
            });
            for n in (0..=u8::MAX).cycle().take(20_000) {
                let at = Address::v4([n; 4]);
                assert!(sad.relocate(sa, at, at, Some((4500, n.into()))));
            }
            done.store(true, Release);
            assert!(reader.join().unwrap() > 0);
        });
        assert_eq!(sad.version(0).revision, 40_000);
    }
}
