//! Identification payloads (RFC 2407 section 4.6.2): identities of phase 1, traffic selectors of phase 2.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{config::Id, selector::TrafficSelector};

const IPV4_ADDR: u8 = 1;
const FQDN: u8 = 2;
const USER_FQDN: u8 = 3;
const IPV4_ADDR_SUBNET: u8 = 4;
const IPV6_ADDR: u8 = 5;
const IPV6_ADDR_SUBNET: u8 = 6;
const IPV4_ADDR_RANGE: u8 = 7;
const IPV6_ADDR_RANGE: u8 = 8;
const KEY_ID: u8 = 11;
const UDP: u8 = 17;

/// The body of an ID payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identification {
    /// The ID type.
    pub(crate) kind: u8,
    /// Upper-layer protocol; 0 is any.
    pub(crate) protocol: u8,
    /// Port; 0 is any.
    pub(crate) port: u16,
    /// The identification data.
    pub(crate) data: Vec<u8>,
}

impl Identification {
    /// An identity of phase 1, with protocol and port zero, which every peer takes.
    pub(crate) fn of(id: &Id) -> Self {
        let (kind, data) = match id {
            Id::V4(address) => (IPV4_ADDR, address.octets().to_vec()),
            Id::Fqdn(name) => (FQDN, name.as_bytes().to_vec()),
            Id::UserFqdn(name) => (USER_FQDN, name.as_bytes().to_vec()),
            Id::V6(address) => (IPV6_ADDR, address.octets().to_vec()),
            Id::KeyId(octets) => (KEY_ID, octets.clone()),
        };
        Self { kind, protocol: 0, port: 0, data }
    }

    /// The identity, `None` for a type or a length this endpoint does not know, or a protocol and port other than
    /// those of IKE (RFC 2407 section 4.6.2). With UDP the port is passed over: behind a NAT it is 4500 with some
    /// peers.
    pub(crate) fn identity(&self) -> Option<Id> {
        if self.protocol != UDP && (self.protocol, self.port) != (0, 0) {
            return None;
        }
        let text = || String::from_utf8(self.data.clone()).ok().filter(|name| !name.is_empty());
        match self.kind {
            IPV4_ADDR => Some(Id::V4(<[u8; 4]>::try_from(&self.data[..]).ok()?.into())),
            FQDN => text().map(Id::Fqdn),
            USER_FQDN => text().map(Id::UserFqdn),
            IPV6_ADDR => Some(Id::V6(<[u8; 16]>::try_from(&self.data[..]).ok()?.into())),
            KEY_ID => Some(Id::KeyId(self.data.clone())),
            _ => None,
        }
    }

    /// A traffic selector of phase 2: an address where it is one, a subnet where it is a prefix, else a range.
    /// `None` for what this payload cannot say: ports that are neither one nor all.
    pub(crate) fn of_selector(selector: &TrafficSelector) -> Option<Self> {
        let port = match (*selector.ports.start(), *selector.ports.end()) {
            (0, u16::MAX) => 0,
            (first, last) if first == last && first != 0 => first,
            _ => return None,
        };
        let octets = |address| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let (first, last) = (octets(selector.start), octets(selector.end));
        let v4 = selector.start.is_ipv4();
        let (kind, second) = if selector.start == selector.end {
            (if v4 { IPV4_ADDR } else { IPV6_ADDR }, Vec::new())
        } else if selector.prefix_len().is_some() {
            let mask = first.iter().zip(&last).map(|(first, last)| !(first ^ last)).collect();
            (if v4 { IPV4_ADDR_SUBNET } else { IPV6_ADDR_SUBNET }, mask)
        } else {
            (if v4 { IPV4_ADDR_RANGE } else { IPV6_ADDR_RANGE }, last)
        };
        Some(Self { kind, protocol: selector.protocol, port, data: [first, second].concat() })
    }

    /// The traffic selector, `None` for a type that has no addresses, a wrong length, a mask with holes or an empty
    /// range.
    pub(crate) fn selector(&self) -> Option<TrafficSelector> {
        let (start, end) = match self.kind {
            IPV4_ADDR | IPV4_ADDR_SUBNET | IPV4_ADDR_RANGE => {
                let (first, second) = pair::<4>(&self.data, self.kind == IPV4_ADDR)?;
                let (first, second) = (Ipv4Addr::from(first).to_bits(), Ipv4Addr::from(second).to_bits());
                let (first, last) =
                    bounds(first.into(), second.into(), u32::MAX.into(), self.kind == IPV4_ADDR_SUBNET)?;
                let address = |bits: u128| IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
                (address(first), address(last))
            }
            IPV6_ADDR | IPV6_ADDR_SUBNET | IPV6_ADDR_RANGE => {
                let (first, second) = pair::<16>(&self.data, self.kind == IPV6_ADDR)?;
                let (first, second) = (u128::from_be_bytes(first), u128::from_be_bytes(second));
                let (first, last) = bounds(first, second, u128::MAX, self.kind == IPV6_ADDR_SUBNET)?;
                let address = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits));
                (address(first), address(last))
            }
            _ => return None,
        };
        let ports = if self.port == 0 { 0..=u16::MAX } else { self.port..=self.port };
        Some(TrafficSelector { protocol: self.protocol, ports, start, end })
    }
}

/// The two values of `N` octets; of an address alone the second is the first.
fn pair<const N: usize>(data: &[u8], alone: bool) -> Option<([u8; N], [u8; N])> {
    let (first, rest) = data.split_first_chunk::<N>()?;
    let second = if alone && rest.is_empty() { first } else { rest.try_into().ok()? };
    (!alone || rest.is_empty()).then_some((*first, *second))
}

/// First and last address of a range, or of a subnet whose second value is its mask.
fn bounds(first: u128, second: u128, all: u128, subnet: bool) -> Option<(u128, u128)> {
    if !subnet {
        return (first <= second).then_some((first, second));
    }
    let hosts = !second & all;
    (hosts & hosts.wrapping_add(1) == 0).then_some((first & second, first & second | hosts))
}

/// As an identity or a traffic selector, else the type's name and the octets.
impl fmt::Display for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let selector = || self.selector().filter(|s| s.start != s.end || (s.protocol, self.port) != (0, 0));
        if let Some(selector) = selector() {
            return write!(f, "{selector}");
        }
        if let Some(id) = self.identity() {
            return write!(f, "{id}");
        }
        let name = match self.kind {
            9 => "ASN.1 distinguished name",
            10 => "ASN.1 general name",
            kind => return write!(f, "ID type {kind} with {} octets", self.data.len()),
        };
        write!(f, "{name} of {} octets", self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(kind: u8, data: &[u8]) -> Identification {
        Identification { kind, protocol: 0, port: 0, data: data.to_vec() }
    }

    #[test]
    fn identities_go_out_and_come_back() {
        for (text, kind) in [
            ("192.0.2.1", 1),
            ("gw.example.net", 2),
            ("ops@example.net", 3),
            ("2001:db8::1", 5),
            ("keyid:0aff", 11),
        ] {
            let id: Id = text.parse().unwrap();
            let payload = Identification::of(&id);
            assert_eq!(payload.kind, kind);
            assert_eq!(payload.identity(), Some(id));
            assert_eq!(payload.to_string(), text);
        }
    }

    #[test]
    fn the_port_of_ike_goes_with_an_identity_and_no_other_protocol() {
        let id = raw(1, &[192, 0, 2, 1]);
        for (protocol, port, known) in
            [(0, 0, true), (17, 500, true), (17, 0, true), (17, 4500, true), (6, 500, false), (0, 1, false)]
        {
            let id = Identification { protocol, port, ..id.clone() };
            assert_eq!(id.identity().is_some(), known, "{protocol}/{port}");
        }
    }

    #[test]
    fn what_is_no_identity_is_named_all_the_same() {
        for (payload, words) in [
            (raw(9, &[0x30, 0]), "ASN.1 distinguished name of 2 octets"),
            (raw(1, &[1, 2, 3]), "ID type 1 with 3 octets"),
            (raw(200, &[]), "ID type 200 with 0 octets"),
            (raw(2, &[0xff, 0xfe]), "ID type 2 with 2 octets"),
            (raw(4, &[10, 1, 0, 0, 255, 255, 0, 0]), "10.1.0.0/16"),
        ] {
            assert_eq!(payload.to_string(), words);
        }
    }

    #[test]
    fn selectors_of_every_type() {
        for (payload, words) in [
            (raw(1, &[10, 0, 0, 7]), Some("10.0.0.7/32")),
            (raw(4, &[10, 1, 2, 3, 255, 255, 0, 0]), Some("10.1.0.0/16")),
            (raw(4, &[0; 8]), Some("0.0.0.0/0")),
            (raw(7, &[10, 0, 0, 1, 10, 0, 0, 9]), Some("10.0.0.1..10.0.0.9")),
            (raw(7, &[10, 0, 0, 9, 10, 0, 0, 1]), None),
            (raw(4, &[10, 1, 0, 0, 255, 0, 255, 0]), None),
            (raw(4, &[10, 1, 0, 0]), None),
            (raw(1, &[10, 1, 0, 0, 10, 1, 0, 0]), None),
            (raw(6, &[0; 32]), Some("::/0")),
            (raw(2, b"gw.example.net"), None),
        ] {
            assert_eq!(payload.selector().map(|s| s.to_string()).as_deref(), words, "{payload:?}");
        }
    }

    #[test]
    fn a_selector_with_some_ports_cannot_be_said() {
        let any = TrafficSelector::from_prefix("10.0.0.0".parse().unwrap(), 8);
        for (ports, known) in [(0..=u16::MAX, true), (53..=53, true), (0..=0, false), (1..=2, false)] {
            let selector = TrafficSelector { protocol: 17, ports, ..any.clone() };
            assert_eq!(Identification::of_selector(&selector).is_some(), known);
        }
    }

    proptest! {
        #[test]
        fn selectors_go_out_and_come_back(
            protocol: u8, port: u16, v4: bool, a: u128, b: u128, prefix in proptest::option::of(0u8..=128),
        ) {
            let address = |bits: u128| match v4 {
                true => IpAddr::from(Ipv4Addr::from_bits(bits as u32)),
                false => Ipv6Addr::from_bits(bits).into(),
            };
            let ports = if port == 0 { 0..=u16::MAX } else { port..=port };
            let (start, end) = (address(a).min(address(b)), address(a).max(address(b)));
            let selector = match prefix {
                Some(length) => TrafficSelector { protocol, ports, ..TrafficSelector::from_prefix(start, length) },
                None => TrafficSelector { protocol, ports, start, end },
            };
            let payload = Identification::of_selector(&selector).unwrap();
            prop_assert_eq!(payload.selector(), Some(selector));
        }

        #[test]
        fn octets_of_any_type_are_taken_or_refused_but_never_panic(
            kind: u8, protocol: u8, port: u16, data in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let payload = Identification { kind, protocol, port, data };
            let _ = (payload.identity(), payload.selector(), payload.to_string());
        }
    }
}
