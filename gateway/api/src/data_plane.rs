//! What the data plane tells of itself, on a socket of its own: it may run in another process, and without `control`.

use adit_control::{
    log::GatewayLog,
    status::{DataPlaneStatus, Status},
};
use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{sleep, timeout},
};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often one is looked for.
const LOOK: Duration = Duration::from_secs(1);
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

/// Tells in the gateway's log when a data plane comes and when it goes.
pub(crate) async fn watch(socket: Arc<Path>, log: GatewayLog) {
    let mut is_there = false;
    loop {
        if let Ok(stream) = UnixStream::connect(&socket).await {
            if !is_there {
                is_there = true;
                log.info(format!("the data plane runs{}", words(&socket).await));
            }
            // One of an earlier version, or one that has too many clients, cannot be waited for: it is looked for again.
            if !has_ended(stream).await.unwrap_or(false) {
                sleep(LOOK).await;
                continue;
            }
        }
        if std::mem::take(&mut is_there) {
            log.warn("the data plane has ended: until one runs, what is protected is dropped");
        }
        sleep(LOOK).await;
    }
}

/// Waits until the data plane ends, and answers that it has; `false` where it does not let itself be waited for.
async fn has_ended(mut stream: UnixStream) -> io::Result<bool> {
    stream.write_all(b"\"wait\"\n").await?;
    let mut answer = Vec::new();
    // One that is killed may break the connection.
    let ended = stream.take(ANSWER).read_to_end(&mut answer).await;
    Ok(ended.is_err() || serde_json::from_slice::<Result<(), String>>(&answer)?.is_ok())
}

/// What it says of itself, for the log.
async fn words(socket: &Path) -> String {
    let Ok(Ok(report)) = timeout(PATIENCE, ask(socket)).await else { return String::new() };
    let ports: Vec<_> = report.ports.iter().map(|port| format!("{} {}", port.interface, port.mode)).collect();
    let workers = match report.status.workers.len() {
        1 => "1 worker".into(),
        count => format!("{count} workers"),
    };
    format!(": {workers}, cryptography on {}, {}", report.status.crypto, ports.join(", "))
}
