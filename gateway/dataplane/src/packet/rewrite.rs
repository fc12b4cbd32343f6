//! Changes to inner packets: checksums that were left to a NIC, hop limit, TCP maximum segment size.

use super::checksum::{Sum, update};
use adit_maps::decode::{Fragment, Headers, protocol};

const TCP_SYN: u8 = 0x02;

/// Finishes the TCP or UDP checksum of a packet whose sender left that to a NIC, as hosts behind virtual interfaces do:
/// then the field holds the sum of the pseudo header alone. A checksum that is right stays, also where it looks like that.
#[inline]
pub(crate) fn complete_checksum(packet: &mut [u8], headers: &Headers) {
    let field = match headers.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return,
    };
    let addresses = match headers.v6 {
        true => packet.get(headers.ip + 8..).and_then(|at| at.first_chunk::<32>()).map(sum_of),
        false => packet.get(headers.ip + 12..).and_then(|at| at.first_chunk::<8>()).map(sum_of),
    };
    let Some(addresses) = addresses else { return };
    let Some(segment) = packet.get(headers.payload..headers.end) else { return };
    let Some(stored) = segment.get(field..field + 2) else { return };
    if headers.fragment != Fragment::Whole {
        return;
    }
    let len = (segment.len() as u32).to_be_bytes();
    let pseudo = addresses.add_array(&len).add_array(&[0, headers.protocol]);
    let [a, b] = pseudo.finish();
    if stored != [!a, !b] || pseudo.add(segment).finish() == [0, 0] {
        return;
    }
    // The field holds what the pseudo header adds, so the sum of the segment is the whole one.
    let mut check = Sum::default().add(segment).finish();
    if headers.protocol == protocol::UDP && check == [0, 0] {
        check = [0xff, 0xff];
    }
    packet[headers.payload + field..headers.payload + field + 2].copy_from_slice(&check);
}

#[inline(always)]
fn sum_of<const N: usize>(bytes: &[u8; N]) -> Sum {
    Sum::default().add_array(bytes)
}

/// Takes one off the TTL or hop limit; false, and nothing changed, when it would reach zero.
#[inline(always)]
#[must_use]
pub(crate) fn decrement_hop_limit(packet: &mut [u8], headers: &Headers) -> bool {
    let at = headers.ip + if headers.v6 { 7 } else { 8 };
    if packet[at] <= 1 {
        return false;
    }
    if headers.v6 {
        packet[at] -= 1;
        return true;
    }
    // TTL and protocol are one word under the header's checksum.
    let old = [packet[at], packet[at + 1]];
    packet[at] -= 1;
    let new = [packet[at], packet[at + 1]];
    let check = [packet[at + 2], packet[at + 3]];
    packet[at + 2..at + 4].copy_from_slice(&update(check, old, new));
    true
}

/// Whether a router may not fragment the packet: IPv6, or IPv4 with DF.
#[inline]
pub(crate) fn forbids_fragmentation(packet: &[u8], headers: &Headers) -> bool {
    headers.v6 || packet[headers.ip + 6] & 0x40 != 0
}

/// Lowers the maximum segment size that a TCP SYN announces to `mss`, which is only asked for there.
#[inline]
pub(crate) fn clamp_mss(packet: &mut [u8], headers: &Headers, mss: impl FnOnce() -> u16) {
    if headers.protocol != protocol::TCP || headers.fragment == Fragment::Later {
        return;
    }
    let Some(tcp) = packet.get_mut(headers.payload..headers.end) else { return };
    if tcp.len() <= 20 || tcp[13] & TCP_SYN == 0 {
        return;
    }
    let end = (usize::from(tcp[12] >> 4) * 4).min(tcp.len());
    let mut at = 20;
    while at + 1 < end {
        match (tcp[at], usize::from(tcp[at + 1])) {
            (0, _) => return,
            (1, _) => at += 1,
            (2, 4) if at + 4 <= end => return lower(tcp, at + 2, mss()),
            (_, 0 | 1) => return,
            (_, len) => at += len,
        }
    }
}

/// Lowers the 16-bit value at `at` of a TCP segment to `mss`, keeping the checksum right.
fn lower(tcp: &mut [u8], at: usize, mss: u16) {
    let old = [tcp[at], tcp[at + 1]];
    let new = mss.to_be_bytes();
    if u16::from_be_bytes(old) <= mss {
        return;
    }
    tcp[at..at + 2].copy_from_slice(&new);
    // At an odd offset the value straddles two words: swapping its bytes swaps those of the sum (RFC 1071 section 2).
    let (old, new) = match at % 2 {
        0 => (old, new),
        _ => ([old[1], old[0]], [new[1], new[0]]),
    };
    let check = update([tcp[16], tcp[17]], old, new);
    tcp[16..18].copy_from_slice(&check);
}
