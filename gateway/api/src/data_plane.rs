//! What the data plane tells of itself, on a socket of its own: it may run in another process, and without `control`.

use adit_control::status::{DataPlaneStatus, Status};
use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of an answer at most.
const ANSWER: u64 = 1 << 20;

/// The socket of the data plane, beside the gateway's.
pub fn data_plane_socket(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".data");
    path.into()
}

/// What is read of a report.
#[derive(Deserialize)]
struct Report {
    ports: Vec<Port>,
    #[serde(flatten)]
    status: DataPlaneStatus,
}

#[derive(Deserialize)]
struct Port {
    interface: String,
    mode: String,
    reason: String,
}

/// Adds what the data plane says to what `control` says. Where it does not answer, nothing is added.
pub(crate) async fn complete(status: &mut Status, socket: &Path) {
    let report = match timeout(PATIENCE, ask(socket)).await {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return tracing::debug!(%error, "the data plane does not answer"),
        Err(_) => return tracing::debug!("the data plane does not answer in time"),
    };
    for port in &mut status.ports {
        if let Some(found) = report.ports.iter().find(|p| p.interface == port.interface) {
            (port.mode, port.reason) = (Some(found.mode.clone()), Some(found.reason.clone()));
        }
    }
    status.data_plane = Some(report.status);
}

async fn ask(socket: &Path) -> io::Result<Report> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"\"report\"\n").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer).await?;
    serde_json::from_slice::<Result<Report, String>>(&answer)?.map_err(io::Error::other)
}
