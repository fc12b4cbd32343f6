//! `bench crypto`: what sealing and opening a packet costs, for every backend of this processor.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use adit_esp::{
    AUTH_KEY_LEN, Auth, Backend, Cipher, Engine, KEY_LEN, Outcome, Outer, Packet, Protocol, REPLAY_SLOTS,
    ReplayState, SaParams, SaStates,
};
use serde_json::{Value, json};

use crate::report::{Report, figure};

/// Bytes before a packet in its buffer, and after it.
const ROOM: usize = 128;
/// Rounds of which the median counts; each does a part of the work of every backend in turn.
const ROUNDS: usize = 15;
/// IMIX: seven packets of 64 bytes, four of 576, one of 1400.
const IMIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 64, 576, 64, 1400, 64, 576];

/// Cipher and integrity algorithm by the name of the suite.
const SUITES: [(&str, Cipher, Auth); 8] = [
    ("aes128gcm16", Cipher::Aes128Gcm16, Auth::None),
    ("aes192gcm16", Cipher::Aes192Gcm16, Auth::None),
    ("aes256gcm16", Cipher::Aes256Gcm16, Auth::None),
    ("chacha20poly1305", Cipher::ChaCha20Poly1305, Auth::None),
    ("aes128-sha1", Cipher::Aes128Cbc, Auth::HmacSha1_96),
    ("aes128-sha256", Cipher::Aes128Cbc, Auth::HmacSha256_128),
    ("aes256-sha256", Cipher::Aes256Cbc, Auth::HmacSha256_128),
    ("aes256-sha512", Cipher::Aes256Cbc, Auth::HmacSha512_256),
];

/// Takes all figures.
pub(crate) fn run(report: &mut Report, quick: bool) {
    let sizes = [vec![64], vec![128], vec![256], vec![512], vec![1024], vec![1400], IMIX.to_vec()];
    let time = Duration::from_millis(if quick { 1 } else { 8 });
    let mut rows = Vec::new();
    for (suite, cipher, auth) in SUITES {
        for sizes in &sizes {
            rows.extend(both_ways((suite, cipher, auth), sizes, 1, 256, time));
        }
        if cipher == Cipher::Aes128Gcm16 || cipher == Cipher::Aes128Cbc {
            for (sas, batch) in [(256, 256), (2048, 256), (1, 1), (1, 8), (1, 32)] {
                for sizes in [&vec![64], &vec![1400]] {
                    rows.extend(both_ways((suite, cipher, auth), sizes, sas, batch, time));
                }
            }
        }
    }
    report.table("crypto", "ESP in memory, one core, IPv4 in IPv4: nanoseconds a packet, median", rows);
}

type Suite = (&'static str, Cipher, Auth);

fn both_ways(
    suite: Suite,
    sizes: &[usize],
    sas: usize,
    batch: usize,
    time: Duration,
) -> Vec<Vec<(&'static str, Value)>> {
    let backends: Vec<Backend> =
        [Backend::Avx512, Backend::Portable].into_iter().filter(|backend| backend.is_available()).collect();
    let mut benches: Vec<Bench> =
        backends.iter().map(|backend| Bench::new(*backend, suite, sizes, sas, batch)).collect();
    let mut figures = vec![[Vec::new(), Vec::new()]; benches.len()];
    for _ in 0..ROUNDS {
        for (bench, [seal, open]) in benches.iter_mut().zip(&mut figures) {
            let (sealed, opened) = bench.round(time);
            seal.push(sealed);
            open.push(opened);
        }
    }
    let medians: Vec<[f64; 2]> = figures.into_iter().map(|ways| ways.map(median)).collect();
    let size = if sizes.len() > 1 { Value::from("imix") } else { Value::from(sizes[0]) };
    let mut rows = Vec::new();
    for (way, op) in ["seal", "open"].into_iter().enumerate() {
        let others = backends.iter().zip(&medians).skip(1);
        let ratios: serde_json::Map<_, _> = others
            .map(|(backend, times)| (backend.to_string(), figure(times[way] / medians[0][way])))
            .collect();
        rows.push(vec![
            ("suite", Value::from(suite.0)),
            ("op", op.into()),
            ("size", size.clone()),
            ("sas", sas.into()),
            ("batch", batch.into()),
            ("impl", format!("adit {}", backends[0]).into()),
            ("ns_per_packet", figure(medians[0][way])),
            ("ratios", json!(ratios)),
        ]);
    }
    rows
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Replay windows that are never asked the same number twice.
struct Windows(Vec<(AtomicU64, [AtomicU64; REPLAY_SLOTS])>);

impl SaStates for Windows {
    fn replay(&self, sa: u32) -> Option<ReplayState<'_>> {
        let (top, slots) = self.0.get(sa as usize)?;
        Some(ReplayState { top, slots })
    }
}

/// A sealing and an opening engine, and packets to send through both.
struct Bench {
    sealing: Engine,
    opening: Engine,
    windows: Windows,
    buffers: Vec<(Vec<u8>, usize)>,
    sas: usize,
    batch: usize,
    next: u64,
}

impl Bench {
    fn new(backend: Backend, (_, cipher, auth): Suite, sizes: &[usize], sas: usize, batch: usize) -> Self {
        let mut engines = [(); 2].map(|()| Engine::with_backend(sas, backend));
        for engine in &mut engines {
            for sa in 0..sas {
                let mut params = SaParams {
                    generation: 1,
                    spi: 0x1000,
                    protocol: Protocol::Esp,
                    cipher,
                    auth,
                    key: [1; KEY_LEN],
                    salt: [2; 4],
                    auth_key: [3; AUTH_KEY_LEN],
                    esn: false,
                    replay_window: 1024,
                    outer: Outer {
                        local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
                        peer: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
                        udp: None,
                    },
                };
                params.key[..8].copy_from_slice(&(sa as u64).to_be_bytes());
                engine.install(sa as u32, &params).expect("the parameters of the bench make an SA");
            }
        }
        let [sealing, opening] = engines;
        let window = || (AtomicU64::new(0), std::array::from_fn(|_| AtomicU64::new(0)));
        // As many packets as there are in a batch, but at least one for every SA, so that each gets its turn.
        let count = batch.max(sas);
        let buffers = (0..count).map(|n| {
            let size = sizes[n % sizes.len()];
            let mut buffer = vec![0; size + 2 * ROOM];
            let packet = &mut buffer[ROOM..ROOM + size];
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
            packet[8] = 64;
            packet[9] = 17;
            packet[12..20].copy_from_slice(&[10, 1, 0, 2, 10, 2, 0, 2]);
            (buffer, size)
        });
        Self {
            sealing,
            opening,
            windows: Windows((0..sas).map(|_| window()).collect()),
            buffers: buffers.collect(),
            sas,
            batch,
            next: 1,
        }
    }

    /// Nanoseconds that a packet takes to be sealed and to be opened.
    fn round(&mut self, least: Duration) -> (f64, f64) {
        let (mut sealing, mut opening, mut packets) = (Duration::ZERO, Duration::ZERO, 0u32);
        while sealing + opening < least {
            let (sas, next) = (self.sas, self.next);
            for (first, chunk) in self.buffers.chunks_mut(self.batch).enumerate() {
                let first = first * self.batch;
                let mut batch: Vec<Packet<'_>> = chunk
                    .iter_mut()
                    .enumerate()
                    .map(|(n, (buffer, size))| {
                        let (sa, turn) = ((first + n) % sas, (first + n) / sas);
                        Packet::new(buffer, ROOM, ROOM + *size, sa as u32, next + turn as u64)
                    })
                    .collect();
                let begun = Instant::now();
                self.sealing.seal(&mut batch);
                sealing += begun.elapsed();
                for packet in &mut batch {
                    assert_eq!(packet.outcome, Outcome::Done);
                    packet.outcome = Outcome::Pending;
                }
                let begun = Instant::now();
                self.opening.open(&mut batch, &self.windows);
                opening += begun.elapsed();
                assert!(batch.iter().all(|packet| packet.outcome == Outcome::Done));
                packets += batch.len() as u32;
            }
            self.next += self.buffers.len().div_ceil(sas) as u64;
        }
        let each = |time: Duration| time.as_nanos() as f64 / f64::from(packets);
        (each(sealing), each(opening))
    }
}
