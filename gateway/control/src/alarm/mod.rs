//! Alarm templates: what of a gateway and its tunnels is watched, and the rule file of Prometheus that is made of it.
//!
//! Prometheus evaluates, Alertmanager tells. A gateway that names no template has [`usual`]; a tunnel that names one has
//! that alone, and no rule of the gateway's template is about it.

mod figure;
mod keep;
mod promql;
mod rules;

pub use figure::{Comparison, FIGURES, Figure, Scope};
pub use keep::keep;
pub(crate) use rules::Attached;

use crate::config::read_alarms;
use adit_maps::sa::DropCause;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::LazyLock, time::Duration};

/// The document that has the template of whoever names none.
const USUAL: &str = include_str!("usual.toml");

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Its name.
    pub name: String,
    /// Its rules, in their order.
    pub rules: Vec<Rule>,
}

impl Alarm {
    /// The first figure that no tunnel has.
    pub(crate) fn of_gateway(&self) -> Option<&'static Figure> {
        self.rules.iter().map(|rule| rule.figure).find(|figure| figure.scope == Scope::Gateway)
    }
}

/// When somebody is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is watched.
    pub figure: &'static Figure,
    /// On which side of the threshold it tells.
    pub comparison: Comparison,
    /// In the figure's unit.
    pub threshold: Threshold,
    /// How long it has to be so.
    pub hold: Duration,
    /// How urgent it is.
    pub severity: Severity,
    /// Which drops count; none for all but dummy packets.
    pub causes: Vec<DropCause>,
    /// In words of one's own.
    pub summary: Option<String>,
}

/// How urgent an alarm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// To be known.
    Info,
    /// To be looked at.
    Warning,
    /// To be mended at once.
    Critical,
}

impl Severity {
    pub(crate) const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// A number that is one: neither infinite nor none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Threshold(f64);

impl Eq for Threshold {}

impl Threshold {
    /// From 0 to `most`.
    pub(crate) fn new(value: f64, most: Option<u32>) -> Option<Threshold> {
        let fits = value.is_finite() && value >= 0.0 && most.is_none_or(|most| value <= most.into());
        fits.then_some(Threshold(value))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The template of a gateway that names none.
pub(crate) fn usual() -> &'static Alarm {
    static READ: LazyLock<Alarm> = LazyLock::new(|| {
        let read = read_alarms(USUAL).unwrap_or_default().into_iter().next();
        // A test reads it: it is a part of this program.
        read.unwrap_or_else(|| Alarm { name: "usual".into(), rules: Vec::new() })
    });
    &READ
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_template_is_read() {
        let found = read_alarms(USUAL).unwrap();
        assert_eq!((found.len(), found[0].name.as_str(), found[0].rules.len()), (1, "usual", 12));
        assert_eq!(usual(), &found[0]);
    }
}
