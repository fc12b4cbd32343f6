//! A flood of first messages from hundreds of invented addresses, and a peer that means it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use adit_tests::namespace::{Namespace, link, wait_for};
use adit_tests::run::Run;
use anyhow::{Context, Result};

use super::gateways::{ADDRESSES, Gateway, PATIENCE, pair, usage};
use super::pair::first_message;
use crate::report::{Report, Row, figure};

/// Addresses the flood comes from, each with a socket of its own.
const SOURCES: u32 = 900;

/// How long a peer waits for its tunnel, without a flood and with floods of growing strength.
pub(crate) fn flood(report: &mut Report, quick: bool) -> Result<()> {
    let rates: &[u64] = if quick { &[0, 5_000] } else { &[0, 1_000, 10_000, 50_000] };
    let mut rows = Vec::new();
    for &rate in rates {
        println!("a peer connects beside {rate} first messages a second");
        rows.push(beside(rate)?);
    }
    report.table("ike", "A peer connects beside a flood of first messages from 900 addresses", rows);
    Ok(())
}

fn beside(rate: u64) -> Result<Row> {
    let run = Run::begin()?;
    let namespaces = pair(&run)?;
    let flooder = Namespace::create(&run, "flood")?;
    link((&flooder, "out", "203.0.113.1/24"), (&namespaces[1], "in", "203.0.113.2/24"))?;
    // Every address of 10.99.0.0/16 is the flooder's own.
    flooder.ip(&["route", "add", "local", "10.99.0.0/16", "dev", "lo"])?;
    flooder.ip(&["route", "add", "default", "via", "203.0.113.2"])?;
    namespaces[1].ip(&["route", "add", "10.99.0.0/16", "via", "203.0.113.1"])?;
    let mut responder = Gateway::start(&run, &namespaces[1], 1, 0..1, false)?;
    responder.wait_started()?;
    let mut initiator = Gateway::start(&run, &namespaces[0], 0, 0..1, true)?;
    initiator.wait_started()?;
    let before = usage(responder.process.pid())?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (waited, flooded) = thread::scope(|scope| -> Result<(Duration, Duration)> {
        let flood = scope.spawn(|| flooder.inside(|| send(rate, &stop, &sent)));
        let begun = Instant::now();
        // Long enough for the gateway to be full of half-open SAs.
        thread::sleep(Duration::from_secs(2));
        let connecting = Instant::now();
        let up = initiator.reload(0..1).and_then(|()| {
            wait_for("the peer's tunnel", PATIENCE, || Ok(initiator.up()? >= 1.0))
                .with_context(|| format!("the responder's log ends:\n{}", responder.process.log_tail(10)))
        });
        let waited = connecting.elapsed();
        thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        let flooded = begun.elapsed();
        flood.join().unwrap_or_else(|_| anyhow::bail!("the flood panicked"))?;
        up.map(|()| (waited, flooded))
    })?;
    let after = usage(responder.process.pid())?;
    drop((initiator, responder));
    run.end()?;
    let seconds = flooded.as_secs_f64();
    Ok(vec![
        ("messages_per_second", figure(sent.load(Ordering::Relaxed) as f64 / seconds)),
        ("seconds_until_connected", figure(waited.as_secs_f64())),
        ("responder_cores_busy", figure((after.cpu - before.cpu).as_secs_f64() / seconds)),
        ("responder_grew_kib", figure(after.resident.saturating_sub(before.resident) as f64 / 1024.0)),
    ])
}

/// Sends first messages, each from the next address and with an SPI of its own, until told to stop.
fn send(rate: u64, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let template = first_message();
    let to: SocketAddr = format!("{}:500", ADDRESSES[1]).parse()?;
    let sockets: Vec<UdpSocket> = (0..SOURCES)
        .map(|n| UdpSocket::bind((Ipv4Addr::from(0x0a63_0101 + n), 500)))
        .collect::<Result<_, _>>()
        .context("the flood has no addresses")?;
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        let mut count = sent.load(Ordering::Relaxed);
        while count < due {
            let mut message = template.clone();
            message[..8].copy_from_slice(&(count + 1).to_be_bytes());
            // A full queue drops it, as the network would.
            let _ = sockets[count as usize % sockets.len()].send_to(&message, to);
            count += 1;
        }
        sent.store(count, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
