//! Every backend makes the same packets of the same batch, octet by octet, and opens what the others sealed.

use crate::setup::{ROOM, SUITES, States, framed, inner, leaks, outer, params};
use adit_esp::{Backend, Drop, Engine, Outcome, Packet, SaParams};
use proptest::prelude::*;

/// Two SAs of every suite, one of them with other keys, native or in UDP, over both IP versions.
fn sas() -> Vec<SaParams> {
    let with = |(n, suite): (usize, _)| {
        let mut one = params(suite);
        let mut two = params(suite);
        two.key.iter_mut().for_each(|octet| *octet = octet.wrapping_mul(7) ^ n as u8);
        two.auth_key.iter_mut().for_each(|octet| *octet = octet.wrapping_mul(5) ^ n as u8);
        two.esn = false;
        if suite.0 == adit_esp::Protocol::Esp {
            one.outer = outer(n.is_multiple_of(2), (n % 3 == 0).then_some((4500, 4500)));
        }
        [one, two]
    };
    SUITES.into_iter().enumerate().flat_map(with).collect()
}

fn engine(backend: Backend) -> Engine {
    let sas = sas();
    let mut engine = Engine::with_backend(sas.len(), backend);
    for (index, params) in (0..).zip(&sas) {
        engine.install(index, params).unwrap();
    }
    engine
}

type Buffers = Vec<(Vec<u8>, usize, usize)>;

fn run(buffers: &mut Buffers, sas: &[u32], work: impl FnOnce(&mut [Packet<'_>])) -> Vec<Outcome> {
    let mut batch: Vec<Packet<'_>> = buffers
        .iter_mut()
        .zip(sas)
        .enumerate()
        .map(|(n, ((buf, start, end), sa))| Packet::new(buf, *start, *end, *sa, n as u64 + 1))
        .collect();
    work(&mut batch);
    let after: Vec<_> = batch.iter().map(|packet| (packet.start, packet.end, packet.outcome)).collect();
    for ((_, start, end), (new_start, new_end, _)) in buffers.iter_mut().zip(&after) {
        (*start, *end) = (*new_start, *new_end);
    }
    after.into_iter().map(|(_, _, outcome)| outcome).collect()
}

/// A packet of a batch.
#[derive(Clone, Debug)]
struct Case {
    sa: u32,
    len: usize,
    v6: bool,
    /// Octets that it lies further behind in its buffer.
    offset: usize,
    /// Whether it is none, and is dropped before it comes to a kernel.
    spoiled: bool,
}

fn batches() -> impl Strategy<Value = Vec<Case>> {
    let length = prop_oneof![3 => 20..200usize, 2 => 200..1500usize, 1 => 1500..9000usize];
    let packet = move |sas: std::ops::Range<u32>| {
        (sas, length.clone(), any::<bool>(), 0..64usize, prop::bool::weighted(0.1))
            .prop_map(|(sa, len, v6, offset, spoiled)| Case { sa, len, v6, offset, spoiled })
    };
    let count = SUITES.len() as u32 * 2;
    prop_oneof![
        prop::collection::vec(packet(0..count), 1..40),
        // Many packets of few SAs, so that lanes fill up.
        (0..SUITES.len() as u32)
            .prop_flat_map(move |suite| { prop::collection::vec(packet(2 * suite..2 * suite + 2), 1..300) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn backends_agree(batch in batches(), broken in any::<u64>()) {
        let sas: Vec<u32> = batch.iter().map(|case| case.sa).collect();
        let clear: Buffers = batch
            .iter()
            .map(|case| {
                let (buf, start, end) = framed(&inner(case.v6, case.len, 0));
                let mut buf = [vec![0xee; case.offset], buf].concat();
                if case.spoiled {
                    buf[case.offset + start] = 0x35;
                }
                (buf, case.offset + start, case.offset + end)
            })
            .collect();
        let backends: Vec<Backend> =
            Backend::ALL.into_iter().rev().filter(|backend| backend.is_available()).collect();
        let mut sealed = Vec::new();
        for backend in &backends {
            let mut buffers = clear.clone();
            let outcomes = run(&mut buffers, &sas, |batch| engine(*backend).seal(batch));
            for (outcome, (case, (buffer, before))) in
                outcomes.iter().zip(batch.iter().zip(buffers.iter().zip(&clear)))
            {
                if case.spoiled {
                    prop_assert_eq!(*outcome, Outcome::Dropped(Drop::BadInner));
                    prop_assert!(buffer == before, "a packet that is dropped stays as it was");
                } else {
                    prop_assert_eq!(*outcome, Outcome::Done);
                }
            }
            sealed.push(buffers);
        }
        for other in &sealed[1..] {
            for ((ours, theirs), case) in sealed[0].iter().zip(other).zip(&batch) {
                prop_assert!(ours == theirs, "{case:?}: the backends differ");
            }
        }
        let broken: Vec<bool> = (0..batch.len()).map(|n| broken >> (n % 64) & 1 == 1).collect();
        for backend in &backends {
            let mut buffers = sealed[0].clone();
            for ((buf, _, end), broken) in buffers.iter_mut().zip(&broken) {
                buf[*end - 1] ^= u8::from(*broken);
            }
            let states = States::new(SUITES.len() * 2);
            let outcomes = run(&mut buffers, &sas, |batch| engine(*backend).open(batch, &states));
            for (n, (outcome, (buf, start, end))) in outcomes.iter().zip(&buffers).enumerate() {
                if batch[n].spoiled {
                    prop_assert_eq!(*outcome, Outcome::Dropped(Drop::Malformed));
                } else if broken[n] {
                    prop_assert_eq!(*outcome, Outcome::Dropped(Drop::Authentication));
                    let suite = SUITES[sas[n] as usize / 2];
                    prop_assert!(crate::setup::is_clear(suite.1) || !leaks(buf));
                } else {
                    prop_assert_eq!(*outcome, Outcome::Done);
                    let (whole, first, last) = &clear[n];
                    prop_assert!(buf[*start..*end] == whole[*first..*last]);
                }
                prop_assert!(buf[..ROOM / 4].iter().all(|octet| *octet == 0xee), "written far in front");
            }
        }
    }
}
