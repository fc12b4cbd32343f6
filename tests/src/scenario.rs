//! What the scenario binaries share: a table of scenarios, each run in a lab of its own, one after the other.

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A scenario: what must hold, and how that is tried.
pub struct Scenario {
    name: String,
    lacking: Option<String>,
    run: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl Scenario {
    /// `name` says what must hold, in words joined by `_`; `run` tries it.
    pub fn new(name: impl Into<String>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Scenario {
        Scenario { name: name.into(), lacking: None, run: Box::new(run) }
    }

    /// What this scenario needs and the machine lacks, if anything: it is then skipped.
    pub fn lacking(self, what: Option<&str>) -> Scenario {
        Scenario { lacking: what.map(str::to_owned), ..self }
    }
}

/// Runs the scenarios that the command line selects, as `cargo test` does its tests, but one at a time: they share two
/// cores, and figures taken side by side would be nobody's.
pub fn main(scenarios: Vec<Scenario>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let lacking = unavailable();
    let trials = scenarios.into_iter().map(|scenario| trial(scenario, lacking.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Why the lab cannot be made on this machine, if it cannot.
pub fn unavailable() -> Option<String> {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0);
    (!root).then(|| "network namespaces take root".to_owned())
}

fn trial(scenario: Scenario, lacking: Option<String>) -> Trial {
    let Scenario { name, lacking: of_its_own, run } = scenario;
    Trial::ignorable_test(name, move || match lacking.or(of_its_own) {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => match run() {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => Err(Failed::from(format!("{error:#}"))),
        },
    })
}
