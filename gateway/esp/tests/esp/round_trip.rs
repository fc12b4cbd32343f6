//! What is sealed is opened again, whatever is mixed in a batch.

use crate::setup::{SUITES, States, engine, inner, is_clear, leaks, outer, params};
use adit_esp::{Outcome, Packet, Protocol, SaParams};
use etherparse::{Ipv4Header, Ipv6Header, UdpHeader};
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

/// The most that goes in front of an inner packet: IPv6 and AH with HMAC-SHA512-256.
const HEAD: usize = 40 + 48;
/// The most that goes behind one: padding to a block of AES, the trailer and the ICV of HMAC-SHA512-256.
const TAIL: usize = 15 + 2 + 32;

/// An SA and one packet on it.
#[derive(Clone, Debug)]
struct Case {
    suite: usize,
    outer_v6: bool,
    udp: bool,
    inner_v6: bool,
    esn: bool,
    seq: u64,
    len: usize,
    headroom: usize,
    traffic_class: u8,
}

fn case() -> impl Strategy<Value = Case> {
    let seq = prop_oneof![
        1u64..1 << 32,
        Just(1),
        Just((1 << 32) - 1),
        1u64 << 32..1 << 40,
        Just(1 << 32),
        Just(u64::MAX)
    ];
    (0..SUITES.len(), any::<[bool; 4]>(), seq, 20..=1500usize, 0..64usize, any::<u8>()).prop_map(
        |(suite, [outer_v6, udp, inner_v6, esn], seq, len, headroom, traffic_class)| {
            let seq = if esn { seq } else { (seq - 1) % u64::from(u32::MAX) + 1 };
            let udp = udp && SUITES[suite].0 == Protocol::Esp;
            Case { suite, outer_v6, udp, inner_v6, esn, seq, len, headroom, traffic_class }
        },
    )
}

fn sa(n: usize, case: &Case) -> SaParams {
    let mut params = params(SUITES[case.suite]);
    params.spi += n as u32;
    params.key[0] ^= n as u8;
    params.esn = case.esn;
    params.outer = outer(case.outer_v6, case.udp.then_some((4500, 4500)));
    params
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn batches_of_anything(cases in prop::collection::vec(case(), 1..24)) {
        let sas: Vec<SaParams> = cases.iter().enumerate().map(|(n, case)| sa(n, case)).collect();
        let mut engine = engine(&sas);
        let states = States::new(cases.len());
        let inners: Vec<Vec<u8>> =
            cases.iter().map(|case| inner(case.inner_v6, case.len, case.traffic_class)).collect();
        let mut buffers: Vec<Vec<u8>> = std::iter::zip(&cases, &inners)
            .map(|(case, inner)| [&vec![0xee; HEAD + case.headroom], &inner[..], &[0xee; TAIL]].concat())
            .collect();
        let mut batch: Vec<Packet<'_>> = buffers
            .iter_mut()
            .enumerate()
            .map(|(n, buf)| {
                let (start, end) = (HEAD + cases[n].headroom, buf.len() - TAIL);
                states.top(n as u32).store(cases[n].seq - 1, Relaxed);
                Packet::new(buf, start, end, n as u32, cases[n].seq)
            })
            .collect();

        engine.seal(&mut batch);
        for (n, packet) in batch.iter_mut().enumerate() {
            prop_assert_eq!(packet.outcome, Outcome::Done);
            let sealed = packet.bytes();
            prop_assert_eq!(sealed.len(), inners[n].len() + engine.overhead(n as u32, inners[n].len()));
            prop_assert_eq!(leaks(packet.buf), is_clear(sas[n].cipher) && leaks(&inners[n]));
            check_headers(&cases[n], &sas[n], packet.bytes());
            packet.outcome = Outcome::Pending;
            packet.seq = 0;
        }

        engine.open(&mut batch, &states);
        for (n, packet) in batch.iter().enumerate() {
            prop_assert_eq!(packet.outcome, Outcome::Done);
            prop_assert_eq!(packet.seq, cases[n].seq);
            prop_assert_eq!(packet.bytes(), &inners[n][..]);
        }
    }

    #[test]
    fn the_longest_inner_packet_fits_and_no_longer_one(case in case(), mtu in 0..=65_535usize) {
        let engine = engine([&sa(0, &case)]);
        let max = engine.max_inner(0, mtu);
        if max > 0 {
            prop_assert!(max + engine.overhead(0, max) <= mtu);
        }
        prop_assert!(max + 1 + engine.overhead(0, max + 1) > mtu);
    }
}

/// Outer headers by an independent parser.
fn check_headers(case: &Case, sa: &SaParams, packet: &[u8]) {
    let (protocol, rest) = if case.outer_v6 {
        let (ip, rest) = Ipv6Header::from_slice(packet).unwrap();
        assert_eq!((ip.traffic_class, ip.hop_limit), (case.traffic_class, 64));
        assert_eq!(usize::from(ip.payload_length), rest.len());
        if case.udp {
            let (udp, payload) = UdpHeader::from_slice(rest).unwrap();
            assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, payload).unwrap());
        }
        (ip.next_header.0, rest)
    } else {
        let (ip, rest) = Ipv4Header::from_slice(packet).unwrap();
        assert_eq!((ip.dscp.value() << 2 | ip.ecn.value(), ip.time_to_live), (case.traffic_class, 64));
        assert_eq!((usize::from(ip.total_len), ip.dont_fragment), (packet.len(), true));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        (ip.protocol.0, rest)
    };
    let (expected, numbers) = match sa.protocol {
        Protocol::Esp if case.udp => (17, &rest[8..]),
        Protocol::Esp => (50, rest),
        Protocol::Ah => (51, &rest[4..]),
    };
    assert_eq!(protocol, expected);
    assert_eq!(numbers[..4], sa.spi.to_be_bytes());
    assert_eq!(numbers[4..8], (case.seq as u32).to_be_bytes());
}
