//! Outer headers: written from a template when sealing, parsed when opening.

use crate::sa::{InvalidSa, Outer, Protocol};
use std::net::IpAddr;
use std::ops::Range;

const ESP: u8 = 50;
const AH: u8 = 51;
const UDP: u8 = 17;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
/// TTL and hop limit of what the gateway itself sends (RFC 4301 section 5.1.2.1).
const HOP_LIMIT: u8 = 64;

/// The outer header of an SA with everything filled in that is the same in all its packets.
pub(crate) struct Template {
    bytes: [u8; IPV6_LEN + UDP_LEN],
    len: usize,
    ip_len: usize,
    /// Of an IPv4 header, the sum of what is filled in.
    sum: u64,
}

impl Template {
    /// The template of an SA's outer header.
    ///
    /// # Errors
    /// [`InvalidSa::Family`] when the addresses are of different families.
    pub(crate) fn new(protocol: Protocol, outer: &Outer) -> Result<Self, InvalidSa> {
        let mut bytes = [0; IPV6_LEN + UDP_LEN];
        let protocol = match (protocol, outer.udp) {
            (Protocol::Esp, None) => ESP,
            (Protocol::Esp, Some(_)) => UDP,
            (Protocol::Ah, _) => AH,
        };
        let ip_len = match (outer.local, outer.peer) {
            (IpAddr::V4(local), IpAddr::V4(peer)) => {
                bytes[0] = 0x45;
                // DF, and therefore ID 0 (RFC 6864 section 4.1): the sender learns the path MTU instead.
                bytes[6] = 0x40;
                bytes[8] = HOP_LIMIT;
                bytes[9] = protocol;
                bytes[12..16].copy_from_slice(&local.octets());
                bytes[16..20].copy_from_slice(&peer.octets());
                IPV4_LEN
            }
            (IpAddr::V6(local), IpAddr::V6(peer)) => {
                bytes[0] = 0x60;
                bytes[6] = protocol;
                bytes[7] = HOP_LIMIT;
                bytes[8..24].copy_from_slice(&local.octets());
                bytes[24..40].copy_from_slice(&peer.octets());
                IPV6_LEN
            }
            (local, peer) => return Err(InvalidSa::Family { local, peer }),
        };
        let mut len = ip_len;
        if let Some((source, destination)) = outer.udp {
            bytes[len..len + 2].copy_from_slice(&source.to_be_bytes());
            bytes[len + 2..len + 4].copy_from_slice(&destination.to_be_bytes());
            len += UDP_LEN;
        }
        Ok(Self { sum: sum(&bytes[..IPV4_LEN]), bytes, len, ip_len })
    }

    /// Bytes of the outer header, UDP included.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether the header covers what is behind it: the UDP checksum over IPv6 does.
    #[inline]
    pub(crate) const fn covers_payload(&self) -> bool {
        self.len == IPV6_LEN + UDP_LEN
    }

    /// Writes the header of `packet`, of at most 65,535 bytes. If it [covers](Template::covers_payload) the payload, that
    /// has to be complete behind it.
    #[inline(always)]
    pub(crate) fn write(&self, packet: &mut [u8], traffic_class: u8) {
        let total = packet.len() as u16;
        if self.len == IPV4_LEN
            && let (Some(header), Some(template)) = (packet.first_chunk_mut(), self.bytes.first_chunk())
        {
            *header = *template;
            self.complete_ipv4(header, total, traffic_class);
            return;
        }
        self.write_any(packet, total, traffic_class);
    }

    #[inline(never)]
    fn write_any(&self, packet: &mut [u8], total: u16, traffic_class: u8) {
        let (header, payload) = packet.split_at_mut(self.len);
        header.copy_from_slice(&self.bytes[..self.len]);
        let (ip, udp) = header.split_at_mut(self.ip_len);
        let ip_payload = total - self.ip_len as u16;
        if let Ok(ip) = <&mut [u8; IPV4_LEN]>::try_from(&mut *ip) {
            self.complete_ipv4(ip, total, traffic_class);
        } else {
            ip[0] |= traffic_class >> 4;
            ip[1] = traffic_class << 4;
            ip[4..6].copy_from_slice(&ip_payload.to_be_bytes());
        }
        if udp.is_empty() {
            return;
        }
        udp[4..6].copy_from_slice(&ip_payload.to_be_bytes());
        if self.covers_payload() {
            let pseudo = sum(&ip[8..40]) + u64::from(ip_payload) + u64::from(UDP);
            // 0 would mean that there is none (RFC 8200 section 8.1).
            let check = match checksum(pseudo + sum(udp) + sum(payload)) {
                0 => 0xffff,
                check => check,
            };
            udp[6..8].copy_from_slice(&check.to_be_bytes());
        }
    }

    #[inline(always)]
    fn complete_ipv4(&self, ip: &mut [u8; IPV4_LEN], total: u16, traffic_class: u8) {
        ip[1] = traffic_class;
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let check = checksum(self.sum + u64::from(traffic_class) + u64::from(total));
        ip[10..12].copy_from_slice(&check.to_be_bytes());
    }
}

/// What an outer packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Where the ESP packet is, from its SPI to the end of its ICV, or what AH covers behind the outer header.
    pub(crate) payload: Range<usize>,
    /// DSCP and ECN of the outer header.
    pub(crate) traffic_class: u8,
}

/// Finds the ESP packet, native or UDP-encapsulated, or the AH in the IP packet at the beginning of `frame`.
///
/// The IP header's own length counts; what follows it is the link's padding. `None` for a fragment, an IPv6 extension
/// header, another protocol, and lengths that do not fit.
#[inline(always)]
pub(crate) fn parse(frame: &[u8], carried: Protocol) -> Option<Carried> {
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let (protocol, mut start, mut end, traffic_class) = match frame.first()? >> 4 {
        4 if frame.len() >= IPV4_LEN => {
            let fragment = word(6) & 0x3fff != 0;
            let header = usize::from(frame[0] & 0x0f) * 4;
            (header >= IPV4_LEN && !fragment).then_some((frame[9], header, word(2), frame[1]))?
        }
        6 if frame.len() >= IPV6_LEN => (frame[6], IPV6_LEN, IPV6_LEN + word(4), (word(0) >> 4) as u8),
        _ => return None,
    };
    if end > frame.len() || start > end {
        return None;
    }
    match (carried, protocol) {
        (Protocol::Esp, ESP) | (Protocol::Ah, AH) => {}
        (Protocol::Esp, UDP) if end - start >= UDP_LEN => {
            let udp_len = word(start + 4);
            if !(UDP_LEN..=end - start).contains(&udp_len) {
                return None;
            }
            end = start + udp_len;
            start += UDP_LEN;
        }
        _ => return None,
    }
    Some(Carried { payload: start..end, traffic_class })
}

/// Sum of big-endian 16-bit words, the last one padded with zero; four bytes a step, folded by [`checksum`].
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let value = |word: &[u8; 4]| u64::from(u32::from_be_bytes(*word));
    words.iter().map(value).sum::<u64>() + value(&last)
}

/// The Internet checksum (RFC 1071) of a [`sum`].
#[inline]
fn checksum(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
#[path = "outer_tests.rs"]
mod tests;
