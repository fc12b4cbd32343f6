//! Tunnels that are known by what answers through them, and that back each other up.
//!
//! ```text
//!  host A ─── gateway A ─── router ─┬─ gateway B ─┬─ host B
//!                                   └─ gateway C ─┘
//! ```
//!
//! B and C are the two ends that a cloud gives. Host B answers by way of gateway B, so what is counted goes one way.

mod aws;
mod changes;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use adit_tests::adit::{Adit, configuration};
use adit_tests::capture::Capture;
use adit_tests::namespace::{Namespace, Process, link, wait_for};
use adit_tests::pair::{PATIENCE, Pair};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::stream::Stream;
use adit_tests::topology::{GATEWAY_B, HOST_A, HOST_B, LAN, LAN_A, LAN_B, SIDE_B6, TO_A, Topology, WAN};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};

/// More than `interval` × `retries` + 1 s of the checks here.
const TURN: Duration = Duration::from_secs(10);

/// An address of site A that no machine has.
const NOBODY_A: &str = "10.1.0.77";

/// Gateway C on the WAN and on the LAN, and the router and host B on its side.
const GATEWAY_C: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const ROUTER_C: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
const LAN_C: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 129);
const HOST_C: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 130);
/// The same two by IPv6.
const LAN_C6: &str = "2001:db8:c::1";
const HOST_C6: &str = "2001:db8:c::2";

/// From one numbered datagram to the next.
const PACE: Duration = Duration::from_millis(5);

/// One run of the checks of a group: `interval` × `retries` + 1 s.
const FAILOVER: Duration = Duration::from_secs(3);

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("a_health_check_withdraws_routes_and_brings_them_back", a_health_check_switches_routes),
        Scenario::new("the_standby_takes_over_in_time_and_gives_back", the_standby_takes_over),
        Scenario::new("flows_are_spread_over_a_group_and_move_when_a_member_goes", flows_are_spread),
        Scenario::new("a_group_goes_on_when_control_is_killed_and_when_members_rekey", a_group_goes_on),
        Scenario::new("the_two_tunnels_of_aws_back_each_other_up", aws::standby_takes_over)
            .lacking(aws::unavailable()),
        Scenario::new("the_two_tunnels_of_aws_share_flows_with_ikev1", aws::both_carry_flows_with_ikev1)
            .lacking(aws::unavailable()),
        Scenario::new("traffic_asks_every_member_and_goes_by_the_one_that_comes", changes::on_demand),
        Scenario::new("members_come_and_go_and_change_places_without_loss", changes::of_members),
        Scenario::new("ipv6_follows_a_group_and_a_member_can_be_disabled", changes::ipv6),
    ])
}

/// Gateway A with a group of two tunnels, to gateways B and C.
struct Cloud {
    topology: Topology,
    gateway_c: Namespace,
    a: Adit,
    data_plane_a: Process,
    b: Adit,
    c: Adit,
    capture: Capture,
}

impl Cloud {
    /// Both tunnels are connected, and hosts reach each other.
    fn up(mode: &str) -> Result<Cloud> {
        let cloud = Cloud::begin(|text| grouped(&text, mode), |text| text)?;
        cloud.connected()?;
        Ok(cloud)
    }

    /// Gateway A as `ours` makes it of the configuration with one tunnel, and the other two as `theirs` does.
    fn begin(ours: impl Fn(String) -> String, theirs: impl Fn(String) -> String) -> Result<Cloud> {
        let run = Run::begin()?;
        let gateway_c = Namespace::create(&run, "gc")?;
        let topology = Topology::two_sites(run)?;
        topology.add_ipv6()?;
        gateway_c.sysctl(&["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"])?;
        gateway_c.sysctl(&["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
        gateway_c.sysctl(&["net.ipv6.conf.all.disable_ipv6=0"])?;
        link(
            (&gateway_c, WAN, &format!("{GATEWAY_C}/24")),
            (&topology.router, "to-c", &format!("{ROUTER_C}/24")),
        )?;
        link((&gateway_c, LAN, &format!("{LAN_C}/30")), (&topology.host_b, "eth1", &format!("{HOST_C}/30")))?;
        gateway_c.ip(&["address", "add", &format!("{LAN_C6}/64"), "dev", LAN, "nodad"])?;
        topology.host_b.ip(&["address", "add", &format!("{HOST_C6}/64"), "dev", "eth1", "nodad"])?;
        gateway_c.ip(&["route", "add", "default", "via", &ROUTER_C.to_string()])?;
        gateway_c.ip(&["route", "add", &format!("{HOST_B}/32"), "via", &HOST_C.to_string()])?;
        gateway_c.ip(&["-6", "route", "add", SIDE_B6.subnet, "via", HOST_C6])?;
        topology.host_b.run("ethtool", &["-K", "eth1", "tx", "off"])?;
        let (site_a, site_b) = (Site::a(&topology), Site::b(&topology));
        let b = Adit::start_with(&topology.gateway_b, &site_b.tunnel(), |directory| {
            theirs(configuration(&site_b, directory))
        })?;
        let c = Adit::start_with(&gateway_c, &site_b.tunnel(), |directory| {
            theirs(configuration(&site_b, directory)).replace(&GATEWAY_B.to_string(), &GATEWAY_C.to_string())
        })?;
        let capture = Capture::start(&topology.router, TO_A)?;
        let a = Adit::start_control(&topology.gateway_a, &site_a.tunnel(), |directory| {
            ours(configuration(&site_a, directory))
        })?;
        let data_plane_a = a.data_plane(&[])?;
        Ok(Cloud { topology, gateway_c, a, data_plane_a, b, c, capture })
    }

    fn connected(&self) -> Result<()> {
        for tunnel in ["a-b", "a-c"] {
            self.wait_state(tunnel, "connected")?;
        }
        ping_until_answered(&self.topology.host_a, HOST_B, PATIENCE).with_context(|| self.a.log_tail(20))
    }

    fn wait_state(&self, tunnel: &str, state: &str) -> Result<()> {
        let what = format!("tunnel {tunnel} to be {state}");
        wait_for(&what, PATIENCE, || Ok(self.a.state_of(tunnel)? == state))
            .with_context(|| self.a.log_tail(20))
    }

    /// What a tunnel has sent.
    fn sent_by(&self, tunnel: &str) -> Result<f64> {
        let labels = [("tunnel", tunnel), ("direction", "out")];
        self.a.metrics()?.expect("adit_tunnel_packets_total", &labels)
    }

    fn share_of(&self, tunnel: &str) -> Result<f64> {
        self.a.metrics()?.expect("adit_group_share_ratio", &[("group", "cloud"), ("tunnel", tunnel)])
    }

    fn wait_share(&self, tunnel: &str, share: f64) -> Result<()> {
        let what = format!("tunnel {tunnel} to carry {share} of the group");
        wait_for(&what, TURN, || Ok(self.share_of(tunnel)? == share)).with_context(|| self.a.log_tail(20))
    }

    /// The line to gateway B swallows everything, without a word to anybody.
    fn swallow(&self) -> Result<()> {
        let nft = |arguments: &[&str]| self.topology.router.run("nft", arguments).map(drop);
        nft(&["add", "table", "ip", "hole"])?;
        nft(&["add", "chain", "ip", "hole", "pass", "{ type filter hook forward priority 0 ; }"])?;
        nft(&["add", "rule", "ip", "hole", "pass", "ip", "daddr", &GATEWAY_B.to_string(), "drop"])
    }

    fn heal(&self) -> Result<()> {
        self.topology.router.run("nft", &["delete", "table", "ip", "hole"]).map(drop)
    }

    /// Nothing was in clear.
    fn end(self) -> Result<()> {
        let Cloud { topology, gateway_c, a, data_plane_a, b, c, capture } = self;
        let tally = capture.finish()?.tally()?;
        tally.expect_no_plaintext("the router").with_context(|| a.log_tail(20))?;
        ensure!(tally.esp() > 0, "the capture has {tally}");
        drop((a, data_plane_a, b, c, gateway_c));
        topology.end()
    }
}

/// Site A's configuration with a second tunnel like the first, to gateway C, and a group of both.
fn grouped(text: &str, mode: &str) -> String {
    let check = |to: Ipv4Addr| {
        format!(
            "[tunnel.health_check]\ndestination = \"{to}\"\nsource = \"{LAN_A}\"\ninterval = 1\nretries = 2\n"
        )
    };
    let (top, tunnel) = text.split_at(text.find("[[tunnel]]").unwrap_or(text.len()));
    let second = tunnel
        .replace("name = \"a-b\"", "name = \"a-c\"")
        .replace("peer = \"b\"", "peer = \"c\"")
        .replace(&GATEWAY_B.to_string(), &GATEWAY_C.to_string());
    format!(
        "{top}[[peer]]\nname = \"c\"\naddress = \"{GATEWAY_C}\"\n\n{tunnel}{}{second}{}\
         [[group]]\nname = \"cloud\"\nmembers = [\"a-b\", \"a-c\"]\nmode = \"{mode}\"\n",
        check(LAN_B),
        check(LAN_C)
    )
}

fn the_standby_takes_over() -> Result<()> {
    let cloud = Cloud::up("active-standby")?;
    cloud.wait_share("a-b", 1.0)?;
    let hosts = ((&cloud.topology.host_a, HOST_A.into()), (&cloud.topology.host_b, HOST_B.into()));
    let before = (cloud.sent_by("a-b")?, cloud.sent_by("a-c")?);
    let stream = Stream::start(hosts.0, hosts.1, PACE)?;
    wait_for("traffic in the first tunnel", TURN, || Ok(cloud.sent_by("a-b")? > before.0 + 50.0))?;
    cloud.swallow()?;
    cloud.wait_share("a-c", 1.0)?;
    let taken = cloud.sent_by("a-c")?;
    wait_for("traffic in the second tunnel", TURN, || Ok(cloud.sent_by("a-c")? > taken + 50.0))?;
    let forth = stream.finish()?.forth;
    let gap = PACE * u32::try_from(forth.sent.saturating_sub(forth.received))?;
    ensure!(forth.received > 100 && gap > Duration::ZERO && gap < FAILOVER, "{gap:?} are missing: {forth:?}");
    let status = cloud.a.done(&["status"])?;
    ensure!(status.contains("cloud") && status.contains("a-c"), "{status}");
    ensure!(status.contains(&format!("{LAN_B} does not answer")), "{status}");
    let log = cloud.a.done(&["gateway", "log"])?;
    let told = "group \"cloud\" is carried otherwise: tunnel \"a-b\" 0 %, tunnel \"a-c\" 100 %";
    ensure!(log.contains(told), "{log}");

    let stream = Stream::start(hosts.0, hosts.1, PACE)?;
    cloud.heal()?;
    cloud.wait_share("a-b", 1.0)?;
    let back = cloud.sent_by("a-b")?;
    wait_for("traffic in the first tunnel again", TURN, || Ok(cloud.sent_by("a-b")? > back + 50.0))?;
    let forth = stream.finish()?.forth;
    ensure!(forth.sent == forth.received, "the way back loses nothing: {forth:?}\n{}", cloud.a.log_tail(20));
    cloud.end()
}

fn flows_are_spread() -> Result<()> {
    let cloud = Cloud::up("active-active")?;
    cloud.wait_share("a-b", 0.5)?;
    cloud.wait_share("a-c", 0.5)?;
    let burst = || -> Result<(f64, f64)> {
        let before = (cloud.sent_by("a-b")?, cloud.sent_by("a-c")?);
        send_flows(&cloud.topology.host_a)?;
        let sent = || -> Result<(f64, f64)> {
            Ok((cloud.sent_by("a-b")? - before.0, cloud.sent_by("a-c")? - before.1))
        };
        // Health checks are counted as well.
        wait_for("every datagram to be sealed", TURN, || sent().map(|(b, c)| b + c >= f64::from(FLOWS)))?;
        sent()
    };
    let (b, c) = burst()?;
    ensure!(b > f64::from(FLOWS) / 4.0 && c > f64::from(FLOWS) / 4.0, "{b} and {c} of {FLOWS}");
    cloud.swallow()?;
    cloud.wait_share("a-c", 1.0)?;
    let (b, c) = burst()?;
    ensure!(c >= f64::from(FLOWS) && b < f64::from(FLOWS) / 4.0, "{b} and {c} of {FLOWS}");
    cloud.heal()?;
    cloud.wait_share("a-b", 0.5)?;
    let (b, c) = burst()?;
    ensure!(b > f64::from(FLOWS) / 4.0 && c > f64::from(FLOWS) / 4.0, "{b} and {c} of {FLOWS}");
    let log = cloud.a.done(&["tunnel", "log", "a-c"])?;
    ensure!(log.contains("carries 100 % of group \"cloud\""), "{log}");
    cloud.end()
}

fn a_group_goes_on() -> Result<()> {
    let mut cloud = Cloud::up("active-active")?;
    let spis = |cloud: &Cloud| -> Result<[Vec<String>; 2]> {
        Ok([cloud.a.spis_of("a-b")?, cloud.a.spis_of("a-c")?])
    };
    let shared = |cloud: &Cloud| {
        cloud.wait_share("a-b", 0.5)?;
        cloud.wait_share("a-c", 0.5)
    };
    shared(&cloud)?;
    let old = spis(&cloud)?;
    let (host_a, host_b) = (cloud.topology.host_a.clone(), cloud.topology.host_b.clone());
    let stream = Stream::start((&host_a, HOST_A.into()), (&host_b, HOST_B.into()), PACE)?;
    cloud.a.process().signal(libc::SIGKILL)?;
    cloud.a.process().wait(TURN)?;
    // Nobody asks for anybody's health, and what carries goes on.
    send_flows(&host_a)?;
    cloud.a.start_again()?;
    cloud.a.wait_connected(PATIENCE)?;
    shared(&cloud)?;
    ensure!(spis(&cloud)? == old, "other Child SAs than before: {:?}", spis(&cloud)?);
    for (tunnel, old) in ["a-b", "a-c"].into_iter().zip(&old) {
        cloud.a.done(&["tunnel", "rekey", tunnel, "--child"])?;
        wait_for("another pair of Child SAs", TURN, || {
            let now = cloud.a.spis_of(tunnel)?;
            Ok(!now.is_empty() && now.iter().all(|spi| !old.contains(spi)))
        })
        .with_context(|| cloud.a.log_tail(20))?;
    }
    stream.finish()?.expect_all().with_context(|| cloud.a.log_tail(20))?;
    // What is believed of the members since counts as before.
    cloud.swallow()?;
    cloud.wait_share("a-c", 1.0)?;
    cloud.heal()?;
    shared(&cloud)?;
    cloud.end()
}

/// Flows of a burst.
const FLOWS: u32 = 256;

/// A datagram from each of some ports of host A to host B.
fn send_flows(host_a: &Namespace) -> Result<()> {
    host_a.inside(|| {
        for flow in 0..FLOWS {
            let socket = UdpSocket::bind((HOST_A, 30_000 + u16::try_from(flow)?))?;
            socket.send_to(b"a flow of its own", SocketAddr::from((HOST_B, 9)))?;
        }
        Ok(())
    })
}

/// A tunnel that is up, and through which nothing answers, has health 0; its routes go, and nothing leaves in clear.
fn a_health_check_switches_routes() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let sites = [Site::a(&topology), Site::b(&topology)];
    let capture = Capture::start(&topology.router, TO_A)?;
    let mut pair = Pair::with(&topology, &sites, HOST_B.into(), |site, text| match site {
        "a" => format!(
            "{text}[tunnel.health_check]\ndestination = \"{HOST_B}\"\nsource = \"{NOBODY_A}\"\ninterval = 1\n\
             retries = 2\nswitch_route = true\n"
        ),
        _ => text,
    })?;
    let health = |pair: &Pair| pair.a.metrics()?.expect("adit_tunnel_health", &[("tunnel", pair.a.tunnel())]);
    let round_trip = || pair.a.metrics().map(|m| m.get("adit_tunnel_health_check_round_trip_seconds", &[]));
    wait_for("an answer to the health check", PATIENCE, || Ok(round_trip()?.is_some()))
        .with_context(|| pair.words())?;
    ensure!(health(&pair)? == 1.0, "{}", pair.words());
    ping_until_answered(&topology.gateway_a, HOST_B, PATIENCE).with_context(|| pair.words())?;

    topology.host_b.sysctl(&["net.ipv4.icmp_echo_ignore_all=1"])?;
    wait_for("health 0", TURN, || Ok(health(&pair)? == 0.0)).with_context(|| pair.words())?;
    ensure!(pair.a.state()? == "connected", "{}", pair.words());
    let status = pair.a.done(&["status"])?;
    ensure!(status.contains(&format!("{HOST_B} does not answer 2 echo requests in a row")), "{status}");
    // Its own address has a route for the check; the rest of the subnet leads nowhere.
    let beside = "10.2.0.9";
    wait_for("the route to go", TURN, || Ok(topology.gateway_a.ip(&["route", "get", beside]).is_err()))?;
    ensure!(ping(&topology.gateway_a, HOST_B, 1, 56)?.received == 0, "nobody answers");

    let logs = |pair: &Pair, all: [&str; 2]| {
        let log = pair.a.done(&["tunnel", "log", pair.a.tunnel()])?;
        all.iter().try_for_each(|words| {
            ensure!(log.contains(words), "{words:?} is missing in {log}");
            Ok(())
        })
    };
    logs(&pair, ["health 0: ", "routes are withdrawn"])?;
    // Who starts again believes what was known before.
    pair.a.process().signal(libc::SIGKILL)?;
    pair.a.process().wait(TURN)?;
    pair.a.start_again()?;
    pair.a.wait_connected(PATIENCE)?;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let route = topology.gateway_a.ip(&["route", "get", beside]);
        ensure!(route.is_err(), "a route at a start with health 0: {route:?}\n{}", pair.words());
        ensure!(health(&pair)? == 0.0, "{}", pair.words());
        std::thread::sleep(Duration::from_millis(50));
    }

    topology.host_b.sysctl(&["net.ipv4.icmp_echo_ignore_all=0"])?;
    wait_for("health 1", TURN, || Ok(health(&pair)? == 1.0)).with_context(|| pair.words())?;
    wait_for("the route to come back", TURN, || {
        Ok(topology.gateway_a.ip(&["route", "get", beside]).is_ok_and(|route| route.contains("adit0")))
    })?;
    ping(&topology.gateway_a, HOST_B, 3, 56)?.expect_all().with_context(|| pair.words())?;
    logs(&pair, ["answers again, 2 in a row", "routes are back"])?;
    capture.finish()?.tally()?.expect_no_plaintext("the router").with_context(|| pair.words())?;
    pair.end(topology)
}
