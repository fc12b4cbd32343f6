//! The kernels: ciphers and hashes written for the vector units of today's processors, over many packets at once.
//!
//! All unsafe code of this room is below here. Each kernel has a safe door that takes slices and checks their lengths;
//! behind it, every load and store stays within them. Each equals RustCrypto octet by octet, which the tests show, and
//! leaves no upper halves of vector registers in use, which `sha_ni` would pay for.

#[cfg(all(test, target_arch = "x86_64"))]
mod aead_tests;
#[cfg(target_arch = "x86_64")]
mod aes;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg_attr(not(target_arch = "x86_64"), path = "absent/cbc.rs")]
pub(crate) mod cbc;
#[cfg_attr(not(target_arch = "x86_64"), path = "absent/chacha.rs")]
pub(crate) mod chacha;
#[cfg_attr(not(target_arch = "x86_64"), path = "absent/gcm.rs")]
pub(crate) mod gcm;
#[cfg_attr(not(target_arch = "x86_64"), path = "absent/mac.rs")]
pub(crate) mod mac;
#[cfg_attr(not(target_arch = "x86_64"), path = "absent/narrow_gcm.rs")]
pub(crate) mod narrow_gcm;
#[cfg(target_arch = "x86_64")]
mod poly1305;
mod queue;
#[cfg(target_arch = "x86_64")]
mod sha;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(all(test, target_arch = "x86_64"))]
mod upper_tests;
#[cfg(target_arch = "x86_64")]
mod vector;
#[cfg(all(test, target_arch = "x86_64"))]
mod vectors;

pub(crate) use queue::{AeadJob, BURST, ChaChaJob, Fours, GcmJob, LanesJob, Queue};

/// Brings the first `lines` lines of 64 octets of a value near, without waiting for them. Whatever the pointer, nothing is
/// read that the program could see.
#[inline]
pub fn prefetch<T: ?Sized>(value: *const T, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(value.cast::<i8>().wrapping_add(64 * line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, lines);
}

/// Octets of an AEAD's tag.
pub(crate) const TAG_LEN: usize = 16;

/// What the cryptography runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// AVX-512 with VAES and VPCLMULQDQ, many packets at once.
    Avx512,
    /// AVX2, with VAES and VPCLMULQDQ in registers of 256 bits where they are there, else with AES-NI and PCLMULQDQ.
    Avx2,
    /// AES-NI and PCLMULQDQ, in registers of 128 bits.
    AesNi,
    /// RustCrypto, packet by packet, with AES-NI where there is one.
    Portable,
}

impl Backend {
    /// All of them, the fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::AesNi, Self::Portable];

    /// The fastest that this processor has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|backend| backend.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this processor has what it takes.
    pub fn is_available(self) -> bool {
        match self {
            Self::Avx512 => gcm::is_available(),
            Self::Avx2 => narrow_gcm::has_avx2(),
            Self::AesNi => narrow_gcm::is_available(),
            Self::Portable => true,
        }
    }
}

/// The word for it, as `adit status` shows it.
impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::AesNi => "aesni",
            Self::Portable => "portable",
        })
    }
}
