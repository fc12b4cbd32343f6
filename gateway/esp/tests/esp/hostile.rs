//! Input that nobody sealed, or that somebody changed, cut, kept or sent again.

use crate::setup::{ROOM, SUITES, States, engine, framed, inner, is_clear, leaks, open, outer, params, seal};
use adit_esp::{Cipher, Drop, Outcome, Packet, Protocol, SaParams};
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

/// Every combination of ESP's algorithms, each once native over IPv4 and once encapsulated over IPv6.
fn variants() -> impl Iterator<Item = SaParams> {
    SUITES.into_iter().filter(|(protocol, ..)| *protocol == Protocol::Esp).flat_map(|suite| {
        [(false, None), (true, Some((4500, 4500)))].map(|(v6, udp)| {
            let mut params = params(suite);
            params.outer = outer(v6, udp);
            params
        })
    })
}

/// Whether a buffer shows what only the holders of a secret key may see.
fn leaks_from(params: &SaParams, buf: &[u8]) -> bool {
    !is_clear(params.cipher) && leaks(buf)
}

fn esp_start(params: &SaParams) -> usize {
    (if params.outer.local.is_ipv6() { 40 } else { 20 }) + if params.outer.udp.is_some() { 8 } else { 0 }
}

#[test]
fn a_flipped_bit_anywhere_drops_the_packet_and_its_plaintext() {
    for params in variants() {
        let mut engine = engine([&params]);
        let clear = inner(false, 120, 0);
        let sealed = seal(&mut engine, 0, 77, &clear);
        for bit in 0..sealed.len() * 8 {
            let at = bit / 8;
            let mut altered = sealed.clone();
            altered[at] ^= 1 << (bit % 8);
            let (outcome, opened, buf) = open(&mut engine, &States::new(1), 0, &altered);
            let esp = esp_start(&params);
            match at {
                // Outer headers are not authenticated: what survives must be the packet that was sent.
                _ if at < esp => match outcome {
                    Outcome::Done => assert_eq!(opened, clear, "bit {bit}"),
                    _ => assert!(!leaks_from(&params, &buf)),
                },
                _ if at < esp + 4 => assert_eq!(outcome, Outcome::Dropped(Drop::NoSa)),
                _ => assert_eq!(outcome, Outcome::Dropped(Drop::Authentication), "bit {bit} of {params:?}"),
            }
            assert!(outcome == Outcome::Done || !leaks_from(&params, &buf), "bit {bit} of {params:?}");
        }
    }
}

#[test]
fn cut_anywhere_it_is_dropped() {
    for params in variants() {
        let mut engine = engine([&params]);
        let sealed = seal(&mut engine, 0, 1, &inner(true, 100, 0));
        let states = States::new(1);
        for len in 0..sealed.len() {
            // Once as a short frame, once with headers that tell the short length.
            let mut told = sealed[..len].to_vec();
            if len >= 40 {
                let v6 = params.outer.local.is_ipv6();
                let (at, ip) = if v6 { (4, 40) } else { (2, 0) };
                told[at..at + 2].copy_from_slice(&((len - ip) as u16).to_be_bytes());
                if v6 && len >= 48 {
                    told[44..46].copy_from_slice(&((len - 40) as u16).to_be_bytes());
                }
            }
            let (outcome, _, _) = open(&mut engine, &states, 0, &sealed[..len]);
            assert_eq!(outcome, Outcome::Dropped(Drop::Malformed), "{len} bytes");
            let (outcome, _, buf) = open(&mut engine, &states, 0, &told);
            let expected = [Drop::Malformed, Drop::Authentication].map(Outcome::Dropped);
            assert!(expected.contains(&outcome), "{len} bytes: {outcome:?}");
            assert!(!leaks_from(&params, &buf));
        }
        assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Done);
    }
}

#[test]
fn link_padding_is_tolerated() {
    for params in variants() {
        let mut engine = engine([&params]);
        let clear = inner(false, 20, 0);
        let mut sealed = seal(&mut engine, 0, 1, &clear);
        sealed.extend([0x99; 18]);
        let (outcome, opened, _) = open(&mut engine, &States::new(1), 0, &sealed);
        assert_eq!((outcome, opened), (Outcome::Done, clear));
    }
}

#[test]
fn either_encapsulation_is_accepted_on_any_sa() {
    let [native, udp] =
        [None, Some((4500, 1024))].map(|udp| SaParams { outer: outer(false, udp), ..template() });
    let clear = inner(true, 90, 0);
    for (sealing, opening) in [(&native, &udp), (&udp, &native)] {
        let sealed = seal(&mut engine([sealing]), 0, 9, &clear);
        let (outcome, opened, _) = open(&mut engine([opening]), &States::new(1), 0, &sealed);
        assert_eq!((outcome, &opened), (Outcome::Done, &clear));
    }
}

/// The non-ESP marker and the keepalive of RFC 3948 are no ESP.
#[test]
fn ike_and_keepalives_are_not_opened() {
    let params = SaParams { outer: outer(false, Some((4500, 4500))), ..template() };
    let mut engine = engine([&params]);
    let mut marked = seal(&mut engine, 0, 9, &inner(true, 90, 0));
    marked[28..32].fill(0);
    assert_eq!(open(&mut engine, &States::new(1), 0, &marked).0, Outcome::Dropped(Drop::NoSa));
    marked.truncate(29);
    (marked[3], marked[25], marked[28]) = (29, 9, 0xff);
    assert_eq!(open(&mut engine, &States::new(1), 0, &marked).0, Outcome::Dropped(Drop::Malformed));
}

#[test]
fn of_the_same_packet_only_one_is_opened() {
    for params in variants() {
        let mut engine = engine([&params]);
        let states = States::new(1);
        let sealed: Vec<Vec<u8>> =
            (1..=4).map(|seq| seal(&mut engine, 0, seq, &inner(false, 60, 0))).collect();
        let mut buffers: Vec<Vec<u8>> = [2, 0, 2, 1, 0, 2].iter().map(|i| framed(&sealed[*i]).0).collect();
        let mut batch: Vec<Packet<'_>> = buffers
            .iter_mut()
            .map(|buf| {
                let end = buf.len() - ROOM;
                Packet::new(buf, ROOM, end, 0, 0)
            })
            .collect();
        engine.open(&mut batch, &states);
        let replay = Outcome::Dropped(Drop::Replay);
        let outcomes: Vec<Outcome> = batch.iter().map(|packet| packet.outcome).collect();
        assert_eq!(outcomes, [Outcome::Done, Outcome::Done, replay, Outcome::Done, replay, replay]);
        assert!(
            batch
                .iter()
                .filter(|packet| packet.outcome == replay)
                .all(|packet| !leaks_from(&params, packet.buf))
        );
        assert_eq!(states.top(0).load(Relaxed), 3);
        assert_eq!(open(&mut engine, &states, 0, &sealed[3]).0, Outcome::Done);
        assert_eq!(open(&mut engine, &states, 0, &sealed[3]).0, replay);
        // A replay is told before its ICV is looked at: it costs no cryptography.
        let mut forged = sealed[3].clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(open(&mut engine, &states, 0, &forged).0, replay);
    }
}

#[test]
fn a_forged_packet_does_not_move_the_window() {
    for params in variants() {
        let mut engine = engine([&params]);
        let states = States::new(1);
        let mut forged = seal(&mut engine, 0, 1 << 31, &inner(false, 60, 0));
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(open(&mut engine, &states, 0, &forged).0, Outcome::Dropped(Drop::Authentication));
        assert_eq!(states.top(0).load(Relaxed), 0);
        let sealed = seal(&mut engine, 0, 1, &inner(false, 60, 0));
        assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Done);
    }
}

#[test]
fn what_is_too_old_is_a_replay_or_under_esn_the_future() {
    for (esn, cause) in [(false, Drop::Replay), (true, Drop::Authentication)] {
        let params = SaParams { esn, replay_window: 64, ..template() };
        let mut engine = engine([&params]);
        let states = States::new(1);
        for (seq, expected) in [
            (1000, Outcome::Done),
            (936, Outcome::Dropped(cause)),
            (937, Outcome::Done),
            (999, Outcome::Done),
        ] {
            let sealed = seal(&mut engine, 0, seq, &inner(false, 60, 0));
            assert_eq!(open(&mut engine, &states, 0, &sealed).0, expected, "{seq}");
        }
    }
}

#[test]
fn without_anti_replay_the_same_packet_is_opened_again() {
    for esn in [false, true] {
        let params = SaParams { esn, replay_window: 0, ..template() };
        let mut engine = engine([&params]);
        let states = States::new(1);
        let sealed = seal(&mut engine, 0, 5, &inner(false, 60, 0));
        assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Done);
        assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Done);
    }
}

#[test]
fn extended_sequence_numbers_pass_32_bits_in_any_order() {
    for suite in SUITES {
        let params = params(suite);
        let mut engine = engine([&params]);
        let states = States::new(1);
        let border = 1u64 << 32;
        for seq in [border - 3, border + 1, border - 1, border, border + 500, border - 2, border + 2] {
            let sealed = seal(&mut engine, 0, seq, &inner(true, 64, 0));
            assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Done, "{suite:?} {seq:#x}");
            assert_eq!(open(&mut engine, &states, 0, &sealed).0, Outcome::Dropped(Drop::Replay));
        }
        assert_eq!(states.top(0).load(Relaxed), border + 500);
    }
}

#[test]
fn the_two_ends_must_agree_on_extended_sequence_numbers() {
    for suite in SUITES {
        let [long, short] = [true, false].map(|esn| SaParams { esn, ..params(suite) });
        let sealed = seal(&mut engine([&long]), 0, 5, &inner(true, 64, 0));
        let (outcome, _, _) = open(&mut engine([&short]), &States::new(1), 0, &sealed);
        assert_eq!(outcome, Outcome::Dropped(Drop::Authentication), "{suite:?}");
    }
}

#[test]
fn without_sa_spi_or_state_nothing_is_opened() {
    let params = template();
    let mut sender = engine([&params]);
    let sealed = seal(&mut sender, 0, 1, &inner(true, 64, 0));
    let no_sa = Outcome::Dropped(Drop::NoSa);
    assert_eq!(open(&mut engine([]), &States::new(1), 0, &sealed).0, no_sa);
    assert_eq!(open(&mut sender, &States::new(1), u32::MAX, &sealed).0, no_sa);
    assert_eq!(open(&mut sender, &States::new(0), 0, &sealed).0, no_sa);
    let other = SaParams { spi: params.spi ^ 1, ..template() };
    assert_eq!(open(&mut engine([&other]), &States::new(1), 0, &sealed).0, no_sa);
    let mut buf = [0x45; 100];
    let mut batch = [Packet::new(&mut buf, 40, 80, 3, 1)];
    sender.seal(&mut batch);
    assert_eq!(batch[0].outcome, no_sa);
}

#[test]
fn sequence_numbers_run_out() {
    let exhausted = Outcome::Dropped(Drop::SequenceExhausted);
    let last = u64::from(u32::MAX);
    for (esn, seq, expected) in [
        (false, 0, exhausted),
        (true, 0, exhausted),
        (false, last, Outcome::Done),
        (false, last + 1, exhausted),
        (true, last + 1, Outcome::Done),
        (true, u64::MAX, Outcome::Done),
    ] {
        let mut engine = engine([&SaParams { esn, ..template() }]);
        let clear = inner(false, 60, 0);
        let (mut buf, start, end) = framed(&clear);
        let mut batch = [Packet::new(&mut buf, start, end, 0, seq)];
        engine.seal(&mut batch);
        assert_eq!(batch[0].outcome, expected, "{seq}");
        if expected == exhausted {
            assert_eq!(batch[0].bytes(), clear, "a dropped packet stays as it was");
        }
    }
}

#[test]
fn without_room_nothing_is_sealed() {
    for params in variants() {
        let mut engine = engine([&params]);
        let clear = inner(false, 61, 0);
        let overhead = engine.overhead(0, clear.len());
        let sealed = seal(&mut engine, 0, 1, &clear);
        let iv = match params.cipher {
            Cipher::Null => 0,
            Cipher::DesCbc | Cipher::TripleDesCbc => 8,
            cipher if cipher.is_aead() => 8,
            _ => 16,
        };
        let (head, tail) = (esp_start(&params) + 8 + iv, overhead - esp_start(&params) - 8 - iv);
        for (front, back, expected) in [
            (head, tail, Outcome::Done),
            (head - 1, tail, Outcome::Dropped(Drop::TooBig)),
            (head, tail - 1, Outcome::Dropped(Drop::TooBig)),
            (0, 0, Outcome::Dropped(Drop::TooBig)),
        ] {
            let mut buf = [&vec![0xee; front], &clear[..], &vec![0xee; back]].concat();
            let before = buf.clone();
            let mut batch = [Packet::new(&mut buf, front, front + clear.len(), 0, 1)];
            engine.seal(&mut batch);
            assert_eq!(batch[0].outcome, expected);
            match expected {
                Outcome::Done => assert_eq!(batch[0].bytes(), sealed),
                _ => assert_eq!(buf, before),
            }
        }
    }
}

#[test]
fn more_than_an_ip_packet_can_be_is_too_big() {
    for params in variants() {
        let mut engine = engine([&params]);
        let longest = engine.max_inner(0, usize::MAX);
        for (len, expected) in [(longest, Outcome::Done), (longest + 1, Outcome::Dropped(Drop::TooBig))] {
            let clear = inner(false, len, 0);
            let (mut buf, start, end) = framed(&clear);
            let mut batch = [Packet::new(&mut buf, start, end, 0, 1)];
            engine.seal(&mut batch);
            assert_eq!(batch[0].outcome, expected);
            if expected == Outcome::Done {
                let sealed = batch[0].bytes().to_vec();
                assert_eq!(open(&mut engine, &States::new(1), 0, &sealed).1, clear);
            }
        }
    }
}

#[test]
fn what_is_no_ip_packet_is_not_sealed_and_what_follows_one_is_not_sent() {
    let mut engine = engine([&template()]);
    for (packet, expected) in [
        (vec![], Drop::BadInner),
        (vec![0x45; 19], Drop::BadInner),
        (vec![0x10; 60], Drop::BadInner),
        (inner(false, 60, 0)[..59].to_vec(), Drop::BadInner),
        (inner(true, 60, 0)[..59].to_vec(), Drop::BadInner),
    ] {
        let (mut buf, start, end) = framed(&packet);
        let mut batch = [Packet::new(&mut buf, start, end, 0, 1)];
        engine.seal(&mut batch);
        assert_eq!(batch[0].outcome, Outcome::Dropped(expected));
    }
    let clear = inner(false, 40, 0);
    let padded = [&clear[..], &[0x77; 6]].concat();
    assert_eq!(seal(&mut engine, 0, 1, &padded), seal(&mut engine, 0, 1, &clear));
}

#[test]
fn windows_beyond_the_buffer_and_settled_packets_are_left_alone() {
    let mut engine = engine([&template()]);
    let states = States::new(1);
    for (start, end) in [(0, 101), (101, 102), (60, 40), (usize::MAX, 0), (0, usize::MAX)] {
        let (mut a, mut b) = ([0x45; 100], [0x45; 100]);
        let mut batch = [Packet::new(&mut a, start, end, 0, 1), Packet::new(&mut b, start, end, 0, 1)];
        engine.seal(&mut batch[..1]);
        engine.open(&mut batch[1..], &states);
        for packet in &batch {
            assert_eq!(packet.outcome, Outcome::Dropped(Drop::Malformed));
            assert_eq!((packet.start, packet.end), (start, end));
        }
    }
    let clear = inner(false, 40, 0);
    for outcome in [Outcome::Done, Outcome::Dropped(Drop::TooBig)] {
        let (mut buf, start, end) = framed(&clear);
        let mut batch = [Packet { outcome, ..Packet::new(&mut buf, start, end, 0, 1) }];
        engine.seal(&mut batch);
        engine.open(&mut batch, &states);
        assert_eq!((batch[0].outcome, batch[0].bytes()), (outcome, &clear[..]));
    }
}

/// Two workers that receive the same packets: of each, one opens it and the other is left without its plaintext.
#[test]
fn two_workers_open_each_packet_once() {
    for suite in [SUITES[0], SUITES[3]] {
        let params = params(suite);
        let sealed: Vec<Vec<u8>> =
            (1..=1000).map(|seq| seal(&mut engine([&params]), 0, seq, &inner(false, 60, 0))).collect();
        let (states, start) = (States::new(1), std::sync::Barrier::new(2));
        let worker = || {
            let mut engine = engine([&params]);
            start.wait();
            sealed
                .iter()
                .map(|packet| {
                    let (outcome, _, buf) = open(&mut engine, &states, 0, packet);
                    assert!(
                        outcome == Outcome::Done || outcome == Outcome::Dropped(Drop::Replay) && !leaks(&buf)
                    );
                    usize::from(outcome == Outcome::Done)
                })
                .collect::<Vec<_>>()
        };
        let (one, two) = std::thread::scope(|scope| {
            let [one, two] = [scope.spawn(worker), scope.spawn(worker)];
            (one.join().unwrap(), two.join().unwrap())
        });
        assert!(std::iter::zip(one, two).all(|(one, two)| one + two == 1));
    }
}

fn template() -> SaParams {
    params(SUITES[0])
}

proptest! {
    #[test]
    fn random_bytes_are_never_opened(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        suite in 0..SUITES.len(),
        shaped in any::<bool>(),
        v6 in any::<bool>(),
    ) {
        let params = params(SUITES[suite]);
        let mut engine = engine([&params]);
        if shaped && bytes.len() >= 48 {
            let start = if v6 { 40 } else { 20 };
            let len = bytes.len() as u16;
            if v6 {
                (bytes[0], bytes[6]) = (0x60, 50);
                bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            } else {
                (bytes[0], bytes[6], bytes[7], bytes[9]) = (0x45, 0, 0, 50);
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
            }
            bytes[start..start + 4].copy_from_slice(&params.spi.to_be_bytes());
        }
        let (outcome, _, _) = open(&mut engine, &States::new(1), 0, &bytes);
        prop_assert!(matches!(outcome, Outcome::Dropped(_)));
    }

    #[test]
    fn random_bytes_sealed_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), suite in 0..SUITES.len()) {
        let mut engine = engine([&params(SUITES[suite])]);
        let (mut buf, start, end) = framed(&bytes);
        let mut batch = [Packet::new(&mut buf, start, end, 0, 1)];
        engine.seal(&mut batch);
        prop_assert_ne!(batch[0].outcome, Outcome::Pending);
    }
}
