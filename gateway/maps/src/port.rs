//! PORTS: the interfaces that carry the program; LOCALS: the gateway's own addresses; the index into XSKS.

use crate::address::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Interfaces a gateway may have.
pub const MAX_PORTS: u32 = 16;
/// Receive queues of one interface that are served.
pub const MAX_QUEUES: u32 = 64;
/// Addresses the gateway itself may have.
pub const MAX_LOCALS: usize = 4096;

/// Bits of [`Port::roles`]. A one-armed gateway's only interface has both.
pub mod role {
    /// Faces the peers: IPsec arrives here, and no protected flow may arrive in clear.
    pub const WAN: u32 = 1;
    /// Faces the protected network: what a policy protects is sealed here.
    pub const LAN: u32 = 2;
}

/// Value of PORTS, by interface index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Port {
    /// 0..[`MAX_PORTS`]: which part of XSKS and VERDICTS is this port's.
    pub slot: u32,
    /// Bits of [`role`].
    pub roles: u32,
}

/// Index into XSKS of a queue of a port. `queue` beyond [`MAX_QUEUES`] gives an index that is never filled.
#[inline(always)]
pub const fn xsk_index(slot: u32, queue: u32) -> u32 {
    if queue < MAX_QUEUES { slot * MAX_QUEUES + queue } else { u32::MAX }
}

/// Key of LOCALS.
pub type LocalKey = Address;
