//! Tunnels whose traffic is chosen by destination only.

use adit_tests::capture::Capture;
use adit_tests::pair::{PATIENCE, Pair};
use adit_tests::run::Run;
use adit_tests::site::{AES128_SHA1, Site};
use adit_tests::topology::{HOST_A, HOST_B, LAN_A, SUBNET_A, SUBNET_B, TO_A, Topology};
use adit_tests::traffic::{ping, ping_until_answered, tcp_stream};
use anyhow::{Context, Result, ensure};

/// A network behind host A, and one behind host B.
const BEHIND_A: &str = "172.16.1.2";
const BEHIND_B: &str = "10.2.9.9";

pub(crate) fn both() -> Result<()> {
    for ikev1 in [false, true] {
        let (topology, sites) = wider()?;
        let capture = Capture::start(&topology.router, TO_A)?;
        let pair = Pair::with(&topology, &sites, HOST_B.into(), |site, text| {
            let text =
                by_route(text, if site == "a" { "10.2.0.0/16" } else { "10.1.0.0/16\", \"172.16.0.0/12" });
            if ikev1 { text.replace("[tunnel.ike]\n", "[tunnel.ike]\nversion = \"ikev1\"\n") } else { text }
        })?;
        for (from, to) in [(HOST_A.to_string(), BEHIND_B), (BEHIND_A.to_owned(), BEHIND_B)] {
            let answered = ping_from(&topology, &from, to)?;
            ensure!(answered, "no answer of {to} to {from}\n{}", pair.words());
        }
        tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
        // The gateway's own packets have an address that the other side knows the way to.
        ping(&topology.gateway_a, HOST_B, 3, 56)?.expect_all().with_context(|| pair.words())?;
        let route = topology.gateway_a.ip(&["route", "get", BEHIND_B])?;
        ensure!(route.contains(&format!("dev adit0 src {LAN_A}")), "{route}");
        // What has no route into the tunnel is none of its business.
        let elsewhere = topology.gateway_a.ip(&["route", "get", "10.3.0.1"])?;
        ensure!(!elsewhere.contains("adit0"), "{elsewhere}");
        let shown = pair.a.done(&["tunnel", "show", pair.a.tunnel()])?;
        for part in ["routes   10.2.0.0/16", "0.0.0.0/0 to 0.0.0.0/0"] {
            ensure!(shown.contains(part), "{part:?} is missing in {shown}");
        }
        let tally = capture.finish()?.tally()?;
        tally.expect_no_plaintext("the router").with_context(|| pair.words())?;
        pair.end(topology)?;
    }
    Ok(())
}

/// The peer agrees to two subnets only: nothing else is sent to it, and nothing else goes in clear.
pub(crate) fn narrowed() -> Result<()> {
    let (topology, sites) = wider()?;
    let capture = Capture::start(&topology.router, TO_A)?;
    let pair = Pair::with(&topology, &sites, HOST_B.into(), |site, text| match site {
        "a" => by_route(text, "10.2.0.0/16"),
        _ => text,
    })?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
    ensure!(!ping_from(&topology, BEHIND_A, BEHIND_B)?, "an answer through what was not agreed to");
    ensure!(!ping_from(&topology, &HOST_A.to_string(), BEHIND_B)?, "an answer from what was not agreed to");
    let shown = pair.a.done(&["tunnel", "show", pair.a.tunnel()])?;
    ensure!(shown.contains(&format!("{SUBNET_A} to {SUBNET_B}")), "{shown}");
    capture.finish()?.tally()?.expect_no_plaintext("the router").with_context(|| pair.words())?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

/// Two sites with a network more on each side.
fn wider() -> Result<(Topology, [Site; 2])> {
    let topology = Topology::two_sites(Run::begin()?)?;
    for (host, address, gateway, via) in [
        (&topology.host_a, BEHIND_A, &topology.gateway_a, HOST_A),
        (&topology.host_b, BEHIND_B, &topology.gateway_b, HOST_B),
    ] {
        let prefix = format!("{address}/32");
        host.ip(&["address", "add", &prefix, "dev", "eth0"])?;
        gateway.ip(&["route", "add", &prefix, "via", &via.to_string()])?;
    }
    let sites = [Site::a(&topology), Site::b(&topology)].map(|site| site.with(AES128_SHA1));
    Ok((topology, sites))
}

/// The configuration in routing mode `route`.
fn by_route(text: String, routes: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("remote_subnets"));
    let changed = lines.map(|line| match line.starts_with("local_subnets") {
        true => format!("routing_mode = \"route\"\nroutes = [\"{routes}\"]\n"),
        false => format!("{line}\n"),
    });
    changed.collect()
}

fn ping_from(topology: &Topology, from: &str, to: &str) -> Result<bool> {
    let arguments = ["-n", "-q", "-c", "3", "-i", "0.2", "-W", "1", "-I", from, to];
    let output = topology.host_a.command("ping").args(arguments).output()?;
    Ok(output.status.success())
}
