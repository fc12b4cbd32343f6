//! What is kept of what went wrong.

use crate::{
    log,
    status::{Failure, HEALTH, Mismatch, timestamp},
};
use adit_ike::{Advice, Phase};
use std::{fmt::Display, net::IpAddr, time::SystemTime};

/// A negotiation that failed: where, with whom, and who began it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In which phase.
    pub phase: Phase,
    /// In which exchange, where there was one.
    pub exchange: Option<String>,
    /// The peer's address, where one was known.
    pub peer: Option<IpAddr>,
    /// Whether we began it.
    pub ours: bool,
}

impl Failed {
    /// One of ours that failed before a word to the peer.
    pub fn early() -> Self {
        Failed { phase: Phase::One, exchange: None, peer: None, ours: true }
    }

    pub(super) fn phase_number(&self) -> u8 {
        match self.phase {
            Phase::One => 1,
            Phase::Two => 2,
        }
    }

    /// The beginning of a line about it.
    pub(super) fn words(&self) -> String {
        let number = self.phase_number();
        let place = self.exchange.as_deref().map_or(String::new(), |e| format!(" in {e}"));
        let with = self.peer.map_or(String::new(), |peer| format!(" with {peer}"));
        let whose = if self.ours { "" } else { ", begun by the peer" };
        format!("phase {number} failed{place}{with}{whose}")
    }

    /// What is kept of it.
    pub(super) fn kept(self, cause: &dyn Display, advice: Option<Advice>) -> Failure {
        let phase = self.phase_number();
        Failure {
            phase: Some(phase),
            exchange: self.exchange,
            ours: self.ours,
            mismatch: advice.map(|advice| Box::new(mismatch(advice))),
            ..failure(self.peer, cause)
        }
    }
}

/// What is kept where it is not a matter of negotiation.
pub(super) fn failure(peer: Option<IpAddr>, cause: impl Display) -> Failure {
    let cause = log::line(&cause.to_string());
    let at = timestamp(SystemTime::now());
    Failure { at, phase: None, exchange: None, peer, ours: true, cause, mismatch: None }
}

/// What is kept where `destination` does not answer the health check.
pub(super) fn of_health(destination: IpAddr, cause: impl Display) -> Failure {
    let mismatch = Mismatch {
        about: HEALTH.to_owned(),
        fields: vec!["health_check.destination".to_owned()],
        ours: vec![destination.to_string()],
        theirs: None,
        first_difference: None,
    };
    Failure { mismatch: Some(Box::new(mismatch)), ..failure(None, cause) }
}

/// What the IKE endpoint advises; what peers sent must not write lines of its own.
fn mismatch(advice: Advice) -> Mismatch {
    let lines = |values: Vec<String>| values.iter().map(|value| log::line(value)).collect();
    Mismatch {
        about: advice.matter.label().to_owned(),
        fields: advice.fields.into_iter().map(str::to_owned).collect(),
        ours: lines(advice.ours),
        theirs: advice.theirs.map(lines),
        first_difference: advice.first_difference.as_deref().map(log::line),
    }
}
