//! One run of the lab: a name that everything it makes carries, and the promise that nothing of it is left behind.
//!
//! Whatever a run makes is found again by its name alone: namespaces `NAME-…`, processes inside them, mounts and files
//! below `/tmp/NAME`. Tidying therefore works the same from a guard, from a signal, and from another process after a
//! run was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sys;

/// Everything the lab makes starts with this.
const PREFIX: &str = "adit";

/// A run; dropping it removes everything that was made under its name.
#[derive(Debug)]
pub struct Run {
    name: String,
    directory: PathBuf,
    keep: bool,
}

impl Run {
    /// Begins a run with a name that no other run of this machine has. What runs left behind that were killed is
    /// removed first.
    ///
    /// # Errors
    /// Not root, or the directory for temporary files cannot be made.
    pub fn begin() -> Result<Run> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static ONCE: Once = Once::new();
        let mut first = Ok(());
        ONCE.call_once(|| {
            remove_dead_runs();
            first = sys::on_interrupt(|| {
                for name in names_of(std::process::id()) {
                    tidy(&name);
                }
                std::process::exit(130);
            });
        });
        first.context("failed to watch for signals")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Run::named(format!("{PREFIX}-{}-{number}", std::process::id()))
    }

    /// Begins a run under a name of the user's, which may outlast this process: [`Run::keep`] lets it.
    ///
    /// # Errors
    /// The name is not one, a run of this name is up, or as [`Run::begin`].
    pub fn lasting(name: &str) -> Result<Run> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
            bail!("{name:?} is no name for a lab: lower-case letters and hyphens are");
        }
        let name = format!("{PREFIX}-{name}");
        if !namespaces_of(&name).is_empty() {
            bail!("the lab {name} is up already; `cargo xtask lab down` removes it");
        }
        Run::named(name)
    }

    fn named(name: String) -> Result<Run> {
        if fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) != 0) {
            bail!("the lab makes network namespaces, which takes root; run this as root");
        }
        let directory = Path::new("/tmp").join(&name);
        fs::create_dir_all(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
        Ok(Run { name, directory, keep: false })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the network namespace of `host` in this run.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Directory for the run's files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Leaves everything of this run in place when it is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes everything of this run.
    ///
    /// # Errors
    /// Something is still there: it is named.
    pub fn end(self) -> Result<()> {
        let name = self.name.clone();
        drop(self);
        let left = leftovers_of(&name);
        if !left.is_empty() {
            bail!("the run left behind: {}", left.join(", "));
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.keep {
            tidy(&self.name);
        }
    }
}

/// Removes what runs left behind whose process is gone. Returns their names.
pub fn remove_dead_runs() -> Vec<String> {
    let dead: Vec<String> = known_runs()
        .into_iter()
        .filter(|name| owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()))
        .collect();
    for name in &dead {
        tidy(name);
    }
    dead
}

/// Removes the lab that [`Run::lasting`] made under this name. Whether there was one.
pub fn remove_lasting(name: &str) -> bool {
    let name = format!("{PREFIX}-{name}");
    let there = known_runs().contains(&name);
    if there {
        tidy(&name);
    }
    there
}

/// Names of the labs that are up and outlast the process that made them.
pub fn lasting_runs() -> Vec<String> {
    let own = known_runs().into_iter().filter(|name| owner(name).is_none());
    own.filter_map(|name| Some(name.strip_prefix("adit-")?.to_owned())).collect()
}

/// What there is of a run: namespaces, processes, mounts and files, in words.
pub fn leftovers_of(name: &str) -> Vec<String> {
    let namespaces = namespaces_of(name);
    let processes = namespaces.iter().flat_map(|namespace| {
        processes_in(namespace).into_iter().map(move |pid| format!("process {pid} in {namespace}"))
    });
    let mut left: Vec<String> = processes.collect();
    left.extend(namespaces.iter().map(|namespace| format!("namespace {namespace}")));
    left.extend(mounts_of(name).iter().map(|mount| format!("mount {}", mount.display())));
    let directory = Path::new("/tmp").join(name);
    if directory.exists() {
        left.push(format!("files in {}", directory.display()));
    }
    left
}

/// Removes everything of the run `name`.
fn tidy(name: &str) {
    let namespaces = namespaces_of(name);
    for namespace in &namespaces {
        end_processes(namespace);
    }
    for namespace in &namespaces {
        let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
    }
    for mount in mounts_of(name).iter().rev() {
        let _ = Command::new("umount").arg("--lazy").arg(mount).output();
    }
    let _ = fs::remove_dir_all(Path::new("/tmp").join(name));
}

/// Ends every process in a namespace with SIGKILL.
pub(crate) fn end_processes(namespace: &str) {
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        let pids = processes_in(namespace);
        if pids.is_empty() || Instant::now() > until {
            return;
        }
        for pid in pids {
            let _ = sys::signal(pid, libc::SIGKILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn processes_in(namespace: &str) -> Vec<u32> {
    let output = Command::new("ip").args(["netns", "pids", namespace]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let own = std::process::id();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != own).collect()
}

fn namespaces_of(name: &str) -> Vec<String> {
    let hosts = format!("{name}-");
    let is_host = |namespace: &String| namespace.strip_prefix(&hosts).is_some_and(|host| !host.contains('-'));
    entries("/run/netns").into_iter().filter(is_host).collect()
}

fn mounts_of(name: &str) -> Vec<PathBuf> {
    let below = Path::new("/tmp").join(name);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(&below)).collect()
}

fn known_runs() -> Vec<String> {
    let ours = |name: &String| name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('-'));
    let from_namespaces = entries("/run/netns").into_iter().filter(ours);
    let from_namespaces = from_namespaces.filter_map(|name| Some(name.rsplit_once('-')?.0.to_owned()));
    // A directory of a lasting lab is made together with its namespaces; alone it may be anybody's.
    let from_files = entries("/tmp").into_iter().filter(ours).filter(|name| owner(name).is_some());
    let mut names: Vec<String> = from_namespaces.chain(from_files).collect();
    names.sort();
    names.dedup();
    names
}

fn names_of(pid: u32) -> Vec<String> {
    known_runs().into_iter().filter(|name| owner(name) == Some(pid)).collect()
}

/// The process that a run belongs to, from its name; `None` for a lasting one.
fn owner(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix("adit-")?.split_once('-')?;
    number.parse::<u32>().ok().and_then(|_| pid.parse().ok())
}

fn entries(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_run_is_in_its_name() {
        assert_eq!(owner("adit-4711-0"), Some(4711));
        assert_eq!(owner("adit-two-sites"), None);
        assert_eq!(owner("adit-nat"), None);
        assert_eq!(owner("other-4711-0"), None);
    }

    #[test]
    fn a_lasting_lab_needs_a_plain_name() {
        for name in ["", "../etc", "Two", "a b", "4711-0"] {
            assert!(Run::lasting(name).is_err(), "{name:?}");
        }
    }
}
