//! A gateway of a soak: its two processes, which are killed and started again, and what it counts.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::sites;
use crate::adit::Adit;
use crate::metrics::Metrics;
use crate::namespace::{Namespace, Process, wait_for};
use crate::site::Site;
use crate::topology::{LAN, WAN};

/// How long a process may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Verdicts of packets that went to a worker.
const GIVEN: [&str; 3] = ["seal", "open", "hold"];
/// Verdicts of packets that were dropped.
const DROPPED: [&str; 8] = [
    "no_sa",
    "no_worker",
    "unknown_spi",
    "discard",
    "malformed",
    "no_metadata",
    "clear_on_wan",
    "foreign_mac",
];

/// `adit control` and `adit dataplane` in a namespace.
pub(super) struct Gateway {
    pub(super) name: &'static str,
    control: Adit,
    data_plane: Process,
}

/// What a gateway has counted since its maps were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Packets that went to a worker, from the LAN and from the WAN.
    pub(super) given: [u64; 2],
    /// Packets that the XDP program dropped, by verdict, from the LAN and from the WAN.
    pub(super) verdicts: [Vec<(&'static str, u64)>; 2],
    /// Packets that a worker dropped, by cause.
    pub(super) drops: Vec<(String, u64)>,
    /// Packets of no SA that a worker dropped.
    pub(super) of_no_sa: u64,
    /// Fragments beyond the first of a packet.
    pub(super) cut: u64,
    /// Packets that workers were done with.
    pub(super) handled: u64,
    /// Packets that found a ring full.
    pub(super) ring_full: u64,
    /// Packets that a data plane had when it ended.
    pub(super) left_behind: u64,
    /// Packets of each worker, since the data plane has last begun.
    pub(super) by_worker: Vec<u64>,
    /// SAs that others have taken the place of, since control has last begun.
    pub(super) rekeys: u64,
}

impl Counters {
    /// Packets that the XDP program dropped, from the LAN (0) or from the WAN (1).
    pub(super) fn dropped_by_xdp(&self, port: usize) -> u64 {
        self.verdicts[port].iter().map(|(_, n)| n).sum()
    }

    /// Packets that workers dropped and counted.
    pub(super) fn dropped_by_workers(&self) -> u64 {
        self.of_no_sa + self.drops.iter().map(|(_, n)| n).sum::<u64>()
    }
}

impl Gateway {
    /// Starts both processes.
    pub(super) fn start(namespace: &Namespace, site: &Site, name: &'static str) -> Result<Gateway> {
        let control = Adit::start_control(namespace, &sites::name(0), |dir| sites::text(site, dir))?;
        let data_plane = control.data_plane(&[])?;
        Ok(Gateway { name, control, data_plane })
    }

    /// Ends the data plane by a signal, and starts another a moment later.
    pub(super) fn replace_data_plane(&mut self, signal: i32, pause: Duration) -> Result<()> {
        self.data_plane.signal(signal).with_context(|| self.words())?;
        self.data_plane.wait(PATIENCE)?;
        thread::sleep(pause);
        self.data_plane = self.control.data_plane(&[])?;
        Ok(())
    }

    /// Ends control by a signal, and starts another a moment later.
    pub(super) fn replace_control(&mut self, signal: i32, pause: Duration) -> Result<()> {
        self.control.process().signal(signal).with_context(|| self.words())?;
        self.control.process().wait(PATIENCE)?;
        thread::sleep(pause);
        self.control.start_again()
    }

    /// Asks for another IKE SA of a tunnel, or for another Child SA. Where control has yet to begin, or the tunnel is not
    /// up, nothing comes of it.
    pub(super) fn rekey(&self, tunnel: u8, which: &str) -> Result<()> {
        self.control.command(&["tunnel", "rekey", &sites::name(tunnel), which]).map(|_| ())
    }

    /// Both processes run.
    ///
    /// # Errors
    /// One has ended by itself: with its log.
    pub(super) fn lives(&mut self) -> Result<()> {
        let control = self.control.process().ended();
        for (what, ended) in [("control", control), ("dataplane", self.data_plane.ended())] {
            if let Some(status) = ended {
                bail!("adit {what} of gateway {} ended by itself ({status})\n{}", self.name, self.words());
            }
        }
        Ok(())
    }

    /// Waits until every tunnel is connected, the data plane's program stands, and there are as many workers as there should be.
    pub(super) fn wait_connected(&mut self, limit: Duration) -> Result<()> {
        self.control.wait_started()?;
        let mut up = 0.0;
        let waited = wait_for("every tunnel to be connected", limit, || {
            self.lives()?;
            let metrics = self.control.metrics();
            up = metrics.ok().and_then(|metrics| metrics.get("adit_tunnel_health", &[])).unwrap_or_default();
            let has_all = |counters: Counters| counters.by_worker.len() == sites::workers();
            Ok(up == f64::from(sites::TUNNELS) && self.counters().is_ok_and(has_all))
        });
        waited.with_context(|| format!("{up} of {} are\n{}", sites::TUNNELS, self.words()))
    }

    /// What it has counted.
    ///
    /// # Errors
    /// It does not answer, or a counter is not there.
    pub(super) fn counters(&self) -> Result<Counters> {
        let metrics = self.control.metrics()?;
        let verdict = |interface, verdict| {
            let labels = [("interface", interface), ("verdict", verdict)];
            count(&metrics, "adit_port_verdicts_total", &labels)
        };
        let event = |event| count(&metrics, "adit_data_plane_packets_total", &[("event", event)]);
        let mut counters = Counters {
            of_no_sa: event("no_sa")? + event("bad_metadata")?,
            cut: event("cut")?,
            handled: event("handled")?,
            ring_full: event("ring_full")?,
            left_behind: event("left_behind")?,
            rekeys: count(&metrics, "adit_tunnel_rekeys_total", &[])?,
            ..Counters::default()
        };
        for (port, interface) in [LAN, WAN].into_iter().enumerate() {
            for given in GIVEN {
                counters.given[port] += verdict(interface, given)?;
            }
            for dropped in DROPPED {
                counters.verdicts[port].push((dropped, verdict(interface, dropped)?));
            }
        }
        let workers = metrics.samples().iter().filter(|s| s.name == "adit_worker_packets_total");
        counters.by_worker = workers.map(|sample| sample.value as u64).collect();
        let drops = metrics.samples().iter().filter(|s| s.name == "adit_data_plane_drops_total");
        for sample in drops {
            let cause = sample.labels.get("cause").context("a drop without a cause")?;
            counters.drops.push((cause.clone(), sample.value as u64));
        }
        Ok(counters)
    }

    /// How its logs end.
    pub(super) fn words(&self) -> String {
        format!(
            "control of gateway {}:\n{}  its data plane:\n{}",
            self.name,
            self.control.log_tail(20),
            self.data_plane.log_tail(10)
        )
    }

    /// Stops both.
    ///
    /// # Errors
    /// One did not end well.
    pub(super) fn stop(mut self) -> Result<()> {
        for status in [self.control.process().stop()?, self.data_plane.stop()?] {
            if !status.success() {
                bail!("{status} when it was told to stop\n{}", self.words());
            }
        }
        Ok(())
    }
}

/// A counter of `/metrics`.
fn count(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
    metrics.expect(name, labels).map(|value| value as u64)
}
