//! IPv4 fragmentation (RFC 791 section 3.2) of packets that would not fit once they are sealed.

use super::checksum::Sum;
use adit_maps::decode::Headers;

/// The most fragments that one packet is cut into.
pub(crate) const MAX_FRAGMENTS: usize = 16;

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Longest packet that fragments can make.
const MAX_PACKET: usize = 65_535;
/// Options with this bit go into every fragment.
const COPIED: u8 = 0x80;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;

/// How a packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    header: usize,
    payload: usize,
    /// Payload bytes of every fragment but the last.
    step: usize,
}

impl Cut {
    /// Cuts the IPv4 packet in `packet` that has these headers into fragments of at most `longest` bytes; it may be a
    /// fragment itself. `None` when that takes more than [`MAX_FRAGMENTS`], or the packet's offset leads beyond 65,535.
    pub(crate) fn plan(packet: &[u8], headers: &Headers, longest: usize) -> Option<Self> {
        let header = headers.payload.checked_sub(headers.ip)?;
        let payload = headers.end.checked_sub(headers.payload)?;
        let step = longest.checked_sub(header)? / 8 * 8;
        let cut = Cut { header, payload, step };
        let fits = payload.div_ceil(step.max(1)) <= MAX_FRAGMENTS && step > 0;
        let offset = usize::from(place(packet.get(headers.ip..)?)? & OFFSET) * 8;
        (fits && header + offset + payload <= MAX_PACKET).then_some(cut)
    }

    /// Fragments that there are.
    pub(crate) fn count(&self) -> usize {
        self.payload.div_ceil(self.step)
    }

    /// Bytes of the longest fragment.
    pub(crate) fn longest(&self) -> usize {
        self.header + self.step.min(self.payload)
    }

    /// Writes fragment `n` of `packet`, the whole IPv4 packet, into `out`; its length, `None` when there is none or no room.
    pub(crate) fn write(&self, packet: &[u8], n: usize, out: &mut [u8]) -> Option<usize> {
        let (header, payload) = packet.get(..self.header + self.payload)?.split_at(self.header);
        let start = n * self.step;
        let piece = payload.get(start..(start + self.step).min(self.payload)).filter(|p| !p.is_empty())?;
        let options = out.get_mut(20..)?;
        let header_len = 20
            + if n == 0 {
                options.get_mut(..self.header - 20)?.copy_from_slice(&header[20..]);
                self.header - 20
            } else {
                copied_options(&header[20..], options)?
            };
        let len = header_len + piece.len();
        let (fragment, rest) = out.get_mut(..len)?.split_at_mut(header_len);
        fragment[..20].copy_from_slice(&header[..20]);
        fragment[0] = 0x40 | (header_len / 4) as u8;
        fragment[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        let place = place(header)?;
        let more = if start + piece.len() < self.payload { MORE_FRAGMENTS } else { place & MORE_FRAGMENTS };
        let place = ((place & OFFSET) + (start / 8) as u16) | more;
        fragment[6..8].copy_from_slice(&place.to_be_bytes());
        fragment[10..12].fill(0);
        let check = Sum::default().add(fragment).finish();
        fragment[10..12].copy_from_slice(&check);
        rest.copy_from_slice(piece);
        Some(len)
    }
}

/// Flags and fragment offset of an IPv4 header.
fn place(header: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*header.get(6)?, *header.get(7)?]))
}

/// Copies the options that belong into every fragment, padded to four bytes; how many bytes there are.
fn copied_options(mut options: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    while let Some((&kind, _)) = options.split_first() {
        let option = match kind {
            END => break,
            NO_OPERATION => 1,
            _ => options.get(1).map(|l| usize::from(*l)).filter(|l| *l >= 2)?,
        };
        let (option, rest) = options.split_at_checked(option)?;
        if kind & COPIED != 0 {
            out.get_mut(len..len + option.len())?.copy_from_slice(option);
            len += option.len();
        }
        options = rest;
    }
    let padded = len.next_multiple_of(4);
    out.get_mut(len..padded)?.fill(END);
    Some(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_maps::decode;
    use etherparse::{IpNumber, Ipv4Header, Ipv4Options};
    use proptest::prelude::*;

    fn packet(options: &[u8], offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        let mut header = Ipv4Header::new(0, 63, IpNumber::UDP, [10, 1, 0, 2], [10, 2, 0, 2]).unwrap();
        header.options = Ipv4Options::try_from(options).unwrap();
        header.total_len = (header.header_len() + payload.len()) as u16;
        header.identification = 0xabcd;
        header.fragment_offset = offset.try_into().unwrap();
        header.more_fragments = more;
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], payload].concat()
    }

    fn cut(packet: &[u8], longest: usize) -> Option<Vec<Vec<u8>>> {
        let headers = decode::ip(packet, 0).unwrap();
        let cut = Cut::plan(packet, &headers, longest)?;
        let write = |n| {
            let mut out = vec![0xee; longest];
            let len = cut.write(packet, n, &mut out).unwrap();
            out.truncate(len);
            out
        };
        assert_eq!(cut.write(packet, cut.count(), &mut [0; 4096]), None);
        Some((0..cut.count()).map(write).collect())
    }

    proptest! {
        #[test]
        fn an_independent_parser_puts_the_payload_together_again(
            len in 1..4000usize,
            longest in 300..1500usize,
            offset in 0..1000u16,
            more: bool,
            words in 0..10usize,
        ) {
            // A timestamp that stays in the first, a router alert that goes into all.
            let options = [[148, 4, 0, 0], [68, 4, 5, 0]].concat().repeat(5)[..words * 4].to_vec();
            let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let whole = packet(&options, offset, more, &payload);
            let pieces = cut(&whole, longest).unwrap();
            let mut together = Vec::new();
            for (n, piece) in pieces.iter().enumerate() {
                let (header, rest) = Ipv4Header::from_slice(piece).unwrap();
                prop_assert!(piece.len() <= longest);
                prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
                prop_assert_eq!(usize::from(header.total_len), piece.len());
                prop_assert_eq!((header.identification, header.time_to_live), (0xabcd, 63));
                prop_assert_eq!(usize::from(header.fragment_offset.value()) * 8, usize::from(offset) * 8 + together.len());
                prop_assert_eq!(header.more_fragments, n + 1 < pieces.len() || more);
                let alerts = options.chunks(4).filter(|o| n == 0 || o[0] == 148).flatten();
                prop_assert!(header.options.iter().eq(alerts));
                together.extend_from_slice(rest);
            }
            prop_assert_eq!(together, payload);
        }
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        let whole = packet(&[], 0, false, &[7; 1600]);
        assert_eq!(cut(&whole, 20 + 104).unwrap().len(), MAX_FRAGMENTS);
        assert_eq!(cut(&whole, 20 + 103), None);
        assert_eq!(cut(&whole, 27), None);
        assert_eq!(cut(&whole, 0), None);
        assert_eq!(cut(&packet(&[], 0x1fff, false, &[7; 1600]), 1400), None);
        let mut bad = packet(&[68, 4, 5, 0], 0, false, &[7; 1600]);
        bad[21] = 1;
        let headers = decode::ip(&bad[..], 0).unwrap();
        let cut = Cut::plan(&bad, &headers, 1000).unwrap();
        assert_eq!(cut.write(&bad, 1, &mut [0; 4096]), None);
    }
}
