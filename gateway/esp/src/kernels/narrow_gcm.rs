//! AES-GCM (NIST SP 800-38D) for processors without AVX-512: in registers of 256 bits with VAES and VPCLMULQDQ, else of 128
//! bits with AES-NI and PCLMULQDQ.
//!
//! Of each packet, eight registers at a time go through counter mode, and their products with powers of H are summed before
//! a reduction; so are those of what is left in the end, and of the lengths. As in [`super::gcm`], which says how the powers are kept.

use std::arch::x86_64::*;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{
    AeadJob, Backend, TAG_LEN,
    aes::RoundKeys,
    blocks::{BLOCK, Blocks, Width},
    vector::Vector,
};

/// Registers that are worked on at a time.
const REGISTERS: usize = 8;
/// Powers of H in a key: as many as these registers have blocks, and one for the lengths behind the last ones.
const POWERS: usize = 2 * REGISTERS + 1;
/// x^128 + x^127 + x^126 + x^121 + 1, the field's polynomial with its bits reflected, without x^128.
const POLYNOMIAL: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;
/// Reverses the octets of a block.
const REVERSED: [i8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
/// Reverses the octets of a block's last word.
const COUNTER_REVERSED: [i8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 14, 13, 12];

/// Whether this processor has the instructions for registers of 128 bits.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
}

/// Whether it also has registers of 256 bits, be it without VAES.
pub(super) fn has_avx2() -> bool {
    is_available() && is_x86_feature_detected!("avx2")
}

/// A packet for this kernel.
pub(crate) type Job<'a> = AeadJob<'a, Key>;

/// An expanded key: round keys and powers of H. Wiped when dropped.
#[repr(C, align(64))]
pub(crate) struct Key {
    round_keys: RoundKeys,
    /// H^17 to H^1.
    powers: [[u8; BLOCK]; POWERS],
    width: Width,
}

impl Key {
    /// Expands a key of 16, 24 or 32 octets for a backend; `None` for another length, or where this kernel is not the
    /// backend's.
    pub(crate) fn new(backend: Backend, key: &[u8]) -> Option<Box<Self>> {
        let width = Width::of(backend).filter(|width| *width != Width::Bits512)?;
        if !matches!(key.len(), 16 | 24 | 32) {
            return None;
        }
        // SAFETY: every width has AES-NI, PCLMULQDQ and SSSE3.
        Some(unsafe { expand(key, width) })
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.powers.zeroize();
    }
}

/// Encrypts the texts and writes the tags.
pub(crate) fn seal(jobs: &mut [Job<'_>]) {
    for job in jobs {
        *job.tag = apply::<true>(job);
    }
}

/// Decrypts the texts whose tags are right, and says which are; the others are wiped.
pub(crate) fn open(jobs: &mut [Job<'_>]) {
    for job in jobs {
        let tag = apply::<false>(job);
        job.authentic = u128::from_ne_bytes(*job.tag).ct_eq(&u128::from_ne_bytes(tag)).into();
        if !job.authentic {
            job.text.fill(0);
        }
    }
}

/// Encrypts or decrypts a text and gives its tag.
fn apply<const SEAL: bool>(job: &mut Job<'_>) -> [u8; TAG_LEN] {
    // SAFETY: a width is only where its instructions are.
    unsafe {
        match job.key.width {
            Width::Bits256 => apply_256::<SEAL>(job),
            _ => apply_128::<SEAL>(job),
        }
    }
}

/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "avx2,vaes,vpclmulqdq,aes,pclmulqdq")]
unsafe fn apply_256<const SEAL: bool>(job: &mut Job<'_>) -> [u8; TAG_LEN] {
    // SAFETY: the caller's promise.
    unsafe { packet::<__m256i, SEAL>(job) }
}

/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "ssse3,sse4.1,aes,pclmulqdq")]
unsafe fn apply_128<const SEAL: bool>(job: &mut Job<'_>) -> [u8; TAG_LEN] {
    // SAFETY: the caller's promise.
    unsafe { packet::<__m128i, SEAL>(job) }
}

/// Sums of products that are not reduced yet: low, middle and high halves of the partial products.
#[derive(Clone, Copy)]
struct Sum<V> {
    low: V,
    middle: V,
    high: V,
}

impl<V: Blocks> Sum<V> {
    /// # Safety
    /// The processor has what `V` wants.
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { low: V::zero(), middle: V::zero(), high: V::zero() } }
    }

    /// Adds the product of each block of `x` with one of `h`.
    ///
    /// # Safety
    /// The processor has what `V` wants.
    #[inline(always)]
    unsafe fn add(&mut self, x: V, h: V) {
        // SAFETY: the caller's promise.
        unsafe {
            self.low = V::xor(self.low, V::multiply::<0x00>(x, h));
            self.middle = V::xor3(self.middle, V::multiply::<0x01>(x, h), V::multiply::<0x10>(x, h));
            self.high = V::xor(self.high, V::multiply::<0x11>(x, h));
        }
    }

    /// The sum of all blocks' products, reduced.
    ///
    /// # Safety
    /// The processor has what `V` wants.
    #[inline(always)]
    unsafe fn reduced(self) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, middle, high) = (V::sum(self.low), V::sum(self.middle), V::sum(self.high));
            // Twice: what the lower half comes to, modulo the polynomial, goes into the upper one.
            let polynomial = _mm_set_epi64x((POLYNOMIAL >> 64) as i64, POLYNOMIAL as i64);
            let folded = _mm_clmulepi64_si128::<0x01>(polynomial, low);
            let middle = __m128i::xor3(middle, _mm_shuffle_epi32::<0x4e>(low), folded);
            let folded = _mm_clmulepi64_si128::<0x01>(polynomial, middle);
            __m128i::xor3(high, _mm_shuffle_epi32::<0x4e>(middle), folded)
        }
    }
}

/// The state of GHASH and of counter mode between two steps.
struct Progress<V> {
    /// The counter blocks of the next register, with the counter in the machine's order.
    counter: V,
    /// What has been hashed, and is to be added to the next block.
    hash: __m128i,
    /// The power of H that the next block is multiplied with.
    exponent: usize,
    /// The products since.
    sum: Sum<V>,
}

/// Encrypts or decrypts `COUNT` registers of text and adds their products to the sum.
///
/// # Safety
/// The processor has what `V` wants, `text` has `COUNT` registers of octets, and the exponent is at least as many blocks.
#[inline(always)]
unsafe fn step<V: Blocks, const SEAL: bool, const COUNT: usize>(
    key: &Key,
    text: *mut u8,
    progress: &mut Progress<V>,
) {
    // SAFETY: the caller's promise. The slice of the powers has one for each block.
    unsafe {
        let rounds = key.round_keys.rounds();
        let whitening = V::broadcast(key.round_keys.of(0).as_ptr());
        let more = V::broadcast([0u32, 0, 0, V::BLOCKS as u32].as_ptr().cast());
        let mut stream = [V::zero(); COUNT];
        for blocks in &mut stream {
            *blocks = V::xor(V::shuffle(progress.counter, COUNTER_REVERSED), whitening);
            progress.counter = V::add32(progress.counter, more);
        }
        for round in 1..rounds {
            let round_key = V::broadcast(key.round_keys.of(round).as_ptr());
            for blocks in &mut stream {
                *blocks = V::encrypt_round(*blocks, round_key);
            }
        }
        let last = V::broadcast(key.round_keys.of(rounds).as_ptr());
        let powers = key.powers[POWERS - progress.exponent..].as_ptr();
        for (i, blocks) in stream.into_iter().enumerate() {
            let at = text.add(V::OCTETS * i);
            let before = V::load(at);
            let after = V::encrypt_last(blocks, V::xor(last, before));
            V::store(at, after);
            let mut hashed = V::shuffle(if SEAL { after } else { before }, REVERSED);
            if i == 0 {
                hashed = V::xor(hashed, V::first(progress.hash));
            }
            progress.sum.add(hashed, V::load(powers.add(V::BLOCKS * i).cast()));
        }
        progress.hash = _mm_setzero_si128();
        progress.exponent -= V::BLOCKS * COUNT;
    }
}

/// A block, encrypted.
///
/// # Safety
/// The processor has AES-NI.
#[inline(always)]
unsafe fn encrypted(key: &RoundKeys, block: __m128i) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let mut block = _mm_xor_si128(block, __m128i::load(key.of(0).as_ptr()));
        for round in 1..key.rounds() {
            block = _mm_aesenc_si128(block, __m128i::load(key.of(round).as_ptr()));
        }
        _mm_aesenclast_si128(block, __m128i::load(key.of(key.rounds()).as_ptr()))
    }
}

/// Encrypts or decrypts the text of one packet and gives its tag.
///
/// # Safety
/// The processor has what `V` wants.
#[inline(always)]
unsafe fn packet<V: Blocks, const SEAL: bool>(job: &mut Job<'_>) -> [u8; TAG_LEN] {
    let key = job.key;
    let [a, b, c, d, e, f, g, h, rest @ ..] = job.nonce;
    let nonce = [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from(u32::from_le_bytes(rest))];
    // SAFETY: the caller's promise. `left` octets are left before `end`, as many as a step takes at least.
    unsafe {
        let nonce = _mm_set_epi64x(nonce[1] as i64, nonce[0] as i64);
        let power = |exponent: usize| __m128i::load(key.powers[POWERS - exponent].as_ptr());
        // The first counter block encrypts the tag, the others the text.
        let mask = encrypted(&key.round_keys, _mm_insert_epi32::<3>(nonce, 1 << 24));
        let mut aad = Sum::<__m128i>::zero();
        aad.add(__m128i::shuffle(__m128i::load(job.aad.as_ptr()), REVERSED), power(1));
        let counters = V::load([[0u32, 0, 0, 2], [0, 0, 0, 3]].as_ptr().cast());
        let nonces = [nonce; 2];
        let counter = V::add32(V::load(nonces.as_ptr().cast()), counters);
        let group = REGISTERS * V::BLOCKS;
        let mut progress = Progress { counter, hash: aad.reduced(), exponent: group, sum: Sum::zero() };

        let mut left = job.text.len();
        let end = job.text.as_mut_ptr().add(left);
        while left >= group * BLOCK {
            step::<V, SEAL, REGISTERS>(key, end.sub(left), &mut progress);
            left -= group * BLOCK;
            progress.hash = progress.sum.reduced();
            progress.exponent = group;
            progress.sum = Sum::zero();
        }
        // What is left, and then the lengths.
        progress.exponent = left.div_ceil(BLOCK) + 1;
        macro_rules! rest {
            ($register:ty, $count:literal, $progress:ident) => {
                if left >= $count * <$register>::OCTETS {
                    step::<$register, SEAL, $count>(key, end.sub(left), &mut $progress);
                    left -= $count * <$register>::OCTETS;
                }
            };
        }
        rest!(V, 4, progress);
        rest!(V, 2, progress);
        rest!(V, 1, progress);
        let Progress { counter, hash, exponent, sum } = progress;
        let sum = Sum { low: V::sum(sum.low), middle: V::sum(sum.middle), high: V::sum(sum.high) };
        let mut progress = Progress { counter: V::low(counter), hash, exponent, sum };
        rest!(__m128i, 1, progress);

        let Progress { counter, mut hash, mut sum, .. } = progress;
        if left > 0 {
            let whole = job.text.len() - left;
            let part = &mut job.text[whole..];
            let mut block = [0; BLOCK];
            block[..left].copy_from_slice(part);
            let stream = encrypted(&key.round_keys, __m128i::shuffle(counter, COUNTER_REVERSED));
            let mut after = [0; BLOCK];
            __m128i::store(after.as_mut_ptr(), _mm_xor_si128(stream, __m128i::load(block.as_ptr())));
            part.copy_from_slice(&after[..left]);
            if SEAL {
                after[left..].fill(0);
                block = after;
            }
            let hashed = __m128i::shuffle(__m128i::load(block.as_ptr()), REVERSED);
            sum.add(_mm_xor_si128(hashed, hash), power(2));
            hash = _mm_setzero_si128();
        }
        let lengths = _mm_set_epi64x(i64::from(job.aad_len) * 8, job.text.len() as i64 * 8);
        sum.add(_mm_xor_si128(lengths, hash), power(1));
        let tag = _mm_xor_si128(__m128i::shuffle(sum.reduced(), REVERSED), mask);
        let mut octets = [0; TAG_LEN];
        __m128i::store(octets.as_mut_ptr(), tag);
        octets
    }
}

/// The round keys, and the powers of H.
///
/// # Safety
/// The processor has the instructions, and those of the width.
#[target_feature(enable = "ssse3,sse4.1,aes,pclmulqdq")]
unsafe fn expand(key: &[u8], width: Width) -> Box<Key> {
    let round_keys = RoundKeys::expand(key);
    let mut expanded = Box::new(Key { round_keys, powers: [[0; BLOCK]; POWERS], width });
    let mut octets = [0; BLOCK];
    // SAFETY: the caller's promise; 16 octets are read from and written to blocks of 16.
    unsafe {
        let h = encrypted(&expanded.round_keys, _mm_setzero_si128());
        __m128i::store(octets.as_mut_ptr(), __m128i::shuffle(h, REVERSED));
        let reflected = u128::from_le_bytes(octets);
        octets.zeroize();
        // Times x, without a branch on the key.
        let h = (reflected << 1) ^ (POLYNOMIAL * (reflected >> 127));
        let h = _mm_set_epi64x((h >> 64) as i64, h as i64);
        let mut power = h;
        for slot in expanded.powers.iter_mut().rev() {
            __m128i::store(slot.as_mut_ptr(), power);
            let mut next = Sum::<__m128i>::zero();
            next.add(power, h);
            power = next.reduced();
        }
    }
    expanded
}
