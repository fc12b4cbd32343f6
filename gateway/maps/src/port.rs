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
    /// Its MAC address; zero takes every frame for ours, where others than the port's own are.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

impl Port {
    /// Whether a frame for this MAC address is ours: for the port, or for everybody or a group on its link.
    #[inline(always)]
    pub fn takes(&self, destination: [u8; 6]) -> bool {
        let number = |[a, b, c, d, e, f]: [u8; 6]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        number(self.mac) == 0 || number(destination) == number(self.mac) || destination[0] & 1 != 0
    }
}

/// Index into XSKS of a queue of a port. `queue` beyond [`MAX_QUEUES`] gives an index that is never filled.
#[inline(always)]
pub const fn xsk_index(slot: u32, queue: u32) -> u32 {
    if queue < MAX_QUEUES { slot * MAX_QUEUES + queue } else { u32::MAX }
}

/// Key of LOCALS.
pub type LocalKey = Address;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_takes_its_own_address_and_those_of_groups() {
        let port = Port { mac: [2, 0, 0, 0, 0, 7], ..Port::default() };
        for (destination, expected) in [
            ([2, 0, 0, 0, 0, 7], true),
            ([0xff; 6], true),
            ([0x33, 0x33, 0, 0, 0, 1], true),
            ([2, 0, 0, 0, 0, 8], false),
            ([4, 0, 0, 0, 0, 7], false),
            ([0; 6], false),
        ] {
            assert_eq!(port.takes(destination), expected, "{destination:?}");
            assert!(Port::default().takes(destination));
        }
    }
}
