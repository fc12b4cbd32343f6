//! `adit tunnel config`: the configuration of the other side.

use crate::{ask, capture, cli::Access, print};
use adit_control::{
    Config,
    peer_config::{self, PeerFile, Request},
};
use anyhow::{Context, bail};
use std::{io::Write, path::Path};
use zeroize::Zeroizing;

/// Writes what `request` wants of the tunnel `name`, of the file `config` or else of the gateway behind `access`, into the
/// directory `to` or to stdout.
pub(crate) fn run(
    name: &str,
    request: Request,
    to: Option<&Path>,
    config: Option<&Path>,
    access: Access,
) -> anyhow::Result<()> {
    let files = match config {
        Some(file) => {
            let config = Config::load(file)?;
            let Some(tunnel) = config.tunnels.iter().find(|t| t.name == name) else {
                bail!("there is no tunnel {name:?} in {}", file.display());
            };
            peer_config::write(&config.gateway.name, tunnel, request)?
        }
        None => ask(access, async |client| client.peer_files(name, request).await)?,
    };
    match to {
        None => show(&files),
        Some(directory) => files.iter().try_for_each(|file| keep(directory, file)),
    }
}

fn show(files: &[PeerFile]) -> anyhow::Result<()> {
    let mut text = Zeroizing::new(String::new());
    text.reserve(files.iter().map(|f| f.name.len() + f.text.len() + 16).sum());
    for file in files {
        if files.len() > 1 {
            text.push_str("# ---- ");
            text.push_str(&file.name);
            text.push_str(" ----\n");
        }
        text.push_str(&file.text);
    }
    print(text.trim_end())
}

fn keep(directory: &Path, file: &PeerFile) -> anyhow::Result<()> {
    let path = directory.join(&file.name);
    capture::made(&path)?.write_all(file.text.as_bytes()).with_context(|| path.display().to_string())?;
    print(&path.display().to_string())
}
