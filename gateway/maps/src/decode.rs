//! Ethernet, IPv4 and IPv6 headers, read from whatever can hand out bytes.
//!
//! The XDP program and userspace compile the very same code: the first reads a frame that the verifier watches, the
//! second a slice. No index is trusted: every read says how many bytes it takes and may fail.

use crate::{address::Address, policy::Flow};

/// A frame that hands out copies of its bytes.
pub trait Frame {
    /// Bytes of the frame.
    fn len(&self) -> usize;
    /// `N` bytes from `offset`, or `None` when the frame ends before.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// Whether the frame has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
}

/// Protocol numbers that somebody here asks for.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// ESP.
    pub const ESP: u8 = 50;
    /// AH.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// No next header; in ESP, a dummy packet.
    pub const NONE: u8 = 59;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// Priority tags that are looked behind.
const MAX_TAGS: usize = 2;

/// IPv6 extension headers that are followed to find the upper-layer header.
const MAX_EXTENSIONS: usize = 6;

/// Which part of a fragmented packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// The first fragment: it has the upper-layer header.
    First,
    /// Any other.
    Later,
}

/// The headers of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Offset of the IP header from the start of the frame.
    pub ip: usize,
    /// Offset of the upper-layer header.
    pub payload: usize,
    /// Offset just past the IP packet: what follows is link-layer padding.
    pub end: usize,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Which fragment.
    pub fragment: Fragment,
}

impl Headers {
    /// Of no packet; a value to be overwritten.
    pub const EMPTY: Headers =
        Headers { ip: 0, payload: 0, end: 0, v6: false, protocol: 0, fragment: Fragment::Whole };
}

/// Why a frame has no [`Headers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// Something other than IPv4 or IPv6.
    NotIp,
    /// It says IP, but the header ends early or contradicts itself.
    Malformed,
}

/// Reads the headers of an Ethernet frame. A tag with VLAN 0 only carries a priority (IEEE 802.1Q): the kernel takes
/// such a frame for untagged, and so does this. Any other VLAN is another interface's.
///
/// # Errors
/// [`Undecoded::NotIp`] for every EtherType but IPv4's and IPv6's and for a VLAN, [`Undecoded::Malformed`] as for [`ip`]
/// and for more than two priority tags.
#[inline(always)]
pub fn ethernet<F: Frame + ?Sized>(frame: &F) -> Result<Headers, Undecoded> {
    let (mut ethertype, mut offset) = (u16::from_be_bytes(read(frame, 12)?), ETHERNET);
    let mut tags = 0;
    while tags < MAX_TAGS && matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) {
        let tag: [u8; 4] = read(frame, offset)?;
        if u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff != 0 {
            return Err(Undecoded::NotIp);
        }
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        offset += 4;
        tags += 1;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset),
        ETHERTYPE_IPV6 => ipv6(frame, offset),
        // The kernel may look further than this.
        ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN => Err(Undecoded::Malformed),
        _ => Err(Undecoded::NotIp),
    }
}

/// Reads the headers of an IP packet that starts at `offset`, its version taken from the first nibble.
///
/// # Errors
/// [`Undecoded::NotIp`] for another version, [`Undecoded::Malformed`] when a header ends early, a length
/// contradicts another, or there are more IPv6 extension headers than anybody sends.
#[inline(always)]
pub fn ip<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Headers, Undecoded> {
    let [first] = read(frame, offset)?;
    match first >> 4 {
        4 => ipv4(frame, offset),
        6 => ipv6(frame, offset),
        _ => Err(Undecoded::NotIp),
    }
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Headers, Undecoded> {
    // Field by field: a whole header in the few registers of BPF would spill over the program's small stack.
    let [version] = read(frame, offset)?;
    let header = usize::from(version & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes(read(frame, offset + 2)?));
    if version >> 4 != 4 || header < 20 || total < header || offset + total > frame.len() {
        return Err(Undecoded::Malformed);
    }
    let fragment = u16::from_be_bytes(read(frame, offset + 6)?);
    let fragment = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    let [protocol] = read(frame, offset + 9)?;
    Ok(Headers { ip: offset, payload: offset + header, end: offset + total, v6: false, protocol, fragment })
}

#[inline(always)]
fn read<F: Frame + ?Sized, const N: usize>(frame: &F, offset: usize) -> Result<[u8; N], Undecoded> {
    match frame.bytes(offset) {
        Some(bytes) => Ok(bytes),
        None => Err(Undecoded::Malformed),
    }
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Headers, Undecoded> {
    let [version] = read(frame, offset)?;
    let end = offset + 40 + usize::from(u16::from_be_bytes(read(frame, offset + 4)?));
    // `end` lies beyond the 40 bytes of the header, so these are there too.
    if version >> 4 != 6 || end > frame.len() {
        return Err(Undecoded::Malformed);
    }
    let [mut protocol] = read(frame, offset + 6)?;
    let (mut payload, mut fragment) = (offset + 40, Fragment::Whole);
    let mut followed = 0;
    while followed < MAX_EXTENSIONS {
        if !is_extension(protocol) {
            break;
        }
        // What follows the fragment header of a later fragment is data, not a header.
        if matches!(fragment, Fragment::Later) {
            break;
        }
        let x: [u8; 4] = read(frame, payload)?;
        if protocol == 44 {
            fragment = match (u16::from_be_bytes([x[2], x[3]]) >> 3, x[3] & 1) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            payload += 8;
        } else {
            payload += (usize::from(x[1]) + 1) * 8;
        }
        protocol = x[0];
        followed += 1;
    }
    if payload > end || (followed == MAX_EXTENSIONS && is_extension(protocol)) {
        return Err(Undecoded::Malformed);
    }
    Ok(Headers { ip: offset, payload, end, v6: true, protocol, fragment })
}

/// Whether a protocol number is that of an IPv6 extension header that another header follows (RFC 8200 section 4:
/// hop-by-hop options, routing, fragment, destination options). [`Headers::protocol`] is one only in a later fragment.
#[inline(always)]
pub const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 60)
}

/// Source and destination address of the packet.
///
/// # Errors
/// [`Undecoded::Malformed`] when an IPv6 header has IPv4-mapped addresses, which belong on no wire and would pass for
/// IPv4's here, or when the frame ends before, which it does not for `headers` that came from it.
#[inline(always)]
pub fn addresses<F: Frame + ?Sized>(frame: &F, headers: &Headers) -> Result<(Address, Address), Undecoded> {
    if headers.v6 {
        let source = Address::v6(read(frame, headers.ip + 8)?);
        let destination = Address::v6(read(frame, headers.ip + 24)?);
        if source.is_v4() || destination.is_v4() {
            Err(Undecoded::Malformed)
        } else {
            Ok((source, destination))
        }
    } else {
        Ok((Address::v4(read(frame, headers.ip + 12)?), Address::v4(read(frame, headers.ip + 16)?)))
    }
}

/// What a policy looks the packet up by. Ports are read for TCP, UDP and SCTP; a packet too short to have them has
/// none.
///
/// # Errors
/// As [`addresses`].
#[inline(always)]
pub fn flow<F: Frame + ?Sized>(frame: &F, headers: &Headers) -> Result<Flow, Undecoded> {
    let (source, destination) = addresses(frame, headers)?;
    let has_ports = matches!(headers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    let is_there = !matches!(headers.fragment, Fragment::Later) && headers.payload + 4 <= headers.end;
    let ports = if has_ports && is_there {
        let pair = |[a, b, c, d]: [u8; 4]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        frame.bytes(headers.payload).map(pair)
    } else {
        None
    };
    Ok(Flow::new(source, destination, headers.protocol, ports))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
