//! `adit control` and `adit dataplane` end and begin again, each by itself, while packets flow.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use adit_maps::{LAYOUT_VERSION, MAGIC, Stamp};
use adit_tests::adit::{Adit, binary, configuration};
use adit_tests::capture::{Capture, Kind};
use adit_tests::interop::case::{Case, End, Role, Shows, TUNNEL, Version};
use adit_tests::namespace::{Namespace, Process, wait_for};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::stream::Stream;
use adit_tests::strongswan::{Place, StrongSwan};
use adit_tests::topology::{
    GATEWAY_A, HOST_A, HOST_B, LAN, SIDE_A6, SIDE_B6, TO_A, Topology, WAN, router_of,
};
use adit_tests::traffic::ping_until_answered;
use anyhow::{Context, Result, bail, ensure};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long packets may be lost while a data plane is replaced: 60 to 100 ms were measured, and other tests may be busy.
const LONGEST_OUTAGE: Duration = Duration::from_millis(1000);
/// Between two datagrams of a stream.
const PACE: Duration = Duration::from_millis(5);

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("control_killed_under_traffic_loses_nothing_with_ikev2", || {
            control_goes_on(Version::V2, libc::SIGKILL)
        }),
        Scenario::new("control_killed_under_traffic_loses_nothing_with_ikev1", || {
            control_goes_on(Version::Main, libc::SIGKILL)
        }),
        Scenario::new("control_stopped_for_an_upgrade_loses_nothing", || {
            control_goes_on(Version::V2, libc::SIGTERM)
        }),
        Scenario::new("a_tunnel_configured_anew_while_control_is_away_is_the_only_one_touched", one_changes),
        Scenario::new("a_tunnel_taken_down_by_hand_stays_down", stays_down),
        Scenario::new("a_killed_data_plane_goes_on_with_every_sequence_number", || {
            data_plane_goes_on(libc::SIGKILL)
        }),
        Scenario::new("a_data_plane_upgraded_in_place_goes_on_with_every_sequence_number", || {
            data_plane_goes_on(libc::SIGTERM)
        }),
        Scenario::new("maps_of_another_layout_are_refused_in_words", other_layout),
        Scenario::new("unloading_leaves_no_route_and_no_rule", || leaves_nothing("auto")),
        Scenario::new("unloading_leaves_no_route_and_no_rule_without_xdp", || leaves_nothing("none")),
        Scenario::new("a_file_of_api_alone_leaves_what_the_command_line_has_made", api_alone),
        Scenario::new("a_backup_brings_the_tunnel_back_on_a_machine_that_has_nothing_else", restored),
    ])
}

/// Datagrams both ways between the hosts, through `work`.
fn stream_through<T>(topology: &Topology, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (a, b) = (IpAddr::V4(HOST_A), IpAddr::V4(HOST_B));
    let stream = Stream::start((&topology.host_a, a), (&topology.host_b, b), PACE)?;
    std::thread::sleep(Duration::from_millis(300));
    let done = work()?;
    std::thread::sleep(Duration::from_millis(300));
    stream.finish()?.expect_all()?;
    Ok(done)
}

fn spis(adit: &Adit) -> Result<Vec<String>> {
    adit.spis_of(adit.tunnel())
}

/// Ends control by a signal, leaves the data plane alone for a moment, and starts control again.
fn replace_control(control: &mut Adit, signal: i32) -> Result<()> {
    control.process().signal(signal)?;
    control.process().wait(Duration::from_secs(5))?;
    std::thread::sleep(Duration::from_millis(500));
    control.start_again()?;
    control.wait_connected(PATIENCE)
}

/// Waits until the tunnel has a pair of Child SAs beside these, or instead of them: the new ones.
fn wait_replaced(control: &Adit, old: &[String]) -> Result<Vec<String>> {
    let mut now = Vec::new();
    wait_for("another pair of Child SAs", PATIENCE, || {
        now = spis(control)?;
        now.retain(|spi| !old.contains(spi));
        Ok(!now.is_empty())
    })
    .with_context(|| control.log_tail(30))?;
    Ok(now)
}

fn control_goes_on(version: Version, signal: i32) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let (ike, esp) = match version {
        Version::V2 => ("aes256gcm16-prfsha256-x25519", "aes256gcm16"),
        _ => ("aes128-sha256-modp2048", "aes128-sha256"),
    };
    let mut end = End::new(version, ike, esp);
    end.more.push(("dpd", "delay = 1"));
    let case = Case::new("restarts", Role::Initiates, end, Shows::Traffic);
    let swan = StrongSwan::start(&topology.gateway_b, &topology.gateway_b, Place::Namespace, "")?;
    swan.load(&case.swanctl_conf(&topology))?;
    let mut text = Ok(String::new());
    let mut control = Adit::start_control(&topology.gateway_a, TUNNEL, |directory| {
        text = case.adit_toml(&topology, directory);
        text.as_ref().map_or_else(|_| String::new(), Clone::clone)
    })?;
    text?;
    let _data_plane = control.data_plane(&[])?;
    control.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;

    let old = spis(&control)?;
    let logged = swan.log().len();
    stream_through(&topology, || {
        replace_control(&mut control, signal)?;
        std::thread::sleep(Duration::from_secs(1));
        replace_control(&mut control, signal)
    })
    .with_context(|| format!("{}{}", control.log_tail(30), swan.log_tail(20)))?;
    ensure!(spis(&control)? == old, "other Child SAs than before: {:?}", spis(&control)?);
    let log = swan.log();
    let since = log.get(logged..).unwrap_or_default();
    for exchange in ["IKE_SA_INIT", "IKE_AUTH", "CREATE_CHILD_SA", "ID_PROT", "QUICK_MODE", "DELETE", "D ]"] {
        ensure!(!since.contains(exchange), "{exchange} after the restart:\n{since}");
    }

    // From here on it is as if nothing had been: either side rekeys, signs of life come and go.
    stream_through(&topology, || {
        control.done(&["tunnel", "rekey", TUNNEL, "--child"])?;
        let new = wait_replaced(&control, &old)?;
        swan.rekey(&["--child", TUNNEL])?;
        wait_replaced(&control, &[old.clone(), new].concat())
    })
    .with_context(|| format!("{}{}", control.log_tail(30), swan.log_tail(20)))?;
    let logged = swan.log().len();
    replace_control(&mut control, signal)?;
    let information = if version == Version::V2 { "INFORMATIONAL" } else { "INFORMATIONAL_V1" };
    wait_for("a sign of life to be asked for and given", PATIENCE, || {
        let log = swan.log();
        let since = log.get(logged..).unwrap_or_default();
        Ok(since.matches(&format!("parsed {information} request")).count() >= 3)
    })
    .with_context(|| swan.log_tail(20))?;
    ensure!(control.state()? == "connected", "{}", control.log_tail(20));
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;

    control.done(&["tunnel", "down", TUNNEL])?;
    swan.wait_empty(PATIENCE)?;
    drop((swan, control));
    topology.end()
}

/// Two tunnels between two Adits; the second one's `[tunnel.dpd]` says `dpd`.
fn two_tunnels(site: &Site, dpd: &str, directory: &Path) -> String {
    let one = configuration(site, directory);
    let begins = one.find("[[tunnel]]").unwrap_or_default();
    let other = |subnet: &str| subnet.replace(".0.0/24", ".7.0/24");
    let two = one[begins..]
        .replace(&format!("name = \"{}\"", site.tunnel()), &format!("name = \"{}-two\"", site.tunnel()))
        .replace(&site.local_subnet, &other(&site.local_subnet))
        .replace(&site.remote_subnet, &other(&site.remote_subnet))
        .replace(&format!("local_id = \"{}\"", site.local_id), &format!("local_id = \"two-{}\"", site.name))
        .replace(&format!("peer_id = \"{}\"", site.peer_id), &format!("peer_id = \"two-{}\"", site.peer));
    format!("{one}\n{two}\n[tunnel.dpd]\n{dpd}\n")
}

fn one_changes() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let (site_a, site_b) = (Site::a(&topology), Site::b(&topology));
    let names = [site_b.tunnel(), format!("{}-two", site_b.tunnel())];
    let peer = Adit::start_with(&topology.gateway_b, &names[0], |d| two_tunnels(&site_b, "", d))?;
    let mut control =
        Adit::start_control(&topology.gateway_a, &site_a.tunnel(), |d| two_tunnels(&site_a, "", d))?;
    let _data_plane = control.data_plane(&[])?;
    let both_up = || Ok(names.iter().all(|name| peer.state_of(name).is_ok_and(|state| state == "connected")));
    wait_for("both tunnels to be up", PATIENCE, both_up).with_context(|| control.log_tail(30))?;
    control.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    let [first, second] = [peer.spis_of(&names[0])?, peer.spis_of(&names[1])?];
    stream_through(&topology, || {
        control.process().signal(libc::SIGKILL)?;
        control.process().wait(Duration::from_secs(5))?;
        let directory = control.configuration().parent().map(Path::to_owned).context("no directory")?;
        fs::write(control.configuration(), two_tunnels(&site_a, "delay = 5", &directory))?;
        control.start_again()?;
        control.wait_connected(PATIENCE)?;
        wait_for("the second tunnel to be negotiated anew", PATIENCE, || {
            Ok(peer.spis_of(&names[1])? != second)
        })?;
        wait_for("both tunnels to be up", PATIENCE, both_up)
    })
    .with_context(|| format!("{}{}", control.log_tail(30), peer.log_tail(20)))?;
    ensure!(peer.spis_of(&names[0])? == first, "the first tunnel has other SAs");
    drop((control, peer));
    topology.end()
}

fn stays_down() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let site = Site::a(&topology);
    let peer = Adit::start(&topology.gateway_b, &Site::b(&topology))?;
    let mut control = Adit::start_control(&topology.gateway_a, &site.tunnel(), |d| configuration(&site, d))?;
    let _data_plane = control.data_plane(&[])?;
    control.wait_connected(PATIENCE)?;
    control.done(&["tunnel", "down", &site.tunnel()])?;
    control.process().signal(libc::SIGKILL)?;
    control.process().wait(Duration::from_secs(5))?;
    control.start_again()?;
    control.wait_started()?;
    wait_for("the data plane to be met", PATIENCE, || {
        Ok(control.log().matches("the data plane is there").count() == 2)
    })?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(control.state()? == "disabled", "the tunnel is {}", control.state()?);
    control.done(&["tunnel", "up", &site.tunnel()])?;
    control.wait_connected(PATIENCE)?;
    drop((control, peer));
    topology.end()
}

fn data_plane_goes_on(signal: i32) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let site = Site::a(&topology);
    let peer = Adit::start(&topology.gateway_b, &Site::b(&topology))?;
    let mut control = Adit::start_control(&topology.gateway_a, &site.tunnel(), |d| configuration(&site, d))?;
    let mut data_plane = control.data_plane(&[])?;
    control.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    let old = spis(&control)?;
    let esp = format!("ip proto 50 and src host {GATEWAY_A}");
    let (sealed, all) =
        (Capture::whole(&topology.router, TO_A, &esp)?, Capture::start(&topology.router, TO_A)?);
    let (a, b) = (IpAddr::V4(HOST_A), IpAddr::V4(HOST_B));
    let stream = Stream::start((&topology.host_a, a), (&topology.host_b, b), PACE)?;
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    data_plane.signal(signal)?;
    data_plane.wait(Duration::from_secs(5))?;
    let gone = begun.elapsed();
    data_plane = control.data_plane(&[])?;
    std::thread::sleep(Duration::from_secs(3));
    let count = stream.finish()?;
    let outage = [count.forth, count.back]
        .map(|way| PACE * u32::try_from(way.sent - way.received).unwrap_or(u32::MAX));
    println!("nothing came through for {outage:?}; the old process took {gone:?} of it to end");
    ensure!(outage.iter().all(|outage| *outage < LONGEST_OUTAGE), "{outage:?}: {}", data_plane.log_tail(20));
    ensure!(count.forth.repeated + count.back.repeated == 0, "a datagram came twice: {count:?}");
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    ensure!(spis(&control)? == old, "other Child SAs than before");
    all.finish()?.tally()?.expect_no_plaintext("the router")?;
    let mut numbers = HashSet::new();
    for frame in sealed.finish()?.frames(Kind::Esp)? {
        let number = frame.get(34..42).context("a frame of ESP is cut off")?.to_vec();
        ensure!(numbers.insert(number.clone()), "SPI and sequence number {number:02x?} were used twice");
    }
    ensure!(numbers.len() > 100, "only {} packets of ESP were captured", numbers.len());
    drop((control, data_plane, peer));
    topology.end()
}

fn other_layout() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let site = Site::a(&topology);
    let mut control = Adit::start_control(&topology.gateway_a, &site.tunnel(), |d| configuration(&site, d))?;
    let mut data_plane = control.data_plane(&[])?;
    wait_for("the data plane to be met, and to run", PATIENCE, || {
        Ok(control.log().contains("the data plane is there") && data_plane.log().contains("queues"))
    })?;
    control.process().stop()?;
    data_plane.stop()?;
    let pin = control.bpf_dir().join("LAYOUT");
    let map = aya::maps::Map::from_map_data(aya::maps::MapData::from_pin(&pin)?)?;
    let mut layout = aya::maps::Array::<_, Stamp>::try_from(map)?;
    layout.set(0, Stamp { magic: MAGIC, version: LAYOUT_VERSION + 1 }, 0)?;
    data_plane = control.data_plane(&[])?;
    control.start_again()?;
    let unload = format!("adit unload --bpf-dir {}", control.bpf_dir().display());
    let other = format!("layout version {}", LAYOUT_VERSION + 1);
    for process in [&mut data_plane, control.process()] {
        refused(process, &[&other, &unload])?;
    }
    let (fits, said) = unloaded(&topology, &control, &["--check"])?;
    ensure!(!fits && said.contains(&other), "a look at other maps: {said}");
    ensure!(pin.exists(), "a look has unloaded the maps");
    let (done, said) = unloaded(&topology, &control, &[])?;
    ensure!(done, "{said}");
    ensure!(unloaded(&topology, &control, &["--check"])?.0, "nothing is there, and that does not suit it");
    let met = control.log().matches("the data plane is there").count();
    control.start_again()?;
    let _data_plane = control.data_plane(&[])?;
    wait_for("the data plane to be met again", PATIENCE, || {
        Ok(control.log().matches("the data plane is there").count() > met)
    })?;
    ensure!(unloaded(&topology, &control, &["--check"])?.0, "maps of its own do not suit it");
    drop(control);
    topology.end()
}

/// Whether `adit unload` of gateway A's maps with these further arguments succeeded, and what it said.
fn unloaded(topology: &Topology, gateway: &Adit, more: &[&str]) -> Result<(bool, String)> {
    let mut command = topology.gateway_a.command(&adit_tests::adit::binary()?.to_string_lossy());
    let output = command.arg("unload").arg("--bpf-dir").arg(gateway.bpf_dir()).args(more).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((output.status.success(), said))
}

/// A gateway with both families and a second tunnel by routes, and what BIRD would have learned: unloaded once nothing runs, and
/// not before.
fn leaves_nothing(xdp: &str) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    topology.add_ipv6()?;
    let gateway = &topology.gateway_a;
    let via = router_of(topology.address_a).to_string();
    gateway.ip(&["route", "add", "10.99.0.0/16", "via", &via, "table", "173", "proto", "bird"])?;
    // Another's.
    gateway.ip(&["route", "add", "10.98.0.0/16", "via", &via, "table", "173", "proto", "static"])?;
    gateway.ip(&["rule", "add", "from", "10.98.0.0/16", "priority", "173", "blackhole"])?;
    let site = Site::a(&topology);
    let mut control = Adit::start_control(gateway, &site.tunnel(), |directory| {
        let both = |v4: &str, v6: &str| format!("[\"{v4}\", \"{v6}\"]");
        let text = configuration(&site, directory)
            .replace("\n[api]", &format!("xdp = \"{xdp}\"\n\n[api]"))
            .replace(&format!("[\"{}\"]", site.local_subnet), &both(&site.local_subnet, SIDE_A6.subnet))
            .replace(&format!("[\"{}\"]", site.remote_subnet), &both(&site.remote_subnet, SIDE_B6.subnet));
        let routes = both("10.77.0.0/16", "2001:db8:77::/48");
        let second = "name = \"second\"\npeer = \"b\"\nrouting_mode = \"route\"\nenabled = false";
        format!("{text}\n[[tunnel]]\n{second}\npsk = \"{}\"\nroutes = {routes}\n", site.psk)
    })?;
    let mut data_plane = control.data_plane(&[])?;
    let wanted: [&[&str]; 3] = [
        &["10.2.0.0/24 dev adit0", "unreachable 10.77.0.0/16"],
        &["2001:db8:2::/64 dev adit0", "unreachable 2001:db8:77::/48"],
        &["from 2001:db8:2::/64 to 2001:db8:1::/64 iif wan"],
    ];
    let wanted = if xdp == "none" { wanted.concat() } else { wanted[..2].concat() };
    let mut there = String::new();
    wait_for("the routes and rules", PATIENCE, || {
        there = ours(gateway)?;
        Ok(wanted.iter().all(|line| there.contains(line)))
    })
    .with_context(|| format!("{there}{}", control.log_tail(10)))?;
    ensure!(there.contains("10.99.0.0/16"), "{there}");
    for stops in [false, true] {
        if stops {
            data_plane.signal(libc::SIGTERM)?;
            data_plane.wait(PATIENCE)?;
        }
        let (done, said) = unloaded(&topology, &control, &[])?;
        ensure!(!done && said.contains("control runs"), "it is unloaded under a control that runs: {said}");
        ensure!(ours(gateway)? == there, "an unloading that was refused removes:\n{there}");
    }
    control.process().stop()?;
    ensure!(ours(gateway)? == there, "what control leaves:\n{}", ours(gateway)?);
    for _ in 0..2 {
        let (done, said) = unloaded(&topology, &control, &[])?;
        ensure!(done, "{said}");
        let left = ours(gateway)?;
        ensure!(left.is_empty(), "left:\n{left}");
    }
    for (what, others) in [("route", "10.98.0.0/16 via"), ("rule", "from 10.98.0.0/16 blackhole")] {
        let shown = gateway.ip(match what {
            "route" => &["route", "show", "table", "all"],
            _ => &["rule"],
        })?;
        ensure!(shown.contains(others), "another's {what} is gone:\n{shown}");
    }
    drop(control);
    topology.end()
}

/// Adit's routes and rules of every table, and those that BIRD has learned for it, a line each.
fn ours(gateway: &Namespace) -> Result<String> {
    let mut lines = String::new();
    for family in ["-4", "-6"] {
        for words in [&["route", "show", "table", "all"][..], &["rule"]] {
            let all = gateway.ip(&[&[family], words].concat())?;
            let is_ours = |line: &&str| line.contains("proto 173") || line.contains("proto bird");
            // So it says while nobody has the device open.
            let plain = |line: &str| line.replace(" linkdown", "");
            all.lines()
                .filter(is_ours)
                .for_each(|line| lines.push_str(&format!("{}\n", plain(line).trim_end())));
        }
    }
    Ok(lines)
}

/// What is configured by the command line, and what the process itself does by its file.
fn api_alone() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let site = Site::a(&topology);
    let tunnel = site.tunnel();
    let peer = Adit::start(&topology.gateway_b, &Site::b(&topology))?;
    let api = |directory: &Path| format!("[api]\nsocket = \"{}/adit.sock\"\n", directory.display());
    let mut control = Adit::start_control(&topology.gateway_a, &tunnel, api)?;
    let _data_plane = control.data_plane(&[])?;
    let file = control.configuration();
    let directory = file.parent().map(Path::to_owned).context("no directory")?;
    ensure!(control.log().contains("no gateway yet"), "{}", control.log_tail(20));

    let create = |kind: &str, name: &str, fields: &[(&str, &str)]| {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let arguments: Vec<&str> = fields.iter().map(String::as_str).collect();
        control.done(&[&[kind, "create", name], &arguments[..]].concat())
    };
    create("gateway", &site.name, &[("address", &site.address), ("wan", WAN), ("lan", LAN)])?;
    create("peer", &site.peer, &[("address", &site.peer_address)])?;
    let suite = &site.suite;
    create(
        "tunnel",
        &tunnel,
        &[
            ("peer", &site.peer),
            ("local_subnets", &site.local_subnet),
            ("remote_subnets", &site.remote_subnet),
            ("psk", &site.psk),
            ("ike.encryption", suite.encryption),
            ("ike.integrity", suite.integrity),
            ("ike.prf", suite.prf),
            ("ike.dh", &suite.dh.to_string()),
            ("ike.local_id", &site.local_id),
            ("ike.peer_id", &site.peer_id),
            ("ipsec.encryption", suite.esp_encryption),
            ("ipsec.integrity", suite.esp_integrity),
            ("ipsec.pfs", "disabled"),
        ],
    )?;
    // The data plane has seen that there is a gateway now.
    control.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    let old = spis(&control)?;

    let listen = "127.0.0.1:8443";
    fs::write(&file, format!("{}listen = \"{listen}\"\n", api(&directory)))?;
    let mut check = topology.gateway_a.command(&binary()?.to_string_lossy());
    let checked = check.arg("check").arg("--config").arg(&file).output()?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(checked.status.success() && said.contains("names no resource"), "{said}");
    stream_through(&topology, || replace_control(&mut control, libc::SIGTERM))
        .with_context(|| control.log_tail(30))?;
    ensure!(spis(&control)? == old, "other Child SAs than before: {:?}", spis(&control)?);
    let token = control.done(&["token", "create", "t", "--scope", "read"])?;
    let mut curl = topology.gateway_a.command("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
        .arg(directory.join("data/api.crt"));
    curl.args(["--header", &format!("Authorization: Bearer {}", token.trim())]);
    let answer = curl.arg(format!("https://{listen}/v1/tunnels/{tunnel}")).output()?;
    let shown = String::from_utf8_lossy(&answer.stdout).into_owned();
    ensure!(shown.contains(&format!("\"name\":\"{tunnel}\"")), "{shown} {answer:?}");
    let said = control.done(&["reload"])?;
    ensure!(said.contains("names no resource") && said.contains("removed: none\nunchanged: 1"), "{said}");
    ensure!(spis(&control)? == old, "other Child SAs after the reload: {:?}", spis(&control)?);
    drop((control, peer));
    topology.end()
}

/// Both backups of docs/appliance.md: the exported document with the keys, and the database with a document without them.
fn restored() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let site = Site::a(&topology);
    let peer = Adit::start(&topology.gateway_b, &Site::b(&topology))?;
    let text =
        |directory: &Path| configuration(&site, directory).replace("[api]", "[api]\nreveal_secrets = true");
    let mut gateway = Adit::start_with(&topology.gateway_a, &site.tunnel(), text)?;
    gateway.wait_connected(PATIENCE)?;
    let whole = gateway.done(&["export", "--with-psk"])?;
    let keyless = gateway.done(&["export"])?;
    ensure!(whole.contains(&site.psk) && !keyless.contains(&site.psk), "the keys are in the wrong one");
    let directory = gateway.configuration().parent().map(Path::to_owned).context("no directory")?;
    let (data, backup) = (directory.join("data"), directory.join("backup"));
    let api = format!("[api]\nsocket = \"{}/adit.sock\"\n\n", directory.display());
    for (document, database) in [(&whole, None), (&keyless, Some(&backup))] {
        gateway.process().stop()?;
        let (done, said) = unloaded(&topology, &gateway, &[])?;
        ensure!(done, "{said}");
        match database {
            None => fs::rename(&data, &backup)?,
            Some(backup) => {
                fs::remove_dir_all(&data)?;
                fs::rename(backup, &data)?;
            }
        }
        fs::write(gateway.configuration(), format!("{api}{document}"))?;
        gateway.start_again()?;
        gateway.wait_started()?;
        gateway.wait_connected(PATIENCE)?;
        ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    }
    drop((gateway, peer));
    topology.end()
}

/// Waits until a process ends with these words.
fn refused(process: &mut Process, words: &[&str]) -> Result<()> {
    let status = process.wait(PATIENCE)?;
    let log = process.log_tail(5);
    if status.success() || words.iter().any(|word| !log.contains(word)) {
        bail!("it ended with {status}, and should have said {words:?}:\n{log}");
    }
    Ok(())
}
