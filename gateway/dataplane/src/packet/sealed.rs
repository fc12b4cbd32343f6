//! Fragmentation of a sealed packet at its source: what is inside may not be cut, and has to pass whole.

use super::fragment::{Cut, MAX_FRAGMENTS};
use adit_maps::decode::{self, protocol};

const IPV6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
const FRAGMENT: u8 = 44;
const MORE_FRAGMENTS: u16 = 1;

/// How a packet of ours is cut: IPv4 as routers do, without DF and with an ID (RFC 791 section 3.2), IPv6 by a header of its
/// own (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    V4(Cut),
    V6 {
        payload: usize,
        /// Payload bytes of every fragment but the last.
        step: usize,
        id: u32,
    },
}

impl Pieces {
    /// Cuts the packet, an IP header without options or extensions and its payload, into fragments of at most `longest`
    /// bytes that no others between these addresses are mistaken for. `None` when that takes more than [`MAX_FRAGMENTS`],
    /// and for AH over IPv4: it protects the ID, which was 0 when it was sealed (RFC 4302 section 3.3.3.1.1.1).
    pub(crate) fn plan(packet: &mut [u8], longest: usize, id: u32) -> Option<Self> {
        let headers = decode::ip(packet, 0).ok()?;
        if headers.v6 {
            let payload = headers.end.checked_sub(IPV6_HEADER)?;
            let step = longest.checked_sub(IPV6_HEADER + FRAGMENT_HEADER)? / 8 * 8;
            let fits = step > 0 && payload.div_ceil(step) <= MAX_FRAGMENTS;
            return fits.then_some(Pieces::V6 { payload, step, id });
        }
        if headers.protocol == protocol::AH {
            return None;
        }
        let cut = Cut::plan(packet, &headers, longest)?;
        packet[4..6].copy_from_slice(&(id as u16).to_be_bytes());
        packet[6] &= !0x40;
        Some(Pieces::V4(cut))
    }

    /// Fragments that there are.
    pub(crate) fn count(&self) -> usize {
        match self {
            Pieces::V4(cut) => cut.count(),
            Pieces::V6 { payload, step, .. } => payload.div_ceil(*step),
        }
    }

    /// Bytes of the longest fragment.
    pub(crate) fn longest(&self) -> usize {
        match self {
            Pieces::V4(cut) => cut.longest(),
            Pieces::V6 { payload, step, .. } => IPV6_HEADER + FRAGMENT_HEADER + (*step).min(*payload),
        }
    }

    /// Writes fragment `n` of `packet` into `out`; its length, `None` when there is none or no room.
    pub(crate) fn write(&self, packet: &[u8], n: usize, out: &mut [u8]) -> Option<usize> {
        let (payload, step, id) = match *self {
            Pieces::V4(cut) => return cut.write(packet, n, out),
            Pieces::V6 { payload, step, id } => (payload, step, id),
        };
        let (header, rest) = packet.get(..IPV6_HEADER + payload)?.split_at(IPV6_HEADER);
        let start = n * step;
        let piece = rest.get(start..(start + step).min(payload)).filter(|p| !p.is_empty())?;
        let len = IPV6_HEADER + FRAGMENT_HEADER + piece.len();
        let (headers, data) = out.get_mut(..len)?.split_at_mut(IPV6_HEADER + FRAGMENT_HEADER);
        let (ip, fragment) = headers.split_at_mut(IPV6_HEADER);
        ip.copy_from_slice(header);
        ip[4..6].copy_from_slice(&((len - IPV6_HEADER) as u16).to_be_bytes());
        ip[6] = FRAGMENT;
        let more = if start + piece.len() < payload { MORE_FRAGMENTS } else { 0 };
        fragment[..2].copy_from_slice(&[header[6], 0]);
        fragment[2..4].copy_from_slice(&(start as u16 | more).to_be_bytes());
        fragment[4..].copy_from_slice(&id.to_be_bytes());
        data.copy_from_slice(piece);
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, IpSlice, Ipv6ExtensionSlice, PacketBuilder};

    /// The fragments of a packet, checked and put together by an independent parser.
    fn together(packet: &mut [u8], longest: usize) -> Vec<u8> {
        let pieces = Pieces::plan(packet, longest, 0xfeed_beef).unwrap();
        let mut whole = Vec::new();
        for n in 0..pieces.count() {
            let mut out = vec![0xee; pieces.longest()];
            let len = pieces.write(packet, n, &mut out).unwrap();
            assert!(len <= longest);
            let ip = IpSlice::from_slice(&out[..len]).unwrap();
            let (offset, more, id) = match &ip {
                IpSlice::Ipv4(v4) => {
                    let h = v4.header().to_header();
                    assert!(!h.dont_fragment && h.header_checksum == h.calc_header_checksum());
                    (h.fragment_offset, h.more_fragments, u32::from(h.identification))
                }
                IpSlice::Ipv6(v6) => {
                    let f = v6.extensions().clone().into_iter().find_map(|e| match e {
                        Ipv6ExtensionSlice::Fragment(f) => Some(f.to_header()),
                        _ => None,
                    });
                    let f = f.unwrap();
                    (f.fragment_offset, f.more_fragments, f.identification)
                }
            };
            assert_eq!(id & 0xffff, 0xbeef);
            assert_eq!(usize::from(offset.value()) * 8, whole.len());
            assert_eq!(more, n + 1 < pieces.count());
            assert_eq!(ip.payload().ip_number, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD);
            whole.extend_from_slice(ip.payload().payload);
        }
        assert_eq!(pieces.write(packet, pieces.count(), &mut [0; 4096]), None);
        whole
    }

    fn packet(v6: bool, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 64).write(&mut packet, protocol, payload).unwrap();
        } else {
            PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64)
                .write(&mut packet, protocol, payload)
                .unwrap();
        }
        packet
    }

    #[test]
    fn an_independent_parser_puts_a_sealed_packet_together_again() {
        let payload: Vec<u8> = (0..1330u32).map(|i| (i * 7 / 3) as u8).collect();
        for (v6, longest) in [(false, 1300), (false, 600), (true, 1280), (true, 1300)] {
            let mut packet = packet(v6, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &payload);
            assert_eq!(together(&mut packet, longest), payload, "{v6} {longest}");
        }
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        let mut ah = packet(false, IpNumber::AUTHENTICATION_HEADER, &[51, 4, 0, 0].repeat(300));
        let before = ah.clone();
        assert_eq!(Pieces::plan(&mut ah, 1000, 1), None);
        assert_eq!(ah, before);
        for v6 in [false, true] {
            let mut esp = packet(v6, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &[7; 1300]);
            assert_eq!(Pieces::plan(&mut esp, 60, 1), None);
            assert_eq!(Pieces::plan(&mut esp, 30, 1), None);
        }
    }
}
