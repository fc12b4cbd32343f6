//! Poly1305 (RFC 8439 section 2.5) as ChaCha20-Poly1305 uses it, with AVX-512 and its multiplication of 52 bits.
//!
//! Each packet has a lane of its own and goes through it block by block. A number modulo 2^130 - 5 is three limbs of
//! 44, 44 and 42 bits, the radix that scalar implementations of 64 bits use as well. Two registers' worth of packets
//! are interleaved, for the multiplications of one wait for each other.

use std::arch::x86_64::*;

use super::TAG_LEN;

/// Octets of a one-time key: r and s.
pub(super) const KEY_LEN: usize = 32;
/// Packets that are authenticated together.
pub(super) const WIDTH: usize = 2 * LANES;
/// Packets in a register.
const LANES: usize = 8;
/// Octets that are taken from each packet at once.
const CHUNK: usize = 64;

/// What is authenticated: associated data, 1 to 16 octets with zeros behind them, and the encrypted text.
pub(super) struct Message<'a> {
    pub(super) aad: &'a [u8; 16],
    pub(super) aad_len: u8,
    pub(super) text: &'a [u8],
}

/// A number modulo 2^130 - 5 in every lane, the lowest limb first.
type Limbs = [__m512i; 3];

/// r of every lane, and the products of its upper limbs with 20 (what is above 2^130 comes back times 5, and the limbs
/// reach 2 bits further).
struct Multiplier {
    limbs: Limbs,
    folded: [__m512i; 2],
}

/// The tags of one to [`WIDTH`] messages, each with the key at its place.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
pub(super) fn tags(messages: &[Message<'_>], keys: &[[u8; KEY_LEN]; WIDTH]) -> [[u8; TAG_LEN]; WIDTH] {
    let mut tags = [[0; TAG_LEN]; WIDTH];
    if messages.is_empty() {
        return tags;
    }
    if messages.len() <= LANES {
        run::<1>(messages, keys, &mut tags);
    } else {
        run::<2>(messages, keys, &mut tags);
    }
    tags
}

/// The same for at most `G` registers of messages.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn run<const G: usize>(
    messages: &[Message<'_>],
    keys: &[[u8; KEY_LEN]; WIDTH],
    tags: &mut [[u8; TAG_LEN]; WIDTH],
) {
    // Lanes without a message repeat the last one.
    let message = |group: usize, lane: usize| &messages[(LANES * group + lane).min(messages.len() - 1)];
    let zero = _mm512_setzero_si512();
    let word =
        |octets: &[u8], at: usize| octets[at..].first_chunk().map_or(0, |octets| u64::from_le_bytes(*octets));
    let each = |group: usize, of: &dyn Fn(usize, &Message<'_>) -> u64| {
        load(std::array::from_fn(|lane| of(LANES * group + lane, message(group, lane))))
    };
    let multipliers: [Multiplier; G] = std::array::from_fn(|group| {
        // The clamp of section 2.5.
        let low = each(group, &|place, _| word(&keys[place], 0) & 0x0fff_fffc_0fff_ffff);
        let high = each(group, &|place, _| word(&keys[place], 8) & 0x0fff_fffc_0fff_fffc);
        Multiplier::new(limbs(low, high, zero))
    });
    let lengths: [__m512i; G] =
        std::array::from_fn(|group| each(group, &|_, message| message.text.len() as u64));
    let marker = _mm512_set1_epi64(1 << 40);

    let mut sums = [[zero; 3]; G];
    for (group, sum) in sums.iter_mut().enumerate() {
        let low = each(group, &|_, message| word(message.aad, 0));
        let high = each(group, &|_, message| word(message.aad, 8));
        *sum = multipliers[group].absorb(*sum, limbs(low, high, marker));
    }
    let shortest = messages.iter().map(|message| message.text.len()).min().unwrap_or(0);
    let longest = messages.iter().map(|message| message.text.len()).max().unwrap_or(0);
    for at in (0..longest).step_by(CHUNK) {
        let words: [[__m512i; LANES]; G] = std::array::from_fn(|group| {
            transposed(std::array::from_fn(|lane| chunk(message(group, lane).text, at)))
        });
        let all = at + CHUNK <= shortest;
        for block in 0..CHUNK / 16 {
            for group in 0..G {
                let octets = limbs(words[group][2 * block], words[group][2 * block + 1], marker);
                let next = multipliers[group].absorb(sums[group], octets);
                if all {
                    sums[group] = next;
                } else {
                    let begun = _mm512_set1_epi64((at + 16 * block) as i64);
                    let there = _mm512_cmpgt_epu64_mask(lengths[group], begun);
                    for (sum, next) in sums[group].iter_mut().zip(next) {
                        *sum = _mm512_mask_mov_epi64(*sum, there, next);
                    }
                }
            }
        }
    }
    for (group, sum) in sums.iter_mut().enumerate() {
        let low = each(group, &|_, message| u64::from(message.aad_len));
        *sum = multipliers[group].absorb(*sum, limbs(low, lengths[group], marker));
        let [h0, h1, h2] = carried(*sum).map(|limb| store(limb));
        for lane in 0..LANES {
            let place = LANES * group + lane;
            let s = u128::from(word(&keys[place], 16)) | u128::from(word(&keys[place], 24)) << 64;
            tags[place] = finish([h0[lane], h1[lane], h2[lane]], s).to_le_bytes();
        }
    }
}

impl Multiplier {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
    fn new(limbs: Limbs) -> Self {
        let twenty = |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));
        Self { limbs, folded: [twenty(limbs[1]), twenty(limbs[2])] }
    }

    /// (`sum` + `block`) * r, with limbs that may be a few bits too long: sums of two such still multiply without loss.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
    fn absorb(&self, sum: Limbs, block: Limbs) -> Limbs {
        let [h0, h1, h2] = [0, 1, 2].map(|limb| _mm512_add_epi64(sum[limb], block[limb]));
        let ([r0, r1, r2], [f1, f2]) = (self.limbs, self.folded);
        let low = |[(a, b), (c, d), (e, f)]: [(__m512i, __m512i); 3]| {
            let sum = _mm512_madd52lo_epu64(_mm512_setzero_si512(), a, b);
            _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(sum, c, d), e, f)
        };
        let high = |[(a, b), (c, d), (e, f)]: [(__m512i, __m512i); 3]| {
            let sum = _mm512_madd52hi_epu64(_mm512_setzero_si512(), a, b);
            _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(sum, c, d), e, f)
        };
        let products =
            [[(h0, r0), (h1, f2), (h2, f1)], [(h0, r1), (h1, r0), (h2, f2)], [(h0, r2), (h1, r1), (h2, r0)]];
        let [low0, low1, low2] = products.map(low);
        let [high0, high1, high2] = products.map(high);
        // The upper halves begin at bit 52: 8 bits above the next limb, 10 above 2^130.
        let (of_44, of_42) = (_mm512_set1_epi64((1 << 44) - 1), _mm512_set1_epi64((1 << 42) - 1));
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low0), _mm512_slli_epi64::<8>(high0));
        let low1 = _mm512_add_epi64(low1, carry);
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low1), _mm512_slli_epi64::<8>(high1));
        let low2 = _mm512_add_epi64(low2, carry);
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<42>(low2), _mm512_slli_epi64::<10>(high2));
        let low0 = _mm512_add_epi64(_mm512_and_si512(low0, of_44), times_five(carry));
        let carry = _mm512_srli_epi64::<44>(low0);
        [
            _mm512_and_si512(low0, of_44),
            _mm512_add_epi64(_mm512_and_si512(low1, of_44), carry),
            _mm512_and_si512(low2, of_42),
        ]
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn times_five(limb: __m512i) -> __m512i {
    _mm512_add_epi64(limb, _mm512_slli_epi64::<2>(limb))
}

/// Every limb but the second no longer than it is meant to be, and that by no more than the number 2^44 itself.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn carried([h0, h1, h2]: Limbs) -> Limbs {
    let (of_44, of_42) = (_mm512_set1_epi64((1 << 44) - 1), _mm512_set1_epi64((1 << 42) - 1));
    let h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
    let h0 = _mm512_add_epi64(h0, times_five(_mm512_srli_epi64::<42>(h2)));
    let h1 = _mm512_add_epi64(_mm512_and_si512(h1, of_44), _mm512_srli_epi64::<44>(h0));
    [_mm512_and_si512(h0, of_44), h1, _mm512_and_si512(h2, of_42)]
}

/// The limbs of blocks of two words; `marker` is the bit behind a whole block, in the third limb.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn limbs(low: __m512i, high: __m512i, marker: __m512i) -> Limbs {
    let of_44 = _mm512_set1_epi64((1 << 44) - 1);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [
        _mm512_and_si512(low, of_44),
        _mm512_and_si512(middle, of_44),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), marker),
    ]
}

/// The 64 octets of `text` at `at`, with zeros for those behind its end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn chunk(text: &[u8], at: usize) -> __m512i {
    let rest = text.get(at..).unwrap_or(&[]);
    let mask = _bzhi_u64(!0, rest.len().min(CHUNK) as u32);
    // SAFETY: a masked load touches only the octets in the mask, which the text has.
    unsafe { _mm512_maskz_loadu_epi8(mask, rest.as_ptr().cast()) }
}

/// Word `j` of register `i` becomes word `i` of register `j`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let zero = _mm512_setzero_si512();
    let mut columns = [zero; LANES];
    for odd in 0..2 {
        let pair = |i: usize| match odd {
            0 => _mm512_unpacklo_epi64(rows[i], rows[i + 1]),
            _ => _mm512_unpackhi_epi64(rows[i], rows[i + 1]),
        };
        let (a, b, c, d) = (pair(0), pair(2), pair(4), pair(6));
        let (even_ab, odd_ab) = (_mm512_shuffle_i64x2::<0x88>(a, b), _mm512_shuffle_i64x2::<0xdd>(a, b));
        let (even_cd, odd_cd) = (_mm512_shuffle_i64x2::<0x88>(c, d), _mm512_shuffle_i64x2::<0xdd>(c, d));
        columns[odd] = _mm512_shuffle_i64x2::<0x88>(even_ab, even_cd);
        columns[2 + odd] = _mm512_shuffle_i64x2::<0x88>(odd_ab, odd_cd);
        columns[4 + odd] = _mm512_shuffle_i64x2::<0xdd>(even_ab, even_cd);
        columns[6 + odd] = _mm512_shuffle_i64x2::<0xdd>(odd_ab, odd_cd);
    }
    columns
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn load(words: [u64; LANES]) -> __m512i {
    // SAFETY: 64 octets are read from an array of 64.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn store(register: __m512i) -> [u64; LANES] {
    let mut words = [0; LANES];
    // SAFETY: 64 octets are written to an array of 64.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), register) };
    words
}

/// The tag of carried limbs: reduced modulo 2^130 - 5 without a branch, plus s modulo 2^128.
fn finish([h0, h1, h2]: [u64; 3], s: u128) -> u128 {
    let low = u128::from(h0) + (u128::from(h1) << 44);
    let (low, carry) = low.overflowing_add(u128::from(h2) << 88);
    let top = (h2 >> 40) + u64::from(carry);
    let (less, carry) = low.overflowing_add(5);
    let is_above = (top + u64::from(carry)) >> 2;
    let mask = 0u128.wrapping_sub(u128::from(is_above));
    ((less & mask) | (low & !mask)).wrapping_add(s)
}
