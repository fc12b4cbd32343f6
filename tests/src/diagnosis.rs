//! What `adit tunnel diagnose` says.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::adit::Adit;
use crate::namespace::wait_for;

/// A finding.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    /// `error`, `warning`, `note`.
    pub severity: String,
    /// What it is about.
    pub about: String,
    /// What is so.
    pub cause: String,
    /// What to do.
    pub remedy: Option<String>,
    /// Which fields to look at.
    #[serde(default)]
    pub fields: Vec<String>,
    /// What Adit has.
    #[serde(default)]
    pub ours: Vec<String>,
    /// What the peer has.
    pub theirs: Option<Vec<String>>,
}

/// What is found of the tunnel.
///
/// # Errors
/// The gateway does not answer, or not as documented.
pub fn of(adit: &Adit) -> Result<Vec<Finding>> {
    let said = adit.done(&["tunnel", "diagnose", adit.tunnel(), "-o", "json"])?;
    let mut diagnosis: Value = serde_json::from_str(&said).context("`adit tunnel diagnose` wrote no JSON")?;
    serde_json::from_value(diagnosis["findings"].take()).with_context(|| format!("not findings: {said}"))
}

/// Waits for the first error that is `wanted`.
///
/// # Errors
/// There is none in time: with what was found instead.
pub fn wait_for_error(adit: &Adit, limit: Duration, wanted: impl Fn(&Finding) -> bool) -> Result<Finding> {
    let (mut last, mut found) = (Vec::new(), None);
    let waited = wait_for("an error in the diagnosis", limit, || {
        last = of(adit)?;
        found = last.iter().find(|finding| finding.severity == "error" && wanted(finding)).cloned();
        Ok(found.is_some())
    });
    waited.with_context(|| format!("found: {last:#?}"))?;
    found.context("an error was found and is gone")
}
