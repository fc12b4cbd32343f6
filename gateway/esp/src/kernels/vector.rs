//! The vector registers of x86 behind one interface: a kernel is written once for registers of 128, 256 and 512 bits.
//!
//! What is here has no `#[target_feature]` of its own. All of it, and every kernel that is generic over a [`Vector`], is
//! inlined into a function that enables what [`Vector`] wants of its width and is called only where the processor has it.

use std::arch::x86_64::*;

/// Registers of one width.
///
/// # Safety
/// Every function wants a processor with the instructions of the width: SSSE3 and SSE4.1, or AVX2, or AVX-512 F, BW and
/// VL. Places are read and written as far as the function says.
pub(super) trait Vector: Copy {
    /// Octets of a register.
    const OCTETS: usize;

    unsafe fn zero() -> Self;
    /// Reads a register's octets.
    unsafe fn load(at: *const u8) -> Self;
    /// Writes a register's octets.
    unsafe fn store(at: *mut u8, v: Self);
    unsafe fn xor(a: Self, b: Self) -> Self;
    unsafe fn xor3(a: Self, b: Self, c: Self) -> Self;
    /// Bits of `b` where `a` has ones, else of `c`.
    unsafe fn choose(a: Self, b: Self, c: Self) -> Self;
    unsafe fn majority(a: Self, b: Self, c: Self) -> Self;
    /// Octet `i` of every 128 bits is the one that octet `i` of `order` names.
    unsafe fn shuffle(v: Self, order: [i8; 16]) -> Self;

    unsafe fn splat32(word: u32) -> Self;
    unsafe fn add32(a: Self, b: Self) -> Self;
    unsafe fn shift_right32<const BITS: i32>(v: Self) -> Self;
    /// Words turned to the right, for `LEFT` = 32 - `RIGHT`.
    unsafe fn turn_right32<const RIGHT: i32, const LEFT: i32>(v: Self) -> Self;
    /// Words of `a` where `mask` has ones, else of `b`; the lowest word's bit is the lowest.
    unsafe fn select32(mask: u16, a: Self, b: Self) -> Self;
    /// As many rows of 32-bit words as a register has words become columns.
    unsafe fn transpose32(rows: &mut [Self]);

    unsafe fn splat64(word: u64) -> Self;
    unsafe fn add64(a: Self, b: Self) -> Self;
    unsafe fn shift_right64<const BITS: i32>(v: Self) -> Self;
    /// As [`Vector::turn_right32`], for `LEFT` = 64 - `RIGHT`.
    unsafe fn turn_right64<const RIGHT: i32, const LEFT: i32>(v: Self) -> Self;
    /// As [`Vector::select32`].
    unsafe fn select64(mask: u16, a: Self, b: Self) -> Self;
    /// As [`Vector::transpose32`], of 64-bit words.
    unsafe fn transpose64(rows: &mut [Self]);
}

/// What calls intrinsics of the same arguments.
macro_rules! calls {
    ($($name:ident($($argument:ident),*) = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($argument: Self),*) -> Self {
            // SAFETY: the instructions are there, as the caller promises.
            unsafe { $intrinsic($($argument),*) }
        }
    )*};
}

/// Words of a vector, the lowest first: where their bit in `mask` is set, all ones.
macro_rules! ones {
    ($mask:ident, $word:ty, $count:literal) => {
        std::array::from_fn::<$word, $count, _>(|lane| -(<$word>::from($mask >> lane & 1 != 0)))
    };
}

impl Vector for __m128i {
    const OCTETS: usize = 16;

    calls! {
        zero() = _mm_setzero_si128;
        xor(a, b) = _mm_xor_si128;
        add32(a, b) = _mm_add_epi32;
        add64(a, b) = _mm_add_epi64;
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_loadu_si128(at.cast()) }
    }

    #[inline(always)]
    unsafe fn store(at: *mut u8, v: Self) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(at.cast(), v) }
    }

    #[inline(always)]
    unsafe fn xor3(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_xor_si128(_mm_xor_si128(a, b), c) }
    }

    #[inline(always)]
    unsafe fn choose(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_xor_si128(c, _mm_and_si128(a, _mm_xor_si128(b, c))) }
    }

    #[inline(always)]
    unsafe fn majority(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_or_si128(_mm_and_si128(a, b), _mm_and_si128(c, _mm_or_si128(a, b))) }
    }

    #[inline(always)]
    unsafe fn shuffle(v: Self, order: [i8; 16]) -> Self {
        // SAFETY: the caller's promise; 16 octets are read from an array of 16.
        unsafe { _mm_shuffle_epi8(v, _mm_loadu_si128(order.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn splat32(word: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_set1_epi32(word as i32) }
    }

    #[inline(always)]
    unsafe fn shift_right32<const BITS: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_srli_epi32::<BITS>(v) }
    }

    #[inline(always)]
    unsafe fn turn_right32<const RIGHT: i32, const LEFT: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_or_si128(_mm_srli_epi32::<RIGHT>(v), _mm_slli_epi32::<LEFT>(v)) }
    }

    #[inline(always)]
    unsafe fn select32(mask: u16, a: Self, b: Self) -> Self {
        let ones = ones!(mask, i32, 4);
        // SAFETY: the caller's promise; 16 octets are read from an array of 16.
        unsafe { _mm_blendv_epi8(b, a, _mm_loadu_si128(ones.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn transpose32(rows: &mut [Self]) {
        let [a, b, c, d] = rows else { unreachable!("four rows of four words") };
        // SAFETY: the caller's promise.
        unsafe {
            let (low, high) = (_mm_unpacklo_epi32(*a, *b), _mm_unpackhi_epi32(*a, *b));
            let (low2, high2) = (_mm_unpacklo_epi32(*c, *d), _mm_unpackhi_epi32(*c, *d));
            (*a, *b) = (_mm_unpacklo_epi64(low, low2), _mm_unpackhi_epi64(low, low2));
            (*c, *d) = (_mm_unpacklo_epi64(high, high2), _mm_unpackhi_epi64(high, high2));
        }
    }

    #[inline(always)]
    unsafe fn splat64(word: u64) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_set1_epi64x(word as i64) }
    }

    #[inline(always)]
    unsafe fn shift_right64<const BITS: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_srli_epi64::<BITS>(v) }
    }

    #[inline(always)]
    unsafe fn turn_right64<const RIGHT: i32, const LEFT: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm_or_si128(_mm_srli_epi64::<RIGHT>(v), _mm_slli_epi64::<LEFT>(v)) }
    }

    #[inline(always)]
    unsafe fn select64(mask: u16, a: Self, b: Self) -> Self {
        let ones = ones!(mask, i64, 2);
        // SAFETY: the caller's promise; 16 octets are read from an array of 16.
        unsafe { _mm_blendv_epi8(b, a, _mm_loadu_si128(ones.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn transpose64(rows: &mut [Self]) {
        let [a, b] = rows else { unreachable!("two rows of two words") };
        // SAFETY: the caller's promise.
        unsafe { (*a, *b) = (_mm_unpacklo_epi64(*a, *b), _mm_unpackhi_epi64(*a, *b)) }
    }
}

impl Vector for __m256i {
    const OCTETS: usize = 32;

    calls! {
        zero() = _mm256_setzero_si256;
        xor(a, b) = _mm256_xor_si256;
        add32(a, b) = _mm256_add_epi32;
        add64(a, b) = _mm256_add_epi64;
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }

    #[inline(always)]
    unsafe fn store(at: *mut u8, v: Self) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(at.cast(), v) }
    }

    #[inline(always)]
    unsafe fn xor3(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_xor_si256(_mm256_xor_si256(a, b), c) }
    }

    #[inline(always)]
    unsafe fn choose(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_xor_si256(c, _mm256_and_si256(a, _mm256_xor_si256(b, c))) }
    }

    #[inline(always)]
    unsafe fn majority(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b))) }
    }

    #[inline(always)]
    unsafe fn shuffle(v: Self, order: [i8; 16]) -> Self {
        // SAFETY: the caller's promise; 16 octets are read from an array of 16.
        unsafe { _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_loadu_si128(order.as_ptr().cast()))) }
    }

    #[inline(always)]
    unsafe fn splat32(word: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_epi32(word as i32) }
    }

    #[inline(always)]
    unsafe fn shift_right32<const BITS: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_srli_epi32::<BITS>(v) }
    }

    #[inline(always)]
    unsafe fn turn_right32<const RIGHT: i32, const LEFT: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_or_si256(_mm256_srli_epi32::<RIGHT>(v), _mm256_slli_epi32::<LEFT>(v)) }
    }

    #[inline(always)]
    unsafe fn select32(mask: u16, a: Self, b: Self) -> Self {
        let ones = ones!(mask, i32, 8);
        // SAFETY: the caller's promise; 32 octets are read from an array of 32.
        unsafe { _mm256_blendv_epi8(b, a, _mm256_loadu_si256(ones.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn transpose32(rows: &mut [Self]) {
        assert!(rows.len() == 8, "eight rows of eight words");
        // SAFETY: the caller's promise.
        unsafe {
            let mut quads = [_mm256_setzero_si256(); 8];
            for i in [0, 4] {
                let (low, high) = (
                    _mm256_unpacklo_epi32(rows[i], rows[i + 1]),
                    _mm256_unpackhi_epi32(rows[i], rows[i + 1]),
                );
                let (low2, high2) = (
                    _mm256_unpacklo_epi32(rows[i + 2], rows[i + 3]),
                    _mm256_unpackhi_epi32(rows[i + 2], rows[i + 3]),
                );
                quads[i] = _mm256_unpacklo_epi64(low, low2);
                quads[i + 1] = _mm256_unpackhi_epi64(low, low2);
                quads[i + 2] = _mm256_unpacklo_epi64(high, high2);
                quads[i + 3] = _mm256_unpackhi_epi64(high, high2);
            }
            // quads[4g + j] has, in half k, column 4k + j of rows 4g to 4g + 3.
            for j in 0..4 {
                rows[j] = _mm256_permute2x128_si256::<0x20>(quads[j], quads[4 + j]);
                rows[4 + j] = _mm256_permute2x128_si256::<0x31>(quads[j], quads[4 + j]);
            }
        }
    }

    #[inline(always)]
    unsafe fn splat64(word: u64) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_epi64x(word as i64) }
    }

    #[inline(always)]
    unsafe fn shift_right64<const BITS: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_srli_epi64::<BITS>(v) }
    }

    #[inline(always)]
    unsafe fn turn_right64<const RIGHT: i32, const LEFT: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_or_si256(_mm256_srli_epi64::<RIGHT>(v), _mm256_slli_epi64::<LEFT>(v)) }
    }

    #[inline(always)]
    unsafe fn select64(mask: u16, a: Self, b: Self) -> Self {
        let ones = ones!(mask, i64, 4);
        // SAFETY: the caller's promise; 32 octets are read from an array of 32.
        unsafe { _mm256_blendv_epi8(b, a, _mm256_loadu_si256(ones.as_ptr().cast())) }
    }

    #[inline(always)]
    unsafe fn transpose64(rows: &mut [Self]) {
        let [a, b, c, d] = rows else { unreachable!("four rows of four words") };
        // SAFETY: the caller's promise.
        unsafe {
            let (even, odd) = (_mm256_unpacklo_epi64(*a, *b), _mm256_unpackhi_epi64(*a, *b));
            let (even2, odd2) = (_mm256_unpacklo_epi64(*c, *d), _mm256_unpackhi_epi64(*c, *d));
            (*a, *b) = (
                _mm256_permute2x128_si256::<0x20>(even, even2),
                _mm256_permute2x128_si256::<0x20>(odd, odd2),
            );
            (*c, *d) = (
                _mm256_permute2x128_si256::<0x31>(even, even2),
                _mm256_permute2x128_si256::<0x31>(odd, odd2),
            );
        }
    }
}

/// Bitwise functions of three words, by their truth tables.
const CHOOSE: i32 = 0xca;
const MAJORITY: i32 = 0xe8;
const PARITY: i32 = 0x96;

impl Vector for __m512i {
    const OCTETS: usize = 64;

    calls! {
        zero() = _mm512_setzero_si512;
        xor(a, b) = _mm512_xor_si512;
        add32(a, b) = _mm512_add_epi32;
        add64(a, b) = _mm512_add_epi64;
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn store(at: *mut u8, v: Self) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_si512(at.cast(), v) }
    }

    #[inline(always)]
    unsafe fn xor3(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_ternarylogic_epi32::<PARITY>(a, b, c) }
    }

    #[inline(always)]
    unsafe fn choose(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_ternarylogic_epi32::<CHOOSE>(a, b, c) }
    }

    #[inline(always)]
    unsafe fn majority(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_ternarylogic_epi32::<MAJORITY>(a, b, c) }
    }

    #[inline(always)]
    unsafe fn shuffle(v: Self, order: [i8; 16]) -> Self {
        // SAFETY: the caller's promise; 16 octets are read from an array of 16.
        unsafe { _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_loadu_si128(order.as_ptr().cast()))) }
    }

    #[inline(always)]
    unsafe fn splat32(word: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_epi32(word as i32) }
    }

    #[inline(always)]
    unsafe fn shift_right32<const BITS: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise. The count is the same, the intrinsic's is unsigned.
        unsafe { _mm512_srl_epi32(v, _mm_cvtsi32_si128(BITS)) }
    }

    #[inline(always)]
    unsafe fn turn_right32<const RIGHT: i32, const LEFT: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_ror_epi32::<RIGHT>(v) }
    }

    #[inline(always)]
    unsafe fn select32(mask: u16, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_mask_mov_epi32(b, mask, a) }
    }

    #[inline(always)]
    unsafe fn transpose32(rows: &mut [Self]) {
        assert!(rows.len() == 16, "sixteen rows of sixteen words");
        // SAFETY: the caller's promise.
        unsafe {
            let mut quads = [_mm512_setzero_si512(); 16];
            for i in (0..16).step_by(4) {
                let (low, high) = (
                    _mm512_unpacklo_epi32(rows[i], rows[i + 1]),
                    _mm512_unpackhi_epi32(rows[i], rows[i + 1]),
                );
                let (low2, high2) = (
                    _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]),
                    _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]),
                );
                quads[i] = _mm512_unpacklo_epi64(low, low2);
                quads[i + 1] = _mm512_unpackhi_epi64(low, low2);
                quads[i + 2] = _mm512_unpacklo_epi64(high, high2);
                quads[i + 3] = _mm512_unpackhi_epi64(high, high2);
            }
            // quads[4g + j] has, in quarter k, column 4k + j of rows 4g to 4g + 3.
            for j in 0..4 {
                let (low, high) = (
                    _mm512_shuffle_i32x4::<0x88>(quads[j], quads[4 + j]),
                    _mm512_shuffle_i32x4::<0xdd>(quads[j], quads[4 + j]),
                );
                let (low2, high2) = (
                    _mm512_shuffle_i32x4::<0x88>(quads[8 + j], quads[12 + j]),
                    _mm512_shuffle_i32x4::<0xdd>(quads[8 + j], quads[12 + j]),
                );
                rows[j] = _mm512_shuffle_i32x4::<0x88>(low, low2);
                rows[8 + j] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
                rows[4 + j] = _mm512_shuffle_i32x4::<0x88>(high, high2);
                rows[12 + j] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
            }
        }
    }

    #[inline(always)]
    unsafe fn splat64(word: u64) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_epi64(word as i64) }
    }

    #[inline(always)]
    unsafe fn shift_right64<const BITS: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise. The count is the same, the intrinsic's is unsigned.
        unsafe { _mm512_srl_epi64(v, _mm_cvtsi32_si128(BITS)) }
    }

    #[inline(always)]
    unsafe fn turn_right64<const RIGHT: i32, const LEFT: i32>(v: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_ror_epi64::<RIGHT>(v) }
    }

    #[inline(always)]
    unsafe fn select64(mask: u16, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_mask_mov_epi64(b, mask as u8, a) }
    }

    #[inline(always)]
    unsafe fn transpose64(rows: &mut [Self]) {
        assert!(rows.len() == 8, "eight rows of eight words");
        // SAFETY: the caller's promise.
        unsafe {
            let mut pairs = [_mm512_setzero_si512(); 8];
            for i in (0..8).step_by(2) {
                pairs[i] = _mm512_unpacklo_epi64(rows[i], rows[i + 1]);
                pairs[i + 1] = _mm512_unpackhi_epi64(rows[i], rows[i + 1]);
            }
            // pairs[2g + j] has, in quarter k, column 2k + j of rows 2g and 2g + 1.
            for j in 0..2 {
                let (low, high) = (
                    _mm512_shuffle_i64x2::<0x88>(pairs[j], pairs[2 + j]),
                    _mm512_shuffle_i64x2::<0xdd>(pairs[j], pairs[2 + j]),
                );
                let (low2, high2) = (
                    _mm512_shuffle_i64x2::<0x88>(pairs[4 + j], pairs[6 + j]),
                    _mm512_shuffle_i64x2::<0xdd>(pairs[4 + j], pairs[6 + j]),
                );
                rows[j] = _mm512_shuffle_i64x2::<0x88>(low, low2);
                rows[4 + j] = _mm512_shuffle_i64x2::<0xdd>(low, low2);
                rows[2 + j] = _mm512_shuffle_i64x2::<0x88>(high, high2);
                rows[6 + j] = _mm512_shuffle_i64x2::<0xdd>(high, high2);
            }
        }
    }
}
