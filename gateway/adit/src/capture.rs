//! `adit tunnel capture`: from the data plane's socket to a file.

use adit_api::{Client, data_plane_socket};
use anyhow::{Context, bail};
use std::{
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    signal::unix::{SignalKind, signal},
};

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// Captures the packets of a tunnel, `inner`, `outer` or both, until a signal or the end of the data plane.
pub(crate) fn run(name: &str, sides: &[&str], file: Option<&Path>, socket: &Path) -> anyhow::Result<()> {
    if file.is_none() && std::io::stdout().is_terminal() {
        bail!(
            "a capture is nothing for a terminal: name a file with -w, or pipe it on, as in `| tshark -r -`"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let status = Client::new(socket.to_owned()).status().await?;
        let Some(tunnel) = status.tunnels.iter().find(|t| t.name == name) else {
            bail!("there is no tunnel {name:?}");
        };
        let request = serde_json::json!({ "capture": { "tunnel": tunnel.id, "sides": sides } });
        let path = data_plane_socket(socket);
        let stream = UnixStream::connect(&path)
            .await
            .with_context(|| format!("the data plane does not answer on {}", path.display()))?;
        let out: Box<dyn Write> = match file {
            Some(file) => {
                let mut options = std::fs::OpenOptions::new();
                let made = options.write(true).create(true).truncate(true).mode(0o600).open(file);
                Box::new(made.with_context(|| format!("{}", file.display()))?)
            }
            None => Box::new(std::io::stdout()),
        };
        copy(stream, format!("{request}\n"), out).await
    })
}

async fn copy(stream: UnixStream, request: String, mut out: Box<dyn Write>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (read, mut write) = stream.into_split();
    write.write_all(request.as_bytes()).await?;
    let mut read = BufReader::new(read);
    let mut answer = String::new();
    read.read_line(&mut answer).await?;
    serde_json::from_str::<Result<(), String>>(&answer)
        .context("the data plane's answer is not understood")?
        .map_err(anyhow::Error::msg)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        tokio::select! {
            got = read.read(&mut chunk) => match got? {
                0 => break,
                n => {
                    out.write_all(&chunk[..n])?;
                    out.flush()?;
                }
            },
            // The data plane ends the capture then, and what it still has follows.
            _ = interrupt.recv() => write.shutdown().await?,
            _ = terminate.recv() => write.shutdown().await?,
        }
    }
    out.flush()?;
    Ok(())
}
