//! Two Adits that are connected, and what every scenario asks of them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::adit::{Adit, configuration};
use crate::capture::{Capture, Kind};
use crate::metrics::Metrics;
use crate::namespace::wait_for;
use crate::run::Run;
use crate::site::Site;
use crate::topology::{GATEWAY_A, GATEWAY_B, HOST_A, HOST_B, TO_B, Topology};
use crate::traffic::{ping, ping_until_answered};

/// How long two gateways may take to connect, and a first packet to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Two connected Adits.
#[derive(Debug)]
pub struct Pair {
    /// Gateway A's; it begins.
    pub a: Adit,
    /// Gateway B's.
    pub b: Adit,
}

impl Pair {
    /// The two of [`Topology::two_sites`], connected.
    ///
    /// # Errors
    /// The lab cannot be made, or they do not connect: with their logs.
    pub fn up() -> Result<(Topology, Pair)> {
        let topology = Topology::two_sites(Run::begin()?)?;
        let pair = Pair::on(&topology)?;
        Ok((topology, pair))
    }

    /// The two of a topology, connected.
    ///
    /// # Errors
    /// They do not connect: with their logs.
    pub fn on(topology: &Topology) -> Result<Pair> {
        Pair::of(topology, &[Site::a(topology), Site::b(topology)], HOST_B.into())
    }

    /// Two Adits as `sites` say, connected, with an answer of `host_b`.
    ///
    /// # Errors
    /// They do not connect: with their logs.
    pub fn of(topology: &Topology, sites: &[Site; 2], host_b: IpAddr) -> Result<Pair> {
        Pair::with(topology, sites, host_b, |_, text| text)
    }

    /// The same with configurations that `edit` has changed; it is told the site's name.
    ///
    /// # Errors
    /// As [`Pair::of`].
    pub fn with(
        topology: &Topology,
        sites: &[Site; 2],
        host_b: IpAddr,
        edit: impl Fn(&str, String) -> String,
    ) -> Result<Pair> {
        let start = |gateway, site: &Site| {
            Adit::start_with(gateway, &site.tunnel(), |dir| edit(site.name, configuration(site, dir)))
        };
        let b = start(&topology.gateway_b, &sites[1])?;
        let a = start(&topology.gateway_a, &sites[0])?;
        let mut pair = Pair { a, b };
        pair.a.wait_connected(PATIENCE)?;
        pair.b.wait_connected(PATIENCE)?;
        ping_until_answered(&topology.host_a, host_b, PATIENCE).with_context(|| pair.words())?;
        Ok(pair)
    }

    /// ESP packets from A to B, beginning with their IPv4 header, each taken from the wire after B had it.
    ///
    /// # Errors
    /// Pings do not get through.
    pub fn sniff_esp(&self, topology: &Topology) -> Result<Vec<Vec<u8>>> {
        let filter = format!("ip proto 50 and src host {GATEWAY_A} and dst host {GATEWAY_B}");
        let capture = Capture::whole(&topology.router, TO_B, &filter)?;
        ping(&topology.host_a, HOST_B, 5, 56)?.expect_all()?;
        let frames = capture.finish()?.frames(Kind::Esp)?;
        ensure!(frames.len() >= 5, "five pings, and {} ESP packets on the wire", frames.len());
        Ok(frames.into_iter().map(|frame| frame[14..].to_vec()).collect())
    }

    /// Both are connected, and pings go both ways.
    ///
    /// # Errors
    /// It is not so: with their logs.
    pub fn still_works(&self, topology: &Topology) -> Result<()> {
        for gateway in [&self.a, &self.b] {
            let state = gateway.state()?;
            ensure!(state == "connected", "tunnel {} is {state} now\n{}", gateway.tunnel(), self.words());
        }
        ping(&topology.host_a, HOST_B, 3, 56)?.expect_all().with_context(|| self.words())?;
        ping(&topology.host_b, HOST_A, 3, 56)?.expect_all().with_context(|| self.words())?;
        Ok(())
    }

    /// Waits until gateway B has counted that many more packets dropped for `cause` than `before`.
    ///
    /// # Errors
    /// It has not in time.
    pub fn dropped_by_b(&self, before: &Metrics, cause: &str, count: f64) -> Result<()> {
        self.counted(cause, count, || Ok(drops(&self.b.metrics()?, cause) - drops(before, cause)))
    }

    /// Waits until `now` is at least `count`.
    ///
    /// # Errors
    /// It is not: with their logs.
    pub fn counted(&self, what: &str, count: f64, now: impl Fn() -> Result<f64>) -> Result<()> {
        let mut last = 0.0;
        let waited = wait_for(&format!("{count} packets counted as {what}"), Duration::from_secs(5), || {
            last = now()?;
            Ok(last >= count)
        });
        waited.with_context(|| format!("{last} were counted\n{}", self.words()))
    }

    /// How their logs end.
    pub fn words(&self) -> String {
        format!(
            "gateway A's log ends:\n{}  gateway B's log ends:\n{}",
            self.a.log_tail(15),
            self.b.log_tail(15)
        )
    }

    /// Stops both, and takes the lab down.
    ///
    /// # Errors
    /// As [`Pair::stop`], or something is left behind.
    pub fn end(self, topology: Topology) -> Result<()> {
        self.stop()?;
        topology.end()
    }

    /// Stops both.
    ///
    /// # Errors
    /// One did not end well: with its log.
    pub fn stop(mut self) -> Result<()> {
        for gateway in [&mut self.a, &mut self.b] {
            let status = gateway.process().stop()?;
            if !status.success() {
                bail!("adit ended with {status} when it was told to stop:\n{}", gateway.log_tail(15));
            }
        }
        Ok(())
    }
}

/// Packets dropped for this cause, by the XDP program or by a worker.
fn drops(metrics: &Metrics, cause: &str) -> f64 {
    let by_worker = metrics.get("adit_tunnel_drops_total", &[("cause", cause)]);
    let by_xdp = metrics.get("adit_port_verdicts_total", &[("verdict", cause)]);
    by_worker.unwrap_or(0.0) + by_xdp.unwrap_or(0.0)
}
