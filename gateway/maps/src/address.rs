//! IPv4 and IPv6 addresses in one key space.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address of either version as 16 bytes of network order; IPv4 in its IPv4-mapped form (`::ffff:a.b.c.d`,
/// RFC 4291 section 2.5.5.2), so that one hash serves both.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// Prefix length, in the 128-bit space, of the IPv4 part.
    pub const V4_PREFIX: u32 = 96;

    /// From the four bytes of an IPv4 header's address field.
    #[inline(always)]
    pub const fn v4(b: [u8; 4]) -> Self {
        // As a number, as in `is_v4`: octet by octet it would be put together in memory.
        Address((0xffff_u128 << 32 | u32::from_be_bytes(b) as u128).to_be_bytes())
    }

    /// From the sixteen bytes of an IPv6 header's address field.
    #[inline(always)]
    pub const fn v6(b: [u8; 16]) -> Self {
        Address(b)
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        u128::from_be_bytes(self.0) >> 32 == 0xffff
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Address::v4(v4.octets()),
            IpAddr::V6(v6) => Address(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Address::v4(ip.octets())
    }
}

impl From<Address> for IpAddr {
    fn from(a: Address) -> Self {
        if a.is_v4() {
            let [.., w, x, y, z] = a.0;
            IpAddr::V4(Ipv4Addr::new(w, x, y, z))
        } else {
            IpAddr::V6(Ipv6Addr::from(a.0))
        }
    }
}

/// An address prefix in the 128-bit key space of [`Address`]; host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// First address.
    pub address: Address,
    /// Significant bits, 0..=128; an IPv4 prefix of length n has 96 + n.
    pub len: u32,
}

impl Prefix {
    /// From an address and its family's own prefix length; host bits are cleared. `None` when `len` exceeds
    /// 32 (IPv4) or 128 (IPv6).
    pub fn new(ip: IpAddr, len: u8) -> Option<Self> {
        let (max, base) = if ip.is_ipv4() { (32, Address::V4_PREFIX) } else { (128, 0) };
        if len > max {
            return None;
        }
        let len = base + u32::from(len);
        Some(Prefix {
            address: Address((u128::from_be_bytes(Address::from(ip).0) & mask(len)).to_be_bytes()),
            len,
        })
    }

    /// Whether this is an IPv4 prefix.
    pub fn is_v4(&self) -> bool {
        self.len >= Address::V4_PREFIX && self.address.is_v4()
    }

    /// Whether every address of `other` is in `self`. Prefixes of different families never contain each other:
    /// `::/0` does not hold the IPv4 space although its key does.
    pub fn contains(&self, other: &Prefix) -> bool {
        self.is_v4() == other.is_v4() && self.len <= other.len && self.covers(&other.address)
    }

    /// Whether `a` lies in this prefix, families told apart as in [`Prefix::contains`].
    pub fn holds(&self, a: &Address) -> bool {
        self.is_v4() == a.is_v4() && self.covers(a)
    }

    /// Last address of the prefix.
    pub fn last(&self) -> Address {
        Address((u128::from_be_bytes(self.address.0) | !mask(self.len)).to_be_bytes())
    }

    fn covers(&self, a: &Address) -> bool {
        u128::from_be_bytes(a.0) & mask(self.len) == u128::from_be_bytes(self.address.0)
    }
}

fn mask(len: u32) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(s: &str) -> Prefix {
        let (ip, len) = s.split_once('/').unwrap();
        Prefix::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap()
    }

    #[test]
    fn both_families_round_trip() {
        for s in ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "::1", "2001:db8::1"] {
            let ip: IpAddr = s.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(ip)), ip);
        }
    }

    #[test]
    fn host_bits_are_cleared_and_the_last_address_sets_them() {
        let p = prefix("10.1.2.3/16");
        assert_eq!(IpAddr::from(p.address), "10.1.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(IpAddr::from(p.last()), "10.1.255.255".parse::<IpAddr>().unwrap());
        assert_eq!(Prefix::new("10.0.0.0".parse().unwrap(), 33), None);
    }

    #[test]
    fn a_v6_prefix_never_holds_v4() {
        assert!(!prefix("::/0").contains(&prefix("10.0.0.0/8")));
        assert!(!prefix("::/0").holds(&Address::v4([10, 0, 0, 1])));
        assert!(prefix("0.0.0.0/0").contains(&prefix("10.0.0.0/8")));
        assert!(prefix("::/0").contains(&prefix("2001:db8::/32")));
        assert!(!prefix("10.0.0.0/9").contains(&prefix("10.0.0.0/8")));
    }
}
