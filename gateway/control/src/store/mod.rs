//! Where the resources are: one SQLite database in the data directory, the one truth of what is configured.
//!
//! | file | holds |
//! |---|---|
//! | `adit.db` | the resources; their secrets sealed with XChaCha20-Poly1305, each bound to its resource's id; the API's tokens, as hashes |
//! | `adit.key` | the key to the secrets, mode 0600, made with the database; systemd's credential of that name comes first |
//! | `adit.lock` | held by the process that has the directory |
//!
//! One thread writes, each change in a transaction that is on the disk before anybody is told; another reads. What is
//! refused changes nothing.

#[cfg(test)]
mod alarm_tests;
mod alarms;
mod apply;
#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod crash_tests;
mod database;
mod error;
#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod group_tests;
mod groups;
mod key;
mod mend;
#[cfg(test)]
mod migration_tests;
#[cfg(test)]
mod model_tests;
mod schema;
mod select;
#[cfg(test)]
mod tests;
mod tokens;
mod write;

pub use apply::{Adopted, Differs, Document, Plan, Planned, Verb};
pub use database::Given;
pub use error::{OpenError, StoreError};
pub use select::{Order, Select};
pub use tokens::KeptToken;
pub use write::Edit;

use crate::{
    config,
    resource::{Resource, Secrets, Violation},
};
use adit_ike::Psk;
use database::{Database, Lock};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::{oneshot, watch};

/// What a write means for the tunnels that run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// New or changed ones, each with the name that it had before, if it was there.
    pub tunnels: Vec<(Option<String>, config::Tunnel)>,
    /// The names of those that are gone.
    pub removed: Vec<String>,
    /// Every connection group, where one of them is new, changed or gone.
    pub groups: Option<Vec<config::Group>>,
    /// What becomes of the gateway itself.
    pub gateway: GatewayChange,
    /// What the process's own file says beside its resources, where that is what is applied.
    pub own: Option<Own>,
}

/// What the process's own file says beside its resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Which it is.
    pub file: PathBuf,
    /// What the process itself is to do from now on.
    pub api: config::Api,
    /// Whether it says what resources there are: then nothing else does for longer than until it is applied again. One that
    /// names no resource leaves all of them as they are.
    pub governs: bool,
}

/// What becomes of the gateway itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GatewayChange {
    /// Nothing.
    #[default]
    Same,
    /// It is this.
    Now(Box<config::Gateway>),
    /// It is deleted.
    Gone,
}

/// What has been written.
#[derive(Debug)]
pub struct Written<R> {
    /// The resource as it is now; nothing, where some have been deleted.
    pub resource: R,
    /// What works and should not be used; of no field, that the process's own file undoes it.
    pub warnings: Vec<Violation>,
    /// What it means for the tunnels that run.
    pub change: Arc<Change>,
}

/// Who is told of what is written: on the thread that writes, one change after the other.
pub trait Follow: Send {
    /// Looks at a change before it is made.
    ///
    /// # Errors
    /// Nothing is written then.
    fn approve(&mut self, change: &Arc<Change>) -> Result<(), StoreError>;

    /// Does what follows from a change that is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Applied`].
    fn follow(&mut self, change: &Arc<Change>) -> Result<(), StoreError>;
}

/// Nobody follows.
struct Nobody;

impl Follow for Nobody {
    fn approve(&mut self, _: &Arc<Change>) -> Result<(), StoreError> {
        Ok(())
    }

    fn follow(&mut self, _: &Arc<Change>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// For a store that nothing runs from.
pub fn nobody() -> Box<dyn Follow> {
    Box::new(Nobody)
}

/// A pre-shared key for whoever is given none: 32 characters that no cloud refuses and nobody has to escape, 190 bits.
///
/// # Errors
/// The kernel gives no randomness.
pub(crate) fn generated_psk() -> std::io::Result<Psk> {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    key::random_word(ALPHABET, 32).map(|word| Psk::new(word.as_str()))
}

/// The gateway of a directory, for whoever only looks: whoever works with it goes on. `None` where there is none.
///
/// # Errors
/// It cannot be read.
pub fn gateway_of(dir: &Path) -> Result<Option<config::Gateway>, OpenError> {
    Database::peek(dir)
}

/// A handle to the database. What is asked of it is done in order; it is not begun where nobody waits for it any more.
#[derive(Clone)]
pub struct Store {
    writer: mpsc::Sender<Job>,
    reader: mpsc::Sender<Job>,
    changed: watch::Sender<()>,
}

type Job = Box<dyn FnOnce(&mut Database) + Send>;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the database of a directory, or makes both. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    /// As [`OpenError`] says; a directory that another process works with is waited for for two seconds.
    pub fn open(dir: &Path, credentials: Option<&Path>) -> Result<Store, OpenError> {
        let lock = Arc::new(Lock::take(dir)?);
        let database = Database::open(dir, credentials)?;
        let reader = database.reader()?;
        let failed = |source| OpenError::File { path: dir.to_owned(), source };
        Ok(Store {
            writer: serve("store-writer", database, lock.clone()).map_err(failed)?,
            reader: serve("store-reader", reader, lock).map_err(failed)?,
            changed: watch::Sender::new(()),
        })
    }

    /// All of a kind, in the order of the configuration.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn list<R: Resource>(&self) -> Result<Vec<R>, StoreError> {
        self.select(Select::default()).await.map(|(all, _)| all)
    }

    /// A part of those of a kind, and how many there are in all that are as wanted.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn select<R: Resource>(&self, wanted: Select) -> Result<(Vec<R>, usize), StoreError> {
        run(&self.reader, move |database| database.select(&wanted)).await
    }

    /// One, by its id or its name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get<R: Resource>(&self, name: &str) -> Result<R, StoreError> {
        let name = name.to_owned();
        run(&self.reader, move |database| database.get(&name)).await
    }

    /// The keys of a tunnel, by its id or its name: for whoever may have them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn reveal(&self, tunnel: &str) -> Result<Secrets, StoreError> {
        let tunnel = tunnel.to_owned();
        run(&self.reader, move |database| database.secrets(&tunnel)).await
    }

    /// Creates a resource of what is given, an object of JSON with the fields of [`Resource::Spec`] and of
    /// [`crate::resource::Meta`]. A tunnel's key is generated where none is given.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::NameTaken`], what `follower` says; [`StoreError::Database`].
    pub async fn create<R: Resource>(
        &self,
        given: Given,
        follower: Box<dyn Follow>,
    ) -> Result<Written<R>, StoreError> {
        self.write(move |database| {
            let done = database.write(|writing| writing.create(R::KIND, given), follower)?;
            let resource = database.get(&done.value)?;
            Ok(done.written(resource))
        })
        .await
    }

    /// Changes a resource, by its id or its name: only if it is still of `revision`, where one is given.
    ///
    /// # Errors
    /// As [`Store::create`]; [`StoreError::NotFound`], [`StoreError::Changed`].
    pub async fn update<R: Resource>(
        &self,
        name: &str,
        revision: Option<u64>,
        edit: Edit,
        follower: Box<dyn Follow>,
    ) -> Result<Written<R>, StoreError> {
        let name = name.to_owned();
        self.write(move |database| {
            let work = |writing: &mut write::Writing<'_>| writing.update(R::KIND, &name, revision, edit);
            let done = database.write(work, follower)?;
            let resource = database.get(&done.value)?;
            Ok(done.written(resource))
        })
        .await
    }

    /// Deletes resources of a kind, by id or name, each only if it is still of the revision given with it: all of them or
    /// none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Changed`], [`StoreError::InUse`], what `follower` says;
    /// [`StoreError::Database`].
    pub async fn delete<R: Resource>(
        &self,
        names: Vec<(String, Option<u64>)>,
        follower: Box<dyn Follow>,
    ) -> Result<Written<()>, StoreError> {
        self.write(move |database| {
            let work = |writing: &mut write::Writing<'_>| {
                names.iter().try_for_each(|(name, revision)| writing.delete(R::KIND, name, *revision))
            };
            database.write(work, follower).map(|done| done.written(()))
        })
        .await
    }

    /// Has what is stored followed once more, as it is.
    ///
    /// # Errors
    /// What `follower` says; [`StoreError::Database`].
    pub async fn renew(&self, follower: Box<dyn Follow>) -> Result<(), StoreError> {
        self.write(move |database| database.write(|_| Ok(()), follower).map(drop)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let changed = self.changed.clone();
        // On the thread that writes: who asked may have gone away by then.
        let noted = move |database: &mut Database| {
            let done = work(database);
            changed.send_replace(());
            done
        };
        run(&self.writer, noted).await
    }

    /// Wakes after every write, whatever came of it.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// A thread that does what is asked of a database until nobody can ask any more.
fn serve(name: &str, mut database: Database, lock: Arc<Lock>) -> std::io::Result<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let work = move || {
        jobs.into_iter().for_each(|job| job(&mut database));
        drop(database);
        drop(lock);
    };
    thread::Builder::new().name(name.into()).spawn(work)?;
    Ok(sender)
}

async fn run<T: Send + 'static>(
    thread: &mpsc::Sender<Job>,
    work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    let job: Job = Box::new(move |database| {
        // Who asked may have gone away. What he was told is not done then is not done; what has begun is.
        if !answer.is_closed() {
            drop(answer.send(work(database)));
        }
    });
    thread.send(job).map_err(|_| StoreError::Stopped)?;
    answered.await.map_err(|_| StoreError::Stopped)?
}
