//! A packet in its buffer, and what became of it.

use std::fmt;

/// One packet of a batch: a window into a buffer whose room before `start` and after `end` sealing may use.
pub struct Packet<'a> {
    /// The frame buffer.
    pub buf: &'a mut [u8],
    /// First byte of the packet: its IP header.
    pub start: usize,
    /// One past the packet's last byte.
    pub end: usize,
    /// Index of the SA that seals or opens it.
    pub sa: u32,
    /// Sequence number: given to sealing, which never sees one twice under a key; found by opening.
    pub seq: u64,
    /// What became of the packet. Only a pending packet is worked on.
    pub outcome: Outcome,
}

impl<'a> Packet<'a> {
    /// A pending packet at `start..end` of `buf`.
    pub fn new(buf: &'a mut [u8], start: usize, end: usize, sa: u32, seq: u64) -> Self {
        Self { buf, start, end, sa, seq, outcome: Outcome::Pending }
    }

    /// The IP packet.
    ///
    /// # Panics
    /// When `start..end` is not within the buffer; after sealing or opening with [`Outcome::Done`] it always is.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }
}

/// Without the bytes, which may be plaintext.
impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("range", &(self.start..self.end))
            .field("sa", &self.sa)
            .field("seq", &self.seq)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Not yet worked on.
    Pending,
    /// `start..end` is the outer packet after sealing, the inner packet after opening.
    Done,
    /// Not to be sent on; `start..end` is as it was.
    Dropped(Drop),
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drop {
    /// No SA is installed at the packet's index, it has no replay state, or its SPI is not the packet's.
    NoSa,
    /// Outer headers or ESP lengths that contradict themselves or the packet.
    Malformed,
    /// The ICV did not verify. With extended sequence numbers also a packet older than the anti-replay window, whose
    /// number is taken for one of the next 2^32 (RFC 4303 appendix A2).
    Authentication,
    /// Seen before, or older than the anti-replay window (RFC 4303 section 3.4.3); sequence number 0.
    Replay,
    /// The buffer has too little headroom or tailroom, or the outer packet would exceed 65,535 bytes.
    TooBig,
    /// No valid sequence number (RFC 4303 section 3.3.3): 0, or above 32 bits without ESN.
    SequenceExhausted,
    /// Authentic, but the padding is not 1, 2, 3, … (RFC 4303 section 2.4).
    BadPadding,
    /// A dummy packet, next header 59, discarded as it should be (RFC 4303 section 2.6).
    Dummy,
    /// The inner packet is not the IP packet it should be, or was marked "congestion experienced" on the way although
    /// its ends do not speak ECN (RFC 6040 section 4.2).
    BadInner,
}

impl Drop {
    /// Every cause, in the order of [`Drop::index`].
    pub const ALL: [Drop; 9] = [
        Drop::NoSa,
        Drop::Malformed,
        Drop::Authentication,
        Drop::Replay,
        Drop::TooBig,
        Drop::SequenceExhausted,
        Drop::BadPadding,
        Drop::Dummy,
        Drop::BadInner,
    ];

    /// Position in [`Drop::ALL`], for counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Drop;

    #[test]
    fn all_is_in_the_order_of_index() {
        for (i, drop) in Drop::ALL.iter().enumerate() {
            assert_eq!(drop.index(), i);
        }
    }
}
