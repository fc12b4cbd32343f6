//! Bearer tokens, kept as argon2id hashes in one file that only its owner may read.
//!
//! A token is `adit_ID.SECRET`: the number says which hash to check. Its secret has 256 bits. The hash of a good one is
//! calculated once in the life of the process; from then on the secret is compared with a digest in memory.

use super::Scope;
use argon2::Argon2;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// Tokens at most.
const MOST: usize = 256;
/// Characters of a name at most.
const LONGEST_NAME: usize = 64;
/// Seconds of its life at most: ten years.
const LONGEST_LIFE: u64 = 315_360_000;
/// Seconds of life between two notes of its last use in the file.
const NOTED: u64 = 3600;
const PREFIX: &str = "adit_";

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its number.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was made, in seconds since 1970.
    pub created_at: u64,
    /// When it ends, in seconds since 1970; `None` is never.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// When it was used last, in seconds since 1970; after a restart, to the hour.
    #[serde(default)]
    pub last_used_at: Option<u64>,
}

/// Why tokens are not read, kept or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not one of tokens.
    #[error("{}: these are no tokens of this version: {source}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// Others may read the file.
    #[error("{}: others may read it (mode {mode:o}); make it 0600, and delete its tokens if somebody has", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is wanted is no token.
    #[error("{0}")]
    Invalid(String),
    /// The system gives no randomness, or no memory for the hash.
    #[error("no token can be made: {0}")]
    Failed(String),
}

/// A token as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    token: Token,
    /// 16 octets as hexadecimal digits.
    salt: String,
    /// Argon2id of the secret, 32 octets as hexadecimal digits.
    hash: String,
    /// SHA-256 of the secret, once it was right.
    #[serde(skip)]
    known: Option<[u8; 32]>,
}

/// All tokens of a gateway.
pub(crate) struct Tokens {
    file: PathBuf,
    kept: Mutex<Vec<Kept>>,
    /// A hash takes 19 MiB and tens of milliseconds: strangers get one at a time in all.
    hashing: Semaphore,
    /// One change of the file at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Tokens {
    /// Reads the tokens of the file; without the file, there are none.
    ///
    /// # Errors
    /// [`TokenError::File`], [`TokenError::Content`], [`TokenError::Open`].
    pub(crate) fn open(file: impl Into<PathBuf>) -> Result<Arc<Tokens>, TokenError> {
        let path = file.into();
        let kept = match fs::read(&path) {
            Ok(text) => {
                let mode = fs::metadata(&path).map_or(0, |m| m.permissions().mode() & 0o777);
                if mode & 0o077 != 0 {
                    return Err(TokenError::Open { path, mode });
                }
                serde_json::from_slice(&text)
                    .map_err(|source| TokenError::Content { path: path.clone(), source })?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(TokenError::File { path, source }),
        };
        Ok(Arc::new(Tokens {
            file: path,
            kept: Mutex::new(kept),
            hashing: Semaphore::new(1),
            changing: tokio::sync::Mutex::new(()),
        }))
    }

    /// Every token, the oldest first.
    pub(crate) fn list(&self) -> Vec<Token> {
        self.kept().iter().map(|kept| kept.token.clone()).collect()
    }

    /// Makes a token that ends after `lifetime` seconds, and keeps it. The text beside it is what its holder shows: nobody can
    /// see it again.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) async fn create(
        self: &Arc<Self>,
        name: &str,
        scopes: &[Scope],
        lifetime: Option<u64>,
    ) -> Result<(Token, Zeroizing<String>), TokenError> {
        let invalid = |why: &str| Err(TokenError::Invalid(why.to_owned()));
        if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return invalid("name: 1 to 64 printable characters");
        }
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return invalid("scopes: at least one of read, write, reveal-secrets");
        }
        if lifetime.is_some_and(|seconds| !(1..=LONGEST_LIFE).contains(&seconds)) {
            return invalid("lifetime: 1 to 315360000 seconds");
        }
        let _one = self.changing.lock().await;
        let mut next = self.kept().clone();
        if next.len() >= MOST {
            return invalid("there are 256 tokens: delete one first");
        }
        if next.iter().any(|kept| kept.token.name == name) {
            return Err(TokenError::Invalid(format!("name: {name:?} is the name of another token")));
        }
        let mut random = Zeroizing::new([0; 56]);
        getrandom::fill(random.as_mut_slice()).map_err(|e| TokenError::Failed(e.to_string()))?;
        let (id, salt, secret) = (hex(&random[..8]), hex(&random[8..24]), Zeroizing::new(hex(&random[24..])));
        let created_at = now();
        let token = Token {
            id,
            name: name.to_owned(),
            scopes,
            created_at,
            expires_at: lifetime.map(|seconds| created_at.saturating_add(seconds)),
            last_used_at: None,
        };
        let shown = Zeroizing::new([PREFIX, &token.id, ".", &secret].concat());
        let hash = self.hash(secret, salt.clone()).await.map_err(TokenError::Failed)?;
        next.push(Kept { token: token.clone(), salt, hash, known: None });
        self.keep(next).await?;
        Ok((token, shown))
    }

    /// Deletes a token by its number or its name; whether there was one. From then on it opens nothing.
    ///
    /// # Errors
    /// [`TokenError::File`]: it is still there.
    pub(crate) async fn delete(self: &Arc<Self>, which: &str) -> Result<bool, TokenError> {
        let _one = self.changing.lock().await;
        let before = self.kept().clone();
        // A name that is the number of another does not stand for that.
        let Some(id) = (before.iter().find(|k| k.token.id == which))
            .or_else(|| before.iter().find(|k| k.token.name == which))
            .map(|k| k.token.id.clone())
        else {
            return Ok(false);
        };
        self.keep(before.into_iter().filter(|k| k.token.id != id).collect()).await?;
        Ok(true)
    }

    /// The token that a caller shows, if it is one and has not ended.
    pub(super) async fn verify(self: &Arc<Self>, shown: &str) -> Option<Token> {
        let (id, secret) = shown.strip_prefix(PREFIX)?.split_once('.')?;
        if secret.len() != 64 {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let kept = self.kept().iter().find(|k| k.token.id == id).cloned()?;
        let right = match kept.known {
            Some(known) => bool::from(known.ct_eq(&digest)),
            None => {
                let hash = self.hash(Zeroizing::new(secret.to_owned()), kept.salt).await;
                hash.is_ok_and(|hash| bool::from(hash.as_bytes().ct_eq(kept.hash.as_bytes())))
            }
        };
        let now = now();
        if !right || kept.token.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        let (token, noted) = {
            let mut all = self.kept();
            // It may have been deleted meanwhile.
            let found = all.iter_mut().find(|k| k.token.id == id)?;
            found.known = Some(digest);
            let noted = found.token.last_used_at.replace(now);
            (found.token.clone(), noted)
        };
        if noted.is_none_or(|at| now.saturating_sub(at) >= NOTED) {
            let _one = self.changing.lock().await;
            let all = self.kept().clone();
            if let Err(e) = self.keep(all).await {
                tracing::warn!("the use of a token is not noted: {e}");
            }
        }
        Some(token)
    }

    async fn hash(&self, secret: Zeroizing<String>, salt: String) -> Result<String, String> {
        let _place = self.hashing.acquire().await.map_err(|e| e.to_string())?;
        let work = tokio::task::spawn_blocking(move || {
            let mut hash = [0; 32];
            let done = Argon2::default().hash_password_into(secret.as_bytes(), salt.as_bytes(), &mut hash);
            done.map(|()| hex(&hash)).map_err(|e| e.to_string())
        });
        work.await.map_err(|e| e.to_string())?
    }

    /// Writes the file as a whole, and takes what it holds once it is there.
    async fn keep(self: &Arc<Self>, next: Vec<Kept>) -> Result<(), TokenError> {
        let tokens = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec_pretty(&next).map_err(io::Error::other);
            text.and_then(|text| replace(&tokens.file, &text))
                .map_err(|source| TokenError::File { path: tokens.file.clone(), source })?;
            *tokens.kept() = next;
            Ok(())
        });
        work.await.map_err(|e| TokenError::Failed(e.to_string()))?
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        // What is held under the lock is replaced in one step.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a file of mode 0600 in the place of another, if there is one; a crash leaves one of the two.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let making = path.with_extension("new");
    // Left over from a process that ended between the two steps.
    let _ = fs::remove_file(&making);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&making)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&making, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // Writing to a string does not fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_good_until_it_is_deleted_and_survives_a_restart() {
        let dir = std::env::temp_dir().join(format!("adit-tokens-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("tokens.json");
        let tokens = Tokens::open(&file).unwrap();
        let (made, shown) = tokens.create("ci", &[Scope::Write, Scope::Read], None).await.unwrap();
        assert_eq!(made.scopes, [Scope::Read, Scope::Write]);
        let tokens = Tokens::open(&file).unwrap();
        assert_eq!(tokens.verify(&shown).await.unwrap().id, made.id);
        assert!(tokens.verify(&shown).await.is_some(), "also by its digest");
        let digit = if shown.ends_with('0') { "1" } else { "0" };
        for wrong in [&format!("{}{digit}", &shown[..shown.len() - 1]), &shown[5..], "adit_.", "adit_0.0", ""]
        {
            assert!(tokens.verify(wrong).await.is_none(), "{wrong}");
        }
        let again = Tokens::open(&file).unwrap();
        let wrong = format!("{}{digit}", &shown[..shown.len() - 1]);
        assert!(again.verify(&wrong).await.is_none(), "also by its hash");
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&shown[22..]) && text.contains("\"ci\""));
        assert!(again.create("ci", &[Scope::Read], None).await.is_err());
        assert!(again.delete("ci").await.unwrap() && !again.delete("ci").await.unwrap());
        assert!(again.verify(&shown).await.is_none());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Tokens::open(&file), Err(TokenError::Open { mode: 0o640, .. })));
        fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn a_token_ends() {
        let dir = std::env::temp_dir().join(format!("adit-token-end-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let tokens = Tokens::open(dir.join("tokens.json")).unwrap();
        let (_, shown) = tokens.create("short", &[Scope::Read], Some(1000)).await.unwrap();
        assert!(tokens.verify(&shown).await.is_some());
        tokens.kept()[0].token.expires_at = Some(now());
        assert!(tokens.verify(&shown).await.is_none());
        fs::remove_dir_all(dir).unwrap();
    }
}
