//! The Unix socket: who may open it, and who has.

use super::ServeError;
use crate::auth::Peer;
use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::UnixStream as BlockingStream,
    },
    path::Path,
};
use tokio::net::{UnixListener, UnixStream};

/// Makes the socket under another name and moves it in place once only its owner may open it.
pub(super) fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Socket { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
    }
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(failed(io::Error::other("there is a file of that name that is not a socket")));
        }
        if BlockingStream::connect(path).is_ok() {
            return Err(ServeError::Taken(path.to_owned()));
        }
    }
    let making = path.with_file_name(format!(".{}", std::process::id()));
    // Left over from a process of the same number that ended between the two steps.
    let _ = fs::remove_file(&making);
    let listener = UnixListener::bind(&making).map_err(failed)?;
    fs::set_permissions(&making, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&making, path))
        .inspect_err(|_| drop(fs::remove_file(&making)))
        .map_err(failed)?;
    Ok(listener)
}

/// Who opened a connection, as the kernel noted it then.
pub(super) fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer::Local { uid: credentials.uid(), gid: credentials.gid() })
}
