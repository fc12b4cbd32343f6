//! Child SAs that end by what they have carried: near the end they are renewed, and at the end nothing more is sealed.

use adit_maps::{
    sa::direction,
    user::{Directory, Sad},
};
use adit_tests::adit::{Adit, configuration};
use adit_tests::capture::{Capture, Kind};
use adit_tests::namespace::wait_for;
use adit_tests::pair::{PATIENCE, Pair};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::topology::{GATEWAY_A, HOST_B, TO_A, Topology};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Sequence numbers that are not extended.
const SEQUENCE_NUMBERS: u64 = u32::MAX as u64;

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("a_lifetime_in_packets_renews_the_pair", || renews("lifetime_packets = 300")),
        Scenario::new("a_lifetime_in_bytes_renews_the_pair", || renews("lifetime_bytes = 300000")),
        Scenario::new("near_the_end_of_the_sequence_numbers_the_pair_is_renewed", sequence_renews),
        Scenario::new("no_sequence_number_is_used_twice_at_their_end", sequence_ends),
        Scenario::new("at_the_end_of_a_lifetime_nothing_more_is_sealed", ends),
    ])
}

/// Two connected Adits, gateway A's with this line in `[tunnel.ipsec]`.
fn up(line: &str) -> Result<(Topology, Pair)> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let (a, b) = (Site::a(&topology), Site::b(&topology));
    let b = Adit::start(&topology.gateway_b, &b)?;
    let text = |directory: &std::path::Path| format!("{}{line}\n", configuration(&a, directory));
    let a = Adit::start_with(&topology.gateway_a, &a.tunnel(), text)?;
    let mut pair = Pair { a, b };
    pair.a.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
    Ok((topology, pair))
}

/// Lets the outbound SA of gateway A have given out so many sequence numbers, as no test could send as many packets.
fn skip_to(pair: &Pair, sequence: u64) -> Result<()> {
    let sad = Sad::open(&Directory::new(pair.a.bpf_dir()))?;
    let mut skipped = 0;
    for index in 0..sad.capacity() {
        let Some(mut config) = sad.read(index) else { continue };
        config.wipe();
        if let Some(state) = sad.state(index).filter(|_| config.direction == direction::OUTBOUND) {
            state.last_sequence.store(sequence, Ordering::Relaxed);
            skipped += 1;
        }
    }
    ensure!(skipped == 1, "{skipped} outbound SAs");
    Ok(())
}

fn sequence_renews() -> Result<()> {
    let (topology, pair) = up("esn = false")?;
    let renewed = || pair.a.metrics()?.expect("adit_tunnel_rekeys_total", &[("sa", "child")]);
    let before = renewed()?;
    pair.still_works(&topology)?;
    ensure!(renewed()? == before, "renewed without need");
    // Above every share from which on a pair is renewed, and far from the end.
    skip_to(&pair, SEQUENCE_NUMBERS / 100 * 96)?;
    pair.still_works(&topology)?;
    wait_for("the pair to be renewed", PATIENCE, || Ok(renewed()? > before)).with_context(|| pair.words())?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

/// The peer does not answer any more, and there is no other pair before the numbers are used up.
fn sequence_ends() -> Result<()> {
    const LEFT: u64 = 20;
    let (topology, mut pair) = up("esn = false")?;
    pair.b.process().signal(libc::SIGSTOP)?;
    let capture = Capture::whole(&topology.router, TO_A, &format!("ip proto 50 and src host {GATEWAY_A}"))?;
    skip_to(&pair, SEQUENCE_NUMBERS - LEFT)?;
    let mut command = topology.host_a.command("ping");
    command.args(["-n", "-q", "-i", "0.01", &HOST_B.to_string()]);
    let mut stream = topology.host_a.spawn("ping", &mut command)?;
    let waited = wait_for("the pair to end", PATIENCE, || {
        Ok(pair.a.status()?["children"].as_array().is_some_and(Vec::is_empty))
    });
    std::thread::sleep(Duration::from_millis(500));
    stream.kill();
    waited.with_context(|| pair.words())?;
    let frames = capture.finish()?.frames(Kind::Esp)?;
    let numbers: Vec<u32> =
        frames.iter().filter_map(|f| Some(u32::from_be_bytes(*f.get(38..)?.first_chunk()?))).collect();
    let expected: Vec<u32> = (0..LEFT as u32).rev().map(|left| u32::MAX - left).collect();
    ensure!(numbers == expected, "sequence numbers {numbers:x?}, and the last {LEFT} were left");
    pair.b.process().signal(libc::SIGCONT)?;
    drop(pair);
    topology.end()
}

fn renews(line: &str) -> Result<()> {
    let (topology, pair) = up(line)?;
    let capture = Capture::start(&topology.router, TO_A)?;
    let renewed = || pair.a.metrics()?.expect("adit_tunnel_rekeys_total", &[("sa", "child")]);
    // As many as go over one lifetime, and again over the next.
    for wanted in [1.0, 2.0] {
        let mut command = topology.host_a.command("ping");
        command.args(["-n", "-q", "-i", "0.005", "-s", "972", &HOST_B.to_string()]);
        let mut stream = topology.host_a.spawn("ping", &mut command)?;
        let waited = wait_for("the pair to be renewed", PATIENCE, || Ok(renewed()? >= wanted));
        stream.kill();
        waited.with_context(|| pair.words())?;
    }
    capture.finish()?.tally()?.expect_no_plaintext("the router")?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

/// The peer does not answer any more: the pair cannot be renewed.
fn ends() -> Result<()> {
    const LIFETIME: u64 = 100;
    let (topology, mut pair) = up(&format!("lifetime_packets = {LIFETIME}"))?;
    pair.b.process().signal(libc::SIGSTOP)?;
    let capture = Capture::whole(&topology.router, TO_A, &format!("ip proto 50 and src host {GATEWAY_A}"))?;
    let mut command = topology.host_a.command("ping");
    command.args(["-n", "-q", "-i", "0.02", &HOST_B.to_string()]);
    let mut stream = topology.host_a.spawn("ping", &mut command)?;
    let waited = wait_for("the pair to end", PATIENCE, || {
        Ok(pair.a.status()?["children"].as_array().is_some_and(Vec::is_empty))
    });
    waited.with_context(|| pair.words())?;
    std::thread::sleep(Duration::from_millis(500));
    stream.kill();
    let sealed = capture.finish()?.tally()?.count(Kind::Esp);
    // Counters are looked at ten times a second, and fifty packets go in one.
    ensure!(sealed < 2 * LIFETIME, "{sealed} packets were sealed in a lifetime of {LIFETIME}");
    ensure!(ping(&topology.host_a, HOST_B, 2, 56)?.received == 0, "an answer out of nowhere");
    pair.b.process().signal(libc::SIGCONT)?;
    drop(pair);
    topology.end()
}
