//! The floor that every room of Adit stands on: what lies in the BPF maps, what lies before a packet, and how a
//! frame's headers are read.
//!
//! Three parties meet in the maps and nowhere else: `control` writes security associations and policies, the XDP
//! program looks them up, the workers of `dataplane` seal and open packets with them. This crate states the layout
//! of every map once and is compiled, from the same source, for the BPF target (`no_std`) and for userspace.
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | IPv4 and IPv6 addresses in one key space |
//! | [`decode`] | Ethernet, IPv4 and IPv6 headers, safely, from any source of bytes |
//! | [`sa`] | SAD_CONFIG, SAD_STATE, SPI_INDEX |
//! | [`classes`] | SPD_CLASSES: from addresses to classes, by longest prefix |
//! | [`policy`] | SPD rule lists and the look-up in them, OUTBOUND, SELECTORS |
//! | [`port`] | PORTS, LOCALS, the index into XSKS |
//! | [`verdict`] | what the XDP program decides, and VERDICTS, its counters |
//! | [`meta`] | the metadata that travels before a frame from XDP to a worker |
//! | [`totals`] | TOTALS: what workers have done in all |
//! | [`event`] | EVENTS: what the XDP program tells `control` |
//! | `fuzzing` (feature `fuzzing`) | what is fuzzed, as plain functions |
//! | `user` (feature `user`) | typed handles to the pinned maps |
//!
//! Multi-byte fields are in host order, except addresses, which are kept as the bytes on the wire.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

/// The atomics of shared memory; loom's stand in for them where it tries every interleaving of threads.
#[cfg(any(test, feature = "user"))]
mod atomic {
    #[cfg(not(loom))]
    pub(crate) use core::sync::atomic::{AtomicU64, fence};
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{AtomicU64, fence};
}

pub mod address;
pub mod classes;
pub mod decode;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod meta;
pub mod policy;
pub mod port;
pub mod sa;
pub mod totals;
#[cfg(feature = "user")]
pub mod user;
pub mod verdict;

/// Version of everything this crate lays out. Raised with every change of a layout; [`Stamp`] carries it.
pub const LAYOUT_VERSION: u32 = 6;

/// First word of [`Stamp`], to tell our maps from anybody else's: `ADIT` in ASCII.
pub const MAGIC: u32 = 0x4144_4954;

/// `BPF_F_MMAPABLE`: an array that userspace may map.
pub const MMAPABLE: usize = 1 << 10;
/// `BPF_F_NO_PREALLOC`: memory is taken as entries come.
pub const NO_PREALLOC: usize = 1;

/// Entry 0 of the map LAYOUT: which version of the layout the pinned maps have.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`LAYOUT_VERSION`] of whoever created the maps.
    pub version: u32,
}

impl Stamp {
    /// The stamp of this build.
    pub const CURRENT: Stamp = Stamp { magic: MAGIC, version: LAYOUT_VERSION };
}
