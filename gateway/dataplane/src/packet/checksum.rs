//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// A sum under way, in ones' complement.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes as 16-bit words; an odd last byte is padded with zero, so only the last piece may be odd.
    pub(super) fn add(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        self.0 += words.iter().map(|w| u64::from(u16::from_be_bytes(*w))).sum::<u64>();
        if let [last] = rest {
            self.0 += u64::from(*last) << 8;
        }
        self
    }

    /// The same of as many bytes as are known beforehand, an even number: a few instructions, without a loop.
    #[inline(always)]
    pub(super) fn add_array<const N: usize>(self, bytes: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2)) };
        let words = bytes.as_chunks::<2>().0.iter();
        Sum(self.0 + words.map(|w| u64::from(u16::from_be_bytes(*w))).sum::<u64>())
    }

    /// The checksum as it stands in a header.
    #[inline]
    pub(super) fn finish(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }
}

/// `checksum` after the aligned word `old` under it became `new` (RFC 1624 equation 3).
#[inline]
pub(super) fn update(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let number = |word: [u8; 2]| u32::from(u16::from_be_bytes(word));
    let sum = (number(checksum) ^ 0xffff) + (number(old) ^ 0xffff) + number(new);
    // Three words carry twice at most.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}
