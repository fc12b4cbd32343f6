//! What changes the desired state: written to the store, and followed by the task.

use super::{Command, Control, ReloadError, Reloaded};
use crate::{
    config::ConfigError,
    resource::Resource,
    store::{Change, Document, Edit, Follow, Given, Plan, Store, StoreError, Written},
};
use std::{path::Path, sync::Arc};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// Has the task look at a change before it is made, and follow it then. It is asked by the thread that writes.
struct Follower {
    commands: mpsc::Sender<Command>,
    /// What following came to.
    done: Option<oneshot::Sender<Reloaded>>,
}

impl Follower {
    fn ask<T>(
        &self,
        change: &Arc<Change>,
        command: impl FnOnce(Arc<Change>, oneshot::Sender<Result<T, ReloadError>>) -> Command,
        failed: impl FnOnce(String) -> StoreError,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.commands.blocking_send(command(change.clone(), answer)).map_err(|_| StoreError::Stopped)?;
        let answer = answered.blocking_recv().map_err(|_| StoreError::Stopped)?;
        answer.map_err(|e| failed(e.to_string()))
    }
}

impl Follow for Follower {
    fn approve(&mut self, change: &Arc<Change>) -> Result<(), StoreError> {
        self.ask(change, Command::Plan, StoreError::Refused)
    }

    fn follow(&mut self, change: &Arc<Change>) -> Result<(), StoreError> {
        let done = self.ask(change, Command::Follow, StoreError::Applied)?;
        // Not everybody wants to know.
        drop(self.done.take().map(|answer| answer.send(done)));
        Ok(())
    }
}

impl Control {
    /// Where the resources are, for whoever only reads.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Creates a resource; a tunnel begins.
    ///
    /// # Errors
    /// As [`Store::create`]; [`StoreError::Refused`], [`StoreError::Applied`].
    pub async fn create<R: Resource>(&self, given: Given) -> Result<Written<R>, StoreError> {
        self.store.create(given, self.follower().0).await
    }

    /// Changes a resource, by its id or its name. What differs is negotiated anew, and nothing else.
    ///
    /// # Errors
    /// As [`Store::update`]; [`StoreError::Refused`], [`StoreError::Applied`].
    pub async fn update<R: Resource>(
        &self,
        name: &str,
        revision: Option<u64>,
        edit: Edit,
    ) -> Result<Written<R>, StoreError> {
        self.store.update(name, revision, edit, self.follower().0).await
    }

    /// Deletes resources of a kind, by id or name, all of them or none. Tunnels are closed.
    ///
    /// # Errors
    /// As [`Store::delete`]; [`StoreError::Refused`], [`StoreError::Applied`].
    pub async fn delete<R: Resource>(
        &self,
        names: Vec<(String, Option<u64>)>,
    ) -> Result<Arc<Change>, StoreError> {
        self.store.delete::<R>(names, self.follower().0).await
    }

    /// Makes everything what a document says, or says what that would do.
    ///
    /// # Errors
    /// As [`Store::apply`]; [`StoreError::Refused`], [`StoreError::Applied`].
    pub async fn apply(&self, document: Document) -> Result<Plan, StoreError> {
        self.store.apply(document, self.follower().0).await.map(|(plan, _)| plan)
    }

    /// Applies the process's own file again, or without one completes what was applied in part. Tunnels that are the same
    /// go on untouched; when anything is wrong with the file, everything does. The gateway's log says what it did, `by` whom.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub async fn reload(&self, by: &str) -> Result<Reloaded, ReloadError> {
        let result = self.reload_file().await;
        let refused = result.as_ref().err().map(ToString::to_string);
        match (&result, &self.file) {
            (Ok((plan, _)), Some(file)) => {
                self.log.info(format!("{} is applied again, by {by}: {plan}", file.display()));
            }
            (Ok(_), None) => {}
            (Err(refused), _) => self.log.error(format!("reload refused, by {by}: {refused}")),
        }
        // Where the task has ended, nobody asks for it any more.
        let _ = self.commands.send(Command::Refused(refused)).await;
        result.map(|(_, done)| done)
    }

    async fn reload_file(&self) -> Result<(Plan, Reloaded), ReloadError> {
        let (follower, done) = self.follower();
        let Some(file) = &self.file else {
            return Err(
                StoreError::Refused("there is no file to reload: the store is what runs".into()).into()
            );
        };
        let document = own_document(file).await.map_err(StoreError::from)?;
        let (plan, _) = self.store.apply(document, follower).await?;
        let done = done.await.map_err(|_| StoreError::Stopped)?;
        let done = Reloaded { warnings: plan.warnings.clone(), ..done };
        Ok((plan, done))
    }

    fn follower(&self) -> (Box<dyn Follow>, oneshot::Receiver<Reloaded>) {
        let (done, received) = oneshot::channel();
        (Box::new(Follower { commands: self.commands.clone(), done: Some(done) }), received)
    }
}

/// A process's own file: what is not in it is deleted.
///
/// # Errors
/// [`ConfigError::Unreadable`].
pub async fn own_document(file: &Path) -> Result<Document, ConfigError> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
    let text = Zeroizing::new(text);
    Ok(Document { text, name: file.to_owned(), prune: true, dry_run: false, digest: None, is_own: true })
}
