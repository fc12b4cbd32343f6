//! AES-GCM (NIST SP 800-38D) with AVX-512, VAES and VPCLMULQDQ.
//!
//! Packets go through in fours. Of each, counter mode and GHASH run over 64 octets a register; GHASH multiplies every
//! block by its own power of H and reduces once for [`GROUP`] blocks. The last reduction and the tag are done for all four
//! in the lanes of one register, whatever their keys.
//!
//! Packets of up to [`SHORT`] octets go through side by side, two registers each: in the first lane is the block that
//! encrypts the tag, and for GHASH the associated data; the lengths are in the lane behind the text. So all that GCM does
//! is two registers of AES and two of products a packet.
//!
//! GHASH works on octet-reversed blocks, where the product of two bit-reflected polynomials comes out shifted by one
//! bit; the powers of H are kept multiplied by x to make up for it (Gueron and Kounavis, "Intel Carry-Less
//! Multiplication Instruction and its Usage for Computing the GCM Mode", 2010).

use std::arch::x86_64::*;

use super::{AeadJob, GcmJob, TAG_LEN, aes::RoundKeys};
use arrayvec::ArrayVec;
use zeroize::Zeroize;

/// Blocks whose products are summed before a reduction.
pub(super) const GROUP: usize = 32;
/// Powers of H in a key: a group's, one for the associated data before it and one for the lengths behind it, to a
/// whole number of registers. More would push the keys of a few thousand SAs out of the cache.
const POWERS: usize = 36;
/// Blocks that a register holds.
const LANES: usize = 4;
/// Packets that are finished together.
pub(super) const WIDTH: usize = 4;
/// Octets of the longest text that goes through side by side with three others: six blocks, and one lane on either side.
pub(super) const SHORT: usize = 96;
/// x^128 + x^127 + x^126 + x^121 + 1, the field's polynomial with its bits reflected, without x^128.
const POLYNOMIAL: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;

/// Whether this processor has the instructions.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("bmi2")
}

/// An expanded key: round keys and powers of H. Wiped when dropped.
#[repr(C, align(64))]
pub(crate) struct Key {
    round_keys: RoundKeys,
    /// H^36 to H^1, and zeros that a load beyond the last power may see.
    powers: [[u8; 16]; POWERS + LANES],
}

impl Key {
    /// How often a block goes through the cipher's round: 10, 12 or 14. Keys that agree in it are worked on together.
    pub(crate) fn rounds(&self) -> usize {
        self.round_keys.rounds()
    }

    /// Expands a key of 16, 24 or 32 octets; `None` for another length, or where the processor cannot use it.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        if !matches!(key.len(), 16 | 24 | 32) || !is_available() {
            return None;
        }
        // SAFETY: the instructions are there, as was just asked.
        Some(unsafe { expand(key) })
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.powers.zeroize();
    }
}

/// Encrypts the texts and writes the tags.
pub(crate) fn seal(jobs: &mut [GcmJob<'_>]) {
    each_four(jobs, |four, rounds| {
        // SAFETY: a key exists only where the instructions do. The number of rounds is that of all four keys.
        unsafe {
            match rounds {
                10 => run::<10, true>(four),
                12 => run::<12, true>(four),
                _ => run::<14, true>(four),
            }
        };
    });
}

/// Decrypts the texts whose tags are right, and says which are; the others are wiped.
pub(crate) fn open(jobs: &mut [GcmJob<'_>]) {
    each_four(jobs, |four, rounds| {
        // SAFETY: as in `seal`.
        unsafe {
            match rounds {
                10 => run::<10, false>(four),
                12 => run::<12, false>(four),
                _ => run::<14, false>(four),
            }
        };
    });
}

/// Cuts jobs into runs of four whose keys have one length; where there are fewer, empty ones make up the number.
fn each_four<'a>(mut jobs: &mut [GcmJob<'a>], work: impl Fn(&mut [GcmJob<'_>; WIDTH], usize)) {
    while let [first, ..] = &*jobs {
        let (key, rounds) = (first.key, first.key.rounds());
        let same = jobs.iter().take(WIDTH).take_while(|job| job.key.rounds() == rounds).count();
        let (some, rest) = std::mem::take(&mut jobs).split_at_mut(same);
        for next in rest.iter().take(WIDTH) {
            prefetch(next.key);
        }
        match some.try_into() {
            Ok(four) => work(four, rounds),
            Err(_) => few(some, key, |four| work(four, rounds)),
        }
        jobs = rest;
    }
}

/// Up to four jobs with empty ones behind them.
fn few(jobs: &mut [GcmJob<'_>], key: &Key, work: impl FnOnce(&mut [GcmJob<'_>; WIDTH])) {
    // Texts of no octet, each with a tag behind it: in a pointer into nothing an empty mask would be slow.
    let mut empty = [[0; TAG_LEN]; WIDTH];
    let (mut given, empty) = (jobs.iter_mut(), empty.iter_mut());
    let mut four: ArrayVec<GcmJob<'_>, WIDTH> = ArrayVec::new();
    for tag in empty {
        let (text, tag) = tag.split_at_mut(0);
        let Ok(tag) = tag.try_into() else { break };
        let (nonce, aad, aad_len) = ([0; 12], [0; 16], 0);
        four.push(match given.next() {
            Some(AeadJob { position, key, nonce, aad, aad_len, text, tag, authentic }) => AeadJob {
                position: *position,
                key,
                nonce: *nonce,
                aad: *aad,
                aad_len: *aad_len,
                text,
                tag,
                authentic: *authentic,
            },
            None => AeadJob { position: 0, key, nonce, aad, aad_len, text, tag, authentic: false },
        });
    }
    if let Ok(four) = four.as_mut_slice().try_into() {
        work(four);
    }
    let authentic: ArrayVec<bool, WIDTH> = four.iter().map(|job| job.authentic).collect();
    drop(four);
    for (job, authentic) in jobs.iter_mut().zip(authentic) {
        job.authentic = authentic;
    }
}

/// Brings a key's round keys and its lowest powers near: with thousands of SAs they are far.
fn prefetch(key: &Key) {
    let lowest = &raw const key.powers[POWERS - 8];
    for line in [key.round_keys.of(0).as_ptr(), lowest.cast()] {
        // SAFETY: a prefetch reads nothing that the program could see, whatever the address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.cast());
            _mm_prefetch::<_MM_HINT_T0>(line.cast::<i8>().add(64));
            _mm_prefetch::<_MM_HINT_T0>(line.cast::<i8>().add(128));
        }
    }
}

/// Sums of products that are not reduced yet: low, middle and high halves of the partial products.
#[derive(Clone, Copy)]
struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

/// The sum of four products, one in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn multiply(x: __m512i, h: __m512i) -> Sum {
    Sum {
        low: _mm512_clmulepi64_epi128::<0x00>(x, h),
        middle: _mm512_xor_si512(
            _mm512_clmulepi64_epi128::<0x01>(x, h),
            _mm512_clmulepi64_epi128::<0x10>(x, h),
        ),
        high: _mm512_clmulepi64_epi128::<0x11>(x, h),
    }
}

/// Adds eight products.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn add_two(sum: &mut Sum, (x, h): (__m512i, __m512i), (y, g): (__m512i, __m512i)) {
    let (a, b) = (multiply(x, h), multiply(y, g));
    sum.low = xor3(sum.low, a.low, b.low);
    sum.middle = xor3(sum.middle, a.middle, b.middle);
    sum.high = xor3(sum.high, a.high, b.high);
}

/// Adds four products.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn add_one(sum: &mut Sum, x: __m512i, h: __m512i) {
    let a = multiply(x, h);
    sum.low = _mm512_xor_si512(sum.low, a.low);
    sum.middle = _mm512_xor_si512(sum.middle, a.middle);
    sum.high = _mm512_xor_si512(sum.high, a.high);
}

/// Reduces each lane by the field's polynomial.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn reduce(sum: Sum) -> __m512i {
    let polynomial = _mm512_set_epi64(
        (POLYNOMIAL >> 64) as i64,
        POLYNOMIAL as i64,
        (POLYNOMIAL >> 64) as i64,
        POLYNOMIAL as i64,
        (POLYNOMIAL >> 64) as i64,
        POLYNOMIAL as i64,
        (POLYNOMIAL >> 64) as i64,
        POLYNOMIAL as i64,
    );
    let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, sum.low);
    let middle = xor3(sum.middle, _mm512_shuffle_epi32::<0x4e>(sum.low), folded);
    let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, middle);
    xor3(sum.high, _mm512_shuffle_epi32::<0x4e>(middle), folded)
}

/// The sum of a register's lanes, in each of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn across(v: __m512i) -> __m512i {
    let v = _mm512_xor_si512(v, _mm512_shuffle_i64x2::<0x4e>(v, v));
    _mm512_xor_si512(v, _mm512_shuffle_i64x2::<0xb1>(v, v))
}

/// Lane `i` of the result is the sum of the lanes of `v[i]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn across_each(v: [__m512i; WIDTH]) -> __m512i {
    let halves =
        |a, b| _mm512_xor_si512(_mm512_shuffle_i64x2::<0x88>(a, b), _mm512_shuffle_i64x2::<0xdd>(a, b));
    let (a, b) = (halves(v[0], v[1]), halves(v[2], v[3]));
    halves(a, b)
}

/// Reverses the octets of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn reversed(v: __m512i) -> __m512i {
    let order = _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_shuffle_epi8(v, order)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn load_block(block: &[u8; 16]) -> __m128i {
    // SAFETY: 16 octets are read from a reference to 16.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

/// A block that has only just been written in halves: as a whole it would be loaded late.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn load_halves(block: &[u8; 16]) -> __m128i {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *block;
    let (low, high) = ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]);
    _mm_set_epi64x(i64::from_le_bytes(high), i64::from_le_bytes(low))
}

/// Salt and IV with a zero counter behind them, put together in a register as in [`load_halves`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn load_nonce(nonce: &[u8; 12]) -> __m128i {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *nonce;
    let low = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
    _mm_set_epi64x(i64::from(u32::from_le_bytes(rest)), low)
}

/// Four blocks that begin with the one at `first`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn load_powers(key: &Key, first: usize) -> __m512i {
    debug_assert!(first <= POWERS);
    // SAFETY: `first` is at most POWERS, and LANES blocks lie behind that.
    unsafe { _mm512_loadu_si512(key.powers.as_ptr().add(first).cast()) }
}

/// The round key in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn round_key(key: &Key, round: usize) -> __m512i {
    _mm512_broadcast_i32x4(load_block(key.round_keys.of(round)))
}

/// The counters of four blocks from the `first` on, as numbers to be added to the nonce's zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn counters(first: i32) -> __m512i {
    let (b, c, d) = (first + 1, first + 2, first + 3);
    _mm512_set_epi32(d, 0, 0, 0, c, 0, 0, 0, b, 0, 0, 0, first, 0, 0, 0)
}

/// The same as they stand in the blocks, where the highest octet is the first: up to 255.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn counters_in_place(first: i32) -> __m512i {
    _mm512_slli_epi32::<24>(counters(first))
}

/// The counter blocks of one packet: those of the next register, with the counter in the machine's order.
struct Counter(__m512i);

impl Counter {
    /// From the second block on; the first encrypts the tag.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
    fn new(nonce: __m128i) -> Self {
        let first = _mm512_set_epi32(5, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0);
        Self(_mm512_add_epi32(_mm512_broadcast_i32x4(nonce), first))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
    fn next(&mut self) -> __m512i {
        let order =
            _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
        let blocks = _mm512_shuffle_epi8(self.0, order);
        self.0 = _mm512_add_epi32(self.0, _mm512_set_epi32(4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0));
        blocks
    }
}

/// Encrypts or decrypts `V` registers of text and adds their products to `sum`: the first block's power is the one at
/// `power`, and `carried` is added to it. Of the last register only the octets in `mask` are there.
///
/// # Safety
/// `text` has `V - 1` times 64 octets and those of `mask`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
unsafe fn step<const ROUNDS: usize, const SEAL: bool, const V: usize>(
    key: &Key,
    counter: &mut Counter,
    text: *mut u8,
    mask: u64,
    power: usize,
    carried: __m512i,
    sum: &mut Sum,
) {
    let whitening = round_key(key, 0);
    let mut stream = [_mm512_setzero_si512(); V];
    for blocks in &mut stream {
        *blocks = _mm512_xor_si512(counter.next(), whitening);
    }
    for round in 1..ROUNDS {
        let round_key = round_key(key, round);
        for blocks in &mut stream {
            *blocks = _mm512_aesenc_epi128(*blocks, round_key);
        }
    }
    let last = round_key(key, ROUNDS);
    let mut hashed = [_mm512_setzero_si512(); V];
    for (i, blocks) in stream.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        let at = unsafe { text.add(64 * i).cast() };
        let mask = if i + 1 == V { mask } else { !0 };
        // SAFETY: a masked load and a masked store touch only the octets in the mask, which are there.
        unsafe {
            let before = _mm512_maskz_loadu_epi8(mask, at);
            let after = _mm512_aesenclast_epi128(blocks, _mm512_xor_si512(last, before));
            _mm512_mask_storeu_epi8(at, mask, after);
            hashed[i] = if SEAL { _mm512_maskz_mov_epi8(mask, after) } else { before };
        }
    }
    hashed[0] = _mm512_xor_si512(reversed(hashed[0]), carried);
    for blocks in &mut hashed[1..] {
        *blocks = reversed(*blocks);
    }
    // Powers beyond H^1 are zero, and so are the blocks they would be multiplied with.
    let of = |i: usize| load_powers(key, (power + LANES * i).min(POWERS));
    for i in (0..V - V % 2).step_by(2) {
        add_two(sum, (hashed[i], of(i)), (hashed[i + 1], of(i + 1)));
    }
    if V % 2 == 1 {
        add_one(sum, hashed[V - 1], of(V - 1));
    }
}

/// The whole text of one packet; gives the sum that is left to reduce. Never inlined: four times over it would not fit the
/// processor's store of decoded instructions.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn text<const ROUNDS: usize, const SEAL: bool>(job: &mut GcmJob<'_>, nonce: __m128i) -> Sum {
    let key = job.key;
    let mut counter = Counter::new(nonce);
    let zero = _mm512_setzero_si512();
    let aad = _mm512_maskz_mov_epi64(0x03, reversed(_mm512_castsi128_si512(load_halves(&job.aad))));
    // The associated data is the first block, before the text's; `carried` is what a group leaves to the next.
    let mut carried = zero;
    let mut ahead = aad;
    let (mut at, mut left) = (job.text.as_mut_ptr(), job.text.len());
    while left > GROUP * 16 {
        let first = _mm512_maskz_mov_epi64(0x03, load_powers(key, POWERS - GROUP - 1));
        let mut sum = multiply(ahead, first);
        for i in 0..GROUP / (4 * LANES) {
            let power = POWERS - GROUP + 4 * LANES * i;
            // SAFETY: more than GROUP blocks of text are left, and this reads the i-th 16 of them.
            unsafe {
                step::<ROUNDS, SEAL, 4>(key, &mut counter, at.add(256 * i), !0, power, carried, &mut sum)
            };
            carried = zero;
        }
        let whole = Sum { low: across(sum.low), middle: across(sum.middle), high: across(sum.high) };
        carried = _mm512_maskz_mov_epi64(0x03, reduce(whole));
        ahead = zero;
        // SAFETY: as above.
        at = unsafe { at.add(GROUP * 16) };
        left -= GROUP * 16;
    }

    let blocks = left.div_ceil(16);
    let lengths = _mm_set_epi64x(i64::from(job.aad_len) * 8, job.text.len() as i64 * 8);
    let around = _mm512_inserti32x4::<1>(ahead, lengths);
    let powers = _mm512_inserti32x4::<1>(
        _mm512_castsi128_si512(load_block(&key.powers[POWERS - blocks - 2])),
        load_block(&key.powers[POWERS - 1]),
    );
    let mut sum = multiply(around, _mm512_maskz_mov_epi64(0x0f, powers));
    let mut power = POWERS - blocks - 1;
    while left > 0 {
        let now = left.min(256);
        let registers = now.div_ceil(64);
        let mask = _bzhi_u64(!0, (now - 64 * (registers - 1)) as u32);
        // SAFETY: `now` octets are left: all registers but the last are full, and of that one `mask` has the rest.
        unsafe {
            match registers {
                1 => step::<ROUNDS, SEAL, 1>(key, &mut counter, at, mask, power, carried, &mut sum),
                2 => step::<ROUNDS, SEAL, 2>(key, &mut counter, at, mask, power, carried, &mut sum),
                3 => step::<ROUNDS, SEAL, 3>(key, &mut counter, at, mask, power, carried, &mut sum),
                _ => step::<ROUNDS, SEAL, 4>(key, &mut counter, at, mask, power, carried, &mut sum),
            }
            at = at.add(now);
        }
        carried = zero;
        power += 4 * LANES;
        left -= now;
    }
    sum
}

/// Four packets of up to [`SHORT`] octets each, side by side: what is left to reduce of each, and the block that its tag is
/// encrypted with.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn short<const ROUNDS: usize, const SEAL: bool, const SAME_KEY: bool>(
    jobs: &mut [GcmJob<'_>; WIDTH],
    keys: [&Key; WIDTH],
) -> ([Sum; WIDTH], [__m128i; WIDTH]) {
    let zero = _mm512_setzero_si512();
    let mut streams = [[zero; 2]; WIDTH];
    for (stream, job) in streams.iter_mut().zip(&*jobs) {
        let nonce = _mm512_broadcast_i32x4(load_nonce(&job.nonce));
        let (first, second) = (counters_in_place(1), counters_in_place(1 + LANES as i32));
        *stream = [_mm512_or_si512(nonce, first), _mm512_or_si512(nonce, second)];
    }
    let of_round = |round: usize| {
        if SAME_KEY { [round_key(keys[0], round); WIDTH] } else { keys.map(|key| round_key(key, round)) }
    };
    for (stream, key) in streams.iter_mut().zip(of_round(0)) {
        *stream = stream.map(|blocks| _mm512_xor_si512(blocks, key));
    }
    for round in 1..ROUNDS {
        for (stream, key) in streams.iter_mut().zip(of_round(round)) {
            *stream = stream.map(|blocks| _mm512_aesenc_epi128(blocks, key));
        }
    }
    let ([a, b, c, d], last) = (jobs, of_round(ROUNDS));
    let (a, b) = (short_one::<SEAL>(a, streams[0], last[0]), short_one::<SEAL>(b, streams[1], last[1]));
    let (c, d) = (short_one::<SEAL>(c, streams[2], last[2]), short_one::<SEAL>(d, streams[3], last[3]));
    ([a.0, b.0, c.0, d.0], [a.1, b.1, c.1, d.1])
}

/// One of them, whose stream lacks the last round.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn short_one<const SEAL: bool>(job: &mut GcmJob<'_>, stream: [__m512i; 2], last: __m512i) -> (Sum, __m128i) {
    // The text begins in the second lane.
    let end = job.text.len() + 16;
    let masks = [_bzhi_u64(!0, end as u32) & !0xffff, _bzhi_u64(!0, end.saturating_sub(64) as u32)];
    let first = job.text.as_mut_ptr().wrapping_sub(16).cast();
    let second = job.text.as_mut_ptr().wrapping_add(48).cast();
    // SAFETY: a masked load and a masked store touch only the octets in the mask, which are the text's.
    let ([before, more_before], [after, more_after]) = unsafe {
        let before = [_mm512_maskz_loadu_epi8(masks[0], first), _mm512_maskz_loadu_epi8(masks[1], second)];
        let after = [
            _mm512_aesenclast_epi128(stream[0], _mm512_xor_si512(last, before[0])),
            _mm512_aesenclast_epi128(stream[1], _mm512_xor_si512(last, before[1])),
        ];
        _mm512_mask_storeu_epi8(first, masks[0], after[0]);
        _mm512_mask_storeu_epi8(second, masks[1], after[1]);
        (before, after)
    };
    let (low, high) = if SEAL {
        (_mm512_maskz_mov_epi8(masks[0], after), _mm512_maskz_mov_epi8(masks[1], more_after))
    } else {
        (before, more_before)
    };
    let aad = _mm512_zextsi128_si512(load_halves(&job.aad));
    let (low, high) = (reversed(_mm512_or_si512(low, aad)), reversed(high));
    // The lengths are behind the text, in the last lane that counts.
    let lane = end.div_ceil(16);
    let lengths = _mm_set_epi64x(i64::from(job.aad_len) * 8, job.text.len() as i64 * 8);
    let lengths = _mm512_broadcast_i32x4(lengths);
    let [place, more_place] = (3u16 << (2 * lane)).to_le_bytes();
    let low = _mm512_mask_mov_epi64(low, place, lengths);
    let high = _mm512_mask_mov_epi64(high, more_place, lengths);
    // Powers beyond H^1 are zero, and so are the blocks they would be multiplied with.
    let power = POWERS - 1 - lane;
    let mut sum = multiply(low, load_powers(job.key, power));
    add_one(&mut sum, high, load_powers(job.key, (power + LANES).min(POWERS)));
    (sum, _mm512_castsi512_si128(after))
}

/// One register of four blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
fn lanes([a, b, c, d]: [__m128i; WIDTH]) -> __m512i {
    let two = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(two, c), d)
}

/// Encrypts four packets and writes their tags, or decrypts them and compares the tags; what is not authentic is
/// wiped.
///
/// # Safety
/// The processor has the instructions, and all keys have `ROUNDS` rounds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
unsafe fn run<const ROUNDS: usize, const SEAL: bool>(jobs: &mut [GcmJob<'_>; WIDTH]) {
    let zero = _mm512_setzero_si512();
    let [a, b, c, d] = &*jobs;
    let keys = [a.key, b.key, c.key, d.key];
    // One by one: together they would be loaded as vectors, and wait for what has only just been written.
    let is = |job: &GcmJob<'_>| job.text.len() <= SHORT;
    let is_short = is(a) && is(b) && is(c) && is(d);
    let is = |key: &Key| std::ptr::eq(key, keys[0]);
    let same_key = is(keys[1]) && is(keys[2]) && is(keys[3]);
    let (sums, encrypt_tags) = if is_short {
        let (sums, blocks) = if same_key {
            short::<ROUNDS, SEAL, true>(jobs, keys)
        } else {
            short::<ROUNDS, SEAL, false>(jobs, keys)
        };
        (sums, lanes(blocks))
    } else {
        let mut sums = [Sum { low: zero, middle: zero, high: zero }; WIDTH];
        let mut first = [_mm_setzero_si128(); WIDTH];
        for (i, job) in jobs.iter_mut().enumerate() {
            let nonce = load_nonce(&job.nonce);
            sums[i] = text::<ROUNDS, SEAL>(job, nonce);
            first[i] = _mm_add_epi32(nonce, _mm_set_epi32(1 << 24, 0, 0, 0));
        }
        let round_keys = |round: usize| {
            if same_key {
                round_key(keys[0], round)
            } else {
                lanes(keys.map(|key| load_block(key.round_keys.of(round))))
            }
        };
        let mut blocks = _mm512_xor_si512(lanes(first), round_keys(0));
        for round in 1..ROUNDS {
            blocks = _mm512_aesenc_epi128(blocks, round_keys(round));
        }
        (sums, _mm512_aesenclast_epi128(blocks, round_keys(ROUNDS)))
    };
    let sum = Sum {
        low: across_each(sums.map(|sum| sum.low)),
        middle: across_each(sums.map(|sum| sum.middle)),
        high: across_each(sums.map(|sum| sum.high)),
    };
    let tags = _mm512_xor_si512(encrypt_tags, reversed(reduce(sum)));
    if SEAL {
        let tags = [
            _mm512_castsi512_si128(tags),
            _mm512_extracti32x4_epi32::<1>(tags),
            _mm512_extracti32x4_epi32::<2>(tags),
            _mm512_extracti32x4_epi32::<3>(tags),
        ];
        for (job, tag) in jobs.iter_mut().zip(tags) {
            // SAFETY: 16 octets are written to a reference to 16.
            unsafe { _mm_storeu_si128(job.tag.as_mut_ptr().cast(), tag) };
        }
        return;
    }
    let mut given = [_mm_setzero_si128(); WIDTH];
    for (given, job) in given.iter_mut().zip(&*jobs) {
        *given = load_block(job.tag);
    }
    // Whole tags at once: it takes as long whichever octet is wrong.
    let differ = _mm512_cmpneq_epi64_mask(tags, lanes(given));
    for (i, job) in jobs.iter_mut().enumerate() {
        job.authentic = differ >> (2 * i) & 3 == 0;
        if !job.authentic {
            job.text.fill(0);
        }
    }
}

/// The round keys, and the powers of H.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
unsafe fn expand(key: &[u8]) -> Key {
    let round_keys = RoundKeys::expand(key);
    let rounds = round_keys.rounds();
    let mut expanded = Key { round_keys, powers: [[0; 16]; POWERS + LANES] };
    let mut block = round_key(&expanded, 0);
    for round in 1..rounds {
        block = _mm512_aesenc_epi128(block, round_key(&expanded, round));
    }
    block = _mm512_aesenclast_epi128(block, round_key(&expanded, rounds));
    let mut octets = [0; 64];
    // SAFETY: 64 octets are written to an array of 64.
    unsafe { _mm512_storeu_si512(octets.as_mut_ptr().cast(), reversed(block)) };
    let reflected = octets.first_chunk().map_or(0, |block| u128::from_le_bytes(*block));
    // Times x, without a branch on the key.
    let h = (reflected << 1) ^ (POLYNOMIAL * (reflected >> 127));
    octets.zeroize();
    let h = _mm512_castsi128_si512(load_block(&h.to_le_bytes()));
    let mut power = h;
    for slot in expanded.powers[..POWERS].iter_mut().rev() {
        // SAFETY: 16 octets are written to a block of 16.
        unsafe { _mm_storeu_si128(slot.as_mut_ptr().cast(), _mm512_castsi512_si128(power)) };
        power = reduce(multiply(power, h));
    }
    expanded
}
