//! Blocks of AES and of GHASH in vector registers: what [`Vector`] is for words.

use std::arch::x86_64::*;

use super::{Backend, vector::Vector};

/// Octets of a block.
pub(super) const BLOCK: usize = 16;
/// Blocks of the widest register.
pub(super) const MOST: usize = 4;

/// The registers in which a backend works on blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Bits128,
    Bits256,
    Bits512,
}

impl Width {
    /// The widest that a backend, and this processor, has instructions for; `None` where it has none.
    pub(super) fn of(backend: Backend) -> Option<Self> {
        match backend {
            _ if !backend.is_available() => None,
            Backend::Avx512 => Some(Width::Bits512),
            Backend::Avx2 if is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq") => {
                Some(Width::Bits256)
            }
            Backend::Avx2 | Backend::AesNi => Some(Width::Bits128),
            Backend::Portable => None,
        }
    }
}

/// Registers of blocks.
///
/// # Safety
/// As [`Vector`]; beyond that, functions want AES-NI and PCLMULQDQ, and VAES and VPCLMULQDQ in the wider registers.
pub(super) trait Blocks: Vector {
    /// Blocks of a register.
    const BLOCKS: usize;

    /// The 16 octets at a place, in every block.
    unsafe fn broadcast(at: *const u8) -> Self;
    /// The 16 octets at each of the first places.
    unsafe fn gather(at: [*const u8; MOST]) -> Self;
    /// Writes each block to one of the first places.
    unsafe fn scatter(at: [*mut u8; MOST], v: Self);
    /// As many registers as each has blocks: block `i` of register `j` becomes block `j` of register `i`.
    unsafe fn turn(rows: [Self; MOST]) -> [Self; MOST];
    unsafe fn encrypt_round(v: Self, key: Self) -> Self;
    unsafe fn encrypt_last(v: Self, key: Self) -> Self;
    unsafe fn decrypt_round(v: Self, key: Self) -> Self;
    unsafe fn decrypt_last(v: Self, key: Self) -> Self;
    /// The product of a half of each block of either: bit 0 of `HALVES` names that of `a`, bit 4 that of `b`.
    unsafe fn multiply<const HALVES: i32>(a: Self, b: Self) -> Self;
    /// The sum of all blocks.
    unsafe fn sum(v: Self) -> __m128i;
    /// The first block.
    unsafe fn low(v: Self) -> __m128i;
    /// One block, zeros behind it.
    unsafe fn first(block: __m128i) -> Self;
}

macro_rules! calls {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name(v: Self, key: Self) -> Self {
            // SAFETY: the instructions are there, as the caller promises.
            unsafe { $intrinsic(v, key) }
        }
    )*};
}

impl Blocks for __m128i {
    const BLOCKS: usize = 1;

    calls! {
        encrypt_round = _mm_aesenc_si128;
        encrypt_last = _mm_aesenclast_si128;
        decrypt_round = _mm_aesdec_si128;
        decrypt_last = _mm_aesdeclast_si128;
    }

    #[inline(always)]
    unsafe fn broadcast(at: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::load(at) }
    }

    #[inline(always)]
    unsafe fn gather([at, ..]: [*const u8; MOST]) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::load(at) }
    }

    #[inline(always)]
    unsafe fn scatter([at, ..]: [*mut u8; MOST], v: Self) {
        // SAFETY: the caller's promise.
        unsafe { Self::store(at, v) }
    }

    #[inline(always)]
    unsafe fn turn(rows: [Self; MOST]) -> [Self; MOST] {
        rows
    }

    #[inline(always)]
    unsafe fn multiply<const HALVES: i32>(a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_clmulepi64_si128::<HALVES>(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(v: Self) -> __m128i {
        v
    }

    #[inline(always)]
    unsafe fn low(v: Self) -> __m128i {
        v
    }

    #[inline(always)]
    unsafe fn first(block: __m128i) -> Self {
        block
    }
}

impl Blocks for __m256i {
    const BLOCKS: usize = 2;

    calls! {
        encrypt_round = _mm256_aesenc_epi128;
        encrypt_last = _mm256_aesenclast_epi128;
        decrypt_round = _mm256_aesdec_epi128;
        decrypt_last = _mm256_aesdeclast_epi128;
    }

    #[inline(always)]
    unsafe fn broadcast(at: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_broadcastsi128_si256(__m128i::load(at)) }
    }

    #[inline(always)]
    unsafe fn gather([a, b, ..]: [*const u8; MOST]) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set_m128i(__m128i::load(b), __m128i::load(a)) }
    }

    #[inline(always)]
    unsafe fn scatter([a, b, ..]: [*mut u8; MOST], v: Self) {
        // SAFETY: the caller's promise.
        unsafe {
            __m128i::store(a, _mm256_castsi256_si128(v));
            __m128i::store(b, _mm256_extracti128_si256::<1>(v));
        }
    }

    #[inline(always)]
    unsafe fn turn([a, b, ..]: [Self; MOST]) -> [Self; MOST] {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, high) =
                (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b));
            [low, high, low, high]
        }
    }

    #[inline(always)]
    unsafe fn multiply<const HALVES: i32>(a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_clmulepi64_epi128::<HALVES>(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(v: Self) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe { _mm_xor_si128(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v)) }
    }

    #[inline(always)]
    unsafe fn low(v: Self) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_castsi256_si128(v) }
    }

    #[inline(always)]
    unsafe fn first(block: __m128i) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_zextsi128_si256(block) }
    }
}

impl Blocks for __m512i {
    const BLOCKS: usize = 4;

    calls! {
        encrypt_round = _mm512_aesenc_epi128;
        encrypt_last = _mm512_aesenclast_epi128;
        decrypt_round = _mm512_aesdec_epi128;
        decrypt_last = _mm512_aesdeclast_epi128;
    }

    #[inline(always)]
    unsafe fn broadcast(at: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_broadcast_i32x4(__m128i::load(at)) }
    }

    #[inline(always)]
    unsafe fn gather(at: [*const u8; MOST]) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = at.map(|at| __m128i::load(at));
            let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
            _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, c), d)
        }
    }

    #[inline(always)]
    unsafe fn scatter([a, b, c, d]: [*mut u8; MOST], v: Self) {
        // SAFETY: the caller's promise.
        unsafe {
            __m128i::store(a, _mm512_castsi512_si128(v));
            __m128i::store(b, _mm512_extracti32x4_epi32::<1>(v));
            __m128i::store(c, _mm512_extracti32x4_epi32::<2>(v));
            __m128i::store(d, _mm512_extracti32x4_epi32::<3>(v));
        }
    }

    #[inline(always)]
    unsafe fn turn([a, b, c, d]: [Self; MOST]) -> [Self; MOST] {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, low2) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0x44>(c, d));
            let (high, high2) = (_mm512_shuffle_i64x2::<0xee>(a, b), _mm512_shuffle_i64x2::<0xee>(c, d));
            [
                _mm512_shuffle_i64x2::<0x88>(low, low2),
                _mm512_shuffle_i64x2::<0xdd>(low, low2),
                _mm512_shuffle_i64x2::<0x88>(high, high2),
                _mm512_shuffle_i64x2::<0xdd>(high, high2),
            ]
        }
    }

    #[inline(always)]
    unsafe fn multiply<const HALVES: i32>(a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_clmulepi64_epi128::<HALVES>(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(v: Self) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe {
            let v = _mm512_xor_si512(v, _mm512_shuffle_i64x2::<0x4e>(v, v));
            _mm512_castsi512_si128(_mm512_xor_si512(v, _mm512_shuffle_i64x2::<0xb1>(v, v)))
        }
    }

    #[inline(always)]
    unsafe fn low(v: Self) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_castsi512_si128(v) }
    }

    #[inline(always)]
    unsafe fn first(block: __m128i) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_zextsi128_si512(block) }
    }
}
