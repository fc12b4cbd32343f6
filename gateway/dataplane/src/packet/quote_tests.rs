use super::*;
use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, PacketBuilder, icmpv4::DestUnreachableHeader};
use proptest::prelude::*;

const ROUTER: [u8; 4] = [203, 0, 113, 9];
const OURS: [u8; 4] = [192, 0, 2, 1];
const PEER: [u8; 4] = [198, 51, 100, 1];

/// SPI and sequence number.
const ESP: [u8; 8] = [0xc0, 0xff, 0xee, 1, 0, 0, 2, 1];

/// The first bytes of a packet of ours with this payload.
fn sealed(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ipv4(OURS, PEER, 64);
    builder.write(&mut out, IpNumber(protocol), payload).unwrap();
    out[2..4].copy_from_slice(&1500u16.to_be_bytes());
    out
}

fn needed(mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let kind = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
    let mut out = Vec::new();
    let builder = PacketBuilder::ipv4(ROUTER, OURS, 64).icmpv4(Icmpv4Type::DestinationUnreachable(kind));
    builder.write(&mut out, quoted).unwrap();
    out
}

fn expected(mtu: u16) -> Quote {
    Quote {
        mtu,
        source: Address::v4(OURS),
        destination: Address::v4(PEER),
        protocol: protocol::ESP,
        udp: None,
        spi: 0xc0ff_ee01,
        sequence: Some(0x201),
    }
}

#[test]
fn esp_ah_and_esp_in_udp_are_read_as_far_as_they_are_quoted() {
    let esp = sealed(50, &ESP);
    assert_eq!(Quote::read(&needed(1400, &esp)), Some(expected(1400)));
    assert_eq!(Quote::read(&needed(1400, &esp[..24])), Some(Quote { sequence: None, ..expected(1400) }));
    assert_eq!(Quote::read(&needed(1400, &esp[..23])), None);
    let ah = sealed(51, &[&[4, 4, 0, 0][..], &ESP].concat());
    assert_eq!(Quote::read(&needed(1400, &ah)), Some(Quote { protocol: protocol::AH, ..expected(1400) }));
    let udp = sealed(17, &[&[0x11, 0x94, 0x11, 0x95, 0, 80, 0, 0][..], &ESP].concat());
    assert_eq!(Quote::read(&needed(1400, &udp)), Some(Quote { udp: Some((4500, 4501)), ..expected(1400) }));
    // What RFC 792 asks for is not enough to know the SA.
    assert_eq!(Quote::read(&needed(1400, &udp[..28])), None);
    assert_eq!(Quote::read(&needed(1400, &sealed(6, &[0; 20]))), None);
}

#[test]
fn no_path_is_believed_to_be_shorter_than_ip_guarantees() {
    let esp = sealed(50, &ESP);
    assert_eq!(Quote::read(&needed(68, &esp)), Some(expected(576)));
    assert_eq!(Quote::read(&needed(u16::MAX, &esp)), Some(expected(u16::MAX)));
    // A router from before RFC 1191 tells nothing: the next plateau below 1,500 bytes.
    assert_eq!(Quote::read(&needed(0, &esp)), Some(expected(1492)));
    assert_eq!([below(1492), below(576), below(0), below(9000)], [1006, 576, 576, 8166]);
}

#[test]
fn what_is_damaged_or_another_message_is_not_read() {
    let good = needed(1400, &sealed(50, &ESP));
    let mut damaged = good.clone();
    damaged[27] ^= 1;
    assert_eq!(Quote::read(&damaged), None);
    let mut out = Vec::new();
    let unreachable = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host);
    PacketBuilder::ipv4(ROUTER, OURS, 64).icmpv4(unreachable).write(&mut out, &sealed(50, &ESP)).unwrap();
    assert_eq!(Quote::read(&out), None);
}

#[test]
fn icmpv6_tells_32_bits_and_never_less_than_1280() {
    let (ours, peer) = ([0x20; 16], [0x21; 16]);
    let mut quoted = Vec::new();
    PacketBuilder::ipv6(ours, peer, 64).write(&mut quoted, IpNumber(50), &ESP).unwrap();
    for (told, mtu) in [(1400, 1400), (0, 1280), (1279, 1280), (70_000, u16::MAX)] {
        let mut out = Vec::new();
        let builder =
            PacketBuilder::ipv6([0x22; 16], ours, 64).icmpv6(Icmpv6Type::PacketTooBig { mtu: told });
        builder.write(&mut out, &quoted).unwrap();
        let quote = Quote { source: Address::v6(ours), destination: Address::v6(peer), ..expected(mtu) };
        assert_eq!(Quote::read(&out), Some(quote), "{told}");
    }
    // An IPv4 packet in ICMPv6 is nobody's.
    let mut out = Vec::new();
    let builder = PacketBuilder::ipv6([0x22; 16], ours, 64).icmpv6(Icmpv6Type::PacketTooBig { mtu: 1400 });
    builder.write(&mut out, &sealed(50, &ESP)).unwrap();
    assert_eq!(Quote::read(&out), None);
}

proptest! {
    #[test]
    fn no_message_makes_the_reading_panic(quoted in proptest::collection::vec(any::<u8>(), 0..80), mtu: u16, cut: usize) {
        let whole = needed(mtu, &quoted);
        let _ = Quote::read(&whole[..cut % (whole.len() + 1)]);
        if let Some(quote) = Quote::read(&whole) {
            prop_assert!(quote.mtu >= LEAST_V4);
        }
    }
}
