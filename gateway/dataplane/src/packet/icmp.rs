//! ICMP errors that a gateway answers with (RFC 792, RFC 1191, RFC 4443).

use super::checksum::Sum;
use adit_maps::{
    address::Address,
    decode::{Fragment, Headers, protocol},
    policy::Flow,
};

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It does not fit; the longest packet that does has so many bytes.
    TooBig(u16),
    /// Its TTL or hop limit ran out here.
    HopLimit,
}

/// Bytes of the packet in question that an answer quotes at most, so that it never exceeds 576 (RFC 1812 section
/// 4.3.2.3) or 1280 bytes (RFC 4443 section 2.4).
const QUOTE_V4: usize = 576 - 20 - 8;
const QUOTE_V6: usize = 1280 - 40 - 8;

const HOP_LIMIT: u8 = 64;

/// Writes the answer to the packet in `packet` that has these headers into `out`; its length in bytes.
///
/// `None` when RFC 1122 section 3.2.2 and RFC 4443 section 2.4 forbid one: to an ICMP error, to a later fragment, from
/// or to an address that is not one host's.
pub(crate) fn answer(
    out: &mut [u8],
    packet: &[u8],
    headers: &Headers,
    flow: &Flow,
    from: &Address,
    problem: Problem,
) -> Option<usize> {
    let whole = packet.get(headers.ip..headers.end)?;
    let is_error = match (headers.protocol, packet.get(headers.payload)) {
        (protocol::ICMP, Some(kind)) => !matches!(kind, 0 | 8 | 13 | 14),
        // Among those that report nothing, the redirect counts as an error all the same.
        (protocol::ICMPV6, Some(kind)) => kind & 0x80 == 0 || *kind == 137,
        _ => false,
    };
    if is_error
        || headers.fragment == Fragment::Later
        || from.is_v4() == headers.v6
        || !is_host(&flow.source)
        || !is_host(&flow.destination)
    {
        return None;
    }
    let to = &flow.source;
    if headers.v6 { v6(out, whole, from, to, problem) } else { v4(out, whole, from, to, problem) }
}

fn v4(out: &mut [u8], quoted: &[u8], from: &Address, to: &Address, problem: Problem) -> Option<usize> {
    let quoted = &quoted[..quoted.len().min(QUOTE_V4)];
    let len = 28 + quoted.len();
    let out = out.get_mut(..len)?;
    let (kind, code, mtu) = match problem {
        Problem::TooBig(mtu) => (3, 4, mtu),
        Problem::HopLimit => (11, 0, 0),
    };
    let (ip, icmp) = out.split_at_mut(20);
    ip.fill(0);
    ip[0] = 0x45;
    // Internetwork control (RFC 1812 section 4.3.2.5).
    ip[1] = 0xc0;
    ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    ip[8] = HOP_LIMIT;
    ip[9] = protocol::ICMP;
    ip[12..16].copy_from_slice(&from.0[12..]);
    ip[16..20].copy_from_slice(&to.0[12..]);
    let check = Sum::default().add(ip).finish();
    ip[10..12].copy_from_slice(&check);

    icmp[..8].fill(0);
    (icmp[0], icmp[1]) = (kind, code);
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    icmp[8..].copy_from_slice(quoted);
    let check = Sum::default().add(icmp).finish();
    icmp[2..4].copy_from_slice(&check);
    Some(len)
}

fn v6(out: &mut [u8], quoted: &[u8], from: &Address, to: &Address, problem: Problem) -> Option<usize> {
    let quoted = &quoted[..quoted.len().min(QUOTE_V6)];
    let len = 48 + quoted.len();
    let out = out.get_mut(..len)?;
    let (kind, word) = match problem {
        // A sender never goes below 1280 bytes (RFC 8200 section 5).
        Problem::TooBig(mtu) => (2, u32::from(mtu.max(1280))),
        Problem::HopLimit => (3, 0),
    };
    let (ip, icmp) = out.split_at_mut(40);
    ip[..8].fill(0);
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&(icmp.len() as u16).to_be_bytes());
    ip[6] = protocol::ICMPV6;
    ip[7] = HOP_LIMIT;
    ip[8..24].copy_from_slice(&from.0);
    ip[24..40].copy_from_slice(&to.0);

    icmp[..8].fill(0);
    icmp[0] = kind;
    icmp[4..8].copy_from_slice(&word.to_be_bytes());
    icmp[8..].copy_from_slice(quoted);
    let pseudo = Sum::default().add(&ip[8..40]).add(&(icmp.len() as u32).to_be_bytes());
    let check = pseudo.add(&[0, protocol::ICMPV6]).add(icmp).finish();
    icmp[2..4].copy_from_slice(&check);
    Some(len)
}

/// Whether the address may be one host's: not unspecified, multicast, broadcast or of the "this network" block.
pub(crate) fn is_host(address: &Address) -> bool {
    if address.is_v4() {
        !matches!(address.0[12], 0 | 224..)
    } else {
        address.0[0] != 0xff && address.0 != [0; 16]
    }
}
