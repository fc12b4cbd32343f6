//! BGP through a tunnel, between BIRD beside Adit and BIRD beside a strongSwan: what is learned is what is sent.
//!
//! ```text
//!  host A ─── gateway A: Adit, BIRD ─── router ─── gateway B: strongSwan (ipsec0), BIRD ─── host B
//!                 169.254.10.2 ═══════════════════════ 169.254.10.1
//! ```

use std::time::Duration;

use adit_tests::adit::{Adit, configuration};
use adit_tests::bird::Bird;
use adit_tests::capture::Capture;
use adit_tests::namespace::{Process, wait_for};
use adit_tests::pair::PATIENCE;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::{AES256_GCM, Site};
use adit_tests::strongswan::{Place, StrongSwan};
use adit_tests::topology::{HOST_B, SUBNET_A, SUBNET_B, TO_A, Topology};
use adit_tests::traffic::{ping, ping_until_answered};
use anyhow::{Context, Result, ensure};

const OURS: &str = "169.254.10.2";
const THEIRS: &str = "169.254.10.1";

/// Within what BGP may teach, and nobody has it.
const ELSEWHERE: &str = "10.2.77.0/24";

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("what_bgp_teaches_is_what_is_sent_and_nothing_is_in_clear", what_is_taught_is_sent),
        Scenario::new("sessions_end_in_time_and_outlast_control", sessions_end),
    ])
}

/// Both sides with a session between them.
struct Both {
    topology: Topology,
    a: Adit,
    data_plane: Process,
    bird_a: Bird,
    swan: StrongSwan,
    bird_b: Bird,
    capture: Capture,
}

impl Both {
    /// With the peer's autonomous system, and how many seconds either side may be silent.
    fn up(asn: u32, hold: u32) -> Result<Both> {
        let topology = Topology::two_sites(Run::begin()?)?;
        let site_a = Site::a(&topology);
        let capture = Capture::start(&topology.router, TO_A)?;
        let settings = "plugins { kernel-libipsec { allow_peer_ts = yes } }";
        let swan = StrongSwan::start(&topology.gateway_b, &topology.gateway_b, Place::Namespace, settings)?;
        swan.load(&swanctl(&site_a))?;
        // charon routes all selectors into ipsec0, which is everything; here BIRD says what goes there.
        topology.gateway_b.ip(&["rule", "del", "priority", "220"])?;
        topology.gateway_b.ip(&["address", "add", &format!("{THEIRS}/30"), "dev", "ipsec0"])?;
        let bird_b = Bird::start(&topology.gateway_b, &theirs(asn, hold))?;

        let directory = Bird::directory(&topology.gateway_a)?;
        let shown = directory.display().to_string();
        let ours = format!("log stderr all;\nprotocol device {{}}\ninclude \"{shown}/adit.conf*\";\n");
        let bird_a = Bird::start(&topology.gateway_a, &ours)?;
        let mut a = Adit::start_control(&topology.gateway_a, &site_a.tunnel(), |files| {
            with_bgp(&configuration(&site_a, files), &shown, asn, hold)
        })?;
        let data_plane = a.data_plane(&[])?;
        a.wait_connected(PATIENCE)?;
        let both = Both { topology, a, data_plane, bird_a, swan, bird_b, capture };
        both.wait("the session", |bgp| {
            bgp["up"] == true && bgp["routes"].as_array().is_some_and(|r| r.len() == 2)
        })?;
        Ok(both)
    }

    /// What A says of the session.
    fn bgp(&self) -> Result<serde_json::Value> {
        Ok(self.a.status()?["bgp"].clone())
    }

    fn wait(&self, what: &str, holds: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
        wait_for(what, PATIENCE, || Ok(holds(&self.bgp()?))).with_context(|| self.words())
    }

    fn words(&self) -> String {
        format!(
            "{}\n{}\n{}\n{}",
            self.a.status().map_or_else(|e| e.to_string(), |status| status["bgp"].to_string()),
            self.a.log_tail(20),
            self.bird_a.log_tail(10),
            self.bird_b.birdc("show protocols all").unwrap_or_default()
        )
    }

    /// What A's BIRD says of the session, with since when that is so.
    fn session(&self) -> Result<String> {
        let said = self.bird_a.birdc("show protocols adit_169_254_10_0")?;
        ensure!(said.contains("Established"), "{said}");
        Ok(said)
    }

    /// Nothing was in clear.
    fn end(self) -> Result<()> {
        let Both { topology, a, data_plane, bird_a, swan, bird_b, capture } = self;
        let tally = capture.finish()?.tally()?;
        tally.expect_no_plaintext("the router").with_context(|| a.log_tail(20))?;
        ensure!(tally.esp() > 0, "the capture has {tally}");
        drop((a, data_plane, bird_a, swan, bird_b));
        topology.end()
    }
}

/// Routes go both ways, traffic by them, and a withdrawal has its effect: dropped, not in clear.
fn what_is_taught_is_sent() -> Result<()> {
    let mut both = Both::up(64512, 9)?;
    let topology = &both.topology;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| both.words())?;
    ping(&topology.gateway_a, HOST_B, 3, 56)?.expect_all().with_context(|| both.words())?;
    let bgp = both.bgp()?;
    ensure!(bgp["routes"] == serde_json::json!([SUBNET_B, ELSEWHERE]), "outside of the bounds: {bgp}");
    ensure!(bgp["announced"] == 1 && bgp["received"] == 2 && bgp["state"] == "established", "{bgp}");
    let theirs = both.bird_b.birdc("show route")?;
    ensure!(theirs.contains(SUBNET_A) && !theirs.contains("192.0.2."), "{theirs}");
    let metrics = both.a.metrics()?;
    let labels = [("tunnel", "a-b")];
    ensure!(metrics.expect("adit_tunnel_bgp_up", &labels)? == 1.0);
    ensure!(metrics.expect("adit_tunnel_bgp_routes", &labels)? == 2.0);
    let shown = both.a.done(&["tunnel", "show", both.a.tunnel()])?;
    let line = format!("bgp      {OURS} (65000) with {THEIRS} (64512), established; 2 received, 1 announced");
    ensure!(shown.contains(&line), "{shown}");

    both.bird_b.birdc("disable hosts")?;
    both.wait("the withdrawal", |bgp| bgp["routes"] == serde_json::json!([ELSEWHERE]))?;
    ensure!(both.bgp()?["up"] == true, "{}", both.words());
    let dropped = || -> Result<f64> {
        both.a.metrics()?.expect("adit_port_verdicts_total", &[("interface", "lan"), ("verdict", "discard")])
    };
    let before = dropped()?;
    let lost = ping(&topology.host_a, HOST_B, 3, 56)?;
    ensure!(lost.received == 0, "{lost:?}");
    ensure!(dropped()? >= before + 3.0, "{} then {}", before, dropped()?);
    // Nor does the gateway itself send it elsewhere.
    ensure!(ping(&topology.gateway_a, HOST_B, 2, 56)?.received == 0);
    both.bird_b.birdc("enable hosts")?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| both.words())?;

    // What is announced changes without a word of IKE.
    let since = both.a.status()?["ike_since"].clone();
    let shown = Bird::directory(&topology.gateway_a)?.display().to_string();
    let site = Site::a(topology);
    both.a.reload(|files| {
        let text = with_bgp(&configuration(&site, files), &shown, 64512, 9);
        text.replace("hold_time = 9\n", "hold_time = 9\nannounce = [\"10.1.0.0/16\"]\n")
    })?;
    wait_for("another announcement", PATIENCE, || {
        Ok(both.bird_b.birdc("show route")?.contains("10.1.0.0/16"))
    })
    .with_context(|| both.words())?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE).with_context(|| both.words())?;
    ensure!(both.a.status()?["ike_since"] == since, "the tunnel was negotiated anew");
    ensure!(both.bgp()?["up"] == true, "{}", both.words());

    // Another data plane: sessions outlast that adit0 has no reader for a moment.
    let since = both.session()?;
    both.data_plane.kill();
    std::thread::sleep(Duration::from_millis(500));
    both.data_plane = both.a.data_plane(&[])?;
    ping_until_answered(&both.topology.host_a, HOST_B, PATIENCE).with_context(|| both.words())?;
    ensure!(both.session()? == since, "the session was {since}; {}", both.words());
    both.end()
}

/// Both are in one autonomous system. Our control dies, while BIRD and traffic go on; then the peer's BIRD does, without a
/// word.
fn sessions_end() -> Result<()> {
    let mut both = Both::up(65000, 3)?;
    ping_until_answered(&both.topology.host_a, HOST_B, PATIENCE).with_context(|| both.words())?;
    both.a.process().kill();
    ping(&both.topology.host_a, HOST_B, 3, 56)?.expect_all()?;
    both.a.restart()?;
    both.wait("control to know again", |bgp| bgp["up"] == true && bgp["received"] == 2)?;
    ping(&both.topology.host_a, HOST_B, 3, 56)?.expect_all().with_context(|| both.words())?;

    both.bird_b.kill();
    let limit = Duration::from_secs(3 + 3);
    wait_for("the end of the session", limit, || {
        let bgp = both.bgp()?;
        Ok(bgp["up"] == false && bgp["routes"].as_array().is_some_and(Vec::is_empty))
    })
    .with_context(|| both.words())?;
    ensure!(ping(&both.topology.host_a, HOST_B, 2, 56)?.received == 0);
    let log = both.a.done(&["tunnel", "log", both.a.tunnel()])?;
    for words in ["BGP: the session is no longer established", "BGP: withdrawn: 10.2"] {
        ensure!(log.contains(words), "{words:?} is missing in {log}");
    }
    both.bird_b.restart()?;
    ping_until_answered(&both.topology.host_a, HOST_B, PATIENCE).with_context(|| both.words())?;

    // Ours goes: what it had learned stays until it is back.
    both.bird_a.kill();
    both.wait("word of BIRD", |bgp| {
        bgp["problem"].as_str().is_some_and(|p| p.contains("BIRD is not running"))
    })?;
    both.bird_a.restart()?;
    both.wait("BIRD again", |bgp| bgp["up"] == true)?;
    ping_until_answered(&both.topology.host_a, HOST_B, PATIENCE).with_context(|| both.words())?;
    both.end()
}

/// Site A's configuration in routing mode `route` with BGP.
fn with_bgp(text: &str, bird: &str, asn: u32, hold: u32) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("remote_subnets"));
    let changed = lines.map(|line| match line.starts_with("local_subnets") {
        true => "routing_mode = \"route\"\nroutes = [\"10.2.0.0/16\"]\n".to_owned(),
        false => format!("{line}\n"),
    });
    let text: String = changed.collect();
    let bird = format!(
        "[gateway.bird]\nfile = \"{bird}/adit.conf\"\nsocket = \"{bird}/bird.ctl\"\n\n[[peer]]\nasn = {asn}\n"
    );
    let text = text.replacen("[[peer]]\n", &bird, 1);
    format!(
        "{text}\n[tunnel.bgp]\nlocal_asn = 65000\ninside_cidr = \"169.254.10.0/30\"\nlocal_ip = \"{OURS}\"\n\
         hold_time = {hold}\n"
    )
}

/// What a cloud has: everything may pass, and routes say what does.
fn swanctl(site: &Site) -> String {
    let (ike, esp) = (AES256_GCM.swan_ike, AES256_GCM.swan_esp);
    format!(
        "connections {{ net {{
           version = 2
           proposals = {ike}
           local_addrs = {b}
           remote_addrs = {a}
           local {{ auth = psk
             id = {b} }}
           remote {{ auth = psk
             id = {a} }}
           children {{ net {{
             local_ts = 0.0.0.0/0
             remote_ts = 0.0.0.0/0
             esp_proposals = {esp}-x25519,{esp}
           }} }}
         }} }}
         secrets {{ ike {{ secret = \"{psk}\" }} }}
        ",
        a = site.address,
        b = site.peer_address,
        psk = site.psk,
    )
}

/// The peer's BIRD: it teaches its LAN, another network, and one that is none of A's business.
fn theirs(asn: u32, hold: u32) -> String {
    format!(
        "log stderr all;
         router id 203.0.113.9;
         protocol device {{ scan time 1; }}
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
         protocol static hosts {{ ipv4; route {SUBNET_B} unreachable; }}
         protocol static others {{ ipv4; route {ELSEWHERE} unreachable; route 172.20.0.0/16 unreachable; }}
         protocol bgp adit {{
           local {THEIRS} as {asn};
           neighbor {OURS} as 65000;
           interface \"ipsec0\";
           direct;
           hold time {hold};
           connect delay time 1;
           connect retry time 2;
           error wait time 1, 2;
           ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
         }}
        "
    )
}
