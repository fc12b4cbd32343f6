//! The main job from end to end: two sites, a tunnel, traffic through it, and proof from the wire.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::adit::Adit;
use crate::capture::{Capture, Tally};
use crate::metrics::Metrics;
use crate::run::Run;
use crate::site::Site;
use crate::topology::{HOST_B, TO_A, TO_B, Topology};
use crate::traffic::{ping, tcp_stream};

/// How long the tunnel may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Seconds of the TCP stream.
const STREAM: u32 = 5;

/// What the demo found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Milliseconds of the negotiation, from the first IKE_SA_INIT request to the Child SA.
    pub handshake_ms: f64,
    /// Mean round trip of a ping from host A to host B, in milliseconds.
    pub ping_ms: f64,
    /// Rate of a TCP stream from host A to host B, in Mbit/s.
    pub tcp_mbit: f64,
    /// What crossed the router on gateway A's side.
    pub side_a: Tally,
    /// What crossed the router on gateway B's side.
    pub side_b: Tally,
    /// What `/metrics` of gateway A and gateway B said at the end.
    pub metrics: [Metrics; 2],
    /// Names of the tunnel on both gateways.
    pub tunnels: [String; 2],
}

impl Report {
    /// One object, as the machine-readable results of the project are laid down.
    pub fn json(&self) -> Value {
        let side = |metrics: &Metrics, tunnel: &str| -> Value {
            let own = metrics
                .samples()
                .iter()
                .filter(|sample| sample.labels.get("tunnel").is_some_and(|t| t == tunnel));
            let fields: Map<String, Value> = own
                .map(|sample| {
                    let others = sample.labels.iter().filter(|(key, _)| *key != "tunnel");
                    let labels: Vec<String> = others.map(|(key, value)| format!("{key}={value}")).collect();
                    let name = match labels.is_empty() {
                        true => sample.name.clone(),
                        false => format!("{}{{{}}}", sample.name, labels.join(",")),
                    };
                    (name, number(sample.value))
                })
                .collect();
            Value::Object(fields)
        };
        json!({
            "tunnel": "connected",
            "handshake_ms": round(self.handshake_ms, 3),
            "ping_ms": round(self.ping_ms, 3),
            "tcp_mbit": round(self.tcp_mbit, 1),
            "plaintext_packets_on_wan": self.side_a.plaintext() + self.side_b.plaintext(),
            "esp_packets_on_wan": self.side_a.esp(),
            "metrics": {
                "gateway_a": side(&self.metrics[0], &self.tunnels[0]),
                "gateway_b": side(&self.metrics[1], &self.tunnels[1]),
            },
        })
    }

    /// A short table for people.
    pub fn table(&self) -> String {
        let mut rows = vec![
            ("tunnel".to_owned(), "connected".to_owned()),
            ("handshake".to_owned(), format!("{:.1} ms", self.handshake_ms)),
            ("ping, host A to host B".to_owned(), format!("{:.3} ms", self.ping_ms)),
            ("TCP, host A to host B".to_owned(), format!("{:.0} Mbit/s", self.tcp_mbit)),
            ("on the router, side A".to_owned(), self.side_a.to_string()),
            ("on the router, side B".to_owned(), self.side_b.to_string()),
        ];
        for (gateway, (metrics, tunnel)) in ["A", "B"].into_iter().zip(self.metrics.iter().zip(&self.tunnels))
        {
            for sample in metrics.samples() {
                let about = sample.labels.get("tunnel").is_some_and(|own| own == tunnel);
                let shown = sample.name.ends_with("_total") || sample.name.ends_with("_health");
                if about && shown && sample.value != 0.0 {
                    let others = sample.labels.iter().filter(|(key, _)| *key != "tunnel");
                    let labels: String = others.map(|(key, value)| format!(" {key}={value}")).collect();
                    rows.push((
                        format!("gateway {gateway}: {}{labels}", sample.name),
                        format!("{}", sample.value),
                    ));
                }
            }
        }
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    }
}

/// Runs it, telling each step to `say`, and removes everything again.
///
/// # Errors
/// Any step failed, with the gateways' words; something crossed the router in clear; something was left behind.
pub fn run(mut say: impl FnMut(&str)) -> Result<Report> {
    say("making two sites: host A - gateway A - router - gateway B - host B");
    let topology = Topology::two_sites(Run::begin()?)?;
    let report = on(&topology, &mut say);
    let ended = topology.end();
    let report = report?;
    ended?;
    Ok(report)
}

/// Runs it on a topology of [`Topology::two_sites`].
///
/// # Errors
/// As [`run`].
pub fn on(topology: &Topology, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let side_a = Capture::start(&topology.router, TO_A)?;
    let side_b = Capture::start(&topology.router, TO_B)?;
    let (here, there) = (Site::a(topology), Site::b(topology));
    say("starting adit on gateway B, which waits, and on gateway A, which begins");
    let mut b = Adit::start(&topology.gateway_b, &there)?;
    let mut a = Adit::start(&topology.gateway_a, &here)?;
    a.wait_connected(PATIENCE)?;
    b.wait_connected(PATIENCE)?;
    let handshake_ms = a.handshake_ms()?;
    say(&format!("connected in {handshake_ms:.1} ms; pinging host B from host A"));
    let figures = (|| {
        let round_trip = ping(&topology.host_a, HOST_B, 10, 56)?.expect_all()?;
        let ping_ms = round_trip.average_ms.context("ping tells no round trip")?;
        say(&format!("a TCP stream from host A to host B for {STREAM} s"));
        let tcp_mbit = tcp_stream(&topology.host_a, &topology.host_b, HOST_B, STREAM)?;
        Ok::<_, anyhow::Error>((ping_ms, tcp_mbit))
    })();
    let (ping_ms, tcp_mbit) = figures.with_context(|| {
        format!("gateway A's log ends:\n{}  gateway B's log ends:\n{}", a.log_tail(15), b.log_tail(15))
    })?;
    say("scraping /metrics of both gateways, and reading the capture");
    let metrics = [a.metrics()?, b.metrics()?];
    let tunnels = [a.tunnel().to_owned(), b.tunnel().to_owned()];
    let (side_a, side_b) = (side_a.finish()?, side_b.finish()?);
    if side_a.missed + side_b.missed > 0 {
        say(&format!("tcpdump was too slow for {} packets", side_a.missed + side_b.missed));
    }
    let report = Report {
        handshake_ms,
        ping_ms,
        tcp_mbit,
        side_a: side_a.tally()?,
        side_b: side_b.tally()?,
        metrics,
        tunnels,
    };
    report.side_a.expect_no_plaintext("the router on gateway A's side")?;
    report.side_b.expect_no_plaintext("the router on gateway B's side")?;
    if report.side_a.esp() == 0 {
        bail!("no ESP crossed the router; there was {}", report.side_a);
    }
    a.process().stop().context("adit on gateway A does not stop")?;
    b.process().stop().context("adit on gateway B does not stop")?;
    Ok(report)
}

/// Counters as integers, everything else as it is.
fn number(value: f64) -> Value {
    // Every integer below 2^53 is a float without loss.
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!(value) }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
