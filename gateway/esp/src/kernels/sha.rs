//! The compression functions of SHA-1, SHA-256 and SHA-512 (FIPS 180-4) over many messages side by side, one to a lane.

use std::arch::x86_64::*;

/// Most lanes that any of them has.
pub(super) const MAX_LANES: usize = 16;
/// Octets of the longest block.
pub(super) const MAX_BLOCK: usize = 128;
/// Words of the longest state.
pub(super) const MAX_WORDS: usize = 8;

/// The state of all lanes: word by word.
pub(super) type State = [__m512i; MAX_WORDS];
/// One block of all lanes: word by word, in the machine's order.
pub(super) type Words = [__m512i; 16];

/// A hash function over lanes.
pub(super) trait Lanes {
    /// Messages side by side.
    const LANES: usize;
    /// Octets of a block.
    const BLOCK: usize;
    /// Octets of a word.
    const WORD: usize;
    /// Words of the state.
    const WORDS: usize;
    /// The state before the first block, in the low octets of each.
    const INITIAL: [u64; MAX_WORDS];

    /// Loads the block at each place; only the first `LANES` places count.
    ///
    /// # Safety
    /// The processor has AVX-512F and BW; at each place a block may be read.
    unsafe fn load(at: &[*const u8; MAX_LANES]) -> Words;

    /// Takes one block into every lane's state.
    ///
    /// # Safety
    /// The processor has AVX-512F and BW.
    unsafe fn compress(state: &mut State, words: Words);
}

pub(super) struct Sha1;
pub(super) struct Sha256;
pub(super) struct Sha512;

/// Sixteen rows of sixteen words become sixteen columns, with the octets of each word reversed.
///
/// # Safety
/// 64 octets may be read at each place.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_u32(at: &[*const u8; MAX_LANES]) -> Words {
    let order = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    // SAFETY: the caller's promise.
    let rows = at.map(|at| _mm512_shuffle_epi8(unsafe { _mm512_loadu_si512(at.cast()) }, order));
    transposed_u32(rows)
}

/// Column `i` of sixteen rows of 32-bit words, for every `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn transposed_u32(rows: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    let (mut pairs, mut quads, mut octs, mut columns) = ([zero; 16], [zero; 16], [zero; 16], [zero; 16]);
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for i in (0..16).step_by(4) {
        quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    // quads[4g + j] has, in lane k, column 4k + j of rows 4g to 4g + 3.
    for j in 0..4 {
        octs[j] = _mm512_shuffle_i32x4::<0x88>(quads[j], quads[4 + j]);
        octs[4 + j] = _mm512_shuffle_i32x4::<0xdd>(quads[j], quads[4 + j]);
        octs[8 + j] = _mm512_shuffle_i32x4::<0x88>(quads[8 + j], quads[12 + j]);
        octs[12 + j] = _mm512_shuffle_i32x4::<0xdd>(quads[8 + j], quads[12 + j]);
    }
    for j in 0..4 {
        columns[j] = _mm512_shuffle_i32x4::<0x88>(octs[j], octs[8 + j]);
        columns[8 + j] = _mm512_shuffle_i32x4::<0xdd>(octs[j], octs[8 + j]);
        columns[4 + j] = _mm512_shuffle_i32x4::<0x88>(octs[4 + j], octs[12 + j]);
        columns[12 + j] = _mm512_shuffle_i32x4::<0xdd>(octs[4 + j], octs[12 + j]);
    }
    columns
}

/// Eight rows of sixteen words of 64 bits become sixteen columns, with the octets of each word reversed.
///
/// # Safety
/// 128 octets may be read at each of the first eight places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_u64(at: &[*const u8; MAX_LANES]) -> Words {
    let order = _mm512_broadcast_i32x4(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    let mut columns = [_mm512_setzero_si512(); 16];
    for half in 0..2 {
        let rows: [__m512i; 8] = std::array::from_fn(|i| {
            // SAFETY: the caller's promise.
            let row = unsafe { _mm512_loadu_si512(at[i].add(64 * half).cast()) };
            _mm512_shuffle_epi8(row, order)
        });
        columns[8 * half..][..8].copy_from_slice(&transposed_u64(rows));
    }
    columns
}

/// Column `i` of eight rows of 64-bit words, for every `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn transposed_u64(rows: [__m512i; 8]) -> [__m512i; 8] {
    let zero = _mm512_setzero_si512();
    let (mut pairs, mut quads, mut columns) = ([zero; 8], [zero; 8], [zero; 8]);
    for i in (0..8).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi64(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi64(rows[i], rows[i + 1]);
    }
    // pairs[2g + j] has, in lane k, column 2k + j of rows 2g and 2g + 1.
    for j in 0..2 {
        quads[j] = _mm512_shuffle_i64x2::<0x88>(pairs[j], pairs[2 + j]);
        quads[2 + j] = _mm512_shuffle_i64x2::<0xdd>(pairs[j], pairs[2 + j]);
        quads[4 + j] = _mm512_shuffle_i64x2::<0x88>(pairs[4 + j], pairs[6 + j]);
        quads[6 + j] = _mm512_shuffle_i64x2::<0xdd>(pairs[4 + j], pairs[6 + j]);
    }
    for j in 0..2 {
        columns[j] = _mm512_shuffle_i64x2::<0x88>(quads[j], quads[4 + j]);
        columns[4 + j] = _mm512_shuffle_i64x2::<0xdd>(quads[j], quads[4 + j]);
        columns[2 + j] = _mm512_shuffle_i64x2::<0x88>(quads[2 + j], quads[6 + j]);
        columns[6 + j] = _mm512_shuffle_i64x2::<0xdd>(quads[2 + j], quads[6 + j]);
    }
    columns
}

/// Bitwise functions of three words, by their truth tables.
const CHOOSE: i32 = 0xca;
const MAJORITY: i32 = 0xe8;
const PARITY: i32 = 0x96;

/// Does `$step` for `$from`, `$from + 1` up to `$from + 15`, each a constant.
macro_rules! sixteen {
    ($step:ident, $from:expr $(, $more:tt)*) => {
        $step!($from $(, $more)*); $step!($from + 1 $(, $more)*); $step!($from + 2 $(, $more)*);
        $step!($from + 3 $(, $more)*); $step!($from + 4 $(, $more)*); $step!($from + 5 $(, $more)*);
        $step!($from + 6 $(, $more)*); $step!($from + 7 $(, $more)*); $step!($from + 8 $(, $more)*);
        $step!($from + 9 $(, $more)*); $step!($from + 10 $(, $more)*); $step!($from + 11 $(, $more)*);
        $step!($from + 12 $(, $more)*); $step!($from + 13 $(, $more)*); $step!($from + 14 $(, $more)*);
        $step!($from + 15 $(, $more)*);
    };
}

impl Lanes for Sha1 {
    const LANES: usize = 16;
    const BLOCK: usize = 64;
    const WORD: usize = 4;
    const WORDS: usize = 5;
    const INITIAL: [u64; MAX_WORDS] =
        [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0, 0, 0, 0];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load(at: &[*const u8; MAX_LANES]) -> Words {
        // SAFETY: the caller's promise.
        unsafe { load_u32(at) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn compress(state: &mut State, mut w: Words) {
        let [mut a, mut b, mut c, mut d, mut e, ..] = *state;
        macro_rules! round {
            ($t:expr) => {{
                const T: usize = $t;
                if T >= 16 {
                    let mix = _mm512_ternarylogic_epi32::<PARITY>(
                        w[(T + 13) & 15],
                        w[(T + 8) & 15],
                        w[(T + 2) & 15],
                    );
                    w[T & 15] = _mm512_rol_epi32::<1>(_mm512_xor_si512(mix, w[T & 15]));
                }
                let (f, k) = match T / 20 {
                    0 => (_mm512_ternarylogic_epi32::<CHOOSE>(b, c, d), 0x5a82_7999u32),
                    1 => (_mm512_ternarylogic_epi32::<PARITY>(b, c, d), 0x6ed9_eba1),
                    2 => (_mm512_ternarylogic_epi32::<MAJORITY>(b, c, d), 0x8f1b_bcdc),
                    _ => (_mm512_ternarylogic_epi32::<PARITY>(b, c, d), 0xca62_c1d6),
                };
                let fixed = _mm512_add_epi32(_mm512_add_epi32(e, w[T & 15]), _mm512_set1_epi32(k as i32));
                let next = _mm512_add_epi32(_mm512_add_epi32(_mm512_rol_epi32::<5>(a), f), fixed);
                (e, d, c, b, a) = (d, c, _mm512_rol_epi32::<30>(b), a, next);
            }};
        }
        sixteen!(round, 0);
        sixteen!(round, 16);
        sixteen!(round, 32);
        sixteen!(round, 48);
        sixteen!(round, 64);
        for (word, new) in state.iter_mut().zip([a, b, c, d, e]) {
            *word = _mm512_add_epi32(*word, new);
        }
    }
}

impl Lanes for Sha256 {
    const LANES: usize = 16;
    const BLOCK: usize = 64;
    const WORD: usize = 4;
    const WORDS: usize = 8;
    const INITIAL: [u64; MAX_WORDS] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load(at: &[*const u8; MAX_LANES]) -> Words {
        // SAFETY: the caller's promise.
        unsafe { load_u32(at) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn compress(state: &mut State, mut w: Words) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        macro_rules! round {
            ($t:expr) => {{
                const T: usize = $t;
                if T >= 16 {
                    let (early, late) = (w[(T + 1) & 15], w[(T + 14) & 15]);
                    let early = _mm512_ternarylogic_epi32::<PARITY>(
                        _mm512_ror_epi32::<7>(early),
                        _mm512_ror_epi32::<18>(early),
                        _mm512_srli_epi32::<3>(early),
                    );
                    let late = _mm512_ternarylogic_epi32::<PARITY>(
                        _mm512_ror_epi32::<17>(late),
                        _mm512_ror_epi32::<19>(late),
                        _mm512_srli_epi32::<10>(late),
                    );
                    let sum = _mm512_add_epi32(w[T & 15], w[(T + 9) & 15]);
                    w[T & 15] = _mm512_add_epi32(sum, _mm512_add_epi32(early, late));
                }
                let sum = _mm512_ternarylogic_epi32::<PARITY>(
                    _mm512_ror_epi32::<6>(e),
                    _mm512_ror_epi32::<11>(e),
                    _mm512_ror_epi32::<25>(e),
                );
                // SHA-256's constants are the upper halves of SHA-512's first 64.
                let k = _mm512_set1_epi32((K[T] >> 32) as i32);
                let first = _mm512_add_epi32(_mm512_add_epi32(h, k), w[T & 15]);
                let choice = _mm512_ternarylogic_epi32::<CHOOSE>(e, f, g);
                let first = _mm512_add_epi32(first, _mm512_add_epi32(sum, choice));
                let sum = _mm512_ternarylogic_epi32::<PARITY>(
                    _mm512_ror_epi32::<2>(a),
                    _mm512_ror_epi32::<13>(a),
                    _mm512_ror_epi32::<22>(a),
                );
                let second = _mm512_add_epi32(sum, _mm512_ternarylogic_epi32::<MAJORITY>(a, b, c));
                (h, g, f, e) = (g, f, e, _mm512_add_epi32(d, first));
                (d, c, b, a) = (c, b, a, _mm512_add_epi32(first, second));
            }};
        }
        sixteen!(round, 0);
        sixteen!(round, 16);
        sixteen!(round, 32);
        sixteen!(round, 48);
        for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = _mm512_add_epi32(*word, new);
        }
    }
}

impl Lanes for Sha512 {
    const LANES: usize = 8;
    const BLOCK: usize = 128;
    const WORD: usize = 8;
    const WORDS: usize = 8;
    const INITIAL: [u64; MAX_WORDS] = [
        0x6a09_e667_f3bc_c908,
        0xbb67_ae85_84ca_a73b,
        0x3c6e_f372_fe94_f82b,
        0xa54f_f53a_5f1d_36f1,
        0x510e_527f_ade6_82d1,
        0x9b05_688c_2b3e_6c1f,
        0x1f83_d9ab_fb41_bd6b,
        0x5be0_cd19_137e_2179,
    ];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load(at: &[*const u8; MAX_LANES]) -> Words {
        // SAFETY: the caller's promise.
        unsafe { load_u64(at) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn compress(state: &mut State, mut w: Words) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        macro_rules! round {
            ($t:expr) => {{
                const T: usize = $t;
                if T >= 16 {
                    let (early, late) = (w[(T + 1) & 15], w[(T + 14) & 15]);
                    let early = _mm512_ternarylogic_epi64::<PARITY>(
                        _mm512_ror_epi64::<1>(early),
                        _mm512_ror_epi64::<8>(early),
                        _mm512_srli_epi64::<7>(early),
                    );
                    let late = _mm512_ternarylogic_epi64::<PARITY>(
                        _mm512_ror_epi64::<19>(late),
                        _mm512_ror_epi64::<61>(late),
                        _mm512_srli_epi64::<6>(late),
                    );
                    let sum = _mm512_add_epi64(w[T & 15], w[(T + 9) & 15]);
                    w[T & 15] = _mm512_add_epi64(sum, _mm512_add_epi64(early, late));
                }
                let sum = _mm512_ternarylogic_epi64::<PARITY>(
                    _mm512_ror_epi64::<14>(e),
                    _mm512_ror_epi64::<18>(e),
                    _mm512_ror_epi64::<41>(e),
                );
                let k = _mm512_set1_epi64(K[T] as i64);
                let first = _mm512_add_epi64(_mm512_add_epi64(h, k), w[T & 15]);
                let choice = _mm512_ternarylogic_epi64::<CHOOSE>(e, f, g);
                let first = _mm512_add_epi64(first, _mm512_add_epi64(sum, choice));
                let sum = _mm512_ternarylogic_epi64::<PARITY>(
                    _mm512_ror_epi64::<28>(a),
                    _mm512_ror_epi64::<34>(a),
                    _mm512_ror_epi64::<39>(a),
                );
                let second = _mm512_add_epi64(sum, _mm512_ternarylogic_epi64::<MAJORITY>(a, b, c));
                (h, g, f, e) = (g, f, e, _mm512_add_epi64(d, first));
                (d, c, b, a) = (c, b, a, _mm512_add_epi64(first, second));
            }};
        }
        sixteen!(round, 0);
        sixteen!(round, 16);
        sixteen!(round, 32);
        sixteen!(round, 48);
        sixteen!(round, 64);
        for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = _mm512_add_epi64(*word, new);
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
