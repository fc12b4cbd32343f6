//! What `adit tunnel config` writes for the other side is loaded by the other side as it is, comes up, and carries traffic
//! both ways; so does what `adit tunnel import` reads.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use adit_tests::adit::{Adit, binary};
use adit_tests::interop::case::{Case, End, Network, Peer, Role, Shows, TUNNEL, Version, gateway};
use adit_tests::interop::station::{Kind, Station};
use adit_tests::namespace::wait_for;
use adit_tests::roots;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::starter::Starter;
use adit_tests::stream::exchange;
use adit_tests::topology::{GATEWAY_A, GATEWAY_B, LAN, Topology, WAN};
use anyhow::{Context, Result, bail, ensure};

const PATIENCE: Duration = Duration::from_secs(20);
const GCM: (&str, &str) = ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519");
const CBC: (&str, &str) = ("aes256-sha256-modp2048", "aes256-sha256-modp2048");
const OLD: (&str, &str) = ("3des-sha1-modp1024", "aes128-sha1");

fn main() -> std::process::ExitCode {
    let mut scenarios = vec![
        Scenario::new("a_running_gateway_gives_the_key_only_where_it_is_allowed", key_is_guarded),
        Scenario::new("another_adit_takes_ikev2", || adit(two_by_two(end(Version::V2, GCM)))),
        Scenario::new("another_adit_takes_ikev1", || adit(two_by_two(end(Version::Main, CBC)))),
        Scenario::new("an_adit_takes_the_place_of_a_strongswan", in_place_of_a_strongswan),
        Scenario::new("another_adit_takes_aggressive_mode", || adit(named(end(Version::Aggressive, CBC)))),
    ];
    let cases = [
        ("ikev2_with_an_aead", two_by_two(end(Version::V2, GCM)), Role::Initiates),
        ("ikev2_with_cbc_and_names", named(end(Version::V2, CBC)), Role::Responds),
        ("ikev1_in_main_mode", two_by_two(end(Version::Main, OLD)), Role::Responds),
        ("ikev1_in_aggressive_mode", key_id(end(Version::Aggressive, CBC)), Role::Initiates),
    ];
    for (name, end, role) in cases {
        let case = Case::new("peer-config", role, end, Shows::Traffic);
        let other = case.clone();
        scenarios.push(Scenario::new(format!("swanctl_takes_{name}"), || swanctl(case)));
        scenarios.push(Scenario::new(format!("ipsec_conf_takes_{name}"), move || ipsec_conf(&other)));
    }
    let nat = Case::new("peer-config", Role::Initiates, end(Version::V2, GCM), Shows::Traffic);
    let nat = Case { network: Network::NatAdit, ..nat };
    scenarios.push(Scenario::new("swanctl_takes_a_gateway_behind_nat", || swanctl(nat)));
    let esn = end(Version::V2, ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519-esn"));
    for (name, end, peer) in [
        ("swanctl_on_a_kernel_takes_esn", esn, Peer::Kernel),
        (
            "swanctl_on_a_kernel_takes_ah",
            End { ah: true, esp: "sha256", ..end(Version::V2, CBC) },
            Peer::Kernel,
        ),
        (
            "strongswan_6_takes_ml_kem",
            end(Version::V2, ("aes256gcm16-prfsha256-x25519-ke1_mlkem768", "aes256gcm16-x25519")),
            Peer::Swan6,
        ),
    ] {
        let case = Case { peer, ..Case::new("peer-config", Role::Responds, end, Shows::Traffic) };
        let lacking = Kind::of(&case).unavailable();
        scenarios.push(Scenario::new(name, || swanctl(case)).lacking(lacking));
    }
    let readable = [
        ("ikev2_with_an_aead", two_by_two(end(Version::V2, GCM))),
        ("ikev2_with_cbc_and_names", named(end(Version::V2, CBC))),
        ("ikev1_in_main_mode", two_by_two(end(Version::Main, CBC))),
        ("ikev1_in_aggressive_mode", key_id(end(Version::Aggressive, CBC))),
        ("ah", End { ah: true, esp: "sha256", ..end(Version::V2, CBC) }),
    ];
    let lacking =
        roots::libreswan().is_none().then_some("Libreswan is not here; `cargo xtask test interop` tells why");
    for (name, end) in readable {
        let case = Case::new("peer-config", Role::Responds, end, Shows::Traffic);
        scenarios.push(
            Scenario::new(format!("libreswan_reads_{name}"), move || libreswan(&case)).lacking(lacking),
        );
    }
    scenario::main(scenarios)
}

fn end(version: Version, (ike, esp): (&'static str, &'static str)) -> End {
    End::new(version, ike, esp)
}

fn two_by_two(end: End) -> End {
    End {
        subnets_a: vec!["10.1.0.0/24", "10.1.1.0/24"],
        subnets_b: vec!["10.2.0.0/24", "10.2.1.0/24"],
        ..end
    }
}

fn key_id(end: End) -> End {
    End { id: Some("adit.example.net"), peer_id: Some("keyid:0aff"), ..end }
}

fn named(end: End) -> End {
    End { id: Some("adit.example.net"), peer_id: Some("vpn@peer.example.net"), ..end }
}

/// What is written for `vendor` about the tunnel of the configuration file, with its key, in files of a new directory.
fn written(directory: &Path, text: &str, vendor: &str, more: &[&str]) -> Result<PathBuf> {
    let file = directory.join("written-from.toml");
    fs::write(&file, text)?;
    let to = directory.join(format!("for-{vendor}"));
    fs::create_dir_all(&to)?;
    let mut command = Command::new(binary()?);
    command.args(["tunnel", "config", TUNNEL, "--for", vendor, "--with-psk", "--config"]).arg(&file);
    let output = command.arg("--write").arg(&to).args(more).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(to)
}

/// Datagrams between the hosts of every pair of subnets, none lost once one has passed.
fn traffic(topology: &Topology, end: &End) -> Result<()> {
    let host = |subnet: &str| -> Result<Ipv4Addr> {
        let [a, b, c, _] = subnet.split('/').next().unwrap_or(subnet).parse::<Ipv4Addr>()?.octets();
        Ok(Ipv4Addr::new(a, b, c, 2))
    };
    for (a, b) in end.subnets_a.iter().flat_map(|a| end.subnets_b.iter().map(move |b| (a, b))) {
        let one = (&topology.host_a, IpAddr::V4(host(a)?));
        let other = (&topology.host_b, IpAddr::V4(host(b)?));
        wait_for(&format!("a datagram between {a} and {b}, each way"), PATIENCE, || {
            Ok(exchange(one, other, 1, 64, Duration::from_millis(300))?.expect_all().is_ok())
        })?;
        let count = exchange(one, other, 8, 600, Duration::from_secs(3))?;
        count.expect_all().with_context(|| format!("between {a} and {b}"))?;
    }
    Ok(())
}

/// swanctl.conf, loaded as it is.
fn swanctl(case: Case) -> Result<()> {
    let mut station = Station::make(Kind::of(&case))?;
    let topology = &station.topology;
    let directory = topology.run().directory().to_owned();
    let text = case.adit_toml(topology, &directory)?;
    let public = ["--address", &GATEWAY_A.to_string()];
    let to = written(
        &directory,
        &text,
        "strongswan",
        if case.network == Network::NatAdit { &public } else { &[] },
    )?;
    let words = fs::read_to_string(to.join("swanctl.conf"))?;
    let came_up = (|| {
        // Whoever waits is there first.
        if case.role == Role::Responds {
            load(&station, &case)?;
            station.swan.load(&words)?;
        } else {
            station.swan.load(&words)?;
            load(&station, &case)?;
        }
        station.adit.wait_connected(PATIENCE)?;
        traffic(&station.topology, &case.adit)
    })();
    came_up.with_context(|| {
        format!(
            "of this:\n{words}\n  charon's log:\n{}  Adit's log:\n{}",
            station.swan.log_tail(40),
            station.adit.log_tail(20)
        )
    })?;
    station.end()
}

fn load(station: &Station, case: &Case) -> Result<()> {
    let topology = &station.topology;
    case.adit_toml(topology, Path::new("/"))?;
    station.adit.reload(|directory| case.adit_toml(topology, directory).unwrap_or_default())
}

/// ipsec.conf and ipsec.secrets, loaded as they are.
fn ipsec_conf(case: &Case) -> Result<()> {
    let topology = two_sites()?;
    let directory = topology.run().directory().to_owned();
    let text = case.adit_toml(&topology, &directory)?;
    let to = written(&directory, &text, "strongswan-ipsec", &[])?;
    let start = || {
        Adit::start_with(&topology.gateway_a, TUNNEL, |directory| {
            case.adit_toml(&topology, directory).unwrap_or_default()
        })
    };
    // Whoever waits is there first.
    let (mut adit, swan) = match case.role {
        Role::Responds => (start()?, Starter::start(&topology.gateway_b, &to)?),
        Role::Initiates => {
            let swan = Starter::start(&topology.gateway_b, &to)?;
            wait_for("charon to have read its files", PATIENCE, || {
                Ok(swan.log_tail(200).contains("added configuration"))
            })?;
            (start()?, swan)
        }
    };
    let came_up = adit.wait_connected(PATIENCE).and_then(|()| traffic(&topology, &case.adit));
    came_up.with_context(|| {
        let words = fs::read_to_string(to.join("ipsec.conf")).unwrap_or_default();
        format!(
            "of this:\n{words}\n  charon's log:\n{}  Adit's log:\n{}",
            swan.log_tail(40),
            adit.log_tail(20)
        )
    })?;
    drop((adit, swan));
    topology.end()
}

/// Libreswan's own programs take the files, and every proposal in them.
fn libreswan(case: &Case) -> Result<()> {
    let root = roots::libreswan().context("Libreswan is not here")?;
    let topology = two_sites()?;
    let directory = topology.run().directory().to_owned();
    let to = written(&directory, &case.adit_toml(&topology, &directory)?, "libreswan", &[])?;
    let words = fs::read_to_string(to.join("ipsec.conf"))?;
    let libraries = fs::read_dir(root.join("usr/lib"))?.flatten().map(|entry| entry.path());
    let libraries = std::env::join_paths(libraries.filter(|path| path.is_dir()))?;
    let run = |program: &str, arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(root.join("usr/libexec/ipsec").join(program));
        let output =
            command.args(arguments).env("LD_LIBRARY_PATH", &libraries).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(
            output.status.success() && !said.contains("ERROR"),
            "{program} {arguments:?}: {said}\n{words}"
        );
        Ok(())
    };
    run("addconn", &["--checkconfig", "--config", &to.join("ipsec.conf").to_string_lossy()])?;
    let value = |name: &str| words.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
    let version = if value("ikev2") == Some("yes") { "-v2" } else { "-v1" };
    let pfs = if value("pfs") == Some("yes") { "-pfs=yes" } else { "-pfs=no" };
    let ike = format!("ike={}", value("ike").context("there is no ike")?);
    let protocol = value("phase2").context("there is no phase2")?;
    let child = format!("{protocol}={}", value("phase2alg").context("there is no phase2alg")?);
    run("algparse", &[version, &ike])?;
    run("algparse", &[version, pfs, &child])?;
    topology.end()
}

/// The tunnel's part of the other gateway's file, below the `[gateway]` that is there.
fn adit(end: End) -> Result<()> {
    let topology = two_sites()?;
    let directory = topology.run().directory().to_owned();
    let case = Case::new("peer-config", Role::Initiates, end, Shows::Traffic);
    let to = written(&directory, &case.adit_toml(&topology, &directory)?, "adit", &[])?;
    let words = fs::read_to_string(to.join("adit.toml"))?;
    pair(topology, &case, |directory| format!("{}{words}", gateway_b(directory)))
}

/// strongSwan's file, read into the other gateway's.
fn in_place_of_a_strongswan() -> Result<()> {
    let topology = two_sites()?;
    let directory = topology.run().directory().to_owned();
    let end = named(two_by_two(end(Version::V2, CBC)));
    let case = Case::new("peer-config", Role::Initiates, end, Shows::Traffic);
    let to = written(&directory, &case.adit_toml(&topology, &directory)?, "strongswan", &[])?;
    let file = directory.join("b.toml");
    fs::write(&file, gateway_b(Path::new("/DIRECTORY")))?;
    let mut command = Command::new(binary()?);
    command.args(["tunnel", "import", "--from", "strongswan"]).arg(to.join("swanctl.conf"));
    let output = command.arg("--into").arg(&file).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let words = fs::read_to_string(&file)?;
    pair(topology, &case, |directory| words.replace("/DIRECTORY", &directory.to_string_lossy()))
}

/// The other gateway without a tunnel.
fn gateway_b(directory: &Path) -> String {
    format!(
        "[gateway]\nname = \"b\"\naddress = \"{GATEWAY_B}\"\nwan = \"{WAN}\"\nlan = [\"{LAN}\"]\n\n\
         [api]\nsocket = {:?}\n\n",
        directory.join("adit.sock")
    )
}

/// The case's Adit and another with the configuration `b`.
fn pair(topology: Topology, case: &Case, b: impl Fn(&Path) -> String) -> Result<()> {
    let words = b(Path::new("/"));
    let b = Adit::start_with(&topology.gateway_b, TUNNEL, b).with_context(|| words.clone())?;
    let mut a = Adit::start_with(&topology.gateway_a, TUNNEL, |directory| {
        case.adit_toml(&topology, directory).unwrap_or_default()
    })?;
    let came_up = a.wait_connected(PATIENCE).and_then(|()| traffic(&topology, &case.adit));
    came_up.with_context(|| format!("of this:\n{words}\n  its log:\n{}", b.log_tail(20)))?;
    drop((a, b));
    topology.end()
}

/// Two sites with two more subnets each.
fn two_sites() -> Result<Topology> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let Topology { gateway_a, gateway_b, host_a, host_b, .. } = &topology;
    gateway_a.ip(&["address", "add", "10.1.1.1/24", "dev", LAN])?;
    host_a.ip(&["address", "add", "10.1.1.2/24", "dev", "eth0"])?;
    gateway_b.ip(&["address", "add", "10.2.1.1/24", "dev", LAN])?;
    host_b.ip(&["address", "add", "10.2.1.2/24", "dev", "eth0"])?;
    Ok(topology)
}

fn key_is_guarded() -> Result<()> {
    let topology = two_sites()?;
    let end = end(Version::V2, GCM);
    let psk = end.psk;
    let case = Case::new("peer-config", Role::Initiates, end, Shows::Traffic);
    let text = |directory: &Path| case.adit_toml(&topology, directory).unwrap_or_default();
    ensure!(gateway(&topology, Path::new("/"), "").contains("[api]"), "the case has no [api]");
    let adit = Adit::start_with(&topology.gateway_a, TUNNEL, text)?;
    let ask = ["tunnel", "config", TUNNEL, "--for", "fortigate"];
    let hidden = adit.done(&ask)?;
    ensure!(!hidden.contains(psk) && hidden.contains("PUT-THE-PRE-SHARED-KEY-HERE"), "{hidden}");
    let output = adit.command(&[&ask[..], &["--with-psk"]].concat())?;
    let words = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || !words.contains("reveal_secrets = true") {
        bail!("not refused: {words}");
    }
    adit.reload(|directory| text(directory).replace("[api]\n", "[api]\nreveal_secrets = true\n"))?;
    ensure!(adit.done(&[&ask[..], &["--with-psk"]].concat())?.contains(psk), "the key is not there");
    ensure!(!adit.log().contains(psk), "the key is in the log");
    drop(adit);
    topology.end()
}
