//! `adit tunnel capture`: from the data plane's socket to a file.

use crate::{no_answer, not_there, wrong_usage};
use adit_api::{Client, data_plane_socket};
use anyhow::Context;
use serde_json::json;
use std::{
    fs::{File, Permissions},
    io::{IsTerminal, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    signal::unix::{SignalKind, signal},
};
use zeroize::Zeroizing;

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// Captures the packets of a tunnel, `inner`, `outer` or both, until a signal or the end of the data plane; and writes the
/// keys of its SAs to `keys`, where that is wanted.
pub(crate) fn run(
    name: &str,
    sides: &[&str],
    file: Option<&Path>,
    keys: Option<&Path>,
    socket: &Path,
) -> anyhow::Result<()> {
    if file.is_none() && std::io::stdout().is_terminal() {
        let words =
            "a capture is nothing for a terminal: name a file with -w, or pipe it on, as in `| tshark -r -`";
        return Err(wrong_usage(words));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let status = Client::new(socket.to_owned()).status().await?;
        let Some(tunnel) = status.tunnels.iter().find(|t| t.name == name).map(|t| t.id) else {
            return Err(not_there(format!("there is no tunnel {name:?}")));
        };
        let path = data_plane_socket(socket);
        // The keys first: who may not have them gets no capture that he cannot read.
        let keys = match keys {
            Some(file) => {
                let stream = ask(&path, json!({ "keys": { "tunnel": tunnel } })).await?;
                Some((stream, made(file)?))
            }
            None => None,
        };
        let stream = ask(&path, json!({ "capture": { "tunnel": tunnel, "sides": sides } })).await?;
        let out: Box<dyn Write> = match file {
            Some(file) => Box::new(made(file)?),
            None => Box::new(std::io::stdout()),
        };
        let ended = copy(stream, out);
        match keys {
            Some((stream, file)) => tokio::try_join!(ended, copy(stream, Box::new(file))).map(drop),
            None => ended.await,
        }
    })
}

/// A new file that only its owner may read.
pub(crate) fn made(path: &Path) -> anyhow::Result<File> {
    let mut options = File::options();
    let made = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = made.with_context(|| format!("{}", path.display()))?;
    // One that was there before may have been everybody's.
    file.set_permissions(Permissions::from_mode(0o600)).with_context(|| format!("{}", path.display()))?;
    Ok(file)
}

/// Asks the data plane for something, and returns the stream of what follows its answer.
async fn ask(path: &Path, request: serde_json::Value) -> anyhow::Result<BufReader<UnixStream>> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|e| no_answer(format!("the data plane does not answer on {}: {e}", path.display())))?;
    let mut stream = BufReader::new(stream);
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    serde_json::from_str::<Result<(), String>>(&answer)
        .context("the data plane's answer is not understood")?
        .map_err(anyhow::Error::msg)?;
    Ok(stream)
}

/// Copies what comes until the data plane ends it, which a signal asks it to.
async fn copy(mut stream: BufReader<UnixStream>, mut out: Box<dyn Write>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut chunk = Zeroizing::new(vec![0; CHUNK]);
    loop {
        tokio::select! {
            got = stream.read(&mut chunk) => match got? {
                0 => break,
                n => {
                    out.write_all(&chunk[..n])?;
                    out.flush()?;
                }
            },
            // The data plane ends it then, and what it still has follows.
            _ = interrupt.recv() => stream.shutdown().await?,
            _ = terminate.recv() => stream.shutdown().await?,
        }
    }
    out.flush()?;
    Ok(())
}
