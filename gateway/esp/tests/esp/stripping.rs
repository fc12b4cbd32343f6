//! Authentic packets with unusual content: padding, dummies, traffic flow confidentiality, ECN.

use crate::setup::{States, Suite, engine, inner, leaks, open, outer, params, seal};
use adit_esp::{Auth, Cipher, Drop, Outcome, Protocol, SaParams};
use aes_gcm::{AeadInOut, Aes128Gcm, KeyInit};
use etherparse::Ipv4Header;

const SUITE: Suite = (Protocol::Esp, Cipher::Aes128Gcm16, Auth::None);

/// A packet over IPv4 whose decrypted text is `text`, trailer included, made without the engine.
fn forge(params: &SaParams, text: &[u8]) -> Vec<u8> {
    let seq = 1u32;
    let (spi, iv) = (params.spi.to_be_bytes(), [9; 8]);
    let aad = [&spi[..], &[0; 4], &seq.to_be_bytes()].concat();
    let nonce: [u8; 12] = [&params.salt[..], &iv].concat().try_into().unwrap();
    let mut payload = text.to_vec();
    let tag = Aes128Gcm::new_from_slice(&params.key[..16])
        .unwrap()
        .encrypt_inout_detached(&nonce.into(), &aad, (&mut payload[..]).into())
        .unwrap();
    let esp = [&spi[..], &seq.to_be_bytes(), &iv, &payload, &tag].concat();
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 50, 0, 0, 198, 51, 100, 2, 192, 0, 2, 1];
    ip[2..4].copy_from_slice(&(20 + esp.len() as u16).to_be_bytes());
    ip.extend(esp);
    ip
}

/// `packet`, `between`, padding to four bytes, and the trailer.
fn text(packet: &[u8], between: &[u8], next_header: u8) -> Vec<u8> {
    let mut text = [packet, between].concat();
    let pad_len = (text.len() + 2).next_multiple_of(4) - text.len() - 2;
    text.extend((1..).take(pad_len));
    text.extend([pad_len as u8, next_header]);
    text
}

fn opened(text: &[u8]) -> Result<Vec<u8>, Drop> {
    let params = params(SUITE);
    let (outcome, inner, buf) = open(&mut engine([&params]), &States::new(1), 0, &forge(&params, text));
    match outcome {
        Outcome::Done => Ok(inner),
        Outcome::Dropped(drop) => {
            assert!(!leaks(&buf), "plaintext left after {drop:?}");
            Err(drop)
        }
        Outcome::Pending => panic!("not worked on"),
    }
}

#[test]
fn padding_of_any_length_is_taken_off() {
    for (v6, next_header) in [(false, 4), (true, 41)] {
        let clear = inner(v6, 60, 0);
        for pad_len in (2..=254u8).step_by(4) {
            let padding: Vec<u8> = (1..=pad_len).collect();
            let text = [&clear[..], &padding, &[pad_len, next_header]].concat();
            assert_eq!(opened(&text).as_ref(), Ok(&clear));
        }
    }
    // 255 bytes of padding need an inner packet of another length to come out aligned.
    let clear = inner(false, 59, 0);
    let padding: Vec<u8> = (1..=255).collect();
    assert_eq!(opened(&[&clear[..], &padding, &[255, 4]].concat()), Ok(clear));
}

#[test]
fn padding_that_does_not_count_is_refused() {
    let clear = inner(false, 60, 0);
    for (padding, pad_len) in
        [([1, 1], 2), ([0, 0], 2), ([2, 1], 2), ([1, 3], 2), ([1, 2], 63), ([1, 2], 255)]
    {
        let text = [&clear[..], &padding, &[pad_len, 4]].concat();
        assert_eq!(opened(&text), Err(Drop::BadPadding), "{padding:?} {pad_len}");
    }
    assert_eq!(opened(&[1, 2, 3, 4]), Err(Drop::BadPadding));
}

#[test]
fn traffic_flow_confidentiality_padding_is_taken_off() {
    for (v6, next_header) in [(false, 4), (true, 41)] {
        for len in [60, 61, 62, 63] {
            let clear = inner(v6, len, 0);
            assert_eq!(opened(&text(&clear, &[0x33; 500], next_header)), Ok(clear));
        }
    }
}

#[test]
fn dummy_packets_are_discarded() {
    assert_eq!(opened(&text(&inner(false, 100, 0), &[], 59)), Err(Drop::Dummy));
    assert_eq!(opened(&text(b"", b"", 59)), Err(Drop::Dummy));
}

#[test]
fn content_that_is_not_the_packet_it_should_be_is_refused() {
    let (v4, v6) = (inner(false, 100, 0), inner(true, 100, 0));
    for (packet, next_header) in [
        (&v4[..], 41),
        (&v6, 4),
        (&v4, 6),
        (&v4, 0),
        (&v4[..99], 4),
        (&v6[..99], 41),
        (&v4[..19], 4),
        (&v6[..39], 41),
        (b"", 4),
        (b"", 41),
    ] {
        assert_eq!(opened(&text(packet, &[], next_header)), Err(Drop::BadInner), "next header {next_header}");
    }
}

/// RFC 6040 through the whole way: a router marks the outer packet, the inner packet carries it on or is dropped.
#[test]
fn congestion_marks_arrive() {
    for (v6_outer, udp) in [(false, None), (true, Some((4500, 4500)))] {
        for v6_inner in [false, true] {
            for (ecn, expected) in [(0, None), (1, Some(3)), (2, Some(3)), (3, Some(3))] {
                let dscp = 0x2e << 2;
                let params = SaParams { outer: outer(v6_outer, udp), ..params(SUITE) };
                let mut engine = engine([&params]);
                let clear = inner(v6_inner, 80, dscp | ecn);
                let mut marked = seal(&mut engine, 0, 1, &clear);
                if v6_outer {
                    marked[1] |= 3 << 4;
                } else {
                    marked[1] |= 3;
                }
                let (outcome, opened, buf) = open(&mut engine, &States::new(1), 0, &marked);
                let Some(merged) = expected else {
                    assert_eq!(outcome, Outcome::Dropped(Drop::BadInner));
                    assert!(!leaks(&buf));
                    continue;
                };
                assert_eq!(outcome, Outcome::Done);
                assert_eq!(opened, inner(v6_inner, 80, dscp | merged));
                if !v6_inner {
                    let (header, _) = Ipv4Header::from_slice(&opened).unwrap();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                }
            }
        }
    }
}
