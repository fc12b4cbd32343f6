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

    /// The checksum as it stands in a header.
    pub(super) fn finish(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }
}

/// `checksum` after the aligned word `old` under it became `new` (RFC 1624 equation 3).
pub(super) fn update(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let (old, checksum) = (!u16::from_be_bytes(old), !u16::from_be_bytes(checksum));
    Sum(u64::from(checksum) + u64::from(old)).add(&new).finish()
}
