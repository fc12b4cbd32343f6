//! The rule file where Prometheus reads it, as long as control runs.

use crate::store::{Store, StoreError};
use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::timeout;

/// How long until a file that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Has `file` be the rules of what is configured, now and after every change. A file that says the same is left alone, so that
/// whoever watches it is not woken. What fails is logged, and tried again; it ends with the store.
pub async fn keep(store: Store, file: PathBuf) {
    let mut changes = store.changes();
    let mut told = None;
    loop {
        changes.borrow_and_update();
        let failed = match store.alarm_rules().await {
            Ok(text) => write(file.clone(), text).await.err().map(|e| format!("{}: {e}", file.display())),
            Err(StoreError::Stopped) => return,
            Err(e) => Some(e.to_string()),
        };
        if failed.is_some() && failed != told {
            tracing::error!(
                "the rules of the alarm templates are not written: {}",
                failed.as_deref().unwrap_or_default()
            );
        }
        let changed = match &failed {
            // The time that is over is a reason to look as well.
            Some(_) => timeout(AGAIN, changes.changed()).await.unwrap_or(Ok(())),
            None => changes.changed().await,
        };
        if changed.is_err() {
            return;
        }
        told = failed;
    }
}

async fn write(file: PathBuf, text: String) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || replace(&file, &text)).await;
    written.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// Puts a new file in the place of one that says something else, at once. Everybody may read it: there is no secret in it.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    if fs::read(file).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    let mut name = file.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let mut handle = File::create(&new)?;
    handle.set_permissions(Permissions::from_mode(0o644))?;
    handle.write_all(text.as_bytes())?;
    handle.sync_all()?;
    fs::rename(&new, file)?;
    tracing::info!("alarm rules written to {}", file.display());
    Ok(())
}
