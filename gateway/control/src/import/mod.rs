//! Configurations of others, as tunnels of ours: what a cloud lets people download, a strongSwan's files, another Adit's.
//!
//! Every reader is bounded ([`LONGEST`], entries, depth), takes what it understands, says in comments what it leaves out, and
//! refuses with the line what it cannot take. What comes out is the peers and tunnels of a TOML file, to stand below a
//! `[gateway]`.

mod adit;
mod alibaba;
mod aws;
mod draft;
mod ipsec_conf;
mod swanctl;
#[cfg(test)]
mod tests;
mod words;

use crate::config::Subnet;
use std::{fmt, str::FromStr};
use zeroize::Zeroizing;

/// Bytes of the longest text that is read.
pub const LONGEST: usize = 1 << 20;

/// Whose configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What AWS gives as "Generic": two tunnels.
    Aws,
    /// strongSwan's swanctl.conf or ipsec.conf; which it is, is seen.
    Strongswan,
    /// What Alibaba Cloud gives as the peer's configuration: JSON.
    Alibaba,
    /// Another file of Adit, or part of one.
    Adit,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 4] = [Format::Aws, Format::Strongswan, Format::Alibaba, Format::Adit];

    /// By which it is asked for.
    pub fn word(self) -> &'static str {
        match self {
            Format::Aws => "aws",
            Format::Strongswan => "strongswan",
            Format::Alibaba => "alibaba",
            Format::Adit => "adit",
        }
    }

    /// What it is.
    pub fn title(self) -> &'static str {
        match self {
            Format::Aws => "the configuration that AWS lets download for vendor Generic",
            Format::Strongswan => "strongSwan's swanctl.conf, or its ipsec.conf with --secrets",
            Format::Alibaba => "the peer configuration of an IPsec connection of Alibaba Cloud (JSON)",
            Format::Adit => {
                "another file of Adit, or what `adit export` or `adit tunnel config --for adit` writes"
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no [`Format`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no format that can be read; allowed: aws, strongswan, alibaba, adit")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Format::ALL.into_iter().find(|f| f.word() == word).ok_or_else(|| UnknownFormat(word.to_owned()))
    }
}

/// What the text itself may not say.
#[derive(Clone, Copy, Default)]
pub struct Extra<'a> {
    /// strongSwan's ipsec.secrets.
    pub secrets: Option<&'a str>,
    /// The networks behind the other side.
    pub remote_subnets: &'a [Subnet],
}

/// Why a text is not taken. It never quotes a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ImportError {
    /// From 1.
    pub line: usize,
    /// In words.
    pub message: String,
}

impl ImportError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        ImportError { line, message: message.into() }
    }
}

/// What has been read.
#[derive(Clone)]
pub struct Imported {
    /// Peers and tunnels, as TOML with comments.
    pub text: Zeroizing<String>,
    /// The tunnels' names.
    pub tunnels: Vec<String>,
}

impl fmt::Debug for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imported").field("tunnels", &self.tunnels).finish_non_exhaustive()
    }
}

/// Reads `text`.
///
/// # Errors
/// [`ImportError`] with the first thing that cannot be taken.
pub fn import(format: Format, text: &str, extra: Extra<'_>) -> Result<Imported, ImportError> {
    if text.len() > LONGEST || extra.secrets.is_some_and(|s| s.len() > LONGEST) {
        return Err(ImportError::new(1, format!("is longer than {LONGEST} bytes")));
    }
    let drafts = match format {
        Format::Adit => return adit::read(text),
        Format::Aws => aws::read(text, extra.remote_subnets)?,
        Format::Alibaba => alibaba::read(text)?,
        Format::Strongswan if ipsec_conf::is_one(text) => ipsec_conf::read(text, extra)?,
        Format::Strongswan => swanctl::read(text, extra.remote_subnets)?,
    };
    if drafts.is_empty() {
        return Err(ImportError::new(1, format!("there is no tunnel in it: is it {}?", format.title())));
    }
    draft::write(format, drafts)
}

/// The prefixes of a list with commas or spaces between them.
fn subnets(text: &str, line: usize) -> Result<Vec<Subnet>, ImportError> {
    let parts = text.split([',', ' ', '\t']).map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let whole = match part.parse::<std::net::IpAddr>() {
                Ok(ip) => format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }),
                Err(_) => part.to_owned(),
            };
            whole.parse().map_err(|e| ImportError::new(line, format!("{part:?} {e}")))
        })
        .collect()
}
