//! A CIDR prefix as people write it.

use adit_ike::TrafficSelector;
use adit_maps::address::{Address, Prefix};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A protected prefix: an address whose host bits are zero, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    address: IpAddr,
    length: u8,
}

impl Subnet {
    /// Every IPv4 address.
    pub const ALL_V4: Subnet = Subnet { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };
    /// Every IPv6 address.
    pub const ALL_V6: Subnet = Subnet { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), length: 0 };

    /// One address.
    pub fn host(address: IpAddr) -> Subnet {
        Subnet { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// First address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Significant bits: 0..=32 or 0..=128.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The prefix in the key space of the maps.
    pub fn prefix(&self) -> Prefix {
        Prefix::new(self.address, self.length).expect("the length was checked when the subnet was read")
    }

    /// All traffic of the prefix.
    pub fn selector(&self) -> TrafficSelector {
        TrafficSelector::from_prefix(self.address, self.length)
    }

    /// Whether `ip` lies in it.
    pub fn holds(&self, ip: IpAddr) -> bool {
        self.prefix().holds(&Address::from(ip))
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.prefix().contains(&other.prefix()) || other.prefix().contains(&self.prefix())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Why a text is no [`Subnet`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubnet {
    /// No address, no slash, or no length of the family.
    #[error("is not a CIDR prefix, such as 10.1.0.0/16 or 2001:db8::/32")]
    Syntax,
    /// Bits are set after the prefix.
    #[error("has bits set after the prefix; did you mean {0}?")]
    HostBits(Subnet),
    /// IPv6 notation for IPv4.
    #[error("is IPv4 in IPv6 notation; write the IPv4 prefix")]
    Mapped,
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = text.split_once('/').ok_or(InvalidSubnet::Syntax)?;
        let address: IpAddr = address.parse().map_err(|_| InvalidSubnet::Syntax)?;
        let length: u8 = length.parse().map_err(|_| InvalidSubnet::Syntax)?;
        let prefix = Prefix::new(address, length).ok_or(InvalidSubnet::Syntax)?;
        if address.is_ipv6() && (prefix.is_v4() || Address::from(address).is_v4()) {
            return Err(InvalidSubnet::Mapped);
        }
        let network = Subnet { address: IpAddr::from(prefix.address), length };
        if network.address == address { Ok(network) } else { Err(InvalidSubnet::HostBits(network)) }
    }
}
