//! Paths that are narrower than the interfaces at their ends, and a LAN that is narrower than the tunnel.

use std::net::IpAddr;
use std::time::Duration;

use adit_tests::adit::Adit;
use adit_tests::capture::{Capture, Kind};
use adit_tests::inject;
use adit_tests::namespace::{Namespace, wait_for};
use adit_tests::pair::Pair;
use adit_tests::run::Run;
use adit_tests::site::Site;
use adit_tests::topology::{GATEWAY_A, HOST_A, HOST_B, LAN, SIDE_B6, TO_A, TO_B, Topology, WAN, router_of};
use adit_tests::traffic::tcp_stream;
use anyhow::{Context, Result, ensure};

/// The MTU behind the router, and what it leaves to a packet under AES-GCM.
const NARROW: u16 = 1300;
const INNER: u16 = 1246;
const INNER_IN_UDP: u16 = 1238;
const INNER_IN_IPV6: u16 = 1226;

pub(crate) fn native() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    narrow(&topology)?;
    learns(&topology, &pair, HOST_B.into(), INNER)?;
    // What may be cut is cut before it is sealed: the peer has nothing to put together.
    let capture = Capture::whole(&topology.router, TO_A, &format!("src host {GATEWAY_A}"))?;
    let answered = ping(&topology.host_a, HOST_B.into(), "dont", 1400)?;
    ensure!(answered.contains(" 3 received"), "{answered}");
    tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
    tcp_stream(&topology.host_b, &topology.host_a, HOST_A, 1).with_context(|| pair.words())?;
    let frames = capture.finish()?.frames(Kind::Esp)?;
    ensure!(frames.len() > 100, "{} frames of ESP", frames.len());
    let longest = frames.iter().map(Vec::len).max().unwrap_or_default();
    ensure!(longest <= 14 + usize::from(NARROW), "a frame of {longest} bytes went out");
    let in_pieces = frames.iter().filter(|frame| frame[20] & 0x3f != 0 || frame[21] != 0).count();
    ensure!(in_pieces == 0, "{in_pieces} frames of ESP were fragments");
    pair.end(topology)
}

pub(crate) fn in_udp() -> Result<()> {
    let topology = Topology::behind_nat(Run::begin()?)?;
    let pair = Pair::on(&topology)?;
    narrow(&topology)?;
    learns(&topology, &pair, HOST_B.into(), INNER_IN_UDP)?;
    tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
    pair.end(topology)
}

pub(crate) fn over_ipv6() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    topology.add_ipv6()?;
    let sites = [Site::a(&topology), Site::b(&topology)].map(Site::ipv6_outside);
    let pair = Pair::of(&topology, &sites, HOST_B.into())?;
    narrow(&topology)?;
    learns(&topology, &pair, HOST_B.into(), INNER_IN_IPV6)?;
    tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
    pair.end(topology)
}

/// What every IPv6 link takes does not fit the path once it is sealed: the sealed packet is cut, and put together by the
/// peer. What is longer is answered, and with nothing that a host would not believe.
pub(crate) fn least_of_ipv6() -> Result<()> {
    let host_b: IpAddr = SIDE_B6.host.parse()?;
    for over_ipv6 in [false, true] {
        let topology = Topology::two_sites(Run::begin()?)?;
        topology.add_ipv6()?;
        let sites = [Site::a(&topology), Site::b(&topology)].map(Site::ipv6_inside);
        let sites = if over_ipv6 { sites.map(Site::ipv6_outside) } else { sites };
        let pair = Pair::of(&topology, &sites, host_b)?;
        narrow(&topology)?;
        let inner = if over_ipv6 { INNER_IN_IPV6 } else { INNER };
        // The router says how long the path is, and only then is anything to be cut.
        let first = ping(&topology.host_a, host_b, "do", 1340)?;
        ensure!(!first.contains(" 3 received"), "{first}");
        shown(&pair.a, NARROW, inner).with_context(|| pair.words())?;
        shown(&pair.b, NARROW, inner).with_context(|| pair.words())?;
        let capture = Capture::whole(&topology.router, TO_A, "ip proto 50 or ip6 proto 44 or ip6 proto 50")?;
        let told = ping(&topology.host_a, host_b, "do", 1340)?;
        ensure!(told.contains("mtu=1280") || told.contains("mtu: 1280"), "{told}");
        let whole = ping(&topology.host_a, host_b, "do", 1280 - 48)?;
        ensure!(whole.contains(" 3 received"), "{whole}\n{}", pair.words());
        let (capture, mut lengths) = (capture.finish()?, Vec::new());
        for kind in [Kind::Esp, Kind::Plaintext] {
            lengths.extend(capture.frames(kind)?.iter().map(Vec::len));
        }
        let longest = lengths.iter().copied().max().unwrap_or_default();
        ensure!(longest <= 14 + usize::from(NARROW), "a frame of {longest} bytes went out");
        // Three packets each way, in two pieces each.
        ensure!(lengths.len() == 12, "{} frames: {lengths:?}", lengths.len());
        pair.end(topology)?;
    }
    Ok(())
}

/// The tunnel carries more than gateway B's LAN takes, and more than gateway A's for what comes back.
pub(crate) fn narrow_lan() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    topology.gateway_b.ip(&["link", "set", LAN, "mtu", "1300"])?;
    let pair = Pair::on(&topology)?;
    let told = ping(&topology.host_a, HOST_B.into(), "do", 1400)?;
    ensure!(told.contains("mtu = 1300") || told.contains("mtu=1300"), "{told}\n{}", pair.words());
    ensure!(told.contains("From 10.2.0.1"), "somebody else than gateway B said so: {told}");
    // Host B takes the fragments, and its own answers are cut by the tunnel's other end.
    topology.host_b.ip(&["link", "set", "eth0", "mtu", "1300"])?;
    let capture = Capture::whole(&topology.host_b, "eth0", &format!("icmp and src host {HOST_A}"))?;
    topology.host_a.ip(&["route", "flush", "cache"])?;
    let answered = ping(&topology.host_a, HOST_B.into(), "dont", 1400)?;
    ensure!(answered.contains(" 3 received"), "{answered}\n{}", pair.words());
    let frames = capture.finish()?.frames(Kind::Plaintext)?;
    let pieces = frames.iter().filter(|frame| frame.len() <= 1314).count();
    ensure!(
        pieces == 6 && frames.len() == 6,
        "three packets in two pieces each, not {} frames",
        frames.len()
    );
    // One hop too few to get as far as host B.
    let arguments = ["-n", "-c", "1", "-W", "2", "-t", "2"];
    let expired = topology.host_a.command("ping").args(arguments).arg(HOST_B.to_string()).output()?;
    let expired = String::from_utf8_lossy(&expired.stdout);
    ensure!(expired.contains("From 10.2.0.1") && expired.contains("exceeded"), "{expired}");
    pair.end(topology)
}

/// Makes the link between the router and gateway B narrow.
fn narrow(topology: &Topology) -> Result<()> {
    let mtu = NARROW.to_string();
    topology.router.ip(&["link", "set", TO_B, "mtu", &mtu])?;
    topology.gateway_b.ip(&["link", "set", WAN, "mtu", &mtu]).map(|_| ())
}

/// A long packet is lost, the router says why, and from then on the sender is told.
fn learns(topology: &Topology, pair: &Pair, host_b: IpAddr, inner: u16) -> Result<()> {
    // Fits both interfaces under every overhead that is tried here.
    let first = ping(&topology.host_a, host_b, "do", 1380)?;
    ensure!(!first.contains(" 3 received"), "{first}");
    shown(&pair.a, NARROW, inner).with_context(|| pair.words())?;
    shown(&pair.b, NARROW, inner).with_context(|| pair.words())?;
    let told = ping(&topology.host_a, host_b, "do", 1380)?;
    ensure!(told.contains(&format!("mtu = {inner}")) || told.contains(&format!("mtu={inner}")), "{told}");
    // Exactly what is said to fit does fit.
    let fits = ping(&topology.host_a, host_b, "do", inner - 28)?;
    ensure!(fits.contains(" 3 received"), "{fits}");
    Ok(())
}

/// Errors that quote packets nobody has sent change nothing, however many there are.
pub(crate) fn strangers() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    shown(&pair.a, 1500, 1446)?;
    let real = pair.sniff_esp(&topology)?;
    let router = router_of(GATEWAY_A);
    let too_big = |quoted: &[u8]| {
        let mut icmp = vec![3, 4, 0, 0, 0, 0];
        icmp.extend(600u16.to_be_bytes());
        icmp.extend(&quoted[..28]);
        let sum: u32 = icmp.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let check = !((sum & 0xffff) as u16 + (sum >> 16) as u16);
        icmp[2..4].copy_from_slice(&check.to_be_bytes());
        inject::ipv4(router, GATEWAY_A, 1, &icmp)
    };
    let changed = |at: usize, value: u8| {
        let mut packet = real[0].clone();
        packet[at] ^= value;
        too_big(&packet)
    };
    // Another SPI, another sequence number far ahead, another peer; then a flood of them.
    let mut forged = vec![changed(20, 1), changed(24, 0x40), changed(19, 3)];
    forged.extend((0..2000u32).map(|n| {
        let mut packet = real[0].clone();
        packet[20..24].copy_from_slice(&(0x1000_0000 + n).to_be_bytes());
        too_big(&packet)
    }));
    inject::packets(&topology.router, GATEWAY_A, &forged)?;
    pair.still_works(&topology)?;
    std::thread::sleep(Duration::from_millis(1200));
    shown(&pair.a, 1500, 1446)?;
    // The very same about a packet that was sent is believed: it was what they quote that was wrong.
    inject::packets(&topology.router, GATEWAY_A, &[too_big(&real[0])])?;
    shown(&pair.a, 600, 546)?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

/// Waits until status and metrics tell of these MTUs.
fn shown(gateway: &Adit, path: u16, mtu: u16) -> Result<()> {
    let labels = [("tunnel", gateway.tunnel())];
    let mut last = String::new();
    let waited = wait_for("the effective MTU to be shown", Duration::from_secs(5), || {
        let metrics = gateway.metrics()?;
        let found = ["adit_tunnel_path_mtu_bytes", "adit_tunnel_mtu_bytes"].map(|m| metrics.get(m, &labels));
        last = format!("{found:?}");
        Ok(found == [Some(path.into()), Some(mtu.into())])
    });
    waited.with_context(|| format!("expected {path} and {mtu}, found {last}"))?;
    let text = gateway.done(&["tunnel", "show", gateway.tunnel()])?;
    ensure!(text.contains(&format!("MTU {mtu} on a path of {path}")), "{text}");
    Ok(())
}

/// What `ping` says of three packets with so many bytes of data.
fn ping(from: &Namespace, to: IpAddr, discovery: &str, size: u16) -> Result<String> {
    let arguments = ["-n", "-c", "3", "-i", "0.2", "-W", "1", "-M", discovery, "-s", &size.to_string()];
    let output = from.command("ping").args(arguments).arg(to.to_string()).output();
    let output = output.context("`ping` could not be started; `cargo xtask setup` installs it")?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
