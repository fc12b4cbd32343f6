//! The Authentication Header: what it protects of the outer header, and what routers may change.

use crate::setup::{SUITES, States, engine, inner, open, outer, params, seal};
use adit_esp::{Auth, Cipher, Drop, Outcome, Packet, Protocol, SaParams};
use std::sync::atomic::Ordering::Relaxed;

/// Every AH SA over IPv4 and over IPv6.
fn variants() -> impl Iterator<Item = SaParams> {
    SUITES
        .into_iter()
        .filter(|(protocol, ..)| *protocol == Protocol::Ah)
        .flat_map(|suite| [false, true].map(|v6| SaParams { outer: outer(v6, None), ..params(suite) }))
}

fn ip_len(params: &SaParams) -> usize {
    if params.outer.local.is_ipv6() { 40 } else { 20 }
}

/// Whether RFC 4302 section 3.3.3.1 lets a router change this bit of an outer header without options.
fn is_mutable(v6: bool, bit: usize) -> bool {
    match (v6, bit / 8) {
        // Traffic class behind four bits of version, and flow label.
        (true, 0) => bit % 8 < 4,
        (true, at) => matches!(at, 1..4 | 7),
        // Type of service, flags and fragment offset, time to live, checksum.
        (false, at) => matches!(at, 1 | 6 | 7 | 8 | 10 | 11),
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_routers_may_not_write() {
    for params in variants() {
        let (ip_len, v6) = (ip_len(&params), params.outer.local.is_ipv6());
        let mut engine = engine([&params]);
        let clear = inner(v6, 90, 0);
        let sealed = seal(&mut engine, 0, 77, &clear);
        for bit in 0..sealed.len() * 8 {
            let at = bit / 8;
            let mut altered = sealed.clone();
            altered[at] ^= 1 << (bit % 8);
            let (outcome, opened, _) = open(&mut engine, &States::new(1), 0, &altered);
            let result = match outcome {
                Outcome::Dropped(drop) => Err(drop),
                Outcome::Done => Ok(opened),
                Outcome::Pending => panic!("not worked on"),
            };
            match at {
                // What says that it is a fragment is no packet yet.
                6 | 7 if !v6 && bit != 6 * 8 + 6 && bit != 6 * 8 + 7 => {
                    assert_eq!(result, Err(Drop::Malformed), "bit {bit}");
                }
                _ if at < ip_len && is_mutable(v6, bit) => {
                    assert_eq!(result.as_ref(), Ok(&clear), "bit {bit}")
                }
                // Version, lengths and protocol decide whether there is an AH at all.
                _ if at < ip_len => assert!(
                    matches!(result, Err(Drop::Malformed | Drop::Authentication | Drop::NoSa | Drop::Replay)),
                    "bit {bit}: {result:?}"
                ),
                _ if at == ip_len + 1 => assert!(
                    matches!(result, Err(Drop::Malformed | Drop::Authentication)),
                    "bit {bit}: {result:?}"
                ),
                _ if (ip_len + 4..ip_len + 8).contains(&at) => assert_eq!(result, Err(Drop::NoSa)),
                _ => assert_eq!(result, Err(Drop::Authentication), "bit {bit} of {params:?}"),
            }
        }
    }
}

#[test]
fn cut_anywhere_it_is_dropped() {
    for params in variants() {
        let v6 = params.outer.local.is_ipv6();
        let mut engine = engine([&params]);
        let sealed = seal(&mut engine, 0, 1, &inner(true, 100, 0));
        let states = States::new(1);
        for len in 0..sealed.len() {
            assert_eq!(open(&mut engine, &states, 0, &sealed[..len]).0, Outcome::Dropped(Drop::Malformed));
            let mut told = sealed[..len].to_vec();
            if len >= 40 {
                let (at, ip) = if v6 { (4, 40) } else { (2, 0) };
                told[at..at + 2].copy_from_slice(&((len - ip) as u16).to_be_bytes());
            }
            let expected = [Drop::Malformed, Drop::Authentication].map(Outcome::Dropped);
            let (outcome, ..) = open(&mut engine, &states, 0, &told);
            assert!(expected.contains(&outcome), "{len} bytes: {outcome:?}");
        }
        assert_eq!(states.top(0).load(Relaxed), 0);
        assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Done);
    }
}

#[test]
fn a_replay_and_a_forgery_are_refused() {
    for params in variants() {
        let mut engine = engine([&params]);
        let states = States::new(1);
        let sealed = seal(&mut engine, 0, 9, &inner(false, 60, 0));
        let mut forged = sealed.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(open(&mut engine, &states, 0, &forged).0, Outcome::Dropped(Drop::Authentication));
        assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Done);
        assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Dropped(Drop::Replay));
        assert_eq!(open(&mut engine, &states, 0, &forged).0, Outcome::Dropped(Drop::Replay));
    }
}

#[test]
fn neither_protocol_opens_the_others_packets() {
    let ah = params((Protocol::Ah, Cipher::Null, Auth::HmacSha256_128));
    let esp = params((Protocol::Esp, Cipher::Null, Auth::HmacSha256_128));
    let mut both = engine([&ah, &esp]);
    for (sealing, opening) in [(0, 1), (1, 0)] {
        let sealed = seal(&mut both, sealing, 1, &inner(false, 60, 0));
        assert_eq!(open(&mut both, &States::new(2), opening, &sealed).0, Outcome::Dropped(Drop::Malformed));
    }
}

/// A router's mark of congestion is outside what AH protects, and arrives like ESP's.
#[test]
fn congestion_marks_arrive() {
    for params in variants() {
        let mut engine = engine([&params]);
        let mut marked = seal(&mut engine, 0, 1, &inner(false, 60, 2));
        marked[1] |= if params.outer.local.is_ipv6() { 3 << 4 } else { 3 };
        let (outcome, opened, _) = open(&mut engine, &States::new(1), 0, &marked);
        assert_eq!((outcome, opened), (Outcome::Done, inner(false, 60, 3)));
    }
}

#[test]
fn without_room_nothing_is_sealed() {
    for params in variants() {
        let mut engine = engine([&params]);
        let clear = inner(false, 61, 0);
        let head = engine.overhead(0, clear.len());
        for (front, expected) in [(head, Outcome::Done), (head - 1, Outcome::Dropped(Drop::TooBig))] {
            let mut buf = [&vec![0xee; front], &clear[..]].concat();
            let before = buf.clone();
            let mut batch = [Packet::new(&mut buf, front, front + clear.len(), 0, 1)];
            engine.seal(&mut batch);
            assert_eq!(batch[0].outcome, expected);
            assert!(expected == Outcome::Done || buf == before);
        }
    }
}
