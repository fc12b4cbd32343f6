//! A soak of a minute, or of as many as `ADIT_SOAK_MINUTES` says; `ADIT_SOAK_SEED` repeats one, and `ADIT_SOAK_JSON`
//! names a file for the outcome.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_tests::scenario::{self, Scenario};
use adit_tests::soak::{self, Soak};
use anyhow::{Context, Result};

fn main() -> std::process::ExitCode {
    scenario::main(vec![Scenario::new("every_packet_of_a_soak_is_accounted_for", accounted_for)])
}

fn accounted_for() -> Result<()> {
    let minutes: f64 = variable("ADIT_SOAK_MINUTES")?.unwrap_or(1.0);
    let by_time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = variable("ADIT_SOAK_SEED")?.unwrap_or_else(by_time);
    let lasting = Duration::try_from_secs_f64(minutes * 60.0).context("ADIT_SOAK_MINUTES is no time")?;
    let outcome = soak::run(Soak { lasting, seed }, |text| eprintln!("    {text}"))?;
    if let Some(file) = std::env::var_os("ADIT_SOAK_JSON") {
        std::fs::write(&file, format!("{}\n", outcome.json()))
            .with_context(|| format!("failed to write {}", file.display()))?;
    }
    println!("{}", outcome.table());
    outcome.expect_balanced()
}

/// A variable of the environment, `None` when it is not set.
fn variable<T: FromStr>(name: &str) -> Result<Option<T>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| anyhow::anyhow!("{name} is {text:?}"))
}
