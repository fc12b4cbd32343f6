use super::{checksum, *};
use adit_maps::{address::Address, decode};
use etherparse::{
    Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, IpHeaders, Ipv4Slice, Ipv6Slice, PacketBuilder,
    TcpHeader, TcpOptionElement, icmpv4::DestUnreachableHeader,
};
use proptest::prelude::*;

fn tcp_v4(options: &[TcpOptionElement], ttl: u8) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], ttl)
        .tcp(40000, 443, 7, 1024)
        .syn()
        .options(options)
        .unwrap()
        .write(&mut out, b"hello")
        .unwrap();
    out
}

fn tcp_v6(options: &[TcpOptionElement]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64)
        .tcp(40000, 443, 7, 1024)
        .syn()
        .options(options)
        .unwrap()
        .write(&mut out, b"hello!")
        .unwrap();
    out
}

/// [`answer`] to a packet that fills `packet`.
fn reply(out: &mut [u8], packet: &[u8], from: &Address, problem: Problem) -> Option<usize> {
    let headers = decode::ip(packet, 0).unwrap();
    answer(out, packet, &headers, &decode::flow(packet, &headers).unwrap(), from, problem)
}

/// The MSS a packet announces, its checksums verified on the way.
fn announced(packet: &[u8]) -> Option<u16> {
    let (ip, payload) = IpHeaders::from_slice(packet).unwrap();
    let (tcp, data) = TcpHeader::from_slice(payload.payload).unwrap();
    let expected = match &ip {
        IpHeaders::Ipv4(h, _) => {
            assert_eq!(h.header_checksum, h.calc_header_checksum());
            tcp.calc_checksum_ipv4(h, data).unwrap()
        }
        IpHeaders::Ipv6(h, _) => tcp.calc_checksum_ipv6(h, data).unwrap(),
    };
    assert_eq!(tcp.checksum, expected);
    tcp.options_iterator().find_map(|o| match o {
        Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    })
}

#[test]
fn a_syn_announces_what_fits_and_no_more() {
    use TcpOptionElement::*;
    for before in [&[][..], &[Noop], &[Noop, Noop, WindowScale(7)], &[SelectiveAcknowledgementPermitted]] {
        for build in [|o: &[TcpOptionElement]| tcp_v4(o, 64), tcp_v6] {
            let options = [before, &[MaximumSegmentSize(1460)]].concat();
            let mut packet = build(&options);
            let headers = decode::ip(&packet[..], 0).unwrap();
            clamp_mss(&mut packet, &headers, || 1360);
            assert_eq!(announced(&packet), Some(1360));
            let clamped = packet.clone();
            clamp_mss(&mut packet, &headers, || 1400);
            assert_eq!(packet, clamped);
        }
    }
}

#[test]
fn a_checksum_that_was_left_to_the_nic_is_finished_and_no_other_touched() {
    let udp = |v6: bool| {
        let mut out = Vec::new();
        match v6 {
            false => {
                PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64).udp(53, 4000).write(&mut out, b"odd")
            }
            true => PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64).udp(53, 4000).write(&mut out, b"odd"),
        }
        .unwrap();
        out
    };
    for (packet, field) in [(tcp_v4(&[], 64), 16), (tcp_v6(&[]), 16), (udp(false), 6), (udp(true), 6)] {
        let headers = decode::ip(&packet[..], 0).unwrap();
        let at = headers.payload + field;
        let mut same = packet.clone();
        complete_checksum(&mut same, &headers);
        assert_eq!(same, packet);

        // What Linux leaves there: the sum of the pseudo header, not inverted.
        let addresses = if headers.v6 { 8..40 } else { 12..20 };
        let len = (headers.end - headers.payload) as u32;
        let sum = checksum::Sum::default().add(&packet[addresses]).add(&len.to_be_bytes());
        let [a, b] = sum.add(&[0, headers.protocol]).finish();
        let mut partial = packet.clone();
        partial[at..at + 2].copy_from_slice(&[!a, !b]);
        complete_checksum(&mut partial, &headers);
        assert_eq!(partial, packet);

        let mut wrong = packet.clone();
        wrong[at] ^= 1;
        let before = wrong.clone();
        complete_checksum(&mut wrong, &headers);
        assert_eq!(wrong, before);
    }
}

#[test]
fn what_is_no_syn_is_left_alone() {
    let mut packet = tcp_v4(&[TcpOptionElement::MaximumSegmentSize(1460)], 64);
    packet[33] = 0x10;
    let before = packet.clone();
    let headers = decode::ip(&packet[..], 0).unwrap();
    clamp_mss(&mut packet, &headers, || 500);
    assert_eq!(packet, before);
}

#[test]
fn a_hop_limit_runs_out_at_one() {
    for ttl in [0, 1, 2, 64, 255] {
        let mut packet = tcp_v4(&[], ttl);
        let headers = decode::ip(&packet[..], 0).unwrap();
        assert_eq!(decrement_hop_limit(&mut packet, &headers), ttl > 1);
        let ip = Ipv4Slice::from_slice(&packet).unwrap().header().to_header();
        assert_eq!(ip.time_to_live, if ttl > 1 { ttl - 1 } else { ttl });
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    }
    let mut packet = tcp_v6(&[]);
    let headers = decode::ip(&packet[..], 0).unwrap();
    assert!(decrement_hop_limit(&mut packet, &headers));
    assert_eq!(packet[7], 63);
}

#[test]
fn too_big_and_time_exceeded_are_what_another_parser_reads() {
    let mut packet = [tcp_v4(&[], 1), vec![9; 1400]].concat();
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    let mut out = [0xee; 2048];
    for (problem, expected) in [
        (
            Problem::TooBig(1372),
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu: 1372,
            }),
        ),
        (
            Problem::HopLimit,
            Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit),
        ),
    ] {
        let len = reply(&mut out, &packet, &Address::v4([10, 1, 0, 1]), problem).unwrap();
        assert_eq!(len, 576);
        let ip = Ipv4Slice::from_slice(&out[..len]).unwrap();
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!((header.source, header.destination), ([10, 1, 0, 1], [10, 1, 0, 2]));
        let icmp = Icmpv4Slice::from_slice(ip.payload().payload).unwrap();
        assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
        assert_eq!(icmp.icmp_type(), expected);
        assert_eq!(icmp.payload(), &packet[..548]);
    }
}

#[test]
fn packet_too_big_over_ipv6() {
    let mut packet = [tcp_v6(&[]), vec![9; 1400]].concat();
    let len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    let mut out = [0xee; 2048];
    for (given, told) in [(1372, 1372), (1000, 1280)] {
        let len = reply(&mut out, &packet, &Address::v6([0x20; 16]), Problem::TooBig(given)).unwrap();
        assert_eq!(len, 1280);
        let ip = Ipv6Slice::from_slice(&out[..len]).unwrap();
        let icmp = Icmpv6Slice::from_slice(ip.payload().payload).unwrap();
        let header = ip.header().to_header();
        assert!(icmp.is_checksum_valid(header.source, header.destination));
        assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: told });
    }
}

#[test]
fn nobody_answers_an_error_a_later_fragment_or_a_crowd() {
    let gateway = Address::v4([10, 1, 0, 1]);
    let mut error = Vec::new();
    PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 9)
        .icmpv4(Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit))
        .write(&mut error, &[0; 32])
        .unwrap();
    let mut crowd = tcp_v4(&[], 9);
    crowd[16..20].copy_from_slice(&[224, 0, 0, 5]);
    let mut later = tcp_v4(&[], 9);
    later[6..8].copy_from_slice(&[0x20, 0x10]);
    let mut redirect = Vec::new();
    PacketBuilder::ipv6([0x20; 16], [0x21; 16], 1)
        .icmpv6_raw(137, 0, [0; 4])
        .write(&mut redirect, &[0; 32])
        .unwrap();
    let mut out = [0; 2048];
    assert_eq!(reply(&mut out, &redirect, &Address::v6([0x20; 16]), Problem::HopLimit), None);
    for packet in [error, crowd, later] {
        assert_eq!(reply(&mut out, &packet, &gateway, Problem::HopLimit), None);
    }
    let mut echo = Vec::new();
    PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 9)
        .icmpv4_echo_request(1, 1)
        .write(&mut echo, &[0; 32])
        .unwrap();
    assert!(reply(&mut out, &echo, &gateway, Problem::HopLimit).is_some());
    assert_eq!(reply(&mut out, &echo, &Address::v6([1; 16]), Problem::HopLimit), None);
}

proptest! {
    #[test]
    fn an_incremental_update_is_the_full_sum(mut words in proptest::collection::vec(any::<[u8; 2]>(), 2..40), new: [u8; 2], at: usize) {
        let at = at % words.len();
        let sum = |w: &[[u8; 2]]| checksum::Sum::default().add(w.as_flattened()).finish();
        let before = sum(&words);
        let updated = checksum::update(before, words[at], new);
        words[at] = new;
        let full = sum(&words);
        // Ones' complement has two zeros; all-zero data is the only one where they differ.
        prop_assert!(updated == full || words.iter().all(|w| *w == [0, 0]));
    }

    #[test]
    fn no_packet_makes_the_rewriting_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), shape: bool, mss: u16) {
        if let Some(first) = bytes.first_mut() {
            *first = if shape { 0x45 } else { 0x60 };
        }
        if bytes.len() > 40 {
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            bytes[if shape { 9 } else { 6 }] = decode::protocol::TCP;
        }
        if let Ok(headers) = decode::ip(&bytes[..], 0) {
            complete_checksum(&mut bytes, &headers);
            let _ = decrement_hop_limit(&mut bytes, &headers);
            clamp_mss(&mut bytes, &headers, || mss);
            let mut out = [0; 1500];
            let _ = reply(&mut out, &bytes, &Address::v4([10, 1, 0, 1]), Problem::TooBig(mss));
        }
    }
}
