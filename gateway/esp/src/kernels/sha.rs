//! The compression functions of SHA-1, SHA-256 and SHA-512 (FIPS 180-4) over many messages side by side, one to a lane of
//! registers of any width.

use super::vector::Vector;

/// Most lanes that any of them has.
pub(super) const MAX_LANES: usize = 16;
/// Octets of the longest block.
pub(super) const MAX_BLOCK: usize = 128;
/// Words of the longest state.
pub(super) const MAX_WORDS: usize = 8;

/// A hash function over lanes.
///
/// # Safety
/// Its functions want what [`Vector`] wants, and are inlined as that says.
pub(super) trait Lanes {
    /// Octets of a block.
    const BLOCK: usize;
    /// Octets of a word.
    const WORD: usize;
    /// Words of the state.
    const WORDS: usize;
    /// Three blocks.
    type Tail: AsRef<[u8]> + AsMut<[u8]>;
    /// Zeros.
    const TAIL: Self::Tail;

    /// A word for every lane.
    unsafe fn spread<V: Vector>(words: [u64; MAX_LANES]) -> V;

    /// The same word in every lane.
    unsafe fn splat<V: Vector>(word: u64) -> V;

    /// Every lane from `a` where its bit in `mask` is set, else from `b`.
    unsafe fn select<V: Vector>(mask: u16, a: V, b: V) -> V;

    /// Loads the block at each place, word by word and in the machine's order; only as many places count as there are
    /// lanes, and at each of these a block is read.
    unsafe fn load<V: Vector>(at: &[*const u8; MAX_LANES]) -> [V; 16];

    /// Takes one block into every lane's state.
    unsafe fn compress<V: Vector>(state: &mut [V; MAX_WORDS], words: [V; 16]);
}

pub(super) struct Sha1;
pub(super) struct Sha256;
pub(super) struct Sha512;

/// [`Lanes::load`] for words of 32 bits.
#[inline(always)]
unsafe fn load32<V: Vector>(at: &[*const u8; MAX_LANES]) -> [V; 16] {
    let (lanes, order) = (V::OCTETS / 4, [3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12]);
    // SAFETY: the caller's promise.
    unsafe {
        let mut words = [V::zero(); 16];
        for (part, rows) in words.chunks_exact_mut(lanes).enumerate() {
            for (row, at) in rows.iter_mut().zip(at) {
                *row = V::shuffle(V::load(at.add(V::OCTETS * part)), order);
            }
            V::transpose32(rows);
        }
        words
    }
}

/// [`Lanes::load`] for words of 64 bits.
#[inline(always)]
unsafe fn load64<V: Vector>(at: &[*const u8; MAX_LANES]) -> [V; 16] {
    let (lanes, order) = (V::OCTETS / 8, [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8]);
    // SAFETY: the caller's promise.
    unsafe {
        let mut words = [V::zero(); 16];
        for (part, rows) in words.chunks_exact_mut(lanes).enumerate() {
            for (row, at) in rows.iter_mut().zip(at) {
                *row = V::shuffle(V::load(at.add(V::OCTETS * part)), order);
            }
            V::transpose64(rows);
        }
        words
    }
}

/// Does `$step` for `$from`, `$from + 1` up to `$from + 15`, each a constant.
macro_rules! sixteen {
    ($step:ident, $from:expr) => {
        $step!($from);
        $step!($from + 1);
        $step!($from + 2);
        $step!($from + 3);
        $step!($from + 4);
        $step!($from + 5);
        $step!($from + 6);
        $step!($from + 7);
        $step!($from + 8);
        $step!($from + 9);
        $step!($from + 10);
        $step!($from + 11);
        $step!($from + 12);
        $step!($from + 13);
        $step!($from + 14);
        $step!($from + 15);
    };
}

/// What hashes over words of 32 bits have in common.
macro_rules! words_of_32_bits {
    () => {
        const BLOCK: usize = 64;
        const WORD: usize = 4;
        type Tail = [u8; 192];
        const TAIL: Self::Tail = [0; 192];

        #[inline(always)]
        unsafe fn spread<V: Vector>(words: [u64; MAX_LANES]) -> V {
            let words = words.map(|word| word as u32);
            // SAFETY: the caller's promise; no register is wider than the words.
            unsafe { V::load(words.as_ptr().cast()) }
        }

        #[inline(always)]
        unsafe fn splat<V: Vector>(word: u64) -> V {
            // SAFETY: the caller's promise.
            unsafe { V::splat32(word as u32) }
        }

        #[inline(always)]
        unsafe fn select<V: Vector>(mask: u16, a: V, b: V) -> V {
            // SAFETY: the caller's promise.
            unsafe { V::select32(mask, a, b) }
        }

        #[inline(always)]
        unsafe fn load<V: Vector>(at: &[*const u8; MAX_LANES]) -> [V; 16] {
            // SAFETY: the caller's promise.
            unsafe { load32(at) }
        }
    };
}

impl Lanes for Sha1 {
    const WORDS: usize = 5;
    words_of_32_bits!();

    #[inline(always)]
    unsafe fn compress<V: Vector>(state: &mut [V; MAX_WORDS], mut w: [V; 16]) {
        let [mut a, mut b, mut c, mut d, mut e, ..] = *state;
        macro_rules! round {
            ($t:expr) => {{
                const T: usize = $t;
                if T >= 16 {
                    let mix = V::xor3(w[(T + 13) & 15], w[(T + 8) & 15], w[(T + 2) & 15]);
                    w[T & 15] = V::turn_right32::<31, 1>(V::xor(mix, w[T & 15]));
                }
                let (f, k) = match T / 20 {
                    0 => (V::choose(b, c, d), 0x5a82_7999),
                    1 => (V::xor3(b, c, d), 0x6ed9_eba1),
                    2 => (V::majority(b, c, d), 0x8f1b_bcdc),
                    _ => (V::xor3(b, c, d), 0xca62_c1d6),
                };
                let fixed = V::add32(V::add32(e, w[T & 15]), V::splat32(k));
                let next = V::add32(V::add32(V::turn_right32::<27, 5>(a), f), fixed);
                (e, d, c, b, a) = (d, c, V::turn_right32::<2, 30>(b), a, next);
            }};
        }
        // SAFETY: the caller's promise.
        unsafe {
            sixteen!(round, 0);
            sixteen!(round, 16);
            sixteen!(round, 32);
            sixteen!(round, 48);
            sixteen!(round, 64);
            for (word, new) in state.iter_mut().zip([a, b, c, d, e]) {
                *word = V::add32(*word, new);
            }
        }
    }
}

impl Lanes for Sha256 {
    const WORDS: usize = 8;
    words_of_32_bits!();

    #[inline(always)]
    unsafe fn compress<V: Vector>(state: &mut [V; MAX_WORDS], mut w: [V; 16]) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        macro_rules! round {
            ($t:expr) => {{
                const T: usize = $t;
                if T >= 16 {
                    let (early, late) = (w[(T + 1) & 15], w[(T + 14) & 15]);
                    let early = V::xor3(
                        V::turn_right32::<7, 25>(early),
                        V::turn_right32::<18, 14>(early),
                        V::shift_right32::<3>(early),
                    );
                    let late = V::xor3(
                        V::turn_right32::<17, 15>(late),
                        V::turn_right32::<19, 13>(late),
                        V::shift_right32::<10>(late),
                    );
                    let sum = V::add32(w[T & 15], w[(T + 9) & 15]);
                    w[T & 15] = V::add32(sum, V::add32(early, late));
                }
                let sum = V::xor3(
                    V::turn_right32::<6, 26>(e),
                    V::turn_right32::<11, 21>(e),
                    V::turn_right32::<25, 7>(e),
                );
                // SHA-256's constants are the upper halves of SHA-512's first 64.
                let k = V::splat32((K[T] >> 32) as u32);
                let first = V::add32(V::add32(h, k), w[T & 15]);
                let first = V::add32(first, V::add32(sum, V::choose(e, f, g)));
                let sum = V::xor3(
                    V::turn_right32::<2, 30>(a),
                    V::turn_right32::<13, 19>(a),
                    V::turn_right32::<22, 10>(a),
                );
                let second = V::add32(sum, V::majority(a, b, c));
                (h, g, f, e) = (g, f, e, V::add32(d, first));
                (d, c, b, a) = (c, b, a, V::add32(first, second));
            }};
        }
        // SAFETY: the caller's promise.
        unsafe {
            sixteen!(round, 0);
            sixteen!(round, 16);
            sixteen!(round, 32);
            sixteen!(round, 48);
            for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                *word = V::add32(*word, new);
            }
        }
    }
}

impl Lanes for Sha512 {
    const BLOCK: usize = 128;
    const WORD: usize = 8;
    const WORDS: usize = 8;
    type Tail = [u8; 384];
    const TAIL: Self::Tail = [0; 384];

    #[inline(always)]
    unsafe fn spread<V: Vector>(words: [u64; MAX_LANES]) -> V {
        // SAFETY: the caller's promise; no register is wider than the words.
        unsafe { V::load(words.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn splat<V: Vector>(word: u64) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::splat64(word) }
    }

    #[inline(always)]
    unsafe fn select<V: Vector>(mask: u16, a: V, b: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::select64(mask, a, b) }
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(at: &[*const u8; MAX_LANES]) -> [V; 16] {
        // SAFETY: the caller's promise.
        unsafe { load64(at) }
    }

    #[inline(always)]
    unsafe fn compress<V: Vector>(state: &mut [V; MAX_WORDS], mut w: [V; 16]) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        macro_rules! round {
            ($t:expr) => {{
                const T: usize = $t;
                if T >= 16 {
                    let (early, late) = (w[(T + 1) & 15], w[(T + 14) & 15]);
                    let early = V::xor3(
                        V::turn_right64::<1, 63>(early),
                        V::turn_right64::<8, 56>(early),
                        V::shift_right64::<7>(early),
                    );
                    let late = V::xor3(
                        V::turn_right64::<19, 45>(late),
                        V::turn_right64::<61, 3>(late),
                        V::shift_right64::<6>(late),
                    );
                    let sum = V::add64(w[T & 15], w[(T + 9) & 15]);
                    w[T & 15] = V::add64(sum, V::add64(early, late));
                }
                let sum = V::xor3(
                    V::turn_right64::<14, 50>(e),
                    V::turn_right64::<18, 46>(e),
                    V::turn_right64::<41, 23>(e),
                );
                let first = V::add64(V::add64(h, V::splat64(K[T])), w[T & 15]);
                let first = V::add64(first, V::add64(sum, V::choose(e, f, g)));
                let sum = V::xor3(
                    V::turn_right64::<28, 36>(a),
                    V::turn_right64::<34, 30>(a),
                    V::turn_right64::<39, 25>(a),
                );
                let second = V::add64(sum, V::majority(a, b, c));
                (h, g, f, e) = (g, f, e, V::add64(d, first));
                (d, c, b, a) = (c, b, a, V::add64(first, second));
            }};
        }
        // SAFETY: the caller's promise.
        unsafe {
            sixteen!(round, 0);
            sixteen!(round, 16);
            sixteen!(round, 32);
            sixteen!(round, 48);
            sixteen!(round, 64);
            for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                *word = V::add64(*word, new);
            }
        }
    }
}

/// The first 64 bits of the fractional parts of the cube roots of the first 80 primes (FIPS 180-4 section 4.2.3).
#[rustfmt::skip]
pub(super) const K: [u64; 80] = [
    0x428a_2f98_d728_ae22, 0x7137_4491_23ef_65cd, 0xb5c0_fbcf_ec4d_3b2f, 0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538, 0x59f1_11f1_b605_d019, 0x923f_82a4_af19_4f9b, 0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242, 0x1283_5b01_4570_6fbe, 0x2431_85be_4ee4_b28c, 0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f, 0x80de_b1fe_3b16_96b1, 0x9bdc_06a7_25c7_1235, 0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2, 0xefbe_4786_384f_25e3, 0x0fc1_9dc6_8b8c_d5b5, 0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275, 0x4a74_84aa_6ea6_e483, 0x5cb0_a9dc_bd41_fbd4, 0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab, 0xa831_c66d_2db4_3210, 0xb003_27c8_98fb_213f, 0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2, 0xd5a7_9147_930a_a725, 0x06ca_6351_e003_826f, 0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc, 0x2e1b_2138_5c26_c926, 0x4d2c_6dfc_5ac4_2aed, 0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de, 0x766a_0abb_3c77_b2a8, 0x81c2_c92e_47ed_aee6, 0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364, 0xa81a_664b_bc42_3001, 0xc24b_8b70_d0f8_9791, 0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218, 0xd699_0624_5565_a910, 0xf40e_3585_5771_202a, 0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8, 0x1e37_6c08_5141_ab53, 0x2748_774c_df8e_eb99, 0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63, 0x4ed8_aa4a_e341_8acb, 0x5b9c_ca4f_7763_e373, 0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc, 0x78a5_636f_4317_2f60, 0x84c8_7814_a1f0_ab72, 0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28, 0xa450_6ceb_de82_bde9, 0xbef9_a3f7_b2c6_7915, 0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c, 0xd186_b8c7_21c0_c207, 0xeada_7dd6_cde0_eb1e, 0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba, 0x0a63_7dc5_a2c8_98a6, 0x113f_9804_bef9_0dae, 0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84, 0x32ca_ab7b_40c7_2493, 0x3c9e_be0a_15c9_bebc, 0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6, 0x597f_299c_fc65_7e2a, 0x5fcb_6fab_3ad6_faec, 0x6c44_198c_4a47_5817,
];
