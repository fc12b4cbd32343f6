//! The guides of `docs/guides` show what is written: the block below each `<!-- adit tunnel config … -->` is what that
//! command writes for the first TOML block of its page. `ADIT_UPDATE_GOLDEN=1` puts it there.

use super::{Request, write};
use crate::config::Config;
use std::{fs, path::PathBuf};

const COMMAND: &str = "<!-- adit tunnel config ";

/// A page, with each block replaced by what its command writes.
fn filled(name: &str, page: &str) -> String {
    let toml = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```\n").next());
    let toml = toml.unwrap_or_else(|| panic!("{name} has no configuration"));
    let config = Config::parse(name.as_ref(), toml).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(config.warnings.is_empty(), "{name}: {}", config.warnings_for(name.as_ref()));
    let mut parts = page.split(COMMAND);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (command, rest) = part.split_once(" -->\n```\n").unwrap_or_else(|| panic!("{name}: {part}"));
        let (_, rest) = rest.split_once("```\n").unwrap_or_else(|| panic!("{name}: {part}"));
        whole += &format!("{COMMAND}{command} -->\n```\n{}```\n{rest}", said(&config, command));
    }
    whole
}

/// What `adit tunnel config COMMAND` writes.
fn said(config: &Config, command: &str) -> String {
    let words: Vec<_> = command.split(' ').collect();
    let after = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1));
    let tunnel = config.tunnels.iter().find(|tunnel| tunnel.name == words[0]).expect(command);
    let vendor = after("--for").and_then(|vendor| vendor.parse().ok()).expect(command);
    let address = after("--address").map(|address| address.parse().expect(command));
    let files = write(&config.gateway.name, tunnel, Request { vendor, with_psk: false, address });
    let text: String = files.expect(command).iter().map(|file| file.text.as_str()).collect();
    text.replace(concat!("Adit ", env!("CARGO_PKG_VERSION")), "Adit")
}

#[test]
fn the_guides_show_what_is_written() {
    let guides = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides");
    let mut pages: Vec<_> = fs::read_dir(&guides).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| !path.ends_with("README.md"));
    assert_eq!(pages.len(), 6);
    for path in pages {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let page = fs::read_to_string(&path).unwrap();
        let now = filled(&name, &page);
        assert!(now.contains(COMMAND), "{name} shows nothing of the other side");
        if std::env::var_os("ADIT_UPDATE_GOLDEN").is_some() {
            fs::write(&path, now).unwrap();
        } else {
            assert!(now == page, "{name}: ADIT_UPDATE_GOLDEN=1 writes it anew:\n{now}");
        }
    }
}
