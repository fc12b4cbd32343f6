//! IPv4 prefixes as devices write them that know no slash.

use crate::config::Subnet;
use std::net::{IpAddr, Ipv4Addr};

/// `10.1.0.0 255.255.0.0`; IPv6 as a prefix.
pub(super) fn with_mask(subnet: &Subnet) -> String {
    dotted(subnet, |bits| bits)
}

/// `10.1.0.0 0.0.255.255`, with the bits that may differ; IPv6 as a prefix.
pub(super) fn with_wildcard(subnet: &Subnet) -> String {
    dotted(subnet, |bits| !bits)
}

fn dotted(subnet: &Subnet, of: impl Fn(u32) -> u32) -> String {
    match subnet.address() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(subnet.length())).unwrap_or(0);
            format!("{address} {}", Ipv4Addr::from(of(mask)))
        }
        IpAddr::V6(_) => subnet.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_every_kind_of_length() {
        for (prefix, mask, wildcard) in [
            ("0.0.0.0/0", "0.0.0.0 0.0.0.0", "0.0.0.0 255.255.255.255"),
            ("10.0.0.0/9", "10.0.0.0 255.128.0.0", "10.0.0.0 0.127.255.255"),
            ("10.1.2.3/32", "10.1.2.3 255.255.255.255", "10.1.2.3 0.0.0.0"),
        ] {
            let subnet = prefix.parse().unwrap();
            assert_eq!((with_mask(&subnet).as_str(), with_wildcard(&subnet).as_str()), (mask, wildcard));
        }
    }
}
