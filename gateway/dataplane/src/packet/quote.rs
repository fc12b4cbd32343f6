//! What routers say about the path of sealed packets: ICMP's "fragmentation needed" (RFC 1191) and ICMPv6's "packet too
//! big" (RFC 8201), with what they quote of the packet in question.

use super::checksum::Sum;
use adit_maps::{
    address::Address,
    decode::{self, Headers, protocol},
};

/// No router is asked to do with less (RFC 8200 section 5); IPv4's 68 bytes would leave no room for anything, so what is
/// believed ends at what every host takes (RFC 791 section 3.1).
const LEAST_V4: u16 = 576;
const LEAST_V6: u16 = 1280;

/// Path MTUs that there are, for a router that tells none (RFC 1191 section 7.1).
const PLATEAUS: [u16; 9] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 576];

const UDP_HEADER: usize = 8;

/// A router's word that a sealed packet was too big for what comes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// The longest packet in bytes that would have passed; never less than IP guarantees.
    pub(crate) mtu: u16,
    /// Where the packet came from, as it says.
    pub(crate) source: Address,
    /// Where it went.
    pub(crate) destination: Address,
    /// 50 (ESP) or 51 (AH).
    pub(crate) protocol: u8,
    /// Source and destination port, when ESP was in UDP.
    pub(crate) udp: Option<(u16, u16)>,
    /// Its security parameter index.
    pub(crate) spi: u32,
    /// The low half of its sequence number, where the quotation goes that far.
    pub(crate) sequence: Option<u32>,
}

impl Quote {
    /// Reads an IP packet that holds an ICMP message. `None` for anything but a whole one that quotes ESP or AH as far
    /// as its SPI.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let headers = decode::ip(packet, 0).ok()?;
        let message = packet.get(headers.payload..headers.end)?;
        let (first, quoted) = message.split_first_chunk::<8>()?;
        let mut quote = read_quoted(quoted, headers.v6)?;
        quote.mtu = match (headers.protocol, headers.v6, first[0], first[1]) {
            (protocol::ICMP, false, 3, 4) if Sum::default().add(message).finish() == [0, 0] => {
                match u16::from_be_bytes([first[6], first[7]]) {
                    0 => below(total_len(quoted)?),
                    mtu => mtu,
                }
                .max(LEAST_V4)
            }
            // The kernel has checked the sum.
            (protocol::ICMPV6, true, 2, 0) => {
                let mtu = u32::from_be_bytes([first[4], first[5], first[6], first[7]]);
                u16::try_from(mtu).unwrap_or(u16::MAX).max(LEAST_V6)
            }
            _ => return None,
        };
        Some(quote)
    }
}

/// The quotation, which ends somewhere. Its MTU is yet to come.
fn read_quoted(quoted: &[u8], v6: bool) -> Option<Quote> {
    let header = match (quoted.first()? >> 4, v6) {
        (4, false) => usize::from(quoted[0] & 0x0f) * 4,
        (6, true) => 40,
        _ => return None,
    };
    let ip = quoted.get(..header).filter(|ip| ip.len() >= 20)?;
    let carried = if v6 { ip[6] } else { ip[9] };
    let headers = Headers { v6, protocol: carried, ..Headers::EMPTY };
    let (source, destination) = decode::addresses(quoted, &headers).ok()?;
    let word = |at: usize| quoted.get(header + at..)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b));
    let (at, protocol, udp) = match carried {
        protocol::ESP => (0, protocol::ESP, None),
        protocol::AH => (4, protocol::AH, None),
        protocol::UDP => {
            let ports = word(0)?;
            (UDP_HEADER, protocol::ESP, Some(((ports >> 16) as u16, ports as u16)))
        }
        _ => return None,
    };
    Some(Quote { mtu: 0, source, destination, protocol, udp, spi: word(at)?, sequence: word(at + 4) })
}

/// Length in bytes of a quoted IPv4 packet, as its header says.
fn total_len(quoted: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*quoted.get(2)?, *quoted.get(3)?]))
}

/// The next path MTU below what did not pass.
fn below(len: u16) -> u16 {
    PLATEAUS.into_iter().find(|plateau| *plateau < len).unwrap_or(LEAST_V4)
}

#[cfg(test)]
#[path = "quote_tests.rs"]
mod tests;
