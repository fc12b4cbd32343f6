//! `bench gateway`: what a packet costs the whole worker of the data plane, in memory.
//!
//! The rings of its AF_XDP sockets lie in memory and the bench is at their other end; all else is the worker as it runs
//! in a gateway: rings and metadata, look-up of the SA, decoding, MTU, hop limit, sequence numbers, the engine, the
//! replay check, selectors, next hops, Ethernet headers, counters, and what it does once a round, system calls on the
//! TUN device included. The XDP program is not in it, nor is what the kernel does to a frame. Only the worker's time
//! counts: frames are written before the clock runs, by a copy as the kernel's.

mod tunnels;

use std::time::Duration;

use adit_esp::{Backend, Cipher};
use adit_maps::user::Directory;
use anyhow::Result;
use serde_json::{Value, json};

use crate::crypto::{Contender, IMIX, Load, ROUNDS, SUITES, Suite, median, ours, size_in_words};
use crate::isolated::isolated;
use crate::report::{Report, Row, figure};
pub(crate) use tunnels::{Tunnels, Way};

/// How many tunnels there are; every packet belongs to another than the one before.
const COUNTS: [usize; 4] = [1, 256, 2048, 10_000];
/// What others have measured of AES-128-GCM at 64 and 1400 octets, on a core of this kind: not measured here, and
/// DPDK's example and VPP's node path each with a NIC's driver or without, as their machine had it.
const RECORDED: [(&str, [f64; 2]); 2] =
    [("ipsec-secgw (recorded)", [100.0, 240.0]), ("vpp (recorded)", [71.0, 147.0])];

/// Takes all figures.
///
/// # Errors
/// The XDP program is not built, the kernel gives us no namespaces, or the gateway does not do its work.
pub(crate) fn run(report: &mut Report, quick: bool) -> Result<()> {
    let rows = isolated(move |dir| rows(dir, quick))?;
    let title = "The whole worker in memory, one core, IPv4 in IPv4: nanoseconds a packet, median";
    report.table("gateway", title, rows);
    Ok(())
}

fn rows(dir: &Directory, quick: bool) -> Result<Vec<Row>> {
    let time = Duration::from_millis(if quick { 2 } else { 20 });
    let mut rows = Vec::new();
    for suite in SUITES {
        let is_first = suite.cipher == Cipher::Aes128Gcm16;
        let counts = if is_first { &COUNTS[..] } else { &COUNTS[..1] };
        let gateways = counts.iter().map(|count| Tunnels::start(dir, suite, *count, Backend::detect()));
        let mut gateways = gateways.collect::<Result<Vec<_>>>()?;
        for sizes in [&[64][..], &[256], &[1400], &IMIX] {
            rows.extend(both_ways(suite, sizes, &mut gateways, time)?);
        }
    }
    Ok(rows)
}

/// The gateways in turns, and the engine alone beside them.
fn both_ways(suite: Suite, sizes: &[usize], gateways: &mut [Tunnels], time: Duration) -> Result<Vec<Row>> {
    let load = Load { suite, sizes, sas: 1, batch: 256 };
    let mut engine = ours::Bench::new(Backend::detect(), load);
    let mut alone = [Vec::new(), Vec::new()];
    let mut figures = vec![[Vec::new(), Vec::new()]; gateways.len()];
    for _ in 0..ROUNDS {
        let (seal, open) = engine.round(time);
        alone[0].push(seal);
        alone[1].push(open);
        for (gateway, ways) in gateways.iter_mut().zip(&mut figures) {
            for (way, time) in ways.iter_mut().zip(gateway.round(sizes, time)?) {
                way.push(time);
            }
        }
    }
    let alone = alone.map(median);
    let medians: Vec<[f64; 2]> = figures.into_iter().map(|ways| ways.map(median)).collect();
    let mut rows = Vec::new();
    for (way, op) in [Way::Seal, Way::Open].into_iter().enumerate() {
        for (gateway, times) in gateways.iter().zip(&medians) {
            let at = [64, 1400].iter().position(|size| sizes == [*size]);
            let recorded = at.filter(|_| suite.cipher == Cipher::Aes128Gcm16 && gateway.count() == 1);
            let ratios: serde_json::Map<_, _> = recorded
                .into_iter()
                .flat_map(|at| {
                    RECORDED.map(|(name, theirs)| (name.to_owned(), figure(theirs[at] / times[way])))
                })
                .collect();
            rows.push(vec![
                ("suite", Value::from(suite.name)),
                ("op", op.name().into()),
                ("size", size_in_words(sizes)),
                ("sas", gateway.count().into()),
                ("impl", format!("adit {}", Backend::detect()).into()),
                ("ns_per_packet", figure(times[way])),
                ("mpps", figure(1e3 / times[way])),
                ("engine_alone_ns", figure(alone[way])),
                ("times_of_one_sa", figure(times[way] / medians[0][way])),
                ("ratios", json!(ratios)),
            ]);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_in_memory_seals_and_opens_what_its_peers_do() {
        // SAFETY: no pointer is passed.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("skipped: maps and namespaces need root");
            return;
        }
        isolated(|dir| {
            for suite in [SUITES[0], SUITES[5]] {
                let start = |count| Tunnels::start(dir, suite, count, Backend::detect());
                let mut gateways = vec![start(1)?, start(300)?];
                let rows = both_ways(suite, &IMIX, &mut gateways, Duration::from_micros(1))?;
                assert_eq!(rows.len(), 4);
            }
            Ok(())
        })
        .unwrap();
    }
}
