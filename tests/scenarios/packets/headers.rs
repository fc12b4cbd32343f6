//! What becomes of the headers: hop limit, DSCP, ECN, DF, and checksums that hosts leave to a NIC.

use adit_tests::capture::{Capture, Kind};
use adit_tests::pair::Pair;
use adit_tests::topology::{GATEWAY_A, HOST_A, HOST_B, TO_A, Topology};
use adit_tests::traffic::tcp_stream;
use anyhow::{Context, Result, ensure};

/// Expedited forwarding, able to say that there is congestion.
const CLASS: u8 = 0xb8 | 2;
const CONGESTED: u8 = 0xb8 | 3;

/// RFC 4301 section 5.1.2 and RFC 6040: DSCP and ECN are copied out, what routers mark comes in, and each header's TTL is
/// its own.
pub(crate) fn of_both_packets() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    let out = Capture::whole(&topology.router, TO_A, &format!("ip proto 50 and src host {GATEWAY_A}"))?;
    let [outer, inner] = pinged(&topology, out)?;
    // Of Ethernet's 14 bytes and IPv4's header: class, flags, TTL.
    ensure!((outer[15], outer[20], outer[22]) == (CLASS, 0x40, 64), "outer header {:02x?}", &outer[14..34]);
    ensure!((inner[15], inner[22]) == (CLASS, 40 - 2), "inner header {:02x?}", &inner[14..34]);
    // Now the router has to say that there is congestion.
    let rules = "table ip marks {
                   chain forward {
                     type filter hook forward priority 0
                     ip protocol esp ip ecn set ce
                   }
                 }
                ";
    let file = topology.run().directory().join("marks.nft");
    std::fs::write(&file, rules)?;
    topology.router.run("nft", &["-f", &file.to_string_lossy()])?;
    let out = Capture::whole(&topology.router, TO_A, &format!("ip proto 50 and src host {GATEWAY_A}"))?;
    let [_, inner] = pinged(&topology, out)?;
    ensure!((inner[15], inner[22]) == (CONGESTED, 40 - 2), "inner header {:02x?}", &inner[14..34]);
    pair.end(topology)
}

/// Hosts whose interfaces leave checksums to a NIC that is not there.
pub(crate) fn unfinished_checksums() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    for host in [&topology.host_a, &topology.host_b] {
        host.run("ethtool", &["-K", "eth0", "tx", "on"])?;
    }
    tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
    tcp_stream(&topology.host_b, &topology.host_a, HOST_A, 1).with_context(|| pair.words())?;
    pair.end(topology)
}

/// A ping of that class from host A, as it was on the WAN and as it came to host B.
fn pinged(topology: &Topology, wan: Capture) -> Result<[Vec<u8>; 2]> {
    let lan = Capture::whole(&topology.host_b, "eth0", &format!("icmp and src host {HOST_A}"))?;
    let arguments = ["-n", "-q", "-c", "2", "-i", "0.2", "-W", "2", "-t", "40", "-Q"];
    topology.host_a.run("ping", &[&arguments[..], &[&CLASS.to_string(), &HOST_B.to_string()]].concat())?;
    let first =
        |capture: Capture, kind| capture.finish()?.frames(kind)?.into_iter().next().context("no frame");
    Ok([first(wan, Kind::Esp)?, first(lan, Kind::Plaintext)?])
}
