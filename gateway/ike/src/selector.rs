//! Traffic selectors (RFC 7296 section 2.9 and 3.13): ranges of addresses and ports, their intersection, and
//! the narrowing that a responder does with them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// A range of addresses of one family, with an upper-layer protocol and a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// Upper-layer protocol number; 0 is any.
    pub protocol: u8,
    /// Ports, or type and code of ICMP; `0..=65535` is any.
    pub ports: RangeInclusive<u16>,
    /// First address.
    pub start: IpAddr,
    /// Last address, of the same family.
    pub end: IpAddr,
}

/// Every port.
const ANY_PORT: RangeInclusive<u16> = 0..=u16::MAX;

impl TrafficSelector {
    /// All traffic of a prefix. Host bits of `address` are ignored; a `length` beyond the family's is taken
    /// as a host.
    pub fn from_prefix(address: IpAddr, length: u8) -> Self {
        let (start, end) = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
                let bits = v4.to_bits() & mask;
                (Ipv4Addr::from_bits(bits).into(), Ipv4Addr::from_bits(bits | !mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
                let bits = v6.to_bits() & mask;
                (Ipv6Addr::from_bits(bits).into(), Ipv6Addr::from_bits(bits | !mask).into())
            }
        };
        Self { protocol: 0, ports: ANY_PORT, start, end }
    }

    /// What both select, if anything.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, p) | (p, 0) => p,
            (a, b) if a == b => a,
            _ => return None,
        };
        let ports = *self.ports.start().max(other.ports.start())..=*self.ports.end().min(other.ports.end());
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        let same_family = self.start.is_ipv4() == other.start.is_ipv4();
        (same_family && !ports.is_empty() && start <= end).then_some(Self { protocol, ports, start, end })
    }

    /// Whether everything that `other` selects is selected by this too.
    pub fn contains(&self, other: &Self) -> bool {
        self.intersection(other).is_some_and(|both| both == *other)
    }

    /// The prefix length, where the addresses are exactly one prefix.
    pub fn prefix_len(&self) -> Option<u8> {
        let (start, end, width) = match (self.start, self.end) {
            (IpAddr::V4(s), IpAddr::V4(e)) => (u128::from(s.to_bits()), u128::from(e.to_bits()), 32),
            (IpAddr::V6(s), IpAddr::V6(e)) => (s.to_bits(), e.to_bits(), 128),
            _ => return None,
        };
        let differ = start ^ end;
        let host_bits = 128 - differ.leading_zeros();
        let host_mask = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
        (differ == host_mask && start & host_mask == 0).then_some((width - host_bits) as u8)
    }
}

/// CIDR where the addresses are a prefix, `first..last` where not; protocol and ports follow in brackets
/// unless any.
impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_len() {
            Some(length) => write!(f, "{}/{length}", self.start)?,
            None => write!(f, "{}..{}", self.start, self.end)?,
        }
        if self.protocol != 0 || self.ports != ANY_PORT {
            write!(f, "[{}/{}-{}]", self.protocol, self.ports.start(), self.ports.end())?;
        }
        Ok(())
    }
}

/// As many selectors as a payload can hold.
pub(crate) const MAX_SELECTORS: usize = 255;

/// The selectors of `ours` and `theirs` in common, in our order, without those that another one covers. Empty
/// where nothing is common, which a responder answers with TS_UNACCEPTABLE; one more than [`MAX_SELECTORS`]
/// where there are too many.
pub(crate) fn narrow(ours: &[TrafficSelector], theirs: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut common: Vec<TrafficSelector> = Vec::new();
    for both in ours.iter().flat_map(|own| theirs.iter().filter_map(|their| own.intersection(their))) {
        if !common.iter().any(|kept| kept.contains(&both)) {
            common.retain(|kept| !both.contains(kept));
            common.push(both);
        }
        if common.len() > MAX_SELECTORS {
            break;
        }
    }
    common
}

/// Whether each of `answered` lies within one of `offered`.
pub(crate) fn is_subset(answered: &[TrafficSelector], offered: &[TrafficSelector]) -> bool {
    answered.iter().all(|a| offered.iter().any(|o| o.contains(a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> TrafficSelector {
        let (address, length) = text.split_once('/').unwrap();
        TrafficSelector::from_prefix(address.parse().unwrap(), length.parse().unwrap())
    }

    #[test]
    fn prefixes_print_as_they_are_written() {
        for text in ["10.1.0.0/16", "0.0.0.0/0", "192.0.2.7/32", "::/0", "2001:db8::/32", "2001:db8::1/128"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        let range = TrafficSelector { end: "10.1.0.9".parse().unwrap(), ..prefix("10.1.0.0/32") };
        assert_eq!(range.to_string(), "10.1.0.0..10.1.0.9");
        let tcp = TrafficSelector { protocol: 6, ports: 443..=443, ..prefix("10.1.0.0/24") };
        assert_eq!(tcp.to_string(), "10.1.0.0/24[6/443-443]");
        assert_eq!(TrafficSelector::from_prefix("10.1.2.3".parse().unwrap(), 16), prefix("10.1.0.0/16"));
    }

    #[test]
    fn narrowing_keeps_what_is_common_and_nothing_twice() {
        let ours = [prefix("10.1.0.0/16"), prefix("10.2.0.0/16"), prefix("2001:db8::/32")];
        let theirs = [prefix("10.1.7.0/24"), prefix("0.0.0.0/0")];
        assert_eq!(narrow(&ours, &theirs), [prefix("10.1.0.0/16"), prefix("10.2.0.0/16")]);
        assert_eq!(narrow(&ours, &[prefix("172.16.0.0/12")]), []);
        let tcp = TrafficSelector { protocol: 6, ..prefix("0.0.0.0/0") };
        let udp = TrafficSelector { protocol: 17, ..prefix("10.1.0.0/16") };
        assert_eq!(narrow(&[udp], std::slice::from_ref(&tcp)), []);
        assert_eq!(narrow(&ours[..1], &[tcp])[0].protocol, 6);
    }

    #[test]
    fn an_answer_must_lie_within_the_offer() {
        assert!(is_subset(&[prefix("10.1.2.0/24")], &[prefix("10.1.0.0/16")]));
        assert!(!is_subset(&[prefix("10.0.0.0/8")], &[prefix("10.1.0.0/16")]));
    }
}
