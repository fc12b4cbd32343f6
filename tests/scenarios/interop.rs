//! Adit and strongSwan: they agree, carry traffic both ways, and say in words why they do not agree.

use std::time::Duration;

use adit_tests::adit::Adit;
use adit_tests::capture::Capture;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::{AES128_SHA1, AES256_GCM, Site, Suite};
use adit_tests::strongswan::StrongSwan;
use adit_tests::topology::{HOST_A, HOST_B, TO_A, TO_B, Topology};
use adit_tests::traffic::{ping, ping_until_answered, tcp_stream};
use anyhow::{Context, Result, bail, ensure};

const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> std::process::ExitCode {
    let mut scenarios = vec![
        Scenario::new("strongswan_with_strongswan_proves_the_lab", || control(Topology::two_sites)),
        Scenario::new("strongswan_with_strongswan_proves_the_lab_behind_nat", || {
            control(Topology::behind_nat)
        }),
    ];
    for suite in [AES128_SHA1, AES256_GCM] {
        scenarios.push(Scenario::new(format!("adit_initiates_{}", suite.name), move || agree(suite, true)));
        scenarios.push(Scenario::new(format!("adit_responds_{}", suite.name), move || agree(suite, false)));
        scenarios
            .push(Scenario::new(format!("strongswan_deletes_{}", suite.name), move || peer_deletes(suite)));
        scenarios.push(Scenario::new(format!("adit_deletes_{}", suite.name), move || adit_deletes(suite)));
    }
    scenarios.push(Scenario::new("a_wrong_psk_is_told_by_the_initiator", || wrong_psk(true)));
    scenarios.push(Scenario::new("a_wrong_psk_is_told_by_the_responder", || wrong_psk(false)));
    scenarios.push(Scenario::new("a_proposal_mismatch_is_told_by_the_initiator", || wrong_proposal(true)));
    scenarios.push(Scenario::new("a_proposal_mismatch_is_told_by_the_responder", || wrong_proposal(false)));
    scenario::main(scenarios)
}

/// strongSwan on both ends: what the other scenarios expect of Adit is what this lab gives a peer known to be good.
fn control(make: fn(Run) -> Result<Topology>) -> Result<()> {
    let topology = make(Run::begin()?)?;
    let wire = Wire::watch(&topology)?;
    let _b = StrongSwan::start(&topology.gateway_b, &Site::b(&topology))?;
    let a = StrongSwan::start(&topology.gateway_a, &Site::a(&topology))?;
    a.initiate()?;
    traffic_both_ways(&topology)?;
    wire.only_ike_and_esp()?;
    topology.end()
}

fn agree(suite: Suite, adit_initiates: bool) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let wire = Wire::watch(&topology)?;
    let pair = Pair::up(&topology, suite, adit_initiates)?;
    traffic_both_ways(&topology).with_context(|| pair.words())?;
    wire.only_ike_and_esp().with_context(|| pair.words())?;
    let metrics = pair.adit.metrics()?;
    let health = metrics.expect(HEALTH, &[("tunnel", pair.adit.tunnel())])?;
    ensure!(health == 1.0, "{HEALTH} is {health} although the tunnel is up");
    drop(pair);
    topology.end()
}

fn peer_deletes(suite: Suite) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let mut pair = Pair::up(&topology, suite, false)?;
    ping_until_answered(&topology.host_b, HOST_A, PATIENCE)?;
    let wire = Wire::watch(&topology)?;
    pair.swan.terminate()?;
    let down = |pair: &mut Pair| {
        adit_tests::namespace::wait_for("Adit to see the DELETE", PATIENCE, || {
            Ok(pair.adit.state()? != "connected")
        })
    };
    down(&mut pair).with_context(|| pair.words())?;
    // Nobody initiates now, so whatever host A sends must stop at its gateway.
    let answer = ping(&topology.host_a, HOST_B, 3, 56)?;
    ensure!(answer.received == 0, "{answer:?} came through although the tunnel is down");
    wire.nothing_in_clear().with_context(|| pair.words())?;
    pair.swan.initiate().context("the tunnel does not come up again")?;
    ping_until_answered(&topology.host_b, HOST_A, PATIENCE).with_context(|| pair.words())?;
    drop(pair);
    topology.end()
}

fn adit_deletes(suite: Suite) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let mut pair = Pair::up(&topology, suite, true)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    // A gateway that is stopped takes its tunnels down with it.
    pair.adit.process().stop().with_context(|| pair.words())?;
    pair.swan.wait_disconnected(PATIENCE)?;
    drop(pair);
    topology.end()
}

fn wrong_psk(adit_initiates: bool) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let other = "another-key-with-32-characters-02".to_owned();
    let site = Site { psk: other, ..Site::b(&topology).initiating(!adit_initiates) };
    fails_with(&topology, site, adit_initiates, &["psk", "pre-shared key"])
}

fn wrong_proposal(adit_initiates: bool) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let site = Site::b(&topology).with(AES128_SHA1).initiating(!adit_initiates);
    fails_with(&topology, site, adit_initiates, &["proposal"])
}

/// Starts a pair that cannot agree, and looks for one of `words` in what Adit's status and log say.
fn fails_with(topology: &Topology, swan: Site, adit_initiates: bool, words: &[&str]) -> Result<()> {
    let swan = StrongSwan::start(&topology.gateway_b, &swan)?;
    let adit = Adit::start(&topology.gateway_a, &Site::a(topology).initiating(adit_initiates))?;
    if !adit_initiates && swan.initiate().is_ok() {
        bail!("strongSwan says that the tunnel is up");
    }
    let told = || -> Result<bool> {
        let said = format!("{}{}", adit.status()?, adit.log_tail(200)).to_lowercase();
        Ok(words.iter().any(|word| said.contains(word)))
    };
    adit_tests::namespace::wait_for(&format!("one of {words:?} in status or log"), PATIENCE, told)
        .with_context(|| {
            format!("status: {}\n  log:\n{}", adit.status().unwrap_or_default(), adit.log_tail(30))
        })?;
    let health = adit.metrics()?.expect(HEALTH, &[("tunnel", adit.tunnel())])?;
    ensure!(health == 0.0, "{HEALTH} is {health} although the peers disagree");
    drop((swan, adit));
    Ok(())
}

/// Metric that says whether a tunnel is connected.
const HEALTH: &str = "adit_tunnel_health";

/// Adit as gateway A and strongSwan as gateway B, connected.
struct Pair {
    adit: Adit,
    swan: StrongSwan,
}

impl Pair {
    fn up(topology: &Topology, suite: Suite, adit_initiates: bool) -> Result<Pair> {
        let swan = StrongSwan::start(&topology.gateway_b, &Site::b(topology).with(suite))?;
        let site = Site::a(topology).with(suite).initiating(adit_initiates);
        let adit = Adit::start(&topology.gateway_a, &site)?;
        let mut pair = Pair { adit, swan };
        if !adit_initiates {
            pair.swan.initiate().with_context(|| pair.words())?;
        }
        pair.adit.wait_connected(PATIENCE).with_context(|| pair.words())?;
        pair.swan.wait_connected(PATIENCE)?;
        Ok(pair)
    }

    /// What both ends last said.
    fn words(&self) -> String {
        format!(
            "adit's log ends:\n{}  charon's log ends:\n{}",
            self.adit.log_tail(20),
            self.swan.log_tail(20)
        )
    }
}

/// Captures on both sides of the router.
struct Wire {
    side_a: Capture,
    side_b: Capture,
}

impl Wire {
    fn watch(topology: &Topology) -> Result<Wire> {
        Ok(Wire {
            side_a: Capture::start(&topology.router, TO_A)?,
            side_b: Capture::start(&topology.router, TO_B)?,
        })
    }

    fn nothing_in_clear(self) -> Result<u64> {
        let (side_a, side_b) = (self.side_a.finish()?.tally()?, self.side_b.finish()?.tally()?);
        side_a.expect_no_plaintext("the router on gateway A's side")?;
        side_b.expect_no_plaintext("the router on gateway B's side")?;
        Ok(side_a.esp())
    }

    fn only_ike_and_esp(self) -> Result<()> {
        ensure!(self.nothing_in_clear()? > 0, "no ESP crossed the router");
        Ok(())
    }
}

fn traffic_both_ways(topology: &Topology) -> Result<()> {
    ping_until_answered(&topology.host_a, HOST_B, Duration::from_secs(5))?;
    ping(&topology.host_a, HOST_B, 5, 56)?.expect_all().context("host A to host B")?;
    ping(&topology.host_b, HOST_A, 5, 56)?.expect_all().context("host B to host A")?;
    for (client, server, address) in
        [(&topology.host_a, &topology.host_b, HOST_B), (&topology.host_b, &topology.host_a, HOST_A)]
    {
        let rate = tcp_stream(client, server, address, 1)?;
        ensure!(rate > 1.0, "a TCP stream to {address} ran at {rate:.3} Mbit/s only");
    }
    Ok(())
}
