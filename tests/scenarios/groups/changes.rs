//! Groups whose members come up late, change places, come, go, and carry IPv6.

use std::net::IpAddr;
use std::time::Duration;

use adit_tests::adit::configuration;
use adit_tests::namespace::wait_for;
use adit_tests::pair::PATIENCE;
use adit_tests::site::Site;
use adit_tests::stream::{Stream, Way};
use adit_tests::topology::{HOST_A, HOST_B, SIDE_A6, SIDE_B6, SUBNET_A, SUBNET_B};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};

use super::{Cloud, FAILOVER, PACE, TURN, grouped};

/// Datagrams that may be lost when the member that carries them goes at once.
const ON_THE_WAY: u64 = 20;

/// Packets ask every member that waits for traffic; the first that comes carries them, and the first in order in the end.
pub(super) fn on_demand() -> Result<()> {
    let cloud = Cloud::begin(
        |text| grouped(&text, "active-standby").replace("start = \"immediate\"", "start = \"on-demand\""),
        |text| text,
    )?;
    for tunnel in ["a-b", "a-c"] {
        cloud.wait_state(tunnel, "idle")?;
    }
    cloud.wait_share("a-b", 0.0)?;
    // Gateway B does not hear us: its tunnel cannot come.
    cloud.swallow()?;
    let host_a = &cloud.topology.host_a;
    wait_for("the second tunnel to be asked for", PATIENCE, || {
        drop(ping(host_a, HOST_B, 1, 56));
        Ok(cloud.a.state_of("a-c")? == "connected")
    })
    .with_context(|| cloud.a.log_tail(20))?;
    cloud.wait_share("a-c", 1.0)?;
    ensure!(cloud.a.state_of("a-b")? == "connecting", "{}", cloud.a.log_tail(20));
    for tunnel in ["a-b", "a-c"] {
        let log = cloud.a.done(&["tunnel", "log", tunnel])?;
        ensure!(log.contains("traffic wants the tunnel"), "{log}");
        ensure!(!log.contains("50 %"), "{log}");
    }
    cloud.heal()?;
    cloud.connected()?;
    cloud.wait_share("a-b", 1.0)?;
    // What both have seen is not forgotten: the standby is up, and takes over without being asked.
    cloud.a.done(&["tunnel", "down", "a-b"])?;
    cloud.wait_share("a-c", 1.0)?;
    let before = cloud.sent_by("a-c")?;
    super::send_flows(host_a)?;
    wait_for("flows in the second tunnel", TURN, || {
        Ok(cloud.sent_by("a-c")? >= before + f64::from(super::FLOWS))
    })?;
    cloud.end()
}

/// Members that change places, go and come while another carries everything: nothing is lost.
pub(super) fn of_members() -> Result<()> {
    let cloud = Cloud::up("active-standby")?;
    let site = Site::a(&cloud.topology);
    let both = |directory: &std::path::Path| grouped(&configuration(&site, directory), "active-standby");
    let turned =
        |directory: &std::path::Path| both(directory).replace("[\"a-b\", \"a-c\"]", "[\"a-c\", \"a-b\"]");
    let alone = |directory: &std::path::Path| without_first(&both(directory));
    let ungrouped = |directory: &std::path::Path| {
        let text = alone(directory);
        text[..text.find("[[group]]").unwrap_or(text.len())].to_owned()
    };
    let hosts = ((&cloud.topology.host_a, HOST_A.into()), (&cloud.topology.host_b, HOST_B.into()));
    cloud.wait_share("a-b", 1.0)?;
    let spis = cloud.a.spis_of("a-c")?;

    let stream = Stream::start(hosts.0, hosts.1, PACE)?;
    let carries = |what: &str| {
        cloud.wait_share("a-c", 1.0).with_context(|| what.to_owned())?;
        let before = cloud.sent_by("a-c")?;
        wait_for(&format!("traffic in the second tunnel, {what}"), TURN, || {
            Ok(cloud.sent_by("a-c")? > before + 50.0)
        })
    };
    cloud.a.reload(turned)?;
    carries("which comes first")?;
    cloud.a.reload(alone)?;
    carries("which is alone")?;
    cloud.a.reload(turned)?;
    cloud.wait_state("a-b", "connected")?;
    carries("which comes first again")?;
    cloud.a.reload(ungrouped)?;
    let before = cloud.sent_by("a-c")?;
    wait_for("traffic without a group", TURN, || Ok(cloud.sent_by("a-c")? > before + 50.0))?;
    cloud.a.reload(both)?;
    cloud.wait_state("a-b", "connected")?;
    cloud.wait_share("a-b", 1.0)?;
    let before = cloud.sent_by("a-b")?;
    wait_for("traffic in the first tunnel", TURN, || Ok(cloud.sent_by("a-b")? > before + 50.0))?;
    expect_all(stream.finish()?.forth).with_context(|| cloud.a.log_tail(40))?;
    ensure!(cloud.a.spis_of("a-c")? == spis, "other Child SAs than before");
    cloud.end()
}

/// IPv6 beside IPv4 in one group: the standby takes over both; disabled, the first leaves them to it at once.
pub(super) fn ipv6() -> Result<()> {
    let two = |text: String| {
        let subnets = [(SUBNET_A, SIDE_A6.subnet), (SUBNET_B, SIDE_B6.subnet)];
        let add = |text: String, (v4, v6): (&str, &str)| {
            text.replace(&format!("[\"{v4}\"]"), &format!("[\"{v4}\", \"{v6}\"]"))
        };
        subnets.into_iter().fold(text, add)
    };
    let ours = |text: String| grouped(&two(text), "active-standby");
    let cloud = Cloud::begin(ours, two)?;
    cloud.connected()?;
    cloud.wait_share("a-b", 1.0)?;
    let (a, b) = (SIDE_A6.host.parse::<IpAddr>()?, SIDE_B6.host.parse::<IpAddr>()?);
    let hosts = ((&cloud.topology.host_a, a), (&cloud.topology.host_b, b));
    ping_until_answered(hosts.0.0, b, PATIENCE)?;

    let stream = Stream::start(hosts.0, hosts.1, PACE)?;
    cloud.swallow()?;
    cloud.wait_share("a-c", 1.0)?;
    cloud.heal()?;
    cloud.wait_share("a-b", 1.0)?;
    let before = cloud.sent_by("a-b")?;
    wait_for("traffic in the first tunnel", TURN, || Ok(cloud.sent_by("a-b")? > before + 50.0))?;
    let forth = stream.finish()?.forth;
    let gap = PACE * u32::try_from(forth.sent.saturating_sub(forth.received))?;
    ensure!(forth.received > 100 && gap > Duration::ZERO && gap < FAILOVER, "{gap:?} are missing: {forth:?}");

    let site = Site::a(&cloud.topology);
    let stream = Stream::start(hosts.0, hosts.1, PACE)?;
    let disabled = |text: String| text.replacen("start = ", "enabled = false\nstart = ", 1);
    cloud.a.reload(|directory| disabled(ours(configuration(&site, directory))))?;
    cloud.wait_state("a-b", "disabled")?;
    cloud.wait_share("a-c", 1.0)?;
    let before = cloud.sent_by("a-c")?;
    wait_for("traffic in the second tunnel", TURN, || Ok(cloud.sent_by("a-c")? > before + 50.0))?;
    cloud.a.reload(|directory| ours(configuration(&site, directory)))?;
    cloud.wait_state("a-b", "connected")?;
    cloud.wait_share("a-b", 1.0)?;
    let forth = stream.finish()?.forth;
    let lost = forth.sent.saturating_sub(forth.received);
    ensure!(lost <= ON_THE_WAY, "{lost} are missing: {forth:?}\n{}", cloud.a.log_tail(30));
    cloud.end()
}

/// Without the tunnel to gateway B.
fn without_first(text: &str) -> String {
    let (top, tunnels) = text.split_at(text.find("[[tunnel]]").unwrap_or(text.len()));
    let second = tunnels.rfind("[[tunnel]]").map_or("", |at| &tunnels[at..]);
    format!("{top}{}", second.replace("[\"a-b\", \"a-c\"]", "[\"a-c\"]"))
}

/// # Errors
/// One is missing, or none was sent.
fn expect_all(way: Way) -> Result<()> {
    ensure!(way.sent > 0 && way.sent == way.received, "{} of {} datagrams arrived", way.received, way.sent);
    Ok(())
}
