//! The kernels: ciphers written for the vector units of today's processors, over many packets at once.
//!
//! All unsafe code of this room is below here. Each kernel has a safe door that takes slices and checks their lengths;
//! behind it, every load and store stays within them. Each equals RustCrypto octet by octet, which the tests show.

#[cfg_attr(not(target_arch = "x86_64"), path = "absent.rs")]
pub(crate) mod gcm;

use arrayvec::ArrayVec;

/// Octets of an AEAD's tag.
pub(crate) const TAG_LEN: usize = 16;
/// Packets that a queue takes.
pub(crate) const BURST: usize = 64;

/// One packet's text for a kernel, in place, and what goes with it.
pub(crate) struct Job<'a> {
    /// Which packet of the burst it is.
    pub(crate) position: usize,
    /// The key.
    pub(crate) key: &'a gcm::Key,
    /// Salt and IV.
    pub(crate) nonce: [u8; 12],
    /// Associated data, zeros behind it.
    pub(crate) aad: [u8; 16],
    /// Octets of it, at most 16.
    pub(crate) aad_len: u8,
    /// What is encrypted or decrypted.
    pub(crate) text: &'a mut [u8],
    /// The tag: written when sealing, compared when opening.
    pub(crate) tag: &'a mut [u8; TAG_LEN],
    /// Whether the tag that came is right.
    pub(crate) authentic: bool,
}

/// The packets of a burst that wait for a kernel.
#[derive(Default)]
pub(crate) struct Queue<'a>(ArrayVec<Job<'a>, BURST>);

impl<'a> Queue<'a> {
    /// Takes one more; there are never more than a burst has packets.
    pub(crate) fn push(&mut self, job: Job<'a>) {
        self.0.push(job);
    }

    /// Encrypts all texts and writes their tags.
    pub(crate) fn seal(mut self) {
        self.sort();
        gcm::seal(&mut self.0);
    }

    /// Decrypts the texts that are authentic, wipes the others, and tells the positions of the former.
    pub(crate) fn open(mut self, mut authentic: impl FnMut(usize)) {
        self.sort();
        gcm::open(&mut self.0);
        self.0.iter().filter(|job| job.authentic).for_each(|job| authentic(job.position));
    }

    /// Keys of one length together: only those go through a kernel side by side.
    fn sort(&mut self) {
        if !self.0.is_sorted_by_key(|job| job.key.rounds()) {
            self.0.sort_unstable_by_key(|job| job.key.rounds());
        }
    }
}

/// What the cryptography runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// AVX-512 with VAES and VPCLMULQDQ, several packets at once.
    Avx512,
    /// RustCrypto, packet by packet, with AES-NI where there is one.
    Portable,
}

impl Backend {
    /// The fastest that this processor has.
    pub fn detect() -> Self {
        if Self::Avx512.is_available() { Self::Avx512 } else { Self::Portable }
    }

    /// Whether this processor has what it takes.
    pub fn is_available(self) -> bool {
        match self {
            Self::Avx512 => gcm::is_available(),
            Self::Portable => true,
        }
    }
}

/// The word for it, as `adit status` shows it.
impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Avx512 => "avx512",
            Self::Portable => "portable",
        })
    }
}
