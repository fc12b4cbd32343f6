//! Runs other programs and, when one fails, says in words which, how, and what to do about it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Result, anyhow};

/// How many of a failed program's last lines are shown.
const TAIL: usize = 20;

/// One external program to run: what for, and what a person can do when it fails.
pub(crate) struct Step {
    what: String,
    remedy: String,
    command: Command,
}

impl Step {
    /// `what` reads after "failed:" and before a colon, as in "install the Debian packages".
    pub(crate) fn new(what: impl Into<String>, command: Command, remedy: impl Into<String>) -> Self {
        Step { what: what.into(), remedy: remedy.into(), command }
    }

    /// Runs the program silently and returns what it wrote to stdout.
    pub(crate) fn quiet(mut self) -> Result<String> {
        let output = self.command.stdin(Stdio::null()).output().map_err(|error| self.not_started(&error))?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            let lines: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
            return Err(self.failed(output.status, &lines[lines.len().saturating_sub(TAIL)..]));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the program with its output going to the terminal as it comes, after a line that says what is done.
    pub(crate) fn shown(self) -> Result<()> {
        self.watched(Stream::Stderr, |_| ()).map(|_| ())
    }

    /// Like [`Step::shown`], and hands every line of the program's output to `each`. All of its output goes to `to`.
    ///
    /// # Errors
    /// The program could not be started, or ended with a status other than success.
    pub(crate) fn watched(mut self, to: Stream, each: impl FnMut(&str)) -> Result<ExitStatus> {
        announce(&self.what);
        let begun = Instant::now();
        // One pipe for both streams keeps their lines in order.
        let (reader, writer) = std::io::pipe()?;
        if std::io::stderr().is_terminal() {
            self.command.env("CARGO_TERM_COLOR", "always");
        }
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()
            .map_err(|error| self.not_started(&error))?;
        // The command holds the pipe's write end too; the reader's end of file comes when nobody does.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let tail = pass_on(reader, to, each);
        let status = child.wait().map_err(|error| self.not_started(&error))?;
        if !status.success() {
            return Err(self.failed(status, &tail));
        }
        note(&format!("done in {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(status)
    }

    fn not_started(&self, error: &std::io::Error) -> anyhow::Error {
        let program = self.command.get_program().to_string_lossy();
        anyhow!(
            "failed to {}: `{program}` could not be started ({error}).\n  what to do: {}",
            self.what,
            self.remedy
        )
    }

    fn failed(&self, status: ExitStatus, tail: &[String]) -> anyhow::Error {
        let mut text =
            format!("failed to {}.\n  command: {}\n  ended with: {status}", self.what, shown(&self.command));
        if !tail.is_empty() {
            text.push_str("\n  last lines:");
        }
        for line in tail {
            let _ = write!(text, "\n    {line}");
        }
        let _ = write!(text, "\n  what to do: {}", self.remedy);
        anyhow!(text)
    }
}

/// Where a watched program's output goes.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    /// To our stdout.
    Stdout,
    /// To our stderr, so that our own stdout holds results only.
    Stderr,
}

/// Says what is being done now.
pub(crate) fn announce(what: &str) {
    eprintln!("==> {what}");
}

/// Says something about what is being done now.
pub(crate) fn note(text: &str) {
    eprintln!("    {text}");
}

/// The directory of the workspace.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .canonicalize()
        .unwrap_or_else(|_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")))
}

/// The workspace's `target` directory, which every command here builds into.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// A cargo that builds into [`target`], free of what an outer `cargo run` put into the environment.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// Whether `program` is found in `PATH`, or in the `sbin` directories that a plain user's `PATH` lacks.
pub(crate) fn has_program(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|directory| directory.join(program).is_file())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user of this process.
    std::fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
}

/// Copies lines from `pipe` to `to` until its end, and returns the last of them.
fn pass_on(pipe: impl Read, to: Stream, mut each: impl FnMut(&str)) -> Vec<String> {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    let mut tail = VecDeque::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        // A closed terminal must not stop the program that is being watched.
        let _ = match to {
            Stream::Stdout => std::io::stdout().write_all(&line),
            Stream::Stderr => std::io::stderr().write_all(&line),
        };
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        each(&text);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(text);
        line.clear();
    }
    tail.into()
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_command_status_output_and_remedy() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo so; echo sad >&2; exit 3"]);
        let error = Step::new("be happy", command, "smile").quiet().unwrap_err().to_string();
        for part in ["failed to be happy", "sh -c", "exit status: 3", "so", "sad", "what to do: smile"] {
            assert!(error.contains(part), "{part:?} is missing in {error}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_told_with_the_remedy() {
        let step = Step::new("try", Command::new("/nonexistent/program"), "install it");
        let error = step.quiet().unwrap_err().to_string();
        assert!(error.contains("/nonexistent/program") && error.contains("install it"), "{error}");
    }

    #[test]
    fn watched_output_of_both_streams_comes_in_order() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three"]);
        let mut lines = Vec::new();
        Step::new("count", command, "").watched(Stream::Stderr, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
    }
}
