//! Where the resources are: one SQLite database in the data directory, the one truth of what is configured.
//!
//! | file | holds |
//! |---|---|
//! | `adit.db` | the resources; their secrets sealed with XChaCha20-Poly1305, each bound to its resource's id |
//! | `adit.key` | the key to the secrets, mode 0600, made with the database; systemd's credential of that name comes first |
//! | `adit.lock` | held by the process that has the directory |
//!
//! One thread writes, each change in a transaction that is on the disk before anybody is told; another reads. What is
//! refused changes nothing.

mod database;
mod error;
mod key;
mod schema;
#[cfg(test)]
mod tests;
mod write;

pub use database::Given;
pub use error::{OpenError, StoreError};
pub use write::Edit;

use crate::{
    config,
    resource::{Resource, Secrets, Violation},
};
use database::{Database, Lock};
use std::{path::Path, sync::mpsc, thread};
use tokio::sync::oneshot;

/// What a write means for the tunnels that run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// New or changed ones, each with the name that it had before, if it was there.
    pub tunnels: Vec<(Option<String>, config::Tunnel)>,
    /// The names of those that are gone.
    pub removed: Vec<String>,
    /// Whether the gateway itself is another.
    pub gateway: bool,
}

/// What has been written.
#[derive(Debug)]
pub struct Written<R> {
    /// The resource as it is now.
    pub resource: R,
    /// What works and should not be used.
    pub warnings: Vec<Violation>,
    /// What it means for the tunnels that run.
    pub change: Change,
}

/// Looks at a change before it is made: refused, nothing is written.
pub type Approve = Box<dyn FnOnce(&Change) -> Result<(), StoreError> + Send>;

/// Approves of everything.
pub fn always() -> Approve {
    Box::new(|_| Ok(()))
}

/// A handle to the database.
#[derive(Clone)]
pub struct Store {
    writer: mpsc::Sender<Job>,
    reader: mpsc::Sender<Job>,
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
        let lock = Lock::take(dir)?;
        let database = Database::open(dir, credentials)?;
        let reader = database.reader()?;
        let failed = |source| OpenError::File { path: dir.to_owned(), source };
        Ok(Store {
            writer: serve("store-writer", database, Some(lock)).map_err(failed)?,
            reader: serve("store-reader", reader, None).map_err(failed)?,
        })
    }

    /// All of a kind, in the order of the configuration.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn list<R: Resource>(&self) -> Result<Vec<R>, StoreError> {
        run(&self.reader, |database| database.list()).await
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
    /// [`StoreError::Invalid`], [`StoreError::NameTaken`], what `approve` says; [`StoreError::Database`].
    pub async fn create<R: Resource>(
        &self,
        given: Given,
        approve: Approve,
    ) -> Result<Written<R>, StoreError> {
        self.write(move |database| {
            let (id, change, warnings) = database.write(|writing| writing.create(R::KIND, given), approve)?;
            Ok(Written { resource: database.get(&id)?, warnings, change })
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
        approve: Approve,
    ) -> Result<Written<R>, StoreError> {
        let name = name.to_owned();
        self.write(move |database| {
            let work = |writing: &mut write::Writing<'_>| writing.update(R::KIND, &name, revision, edit);
            let (id, change, warnings) = database.write(work, approve)?;
            Ok(Written { resource: database.get(&id)?, warnings, change })
        })
        .await
    }

    /// Deletes resources of a kind, by id or name, each only if it is still of the revision given with it: all of them or
    /// none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Changed`], [`StoreError::InUse`], what `approve` says;
    /// [`StoreError::Database`].
    pub async fn delete<R: Resource>(
        &self,
        names: Vec<(String, Option<u64>)>,
        approve: Approve,
    ) -> Result<Change, StoreError> {
        self.write(move |database| {
            let work = |writing: &mut write::Writing<'_>| {
                names.iter().try_for_each(|(name, revision)| writing.delete(R::KIND, name, *revision))
            };
            database.write(work, approve).map(|(_, change, _)| change)
        })
        .await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        run(&self.writer, work).await
    }
}

/// A thread that does what is asked of a database until nobody can ask any more.
fn serve(name: &str, mut database: Database, lock: Option<Lock>) -> std::io::Result<mpsc::Sender<Job>> {
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
    // Who asked may have gone away: then nobody needs the answer.
    let job: Job = Box::new(move |database| drop(answer.send(work(database))));
    thread.send(job).map_err(|_| StoreError::Stopped)?;
    answered.await.map_err(|_| StoreError::Stopped)?
}
