//! `cargo xtask load` and `unload` by themselves, on a pair of interfaces and without any policy.

use adit_tests::adit::binary;
use adit_tests::capture::{Capture, Kind};
use adit_tests::inject;
use adit_tests::namespace::Namespace;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::topology::{GATEWAY_A, LAN, ROUTER_B, Topology, WAN, router_of};
use adit_tests::traffic::ping;
use anyhow::{Context, Result, ensure};
use std::path::Path;

fn main() -> std::process::ExitCode {
    scenario::main(vec![Scenario::new("the_program_is_loaded_and_unloaded_alone_and_leaves_nothing", alone)])
}

/// What needs no policy passes, what no SA opens is dropped, and afterwards all is as it was before.
fn alone() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let gateway = &topology.gateway_a;
    let bpf_dir = topology.run().directory().join("bpf");
    let before = links(gateway)?;
    traffic(&topology, 5).context("before loading")?;
    for again in [false, true] {
        let words = xtask(gateway, &["load", "--iface", WAN, "--iface", LAN], &bpf_dir)?;
        ensure!(words.contains("already attached") == again, "{words}");
        let attached = links(gateway)?;
        for interface in [WAN, LAN] {
            ensure!(bpf_dir.join("links").join(interface).exists(), "no link of {interface} is pinned");
            let line = attached.lines().find(|line| line.contains(&format!(" {interface}@")));
            ensure!(line.is_some_and(|line| line.contains("xdp")), "{interface} has no program:\n{attached}");
        }
        traffic(&topology, 0).context("with the program")?;
    }
    for nothing in [false, true] {
        let words = xtask(gateway, &["unload"], &bpf_dir)?;
        ensure!(words.contains("nothing is loaded") == nothing, "{words}");
        ensure!(!bpf_dir.exists(), "{} is left", bpf_dir.display());
        let now = links(gateway)?;
        ensure!(now == before, "interfaces before:\n{before}\nand now:\n{now}");
    }
    traffic(&topology, 5).context("after unloading")?;
    topology.end()
}

/// Pings through the gateway are answered; of five packets of ESP without an SA, so many reach its kernel.
fn traffic(topology: &Topology, passing: usize) -> Result<()> {
    ping(&topology.host_a, ROUTER_B, 3, 56)?.expect_all()?;
    ping(&topology.host_a, ROUTER_B, 2, 1400)?.expect_all()?;
    let source = router_of(GATEWAY_A);
    let capture = Capture::whole(&topology.gateway_a, WAN, &format!("ip proto 50 and src host {source}"))?;
    let stranger = inject::ipv4(source, GATEWAY_A, 50, &inject::esp(0xdead_beef, 1, &[7; 64]));
    inject::packets(&topology.router, GATEWAY_A, &vec![stranger; 5])?;
    let passed = capture.finish()?.frames(Kind::Esp)?.len();
    ensure!(passed == passing, "{passed} of 5 packets of ESP without an SA passed, not {passing}");
    Ok(())
}

/// The interfaces, one a line, with what is attached to them.
fn links(namespace: &Namespace) -> Result<String> {
    let listed = namespace.ip(&["-o", "link", "show"])?;
    // The program's number differs from load to load, and it is not there before and after.
    Ok(listed.lines().map(|line| format!("{}\n", line.split(" link/").next().unwrap_or(line))).collect())
}

/// Runs a command of xtask in a namespace, with the binary under test; what it said.
fn xtask(namespace: &Namespace, arguments: &[&str], bpf_dir: &Path) -> Result<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = namespace
        .command(&cargo)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .env("ADIT_BIN", binary()?)
        .args(["run", "--quiet", "--package", "xtask", "--"])
        .args(arguments)
        .arg("--bpf-dir")
        .arg(bpf_dir)
        .output()
        .context("cargo could not be started")?;
    let words =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(
        output.status.success(),
        "`cargo xtask {}` ended with {}: {words}",
        arguments.join(" "),
        output.status
    );
    Ok(words)
}
