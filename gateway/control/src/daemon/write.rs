//! What changes the desired state: written to the store, and followed by the task.

use super::{Command, Control, ReloadError, Reloaded};
use crate::{
    config::ConfigError,
    resource::Resource,
    store::{Adopted, Change, Document, Edit, Follow, Given, Plan, Store, StoreError, Written},
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
        if let Some(answer) = self.done.take() {
            // Not everybody wants to know.
            drop(answer.send(done));
        }
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
    ) -> Result<Written<()>, StoreError> {
        self.store.delete::<R>(names, self.follower().0).await
    }

    /// Makes everything what a document says, or says what that would do.
    ///
    /// # Errors
    /// As [`Store::apply`]; [`StoreError::Refused`], [`StoreError::Applied`].
    pub async fn apply(&self, document: Document) -> Result<Plan, StoreError> {
        self.store.apply(document, self.follower().0).await.map(|(plan, _)| plan)
    }

    /// Applies the process's own file again, by the rules of [`Store::adopt`]. Without one there is nothing to read, and what
    /// is stored is followed as it is. Tunnels that are the same go on untouched; when anything is wrong with the file,
    /// everything does. The gateway's log says what it did, `by` whom.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub async fn reload(&self, by: &str) -> Result<Reloaded, ReloadError> {
        let result = self.reload_file(by).await;
        let refused = result.as_ref().err().map(ToString::to_string);
        match &result {
            Ok((words, _)) => self.log.info(words),
            Err(refused) => self.log.error(format!("reload refused, by {by}: {refused}")),
        }
        // Where the task has ended, nobody asks for it any more.
        let _ = self.commands.send(Command::Refused(refused)).await;
        result.map(|(_, done)| done)
    }

    async fn reload_file(&self, by: &str) -> Result<(String, Reloaded), ReloadError> {
        let (follower, followed) = self.follower();
        let (words, warnings, note) = match &self.file {
            Some(file) => {
                let document = own_document(file).await.map_err(StoreError::from)?;
                let adopted = self.store.adopt(document, follower).await?;
                let note = (!adopted.own.governs)
                    .then(|| format!("{} is read: {}", file.display(), Adopted::NO_RESOURCE));
                (adopted.words(Some(by)), adopted.plan.warnings, note)
            }
            None => {
                self.store.renew(follower).await?;
                let note = "there is no file to read: what is stored is what runs";
                (format!("reload, by {by}: {note}"), Vec::new(), Some(note.to_owned()))
            }
        };
        let done = followed.await.map_err(|_| StoreError::Stopped)?;
        Ok((words, Reloaded { warnings, note, ..done }))
    }

    fn follower(&self) -> (Box<dyn Follow>, oneshot::Receiver<Reloaded>) {
        let (done, received) = oneshot::channel();
        (Box::new(Follower { commands: self.commands.clone(), done: Some(done) }), received)
    }
}

/// A process's own file: what is not in it is deleted, if it names any resource.
///
/// # Errors
/// [`ConfigError::Unreadable`].
pub async fn own_document(file: &Path) -> Result<Document, ConfigError> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
    let text = Zeroizing::new(text);
    Ok(Document { text, name: file.to_owned(), prune: true, dry_run: false, digest: None, is_own: true })
}
