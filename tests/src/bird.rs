//! A BIRD in a namespace: what speaks BGP, for Adit or for its peer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::namespace::{Namespace, Process, tail, wait_for};

/// Debian has it where not everybody's PATH leads.
const PROGRAM: &str = "/usr/sbin/bird";

/// A running BIRD.
#[derive(Debug)]
pub struct Bird {
    namespace: Namespace,
    directory: PathBuf,
    process: Process,
}

impl Bird {
    /// Where a namespace's BIRD has its files: the control socket is `bird.ctl`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn directory(namespace: &Namespace) -> Result<PathBuf> {
        let directory = namespace.logs().join(format!("bird-{}", namespace.host()));
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Starts it with this configuration and waits until it answers.
    ///
    /// # Errors
    /// It is not there, or does not start: with its log.
    pub fn start(namespace: &Namespace, configuration: &str) -> Result<Bird> {
        let directory = Bird::directory(namespace)?;
        fs::write(directory.join("bird.conf"), configuration)?;
        let process = spawn(namespace, &directory)?;
        let mut bird = Bird { namespace: namespace.clone(), directory, process };
        bird.wait_started()?;
        Ok(bird)
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// As [`Bird::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.namespace, &self.directory)?;
        self.wait_started()
    }

    /// Ends it with SIGKILL: the peer is told nothing, and routes in the kernel stay.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// What `birdc` says to a command.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn birdc(&self, command: &str) -> Result<String> {
        let socket = self.directory.join("bird.ctl");
        self.namespace.run("/usr/sbin/birdc", &["-s", &socket.to_string_lossy(), command])
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.process.log(), lines)
    }

    fn wait_started(&mut self) -> Result<()> {
        let limit = Duration::from_secs(5);
        wait_for("BIRD to answer", limit, || {
            if let Some(status) = self.process.ended() {
                bail!("BIRD ended with {status}");
            }
            Ok(self.birdc("show status").is_ok())
        })
        .with_context(|| self.log_tail(10))
    }
}

fn spawn(namespace: &Namespace, directory: &Path) -> Result<Process> {
    let _ = fs::remove_file(directory.join("bird.ctl"));
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let mut command = namespace.command(PROGRAM);
    command.args(["-f", "-c", &path("bird.conf"), "-s", &path("bird.ctl"), "-P", &path("bird.pid")]);
    namespace.spawn("bird", &mut command)
}
