//! Tunnels that are known by what answers through them.

use std::time::Duration;

use adit_tests::capture::Capture;
use adit_tests::namespace::wait_for;
use adit_tests::pair::{PATIENCE, Pair};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::topology::{HOST_B, TO_A, Topology};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};

/// More than `interval` × `retries` + 1 s of the checks here.
const TURN: Duration = Duration::from_secs(10);

/// An address of site A that no machine has.
const NOBODY_A: &str = "10.1.0.77";

fn main() -> std::process::ExitCode {
    scenario::main(vec![Scenario::new(
        "a_health_check_withdraws_routes_and_brings_them_back",
        a_health_check_switches_routes,
    )])
}

/// A tunnel that is up, and through which nothing answers, has health 0; its routes go, and nothing leaves in clear.
fn a_health_check_switches_routes() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let sites = [Site::a(&topology), Site::b(&topology)];
    let capture = Capture::start(&topology.router, TO_A)?;
    let pair = Pair::with(&topology, &sites, HOST_B.into(), |site, text| match site {
        "a" => format!(
            "{text}[tunnel.health_check]\ndestination = \"{HOST_B}\"\nsource = \"{NOBODY_A}\"\ninterval = 1\n\
             retries = 2\nswitch_route = true\n"
        ),
        _ => text,
    })?;
    let health = || pair.a.metrics()?.expect("adit_tunnel_health", &[("tunnel", pair.a.tunnel())]);
    let round_trip = || pair.a.metrics().map(|m| m.get("adit_tunnel_health_check_round_trip_seconds", &[]));
    wait_for("an answer to the health check", PATIENCE, || Ok(round_trip()?.is_some()))
        .with_context(|| pair.words())?;
    ensure!(health()? == 1.0, "{}", pair.words());
    ping_until_answered(&topology.gateway_a, HOST_B, PATIENCE).with_context(|| pair.words())?;

    topology.host_b.sysctl(&["net.ipv4.icmp_echo_ignore_all=1"])?;
    wait_for("health 0", TURN, || Ok(health()? == 0.0)).with_context(|| pair.words())?;
    ensure!(pair.a.state()? == "connected", "{}", pair.words());
    let status = pair.a.done(&["status"])?;
    ensure!(status.contains(&format!("{HOST_B} does not answer 2 echo requests in a row")), "{status}");
    // Its own address has a route for the check; the rest of the subnet leads nowhere.
    let beside = "10.2.0.9";
    wait_for("the route to go", TURN, || Ok(topology.gateway_a.ip(&["route", "get", beside]).is_err()))?;
    ensure!(ping(&topology.gateway_a, HOST_B, 1, 56)?.received == 0, "nobody answers");

    topology.host_b.sysctl(&["net.ipv4.icmp_echo_ignore_all=0"])?;
    wait_for("health 1", TURN, || Ok(health()? == 1.0)).with_context(|| pair.words())?;
    wait_for("the route to come back", TURN, || {
        Ok(topology.gateway_a.ip(&["route", "get", beside]).is_ok_and(|route| route.contains("adit0")))
    })?;
    ping(&topology.gateway_a, HOST_B, 3, 56)?.expect_all().with_context(|| pair.words())?;
    let log = pair.a.done(&["tunnel", "log", pair.a.tunnel()])?;
    for words in ["health 0: ", "routes are withdrawn", "answers again, 2 in a row", "routes are back"] {
        ensure!(log.contains(words), "{words:?} is missing in {log}");
    }
    capture.finish()?.tally()?.expect_no_plaintext("the router").with_context(|| pair.words())?;
    pair.end(topology)
}
