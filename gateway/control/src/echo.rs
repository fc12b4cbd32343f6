//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4) as whole IP packets: a request has a source address that its sender
//! chooses, and what it carries comes back with the answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Type, code, checksum, identifier, sequence number.
const ICMP_HEADER: usize = 8;
/// [`Echo::tunnel`] and [`Echo::nonce`].
const CARRIED: usize = 12;
const HOPS: u8 = 64;
/// Protocol numbers of IANA's registry.
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
/// Type of a request: of ICMP, of ICMPv6.
const REQUEST: [u8; 2] = [8, 128];
/// Type of an answer.
const REPLY: [u8; 2] = [0, 129];

/// One request, and what its answer brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The number of the tunnel that is asked about.
    pub tunnel: u32,
    /// Random, so that nobody answers who has not seen the request.
    pub nonce: u64,
    /// Counts the requests.
    pub sequence: u16,
}

/// The IP packet of a request; `None` where the two addresses are not of one family.
pub fn request(echo: &Echo, source: IpAddr, destination: IpAddr) -> Option<Vec<u8>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Some(request_v4(echo, source, destination)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Some(request_v6(echo, source, destination)),
        _ => None,
    }
}

/// What an answer brings back: an IPv4 packet with its header, or what follows that of an IPv6 packet. `None` where it is
/// none to a request of ours.
pub fn answer(received: &[u8], v6: bool) -> Option<Echo> {
    let icmp = match v6 {
        true => received,
        false => {
            let header = usize::from(*received.first()? & 0xf) * 4;
            received.get(header.max(IPV4_HEADER)..)?
        }
    };
    let (header, carried) = icmp.split_first_chunk::<ICMP_HEADER>()?;
    let (tunnel, carried) = carried.split_first_chunk::<4>()?;
    let (nonce, _) = carried.split_first_chunk::<8>()?;
    let [kind, code, _, _, _, _, high, low] = *header;
    (kind == REPLY[usize::from(v6)] && code == 0).then_some(Echo {
        tunnel: u32::from_be_bytes(*tunnel),
        nonce: u64::from_be_bytes(*nonce),
        sequence: u16::from_be_bytes([high, low]),
    })
}

fn request_v4(echo: &Echo, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let icmp = icmp(echo, REQUEST[0], 0);
    let length = (IPV4_HEADER + icmp.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    // Identification, fragment offset.
    packet.extend([0; 4]);
    packet.extend([HOPS, ICMP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let checksum = folded(sum(&packet));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(icmp);
    packet
}

fn request_v6(echo: &Echo, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let length = (ICMP_HEADER + CARRIED) as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([ICMPV6, HOPS]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    // RFC 8200 section 8.1: the checksum covers addresses, length and protocol as well.
    let pseudo = sum(&packet[8..IPV6_HEADER]) + u32::from(length) + u32::from(ICMPV6);
    packet.extend(icmp(echo, REQUEST[1], pseudo));
    packet
}

fn icmp(echo: &Echo, kind: u8, pseudo: u32) -> Vec<u8> {
    let mut icmp = vec![kind, 0, 0, 0];
    icmp.extend((echo.tunnel as u16).to_be_bytes());
    icmp.extend(echo.sequence.to_be_bytes());
    icmp.extend(echo.tunnel.to_be_bytes());
    icmp.extend(echo.nonce.to_be_bytes());
    let checksum = folded(sum(&icmp) + pseudo);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    icmp
}

/// RFC 1071, of an even number of octets.
fn sum(octets: &[u8]) -> u32 {
    octets.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: Echo = Echo { tunnel: 0x0001_0203, nonce: 0x1122_3344_5566_7788, sequence: 7 };

    /// As a host answers: the type of a reply in place of the request's.
    fn answered(mut icmp: Vec<u8>, v6: bool) -> Vec<u8> {
        icmp[0] = REPLY[usize::from(v6)];
        icmp
    }

    #[test]
    fn a_request_is_whole_and_its_answer_brings_everything_back() {
        let v4 = request(&ECHO, [10, 1, 0, 1].into(), [10, 2, 0, 1].into()).unwrap();
        assert_eq!((v4.len(), v4[9], &v4[12..20]), (40, 1, [10, 1, 0, 1, 10, 2, 0, 1].as_slice()));
        assert_eq!((folded(sum(&v4[..20])), folded(sum(&v4[20..]))), (0, 0), "both checksums hold");
        let mut back = v4[..20].to_vec();
        back.extend(answered(v4[20..].to_vec(), false));
        assert_eq!(answer(&back, false), Some(ECHO));
        assert_eq!(answer(&v4, false), None, "a request is no answer");

        let [from, to] = ["2001:db8:1::1", "2001:db8:2::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let v6 = request(&ECHO, from, to).unwrap();
        assert_eq!((v6.len(), v6[6]), (60, 58));
        let pseudo = sum(&v6[8..40]) + 20 + 58;
        assert_eq!(folded(sum(&v6[40..]) + pseudo), 0);
        assert_eq!(answer(&answered(v6[40..].to_vec(), true), true), Some(ECHO));
        assert_eq!(request(&ECHO, from, [10, 2, 0, 1].into()), None);
    }

    #[test]
    fn what_is_cut_short_is_no_answer() {
        let v4 = request(&ECHO, [10, 1, 0, 1].into(), [10, 2, 0, 1].into()).unwrap();
        let mut back = v4[..20].to_vec();
        back.extend(answered(v4[20..].to_vec(), false));
        for length in 0..back.len() {
            assert_eq!(answer(&back[..length], false), None);
            let short = &back[20..][..length.saturating_sub(20)];
            assert_eq!(answer(short, true), None);
        }
        // A header that says it is longer than the packet.
        back[0] = 0x4f;
        assert_eq!(answer(&back, false), None);
    }
}
