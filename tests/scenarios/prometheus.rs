//! A real Prometheus scrapes a gateway, and its own checker reads what it is given.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use adit_tests::adit::{Adit, configuration};
use adit_tests::namespace::wait_for;
use adit_tests::pair::Pair;
use adit_tests::prometheus::{lacking, scrapes, start, value};
use adit_tests::roots;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::topology::{HOST_B, Topology};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> std::process::ExitCode {
    let lacking = lacking();
    scenario::main(vec![
        Scenario::new("promtool_finds_nothing_wrong_with_the_metrics", checked).lacking(lacking),
        Scenario::new("a_tunnels_counters_never_go_back", never_back).lacking(lacking),
    ])
}

/// With every family there that a running gateway has.
fn checked() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    let text = pair.a.done(&["metrics"])?;
    let root = roots::prometheus().context("Prometheus is not here")?;
    let mut check = topology.gateway_a.command(&root.join("usr/bin/promtool").to_string_lossy());
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = check.spawn()?;
    child.stdin.take().context("it has an input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success() && said.is_empty(), "promtool says:\n{said}");
    for family in ["adit_tunnel_bytes_total", "adit_port_bytes_total", "adit_worker_busy_seconds_total"] {
        ensure!(text.contains(&format!("# TYPE {family} counter")), "no {family}:\n{text}");
    }
    pair.end(topology)
}

/// Over rekeys of both SAs, over a control that is killed and one that is told to stop, over a tunnel that is configured
/// anew while control is away.
fn never_back() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let (site_a, site_b) = (Site::a(&topology), Site::b(&topology));
    let mut b = Adit::start(&topology.gateway_b, &site_b)?;
    let mut a = Adit::start_control(&topology.gateway_a, &site_a.tunnel(), |directory| {
        configuration(&site_a, directory)
    })?;
    let data_plane = a.data_plane(&[])?;
    let mut prometheus =
        start(&topology.gateway_a, a.configuration().parent().context("it lies somewhere")?, &[])?;
    a.wait_connected(PATIENCE)?;
    b.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;

    let pass = |a: &Adit| -> Result<f64> {
        ping(&topology.host_a, HOST_B, 5, 500)?.expect_all().with_context(|| a.log_tail(20))?;
        // As Prometheus has it, twice over.
        let before = scrapes(&topology.gateway_a)?;
        wait_for("two scrapes", PATIENCE, || Ok(scrapes(&topology.gateway_a)? >= before + 2.0))?;
        value(&topology.gateway_a, "sum(adit_tunnel_packets_total)")?.context("no packets are counted")
    };
    let mut last = pass(&a)?;
    let mut goes_up = |what: &str, now: f64| {
        ensure!(now >= last + 10.0, "{what}: {now} packets after {last}");
        last = now;
        Ok(())
    };
    let tunnel = a.tunnel().to_owned();
    a.done(&["tunnel", "rekey", &tunnel, "--child"])?;
    a.done(&["tunnel", "rekey", &tunnel, "--ike"])?;
    let rekeyed =
        "sum(adit_tunnel_rekeys_total{sa=\"ike\"}) >= 1 and sum(adit_tunnel_rekeys_total{sa=\"child\"}) >= 1";
    wait_for("both rekeys to be counted", PATIENCE, || Ok(value(&topology.gateway_a, rekeyed)?.is_some()))?;
    goes_up("after rekeys", pass(&a)?)?;

    for signal in [libc::SIGKILL, libc::SIGTERM] {
        a.process().signal(signal)?;
        a.process().wait(PATIENCE)?;
        a.start_again()?;
        a.wait_connected(PATIENCE)?;
        goes_up("after a restart", pass(&a)?)?;
    }

    a.process().signal(libc::SIGKILL)?;
    a.process().wait(PATIENCE)?;
    let text = fs::read_to_string(a.configuration())?;
    let other = text.replace("[tunnel.ipsec]", "[tunnel.ipsec]\nlifetime = 1800");
    ensure!(other != text, "there is no [tunnel.ipsec] in\n{text}");
    fs::write(a.configuration(), other)?;
    a.start_again()?;
    a.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    goes_up("configured anew", pass(&a)?)?;

    for what in ["bytes", "packets", "drops", "rekeys"] {
        let resets = format!("max(resets(adit_tunnel_{what}_total[10m]))");
        let resets = value(&topology.gateway_a, &resets)?.context("Prometheus has no such counter")?;
        ensure!(resets == 0.0, "adit_tunnel_{what}_total went back {resets} times");
    }
    let health = value(&topology.gateway_a, "min(adit_tunnel_health)")?;
    ensure!(health == Some(1.0), "health is {health:?}");

    prometheus.stop()?;
    drop((a, data_plane));
    b.process().stop()?;
    topology.end()
}
