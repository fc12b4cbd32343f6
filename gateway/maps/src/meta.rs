//! The metadata that the XDP program leaves before a frame for the worker that receives it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the worker is to do with the frame.
pub mod task {
    /// Seal the inner packet with the outbound SA.
    pub const SEAL: u8 = 1;
    /// Open the outer packet with the inbound SA.
    pub const OPEN: u8 = 2;
    /// Keep the inner packet until its policy has an outbound SA, then seal it.
    pub const HOLD: u8 = 3;
}

/// Sixteen bytes immediately before the frame's Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Meta {
    /// Index into SAD_CONFIG and SAD_STATE; the policy's slot of OUTBOUND for [`task::HOLD`].
    pub sa: u32,
    /// Generation of that SA when the program looked it up; the worker drops the frame when it has changed. 0 for
    /// [`task::HOLD`].
    pub generation: u32,
    /// One of [`task`].
    pub task: u8,
    /// Offset of the IP header from the start of the frame.
    pub ip: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

impl Meta {
    /// Size in bytes; the kernel wants a multiple of four.
    pub const SIZE: usize = size_of::<Meta>();
}

const _: () = assert!(Meta::SIZE == 16);
