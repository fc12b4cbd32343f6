//! Two Adits: they join their sites, keep quiet on the WAN whatever happens to them, and are not impressed by what
//! nobody should send.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_tests::adit::{Adit, HOSTS, configuration};
use adit_tests::capture::{Capture, Kind};
use adit_tests::demo;
use adit_tests::inject::{self, Noise};
use adit_tests::metrics::Metrics;
use adit_tests::namespace::wait_for;
use adit_tests::pair::{PATIENCE, Pair};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::{AES128_SHA1, Site};
use adit_tests::topology::{GATEWAY_A, GATEWAY_B, HOST_A, HOST_B, SIDE_A6, SIDE_B6, TO_A, TO_B, Topology};
use adit_tests::traffic::{ping, ping_until_answered, tcp_stream};
use anyhow::{Context, Result, ensure};

/// After a crash, the other end may first have to find out.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("traffic_without_a_gateway_is_seen_in_clear", plain_forwarding_is_seen),
        Scenario::new("the_demo_shows_a_tunnel_and_leaves_nothing_behind", the_demo_holds),
        Scenario::new("aes_cbc_with_sha1_joins_two_adits", old_algorithms),
        Scenario::new("ipv4_and_ipv6_go_in_ipv6_and_ipv6_goes_in_ipv4", ipv6),
        Scenario::new("damaged_ike_datagrams_are_counted_and_change_nothing", damaged_ike),
        Scenario::new("an_unknown_spi_is_counted_and_changes_nothing", unknown_spi),
        Scenario::new("a_wrong_icv_is_counted_and_changes_nothing", wrong_icv),
        Scenario::new("a_replay_is_counted_and_changes_nothing", replay),
        Scenario::new("a_wrong_configuration_is_told_and_not_taken", wrong_configuration),
        Scenario::new("without_an_answer_nothing_leaves_in_clear", peer_never_answers),
        Scenario::new("nothing_leaves_in_clear_after_sigterm", || survives(libc::SIGTERM)),
        Scenario::new("nothing_leaves_in_clear_after_sigkill", || survives(libc::SIGKILL)),
        Scenario::new("the_gateway_itself_uses_the_tunnel_or_nothing", own_traffic),
        Scenario::new("behind_nat_the_tunnel_floats_to_4500", behind_nat),
        Scenario::new("a_peers_name_is_looked_up_at_every_attempt", peer_by_name),
        Scenario::new("a_name_and_a_peer_from_anywhere_are_of_either_family", either_family),
    ])
}

/// The lab sees a leak when there is one: else the other scenarios would prove nothing.
fn plain_forwarding_is_seen() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let capture = Capture::start(&topology.router, TO_A)?;
    ping(&topology.host_a, HOST_B, 3, 56)?.expect_all()?;
    tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1)?;
    let tally = capture.finish()?.tally()?;
    ensure!(tally.plaintext() >= 6, "three pings and a TCP stream in clear, and the capture has {tally}");
    topology.end()
}

fn the_demo_holds() -> Result<()> {
    let report = demo::run(|_| ())?;
    let json = report.json();
    let number =
        |pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
    ensure!(json["tunnel"] == "connected", "{json}");
    ensure!(number("/plaintext_packets_on_wan") == 0.0, "{json}");
    for positive in ["/handshake_ms", "/ping_ms", "/tcp_mbit", "/esp_packets_on_wan"] {
        ensure!(number(positive) > 0.0, "{positive} in {json}");
    }
    for (metrics, tunnel) in report.metrics.iter().zip(&report.tunnels) {
        let labels = [("tunnel", tunnel.as_str())];
        ensure!(metrics.expect("adit_tunnel_health", &labels)? == 1.0, "health of {tunnel}");
        for direction in ["in", "out"] {
            let labels = [("tunnel", tunnel.as_str()), ("direction", direction)];
            let (packets, bytes) = ("adit_tunnel_packets_total", "adit_tunnel_bytes_total");
            ensure!(
                metrics.expect(packets, &labels)? > 10.0,
                "{packets} {direction} of {tunnel} misses the pings"
            );
            ensure!(
                metrics.expect(bytes, &labels)? > 840.0,
                "{bytes} {direction} of {tunnel} misses the pings"
            );
        }
    }
    Ok(())
}

fn old_algorithms() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let sites = [Site::a(&topology), Site::b(&topology)].map(|site| site.with(AES128_SHA1));
    carries(&topology, sites, HOST_A.into(), HOST_B.into())?;
    topology.end()
}

fn ipv6() -> Result<()> {
    let (host_a, host_b) = (SIDE_A6.host.parse::<IpAddr>()?, SIDE_B6.host.parse::<IpAddr>()?);
    for (outside, inside) in [(true, false), (true, true), (false, true)] {
        let topology = Topology::two_sites(Run::begin()?)?;
        topology.add_ipv6()?;
        let sites = [Site::a(&topology), Site::b(&topology)].map(|site| {
            let site = if outside { site.ipv6_outside() } else { site };
            if inside { site.ipv6_inside() } else { site }
        });
        let (a, b) = if inside { (host_a, host_b) } else { (HOST_A.into(), HOST_B.into()) };
        carries(&topology, sites, a, b)
            .with_context(|| format!("IPv6 outside {outside}, inside {inside}"))?;
        topology.end()?;
    }
    Ok(())
}

/// Pings and TCP go both ways between the hosts, as native ESP and nothing else.
fn carries(topology: &Topology, sites: [Site; 2], host_a: IpAddr, host_b: IpAddr) -> Result<()> {
    let capture = Capture::start(&topology.router, TO_A)?;
    let pair = Pair::of(topology, &sites, host_b)?;
    ping(&topology.host_a, host_b, 5, 1200)?.expect_all().with_context(|| pair.words())?;
    ping(&topology.host_b, host_a, 5, 1200)?.expect_all().with_context(|| pair.words())?;
    tcp_stream(&topology.host_a, &topology.host_b, host_b, 1).with_context(|| pair.words())?;
    tcp_stream(&topology.host_b, &topology.host_a, host_a, 1).with_context(|| pair.words())?;
    let tally = capture.finish()?.tally()?;
    tally.expect_no_plaintext("the router")?;
    ensure!(tally.count(Kind::Esp) > 100, "two TCP streams and hardly any ESP: {tally}");
    pair.stop()
}

fn damaged_ike() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let capture = Capture::whole(&topology.router, TO_B, "udp port 500 or udp port 4500")?;
    let pair = Pair::on(&topology)?;
    // Ethernet, IPv4 and UDP headers come before the message.
    let real: Vec<Vec<u8>> =
        capture.finish()?.frames(Kind::Ike)?.iter().map(|frame| frame[42..].to_vec()).collect();
    ensure!(real.len() >= 4, "a handshake has four messages, {} were captured", real.len());
    let mut noise = Noise::new(0x5eed);
    let before = pair.b.metrics()?;
    let mut to_500: Vec<Vec<u8>> = (0..100).map(|length| noise.bytes(length * 7)).collect();
    let mut to_4500: Vec<Vec<u8>> =
        (0..50).map(|length| [&[0; 4], &noise.bytes(length * 11)[..]].concat()).collect();
    for message in &real {
        let message = message.strip_prefix(&[0; 4]).unwrap_or(message);
        for part in [1, 16, 27, 28, 29, 40, message.len() / 2, message.len() - 1] {
            let cut = message[..part.min(message.len() - 1)].to_vec();
            to_4500.push([&[0; 4], &cut[..]].concat());
            to_500.push(cut);
        }
    }
    let sent = (to_500.len() + to_4500.len()) as f64;
    inject::datagrams(&topology.router, SocketAddr::from((GATEWAY_B, 500)), &to_500)?;
    inject::datagrams(&topology.router, SocketAddr::from((GATEWAY_B, 4500)), &to_4500)?;
    pair.counted("IKE datagrams dropped", sent * 0.9, || {
        Ok(ike_drops(&pair.b.metrics()?) - ike_drops(&before))
    })?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

fn unknown_spi() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    let before = pair.b.metrics()?;
    let mut noise = Noise::new(1);
    let native: Vec<Vec<u8>> = (0..20)
        .map(|n| inject::ipv4(GATEWAY_A, GATEWAY_B, 50, &inject::esp(0x0bad_0000 + n, n, &noise.bytes(80))))
        .collect();
    let in_udp: Vec<Vec<u8>> = (0..20)
        .map(|n| {
            let esp = inject::esp(0x0bad_1000 + n, n, &noise.bytes(80));
            inject::ipv4(GATEWAY_A, GATEWAY_B, 17, &inject::udp(4500, 4500, &esp))
        })
        .collect();
    inject::packets(&topology.router, GATEWAY_B, &native)?;
    inject::packets(&topology.router, GATEWAY_B, &in_udp)?;
    pair.dropped_by_b(&before, "unknown_spi", 40.0)?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

fn wrong_icv() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    let real = pair.sniff_esp(&topology)?;
    let before = pair.b.metrics()?;
    let forged: Vec<Vec<u8>> = (1..=20u32)
        .map(|n| {
            let mut packet = real[0].clone();
            // A sequence number that was not seen, so that authentication is what stops it.
            let sequence = u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]]) + 500 + n;
            packet[24..28].copy_from_slice(&sequence.to_be_bytes());
            let last = packet.len() - 1;
            packet[last] ^= 0x5a;
            packet
        })
        .collect();
    inject::packets(&topology.router, GATEWAY_B, &forged)?;
    pair.dropped_by_b(&before, "authentication", 20.0)?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

fn replay() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    let real = pair.sniff_esp(&topology)?;
    let before = pair.b.metrics()?;
    inject::packets(&topology.router, GATEWAY_B, &real)?;
    inject::packets(&topology.router, GATEWAY_B, &real)?;
    pair.dropped_by_b(&before, "replay", 2.0 * real.len() as f64)?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

fn wrong_configuration() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    let file = pair.a.configuration();
    let right = fs::read_to_string(&file)?;
    let line = 1 + right.lines().position(|line| line == "dh = 31").context("no dh in the configuration")?;
    fs::write(&file, right.replace("dh = 31", "dh = 77"))?;
    let refused = pair.a.command(&["reload"])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success(), "a wrong configuration was taken: {words}");
    for part in [&*format!("{}:{line}:", file.display()), "tunnel \"a-b\".ike.dh", "77", "allowed: "] {
        ensure!(words.contains(part), "{part:?} is missing in {words:?}");
    }
    ensure!(
        pair.a.metrics()?.expect("adit_config_reload_refused", &[])? == 1.0,
        "the refusal is not in /metrics"
    );
    pair.still_works(&topology)?;
    // The right file is taken again, and changes nothing either.
    fs::write(&file, right)?;
    let taken = pair.a.command(&["reload"])?;
    ensure!(taken.status.success(), "the right one is refused: {}", String::from_utf8_lossy(&taken.stderr));
    pair.still_works(&topology)?;
    pair.end(topology)
}

fn peer_never_answers() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    // Not even an ICMP error finds its way back from there.
    topology.gateway_b.ip(&["route", "replace", "blackhole", "default"])?;
    let capture = Capture::start(&topology.router, TO_A)?;
    let a = Adit::start(&topology.gateway_a, &Site::a(&topology))?;
    let answer = ping(&topology.host_a, HOST_B, 10, 56)?;
    ensure!(answer.received == 0, "{answer:?} without a tunnel");
    let metrics = a.metrics()?;
    for metric in ["adit_tunnel_health", "adit_tunnel_bytes_total", "adit_tunnel_packets_total"] {
        let value = metrics.expect(metric, &[("tunnel", a.tunnel())])?;
        ensure!(value == 0.0, "{metric} of a tunnel that is down is {value}");
    }
    ensure!(a.state()? != "connected", "connected with nobody");
    let tally = capture.finish()?.tally()?;
    tally.expect_no_plaintext("the router").with_context(|| a.log_tail(15))?;
    ensure!(tally.count(Kind::Ike) > 0, "gateway A did not even try: {tally}");
    drop(a);
    topology.end()
}

/// Ends gateway A's Adit with a signal, and starts it again.
fn survives(signal: i32) -> Result<()> {
    let (topology, mut pair) = Pair::up()?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    let capture = Capture::start(&topology.router, TO_A)?;
    // Packets are on their way at every moment of the end and of the new beginning.
    let mut command = topology.host_a.command("ping");
    command.args(["-n", "-q", "-i", "0.01", &HOST_B.to_string()]);
    let mut stream = topology.host_a.spawn("ping", &mut command)?;
    std::thread::sleep(Duration::from_millis(300));
    pair.a.process().signal(signal)?;
    pair.a.process().wait(Duration::from_secs(10))?;
    std::thread::sleep(Duration::from_secs(2));
    pair.a.restart()?;
    pair.a.wait_connected(LONG_PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
    stream.kill();
    capture.finish()?.tally()?.expect_no_plaintext("the router").with_context(|| pair.words())?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

fn own_traffic() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    let capture = Capture::start(&topology.router, TO_A)?;
    ping(&topology.gateway_a, HOST_B, 5, 56)?.expect_all().with_context(|| pair.words())?;
    // Somebody takes the device away, and its routes go with it.
    topology.gateway_a.ip(&["link", "delete", "adit0"])?;
    let received = ping(&topology.gateway_a, HOST_B, 5, 56).map_or(0, |answer| answer.received);
    ensure!(received == 0, "{received} pings came through without the device");
    capture.finish()?.tally()?.expect_no_plaintext("the router").with_context(|| pair.words())?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

/// The name first leads where nobody is, then to the peer, then elsewhere again: who is connected stays so, and the next
/// attempt goes there.
fn peer_by_name() -> Result<()> {
    const NAME: &str = "site-b.example";
    const NOBODY: &str = "198.51.100.77";
    let topology = Topology::two_sites(Run::begin()?)?;
    let b = Adit::start(&topology.gateway_b, &Site::b(&topology))?;
    let site = Site::a(&topology);
    let (mut hosts, mut written) = (PathBuf::new(), Ok(()));
    let leads_to = |hosts: &Path, address: &str| fs::write(hosts, format!("{address} {NAME}\n"));
    let a = Adit::start_with(&topology.gateway_a, &site.tunnel(), |directory| {
        hosts = directory.join(HOSTS);
        written = leads_to(&hosts, NOBODY);
        configuration(&site, directory)
            .replace(&format!("address = \"{GATEWAY_B}\""), &format!("address = \"{NAME}\""))
            .replace(
                "[api]",
                "ike = { retransmit_after = 200, retransmit_ceiling = 200, attempts = 2 }\n\n[api]",
            )
    })?;
    written?;
    let mut pair = Pair { a, b };
    let tried = |address: &str| Ok(pair.a.status()?["remote"].as_str() == Some(address));
    wait_for("an attempt at the first address", PATIENCE, || tried(NOBODY)).with_context(|| pair.words())?;
    leads_to(&hosts, &GATEWAY_B.to_string())?;
    pair.a.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
    leads_to(&hosts, NOBODY)?;
    pair.a.done(&["tunnel", "rekey", "--ike", &site.tunnel()])?;
    pair.still_works(&topology)?;
    pair.a.done(&["tunnel", "down", &site.tunnel()])?;
    pair.a.done(&["tunnel", "up", &site.tunnel()])?;
    let tried = |address: &str| Ok(pair.a.status()?["remote"].as_str() == Some(address));
    wait_for("an attempt at the new address", PATIENCE, || tried(NOBODY)).with_context(|| pair.words())?;
    pair.end(topology)
}

/// Both gateways have an IPv4 and an IPv6 address, in this order. A knows B by a name; B takes A from anywhere.
fn either_family() -> Result<()> {
    const NAME: &str = "site-b.example";
    let topology = Topology::two_sites(Run::begin()?)?;
    topology.add_ipv6()?;
    let b = Site { peer_address: "any".to_owned(), ..Site::b(&topology) };
    let sites = [Site { peer_address: NAME.to_owned(), ..Site::a(&topology) }, b];
    let mut hosts = PathBuf::new();
    let write = |hosts: &Path, addresses: &[&str]| {
        fs::write(hosts, addresses.iter().map(|address| format!("{address} {NAME}\n")).collect::<String>())
    };
    let both = |site: &Site, six: &str, directory: &Path| {
        let address = format!("address = \"{}\"", site.address);
        configuration(site, directory).replacen(
            &address,
            &format!("address = [\"{}\", \"{six}\"]", site.address),
            1,
        )
    };
    let b = Adit::start_with(&topology.gateway_b, &sites[1].tunnel(), |directory| {
        both(&sites[1], SIDE_B6.gateway, directory)
    })?;
    let mut written = Ok(());
    let capture = Capture::start(&topology.router, TO_B)?;
    let a = Adit::start_with(&topology.gateway_a, &sites[0].tunnel(), |directory| {
        hosts = directory.join(HOSTS);
        written = write(&hosts, &[SIDE_B6.gateway]);
        both(&sites[0], SIDE_A6.gateway, directory)
    })?;
    written?;
    let mut pair = Pair { a, b };
    let met = |pair: &Pair, a: &str, b: &str| -> Result<()> {
        for (gateway, local, remote) in [(&pair.a, a, b), (&pair.b, b, a)] {
            let status = gateway.status()?;
            ensure!(status["local"] == local && status["remote"] == remote, "{status:#}\n{}", pair.words());
        }
        Ok(())
    };
    pair.a.wait_connected(PATIENCE).with_context(|| pair.words())?;
    pair.b.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
    met(&pair, SIDE_A6.gateway, SIDE_B6.gateway)?;
    // Each renews the SAs from where it is, and a restart of control finds them there.
    for side in [0, 1] {
        let gateway = if side == 0 { &pair.a } else { &pair.b };
        gateway.done(&["tunnel", "rekey", "--ike", &sites[side].tunnel()])?;
        pair.still_works(&topology)?;
    }
    pair.b.restart()?;
    pair.b.wait_connected(PATIENCE)?;
    pair.still_works(&topology)?;
    met(&pair, SIDE_A6.gateway, SIDE_B6.gateway)?;
    tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1).with_context(|| pair.words())?;
    let tally = capture.finish()?.tally()?;
    tally.expect_no_plaintext("the router")?;
    ensure!(tally.count(Kind::Esp) > 50, "a TCP stream and hardly any ESP: {tally}");

    // Where the name has both, the family of the gateway's first address counts.
    write(&hosts, &[SIDE_B6.gateway, &GATEWAY_B.to_string()])?;
    pair.a.done(&["tunnel", "down", &sites[0].tunnel()])?;
    pair.a.done(&["tunnel", "up", &sites[0].tunnel()])?;
    pair.a.wait_connected(PATIENCE).with_context(|| pair.words())?;
    pair.b.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
    met(&pair, &GATEWAY_A.to_string(), &GATEWAY_B.to_string())?;
    pair.still_works(&topology)?;
    pair.end(topology)
}

fn behind_nat() -> Result<()> {
    let topology = Topology::behind_nat(Run::begin()?)?;
    let (side_a, side_b) = (Capture::start(&topology.router, TO_A)?, Capture::start(&topology.router, TO_B)?);
    let pair = Pair::on(&topology)?;
    ping(&topology.host_a, HOST_B, 5, 56)?.expect_all().with_context(|| pair.words())?;
    ping(&topology.host_b, HOST_A, 5, 56)?.expect_all().with_context(|| pair.words())?;
    tcp_stream(&topology.host_a, &topology.host_b, HOST_B, 1)?;
    for (place, capture) in [("side A", side_a), ("side B", side_b)] {
        let tally = capture.finish()?.tally()?;
        tally.expect_no_plaintext(place)?;
        ensure!(tally.count(Kind::Esp) == 0, "ESP without UDP cannot cross the NAT: {tally}");
        ensure!(tally.count(Kind::EspInUdp) >= 20, "{place}: {tally}");
    }
    pair.end(topology)
}

/// IKE datagrams dropped, for whatever cause.
fn ike_drops(metrics: &Metrics) -> f64 {
    metrics.get("adit_ike_datagrams_dropped_total", &[]).unwrap_or(0.0)
}
