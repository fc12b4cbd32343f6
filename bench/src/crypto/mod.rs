//! `bench crypto`: what sealing and opening a packet costs, for every backend of this processor, beside libraries that
//! others use.
//!
//! Adit's figure is the engine's: outer headers, padding, sequence numbers, the replay check and what finds the SA are
//! in it. Of the libraries only the cryptography is measured, over the same octets, in place, with expanded keys: what they
//! are given is what Adit sealed, and that they open it and seal it to the same again is looked at before the clock runs.

pub(crate) mod ours;
#[cfg(feature = "peers")]
mod peers;

use std::time::Duration;

use adit_esp::{AUTH_KEY_LEN, Auth, Backend, Cipher, KEY_LEN};
use serde_json::{Value, json};

use crate::report::{Report, Row, figure};

/// Rounds of which the median counts; each does a part of the work of every contender in turn.
pub(crate) const ROUNDS: usize = 15;
/// IMIX: seven packets of 64 bytes, four of 576, one of 1400.
pub(crate) const IMIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 64, 576, 64, 1400, 64, 576];

/// What every SA has for keys; its number goes over the first eight octets of the cipher's.
pub(crate) const KEY: [u8; KEY_LEN] = [1; KEY_LEN];
pub(crate) const SALT: [u8; 4] = [2; 4];
pub(crate) const AUTH_KEY: [u8; AUTH_KEY_LEN] = [3; AUTH_KEY_LEN];

/// A suite by the words of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) cipher: Cipher,
    pub(crate) auth: Auth,
}

const fn suite(name: &'static str, cipher: Cipher, auth: Auth) -> Suite {
    Suite { name, cipher, auth }
}

pub(crate) const SUITES: [Suite; 8] = [
    suite("aes128gcm16", Cipher::Aes128Gcm16, Auth::None),
    suite("aes192gcm16", Cipher::Aes192Gcm16, Auth::None),
    suite("aes256gcm16", Cipher::Aes256Gcm16, Auth::None),
    suite("chacha20poly1305", Cipher::ChaCha20Poly1305, Auth::None),
    suite("aes128-sha1", Cipher::Aes128Cbc, Auth::HmacSha1_96),
    suite("aes128-sha256", Cipher::Aes128Cbc, Auth::HmacSha256_128),
    suite("aes256-sha256", Cipher::Aes256Cbc, Auth::HmacSha256_128),
    suite("aes256-sha512", Cipher::Aes256Cbc, Auth::HmacSha512_256),
];

/// What a contender is given to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) suite: Suite,
    /// Octets of the inner packets, in turn.
    pub(crate) sizes: &'a [usize],
    pub(crate) sas: usize,
    pub(crate) batch: usize,
}

/// Who seals and opens packets.
pub(crate) trait Contender {
    /// Whose figures these are.
    fn name(&self) -> String;

    /// Nanoseconds that a packet takes to be sealed and to be opened, measured for at least `least`.
    fn round(&mut self, least: Duration) -> (f64, f64);
}

/// Takes all figures.
pub(crate) fn run(report: &mut Report, quick: bool) {
    let sizes = [vec![64], vec![128], vec![256], vec![512], vec![1024], vec![1400], IMIX.to_vec()];
    let time = Duration::from_millis(if quick { 1 } else { 8 });
    let mut rows = Vec::new();
    for suite in SUITES {
        for sizes in &sizes {
            rows.extend(both_ways(Load { suite, sizes, sas: 1, batch: 256 }, time));
        }
        if matches!(suite.cipher, Cipher::Aes128Gcm16 | Cipher::Aes128Cbc) {
            for (sas, batch) in [(256, 256), (2048, 256), (1, 1), (1, 8), (1, 32)] {
                for sizes in [&[64], &[1400]] {
                    rows.extend(both_ways(Load { suite, sizes, sas, batch }, time));
                }
            }
        }
    }
    report.table("crypto", "ESP in memory, one core, IPv4 in IPv4: nanoseconds a packet, median", rows);

    let best = Backend::detect();
    let narrower =
        Backend::ALL.into_iter().filter(|b| b.is_available() && ![best, Backend::Portable].contains(b));
    let narrower: Vec<Backend> = narrower.collect();
    let mut rows = Vec::new();
    for suite in SUITES.into_iter().filter(|suite| BY_NARROWER.contains(&suite.name)) {
        for sizes in [vec![64], vec![1400], IMIX.to_vec()] {
            for backend in &narrower {
                rows.extend(measured(
                    Load { suite, sizes: &sizes, sas: 1, batch: 256 },
                    time,
                    &[*backend, best],
                ));
            }
        }
    }
    report.table("backends", "The same on narrower backends: what a processor with less would use", rows);
}

/// Suites that narrower backends have kernels for.
const BY_NARROWER: [&str; 4] = ["aes128gcm16", "aes256gcm16", "aes128-sha1", "aes128-sha256"];

/// Everybody who can do `load` here, Adit's backends first; who can be held to the registers of the first of these is.
fn contenders(load: Load<'_>, backends: &[Backend]) -> Vec<Box<dyn Contender>> {
    #[allow(unused_mut, reason = "the libraries of others are a feature")]
    let mut all: Vec<Box<dyn Contender>> = backends
        .iter()
        .map(|backend| Box::new(ours::Bench::new(*backend, load)) as Box<dyn Contender>)
        .collect();
    #[cfg(feature = "peers")]
    all.extend(peers::contenders(load, backends[0]));
    all
}

/// Adit's best backend, beside the portable one and everybody else.
fn both_ways(load: Load<'_>, time: Duration) -> Vec<Row> {
    match Backend::detect() {
        Backend::Portable => measured(load, time, &[Backend::Portable]),
        best => measured(load, time, &[best, Backend::Portable]),
    }
}

/// A row for either way, of the first of Adit's backends, beside the others and everybody else.
fn measured(load: Load<'_>, time: Duration, backends: &[Backend]) -> Vec<Row> {
    let mut contenders = contenders(load, backends);
    let mut figures = vec![[Vec::new(), Vec::new()]; contenders.len()];
    for _ in 0..ROUNDS {
        for (contender, [seal, open]) in contenders.iter_mut().zip(&mut figures) {
            let (sealed, opened) = contender.round(time);
            seal.push(sealed);
            open.push(opened);
        }
    }
    let medians: Vec<[f64; 2]> = figures.into_iter().map(|ways| ways.map(median)).collect();
    let size = size_in_words(load.sizes);
    let mut rows = Vec::new();
    for (way, op) in ["seal", "open"].into_iter().enumerate() {
        let others = contenders.iter().zip(&medians).skip(1);
        let ratios: serde_json::Map<_, _> = others
            .map(|(contender, times)| (contender.name(), figure(times[way] / medians[0][way])))
            .collect();
        rows.push(vec![
            ("suite", Value::from(load.suite.name)),
            ("op", op.into()),
            ("size", size.clone()),
            ("sas", load.sas.into()),
            ("batch", load.batch.into()),
            ("impl", contenders[0].name().into()),
            ("ns_per_packet", figure(medians[0][way])),
            ("ratios", json!(ratios)),
        ]);
    }
    rows
}

/// One size, or that they are mixed.
pub(crate) fn size_in_words(sizes: &[usize]) -> Value {
    if sizes.len() > 1 { Value::from("imix") } else { Value::from(sizes[0]) }
}

/// The middle one, or of two the greater.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
