//! Outer headers against an independent parser, and what parsing refuses.

use super::*;
use etherparse::{Ipv4Header, Ipv6Header, UdpHeader};
use std::net::{Ipv4Addr, Ipv6Addr};

const V4: (IpAddr, IpAddr) =
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)));
const V6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2)),
);

/// An outer packet around `payload`.
fn written(
    (local, peer): (IpAddr, IpAddr),
    udp: Option<(u16, u16)>,
    traffic_class: u8,
    payload: &[u8],
) -> Vec<u8> {
    let template = Template::new(Protocol::Esp, &Outer { local, peer, udp }).unwrap();
    let mut packet = vec![0xee; template.len()];
    packet.extend(payload);
    template.write(&mut packet, traffic_class);
    packet
}

#[test]
fn ipv4_headers_are_right() {
    for traffic_class in 0..=255 {
        let payload = vec![traffic_class; 8 + usize::from(traffic_class)];
        for udp in [None, Some((4500, 61_000))] {
            let packet = written(V4, udp, traffic_class, &payload);
            let (ip, rest) = Ipv4Header::from_slice(&packet).unwrap();
            assert_eq!(ip.dscp.value() << 2 | ip.ecn.value(), traffic_class);
            assert_eq!(usize::from(ip.total_len), packet.len());
            assert_eq!((ip.identification, ip.dont_fragment, ip.more_fragments), (0, true, false));
            assert_eq!((ip.time_to_live, ip.fragment_offset.value()), (64, 0));
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!((IpAddr::from(ip.source), IpAddr::from(ip.destination)), V4);
            let rest = match udp {
                Some(ports) => {
                    let (udp, rest) = UdpHeader::from_slice(rest).unwrap();
                    assert_eq!((udp.source_port, udp.destination_port), ports);
                    assert_eq!((usize::from(udp.length), udp.checksum), (payload.len() + 8, 0));
                    assert_eq!(ip.protocol.0, 17);
                    rest
                }
                None => {
                    assert_eq!(ip.protocol.0, 50);
                    rest
                }
            };
            assert_eq!(rest, payload);
        }
    }
}

#[test]
fn ipv6_headers_are_right() {
    for traffic_class in 0..=255 {
        let payload: Vec<u8> = (0..=traffic_class).chain(0..8).collect();
        for udp in [None, Some((4500, 61_000))] {
            let packet = written(V6, udp, traffic_class, &payload);
            let (ip, rest) = Ipv6Header::from_slice(&packet).unwrap();
            assert_eq!((ip.traffic_class, ip.flow_label.value(), ip.hop_limit), (traffic_class, 0, 64));
            assert_eq!(usize::from(ip.payload_length), packet.len() - 40);
            assert_eq!((IpAddr::from(ip.source), IpAddr::from(ip.destination)), V6);
            let rest = match udp {
                Some(ports) => {
                    let (udp, rest) = UdpHeader::from_slice(rest).unwrap();
                    assert_eq!((udp.source_port, udp.destination_port), ports);
                    assert_eq!(usize::from(udp.length), payload.len() + 8);
                    assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, rest).unwrap());
                    assert_eq!(ip.next_header.0, 17);
                    rest
                }
                None => {
                    assert_eq!(ip.next_header.0, 50);
                    rest
                }
            };
            assert_eq!(rest, payload);
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    let (local, peer) = V6;
    let template = Template::new(Protocol::Esp, &Outer { local, peer, udp: Some((4500, 4500)) }).unwrap();
    let mut zero = written(V6, Some((4500, 4500)), 0, &[0, 0]);
    // A payload word equal to the checksum of the packet without it makes the sum all ones.
    let check = [zero[46], zero[47]];
    zero[48..50].copy_from_slice(&check);
    template.write(&mut zero, 0);
    assert_eq!(zero[46..48], [0xff, 0xff]);
}

#[test]
fn addresses_of_different_families_are_refused() {
    let outer = Outer { local: V4.0, peer: V6.1, udp: None };
    assert_eq!(
        Template::new(Protocol::Esp, &outer).err(),
        Some(InvalidSa::Family { local: V4.0, peer: V6.1 })
    );
}

#[test]
fn what_was_written_is_parsed_with_any_link_padding() {
    for (addresses, ip_len) in [(V4, 20), (V6, 40)] {
        for (udp, udp_len) in [(None, 0), (Some((4500, 4500)), 8)] {
            let mut packet = written(addresses, udp, 0xb9, &[7; 40]);
            let start = ip_len + udp_len;
            for _ in 0..20 {
                let carried = parse(&packet, Protocol::Esp).unwrap();
                assert_eq!(carried, Carried { payload: start..start + 40, traffic_class: 0xb9 });
                packet.push(0);
            }
            for len in 0..start + 40 {
                assert_eq!(parse(&packet[..len], Protocol::Esp), None, "{len} bytes");
            }
        }
    }
}

#[test]
fn ipv4_options_are_passed_over() {
    let mut packet = written(V4, None, 0, &[7; 40]);
    packet.splice(20..20, [1; 8]);
    (packet[0], packet[3]) = (0x47, 68);
    assert_eq!(parse(&packet, Protocol::Esp), Some(Carried { payload: 28..68, traffic_class: 0 }));
    packet[0] = 0x44;
    assert_eq!(parse(&packet, Protocol::Esp), None, "a header shorter than 20 bytes");
}

#[test]
fn ah_is_native_and_never_taken_for_esp() {
    for (local, peer) in [V4, V6] {
        let template = Template::new(Protocol::Ah, &Outer { local, peer, udp: None }).unwrap();
        let mut packet = vec![7; template.len() + 40];
        template.write(&mut packet, 0xb9);
        let start = template.len();
        assert_eq!(packet[if start == 20 { 9 } else { 6 }], 51);
        let carried = Carried { payload: start..start + 40, traffic_class: 0xb9 };
        assert_eq!(parse(&packet, Protocol::Ah), Some(carried));
        assert_eq!(parse(&packet, Protocol::Esp), None);
        for udp in [None, Some((4500, 4500))] {
            assert_eq!(parse(&written((local, peer), udp, 0, &[7; 40]), Protocol::Ah), None);
        }
    }
}

#[test]
fn fragments_extension_headers_and_other_protocols_are_refused() {
    let v4 = written(V4, None, 0, &[7; 40]);
    let v6 = written(V6, None, 0, &[7; 40]);
    let udp = written(V4, Some((1, 2)), 0, &[7; 40]);
    for (packet, at, value) in [
        (&v4, 6, 0x20),
        (&v4, 7, 1),
        (&v4, 9, 6),
        (&v4, 0, 0x55),
        (&v4, 2, 1),
        (&v4, 3, 19),
        (&v6, 6, 44),
        (&v6, 6, 0),
        (&v6, 4, 1),
        (&udp, 24, 1),
        (&udp, 25, 7),
        (&udp, 25, 49),
    ] {
        assert!(parse(packet, Protocol::Esp).is_some());
        let mut altered = packet.clone();
        altered[at] = value;
        assert_eq!(parse(&altered, Protocol::Esp), None, "byte {at} = {value}");
    }
}
