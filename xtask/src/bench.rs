//! `cargo xtask bench`: builds everything with optimisation and runs the `bench` room.

use std::path::Path;

use anyhow::Result;

use crate::shell::{self, Step};
use crate::{build, setup};

/// How much is measured.
#[derive(clap::Args)]
pub(crate) struct Extent {
    /// A tenth of the work: to see that it runs, not what the figures are
    #[arg(long)]
    quick: bool,
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
    command.args(["run", "--release", "--quiet", "--package", "adit-bench", "--"]);
    command.args(name);
    if let Some(file) = json {
        // The bench runs in the tree's root, its caller perhaps elsewhere.
        command.arg("--json").arg(std::path::absolute(file)?);
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
