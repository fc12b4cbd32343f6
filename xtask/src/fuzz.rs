//! `cargo xtask fuzz`: every room's fuzz targets under libFuzzer, guided by coverage.
//!
//! The instrumentation is LLVM's and needs no other compiler than the workspace does; libFuzzer itself is C++ and
//! comes with the crate `libfuzzer-sys`. Inputs that reach something new stay under `target/fuzz`, beside those that
//! are committed in a room's `fuzz/corpus`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    packages,
    shell::{self, Step, note},
};

/// Where the rooms are that may have a fuzz crate, `fuzz`, seen from the workspace's root.
const ROOMS: &str = "gateway";
/// What libFuzzer reads of a program as it runs.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                               -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                               -Cllvm-args=-sanitizer-coverage-pc-table \
                               -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Octets of an input at most: longer than any message of a handshake.
const MAX_INPUT: usize = 4096;

/// How long a target is fuzzed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) seconds: u64,
    /// Ends earlier when so many executions are done.
    pub(crate) runs: Option<u64>,
}

/// Fuzzes one target, or every target one after the other.
///
/// # Errors
/// A target that is not there; a finding, which stays in a file that is named.
pub(crate) fn fuzz(target: Option<&str>, extent: Extent) -> Result<()> {
    let root = shell::root();
    let mut chosen = targets(&root)?;
    if let Some(wanted) = target {
        let names: Vec<String> = chosen.iter().map(|target| target.name.clone()).collect();
        chosen.retain(|target| target.name == wanted);
        if chosen.is_empty() {
            bail!("no fuzz target {wanted:?}; there are {}", names.join(", "));
        }
    }
    if !shell::has_program("c++") {
        packages::install(&packages::not_installed(vec!["g++".to_owned()])?)?;
    }
    let directory = shell::target().join("fuzz");
    let host = host()?;
    let mut crates: Vec<&Path> = chosen.iter().map(|target| &*target.crate_dir).collect();
    crates.dedup();
    crates.into_iter().try_for_each(|crate_dir| build(&root, &directory, &host, crate_dir))?;
    chosen.iter().try_for_each(|target| run(&root, &directory, &host, target, extent))
}

/// A program of a fuzz crate.
struct Target {
    name: String,
    /// Seen from the workspace's root.
    crate_dir: PathBuf,
}

/// The targets of all rooms, by the files that make them; those of one room follow each other.
fn targets(root: &Path) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for room in fs::read_dir(root.join(ROOMS))? {
        let crate_dir = Path::new(ROOMS).join(room?.file_name()).join("fuzz");
        let Ok(files) = fs::read_dir(root.join(&crate_dir).join("fuzz_targets")) else { continue };
        for file in files {
            if let Some(stem) = file?.path().file_stem() {
                let name = stem.to_string_lossy().into_owned();
                targets.push(Target { name, crate_dir: crate_dir.clone() });
            }
        }
    }
    targets.sort_by(|a, b| (&a.crate_dir, &a.name).cmp(&(&b.crate_dir, &b.name)));
    Ok(targets)
}

/// The triple of this machine. Named, it keeps the instrumentation away from build scripts.
fn host() -> Result<String> {
    let mut command = Command::new("rustc");
    command.arg("-vV");
    let version = Step::new("ask rustc for its host", command, "install Rust with rustup").quiet()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("rustc -vV names no host"))
}

fn build(root: &Path, directory: &Path, host: &str, crate_dir: &Path) -> Result<()> {
    let mut command = shell::cargo();
    command.current_dir(root).env("RUSTFLAGS", INSTRUMENTATION).env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.args(["build", "--release", "--target", host, "--manifest-path"]);
    command.arg(crate_dir.join("Cargo.toml")).arg("--target-dir").arg(directory);
    Step::new(
        format!("build the targets of {}", crate_dir.display()),
        command,
        "mend what the compiler names above",
    )
    .shown()
}

fn run(root: &Path, directory: &Path, host: &str, target: &Target, extent: Extent) -> Result<()> {
    let Target { name, crate_dir } = target;
    let own: [PathBuf; 2] = ["corpus", "findings"].map(|kind| directory.join(kind).join(name));
    own.iter().try_for_each(fs::create_dir_all)?;
    let [found, findings] = own;
    let mut command = Command::new(directory.join(host).join("release").join(name));
    command.current_dir(root).arg(&found).arg(crate_dir.join("corpus").join(name));
    command.arg(format!("-max_total_time={}", extent.seconds));
    command.arg(format!("-max_len={MAX_INPUT}"));
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    command.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    if let Some(runs) = extent.runs {
        command.arg(format!("-runs={runs}"));
    }
    let remedy = format!("the input is in {}; run the target with it alone", findings.display());
    Step::new(format!("fuzz {name} for {} s", extent.seconds), command, remedy).shown()?;
    note(&format!("{name}: no finding"));
    Ok(())
}
