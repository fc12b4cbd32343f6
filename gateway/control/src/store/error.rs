//! Why something is not stored, or cannot be read.

use crate::resource::{Kind, Reference, Violation};
use std::path::PathBuf;

/// Why a database is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("another Adit works with {}: stop it, or give this one another --data-dir", .0.display())]
    Taken(PathBuf),
    /// A later version of Adit has written it.
    #[error(
        "{} is of version {found}, and this Adit knows versions up to {known}: start the Adit that wrote it, or put a copy \
         from before back",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest that this build knows.
        known: i64,
    },
    /// It is no database, or not a whole one.
    #[error(
        "{} is damaged ({why}): put a copy of it back, or move it away and apply the configuration anew",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is a database, and no key to its secrets.
    #[error("{} is gone, and with it the keys of every tunnel in {}: put a copy of it back", key.display(), path.display())]
    NoKey {
        /// Where the key should be.
        key: PathBuf,
        /// The database.
        path: PathBuf,
    },
    /// There is a database, and the key is of another.
    #[error("{} is not the key that {} was written with: put that one back", key.display(), path.display())]
    WrongKey {
        /// The key.
        key: PathBuf,
        /// The database.
        path: PathBuf,
    },
    /// The key is none.
    #[error("{} is not a key: it has to be 32 octets", .0.display())]
    NotAKey(PathBuf),
    /// Others may read the key.
    #[error("{} has mode {mode:o}, so that others than its owner may use it: make it 600", key.display())]
    Mode {
        /// The key.
        key: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The database answers with anything else.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why something is not stored, or not found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such resource.
    #[error("there is no {kind} {name:?}")]
    NotFound {
        /// Its kind.
        kind: Kind,
        /// The name or id that was asked for.
        name: String,
    },
    /// Another of its kind has the name.
    #[error("there is a {0} already")]
    NameTaken(Reference),
    /// Others need it.
    #[error("{what} is in use by {}", names(by))]
    InUse {
        /// What was to be deleted.
        what: Reference,
        /// Who needs it; the first hundred.
        by: Vec<Reference>,
    },
    /// What was given cannot be.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Violation>),
    /// Somebody else has changed it meanwhile.
    #[error("{what} has been changed meanwhile: it is of revision {revision} now")]
    Changed {
        /// What was to be changed.
        what: Reference,
        /// The revision that it is of.
        revision: u64,
    },
    /// Something else has been changed since the plan that somebody has agreed to was made.
    #[error("something has been changed since the plan was made: look at what would be done now")]
    Moved,
    /// A document that is no configuration: with every diagnostic, a line each.
    #[error(transparent)]
    Document(#[from] crate::config::ConfigError),
    /// The running gateway cannot have it. Nothing is stored.
    #[error("{0}")]
    Refused(String),
    /// It is stored, and the running gateway follows in part.
    #[error("stored; {0}")]
    Applied(String),
    /// What is stored cannot be read: by an Adit with other rules, or damaged.
    #[error("{what} is stored and cannot be read: {why}")]
    Unreadable {
        /// Which.
        what: Reference,
        /// Why.
        why: String,
    },
    /// The file system has no room, or the database answers with another error. Nothing is stored.
    #[error("the database in {} refuses: {source}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
    /// The store is no longer there: the process ends.
    #[error("the store has stopped")]
    Stopped,
}

fn names(by: &[Reference]) -> String {
    by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
