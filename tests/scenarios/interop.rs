//! Adit and real peers: the matrix of `adit_tests::interop`, several cases at a time, and a table of it at the end.
//!
//! `$ADIT_INTEROP_JSON` names a file for the results, `$ADIT_INTEROP_DOCS` has the table written to `docs/interop.md` when
//! all cases have passed; `cargo xtask test interop --json FILE --write-docs` sets them.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use adit_tests::interop::case::Case;
use adit_tests::interop::matrix::matrix;
use adit_tests::interop::show;
use adit_tests::interop::station::{Kind, Pool};
use adit_tests::interop::table::{self, Outcome, Record};
use adit_tests::scenario;
use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Cases at a time. Most of a case is waiting for the other end, so there may be more of them than cores.
const AT_A_TIME: usize = 3;

type Records = Arc<Mutex<Vec<Record>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(AT_A_TIME));
    let cases = matrix();
    let (pool, records) = (Pool::default(), Records::default());
    let trials = cases.iter().map(|case| trial(case.clone(), pool.clone(), Arc::clone(&records))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    let left = pool.end();
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", table::terminal(&cases, &records));
    let whole = !conclusion.has_failed() && records.len() == cases.len();
    match left.and_then(|()| keep(&cases, &records, whole)) {
        Ok(()) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the results where they are wanted.
fn keep(cases: &[Case], records: &[Record], whole: bool) -> Result<()> {
    if let Some(file) = std::env::var_os("ADIT_INTEROP_JSON") {
        std::fs::write(&file, table::json(records).to_string())
            .with_context(|| format!("failed to write {}", file.display()))?;
    }
    if std::env::var_os("ADIT_INTEROP_DOCS").is_some() {
        anyhow::ensure!(whole, "docs/interop.md is written when every case has passed");
        std::fs::write(table::document(), table::markdown(cases)).context("failed to write the table")?;
    }
    Ok(())
}

fn trial(case: Case, pool: Pool, records: Records) -> Trial {
    let name = case.full_name();
    Trial::ignorable_test(name.clone(), move || {
        let begun = Instant::now();
        let lacking = scenario::unavailable().or_else(|| Kind::of(&case).unavailable().map(str::to_owned));
        let outcome = match lacking {
            Some(reason) => Outcome::Skipped(reason),
            None => match show::run(&pool, &case) {
                Ok(note) => Outcome::Passed(note),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            },
        };
        let record = Record { name, outcome: outcome.clone(), seconds: begun.elapsed().as_secs_f64() };
        records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        match outcome {
            Outcome::Passed(_) => Ok(Completion::Completed),
            Outcome::Failed(words) => Err(Failed::from(words)),
            Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
        }
    })
}
