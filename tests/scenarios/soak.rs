//! Two short soaks, each with the same faults every time; or one of as many minutes as `ADIT_SOAK_MINUTES` says, with faults
//! of its own unless `ADIT_SOAK_SEED` repeats some. `ADIT_SOAK_JSON` names a file for its outcome.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_tests::scenario::{self, Scenario};
use adit_tests::soak::{self, Soak};
use anyhow::{Context, Result};

/// How long a short one lasts, before the calm at its end.
const SHORT: Duration = Duration::from_secs(15);
/// An odd seed has IPv4 between the gateways, an even one IPv6.
const OVER_IPV4: u64 = 1;
const OVER_IPV6: u64 = 4;

fn main() -> std::process::ExitCode {
    let short = |name, seed| Scenario::new(name, move || accounted_for(Soak { lasting: SHORT, seed }));
    scenario::main(match std::env::var_os("ADIT_SOAK_MINUTES") {
        Some(_) => vec![Scenario::new("every_packet_of_a_soak_is_accounted_for", as_asked_for)],
        None => vec![
            short("every_packet_of_a_soak_over_ipv4_is_accounted_for", OVER_IPV4),
            short("every_packet_of_a_soak_over_ipv6_is_accounted_for", OVER_IPV6),
        ],
    })
}

fn as_asked_for() -> Result<()> {
    let minutes: f64 = variable("ADIT_SOAK_MINUTES")?.unwrap_or(1.0);
    let by_time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = variable("ADIT_SOAK_SEED")?.unwrap_or_else(by_time);
    let lasting = Duration::try_from_secs_f64(minutes * 60.0).context("ADIT_SOAK_MINUTES is no time")?;
    accounted_for(Soak { lasting, seed })
}

fn accounted_for(soak: Soak) -> Result<()> {
    let outcome = soak::run(soak, |text| eprintln!("    {text}"))?;
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
