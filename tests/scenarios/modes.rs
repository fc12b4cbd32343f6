//! How packets come and go: XDP in the driver, in the kernel's generic path, and not at all. The same traffic crosses in
//! each, and the gateway says which it is and why.

use adit_tests::adit::{Adit, binary, configuration};
use adit_tests::capture::{Capture, Kind};
use adit_tests::inject;
use adit_tests::namespace::wait_for;
use adit_tests::pair::{PATIENCE, Pair};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::{AES128_SHA1, AES256_GCM, Site};
use adit_tests::stream::Stream;
use adit_tests::topology::{HOST_A, HOST_B, SIDE_A6, SIDE_B6, TO_A, Topology};
use adit_tests::traffic::{ping, ping_until_answered, tcp_stream};
use anyhow::{Context, Result, ensure};
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// From one numbered datagram to the next.
const PACE: Duration = Duration::from_millis(10);

/// Protocols, and type and code of a protocol that is unreachable (RFC 792).
const ICMP: u8 = 1;
const ESP: u8 = 50;
const UNREACHABLE: [u8; 2] = [3, 2];

/// Port of the datagrams that are sent in clear.
const PROBE: u16 = 7777;

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("xdp_in_the_driver_copies_where_there_is_no_zero_copy", || {
            carries("auto", "driver", "has no zero-copy")
        }),
        Scenario::new("xdp_in_the_driver_by_configuration", || carries("driver", "driver", "configuration")),
        Scenario::new("xdp_in_the_generic_path", || carries("generic", "generic", "configuration")),
        Scenario::new("sockets_carry_the_same_without_xdp", || carries("none", "sockets", "configuration")),
        Scenario::new("sockets_speak_with_xdp", sockets_and_xdp),
        Scenario::new("the_way_changes_while_packets_go_and_nothing_is_in_clear", changes),
        Scenario::new("zero_copy_that_is_not_there_is_refused_in_words", no_zero_copy),
        Scenario::new("without_xdp_nothing_passes_in_clear", nothing_in_clear),
        Scenario::new("a_capture_holds_what_is_inside_and_outside", capture),
        Scenario::new("a_capture_comes_with_keys_where_that_is_allowed_and_asked_for", capture_with_keys),
        Scenario::new("the_backend_of_the_cryptography_is_shown_and_chosen", backend),
    ])
}

/// The configuration of an end, with this way for its packets.
fn start(topology: &Topology, site: &Site, xdp: &str) -> Result<Adit> {
    let namespace = if site.name == "a" { &topology.gateway_a } else { &topology.gateway_b };
    Adit::start_with(namespace, &site.tunnel(), |directory| {
        configuration(site, directory).replace("\n[api]", &format!("xdp = \"{xdp}\"\n\n[api]"))
    })
}

/// Two connected Adits, each with its way for packets.
fn pair(topology: &Topology, sites: &[Site; 2], xdp: [&str; 2], host_b: IpAddr) -> Result<Pair> {
    let b = start(topology, &sites[1], xdp[1])?;
    let a = start(topology, &sites[0], xdp[0])?;
    let mut pair = Pair { a, b };
    pair.a.wait_connected(PATIENCE)?;
    pair.b.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, host_b, PATIENCE).with_context(|| pair.words())?;
    Ok(pair)
}

/// IPv4 in native ESP, IPv6 in native ESP over IPv6, and IPv4 in UDP through NAT.
fn carries(xdp: &str, mode: &str, reason: &str) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let sites = [Site::a(&topology), Site::b(&topology)];
    let native = pair(&topology, &sites, [xdp; 2], HOST_B.into())?;
    crosses(&topology, &native, [HOST_A.into(), HOST_B.into()], Kind::Esp)?;
    for gateway in [&native.a, &native.b] {
        shows(gateway, mode, reason)?;
    }
    native.end(topology)?;

    let topology = Topology::two_sites(Run::begin()?)?;
    topology.add_ipv6()?;
    let sites = [Site::a(&topology), Site::b(&topology)].map(|site| site.ipv6_outside().ipv6_inside());
    let (a, b) = (SIDE_A6.host.parse::<IpAddr>()?, SIDE_B6.host.parse::<IpAddr>()?);
    let ipv6 = pair(&topology, &sites, [xdp; 2], b)?;
    crosses(&topology, &ipv6, [a, b], Kind::Esp).context("IPv6")?;
    ipv6.end(topology)?;

    let topology = Topology::behind_nat(Run::begin()?)?;
    let sites = [Site::a(&topology), Site::b(&topology)];
    let in_udp = pair(&topology, &sites, [xdp; 2], HOST_B.into())?;
    crosses(&topology, &in_udp, [HOST_A.into(), HOST_B.into()], Kind::EspInUdp).context("in UDP")?;
    in_udp.end(topology)
}

fn sockets_and_xdp() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let sites = [Site::a(&topology), Site::b(&topology)];
    let pair = pair(&topology, &sites, ["none", "auto"], HOST_B.into())?;
    crosses(&topology, &pair, [HOST_A.into(), HOST_B.into()], Kind::Esp)?;
    pair.end(topology)
}

/// Every way after every other, under a stream: the SAs stay, and no packet of it is seen outside. So do they with other
/// settings of IKE, which are followed: whoever comes then has to show a cookie.
fn changes() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let sites = [Site::a(&topology), Site::b(&topology)];
    let pair = pair(&topology, &sites, ["auto"; 2], HOST_B.into())?;
    let (tunnel, spis) = (pair.b.tunnel(), pair.b.spis_of(pair.b.tunnel())?);
    let capture = Capture::start(&topology.router, TO_A)?;
    let hosts = [(&topology.host_a, IpAddr::V4(HOST_A)), (&topology.host_b, IpAddr::V4(HOST_B))];
    let stream = Stream::start(hosts[0], hosts[1], PACE)?;
    for (xdp, mode) in [("generic", "generic"), ("none", "sockets"), ("driver", "driver"), ("auto", "driver")]
    {
        pair.b.done(&["gateway", "edit", "b", &format!("xdp={xdp}")])?;
        wait_for(&format!("gateway B with xdp = {xdp:?}"), PATIENCE, || {
            let status: Value = serde_json::from_str(&pair.b.done(&["status", "--json"])?)?;
            let ports = status["ports"].as_array().map_or(&[][..], Vec::as_slice);
            Ok(ports.len() == 2 && ports.iter().all(|port| port["mode"] == mode))
        })
        .with_context(|| pair.words())?;
        ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
        ping(&topology.host_b, HOST_A, 3, 56)?.expect_all().with_context(|| pair.words())?;
    }
    let count = stream.finish()?;
    ensure!(count.forth.received > 0 && count.back.received > 0, "{count:?}");

    let stream = Stream::start(hosts[0], hosts[1], PACE)?;
    pair.b.reload(|directory| {
        configuration(&sites[1], directory).replace("\n[api]", "[gateway.ike]\ncookie_threshold = 0\n\n[api]")
    })?;
    stream.finish()?.expect_all().with_context(|| pair.words())?;
    ensure!(pair.b.spis_of(tunnel)? == spis, "other Child SAs than before: {:?}", pair.b.spis_of(tunnel)?);
    let asked =
        || pair.b.metrics()?.expect("adit_ike_datagrams_dropped_total", &[("cause", "cookie_demanded")]);
    ensure!(asked()? == 0.0, "{}", pair.words());
    pair.a.done(&["tunnel", "down", pair.a.tunnel()])?;
    pair.a.done(&["tunnel", "up", pair.a.tunnel()])?;
    wait_for("a cookie to be asked for", PATIENCE, || Ok(asked()? > 0.0)).with_context(|| pair.words())?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
    // While neither XDP nor a socket takes ESP, the kernel tells its sender so.
    let refusal = |frame: &Vec<u8>| (frame[23], &frame[34..36], frame[51]) == (ICMP, &UNREACHABLE, ESP);
    let mut clear = capture.finish()?.frames(Kind::Plaintext)?;
    clear.retain(|frame| frame.len() < 52 || !refusal(frame));
    ensure!(clear.is_empty(), "{} packets crossed the router in clear: {clear:x?}", clear.len());
    pair.end(topology)
}

/// Pings and a TCP stream cross, both ways and as nothing but `kind`.
fn crosses(topology: &Topology, pair: &Pair, hosts: [IpAddr; 2], kind: Kind) -> Result<()> {
    let capture = Capture::start(&topology.router, TO_A)?;
    for size in [56, 1200] {
        ping(&topology.host_a, hosts[1], 3, size)?.expect_all().with_context(|| pair.words())?;
        ping(&topology.host_b, hosts[0], 3, size)?.expect_all().with_context(|| pair.words())?;
    }
    tcp_stream(&topology.host_a, &topology.host_b, hosts[1], 1).with_context(|| pair.words())?;
    let tally = capture.finish()?.tally()?;
    tally.expect_no_plaintext("the router")?;
    ensure!(tally.count(kind) > 100, "a TCP stream and hardly any {kind}: {tally}");
    Ok(())
}

/// Status, its table and the metrics say how packets come and go by every port, and why so.
fn shows(gateway: &Adit, mode: &str, reason: &str) -> Result<()> {
    let status: Value = serde_json::from_str(&gateway.done(&["status", "--json"])?)?;
    let ports = status["ports"].as_array().context("no ports in the status")?;
    ensure!(ports.len() == 2, "two ports, and the status has {ports:?}");
    for port in ports {
        let said = port["reason"].as_str().unwrap_or_default();
        ensure!(
            port["mode"] == mode && said.contains(reason),
            "{mode} because {reason:?}, and {port} is told"
        );
    }
    let table = gateway.done(&["status"])?;
    ensure!(table.lines().any(|l| l.contains(&format!(": {mode}, ")) && l.contains(reason)), "{table}");
    let told = gateway.metrics()?.expect("adit_port_info", &[("mode", mode)])?;
    ensure!(told == 2.0, "adit_port_info adds up to {told}");
    Ok(())
}

fn no_zero_copy() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let refused = start(&topology, &Site::a(&topology), "zero-copy").err();
    let words = refused.map(|e| format!("{e:#}")).context("a veth has zero-copy all of a sudden")?;
    for part in ["interface", "AF_XDP socket on queue 0", "no zero-copy", "gateway.xdp = \"auto\""] {
        ensure!(words.contains(part), "{part:?} is missing in {words:?}");
    }
    topology.end()
}

/// What the routes and rules of the kernel have to keep, where no XDP program does.
fn nothing_in_clear() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let sites = [Site::a(&topology), Site::b(&topology)];
    let mut pair = pair(&topology, &sites, ["none", "auto"], HOST_B.into())?;

    // Out of the blue, on the WAN: first from somebody whom no policy knows, to see that the way is open.
    let stranger = Ipv4Addr::new(203, 0, 113, 9);
    ensure!(arrive(&topology, stranger)? == 5, "what is not protected is not forwarded either");
    ensure!(arrive(&topology, HOST_B)? == 0, "what came in clear was forwarded");

    let capture = Capture::start(&topology.router, TO_A)?;
    let mut command = topology.host_a.command("ping");
    command.args(["-n", "-q", "-i", "0.01", &HOST_B.to_string()]);
    let mut stream = topology.host_a.spawn("ping", &mut command)?;
    std::thread::sleep(Duration::from_millis(200));
    pair.a.process().signal(libc::SIGKILL)?;
    pair.a.process().wait(PATIENCE)?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(arrive(&topology, HOST_B)? == 0, "what came in clear was forwarded after a SIGKILL");
    topology.gateway_a.ip(&["link", "delete", "adit0"])?;
    std::thread::sleep(Duration::from_millis(500));
    pair.a.restart()?;
    pair.a.wait_connected(Duration::from_secs(60))?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| pair.words())?;
    stream.kill();
    let tally = capture.finish()?.tally()?;
    // The probes themselves are in clear, and came from the router.
    let ours = tally.plaintext().saturating_sub(5);
    ensure!(ours == 0, "{ours} packets left in clear: {tally}");
    pair.end(topology)
}

/// How many of five datagrams in clear, said to be from `source`, come through gateway A to host A.
fn arrive(topology: &Topology, source: Ipv4Addr) -> Result<usize> {
    let capture =
        Capture::whole(&topology.host_a, "eth0", &format!("udp port {PROBE} and src host {source}"))?;
    let probe = inject::ipv4(source, HOST_A, 17, &inject::udp(PROBE, PROBE, b"in clear"));
    inject::packets(&topology.router, HOST_A, &vec![probe; 5])?;
    Ok(capture.finish()?.frames(Kind::Plaintext)?.len())
}

fn backend() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let directory = topology.run().directory().join("backend");
    fs::create_dir_all(&directory)?;
    let file = directory.join("adit.toml");
    fs::write(&file, configuration(&Site::a(&topology).initiating(false), &directory))?;
    let binary = binary()?;
    let has = fs::read_to_string("/proc/cpuinfo")?;
    let are_there =
        |flags: &[&str]| flags.iter().all(|flag| has.split_whitespace().any(|there| there == *flag));
    let narrow = if are_there(&["aes", "pclmulqdq", "ssse3", "sse4_1"]) { "aesni" } else { "portable" };
    let fastest = match narrow {
        "aesni" if are_there(&["avx512f", "avx512bw", "avx512vl", "vaes", "vpclmulqdq"]) => "avx512",
        "aesni" if are_there(&["avx2"]) => "avx2",
        narrow => narrow,
    };
    for (asked, expected) in [(None, fastest), (Some("aesni"), narrow), (Some("portable"), "portable")] {
        let mut command = topology.gateway_a.command(&binary.to_string_lossy());
        command.arg("run").arg("--config").arg(&file).arg("--bpf-dir").arg(directory.join("bpf"));
        command.arg("--data-dir").arg(directory.join("data"));
        command.envs(asked.map(|asked| ("ADIT_CRYPTO", asked)));
        let mut adit = topology.gateway_a.spawn("adit-backend", &mut command)?;
        let mut told = Value::Null;
        let waited = wait_for("the data plane to tell its backend", PATIENCE, || {
            let mut command = topology.gateway_a.command(&binary.to_string_lossy());
            let output =
                command.args(["status", "--json", "--socket"]).arg(directory.join("adit.sock")).output()?;
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            told = status["data_plane"]["crypto"].clone();
            Ok(told.is_string())
        });
        waited.with_context(|| adit.log_tail(15))?;
        ensure!(told == expected, "the backend is {told}, {expected} was expected");
        adit.stop()?;
    }
    topology.end()
}

/// Five pings each way: twenty packets inside, as many outside, each with its direction.
fn capture() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    for (asked, expected) in [("--both", [20, 20]), ("--inner", [20, 0]), ("--outer", [0, 20])] {
        let file = topology.run().directory().join(format!("capture{asked}.pcapng"));
        captured(&topology, &pair, &[asked], &file, || {
            ping(&topology.host_a, HOST_B, 5, 333)?.expect_all()?;
            ping(&topology.host_b, HOST_A, 5, 333)?.expect_all().map(drop)
        })?;
        is_private(&file)?;
        let counts = count(&file)?;
        ensure!(counts == expected, "{asked}: {counts:?} packets inside and outside, {expected:?} expected");
    }
    pair.end(topology)
}

/// Captures at gateway A what passes during `work`.
fn captured(
    topology: &Topology,
    pair: &Pair,
    arguments: &[&str],
    file: &Path,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let socket = pair.a.configuration().with_file_name("adit.sock");
    let mut command = topology.gateway_a.command(&binary()?.to_string_lossy());
    command.args(["tunnel", "capture", pair.a.tunnel(), "-w"]).arg(file);
    command.args(arguments).arg("--socket").arg(socket);
    let mut running = topology.gateway_a.spawn("adit-capture", &mut command)?;
    wait_for("the capture to begin", PATIENCE, || Ok(fs::metadata(file).is_ok_and(|m| m.len() > 0)))
        .with_context(|| running.log_tail(5))?;
    work()?;
    running.signal(libc::SIGINT)?;
    ensure!(running.wait(PATIENCE)?.success(), "{}", running.log_tail(5));
    Ok(())
}

fn is_private(file: &Path) -> Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file)?.permissions());
    ensure!(mode & 0o777 == 0o600, "{} has mode {mode:o}", file.display());
    Ok(())
}

/// Wireshark's sister opens what is outside by the keys that came with it, of the SAs before a rekey and behind it; who may
/// not have them is told so, and has no capture either.
fn capture_with_keys() -> Result<()> {
    for suite in [AES256_GCM, AES128_SHA1] {
        let topology = Topology::two_sites(Run::begin()?)?;
        let sites = [Site::a(&topology), Site::b(&topology)].map(|site| site.with(suite));
        let pair = Pair::with(&topology, &sites, HOST_B.into(), |name, text| match name {
            "a" => text.replace("[api]\n", "[api]\ncapture_keys = true\n"),
            _ => text,
        })?;
        let directory = topology.run().directory().join("wireshark");
        fs::create_dir_all(&directory)?;
        let (file, keys) = (directory.join("outer.pcapng"), directory.join("esp_sa"));
        let old = pair.a.spis_of(pair.a.tunnel())?;
        captured(&topology, &pair, &["--outer", "--keys", &keys.to_string_lossy()], &file, || {
            ping(&topology.host_a, HOST_B, 5, 333)?.expect_all()?;
            pair.a.done(&["tunnel", "rekey", pair.a.tunnel(), "--child"])?;
            wait_for("other Child SAs", PATIENCE, || {
                let now = pair.a.spis_of(pair.a.tunnel())?;
                Ok(now.len() == 1 && now != old)
            })?;
            ping(&topology.host_b, HOST_A, 5, 333)?.expect_all().map(drop)
        })?;
        is_private(&keys)?;
        let lines = fs::read_to_string(&keys)?;
        ensure!(lines.lines().count() == 4, "{} lines of keys for two pairs of SAs", lines.lines().count());
        let opened = opened(&directory, &file)?;
        ensure!(opened == 20, "{}: {opened} of 20 pings were found in ESP", suite.name);

        // What is secret is in the file alone: of 16 bytes and more, which no SPI or address is.
        let log = pair.a.log();
        let secrets = lines.split(['"', ',']).filter_map(|w| w.strip_prefix("0x")).filter(|w| w.len() >= 32);
        ensure!(secrets.clone().count() >= 4 && secrets.clone().all(|s| !log.contains(s)), "keys in the log");

        let refused = directory.join("refused.pcapng");
        let output = topology
            .gateway_b
            .command(&binary()?.to_string_lossy())
            .args(["tunnel", "capture", pair.b.tunnel(), "-w"])
            .arg(&refused)
            .arg("--keys")
            .arg(directory.join("refused"))
            .arg("--socket")
            .arg(pair.b.configuration().with_file_name("adit.sock"))
            .output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && words.contains("capture_keys = true"), "not refused: {words}");
        ensure!(!refused.exists() && !directory.join("refused").exists(), "files of a refused capture");
        pair.end(topology)?;
    }
    Ok(())
}

/// How many echo requests and replies tshark finds in the ESP of a capture, with the table of SAs in `directory`.
fn opened(directory: &Path, file: &Path) -> Result<usize> {
    let output = Command::new("tshark")
        .env("WIRESHARK_CONFIG_DIR", directory)
        .args(["-o", "esp.enable_encryption_decode:TRUE", "-Y", "esp && icmp", "-T", "fields"])
        .args(["-e", "icmp.seq", "-r"])
        .arg(file)
        .output()
        .context("`tshark` could not be started; `cargo xtask setup` installs it")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tshark: {words}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().count())
}

/// Pings of 333 bytes in clear, and packets of ESP, in a capture.
fn count(file: &Path) -> Result<[usize; 2]> {
    let mut reader = PcapNgReader::new(fs::File::open(file)?)?;
    let mut counts = [0; 2];
    while let Some(block) = reader.next_block() {
        let (Block::EnhancedPacket(packet), _) = block? else { continue };
        let ip = etherparse::SlicedPacket::from_ip(&packet.data)?;
        let protocol = ip.net.as_ref().and_then(|net| net.ip_payload_ref()).context("no IP")?.ip_number;
        let (interface, wanted) = match protocol {
            etherparse::IpNumber::ICMP => (0, packet.data.len() == 20 + 8 + 333),
            etherparse::IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => (1, true),
            other => anyhow::bail!("{other:?} in the capture"),
        };
        ensure!(packet.interface_id == interface, "{protocol:?} on interface {}", packet.interface_id);
        counts[interface as usize] += usize::from(wanted);
    }
    Ok(counts)
}
