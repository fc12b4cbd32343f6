//! `adit tunnel config`: the configuration of the other side.

use crate::{ask, capture, cli::Access, not_there, print};
use adit_control::{
    Config,
    peer_config::{self, PeerFile, Request},
};
use anyhow::{Context, bail};
use std::{ffi::OsStr, io::Write, path::Path};
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
                return Err(not_there(format!("there is no tunnel {name:?} in {}", file.display())));
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
    // A gateway elsewhere says the name, and it may be another than it claims.
    if Path::new(&file.name).file_name() != Some(OsStr::new(&file.name))
        || file.name.chars().any(char::is_control)
    {
        bail!("the gateway calls a file {:?}, which is no plain name: nothing is written there", file.name);
    }
    let path = directory.join(&file.name);
    capture::made(&path)?.write_all(file.text.as_bytes()).with_context(|| path.display().to_string())?;
    print(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_writes_nowhere_but_in_the_directory() {
        let dir = std::env::temp_dir().join(format!("adit-peer-config-{}", std::process::id()));
        let inside = dir.join("inside");
        std::fs::create_dir_all(inside.join("deeper")).unwrap();
        let file = |name: &str| PeerFile { name: name.into(), text: "text".into() };
        let absolute = dir.join("absolute").display().to_string();
        for name in [absolute.as_str(), "../outside", "deeper/below", "deeper/..", "..", ".", "", "a/", "a\n"]
        {
            let e = keep(&inside, &file(name)).unwrap_err();
            assert!(e.to_string().contains("no plain name"), "{name}: {e}");
        }
        keep(&inside, &file("a-b.conf")).unwrap();
        let names = |of: &Path| std::fs::read_dir(of).unwrap().count();
        let found = (names(&dir), names(&inside), names(&inside.join("deeper")));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, (1, 2, 0));
    }
}
