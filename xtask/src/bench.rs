//! `cargo xtask bench`: builds everything with optimisation and runs the `bench` room.

use std::path::Path;

use anyhow::Result;

use crate::shell::{self, Step};
use crate::{build, setup};

/// Takes the figures of one bench, or of all, and writes them to `json` as well.
pub(crate) fn bench(name: Option<&str>, json: Option<&Path>, quick: bool) -> Result<()> {
    setup()?;
    build::build(true)?;
    let mut command = shell::cargo();
    command.args(["run", "--release", "--quiet", "--package", "adit-bench", "--"]);
    command.args(name);
    if let Some(file) = json {
        // The bench runs in the tree's root, its caller perhaps elsewhere.
        command.arg("--json").arg(std::path::absolute(file)?);
    }
    if quick {
        command.arg("--quick");
    }
    command.env("ADIT_BIN", build::binary_path(true));
    Step::new("measure", command, "read what failed above").shown()
}
