//! `bench instructions`: how many instructions the worker spends on a packet, counted by callgrind.
//!
//! A count is the same on a busy machine as on an idle one, so that two commits can be compared by it; it says nothing
//! of caches and of how wide an instruction is. Callgrind knows no AVX-512: the engine runs on its portable backend,
//! with AES-NI by RustCrypto. Each count is of a process of its own: this program again, told by `--once` what to do.

use std::collections::HashMap;
use std::process::Command;
use std::{env, fs};

use adit_esp::{Backend, Cipher};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::crypto::SUITES;
use crate::gateway::{Tunnels, Way};
use crate::isolated::isolated;
use crate::report::{Report, Row, figure};

/// Batches of a run and of a longer one: what these differ in is counted, so that what comes first is not.
const BATCHES: [usize; 2] = [4, 20];
const BATCH: usize = 256;
/// Where the counting begins and ends.
const TURN: &str = "adit_dataplane::worker::in_memory::Gateway::turn*";
/// What is called from there to seal and to open.
const ENGINE: [&str; 2] = ["adit_esp::engine::Engine::seal", "adit_esp::engine::Engine::open"];

/// Counts all.
///
/// # Errors
/// Valgrind is not there, or the gateway does not do its work under it.
pub(crate) fn run(report: &mut Report, quick: bool) -> Result<()> {
    let mut rows = Vec::new();
    let counts: &[usize] = if quick { &[1] } else { &[1, 2048] };
    let is_wanted = |cipher| cipher == Cipher::Aes128Gcm16 || (!quick && cipher == Cipher::Aes128Cbc);
    for suite in SUITES.iter().filter(|suite| is_wanted(suite.cipher)) {
        for way in [Way::Seal, Way::Open] {
            for size in [64, 1400] {
                for sas in counts {
                    rows.push(row(suite.name, way, size, *sas)?);
                }
            }
        }
    }
    let title = "The worker in memory without AVX-512: instructions a packet, by callgrind";
    report.table("instructions", title, rows);
    Ok(())
}

fn row(suite: &str, way: Way, size: usize, sas: usize) -> Result<Row> {
    let [few, many] = BATCHES;
    let what = |batches| format!("{suite}/{}/{size}/{sas}/{batches}", way.name());
    let (less, more) = (Counted::of(&what(few))?, Counted::of(&what(many))?);
    let a_packet = |instructions: u64| instructions as f64 / ((many - few) * BATCH) as f64;
    ensure!(
        more.engine > less.engine,
        "callgrind finds no {ENGINE:?} in the worker: have they been inlined?"
    );
    let (all, engine) = (a_packet(more.all - less.all), a_packet(more.engine - less.engine));
    Ok(vec![
        ("suite", Value::from(suite)),
        ("op", way.name().into()),
        ("size", size.into()),
        ("sas", sas.into()),
        ("impl", format!("adit {}", Backend::Portable).into()),
        ("instructions_per_packet", figure(all)),
        ("in_the_engine", figure(engine)),
        ("around_it", figure(all - engine)),
    ])
}

/// Instructions of one run, within the worker's turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    all: u64,
    /// Those of the engine, with all that it calls.
    engine: u64,
}

impl Counted {
    fn of(what: &str) -> Result<Self> {
        let file = env::temp_dir().join(format!("adit-bench-{}.callgrind", std::process::id()));
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--collect-atstart=no", &format!("--toggle-collect={TURN}")])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(env::current_exe()?)
            .args(["--once", what])
            .output()
            .context("valgrind could not be started; `cargo xtask bench instructions` installs it")?;
        let profile = fs::read_to_string(&file).unwrap_or_default();
        // Nothing else would look for it there.
        let _ = fs::remove_file(&file);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what} under valgrind:\n{said}");
        let counted = Self::read(&profile);
        ensure!(counted.all > counted.engine && counted.engine > 0, "{what}: {counted:?}:\n{said}");
        Ok(counted)
    }

    /// Reads what callgrind has written: https://valgrind.org/docs/manual/cl-format.html. A function has its name where
    /// its number comes first; behind `calls` is a line of what the call took. What the engine calls of itself is in what it
    /// took already.
    fn read(profile: &str) -> Self {
        let (mut counted, mut is_engine) = (Counted::default(), HashMap::new());
        let (mut within, mut called, mut is_call) = (false, false, false);
        for line in profile.lines() {
            let (key, value) = line.split_once('=').or_else(|| line.split_once(": ")).unwrap_or_default();
            match key {
                "summary" | "totals" => counted.all = value.trim().parse().unwrap_or(counted.all),
                "fn" | "cfn" => {
                    let (number, name) = value.split_once(' ').unwrap_or((value, ""));
                    let known = is_engine.entry(number.to_owned());
                    let known =
                        *known.or_insert_with(|| ENGINE.iter().any(|function| name.starts_with(function)));
                    match key {
                        "cfn" => called = known,
                        _ => within = known,
                    }
                }
                "calls" => is_call = true,
                _ if is_call => {
                    is_call = false;
                    let cost = line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok());
                    counted.engine += cost.filter(|_| called && !within).unwrap_or_default();
                }
                _ => {}
            }
        }
        counted
    }
}

/// Does what one count is of: suite, way, octets, tunnels and batches, as `aes128gcm16/seal/64/1/20`.
///
/// # Errors
/// It is no such description, or the gateway does not do its work.
pub(crate) fn once(what: &str) -> Result<()> {
    let [suite, way, size, sas, batches] = what.split('/').collect::<Vec<_>>()[..] else {
        bail!("{what} is not suite/way/octets/tunnels/batches");
    };
    let suite = SUITES.into_iter().find(|known| known.name == suite).context("no such suite")?;
    let way = [Way::Seal, Way::Open].into_iter().find(|known| known.name() == way).context("no such way")?;
    let (size, sas, batches): (usize, usize, usize) = (size.parse()?, sas.parse()?, batches.parse()?);
    isolated(move |dir| {
        let mut tunnels = Tunnels::start(dir, suite, sas, Backend::Portable)?;
        for _ in 0..batches {
            tunnels.batch(way, &[size], |_| ())?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_told_from_what_is_around_it() {
        let profile = "events: Ir\nsummary: 1000\n\nfn=(1) adit_dataplane::worker::Worker::round\n7 50\n\
                       cfn=(2) adit_esp::engine::Engine::open\ncalls=3 12\n8 600\n9 30\ncfn=(3) memcpy\ncalls=1 0\n\
                       +1 20\n\nfn=(2)\n12 100\ncfn=(3)\ncalls=1 0\n12 100\n\
                       cfn=(5) adit_esp::engine::Engine::open_streamed\ncalls=1 20\n12 400\n\nfn=(4) other\ncfn=(2)\ncalls=1 12\n* 200\n";
        assert_eq!(Counted::read(profile), Counted { all: 1000, engine: 800 });
    }

    #[test]
    fn what_is_counted_can_be_done() {
        // SAFETY: no pointer is passed.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("skipped: maps and namespaces need root");
            return;
        }
        once("aes128-sha1/open/64/2/1").unwrap();
        assert!(once("aes128-sha1/open/64").is_err());
        assert!(once("rot13/open/64/2/1").is_err());
    }
}
