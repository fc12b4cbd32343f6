//! `bench wire`: gateways on virtual Ethernet, end to end.
//!
//! Each kind has a lab of its own, two gateways between two hosts, all up at once and measured in turns. Rates are of
//! the first gateway, which seals: a generator offers one host's packets on one processor, the gateway works on the
//! other, and the router drops and counts what it sends. What the generator spends is the kernel's way into the gateway
//! (XDP program, copy), so that it is often what ends first: `cpu_ns_per_packet`, the gateway's own time with the
//! kernel's transmission in it, says more than the rate then.

mod load;
mod redirect;
mod subject;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use adit_tests::topology::{HOST_A, HOST_B, LAN};
use adit_tests::traffic::tcp_stream;
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::crypto::median;
use crate::report::{Report, Row, figure};
use load::{Generator, Probes, probe_socket};
use subject::{Kind, Subject, interface};

const KINDS: [Kind; 8] = [
    Kind::Bare,
    Kind::Adit("aes128gcm16"),
    Kind::Adit("aes256gcm16"),
    Kind::Adit("aes128-sha1"),
    Kind::Adit("aes128-sha256"),
    Kind::StrongSwan("aes128gcm16"),
    Kind::StrongSwan("aes128-sha1"),
    Kind::Kernel,
];
/// Octets of inner packets.
const SIZES: [usize; 3] = [64, 512, 1400];
/// Octets of the packets under which probes are sent, and of the longest that the router then lets through.
const UNDER: usize = 512;
const PROBE: usize = 300;
/// Processors of the generator and of the gateways.
const GENERATES: usize = 0;
const FORWARDS: usize = 1;

/// How much is measured.
struct Extent {
    kinds: &'static [Kind],
    rounds: usize,
    /// Of one rate.
    time: Duration,
    /// Of the probes.
    probing: Duration,
    /// Of a TCP stream.
    seconds: u32,
}

/// Takes all figures.
///
/// # Errors
/// A lab cannot be made, or gateways do not connect.
pub(crate) fn run(report: &mut Report, quick: bool) -> Result<()> {
    let millis = Duration::from_millis;
    let extent = if quick {
        Extent { kinds: &KINDS, rounds: 1, time: millis(150), probing: millis(500), seconds: 1 }
    } else {
        Extent { kinds: &KINDS, rounds: 5, time: millis(400), probing: millis(3000), seconds: 5 }
    };
    let [rates, times] = tables(&extent)?;
    report.table("wire", "Gateways on veth: packets of one flow, sealed by one gateway", rates);
    report.table("wire", "The same from host to host: TCP, and microseconds at half the load", times);
    Ok(())
}

fn tables(extent: &Extent) -> Result<[Vec<Row>; 2]> {
    let mut subjects = Vec::new();
    for kind in extent.kinds {
        let subject = Subject::start(*kind).with_context(|| format!("{kind:?}"))?;
        subject.pin(FORWARDS)?;
        subjects.push(subject);
    }
    let mut rates = Vec::new();
    let mut half = vec![0.0; subjects.len()];
    for size in SIZES {
        let figures = sizes_rates(&subjects, size, extent)?;
        if size == UNDER {
            half = figures.iter().map(|rate| rate.peak / 2.0).collect();
        }
        rates.extend(rate_rows(&subjects, size, &figures));
    }
    let mut times = Vec::new();
    for (subject, half) in subjects.iter().zip(half) {
        times.push(times_row(subject, half, extent).with_context(|| format!("{:?}", subject.kind))?);
    }
    subjects.into_iter().try_for_each(Subject::end)?;
    Ok([rates, times])
}

/// What a gateway can do, in packets a second.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// What was offered at most.
    offered: f64,
    /// What came out of that.
    delivered: f64,
    /// The most that came out of any offer.
    peak: f64,
    /// Nanoseconds of the gateway's programs for each packet, at the peak.
    cpu: Option<f64>,
    /// What came out at twice the peak, or of the most that could be offered; and how much that was.
    overload: f64,
    overload_offered: f64,
}

/// The medians of all subjects, taken in turns.
fn sizes_rates(subjects: &[Subject], size: usize, extent: &Extent) -> Result<Vec<Rate>> {
    let mut rounds = vec![Vec::new(); subjects.len()];
    for _ in 0..extent.rounds {
        for (subject, rounds) in subjects.iter().zip(&mut rounds) {
            subject.drop_at_router(Some(0))?;
            let rate = rate(subject, size, extent.time).with_context(|| format!("{:?}", subject.kind));
            subject.drop_at_router(None)?;
            rounds.push(rate?);
        }
    }
    Ok(rounds.iter().map(|rounds| middle(rounds)).collect())
}

fn middle(rounds: &[Rate]) -> Rate {
    let of = |field: fn(&Rate) -> f64| median(rounds.iter().map(field).collect());
    let cpu: Vec<f64> = rounds.iter().filter_map(|rate| rate.cpu).collect();
    Rate {
        offered: of(|rate| rate.offered),
        delivered: of(|rate| rate.delivered),
        peak: of(|rate| rate.peak),
        cpu: (!cpu.is_empty()).then(|| median(cpu)),
        overload: of(|rate| rate.overload),
        overload_offered: of(|rate| rate.overload_offered),
    }
}

fn rate(subject: &Subject, size: usize, time: Duration) -> Result<Rate> {
    let most = offer(subject, size, None, time)?;
    let mut best = most;
    // Who is asked for more than it can do may do less: somewhat more than came out is about what it can.
    for more in [1.0, 1.25] {
        let asked = most.delivered * more;
        if asked < most.offered {
            let came = offer(subject, size, Some(asked), time)?;
            if came.delivered > best.delivered {
                best = came;
            }
        }
    }
    let twice = 2.0 * best.delivered;
    let overload = if twice < most.offered { offer(subject, size, Some(twice), time)? } else { most };
    if overload.delivered > best.delivered {
        best = overload;
    }
    Ok(Rate {
        offered: most.offered,
        delivered: most.delivered,
        peak: best.delivered,
        cpu: best.cpu,
        overload: overload.delivered,
        overload_offered: overload.offered,
    })
}

/// What came of an offer, in packets a second, and nanoseconds of the gateway's programs for each.
#[derive(Clone, Copy, Debug)]
struct Came {
    offered: f64,
    delivered: f64,
    cpu: Option<f64>,
}

fn offer(subject: &Subject, size: usize, rate: Option<f64>, time: Duration) -> Result<Came> {
    let mut generator = generator(subject, size)?;
    let (before, cpu_before) = (subject.sent()?, subject.cpu_time()?);
    let offered = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin_to(GENERATES);
            generator.run(rate, time, &AtomicBool::new(false))
        });
        thread.join().map_err(|_| anyhow!("the generator's thread panicked"))
    })?;
    // What is on its way is still delivered.
    thread::sleep(Duration::from_millis(10));
    let (after, cpu_after) = (subject.sent()?, subject.cpu_time()?);
    let (seconds, delivered) = (offered.time.as_secs_f64(), (after - before) as f64);
    let cpu = cpu_before.zip(cpu_after).map(|(before, after)| (after - before).as_nanos() as f64 / delivered);
    Ok(Came { offered: offered.packets as f64 / seconds, delivered: delivered / seconds, cpu })
}

/// UDP from host to host, `size` octets of IP.
fn generator(subject: &Subject, size: usize) -> Result<Generator> {
    let lab = &subject.lab;
    let ((ifindex, source), (_, destination)) =
        (interface(&lab.host_a, "eth0")?, interface(&lab.gateway_a, LAN)?);
    let mut frame = [&destination[..], &source, &[8, 0]].concat();
    let start = frame.len();
    let [high, low] = (size as u16).to_be_bytes();
    frame.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(HOST_A.octets());
    frame.extend(HOST_B.octets());
    let sum: u32 = frame[start..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[start + 10..start + 12].copy_from_slice(&check.to_be_bytes());
    // To the port that discards (RFC 863).
    let [high, low] = (size as u16 - 20).to_be_bytes();
    frame.extend([0x30, 0x39, 0, 9, high, low, 0, 0]);
    frame.resize(start + size, 0);
    lab.host_a.inside(|| Generator::open(ifindex, frame).context("a packet socket"))
}

fn rate_rows(subjects: &[Subject], size: usize, rates: &[Rate]) -> Vec<Row> {
    let mpps = |rate: f64| figure(rate / 1e6);
    subjects
        .iter()
        .zip(rates)
        .map(|(subject, rate)| {
            let against = |kind: Kind| {
                let at = subjects.iter().position(|other| other.kind == kind)?;
                (kind != subject.kind).then(|| (kind.name().to_owned(), figure(rate.peak / rates[at].peak)))
            };
            let mut ratios = serde_json::Map::new();
            if let Kind::Adit(suite) = subject.kind {
                ratios.extend(
                    [Kind::Bare, Kind::StrongSwan(suite), Kind::Kernel].into_iter().filter_map(against),
                );
            }
            vec![
                ("impl", Value::from(subject.kind.name())),
                ("suite", subject.kind.suite().map_or(Value::Null, Value::from)),
                ("size", size.into()),
                ("offered_mpps", mpps(rate.offered)),
                ("mpps", mpps(rate.peak)),
                ("cpu_ns_per_packet", rate.cpu.map_or(Value::Null, figure)),
                ("overload_mpps", mpps(rate.overload_offered)),
                ("of_peak_still_delivered", figure(rate.overload / rate.peak)),
                ("ratios", json!(ratios)),
            ]
        })
        .collect()
}

/// TCP, and how long probes take while half the load goes on.
fn times_row(subject: &Subject, half: f64, extent: &Extent) -> Result<Row> {
    let lab = &subject.lab;
    let mbit = tcp_stream(&lab.host_a, &lab.host_b, HOST_B, extent.seconds)?;
    let probes = Probes { from: lab.host_a.inside(probe_socket)?, to: lab.host_b.inside(probe_socket)? };
    let mut generator = generator(subject, UNDER)?;
    subject.drop_at_router(Some(PROBE))?;
    let stop = AtomicBool::new(false);
    let probed = thread::scope(|scope| {
        scope.spawn(|| {
            pin_to(GENERATES);
            generator.run(Some(half), 2 * extent.probing + Duration::from_secs(5), &stop)
        });
        let probed = probes.run(HOST_B, extent.probing);
        stop.store(true, Relaxed);
        probed
    });
    subject.drop_at_router(None)?;
    let (times, sent) = probed?;
    let at =
        |share: f64| times.get((times.len() as f64 * share) as usize).map_or(Value::Null, |us| figure(*us));
    Ok(vec![
        ("impl", Value::from(subject.kind.name())),
        ("suite", subject.kind.suite().map_or(Value::Null, Value::from)),
        ("tcp_gbit", figure(mbit / 1e3)),
        ("load_mpps", figure(half / 1e6)),
        ("us_50", at(0.5)),
        ("us_90", at(0.9)),
        ("us_99", at(0.99)),
        ("us_99_9", at(0.999)),
        ("lost", (sent - times.len()).into()),
        ("of", sent.into()),
    ])
}

/// Binds the calling thread to a processor, if there is that one.
fn pin_to(cpu: usize) {
    // SAFETY: all zeros are the empty set, to which a processor within its size is added; the set is read only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_program_of_ours_is_measured() {
        // SAFETY: no pointer is passed.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("skipped: namespaces need root");
            return;
        }
        let millis = Duration::from_millis;
        let kinds = &[Kind::Bare, Kind::Kernel];
        let extent = Extent { kinds, rounds: 1, time: millis(50), probing: millis(50), seconds: 1 };
        let [rates, times] = tables(&extent).unwrap();
        assert_eq!((rates.len(), times.len()), (kinds.len() * SIZES.len(), kinds.len()));
        let figure =
            |row: &Row, name| row.iter().find(|(column, _)| *column == name).and_then(|(_, v)| v.as_f64());
        assert!(rates.iter().all(|row| figure(row, "of_peak_still_delivered") > Some(0.0)));
        assert!(times.iter().all(|row| figure(row, "tcp_gbit") > Some(0.0)));
    }
}
