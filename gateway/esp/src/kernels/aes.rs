//! Round keys of AES (FIPS 197).

use std::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// An expanded key. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(super) struct RoundKeys {
    /// In front: with it, AES-128 takes three lines of the cache.
    rounds: usize,
    keys: [[u8; 16]; 15],
}

impl RoundKeys {
    /// How often a block goes through the round: 10, 12 or 14.
    #[inline]
    pub(super) fn rounds(&self) -> usize {
        self.rounds
    }

    /// The key of a round, from 0 to [`RoundKeys::rounds`].
    #[inline]
    pub(super) fn of(&self, round: usize) -> &[u8; 16] {
        &self.keys[round]
    }

    /// Expands a key of 16, 24 or 32 octets for encryption.
    #[target_feature(enable = "sse2,aes")]
    pub(super) fn expand(key: &[u8]) -> Self {
        let words = key.len() / 4;
        let rounds = words + 6;
        let mut schedule = [0u32; 60];
        for (word, octets) in schedule.iter_mut().zip(key.chunks_exact(4)) {
            *word = octets.iter().rev().fold(0, |word, octet| word << 8 | u32::from(*octet));
        }
        // AESKEYGENASSIST substitutes without a table in memory; its lowest result is SubWord of the second word.
        let substituted = |word: u32| {
            _mm_cvtsi128_si32(_mm_aeskeygenassist_si128::<0>(_mm_set_epi32(0, 0, word as i32, 0))) as u32
        };
        let mut round_constant = 1u32;
        for i in words..4 * (rounds + 1) {
            let mut word = schedule[i - 1];
            if i % words == 0 {
                word = substituted(word).rotate_right(8) ^ round_constant;
                round_constant = round_constant << 1 ^ if round_constant & 0x80 != 0 { 0x11b } else { 0 };
            } else if words > 6 && i % words == 4 {
                word = substituted(word);
            }
            schedule[i] = schedule[i - words] ^ word;
        }
        let mut keys = [[0; 16]; 15];
        for (i, word) in schedule.iter().take(4 * (rounds + 1)).enumerate() {
            keys[i / 4][4 * (i % 4)..][..4].copy_from_slice(&word.to_le_bytes());
        }
        schedule.zeroize();
        Self { keys, rounds }
    }

    /// The same key for decryption by AESDEC: in reverse, the inner ones through InvMixColumns (FIPS 197 section
    /// 5.3.5).
    #[target_feature(enable = "sse2,aes")]
    pub(super) fn inverse(&self) -> Self {
        let mut keys = [[0; 16]; 15];
        for (round, key) in keys.iter_mut().take(self.rounds + 1).enumerate() {
            let from = self.of(self.rounds - round);
            // SAFETY: 16 octets are read from and written to blocks of 16.
            unsafe {
                let mut block = _mm_loadu_si128(from.as_ptr().cast());
                if round != 0 && round != self.rounds {
                    block = _mm_aesimc_si128(block);
                }
                _mm_storeu_si128(key.as_mut_ptr().cast(), block);
            }
        }
        Self { keys, rounds: self.rounds }
    }
}
