//! Gateways with one interface, and with several LANs.

use adit_tests::capture::{Capture, Kind};
use adit_tests::metrics::Metrics;
use adit_tests::namespace::{Namespace, link};
use adit_tests::pair::Pair;
use adit_tests::run::Run;
use adit_tests::site::Site;
use adit_tests::topology::{GATEWAY_A, HOST_A, HOST_B, LAN, LAN_A, TO_A, TO_B, Topology, WAN};
use adit_tests::traffic::{ping, tcp_stream};
use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;

const SECOND_LAN: &str = "lan2";
const SECOND_HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);

/// Gateway A hangs off the site's router by one interface: what is to be sealed comes in by it, and goes out by it.
pub(crate) fn one_armed() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    topology.gateway_a.ip(&["link", "delete", LAN])?;
    let (router, host) = (&topology.router, &topology.host_a);
    link((router, "site", &format!("{LAN_A}/24")), (host, "eth0", &format!("{HOST_A}/24")))?;
    host.run("ethtool", &["-K", "eth0", "tx", "off"])?;
    host.ip(&["route", "add", "default", "via", &LAN_A.to_string()])?;
    router.ip(&["route", "add", "10.2.0.0/24", "via", &GATEWAY_A.to_string()])?;
    let (side_a, side_b) = (Capture::start(router, TO_A)?, Capture::start(router, TO_B)?);
    let sites = [Site::a(&topology), Site::b(&topology)];
    let pair = Pair::with(&topology, &sites, HOST_B.into(), |site, text| match site {
        "a" => text.replace(&format!("lan = [\"{LAN}\"]"), &format!("lan = [\"{WAN}\"]")),
        _ => text,
    })?;
    ping(host, HOST_B, 5, 1200)?.expect_all().with_context(|| pair.words())?;
    ping(&topology.host_b, HOST_A, 5, 1200)?.expect_all().with_context(|| pair.words())?;
    tcp_stream(host, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
    // On its one link a packet goes by twice, in clear and sealed; beyond the router only sealed.
    ensure!(side_a.finish()?.tally()?.plaintext() >= 20, "the pings did not come by in clear");
    let tally = side_b.finish()?.tally()?;
    tally.expect_no_plaintext("the router's far side").with_context(|| pair.words())?;
    ensure!(tally.count(Kind::Esp) > 100, "a TCP stream and hardly any ESP: {tally}");
    pair.end(topology)
}

/// Gateway A serves two LANs, each with a subnet of its own.
pub(crate) fn two_lans() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let second = Namespace::create(topology.run(), "h2")?;
    link((&topology.gateway_a, SECOND_LAN, "10.1.1.1/24"), (&second, "eth0", &format!("{SECOND_HOST}/24")))?;
    second.run("ethtool", &["-K", "eth0", "tx", "off"])?;
    second.ip(&["route", "add", "default", "via", "10.1.1.1"])?;
    let capture = Capture::start(&topology.router, TO_A)?;
    let sites = [Site::a(&topology), Site::b(&topology)];
    let wider = "[\"10.1.0.0/24\", \"10.1.1.0/24\"]";
    let pair = Pair::with(&topology, &sites, HOST_B.into(), |site, text| {
        let text = text.replace("[\"10.1.0.0/24\"]", wider);
        match site {
            "a" => text.replace(&format!("[\"{LAN}\"]"), &format!("[\"{LAN}\", \"{SECOND_LAN}\"]")),
            _ => text,
        }
    })?;
    for (host, address) in [(&topology.host_a, HOST_A), (&second, SECOND_HOST)] {
        ping(host, HOST_B, 5, 1200)?.expect_all().with_context(|| pair.words())?;
        ping(&topology.host_b, address, 5, 1200)?.expect_all().with_context(|| pair.words())?;
        tcp_stream(host, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
    }
    // Between the two LANs nothing is protected: the kernel forwards it, in clear and past the tunnel.
    let before = pair.a.metrics()?;
    ping(&topology.host_a, SECOND_HOST, 3, 56)?.expect_all()?;
    let sealed = |m: &Metrics| m.get("adit_tunnel_packets_total", &[("direction", "out")]);
    ensure!(sealed(&pair.a.metrics()?) == sealed(&before), "what went from LAN to LAN was sealed");
    capture.finish()?.tally()?.expect_no_plaintext("the router").with_context(|| pair.words())?;
    pair.end(topology)
}
