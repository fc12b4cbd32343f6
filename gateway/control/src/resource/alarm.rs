//! What of a gateway and its tunnels somebody is to be told.

use crate::alarm::{self, Threshold};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

super::resource! {
    /// An alarm template: what of a gateway and its tunnels somebody is to be told.
    Alarm, AlarmSpec
}

/// What an alarm template is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlarmSpec {
    /// Its rules. Without any, nothing is told.
    pub rules: Vec<RuleSpec>,
}

/// When somebody is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleSpec {
    /// What is watched, of a tunnel or of the gateway.
    #[schema(example = "health")]
    pub figure: String,
    /// `above`: it tells while the figure is more than the threshold; `below`: while it is less.
    pub comparison: String,
    /// In the figure's unit.
    #[schema(value_type = f64, example = 1)]
    pub threshold: Threshold,
    /// How long it has to be so, in seconds.
    #[serde(rename = "for")]
    pub hold: u64,
    /// `info`, `warning`, `critical`.
    pub severity: String,
    /// Which drops count; none for all but dummy packets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// In words of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

impl From<&alarm::Alarm> for AlarmSpec {
    fn from(a: &alarm::Alarm) -> Self {
        AlarmSpec { rules: a.rules.iter().map(RuleSpec::from).collect() }
    }
}

impl From<&alarm::Rule> for RuleSpec {
    fn from(r: &alarm::Rule) -> Self {
        RuleSpec {
            figure: r.figure.word.into(),
            comparison: r.comparison.word().into(),
            threshold: r.threshold,
            hold: r.hold.as_secs(),
            severity: r.severity.word().into(),
            causes: r.causes.iter().map(|cause| cause.label().to_owned()).collect(),
            summary: r.summary.clone(),
        }
    }
}
