//! Network namespaces, the links between them, and the programs that run in them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::run::Run;
use crate::sys;

/// A network namespace of a run. The run removes it; this is its name and what can be done in it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    logs: PathBuf,
}

impl Namespace {
    /// Makes the namespace of `host` in `run`, with its loopback up.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn create(run: &Run, host: &str) -> Result<Namespace> {
        let namespace = Namespace { name: run.namespace(host), logs: run.directory().to_owned() };
        command("ip", &["netns", "add", &namespace.name])?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last part of its name: which host of the topology it is.
    pub fn host(&self) -> &str {
        self.name.rsplit('-').next().unwrap_or(&self.name)
    }

    /// Where logs and captures of this run go.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Runs `ip` on this namespace.
    ///
    /// # Errors
    /// `ip` failed: with its words.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        command("ip", &[&["-n", &self.name], arguments].concat())
    }

    /// Sets kernel parameters, each as `name=value`.
    ///
    /// # Errors
    /// `sysctl` failed.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        self.run("sysctl", &[&["-q", "-w"], settings].concat()).map(|_| ())
    }

    /// Runs a program in the namespace to its end and returns its stdout.
    ///
    /// # Errors
    /// It could not be started or did not succeed: with its words.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).stdin(Stdio::null()).output();
        finished(program, arguments, output).with_context(|| format!("in {}", self.name))
    }

    /// A command that will run in the namespace. `nsenter` becomes the program, so the process that is started is the
    /// program itself; unlike `ip netns exec` it leaves /sys and the mounts alone.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file().display())).arg("--").arg(program);
        command
    }

    /// Starts a program in the namespace; what it writes goes to a log file of the run named after `name`.
    ///
    /// # Errors
    /// The log cannot be made, or the program cannot be started.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.logs.join(format!("{}-{name}.log", self.host()));
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("failed to open {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        let child = child.with_context(|| format!("failed to start {name} in {}", self.name))?;
        Ok(Process { name: name.to_owned(), child, log, ended: None })
    }

    /// Runs `work` on a thread that is in this namespace: sockets it opens stay there.
    ///
    /// # Errors
    /// The namespace cannot be entered, or what `work` says.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(self.file()).with_context(|| format!("{} is gone", self.name))?;
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                sys::enter_network_namespace(&file)
                    .with_context(|| format!("failed to enter {}", self.name))?;
                work()
            });
            worker.join().unwrap_or_else(|_| Err(anyhow!("the work in {} panicked", self.name)))
        })
    }

    fn file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

/// Joins two namespaces by a pair of virtual Ethernet interfaces, both up. Each end is `(namespace, interface,
/// address with prefix length)`; no address for an empty one.
///
/// # Errors
/// `ip` failed.
pub fn link(one: (&Namespace, &str, &str), other: (&Namespace, &str, &str)) -> Result<()> {
    let peer = ["type", "veth", "peer", "name", other.1, "netns", other.0.name()];
    one.0.ip(&[&["link", "add", one.1], &peer[..]].concat())?;
    for (namespace, interface, address) in [one, other] {
        if !address.is_empty() {
            namespace.ip(&["address", "add", address, "dev", interface])?;
        }
        namespace.ip(&["link", "set", interface, "up"])?;
    }
    Ok(())
}

/// A program that runs in a namespace. Dropping it ends it: SIGTERM, and SIGKILL 5 s later.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs; if not, how it ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        if let Some(status) = self.ended() {
            bail!("{} has ended already ({status})", self.name);
        }
        sys::signal(self.pid(), signal).with_context(|| format!("failed to signal {}", self.name))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= until {
                bail!("{} still runs after {} s", self.name, limit.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Errors
    /// It had to be killed 5 s later.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(libc::SIGTERM)?;
        self.wait(Duration::from_secs(5)).inspect_err(|_| self.kill())
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Everything it wrote.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines that it wrote.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// The last `lines` lines of `text`, indented.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// Runs `program` to its end and returns its stdout.
///
/// # Errors
/// It could not be started or did not succeed: with its words.
pub fn command(program: &str, arguments: &[&str]) -> Result<String> {
    finished(program, arguments, Command::new(program).args(arguments).stdin(Stdio::null()).output())
}

/// Asks `done` every 20 ms until it says yes.
///
/// # Errors
/// It said no for as long as `limit`; `what` says what was waited for.
pub fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + limit;
    while !done()? {
        if Instant::now() >= until {
            bail!("waited {} s in vain for {what}", limit.as_secs_f64());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn finished(
    program: &str,
    arguments: &[&str],
    output: std::io::Result<std::process::Output>,
) -> Result<String> {
    let output = output
        .with_context(|| format!("`{program}` could not be started; `cargo xtask setup` installs it"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let words = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        bail!("`{program} {}` ended with {}:\n{}", arguments.join(" "), output.status, tail(&words, 12));
    }
    Ok(stdout)
}
