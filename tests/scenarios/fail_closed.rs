//! Whatever state a gateway is in, nothing that a tunnel protects leaves in clear: a capture on the WAN for each.

use std::time::Duration;

use adit_maps::address::Address;
use adit_maps::sa::{SaRef, SpiKey};
use adit_maps::user::{Directory, SpiIndex};
use adit_tests::adit::{Adit, configuration};
use adit_tests::capture::Capture;
use adit_tests::namespace::{Process, wait_for};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::topology::{GATEWAY_B, HOST_A, HOST_B, LAN, TO_A, Topology};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("nothing_in_clear_without_an_sa", without_an_sa),
        Scenario::new("nothing_in_clear_with_an_expired_sa", expired),
        Scenario::new("nothing_in_clear_with_the_data_plane_stopped", || data_plane_ends(libc::SIGTERM)),
        Scenario::new("nothing_in_clear_with_the_data_plane_killed", || data_plane_ends(libc::SIGKILL)),
        Scenario::new("nothing_in_clear_with_control_killed", control_ends),
        Scenario::new("nothing_in_clear_with_no_room_for_sas", no_room_for_sas),
        Scenario::new("nothing_in_clear_with_no_room_for_spis", no_room_for_spis),
        Scenario::new("nothing_in_clear_with_no_room_for_policies", no_room_for_policies),
    ])
}

/// Gateway A as two processes, gateway B as one, connected, and a capture of gateway A's WAN.
struct Scene {
    topology: Topology,
    control: Adit,
    data_plane: Process,
    peer: Adit,
    capture: Capture,
}

impl Scene {
    /// `edit` changes gateway A's configuration, `arguments` are its data plane's.
    fn up(edit: impl Fn(String) -> String, arguments: &[&str]) -> Result<Scene> {
        let topology = Topology::two_sites(Run::begin()?)?;
        let site = Site::a(&topology);
        let peer = Adit::start(&topology.gateway_b, &Site::b(&topology))?;
        // What gateway B's kernel says of a port that nobody listens on is nobody's plaintext.
        let errors = format!("not ( icmp and src host {GATEWAY_B} )");
        let capture = Capture::whole(&topology.router, TO_A, &errors)?;
        let mut control = Adit::start_control(&topology.gateway_a, &site.tunnel(), |directory| {
            edit(configuration(&site, directory))
        })?;
        let data_plane = control.data_plane(arguments)?;
        control.wait_connected(PATIENCE)?;
        ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
        Ok(Scene { topology, control, data_plane, peer, capture })
    }

    /// Neither a host nor the gateway itself reaches the other site.
    fn expect_silence(&self) -> Result<()> {
        for from in [&self.topology.host_a, &self.topology.gateway_a] {
            let answered = ping(from, HOST_B, 5, 56).map_or(0, |answer| answer.received);
            ensure!(answered == 0, "{answered} pings from {} were answered", from.host());
        }
        let answered = ping(&self.topology.host_b, HOST_A, 3, 56).map_or(0, |answer| answer.received);
        ensure!(answered == 0, "{answered} pings from host B were answered");
        Ok(())
    }

    /// Nothing was in clear.
    fn end(self) -> Result<()> {
        let Scene { topology, control, data_plane, peer, capture } = self;
        let tally = capture.finish()?.tally()?;
        tally.expect_no_plaintext("the router").with_context(|| control.log_tail(15))?;
        ensure!(tally.esp() > 0, "the capture has {tally}");
        drop((control, data_plane, peer));
        topology.end()
    }
}

fn without_an_sa() -> Result<()> {
    let scene = Scene::up(|text| text, &[])?;
    scene.control.done(&["tunnel", "down", scene.control.tunnel()])?;
    scene.expect_silence()?;
    scene.end()
}

fn expired() -> Result<()> {
    let packets = |text: String| format!("{text}lifetime_packets = 200\n[tunnel.dpd]\nenabled = false\n");
    let mut scene = Scene::up(packets, &[])?;
    scene.peer.process().kill();
    wait_for("the Child SA to be used up", PATIENCE, || {
        let _ = scene
            .topology
            .host_a
            .run("ping", &["-n", "-q", "-f", "-c", "100", "-W", "1", &HOST_B.to_string()]);
        Ok(scene.control.log().contains("is used up"))
    })
    .with_context(|| scene.control.log_tail(20))?;
    scene.expect_silence()?;
    scene.end()
}

fn data_plane_ends(signal: i32) -> Result<()> {
    let mut scene = Scene::up(|text| text, &[])?;
    scene.data_plane.signal(signal)?;
    scene.data_plane.wait(Duration::from_secs(20))?;
    scene.expect_silence()?;
    scene.end()
}

fn control_ends() -> Result<()> {
    let mut scene = Scene::up(|text| text, &[])?;
    scene.control.process().kill();
    ping(&scene.topology.host_a, HOST_B, 5, 56)?.expect_all().context("the SAs outlive control")?;
    scene.data_plane.kill();
    scene.expect_silence()?;
    scene.end()
}

/// A configuration with a second tunnel between the same gateways.
fn second(text: &str, site: &Site) -> String {
    let begins = text.find("[[tunnel]]").unwrap_or_default();
    let other = |subnet: &str| subnet.replace(".0.0/24", ".7.0/24");
    let two = text[begins..]
        .replace(&format!("name = \"{}\"", site.tunnel()), "name = \"second\"")
        .replace(&site.local_subnet, &other(&site.local_subnet))
        .replace(&site.remote_subnet, &other(&site.remote_subnet))
        .replace(&format!("local_id = \"{}\"", site.local_id), &format!("local_id = \"two-{}\"", site.name))
        .replace(&format!("peer_id = \"{}\"", site.peer_id), &format!("peer_id = \"two-{}\"", site.peer));
    format!("{text}\n{two}")
}

fn no_room_for_sas() -> Result<()> {
    let scene = Scene::up(|text| text, &["--max-sas", "2"])?;
    let Topology { host_a, gateway_a, .. } = &scene.topology;
    host_a.ip(&["address", "add", "10.1.7.2/24", "dev", "eth0"])?;
    gateway_a.ip(&["address", "add", "10.1.7.1/24", "dev", LAN])?;
    let (site_a, site_b) = (Site::a(&scene.topology), Site::b(&scene.topology));
    scene.peer.reload(|directory| second(&configuration(&site_b, directory), &site_b))?;
    scene.control.reload(|directory| second(&configuration(&site_a, directory), &site_a))?;
    wait_for("the second tunnel to find no room", PATIENCE, || Ok(scene.control.log().contains("no room")))
        .with_context(|| scene.control.log_tail(20))?;
    let answered =
        host_a.run("ping", &["-n", "-q", "-c", "5", "-i", "0.1", "-W", "1", "-I", "10.1.7.2", "10.2.7.2"]);
    ensure!(answered.is_err(), "the second tunnel carries pings: {answered:?}");
    ping(host_a, HOST_B, 3, 56)?.expect_all().context("the first tunnel goes on")?;
    scene.end()
}

fn no_room_for_spis() -> Result<()> {
    let scene = Scene::up(|text| text, &["--max-sas", "8"])?;
    scene.control.done(&["tunnel", "down", scene.control.tunnel()])?;
    let mut index = SpiIndex::open(&Directory::new(scene.control.bpf_dir()))?;
    let filled = (1..100).find(|spi| {
        let key = SpiKey { destination: Address::v4([203, 0, 113, 1]), spi: *spi, protocol: 50 };
        index.insert(key, SaRef { index: 0, generation: u32::MAX }).is_err()
    });
    ensure!(filled.is_some(), "SPI_INDEX takes a hundred entries");
    scene.control.done(&["tunnel", "up", scene.control.tunnel()])?;
    wait_for("the tunnel to find no room", PATIENCE, || {
        Ok(scene.control.log().contains("Child SA not installed"))
    })
    .with_context(|| scene.control.log_tail(20))?;
    scene.expect_silence()?;
    scene.end()
}

fn no_room_for_policies() -> Result<()> {
    let scene = Scene::up(|text| text, &[])?;
    let site = Site::a(&scene.topology);
    let subnets =
        |second: u8| (0..=129).map(|n| format!("\"10.{second}.{n}.0/24\"")).collect::<Vec<_>>().join(", ");
    let refused = scene.control.reload(|directory| {
        let text = configuration(&site, directory);
        // IKEv1 takes a slot for each pair of subnets.
        let more = text[text.find("[[tunnel]]").unwrap_or_default()..]
            .replace(&format!("name = \"{}\"", site.tunnel()), "name = \"many\"")
            .replace(&format!("[\"{}\"]", site.local_subnet), &format!("[{}]", subnets(101)))
            .replace(&format!("[\"{}\"]", site.remote_subnet), &format!("[{}]", subnets(102)))
            .replace("[tunnel.ike]", "[tunnel.ike]\nversion = \"ikev1\"")
            .replace("encryption = \"aes256gcm16\"", "encryption = \"aes256\"")
            .replace("prf = \"sha256\"\n", "");
        format!("{text}\n{more}")
    });
    let words = refused.err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(words.contains("slots of the SPD"), "the reload was not refused for its size: {words:?}");
    ping(&scene.topology.host_a, HOST_B, 3, 56)?.expect_all().context("everything goes on as it was")?;
    scene.end()
}
