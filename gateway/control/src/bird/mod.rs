//! BIRD, which speaks BGP with the peers of tunnels: what it is told, and what it tells.
//!
//! ```text
//!            a file of its configuration, by rename; "configure"
//!   control ─────────────────────────────────────────────────────► BIRD ◄──── BGP ────► peer's router
//!           ◄─────────────────────────────────────────────────────       through the tunnel
//!            its control socket: how each session is
//!            table 173 of the kernel: what it learned, by next hop
//! ```
//!
//! No rule leads to that table: it is where the routes are told, not where packets find their way, which the SPD decides.

mod client;
mod file;
mod learned;

pub use client::Session;
pub use learned::{Learned, TABLE, now as learned_now};

use crate::config::{Gateway, Tunnel};
use client::Client;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

/// How often BIRD is asked.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long BIRD is left alone after it refused its configuration, or knows nothing of what is in it.
const AGAIN: Duration = Duration::from_secs(10);

/// What BIRD is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    file: PathBuf,
    socket: PathBuf,
    text: String,
    /// The sessions, by the names of their protocols.
    names: BTreeSet<String>,
}

impl Goal {
    /// For the tunnels of a gateway that have BGP and are enabled; one that is empty where there is none.
    pub fn of<'a>(gateway: &Gateway, tunnels: impl Iterator<Item = &'a Tunnel>) -> Self {
        let tunnels: Vec<&Tunnel> = tunnels.filter(|t| t.enabled && t.bgp.is_some()).collect();
        Goal {
            file: gateway.bird.file.clone(),
            socket: gateway.bird.socket.clone(),
            text: file::text(gateway, &tunnels),
            names: tunnels.iter().filter_map(|t| t.bgp.as_deref()).map(file::protocol).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// The sessions by the names of their protocols ([`protocol`]), or why nothing is known of them.
pub type Sessions = Result<BTreeMap<String, Session>, String>;

/// What BIRD tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// How the sessions are.
    Sessions(Sessions),
    /// The prefixes that are reached by each next hop.
    Learned(Learned),
}

pub use file::protocol;

/// Has BIRD do what `goal` says, and tells how that is, whenever it is otherwise than before; until either end is gone.
pub async fn keep(mut goal: watch::Receiver<Goal>, reports: mpsc::Sender<Report>) {
    let mut bird = Bird::default();
    let mut told = None;
    // Whether BIRD may still have sessions that it is no longer to have.
    let mut owes = false;
    let mut follows: Option<tokio::task::JoinHandle<()>> = None;
    loop {
        let now = goal.borrow_and_update().clone();
        if now.is_empty() && !owes {
            follows.take().iter().for_each(|task| task.abort());
            if goal.changed().await.is_err() {
                return;
            }
            continue;
        }
        if follows.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            follows = Some(tokio::spawn(learned::follow(reports.clone())));
        }
        let sessions = timeout(PATIENCE, bird.look(&now)).await;
        let sessions = sessions.unwrap_or_else(|_| {
            bird.client = None;
            Err(format!("BIRD does not answer on {}", now.socket.display()))
        });
        owes = !now.is_empty() || sessions.is_err();
        let report = Report::Sessions(sessions);
        if told.as_ref() != Some(&report) {
            told = Some(report.clone());
            if reports.send(report).await.is_err() {
                break;
            }
        }
        tokio::select! {
            changed = goal.changed() => if changed.is_err() { break },
            () = sleep(LOOK) => {}
        }
    }
    follows.iter().for_each(|task| task.abort());
}

/// What is known of BIRD.
#[derive(Default)]
struct Bird {
    client: Option<Client>,
    /// The file that it was last to have.
    file: Option<PathBuf>,
    /// What its file says, and it was told to read.
    applied: Option<Goal>,
    /// When it was last told in vain, and why that was.
    refused: Option<(tokio::time::Instant, String)>,
}

impl Bird {
    /// Brings BIRD to the goal where it is not there; how the sessions are.
    async fn look(&mut self, goal: &Goal) -> Result<BTreeMap<String, Session>, String> {
        let shown = goal.file.display();
        if self.applied.as_ref().is_some_and(|applied| applied.socket != goal.socket) {
            self.client = None;
        }
        let (file, text) = (goal.file.clone(), goal.text.clone());
        let old = self.file.replace(file.clone()).filter(|old| *old != file);
        let written = tokio::task::spawn_blocking(move || {
            // BIRD may include both, and refuses what is defined twice.
            if old.is_some_and(|old| {
                begins(&old, file::COMMENT).unwrap_or(false) && fs::remove_file(old).is_err()
            }) {
                tracing::warn!("the file that BIRD had before cannot be removed");
            }
            write(&file, &text)
        });
        let written = written.await;
        let written = written.map_err(io::Error::other).flatten();
        if written.map_err(|e| format!("cannot write {shown}: {e}"))? {
            (self.applied, self.refused) = (None, None);
        }
        let result = self.ask(goal).await;
        if result.is_err() && self.refused.is_none() {
            self.client = None;
        }
        result
    }

    async fn ask(&mut self, goal: &Goal) -> Result<BTreeMap<String, Session>, String> {
        let socket = goal.socket.display();
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("BIRD is not running: nobody listens on {socket}")
            }
            _ => format!("cannot ask BIRD on {socket}: {e}"),
        };
        if self.client.is_none() {
            // Another BIRD may know another configuration.
            self.applied = None;
            self.client = Some(Client::connect(&goal.socket).await.map_err(failed)?);
        }
        let Some(client) = &mut self.client else { return Err("no connection".into()) };
        if let Some((at, why)) = &self.refused {
            if at.elapsed() < AGAIN {
                return Err(why.clone());
            }
            self.applied = None;
        }
        if self.applied.as_ref() != Some(goal) {
            self.refused = None;
            if let Err(words) = client.configure().await.map_err(failed)? {
                let why = format!("BIRD refuses its configuration: {words}");
                self.refused = Some((tokio::time::Instant::now(), why.clone()));
                return Err(why);
            }
            self.applied = Some(goal.clone());
        }
        let sessions = client.sessions(file::PREFIX).await.map_err(failed)?;
        if goal.names.iter().any(|name| !sessions.contains_key(name)) {
            let why =
                format!("BIRD knows nothing of {}: its configuration has to include it", goal.file.display());
            self.refused = Some((tokio::time::Instant::now(), why.clone()));
            return Err(why);
        }
        Ok(sessions)
    }
}

/// Up to `length` bytes that a file begins with. BIRD, which may be another's by then, can put anything into its directory:
/// what is no file is not read, and opening it does not wait.
fn start_of(path: &Path, length: usize) -> io::Result<Vec<u8>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut found = Vec::new();
    if file.metadata()?.is_file() {
        file.take(length as u64).read_to_end(&mut found)?;
    }
    Ok(found)
}

fn begins(path: &Path, text: &str) -> io::Result<bool> {
    Ok(start_of(path, text.len())? == text.as_bytes())
}

/// Makes a file say `text`, by a rename. Whether it did not yet. BIRD, which is not root, has to read it; there is no
/// secret in it.
fn write(path: &Path, text: &str) -> io::Result<bool> {
    if start_of(path, text.len() + 1).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(false);
    }
    // A name that `include "adit.conf*"` does not find.
    let name = path.file_name().map(|name| format!(".{}.new", name.to_string_lossy()));
    let new = path.with_file_name(name.unwrap_or_default());
    let _ = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    // Whatever the umask is.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_only_where_it_differs() {
        let directory = std::env::temp_dir().join(format!("adit-bird-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("adit.conf");
        assert!(
            write(&path, "one").unwrap() && !write(&path, "one").unwrap() && write(&path, "two").unwrap()
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left");
        // Not what somebody else makes of it: who opens this for reading waits for a writer.
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert!(write(&path, "two").unwrap() && !write(&path, "two").unwrap());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(write(&path, "two").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        fs::remove_dir_all(&directory).unwrap();
        assert!(write(&path, "three").is_err());
    }
}
