use super::*;
use etherparse::PacketBuilder;
use proptest::prelude::*;
use std::net::IpAddr;

fn v4(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(src, dst, 64)
        .udp(ports.0, ports.1)
        .write(&mut out, payload)
        .unwrap();
    out
}

fn v6(src: [u8; 16], dst: [u8; 16], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(src, dst, 64)
        .udp(ports.0, ports.1)
        .write(&mut out, payload)
        .unwrap();
    out
}

/// An IPv6 packet with the given chain of extension headers (type, 8-byte units) before UDP.
fn v6_chain(chain: &[(u8, u8)]) -> Vec<u8> {
    let mut p = vec![0u8; ETHERNET + 40];
    p[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
    p[14] = 0x60;
    p[20] = chain.first().map_or(protocol::UDP, |c| c.0);
    for (i, (kind, units)) in chain.iter().enumerate() {
        let mut h = vec![0u8; usize::from(*units) * 8];
        h[0] = chain.get(i + 1).map_or(protocol::UDP, |c| c.0);
        if *kind != 44 {
            h[1] = units - 1;
        }
        p.extend(h);
    }
    p.extend([0, 53, 0, 54, 0, 8, 0, 0]);
    let len = (p.len() - ETHERNET - 40) as u16;
    p[18..20].copy_from_slice(&len.to_be_bytes());
    p
}

#[test]
fn the_upper_layer_is_found_behind_extension_headers() {
    let p = v6_chain(&[(0, 1), (60, 3), (43, 2), (44, 1), (60, 1)]);
    let h = ethernet(&p[..]).unwrap();
    assert_eq!((h.protocol, h.payload, h.fragment), (protocol::UDP, p.len() - 8, Fragment::Whole));
    assert_eq!(flow(&p[..], &h).unwrap().ports(), Some((53, 54)));
}

#[test]
fn a_priority_tag_is_looked_behind_and_a_vlan_is_not_ours() {
    let plain = v4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"x");
    let tagged = |tags: &[[u8; 4]]| [&plain[..12], &tags.concat(), &plain[12..]].concat();
    let priority = [0x81, 0x00, 0xe0, 0x00];
    for (tags, expected) in [
        (&[priority][..], Ok(18)),
        (&[[0x88, 0xa8, 0, 0], priority], Ok(22)),
        (&[[0x81, 0x00, 0, 7]], Err(Undecoded::NotIp)),
        (&[priority, [0x81, 0x00, 0, 7]], Err(Undecoded::NotIp)),
        (&[priority; 3], Err(Undecoded::Malformed)),
    ] {
        assert_eq!(ethernet(&tagged(tags)[..]).map(|h| h.ip), expected);
    }
}

#[test]
fn mapped_addresses_in_ipv6_are_malformed() {
    let mapped = Address::v4([10, 0, 0, 1]).0;
    for (source, destination) in [(mapped, [0x20; 16]), ([0x20; 16], mapped)] {
        let p = v6(source, destination, (1, 2), b"x");
        let h = ethernet(&p[..]).unwrap();
        assert_eq!(flow(&p[..], &h), Err(Undecoded::Malformed));
    }
}

#[test]
fn link_padding_has_no_ports() {
    let mut p = v4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"x");
    p[17] = 20;
    let h = ethernet(&p[..]).unwrap();
    assert_eq!(flow(&p[..], &h).unwrap().ports(), None);
}

#[test]
fn an_endless_chain_is_malformed() {
    assert_eq!(ethernet(&v6_chain(&[(60, 1); 7])[..]), Err(Undecoded::Malformed));
    assert!(ethernet(&v6_chain(&[(60, 1); 6])[..]).is_ok());
}

#[test]
fn fragments_are_told_apart_and_later_ones_have_no_ports() {
    let mut p = v4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), &[0; 16]);
    p[20] = 0x20;
    assert_eq!(ethernet(&p[..]).unwrap().fragment, Fragment::First);
    p[20..22].copy_from_slice(&[0x20, 0x01]);
    let h = ethernet(&p[..]).unwrap();
    assert_eq!((h.fragment, flow(&p[..], &h).unwrap().ports()), (Fragment::Later, None));

    let mut p = v6_chain(&[(44, 1), (60, 1)]);
    p[ETHERNET + 42..ETHERNET + 44].copy_from_slice(&[0x01, 0x01]);
    let h = ethernet(&p[..]).unwrap();
    assert_eq!((h.fragment, h.protocol), (Fragment::Later, 60));
}

#[test]
fn contradictions_are_malformed_and_padding_is_not() {
    let good = v4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), &[0; 4]);
    let mut padded = good.clone();
    padded.extend([0; 14]);
    assert_eq!(ethernet(&padded[..]).unwrap().end, good.len());
    for (offset, value) in [(14, 0x44), (14, 0x55), (17, 10), (16, 0xff)] {
        let mut p = good.clone();
        p[offset] = value;
        assert_eq!(ethernet(&p[..]), Err(Undecoded::Malformed), "byte {offset} = {value:#x}");
    }
    let mut arp = good;
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(ethernet(&arp[..]), Err(Undecoded::NotIp));
}

proptest! {
    #[test]
    fn what_an_independent_builder_writes_is_read_back(
        src in any::<[u8; 4]>(), dst in any::<[u8; 4]>(),
        src6 in any::<[u8; 16]>(), dst6 in any::<[u8; 16]>(),
        ports in any::<(u16, u16)>(), payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        for (frame, s, d, ip_len) in [
            (v4(src, dst, ports, &payload), IpAddr::from(src), IpAddr::from(dst), 20),
            (v6(src6, dst6, ports, &payload), IpAddr::from(src6), IpAddr::from(dst6), 40),
        ] {
            let h = ethernet(&frame[..]).unwrap();
            prop_assert_eq!((h.ip, h.payload, h.end), (ETHERNET, ETHERNET + ip_len, frame.len()));
            prop_assert_eq!(addresses(&frame[..], &h), Ok((s.into(), d.into())));
            prop_assert_eq!((h.protocol, h.fragment), (protocol::UDP, Fragment::Whole));
            let f = flow(&frame[..], &h).unwrap();
            prop_assert_eq!(f.ports(), Some(ports));
            prop_assert_eq!(f.reversed().ports(), Some((ports.1, ports.0)));
            prop_assert_eq!(ip(&frame[..], ETHERNET), Ok(h));
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic_and_never_lead_outside(
        mut frame in proptest::collection::vec(any::<u8>(), 0..256), ethertype in 0usize..3, nibble in any::<u8>(),
    ) {
        if let Some(t) = frame.get_mut(12..14) {
            t.copy_from_slice(&[ETHERTYPE_IPV4, ETHERTYPE_IPV6, 0x0806][ethertype].to_be_bytes());
        }
        if let Some(v) = frame.get_mut(14) {
            *v = [0x45, 0x60, nibble][ethertype];
        }
        if let Ok(h) = ethernet(&frame[..]) {
            prop_assert!(h.ip < h.payload && h.payload <= h.end && h.end <= frame.len());
            let mapped = h.v6 && [h.ip + 8, h.ip + 24].iter().any(|at| frame[*at..at + 12] == Address::v4([0; 4]).0[..12]);
            prop_assert_eq!(flow(&frame[..], &h).is_ok(), !mapped);
        }
    }
}
