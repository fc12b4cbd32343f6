//! What `adit tunnel diagnose` says of a tunnel that does not do what it should: nobody answers, a firewall stops a port, a NAT
//! is on the way, traffic passes one way. What it says of configurations that do not fit is shown with a real peer, in the
//! matrix.

use std::time::Duration;

use adit_tests::adit::{Adit, configuration};
use adit_tests::diagnosis::{self, Finding};
use adit_tests::namespace::wait_for;
use adit_tests::pair::Pair;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::topology::{GATEWAY_B, HOST_B, LAN, Topology};
use adit_tests::traffic::ping;
use anyhow::{Context, Result, ensure};

/// How long until something is noticed.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("nobody_listens", || no_answer(None, "nothing ever came back", ":500")),
        Scenario::new("a_firewall_stops_port_500", || {
            no_answer(Some("udp dport 500 drop"), "nothing ever came back", ":500")
        }),
        Scenario::new("a_firewall_stops_port_4500_alone", port_4500),
        Scenario::new("the_side_of_a_nat_is_named", nat),
        Scenario::new("traffic_that_never_comes_back_is_told", nothing_comes),
        Scenario::new("traffic_that_we_drop_is_told_with_the_cause", we_drop),
    ])
}

/// A gateway that gives up soon.
fn impatient(topology: &Topology) -> Result<Adit> {
    let site = Site::a(topology);
    Adit::start_with(&topology.gateway_a, &site.tunnel(), |directory| {
        configuration(&site, directory).replacen(
            "[api]",
            "ike = { attempts = 2, retransmit_after = 200 }\n\n[api]",
            1,
        )
    })
}

/// Has the router drop packets.
fn stop(topology: &Topology, rule: &str) -> Result<()> {
    let file = topology.run().directory().join("firewall.nft");
    let chain = "type filter hook forward priority 10; policy accept;";
    std::fs::write(
        &file,
        format!("table inet firewall {{\n chain forward {{\n  {chain}\n  {rule}\n }}\n}}\n"),
    )?;
    topology.router.run("nft", &["-f", &file.to_string_lossy()]).map(|_| ())
}

/// Waits for an error about something, and gives it.
fn error_of(adit: &Adit, about: &str) -> Result<Finding> {
    diagnosis::wait_for_error(adit, PATIENCE, |finding| finding.about == about)
}

/// What is said where nobody answers: which port was tried, that nothing came, and what to look at.
fn no_answer(rule: Option<&str>, words: &str, port: &str) -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let peer = rule.map(|rule| {
        stop(&topology, rule)?;
        Adit::start(&topology.gateway_b, &Site::b(&topology).initiating(false))
    });
    let peer = peer.transpose()?;
    let a = impatient(&topology)?;
    let finding = error_of(&a, "no-answer")?;
    tells(&finding, &[words, "2 requests"])?;
    ensure!(finding.ours[0].contains(&format!("{GATEWAY_B}{port}")), "{finding:?}");
    let remedy = finding.remedy.as_deref().unwrap_or_default();
    ensure!(remedy.contains("firewalls") && remedy.contains("500 and 4500"), "{finding:?}");
    drop((a, peer));
    topology.end()
}

fn tells(finding: &Finding, words: &[&str]) -> Result<()> {
    let missing = words.iter().find(|words| !finding.cause.contains(**words));
    missing.map_or(Ok(()), |words| Err(anyhow::anyhow!("{words:?} is not said in {finding:?}")))
}

/// The first exchange passes, the second goes to another port because of the NAT.
fn port_4500() -> Result<()> {
    let topology = Topology::behind_nat(Run::begin()?)?;
    stop(&topology, "udp dport 4500 drop")?;
    let b = Adit::start(&topology.gateway_b, &Site::b(&topology))?;
    let a = impatient(&topology)?;
    let finding = error_of(&a, "no-answer")?;
    tells(&finding, &["earlier messages of this attempt were answered", "UDP port 4500"])?;
    ensure!(finding.ours[0].contains(&format!("{GATEWAY_B}:4500")), "{finding:?}");
    drop((a, b));
    topology.end()
}

fn nat() -> Result<()> {
    let topology = Topology::behind_nat(Run::begin()?)?;
    let pair = Pair::on(&topology)?;
    for (gateway, words) in [(&pair.a, "this gateway is behind a NAT"), (&pair.b, "the peer is behind a NAT")]
    {
        let found = diagnosis::of(gateway)?;
        ensure!(found.iter().any(|f| f.about == "nat" && f.cause.contains(words)), "{found:?}");
        ensure!(found.iter().all(|f| f.severity != "error"), "{found:?}");
    }
    pair.end(topology)
}

/// New Child SAs, whose counters begin at nothing.
fn renew(adit: &Adit) -> Result<()> {
    let before = adit.spis_of(adit.tunnel())?;
    adit.done(&["tunnel", "rekey", "--child", adit.tunnel()])?;
    wait_for("other Child SAs alone", PATIENCE, || {
        let now = adit.spis_of(adit.tunnel())?;
        Ok(now.len() == 1 && now != before)
    })
}

fn nothing_comes() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    stop(&topology, &format!("ip protocol esp ip saddr {GATEWAY_B} drop"))?;
    renew(&pair.a)?;
    ping(&topology.host_a, HOST_B, 3, 56)?;
    let finding = error_of(&pair.a, "one-way")?;
    tells(&finding, &["nothing ever came"])?;
    let remedy = finding.remedy.as_deref().unwrap_or_default();
    ensure!(
        remedy.contains("ESP (IP protocol 50)") && remedy.contains(&GATEWAY_B.to_string()),
        "{finding:?}"
    );
    pair.end(topology)
}

fn we_drop() -> Result<()> {
    let (topology, pair) = Pair::up()?;

    topology.host_b.ip(&["link", "set", "eth0", "arp", "off"]).context("host B goes on answering ARP")?;
    topology.gateway_b.ip(&["neighbour", "flush", "dev", LAN])?;
    renew(&pair.b)?;
    let waited = wait_for("gateway B to say what it drops", PATIENCE, || {
        ping(&topology.host_a, HOST_B, 3, 56)?;
        let found = diagnosis::of(&pair.b)?;
        Ok(found.iter().any(|f| {
            let remedy = f.remedy.as_deref().unwrap_or_default();
            f.severity == "error"
                && f.about == "one-way"
                && f.cause.contains("no_route")
                && remedy.contains("ARP")
        }))
    });
    waited.with_context(|| format!("{:?}", diagnosis::of(&pair.b)))?;
    pair.end(topology)
}
