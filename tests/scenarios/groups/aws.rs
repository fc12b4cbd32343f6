//! A VPN connection of AWS: two tunnels to the same networks, each to an outside address of its own, set up from the text
//! that AWS lets download. AWS's side is a strongSwan on a kernel with a route-based interface for each tunnel, which has an
//! inside address that answers.

use std::time::Duration;

use adit_tests::adit::{self, Adit, METRICS};
use adit_tests::capture::Capture;
use adit_tests::namespace::{Process, wait_for};
use adit_tests::pair::PATIENCE;
use adit_tests::roots;
use adit_tests::run::Run;
use adit_tests::stream::Stream;
use adit_tests::strongswan::{Guest, Place, StrongSwan};
use adit_tests::topology::{
    GATEWAY_A, HOST_A, HOST_B, LAN, LAN_B, SUBNET_A, SUBNET_B, TO_A, TO_B, Topology, WAN, router_of,
};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};

use super::{FAILOVER, PACE, TURN};

/// What AWS lets download, with the addresses and keys that the sample has.
const GENERIC: &str = include_str!("../../../gateway/control/src/import/samples/aws-generic.txt");

/// The VPN connection in it.
const CONNECTION: &str = "vpn-0a1b2c3d4e5f60718";

/// One end of AWS's.
struct End {
    /// Of Adit's tunnel.
    name: &'static str,
    outside: &'static str,
    /// Third octet of the inside addresses: .1 is AWS's, .2 the customer gateway's. The mark of its packets as well.
    inside: u8,
    psk: &'static str,
}

const ENDS: [End; 2] = [
    End {
        name: "vpn-0a1b2c3d4e5f60718-1",
        outside: "198.51.100.1",
        inside: 42,
        psk: "AbcDefGhiJkl.MnoPqr_1234567890ab",
    },
    End {
        name: "vpn-0a1b2c3d4e5f60718-2",
        outside: "198.51.100.2",
        inside: 43,
        psk: "ZyxWvuTsrQpo.NmlKji_0987654321zy",
    },
];

/// Why there is no such peer on this machine, if there is none.
pub(super) fn unavailable() -> Option<&'static str> {
    roots::uml().is_none().then_some("the kernel peer is not here; `cargo xtask test interop` tells why")
}

/// Adit as customer gateway of such a connection.
struct Aws {
    topology: Topology,
    swan: StrongSwan,
    adit: Adit,
    data_plane: Process,
    capture: Capture,
}

impl Aws {
    /// Both tunnels are connected, and hosts reach each other.
    fn up(version: &str, mode: &str) -> Result<Aws> {
        let topology = Topology::two_sites(Run::begin()?)?;
        let Topology { router, gateway_a, gateway_b, host_b, .. } = &topology;
        // The guest reads frames from a packet socket, which does not tell it of checksums still to be made.
        for (namespace, interface) in [(gateway_a, WAN), (router, TO_A), (router, TO_B)] {
            namespace.run("ethtool", &["-K", interface, "tx", "off"])?;
        }
        let address = topology.address_b;
        let guest = Guest { wan: format!("{address}/24"), lan: LAN_B, router: router_of(address) };
        let place = Place::Uml(roots::uml().context("the kernel peer is not here")?, guest);
        let swan = StrongSwan::start(gateway_b, host_b, place, &ends())?;
        swan.load(&swanctl_conf(if version == "IKEv1" { 1 } else { 2 }))?;

        let file = topology.run().directory().join("aws.txt");
        let text = GENERIC.replace("203.0.113.12", &GATEWAY_A.to_string());
        let text = text.replace("198.51.100.21", ENDS[0].outside).replace("198.51.100.22", ENDS[1].outside);
        std::fs::write(&file, text.replace(": IKEv2", &format!(": {version}")))?;
        let import = ["tunnel", "import", "--from", "aws", "--remote-subnets", SUBNET_B];
        let binary = adit::binary()?;
        let imported =
            gateway_a.run(&binary.to_string_lossy(), &[&import[..], &[&file.to_string_lossy()]].concat())?;
        let (check, members) = ("[tunnel.health_check]\n", "members = [");
        ensure!(imported.matches(check).count() == 2 && imported.matches(members).count() == 1, "{imported}");
        let imported = imported.replace(check, &format!("{check}interval = 1\nretries = 2\n"));
        let imported = imported.replace(members, &format!("mode = \"{mode}\"\n{members}"));

        let capture = Capture::start(router, TO_A)?;
        let adit = Adit::start_control(gateway_a, ENDS[0].name, |directory| {
            format!(
                "[gateway]\nname = \"a\"\naddress = \"{GATEWAY_A}\"\nwan = \"{WAN}\"\nlan = [\"{LAN}\"]\n\n\
                 [api]\nsocket = \"{}/adit.sock\"\nmetrics = \"{METRICS}\"\n\n{imported}",
                directory.display()
            )
        })?;
        let data_plane = adit.data_plane(&[])?;
        let aws = Aws { topology, swan, adit, data_plane, capture };
        ENDS.iter().try_for_each(|end| aws.wait_connected(end)).with_context(|| aws.words())?;
        ping_until_answered(&aws.topology.host_a, HOST_B, PATIENCE).with_context(|| aws.words())?;
        Ok(aws)
    }

    fn wait_connected(&self, end: &End) -> Result<()> {
        let what = format!("tunnel {} to be connected", end.name);
        wait_for(&what, PATIENCE, || Ok(self.adit.state_of(end.name)? == "connected"))
    }

    fn sent_by(&self, end: &End) -> Result<f64> {
        let labels = [("tunnel", end.name), ("direction", "out")];
        self.adit.metrics()?.expect("adit_tunnel_packets_total", &labels)
    }

    /// Waits until the tunnels carry so much of the group.
    fn wait_shares(&self, shares: [f64; 2]) -> Result<()> {
        let what = format!("the tunnels to carry {shares:?} of the group");
        let carries = |end: &End| {
            let labels = [("group", CONNECTION), ("tunnel", end.name)];
            self.adit.metrics()?.expect("adit_group_share_ratio", &labels)
        };
        wait_for(&what, TURN, || Ok([carries(&ENDS[0])?, carries(&ENDS[1])?] == shares))
            .with_context(|| self.words())
    }

    /// Waits until a tunnel has sealed some more packets.
    fn wait_traffic(&self, end: &End) -> Result<()> {
        let before = self.sent_by(end)?;
        wait_for(&format!("traffic in {}", end.name), TURN, || Ok(self.sent_by(end)? > before + 50.0))
    }

    fn stream(&self) -> Result<Stream> {
        let Topology { host_a, host_b, .. } = &self.topology;
        Stream::start((host_a, HOST_A.into()), (host_b, HOST_B.into()), PACE)
    }

    fn spis(&self) -> Result<[Vec<String>; 2]> {
        Ok([self.adit.spis_of(ENDS[0].name)?, self.adit.spis_of(ENDS[1].name)?])
    }

    /// The first end says nothing more and hears nothing more.
    fn silence_first(&self) -> Result<()> {
        let file = self.topology.run().directory().join("silence.nft");
        let of = ENDS[0].outside;
        let rules = format!(
            "table ip silence {{
               chain pass {{
                 type filter hook forward priority 0
                 ip daddr {of} drop
                 ip saddr {of} drop
               }}
             }}
            "
        );
        std::fs::write(&file, rules)?;
        self.topology.router.run("nft", &["-f", &file.to_string_lossy()]).map(drop)
    }

    fn end_silence(&self) -> Result<()> {
        self.topology.router.run("nft", &["delete", "table", "ip", "silence"]).map(drop)
    }

    fn words(&self) -> String {
        format!(
            "Adit's log ends:\n{}  charon's log ends:\n{}",
            self.adit.log_tail(25),
            self.swan.log_tail(25)
        )
    }

    /// Nothing was in clear.
    fn end(self) -> Result<()> {
        let tally = self.capture.finish()?.tally()?;
        tally.expect_no_plaintext("the router").with_context(|| self.adit.log_tail(20))?;
        ensure!(tally.esp() > 0, "the capture has {tally}");
        drop((self.adit, self.data_plane, self.swan));
        self.topology.end()
    }
}

/// What charon does when it starts: the second outside address, an interface for each tunnel, and no other way to site A.
fn ends() -> String {
    let mut commands = vec![
        "modprobe ip_vti".to_owned(),
        format!("ip address add {}/24 dev vec0", ENDS[1].outside),
        format!("ip route add unreachable {SUBNET_A} metric 1000"),
    ];
    for End { outside, inside, .. } in ENDS {
        let device = format!("vti{inside}");
        commands.extend([
            format!("ip link add {device} type vti local {outside} remote {GATEWAY_A} key {inside}"),
            format!("ip address add 169.254.{inside}.1/30 dev {device}"),
            format!("echo 1 > /proc/sys/net/ipv4/conf/{device}/disable_policy"),
            format!("ip link set {device} mtu 1436 up"),
        ]);
    }
    format!("install_routes = no\nstart-scripts {{\n ends = \"{}\"\n}}\n", commands.join("; "))
}

/// AWS's end of both tunnels. The way back is the first that is up.
fn swanctl_conf(version: u8) -> String {
    let mut connections = String::new();
    let mut secrets = String::new();
    for (at, End { outside, inside, psk, .. }) in ENDS.iter().enumerate() {
        let route = format!("{SUBNET_A} dev vti{inside} metric {inside}");
        let changes = format!("up-*) ip route replace {route};; down-*) ip route del {route};;");
        connections += &format!(
            "tunnel{at} {{
               version = {version}
               local_addrs = {outside}
               remote_addrs = {GATEWAY_A}
               proposals = aes128-sha1-modp1024
               local {{
                 auth = psk
                 id = {outside}
               }}
               remote {{
                 auth = psk
                 id = {GATEWAY_A}
               }}
               children {{
                 net{at} {{
                   local_ts = 0.0.0.0/0
                   remote_ts = 0.0.0.0/0
                   esp_proposals = aes128-sha1-modp1024
                   mark_in = {inside}
                   mark_out = {inside}
                   updown = \"eval 'case $PLUTO_VERB in {changes} esac'\"
                 }}
               }}
             }}
            "
        );
        secrets += &format!(
            "ike{at} {{
               id-1 = {outside}
               id-2 = {GATEWAY_A}
               secret = {psk}
             }}
            "
        );
    }
    format!("connections {{\n{connections}}}\nsecrets {{\n{secrets}}}\n")
}

/// What AWS lets download makes a group, of which the second tunnel takes over in time and gives back.
pub(super) fn standby_takes_over() -> Result<()> {
    let mut aws = Aws::up("IKEv2", "active-standby")?;
    aws.wait_shares([1.0, 0.0])?;
    goes_on(&mut aws)?;

    let stream = aws.stream()?;
    aws.wait_traffic(&ENDS[0])?;
    aws.silence_first()?;
    aws.wait_shares([0.0, 1.0])?;
    aws.wait_traffic(&ENDS[1])?;
    let forth = stream.finish()?.forth;
    let gap = PACE * u32::try_from(forth.sent.saturating_sub(forth.received))?;
    ensure!(forth.received > 100 && gap > Duration::ZERO && gap < FAILOVER, "{gap:?} are missing: {forth:?}");
    let log = aws.adit.done(&["tunnel", "log", ENDS[0].name])?;
    ensure!(log.contains("169.254.42.1 does not answer 2 echo requests in a row"), "{log}");

    aws.end_silence()?;
    // Both are there again before the first carries: nothing is lost on the way back.
    let stream = aws.stream()?;
    aws.wait_shares([1.0, 0.0])?;
    aws.wait_traffic(&ENDS[0])?;
    let count = stream.finish()?;
    ensure!(count.forth.sent == count.forth.received, "{count:?}\n{}", aws.words());

    by_hand(&aws)?;
    aws.end()
}

/// Rekeys from either side, another control and another data plane, under traffic.
fn goes_on(aws: &mut Aws) -> Result<()> {
    let stream = aws.stream()?;
    for (at, end) in ENDS.iter().enumerate() {
        let renewed = |aws: &Aws, old: &[Vec<String>; 2]| {
            wait_for("another pair of Child SAs", TURN, || {
                let now = aws.adit.spis_of(end.name)?;
                Ok(now.len() == 1 && now.iter().all(|spi| !old[at].contains(spi)))
            })
            .with_context(|| aws.words())
        };
        let old = aws.spis()?;
        aws.adit.done(&["tunnel", "rekey", end.name])?;
        renewed(aws, &old)?;
        let old = aws.spis()?;
        aws.swan.rekey(&["--child", &format!("net{at}")])?;
        renewed(aws, &old)?;
        aws.swan.rekey(&["--ike", &format!("tunnel{at}")])?;
    }
    let spis = aws.spis()?;
    aws.adit.process().signal(libc::SIGKILL)?;
    aws.adit.process().wait(TURN)?;
    aws.adit.start_again()?;
    aws.adit.wait_started()?;
    ENDS.iter().try_for_each(|end| aws.wait_connected(end))?;
    aws.wait_shares([1.0, 0.0])?;
    stream.finish()?.expect_all().with_context(|| aws.words())?;

    aws.data_plane.kill();
    aws.data_plane = aws.adit.data_plane(&[])?;
    ping_until_answered(&aws.topology.host_a, HOST_B, PATIENCE).with_context(|| aws.words())?;
    ensure!(aws.spis()? == spis, "other Child SAs than before: {:?}", aws.spis()?);
    // Whatever the checks made of the time without one.
    aws.wait_shares([1.0, 0.0])
}

/// A member that is taken down leaves its flows to the other; without any, nothing passes, and it is counted.
fn by_hand(aws: &Aws) -> Result<()> {
    let host_a = &aws.topology.host_a;
    // Those that waited in vain for an SA, and those that did not have to.
    let discarded = || -> Result<f64> {
        let metrics = aws.adit.metrics()?;
        let waited = metrics.expect("adit_data_plane_packets_total", &[("event", "no_sa")])?;
        Ok(waited + metrics.expect("adit_port_verdicts_total", &[("verdict", "no_sa")])?)
    };
    aws.adit.done(&["tunnel", "down", ENDS[0].name])?;
    aws.wait_shares([0.0, 1.0])?;
    ping_until_answered(host_a, HOST_B, PATIENCE).with_context(|| aws.words())?;
    aws.adit.done(&["tunnel", "down", ENDS[1].name])?;
    aws.wait_shares([0.0, 0.0])?;
    let before = discarded()?;
    ensure!(ping(host_a, HOST_B, 3, 56)?.received == 0, "there is no tunnel");
    wait_for("three packets to be counted", TURN, || Ok(discarded()? >= before + 3.0))?;
    for end in &ENDS {
        aws.adit.done(&["tunnel", "up", end.name])?;
        aws.wait_connected(end).with_context(|| aws.words())?;
    }
    aws.wait_shares([1.0, 0.0])?;
    ping_until_answered(host_a, HOST_B, PATIENCE).with_context(|| aws.words())
}

/// The same with IKEv1, and flows over both.
pub(super) fn both_carry_flows_with_ikev1() -> Result<()> {
    let mut aws = Aws::up("IKEv1", "active-active")?;
    aws.wait_shares([0.5, 0.5])?;
    let before = [aws.sent_by(&ENDS[0])?, aws.sent_by(&ENDS[1])?];
    super::send_flows(&aws.topology.host_a)?;
    wait_for("flows in both tunnels", TURN, || {
        let quarter = f64::from(super::FLOWS) / 4.0;
        Ok(aws.sent_by(&ENDS[0])? > before[0] + quarter && aws.sent_by(&ENDS[1])? > before[1] + quarter)
    })?;
    let stream = aws.stream()?;
    for end in &ENDS {
        let old = aws.adit.spis_of(end.name)?;
        aws.adit.done(&["tunnel", "rekey", end.name, "--child"])?;
        wait_for("another pair of Child SAs", TURN, || {
            let now = aws.adit.spis_of(end.name)?;
            Ok(now.iter().any(|spi| !old.contains(spi)))
        })
        .with_context(|| aws.words())?;
    }
    stream.finish()?.expect_all().with_context(|| aws.words())?;
    aws.silence_first()?;
    aws.wait_shares([0.0, 1.0])?;
    aws.end_silence()?;
    aws.wait_shares([0.5, 0.5])?;
    aws.adit.process().stop()?;
    aws.end()
}
