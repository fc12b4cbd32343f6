//! Connected, and yet not all passes: which side drops it.

use super::{Finding, Inspected, Severity};
use crate::{
    maps::Counters,
    status::{ChildStatus, HEALTH, Status, Traffic, TunnelStatus},
};
use adit_maps::sa::DropCause;

/// Packets that SAs of one direction dropped, by cause; only causes that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops(Vec<(&'static str, u64)>);

impl Drops {
    /// What was counted of a direction. Dummies are dropped as they should be.
    pub(crate) fn of(counters: &Counters) -> Self {
        let causes = DropCause::ALL.iter().filter(|cause| **cause != DropCause::Dummy);
        let counted = causes.map(|cause| (cause.label(), counters.drops[*cause as usize]));
        Drops(counted.filter(|(_, n)| *n > 0).collect())
    }

    fn words(&self) -> String {
        self.0.iter().map(|(cause, n)| format!("{cause} {n}")).collect::<Vec<_>>().join(", ")
    }

    fn meanings(&self) -> String {
        self.0.iter().filter_map(|(cause, _)| meaning(cause)).collect::<Vec<_>>().join("; ")
    }
}

/// The smallest packet that every network carries (RFC 8200 section 5).
const USUAL: u16 = 1280;

/// What the counters say.
pub(super) fn findings(tunnel: &TunnelStatus, status: &Status, inspected: &Inspected) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(health(tunnel));
    findings.extend((!inspected.missing.is_empty()).then(|| {
        let words = format!("Child SAs are not in the maps: SPI {}", inspected.missing.join(", "));
        Finding::new(Severity::Error, "sa", words)
            .remedy(format!("`adit tunnel rekey --child {}`", tunnel.name))
    }));
    let [inbound, outbound] = &inspected.drops;
    let [came, went] = carried(&tunnel.children);
    // Flows of a group may go by one member and their answers come by another.
    let is_member = status.groups.iter().any(|g| g.members.iter().any(|m| m.tunnel == tunnel.name));
    let one_way = if !inbound.0.is_empty() && (came == 0 || went == 0) {
        Some(dropped_here(inbound))
    } else if went > 0 && came == 0 {
        Some(nothing_comes(tunnel, went)).map(|finding| of_member(finding, is_member))
    } else if came > 0 && went == 0 {
        Some(nothing_goes(tunnel, came, outbound)).map(|finding| of_member(finding, is_member))
    } else {
        None
    };
    let told = one_way.is_some();
    findings.extend(one_way);
    for (way, drops) in [("from the peer", inbound), ("to the peer", outbound)] {
        if !drops.0.is_empty() && !told {
            let words =
                format!("packets {way} were dropped here since the tunnel was configured: {}", drops.words());
            findings.push(Finding::new(Severity::Warning, "drops", words).remedy(drops.meanings()));
        }
    }
    if came == 0 && went == 0 {
        let words = "connected, and no packet has gone or come with the SAs that are up now";
        findings.push(
            Finding::new(Severity::Note, "no-traffic", words)
                .remedy("send something from a host of the local subnets to one of the remote subnets"),
        );
    }
    findings.extend(tunnel.children.last().and_then(path));
    findings.extend(tunnel.children.last().map(|child| {
        let lifetime = child.expires_at.saturating_sub(child.installed_at);
        let words = format!(
            "the Child SA is renewed before {lifetime} s are over; renewed {} times so far",
            tunnel.rekeys.child
        );
        Finding::new(Severity::Note, "lifetime", words).field("ipsec.lifetime", format!("{lifetime} s"))
    }));
    findings
}

/// What the health check does not get.
fn health(tunnel: &TunnelStatus) -> Option<Finding> {
    let check = tunnel.health_check.as_ref().filter(|check| !check.answers)?;
    let (from, to) = (check.source, check.destination);
    let words = format!("{to} does not answer the health check's echo requests from {from}: health is 0");
    let remedy = format!(
        "see that {to} is up and answers pings, that the peer lets {from} and {to} through to each other, and that the way \
         back to {from} leads into this tunnel"
    );
    let finding = Finding::new(Severity::Error, HEALTH, words).remedy(remedy);
    Some(finding.field("health_check.destination", to).field("health_check.source", from))
}

/// What is an error of a tunnel may be as it should of a member of a connection group.
fn of_member(mut finding: Finding, is_member: bool) -> Finding {
    if is_member {
        finding.severity = Severity::Note;
        finding
            .cause
            .push_str("; what the other members of its connection group carry is not counted in this");
    }
    finding
}

/// Packets that the Child SAs of now have opened and sealed.
fn carried(children: &[ChildStatus]) -> [u64; 2] {
    let sum = |of: fn(&ChildStatus) -> Traffic| children.iter().map(|c| of(c).packets).sum();
    [sum(|c| c.inbound), sum(|c| c.outbound)]
}

fn dropped_here(drops: &Drops) -> Finding {
    let words = format!("traffic does not pass from the peer: what came is dropped here: {}", drops.words());
    Finding::new(Severity::Error, "one-way", words).remedy(drops.meanings())
}

fn nothing_comes(tunnel: &TunnelStatus, went: u64) -> Finding {
    let encapsulated = tunnel.children.iter().any(|c| c.encapsulated);
    let carrier = match (encapsulated, tunnel.children.iter().any(|c| c.protocol == "ah")) {
        (true, _) => "UDP port 4500",
        (_, true) => "AH (IP protocol 51)",
        _ => "ESP (IP protocol 50)",
    };
    let words = format!(
        "traffic passes to the peer alone: {went} packets were sent, and nothing ever came with these SAs: the peer or \
         something on the way drops them or the answers"
    );
    Finding::new(Severity::Error, "one-way", words).remedy(format!(
        "let {carrier} pass the firewalls both ways, between {} and {}; at the peer, check that it counts what comes in, that \
         it has routes to {}, and that its hosts answer{}",
        tunnel.local,
        tunnel.remote.map_or_else(|| tunnel.peer_address.clone(), |ip| ip.to_string()),
        tunnel.local_subnets.join(", "),
        if encapsulated { "" } else { "; nat_t = \"force\" sends it in UDP instead" },
    ))
}

fn nothing_goes(tunnel: &TunnelStatus, came: u64, drops: &Drops) -> Finding {
    let remotes = if tunnel.routes.is_empty() { &tunnel.remote_subnets } else { &tunnel.routes };
    let (why, remedy) = if drops.0.is_empty() {
        let remedy = format!(
            "check that the hosts of {} are up, let the peer's hosts in, and send what is for {} to this gateway",
            tunnel.local_subnets.join(", "),
            remotes.join(", ")
        );
        ("no host here answers through this gateway".to_owned(), remedy)
    } else {
        (format!("what is for it is dropped here: {}", drops.words()), drops.meanings())
    };
    let words =
        format!("traffic passes from the peer alone: {came} packets came, and none went to the peer: {why}");
    Finding::new(Severity::Error, "one-way", words).remedy(remedy)
}

fn path(child: &ChildStatus) -> Option<Finding> {
    let (Some(inner), Some(outer)) = (child.mtu, child.path_mtu) else {
        return Some(Finding::new(
            Severity::Note,
            "mtu",
            "the path to the peer is not known yet: no packet was sealed",
        ));
    };
    let words = format!(
        "sealed packets of up to {outer} bytes fit the path to the peer, packets of up to {inner} fit into them"
    );
    let severity = if outer < USUAL { Severity::Warning } else { Severity::Note };
    Some(Finding::new(severity, "mtu", words).field("mtu", outer))
}

/// What a cause of drops means, and what to do.
fn meaning(cause: &str) -> Option<&'static str> {
    Some(match cause {
        "replay" => {
            "replay: packets come twice or far too late; a larger ipsec.replay_window bears more reordering"
        }
        "authentication" => "authentication: packets were changed on the way, or are not the peer's",
        "selector" => {
            "selector: the peer sends what its Child SA does not cover; compare local_subnets and remote_subnets"
        }
        "no_sa" => "no_sa: the SA went while packets were on their way",
        "too_big" => {
            "too_big: packets do not fit the path and must not be cut; a lower mss_clamp or mtu helps hosts that do not listen"
        }
        "no_route" => {
            "no_route: this machine has no way to the receiver, or the receiver does not answer ARP; check routes and hosts of the LAN"
        }
        "queue_full" => "queue_full: more came than this machine could take",
        "hop_limit" => "hop_limit: packets go in a circle; check the routes on both sides",
        "sequence_exhausted" => "sequence_exhausted: all numbers of an SA are used; turn ipsec.esn on",
        "malformed" | "padding" | "bad_inner" => {
            "malformed, padding, bad_inner: what the peer seals is broken"
        }
        _ => return None,
    })
}
