//! The compression functions of SHA-1 and SHA-256 (FIPS 180-4) by the processor's own instructions, over a few messages
//! whose instructions alternate: those of one wait for each other, those of two do not.
//!
//! The instructions have no VEX encoding. After code that leaves the upper halves of vector registers in use they cost
//! hundreds of cycles each, so [`clear_upper`] comes before them.

use std::arch::x86_64::*;

use super::sha::{K, MAX_WORDS};

/// Octets of a block.
pub(super) const BLOCK: usize = 64;
/// Messages that alternate at most.
pub(super) const MOST: usize = 2;

/// Whether this processor has the instructions.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1")
}

/// A hash function that has instructions.
pub(super) trait Instructions {
    /// Words of the state.
    const WORDS: usize;
    /// The state as the instructions want it.
    type State: Copy;

    /// From words, in the low octets of each.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn state(words: &[u64; MAX_WORDS]) -> Self::State;

    /// The words of a state, and zeros behind them.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn words(state: Self::State) -> [u32; MAX_WORDS];

    /// Takes a block of every message into its state.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn compress<const N: usize>(states: &mut [Self::State; N], blocks: [&[u8; BLOCK]; N]);
}

pub(super) struct Sha1;
pub(super) struct Sha256;

/// Marks the upper halves of all vector registers, where there are any, as not in use.
#[inline]
pub(super) fn clear_upper() {
    if is_x86_feature_detected!("avx") {
        // SAFETY: the instruction is there, as was just asked.
        unsafe { _mm256_zeroupper() };
    }
}

/// The four words at `block[16 * quarter..]`, their octets in `order`.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn quarter(block: &[u8; BLOCK], quarter: usize, order: __m128i) -> __m128i {
    let octets = &block[16 * quarter..][..16];
    // SAFETY: there are 16 octets, as was just looked at.
    _mm_shuffle_epi8(unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }, order)
}

/// The four words of a register, the lowest first.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn lanes(register: __m128i) -> [u32; 4] {
    let mut words = [0; 4];
    // SAFETY: 16 octets are written to an array of 16.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), register) };
    words
}

/// Does `$step` for each number.
macro_rules! each {
    ($step:ident, $($number:literal)*) => { $($step!($number);)* };
}

impl Instructions for Sha1 {
    const WORDS: usize = 5;
    /// A to D from the highest word down; E in the highest.
    type State = [__m128i; 2];

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    unsafe fn state(words: &[u64; MAX_WORDS]) -> Self::State {
        let [a, b, c, d, e, ..] = words.map(|word| word as i32);
        [_mm_set_epi32(a, b, c, d), _mm_set_epi32(e, 0, 0, 0)]
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    unsafe fn words([abcd, e]: Self::State) -> [u32; MAX_WORDS] {
        let [d, c, b, a] = lanes(abcd);
        [a, b, c, d, lanes(e)[3], 0, 0, 0]
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    unsafe fn compress<const N: usize>(states: &mut [Self::State; N], blocks: [&[u8; BLOCK]; N]) {
        let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let mut w = blocks.map(|block| [0, 1, 2, 3].map(|i| quarter(block, i, order)));
        let mut abcd = states.map(|[abcd, _]| abcd);
        let mut before = abcd;
        // Four rounds, and for all but the first the words that they take.
        macro_rules! rounds {
            ($g:literal) => {
                for i in 0..N {
                    const G: usize = $g;
                    if G >= 4 {
                        let first = _mm_sha1msg1_epu32(w[i][G & 3], w[i][(G + 1) & 3]);
                        let first = _mm_xor_si128(first, w[i][(G + 2) & 3]);
                        w[i][G & 3] = _mm_sha1msg2_epu32(first, w[i][(G + 3) & 3]);
                    }
                    let words = if G == 0 {
                        _mm_add_epi32(states[i][1], w[i][0])
                    } else {
                        _mm_sha1nexte_epu32(before[i], w[i][G & 3])
                    };
                    before[i] = abcd[i];
                    abcd[i] = _mm_sha1rnds4_epu32::<{ $g / 5 }>(abcd[i], words);
                }
            };
        }
        each!(rounds, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        for i in 0..N {
            let e = _mm_sha1nexte_epu32(before[i], states[i][1]);
            states[i] = [_mm_add_epi32(states[i][0], abcd[i]), e];
        }
    }
}

impl Instructions for Sha256 {
    const WORDS: usize = 8;
    /// A, B, E, F and C, D, G, H, each from the highest word down.
    type State = [__m128i; 2];

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    unsafe fn state(words: &[u64; MAX_WORDS]) -> Self::State {
        let [a, b, c, d, e, f, g, h] = words.map(|word| word as i32);
        [_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    unsafe fn words([abef, cdgh]: Self::State) -> [u32; MAX_WORDS] {
        let ([f, e, b, a], [h, g, d, c]) = (lanes(abef), lanes(cdgh));
        [a, b, c, d, e, f, g, h]
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    unsafe fn compress<const N: usize>(states: &mut [Self::State; N], blocks: [&[u8; BLOCK]; N]) {
        let order = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
        let mut w = blocks.map(|block| [0, 1, 2, 3].map(|i| quarter(block, i, order)));
        let mut abef = states.map(|[abef, _]| abef);
        let mut cdgh = states.map(|[_, cdgh]| cdgh);
        // Four rounds, and for all but the first the words that they take.
        macro_rules! rounds {
            ($g:literal) => {
                for i in 0..N {
                    const G: usize = $g;
                    if G >= 4 {
                        let first = _mm_sha256msg1_epu32(w[i][G & 3], w[i][(G + 1) & 3]);
                        let middle = _mm_alignr_epi8::<4>(w[i][(G + 3) & 3], w[i][(G + 2) & 3]);
                        w[i][G & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(first, middle), w[i][(G + 3) & 3]);
                    }
                    // SHA-256's constants are the upper halves of SHA-512's first 64.
                    let k = const { [K[4 * G] >> 32, K[4 * G + 1] >> 32, K[4 * G + 2] >> 32, K[4 * G + 3] >> 32] };
                    let k = _mm_set_epi32(k[3] as i32, k[2] as i32, k[1] as i32, k[0] as i32);
                    let words = _mm_add_epi32(w[i][G & 3], k);
                    let half = _mm_sha256rnds2_epu32(cdgh[i], abef[i], words);
                    abef[i] = _mm_sha256rnds2_epu32(abef[i], half, _mm_shuffle_epi32::<0x0e>(words));
                    cdgh[i] = half;
                }
            };
        }
        each!(rounds, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for i in 0..N {
            states[i] = [_mm_add_epi32(states[i][0], abef[i]), _mm_add_epi32(states[i][1], cdgh[i])];
        }
    }
}
