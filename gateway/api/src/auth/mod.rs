//! Who may do what: callers of the Unix socket by their credentials, all others by bearer tokens (RFC 6750).

mod admission;
mod attempts;
mod tokens;

pub(crate) use admission::{Caller, Doorkeeper, Noted, Peer, admit};
pub(crate) use attempts::network;
pub(crate) use tokens::Tokens;
pub use tokens::{Token, TokenError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// To see everything but secrets.
    Read,
    /// To change everything.
    Write,
    /// To see pre-shared keys, where `api.reveal_secrets` allows that at all.
    RevealSecrets,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 3] = [Scope::Read, Scope::Write, Scope::RevealSecrets];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::RevealSecrets => "reveal-secrets",
        }
    }
}
