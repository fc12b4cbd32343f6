//! Bearer tokens, kept as argon2id hashes in the store.
//!
//! A token is `adit_ID.SECRET`: the number says which hash to check. Its secret has 256 bits. The hash of a good one is
//! calculated once in the life of the process; from then on the secret is compared with a digest in memory.

use super::Scope;
use adit_control::store::{KeptToken, Store, StoreError};
use argon2::Argon2;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// Tokens at most.
const MOST: usize = 256;
/// Characters of a name at most.
const LONGEST_NAME: usize = 64;
/// Seconds of its life at most: ten years.
const LONGEST_LIFE: u64 = 315_360_000;
/// Seconds of life between two notes of its last use in the store.
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
    /// The number of the token that it was made with, and goes with; `None` of one that was made on the machine.
    #[serde(default)]
    pub made_by: Option<String>,
}

/// Why tokens are not read, kept or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of an earlier version cannot be read or removed.
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

/// A token, and what tells whether somebody has it.
#[derive(Clone, Deserialize)]
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

impl From<KeptToken> for Kept {
    fn from(kept: KeptToken) -> Self {
        // A word that means nothing here allows nothing.
        let scopes =
            Scope::ALL.into_iter().filter(|scope| kept.scopes.iter().any(|word| word == scope.word()));
        let token = Token {
            id: kept.id,
            name: kept.name,
            scopes: scopes.collect(),
            created_at: kept.created_at,
            expires_at: kept.expires_at,
            last_used_at: kept.last_used_at,
            made_by: kept.made_by,
        };
        Kept { token, salt: kept.salt, hash: kept.hash, known: None }
    }
}

impl From<Kept> for KeptToken {
    fn from(kept: Kept) -> Self {
        let token = kept.token;
        KeptToken {
            id: token.id,
            name: token.name,
            scopes: token.scopes.iter().map(|scope| scope.word().to_owned()).collect(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            salt: kept.salt,
            hash: kept.hash,
            made_by: token.made_by,
        }
    }
}

/// All tokens of a gateway.
pub(crate) struct Tokens {
    store: Store,
    /// What the store has of them.
    kept: Mutex<Vec<Kept>>,
    /// A hash takes 19 MiB and tens of milliseconds: strangers get one at a time in all.
    hashing: Semaphore,
    /// One is made or deleted at a time.
    changing: tokio::sync::Mutex<()>,
    /// Counts deletions, for those who wait for one.
    deletions: watch::Sender<u64>,
}

impl Tokens {
    /// Reads the tokens of the store. Those of the file in which earlier versions kept them, if it is there, are put into the
    /// store first, and the file is removed: what is deleted later does not come back.
    ///
    /// # Errors
    /// [`TokenError::Store`], and of the file [`TokenError::File`], [`TokenError::Content`], [`TokenError::Open`].
    pub(crate) async fn open(store: Store, of_old: &Path) -> Result<Arc<Tokens>, TokenError> {
        if let Some(found) = read(of_old)? {
            store.add_tokens(found.into_iter().map(KeptToken::from).collect()).await?;
            let failed = |source| TokenError::File { path: of_old.to_owned(), source };
            fs::remove_file(of_old).map_err(failed)?;
            of_old.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all()).map_err(failed)?;
            tracing::info!("the tokens of {} are in the store now", of_old.display());
        }
        let kept = store.tokens().await?.into_iter().map(Kept::from).collect();
        Ok(Arc::new(Tokens {
            store,
            kept: Mutex::new(kept),
            hashing: Semaphore::new(1),
            changing: tokio::sync::Mutex::new(()),
            deletions: watch::Sender::new(0),
        }))
    }

    /// Every token, the oldest first.
    pub(crate) fn list(&self) -> Vec<Token> {
        self.kept().iter().map(|kept| kept.token.clone()).collect()
    }

    /// Makes a token that ends after `lifetime` seconds, and keeps it. One that is made with another ends with that at the
    /// latest. The text beside it is what its holder shows: nobody can see it again.
    ///
    /// It is made, or not, whether somebody still waits for it: what is stored and what is known here are the same.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) async fn create(
        self: &Arc<Self>,
        name: &str,
        scopes: &[Scope],
        lifetime: Option<u64>,
        made_by: Option<&Token>,
    ) -> Result<(Token, Zeroizing<String>), TokenError> {
        let (tokens, name, scopes, maker) =
            (self.clone(), name.to_owned(), scopes.to_vec(), made_by.cloned());
        whole(async move { tokens.create_now(&name, scopes, lifetime, maker).await }).await
    }

    async fn create_now(
        &self,
        name: &str,
        mut scopes: Vec<Scope>,
        lifetime: Option<u64>,
        made_by: Option<Token>,
    ) -> Result<(Token, Zeroizing<String>), TokenError> {
        let invalid = |why: &str| Err(TokenError::Invalid(why.to_owned()));
        if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return invalid("name: 1 to 64 printable characters");
        }
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return invalid("scopes: at least one of read, write, reveal-secrets");
        }
        if lifetime.is_some_and(|seconds| !(1..=LONGEST_LIFE).contains(&seconds)) {
            return invalid("lifetime: 1 to 315360000 seconds");
        }
        let _one = self.changing.lock().await;
        let (count, is_taken, is_orphan) = {
            let kept = self.kept();
            let is_there = |maker: &Token| kept.iter().any(|kept| kept.token.id == maker.id);
            let is_orphan = made_by.as_ref().is_some_and(|maker| !is_there(maker));
            (kept.len(), kept.iter().any(|kept| kept.token.name == name), is_orphan)
        };
        if is_orphan {
            return invalid("the token that asks for it has been deleted");
        }
        if count >= MOST {
            return invalid("there are 256 tokens: delete one first");
        }
        if is_taken {
            return Err(TokenError::Invalid(format!("name: {name:?} is the name of another token")));
        }
        let mut random = Zeroizing::new([0; 56]);
        getrandom::fill(random.as_mut_slice()).map_err(|e| TokenError::Failed(e.to_string()))?;
        let (id, salt, secret) = (hex(&random[..8]), hex(&random[8..24]), Zeroizing::new(hex(&random[24..])));
        let created_at = now();
        let own_end = lifetime.map(|seconds| created_at.saturating_add(seconds));
        let ends = [own_end, made_by.as_ref().and_then(|maker| maker.expires_at)];
        let token = Token {
            id,
            name: name.to_owned(),
            scopes,
            created_at,
            expires_at: ends.into_iter().flatten().min(),
            last_used_at: None,
            made_by: made_by.map(|maker| maker.id),
        };
        let shown = Zeroizing::new([PREFIX, &token.id, ".", &secret].concat());
        let hash = self.hash(secret, salt.clone()).await.map_err(TokenError::Failed)?;
        let kept = Kept { token: token.clone(), salt, hash, known: None };
        self.store.add_tokens(vec![kept.clone().into()]).await?;
        self.kept().push(kept);
        Ok((token, shown))
    }

    /// A token by its number or its name.
    pub(crate) fn find(&self, which: &str) -> Option<Token> {
        let kept = self.kept();
        // A name that is the number of another does not stand for that.
        let by_id = kept.iter().find(|k| k.token.id == which);
        by_id.or_else(|| kept.iter().find(|k| k.token.name == which)).map(|k| k.token.clone())
    }

    /// Deletes a token by its number or its name, and whichever were made with it; whether there was one. From then on they
    /// open nothing. As [`Tokens::create`], it is done or not, whoever still waits for it.
    ///
    /// # Errors
    /// [`TokenError::Store`]: it is still there.
    pub(crate) async fn delete(self: &Arc<Self>, which: &str) -> Result<bool, TokenError> {
        let (tokens, which) = (self.clone(), which.to_owned());
        whole(async move { tokens.delete_now(&which).await }).await
    }

    async fn delete_now(&self, which: &str) -> Result<bool, TokenError> {
        let _one = self.changing.lock().await;
        let Some(Token { id, .. }) = self.find(which) else { return Ok(false) };
        let gone = self.store.delete_token(&id).await?;
        self.kept().retain(|k| !gone.contains(&k.token.id));
        self.deletions.send_modify(|count| *count += 1);
        Ok(true)
    }

    /// Waits until a token opens nothing any more: it has ended, or is deleted.
    pub(crate) async fn ended(self: Arc<Self>, token: Token) {
        let mut deletions = self.deletions.subscribe();
        loop {
            let is_there = self.kept().iter().any(|kept| kept.token.id == token.id);
            let left = token.expires_at.map(|end| end.saturating_sub(now()));
            if !is_there || left == Some(0) {
                return;
            }
            // The sender is here; and a clock that is set is looked at again.
            let _ = timeout(Duration::from_secs(left.unwrap_or(NOTED).min(NOTED)), deletions.changed()).await;
        }
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
        if noted.is_none_or(|at| now.saturating_sub(at) >= NOTED)
            && let Err(e) = self.store.note_token_use(id, now).await
        {
            tracing::warn!("the use of a token is not noted: {e}");
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

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        // What is held under the lock is replaced in one step.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does the whole of something that is half done where a caller goes away.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, TokenError>> + Send + 'static,
) -> Result<T, TokenError> {
    tokio::spawn(work).await.unwrap_or_else(|e| Err(TokenError::Failed(e.to_string())))
}

/// The tokens of a file of an earlier version; `None` without one.
fn read(file: &Path) -> Result<Option<Vec<Kept>>, TokenError> {
    let path = || file.to_owned();
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TokenError::File { path: path(), source }),
    };
    let mode = fs::metadata(file).map_or(0, |m| m.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        return Err(TokenError::Open { path: path(), mode });
    }
    serde_json::from_slice(&text).map(Some).map_err(|source| TokenError::Content { path: path(), source })
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

    /// A directory that goes with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(test: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("adit-tokens-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }

        /// What a process finds that starts there.
        async fn open(&self) -> Arc<Tokens> {
            Tokens::open(Store::open(&self.0, None).unwrap(), &self.of_old()).await.unwrap()
        }

        fn of_old(&self) -> PathBuf {
            self.0.join("tokens.json")
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn wrong(shown: &str) -> String {
        let digit = if shown.ends_with('0') { "1" } else { "0" };
        format!("{}{digit}", &shown[..shown.len() - 1])
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_is_deleted_and_survives_a_restart() {
        let dir = Dir::new("life");
        let tokens = dir.open().await;
        let (made, shown) = tokens.create("ci", &[Scope::Write, Scope::Read], None, None).await.unwrap();
        assert_eq!(made.scopes, [Scope::Read, Scope::Write]);
        drop(tokens);
        let tokens = dir.open().await;
        assert_eq!(tokens.verify(&shown).await.unwrap().id, made.id);
        assert!(tokens.verify(&shown).await.is_some(), "also by its digest");
        for wrong in [&wrong(&shown), &shown[5..], "adit_.", "adit_0.0", ""] {
            assert!(tokens.verify(wrong).await.is_none(), "{wrong}");
        }
        drop(tokens);
        let again = dir.open().await;
        assert!(again.list()[0].last_used_at.is_some(), "its use is noted");
        assert!(again.verify(&wrong(&shown)).await.is_none(), "also by its hash");
        for file in fs::read_dir(&dir.0).unwrap() {
            let octets = fs::read(file.unwrap().path()).unwrap();
            assert!(!octets.windows(64).any(|w| w == &shown.as_bytes()[22..]));
        }
        assert!(again.create("ci", &[Scope::Read], None, None).await.is_err());
        assert!(again.delete("ci").await.unwrap() && !again.delete("ci").await.unwrap());
        assert!(again.verify(&shown).await.is_none());
        drop(again);
        assert!(dir.open().await.verify(&shown).await.is_none());
    }

    #[tokio::test]
    async fn a_token_ends() {
        let dir = Dir::new("end");
        let tokens = dir.open().await;
        let (_, shown) = tokens.create("short", &[Scope::Read], Some(1000), None).await.unwrap();
        assert!(tokens.verify(&shown).await.is_some());
        tokens.kept()[0].token.expires_at = Some(now());
        assert!(tokens.verify(&shown).await.is_none());
    }

    #[tokio::test]
    async fn what_is_made_with_a_token_ends_and_goes_with_it() {
        let dir = Dir::new("made");
        let tokens = dir.open().await;
        let scopes = [Scope::Write];
        let (leaked, _) = tokens.create("leaked", &scopes, Some(1000), None).await.unwrap();
        let (child, _) = tokens.create("child", &scopes, None, Some(&leaked)).await.unwrap();
        assert_eq!((child.expires_at, child.made_by.as_ref()), (leaked.expires_at, Some(&leaked.id)));
        let (shorter, _) = tokens.create("shorter", &scopes, Some(10), Some(&leaked)).await.unwrap();
        assert!(shorter.expires_at < leaked.expires_at);
        let (_, shown) = tokens.create("grandchild", &scopes, Some(5000), Some(&child)).await.unwrap();
        tokens.create("other", &scopes, None, None).await.unwrap();
        drop(tokens);
        let tokens = dir.open().await;
        assert!(tokens.verify(&shown).await.is_some_and(|token| token.expires_at == leaked.expires_at));
        assert!(tokens.delete("leaked").await.unwrap());
        assert!(tokens.verify(&shown).await.is_none());
        let left = |tokens: &Arc<Tokens>| tokens.list().into_iter().map(|t| t.name).collect::<Vec<_>>();
        assert_eq!(left(&tokens), ["other"]);
        assert!(tokens.create("late", &scopes, None, Some(&leaked)).await.is_err(), "who is gone makes none");
        drop(tokens);
        assert_eq!(left(&dir.open().await), ["other"]);
    }

    #[tokio::test]
    async fn what_is_begun_is_done_whoever_goes_away() {
        let dir = Dir::new("away");
        let tokens = dir.open().await;
        // Polled once and dropped, as of a client that hangs up.
        let once = |mut work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| async move {
            std::future::poll_fn(|context| {
                assert!(work.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        };
        let until = async |count: usize| {
            while tokens.list().len() != count {
                tokio::task::yield_now().await;
            }
            assert_eq!(tokens.store.tokens().await.unwrap().len(), count);
        };
        let making = tokens.clone();
        once(Box::pin(async move { drop(making.create("a", &[Scope::Read], None, None).await) })).await;
        until(1).await;
        let deleting = tokens.clone();
        once(Box::pin(async move { drop(deleting.delete("a").await) })).await;
        until(0).await;
    }

    #[tokio::test]
    async fn who_waits_for_the_end_of_a_token_is_told() {
        let dir = Dir::new("wait");
        let tokens = dir.open().await;
        let (made, _) = tokens.create("a", &[Scope::Read], Some(1000), None).await.unwrap();
        let (other, _) = tokens.create("b", &[Scope::Read], None, None).await.unwrap();
        let waiting = tokio::spawn(tokens.clone().ended(made.clone()));
        let other_waits = tokio::spawn(tokens.clone().ended(other));
        tokens.delete("a").await.unwrap();
        waiting.await.unwrap();
        assert!(!other_waits.is_finished());
        other_waits.abort();
        tokens.clone().ended(Token { expires_at: Some(now()), ..tokens.list()[0].clone() }).await;
    }

    /// As an earlier version wrote it.
    #[tokio::test]
    async fn the_tokens_of_a_file_move_into_the_store_once() {
        const SECRET: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
        let dir = Dir::new("old");
        let mut hash = [0; 32];
        Argon2::default().hash_password_into(SECRET.as_bytes(), b"0011223344556677", &mut hash).unwrap();
        let text = format!(
            "[{{\"id\": \"0123456789abcdef\", \"name\": \"old\", \"scopes\": [\"read\", \"reveal-secrets\"], \"created_at\": 7, \
             \"expires_at\": null, \"last_used_at\": 9, \"salt\": \"0011223344556677\", \"hash\": \"{}\"}}]",
            hex(&hash)
        );
        fs::write(dir.of_old(), &text).unwrap();
        fs::set_permissions(dir.of_old(), fs::Permissions::from_mode(0o640)).unwrap();
        let store = Store::open(&dir.0, None).unwrap();
        let open = Tokens::open(store.clone(), &dir.of_old()).await;
        assert!(matches!(open, Err(TokenError::Open { mode: 0o640, .. })));
        drop((open, store));
        fs::set_permissions(dir.of_old(), fs::Permissions::from_mode(0o600)).unwrap();
        let tokens = dir.open().await;
        assert!(!dir.of_old().exists());
        let shown = format!("{PREFIX}0123456789abcdef.{SECRET}");
        let token = tokens.verify(&shown).await.unwrap();
        assert_eq!((token.scopes, token.created_at), (vec![Scope::Read, Scope::RevealSecrets], 7));
        // As if the process had ended before the file was removed.
        fs::write(dir.of_old(), &text).unwrap();
        fs::set_permissions(dir.of_old(), fs::Permissions::from_mode(0o600)).unwrap();
        drop(tokens);
        let tokens = dir.open().await;
        assert_eq!((tokens.list().len(), dir.of_old().exists()), (1, false));
        tokens.delete("old").await.unwrap();
        drop(tokens);
        assert!(dir.open().await.list().is_empty());
    }
}
