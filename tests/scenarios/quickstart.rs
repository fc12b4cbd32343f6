//! docs/quickstart.md does what it says: its commands are executed as they stand there, and write what is shown.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use adit_tests::adit::binary;
use adit_tests::document::{Block, blocks, execute};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use anyhow::{Context, Result};

/// Gives the page a machine of its own as far as it could meet another: processes, and what is below /run. All of it goes
/// with its first process, however the page ends.
const OWN: &str = "mount -t tmpfs tmpfs /run && exec timeout 60 bash -c \"$1\"";

fn main() -> std::process::ExitCode {
    scenario::main(vec![Scenario::new("the_quickstart_works_line_by_line", quickstart)])
}

fn quickstart() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/quickstart.md");
    let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let mut blocks = blocks(&text)?;
    // What the page makes it takes away.
    blocks.push(Block {
        line: text.lines().count(),
        commands: "ip netns list\n".into(),
        shown: String::new(),
    });
    let run = Run::begin()?;
    let sources = run.directory().join("sources");
    fs::create_dir_all(sources.join("target/release"))?;
    symlink(binary()?, sources.join("target/release/adit"))?;
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    shell.args(["sh", "-c", OWN, "sh"]);
    shell.current_dir(&sources).env("TMPDIR", run.directory()).stdin(Stdio::null());
    execute(&blocks, shell)?;
    run.end()
}
