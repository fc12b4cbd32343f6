//! `cargo xtask bench`: builds everything with optimisation and runs the `bench` room.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::shell::{self, Step, note};
use crate::{build, packages, setup};

/// Intel's library, beside which `bench crypto` measures: Debian's package, and the file that says it is there.
const IPSEC_MB: (&str, &str) = ("libipsec-mb-dev", "/usr/include/intel-ipsec-mb.h");

/// What `bench instructions` counts with, and the program that says it is there.
const VALGRIND: (&str, &str) = ("valgrind", "/usr/bin/valgrind");

/// How much is measured.
#[derive(clap::Args)]
pub(crate) struct Extent {
    /// A tenth of the work: to see that it runs, not what the figures are
    #[arg(long)]
    quick: bool,
    /// Put the figures into the tables of this document that ask for them, as docs/performance.md
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Only this part of the bench: of `ike` handshakes, memory, tunnels or flood
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// How many tunnels come up, instead of the usual counts; more than once for several
    #[arg(long, value_name = "COUNT")]
    tunnels: Vec<u32>,
}

/// Takes the figures of one bench, or of all, and writes them to `json` as well.
pub(crate) fn bench(name: Option<&str>, json: Option<&Path>, extent: &Extent) -> Result<()> {
    setup()?;
    build::build(true)?;
    let mut command = shell::cargo();
    command.args(["run", "--release", "--quiet", "--package", "adit-bench"]);
    if name.is_none_or(|name| name == "crypto") && has_ipsec_mb() {
        command.args(["--features", "peers"]);
    }
    if name.is_none_or(|name| name == "instructions") && !can_have(VALGRIND) {
        note("instructions are counted with valgrind, which is not here");
    }
    command.arg("--");
    command.args(name);
    if let Some(file) = json {
        // The bench runs in the tree's root, its caller perhaps elsewhere.
        command.arg("--json").arg(std::path::absolute(file)?);
    }
    if let Some(file) = &extent.document {
        command.arg("--document").arg(std::path::absolute(file)?);
    }
    if extent.quick {
        command.arg("--quick");
    }
    if let Some(part) = &extent.only {
        command.args(["--only", part]);
    }
    for count in &extent.tunnels {
        command.args(["--tunnels", &count.to_string()]);
    }
    command.env("ADIT_BIN", build::binary_path(true));
    Step::new("measure", command, "read what failed above").shown()
}

/// Whether Intel's library is here, or could be installed.
fn has_ipsec_mb() -> bool {
    let is_here = cfg!(target_arch = "x86_64") && can_have(IPSEC_MB);
    if !is_here {
        note("the libraries of others are left out: they are measured on x86-64 with Intel's libipsec-mb");
    }
    is_here
}

/// Whether the file of a package is here, or could be installed.
fn can_have((package, file): (&str, &str)) -> bool {
    if !Path::new(file).exists() && packages::is_debian() {
        let missing = packages::not_installed(vec![package.to_owned()]);
        if let Err(error) = missing.and_then(|missing| packages::install(&missing)) {
            note(&format!("{package} cannot be had: {error:#}"));
        }
    }
    Path::new(file).exists()
}
