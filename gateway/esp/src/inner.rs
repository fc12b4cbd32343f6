//! Inner IPv4 and IPv6 packets: version, length, traffic class, and the ECN field at the tunnel's end.

/// Next header of an ESP payload that is an IPv4 packet.
pub(crate) const IPV4: u8 = 4;
/// Next header of an ESP payload that is an IPv6 packet.
pub(crate) const IPV6: u8 = 41;
/// Next header of a dummy packet (RFC 4303 section 2.6).
pub(crate) const NO_NEXT_HEADER: u8 = 59;

const NOT_ECT: u8 = 0;
const ECT1: u8 = 1;
const CE: u8 = 3;

/// What sealing and opening need to know of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inner {
    /// [`IPV4`] or [`IPV6`].
    pub(crate) next_header: u8,
    /// Bytes of the packet by its own header; at most as many as were given.
    pub(crate) len: usize,
    /// DSCP and ECN: the type of service or traffic class.
    pub(crate) traffic_class: u8,
}

impl Inner {
    /// Reads the header of the packet at the beginning of `bytes`; `None` when it cannot be one.
    #[inline(always)]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
        let inner = match bytes.first()? >> 4 {
            4 => {
                let header = usize::from(bytes[0] & 0x0f) * 4;
                let len = word(2)?;
                (header >= 20 && len >= header).then_some(Inner {
                    next_header: IPV4,
                    len,
                    traffic_class: bytes[1],
                })?
            }
            6 => Inner { next_header: IPV6, len: 40 + word(4)?, traffic_class: (word(0)? >> 4) as u8 },
            _ => return None,
        };
        (inner.len <= bytes.len()).then_some(inner)
    }

    /// Merges the outer ECN field into the packet's own (RFC 6040 section 4.2), keeping an IPv4 header checksum right;
    /// false when the packet has to be dropped. `packet` is what [`Inner::parse`] has read.
    #[inline]
    #[must_use]
    pub(crate) fn decapsulate_ecn(self, packet: &mut [u8], outer: u8) -> bool {
        let inner = self.traffic_class & 3;
        let merged = match (inner, outer & 3) {
            (NOT_ECT, CE) => return false,
            (NOT_ECT, _) | (CE, _) => inner,
            (_, CE) => CE,
            (_, ECT1) => ECT1,
            _ => inner,
        };
        if merged == inner {
            return true;
        }
        if self.next_header == IPV6 {
            packet[1] = packet[1] & !0x30 | merged << 4;
            return true;
        }
        let old = u16::from_be_bytes([packet[0], packet[1]]);
        packet[1] = packet[1] & !3 | merged;
        let new = u16::from_be_bytes([packet[0], packet[1]]);
        // RFC 1624 equation 3.
        let check = u16::from_be_bytes([packet[10], packet[11]]);
        let mut sum = u32::from(!check) + u32::from(!old) + u32::from(new);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4Header, Ipv6Header};

    fn ipv4(traffic_class: u8) -> Vec<u8> {
        let mut bytes =
            vec![0x45, traffic_class, 0, 24, 0xab, 0xcd, 0, 0, 63, 17, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2];
        let header = Ipv4Header::from_slice(&bytes).unwrap().0;
        bytes[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        bytes.extend([1, 2, 3, 4]);
        bytes
    }

    fn ipv6(traffic_class: u8) -> Vec<u8> {
        let mut bytes = vec![0x60 | traffic_class >> 4, traffic_class << 4 | 0x0a, 0xbc, 0xde, 0, 4, 17, 63];
        bytes.extend([0x20; 32]);
        bytes.extend([1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn ecn_follows_the_table_of_rfc_6040() {
        const ECT0: u8 = 2;
        // Rows: inner Not-ECT, ECT(1), ECT(0), CE; columns: the outer field in the same order.
        let table = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
            [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)],
            [Some(ECT0), Some(ECT1), Some(ECT0), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        for (inner, row) in (0u8..).zip(table) {
            for (outer, expected) in (0u8..).zip(row) {
                // The outer DSCP must not leak in.
                let outer = outer | 0xa8;
                for dscp in [0, 0x2e << 2, 0xfc] {
                    let mut v4 = ipv4(dscp | inner);
                    let parsed = Inner::parse(&v4).unwrap();
                    assert_eq!(parsed, Inner { next_header: IPV4, len: 24, traffic_class: dscp | inner });
                    assert_eq!(parsed.decapsulate_ecn(&mut v4, outer), expected.is_some());
                    let (header, _) = Ipv4Header::from_slice(&v4).unwrap();
                    assert_eq!(v4[1], dscp | expected.unwrap_or(inner));
                    assert_eq!(header.header_checksum, header.calc_header_checksum());

                    let mut v6 = ipv6(dscp | inner);
                    let parsed = Inner::parse(&v6).unwrap();
                    assert_eq!(parsed, Inner { next_header: IPV6, len: 44, traffic_class: dscp | inner });
                    assert_eq!(parsed.decapsulate_ecn(&mut v6, outer), expected.is_some());
                    let (header, _) = Ipv6Header::from_slice(&v6).unwrap();
                    assert_eq!(header.traffic_class, dscp | expected.unwrap_or(inner));
                    assert_eq!(header.flow_label.value(), 0xabcde & 0xfffff);
                }
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for packet in [ipv4(0), ipv6(0)] {
            for len in 0..packet.len() {
                assert_eq!(Inner::parse(&packet[..len]), None);
            }
            let mut longer = packet.clone();
            longer.extend([0; 9]);
            assert_eq!(Inner::parse(&longer), Inner::parse(&packet));
        }
        for (at, value) in [(0, 0x44), (0, 0x55), (0, 0x46 + 1), (3, 19)] {
            let mut packet = ipv4(0);
            packet[at] = value;
            assert_eq!(Inner::parse(&packet), None, "byte {at} = {value:#x}");
        }
    }
}
