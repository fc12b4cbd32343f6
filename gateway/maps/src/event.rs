//! EVENTS: what the XDP program tells `control`, rarely and rate-limited.

use crate::address::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the ring buffer.
pub const RING_BYTES: usize = 64 * 1024;

/// The program asks for the SA of a policy at most once in this many nanoseconds, and each CPU tells of an unknown SPI,
/// whichever, at most once.
pub const INTERVAL_NS: u64 = 100_000_000;

/// What happened.
pub mod kind {
    /// Traffic for a policy that has no outbound SA (RFC 4301 section 4.4.1, "acquire").
    pub const ACQUIRE: u32 = 1;
    /// ESP or AH, natively or by UDP as `protocol` says, for one of our addresses with an SPI that no SA has.
    pub const UNKNOWN_SPI: u32 = 2;
}

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// One of [`kind`].
    pub kind: u32,
    /// `ACQUIRE`: the OUTBOUND slot. `UNKNOWN_SPI`: the SPI.
    pub subject: u32,
    /// Source of the packet. `ACQUIRE`: what follows is the flow that wants a tunnel, for IKE's first traffic selectors.
    pub source: Address,
    /// Destination of the packet.
    pub destination: Address,
    /// Upper-layer protocol of the packet.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Source port, 0 when there is none.
    pub source_port: u16,
    /// Destination port, 0 when there is none.
    pub destination_port: u16,
}
