//! Why a tunnel does not do what it should: what is wrong, which field to change, and what each side has, in words. What
//! comes first is to be mended first: what follows may be its consequence.

mod machine;
#[cfg(test)]
mod tests;
mod traffic;
mod weak;

pub(crate) use machine::Machine;
pub(crate) use traffic::Drops;

use crate::{
    config::{self, Start},
    status::{Failure, State, Status, TunnelStatus},
};
use serde::{Deserialize, Serialize};
use std::{fmt::Display, net::IpAddr};
use utoipa::ToSchema;

/// What is found of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// The tunnel's name.
    pub tunnel: String,
    /// Its connection status.
    pub state: State,
    /// What was found, the first to be mended first; never empty.
    pub findings: Vec<Finding>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing passes, in one direction at least, as long as it is so.
    Error,
    /// It works, and should be otherwise.
    Warning,
    /// It is worth knowing.
    Note,
}

impl Severity {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// Something that is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, for programs: `psk`, `no-answer`, `subnets`, `one-way`, …
    pub about: String,
    /// What is so, and why, for people.
    pub cause: String,
    /// What to do about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The fields of the configuration to change or to compare with the peer's, the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// What we have, or offered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ours: Vec<String>,
    /// What the peer has, or offered; `None` where it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Vec<String>>,
    /// Where the two first differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<String>,
}

impl Finding {
    fn new(severity: Severity, about: &str, cause: impl Into<String>) -> Self {
        Finding {
            severity,
            about: about.to_owned(),
            cause: cause.into(),
            remedy: None,
            fields: Vec::new(),
            ours: Vec::new(),
            theirs: None,
            first_difference: None,
        }
    }

    fn remedy(mut self, words: impl Into<String>) -> Self {
        self.remedy = Some(words.into());
        self
    }

    fn field(mut self, name: &str, ours: impl Display) -> Self {
        self.fields.push(name.to_owned());
        self.ours.push(ours.to_string());
        self
    }
}

/// What the task that runs the tunnels knows of one.
pub(crate) struct Inspected {
    /// Its configuration.
    pub(crate) config: config::Tunnel,
    /// The interface that faces the peers.
    pub(crate) wan: String,
    /// Packets that its SAs dropped, inbound and outbound.
    pub(crate) drops: [Drops; 2],
    /// Inbound SPIs of Child SAs that are not in the maps as they should be.
    pub(crate) missing: Vec<String>,
    /// How often the peer was found dead since the tunnel was configured, or this process began.
    pub(crate) losses: u64,
}

/// Everything there is to say about a tunnel.
pub(crate) fn diagnose(
    tunnel: &TunnelStatus,
    status: &Status,
    inspected: &Inspected,
    machine: &Machine,
) -> Diagnosis {
    let mut findings = Vec::new();
    findings.extend(data_plane(status));
    findings.extend(machine::findings(machine, tunnel, &inspected.wan));
    findings.extend(negotiation(tunnel, inspected));
    if tunnel.state == State::Connected {
        findings.extend(traffic::findings(tunnel, status, inspected));
    }
    findings.extend(losses(inspected));
    findings.extend(nat(tunnel));
    findings.extend(weak::findings(tunnel, &inspected.config));
    if findings.iter().all(|f| f.severity == Severity::Note) && tunnel.state == State::Connected {
        findings.insert(
            0,
            Finding::new(Severity::Note, "none", "nothing is wrong as far as can be seen from here"),
        );
    }
    findings.sort_by_key(|f| f.severity);
    Diagnosis { tunnel: tunnel.name.clone(), state: tunnel.state, findings }
}

/// Whether packets can be sealed and opened at all.
fn data_plane(status: &Status) -> Vec<Finding> {
    let stopped = |words: String| {
        Finding::new(Severity::Error, "data-plane", words)
            .remedy("start it (`adit run`, or `adit dataplane` beside `adit control`) and look at its log")
    };
    if let Some(why) = &status.gateway.waiting_for {
        return vec![stopped(why.clone())];
    }
    let Some(data_plane) = &status.data_plane else {
        return vec![stopped("the data plane does not run: what a policy protects is dropped".into())];
    };
    let dead = data_plane.workers.iter().filter(|w| !w.running);
    dead.map(|w| stopped(format!("worker {} of the data plane has ended", w.id))).collect()
}

/// Why it is not up.
fn negotiation(tunnel: &TunnelStatus, inspected: &Inspected) -> Vec<Finding> {
    // Health is told as it is now, with what runs.
    let told = tunnel.last_error.iter().filter(|e| !e.is_of_health());
    let mut findings: Vec<_> = told.map(|e| of_failure(tunnel.state, e)).collect();
    let config = &inspected.config;
    let note = |about: &str, words: &str| Finding::new(Severity::Note, about, words);
    match tunnel.state {
        State::Disabled if !config.enabled => {
            findings.push(note("disabled", "the tunnel is switched off").field("enabled", false));
        }
        State::Disabled => findings.push(
            note("disabled", "the tunnel was taken down by hand and stays so")
                .remedy(format!("`adit tunnel up {}`", tunnel.name)),
        ),
        State::Idle if config.start == Start::Respond && tunnel.last_error.is_none() => findings.push(
            note("idle", "waits for the peer, which is to begin; nothing that it sent has come to this tunnel yet")
                .remedy(format!(
                    "have the peer begin, and check that it has {} as our address and that UDP ports 500 and 4500 pass \
                     the firewalls; or begin from here with another start",
                    tunnel.local
                ))
                .field("start", "respond"),
        ),
        State::Idle if tunnel.last_error.is_none() => findings.push(
            note("idle", "waits for the first packet to its remote subnets").field("start", "on-demand"),
        ),
        State::Connecting if config.start == Start::Respond => findings.push(
            note("connecting", "was up; waits for the peer, which is to begin again").field("start", "respond"),
        ),
        State::Connecting if tunnel.last_error.is_none() => {
            findings.push(note("connecting", "negotiates; nothing has failed yet"));
        }
        _ => {}
    }
    findings
}

fn of_failure(state: State, failure: &Failure) -> Finding {
    let severity = if state == State::Connected { Severity::Warning } else { Severity::Error };
    let exchange = failure.exchange.as_ref().map_or(String::new(), |exchange| format!(" in {exchange}"));
    let with = failure.peer.map_or(String::new(), |peer| format!(" with {peer}"));
    let place =
        failure.phase.map_or(String::new(), |phase| format!("phase {phase} failed{exchange}{with}: "));
    let mut finding = Finding::new(severity, "other", format!("{place}{}", failure.cause));
    if let Some(mismatch) = &failure.mismatch {
        finding.about.clone_from(&mismatch.about);
        finding.fields.clone_from(&mismatch.fields);
        finding.ours.clone_from(&mismatch.ours);
        finding.theirs.clone_from(&mismatch.theirs);
        finding.first_difference.clone_from(&mismatch.first_difference);
        finding.remedy = remedy(&finding, failure);
    }
    finding
}

/// What to do where a negotiation failed so.
fn remedy(finding: &Finding, failure: &Failure) -> Option<String> {
    let fields = finding.fields.join(", ");
    Some(match finding.about.as_str() {
        "no-answer" => "let UDP ports 500 and 4500 and ESP (IP protocol 50; AH is 51) pass the firewalls both ways, on this \
                        machine, at the peer and between; check that the peer runs IKE at this address, and that it has a \
                        way back"
            .to_owned(),
        "psk" => format!("give both sides the same pre-shared key, and the IDs that they call each other: {fields}"),
        "authentication" => "set the peer to a pre-shared key".to_owned(),
        "other" | "tunnel" if fields.is_empty() => return None,
        _ if finding.theirs.is_none() && failure.ours => {
            format!("the peer does not say what it has: compare {fields} with its configuration, or look at its log")
        }
        _ => format!("set {fields} here to what the peer has, or the peer to what is here"),
    })
}

fn losses(inspected: &Inspected) -> Option<Finding> {
    let count = inspected.losses;
    let dpd = inspected.config.dpd.as_ref()?;
    let words = format!(
        "the peer gave no sign of life and was taken for dead {count} times since `control` was started"
    );
    let finding = Finding::new(Severity::Warning, "dpd", words).remedy(
        "look for losses on the way at those times (`adit tunnel log`); a longer dpd.timeout bears longer gaps",
    );
    (count > 0).then(|| finding.field("dpd.timeout", format!("{} s", dpd.timeout.as_secs())))
}

fn nat(tunnel: &TunnelStatus) -> Option<Finding> {
    let side = match tunnel.nat.as_deref()? {
        "local" => "this gateway is behind a NAT",
        "peer" => "the peer is behind a NAT",
        _ => "both sides are behind a NAT",
    };
    let words = format!("{side}: ESP goes in UDP port 4500");
    let remedy = "UDP port 4500 has to pass both ways; the NAT has to keep its mapping between keepalives";
    Some(Finding::new(Severity::Note, "nat", words).remedy(remedy).field("nat_t", side_of(tunnel.local)))
}

fn side_of(local: IpAddr) -> String {
    format!("we are {local}")
}
