//! The database: how it is opened, and its rows.

use super::{
    OpenError, StoreError,
    key::{self, Key},
    mend, schema,
};
use crate::{
    config,
    resource::{Kind, Meta, Reference, Resource, Secrets},
};
use adit_ike::Psk;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row as SqlRow, Transaction};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use zeroize::{Zeroize, Zeroizing};

const NAME: &str = "adit.db";
const LOCK: &str = "adit.lock";
/// How long a process that is ending has to let go of the directory.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is sealed with the key to know it again.
const CHECK: &[u8] = b"the key of this database";
pub(super) const COLUMNS: &str = "id, name, created_at, updated_at, revision, given, shown, secret";
/// Letters and digits that nobody takes for others.
const ID_ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What was given of a resource: an object of JSON.
pub type Given = Map<String, Value>;

/// A connection, and the key to the secrets.
pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) key: Arc<Key>,
    pub(super) path: PathBuf,
    /// The process's own file, where it says what resources there are.
    pub(super) governed_by: Option<PathBuf>,
}

/// A resource as it lies in the database.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) meta: Meta,
    pub(super) given: Given,
    pub(super) shown: String,
    secret: Option<Vec<u8>>,
}

/// The directory's lock: there is one process that writes.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory if it is not there, and takes it.
    ///
    /// # Errors
    /// It cannot be made, or another process has it.
    pub(super) fn take(dir: &Path) -> Result<Lock, OpenError> {
        let failed = |source: io::Error| OpenError::File { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(dir.join(LOCK)).map_err(failed)?;
        let begun = Instant::now();
        while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            match e {
                rustix::io::Errno::WOULDBLOCK if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                rustix::io::Errno::WOULDBLOCK => return Err(OpenError::Taken(dir.to_owned())),
                e => return Err(failed(e.into())),
            }
        }
        Ok(Lock { _file: file })
    }
}

impl Database {
    /// Opens the database of a directory that is locked, or makes it and its key.
    ///
    /// # Errors
    /// As [`OpenError`] says.
    pub(super) fn open(dir: &Path, credentials: Option<&Path>) -> Result<Database, OpenError> {
        let path = dir.join(NAME);
        let is_new = fs::metadata(&path).map_or(true, |found| found.len() == 0);
        let key = match Key::read(dir, credentials)? {
            Some(key) => key,
            None if is_new => Key::make(dir)?,
            None => return Err(OpenError::NoKey { key: dir.join(key::NAME), path }),
        };
        // With the mode that the database's other files then have as well.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| OpenError::File { path: path.clone(), source })?;
        let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let check: Vec<String> = connection
            .prepare("PRAGMA quick_check(1)")
            .and_then(|mut s| s.query_map((), |row| row.get(0))?.collect())
            .map_err(|e| unusable(&path, e))?;
        if check != ["ok"] {
            return Err(OpenError::Damaged { path, why: check.join(", ") });
        }
        schema::migrate(&mut connection, &path)?;
        mend::mend(&mut connection).map_err(|e| unusable(&path, e))?;
        let database = Database { connection, key: key.into(), path, governed_by: None };
        database.check_key()?;
        Ok(database)
    }

    /// The gateway in a database that is there, whoever works with it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn peek(dir: &Path) -> Result<Option<config::Gateway>, OpenError> {
        let path = dir.join(NAME);
        if fs::metadata(&path).is_err() {
            return Ok(None);
        }
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let gateways = rows(&connection, Kind::Gateway).map_err(|e| unusable(&path, e))?;
        let Some(row) = gateways.into_iter().next() else { return Ok(None) };
        match config::read_gateway(&row.given) {
            Ok(read) => Ok(Some(read.value)),
            Err(problems) => Err(super::write::unreadable(&row, problems).into()),
        }
    }

    /// A second connection, for who only reads.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn reader(&self) -> Result<Database, OpenError> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "query_only", true).map_err(|e| unusable(&self.path, e))?;
        Ok(Database { connection, key: self.key.clone(), path: self.path.clone(), governed_by: None })
    }

    fn check_key(&self) -> Result<(), OpenError> {
        let sealed: Option<Vec<u8>> = self
            .connection
            .query_row("SELECT value FROM setting WHERE name = 'key'", (), |row| row.get(0))
            .optional()
            .map_err(|e| unusable(&self.path, e))?;
        let Some(sealed) = sealed else {
            let sealed = self.key.seal("key", CHECK);
            let sealed = sealed.map_err(|source| OpenError::File { path: self.key.path.clone(), source })?;
            self.connection
                .execute("INSERT INTO setting (name, value) VALUES ('key', ?1)", [sealed])
                .map_err(|e| unusable(&self.path, e))?;
            return Ok(());
        };
        match self.key.open("key", &sealed) {
            Some(_) => Ok(()),
            None => Err(OpenError::WrongKey { key: self.key.path.clone(), path: self.path.clone() }),
        }
    }

    /// What the database says, as an error of the store.
    pub(super) fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + Copy + use<'_> {
        |source| StoreError::Database { path: self.path.clone(), source }
    }

    /// One, by its id or its name.
    pub(super) fn get<R: Resource>(&self, name: &str) -> Result<R, StoreError> {
        self.row(R::KIND, name)?.resource()
    }

    /// The keys of a tunnel.
    pub(super) fn secrets(&self, tunnel: &str) -> Result<Secrets, StoreError> {
        let row = self.row(Kind::Tunnel, tunnel)?;
        let secrets = row.secrets(&self.key)?;
        Ok(Secrets {
            psk: Psk::new(secrets.psk.as_deref().map_or("", String::as_str)),
            ppk_key: secrets.ppk_key.as_ref().map(|key| Psk::new(key.as_str())),
        })
    }

    fn row(&self, kind: Kind, name: &str) -> Result<Row, StoreError> {
        find(&self.connection, kind, name).map_err(self.failed())?.ok_or_else(|| not_found(kind, name))
    }
}

/// Opens a connection that loses no acknowledged write.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let failed = |e| unusable(path, e);
    let connection =
        Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        let why = io::Error::other(format!("its file system cannot have a write-ahead log ({mode})"));
        return Err(OpenError::File { path: path.to_owned(), source: why });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    // What is deleted may be a secret, if a sealed one.
    connection.pragma_update(None, "secure_delete", true).map_err(failed)?;
    Ok(connection)
}

/// Tells a damaged database from one that only refuses.
pub(super) fn unusable(path: &Path, error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path: path.to_owned(), why: error.to_string() }
        }
        _ => StoreError::Database { path: path.to_owned(), source: error }.into(),
    }
}

pub(super) fn not_found(kind: Kind, name: &str) -> StoreError {
    StoreError::NotFound { kind, name: name.to_owned() }
}

/// One, by its id or its name.
pub(super) fn find(connection: &Connection, kind: Kind, name: &str) -> rusqlite::Result<Option<Row>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM resource WHERE kind = ?1 AND (id = ?2 OR name = ?2) ORDER BY id <> ?2 LIMIT 1"
    );
    connection.query_row(&sql, (kind.word(), name), |row| Row::read(kind, row)).optional()
}

/// All of a kind, in their order.
pub(super) fn rows(connection: &Connection, kind: Kind) -> rusqlite::Result<Vec<Row>> {
    let sql = format!("SELECT {COLUMNS} FROM resource WHERE kind = ?1 ORDER BY place");
    connection.prepare(&sql)?.query_map([kind.word()], |row| Row::read(kind, row))?.collect()
}

/// Those of a kind that use a resource, in their order.
pub(super) fn users(connection: &Connection, kind: Kind, id: &str) -> rusqlite::Result<Vec<Row>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM resource JOIN uses ON user = id WHERE kind = ?1 AND used = ?2 ORDER BY place"
    );
    connection.prepare(&sql)?.query_map((kind.word(), id), |row| Row::read(kind, row))?.collect()
}

/// An id that nobody has.
pub(super) fn new_id(kind: Kind) -> io::Result<String> {
    Ok(format!("{}-{}", kind.prefix(), *key::random_word(ID_ALPHABET, 16)?))
}

/// The time in UTC as RFC 3339 has it, by the transaction's clock.
pub(super) fn now(transaction: &Transaction<'_>) -> rusqlite::Result<String> {
    transaction.query_row("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", (), |row| row.get(0))
}

impl Row {
    pub(super) fn read(kind: Kind, row: &SqlRow<'_>) -> rusqlite::Result<Row> {
        let given: String = row.get(5)?;
        let given: Given = serde_json::from_str(&given).map_err(|e| {
            rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, Box::new(e))
        })?;
        let text = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels = given.get("labels").and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
        let meta = Meta {
            id: row.get(0)?,
            name: row.get(1)?,
            remark: text("remark"),
            labels,
            created_at: row.get(2)?,
            updated_at: row.get(3)?,
            revision: row.get::<_, i64>(4)?.unsigned_abs(),
        };
        Ok(Row { kind, meta, given, shown: row.get(6)?, secret: row.get(7)? })
    }

    pub(super) fn reference(&self) -> Reference {
        Reference { kind: self.kind, name: self.meta.name.clone(), id: Some(self.meta.id.clone()) }
    }

    /// As it is shown.
    pub(super) fn resource<R: Resource>(&self) -> Result<R, StoreError> {
        let spec = serde_json::from_str(&self.shown).map_err(|e| self.unreadable(e))?;
        Ok(R::new(self.meta.clone(), spec))
    }

    pub(super) fn unreadable(&self, why: impl ToString) -> StoreError {
        StoreError::Unreadable { what: self.reference(), why: why.to_string() }
    }

    /// Its secrets.
    pub(super) fn secrets(&self, key: &Key) -> Result<SecretParts, StoreError> {
        let Some(sealed) = &self.secret else { return Ok(SecretParts::default()) };
        let opened = key.open(&self.meta.id, sealed);
        let opened = opened.ok_or_else(|| self.unreadable("its secrets are damaged"))?;
        SecretParts::of_octets(&opened).ok_or_else(|| self.unreadable("its secrets are damaged"))
    }
}

/// The secrets of what is given, apart from it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct SecretParts {
    pub(super) psk: Option<Zeroizing<String>>,
    pub(super) ppk_key: Option<Zeroizing<String>>,
}

impl SecretParts {
    /// Takes the secrets out of what is given, if they are texts; whatever else is in their place stays for the reader to
    /// refuse.
    pub(super) fn take(given: &mut Given) -> SecretParts {
        let take = |object: &mut Given, name: &str| match object.remove(name)? {
            Value::String(text) => Some(Zeroizing::new(text)),
            other => {
                object.insert(name.to_owned(), other);
                None
            }
        };
        SecretParts { psk: take(given, "psk"), ppk_key: ppk(given).and_then(|ppk| take(ppk, "key")) }
    }

    /// What it has not, from what was there before.
    pub(super) fn or(self, before: SecretParts) -> SecretParts {
        SecretParts { psk: self.psk.or(before.psk), ppk_key: self.ppk_key.or(before.ppk_key) }
    }

    /// Those that have a place in what is given: of what is no longer there, nothing is kept.
    pub(super) fn of(mut self, given: &mut Given) -> SecretParts {
        self.ppk_key = self.ppk_key.filter(|_| ppk(given).is_some());
        self
    }

    /// What is given, with its secrets: for the reader. They are overwritten when it goes.
    pub(super) fn within(&self, given: &Given) -> Whole {
        let mut whole = given.clone();
        if let Some(psk) = &self.psk {
            whole.insert("psk".into(), Value::String(psk.to_string()));
        }
        if let (Some(key), Some(ppk)) = (&self.ppk_key, ppk(&mut whole)) {
            ppk.insert("key".into(), Value::String(key.to_string()));
        }
        Whole(whole)
    }

    /// Sealed for `owner`; nothing where there is nothing to keep.
    pub(super) fn seal(&self, key: &Key, owner: &str) -> io::Result<Option<Vec<u8>>> {
        let parts = [&self.psk, &self.ppk_key];
        if parts.iter().all(|part| part.is_none()) {
            return Ok(None);
        }
        let mut octets = Zeroizing::new(Vec::with_capacity(1024));
        for part in parts {
            // No secret is longer than the reader allows, and 0 is none.
            let part = part.as_ref().map_or("", |part| part.as_str());
            octets.extend(u16::try_from(part.len()).map_err(io::Error::other)?.to_be_bytes());
            octets.extend(part.as_bytes());
        }
        key.seal(owner, &octets).map(Some)
    }

    fn of_octets(mut octets: &[u8]) -> Option<SecretParts> {
        let mut part = || {
            let (length, rest) = octets.split_first_chunk()?;
            let (part, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            octets = rest;
            let text = std::str::from_utf8(part).ok()?;
            Some((!text.is_empty()).then(|| Zeroizing::new(text.to_owned())))
        };
        Some(SecretParts { psk: part()?, ppk_key: part()? })
    }
}

/// What is given with its secrets in it.
pub(super) struct Whole(pub(super) Given);

impl Drop for Whole {
    fn drop(&mut self) {
        let psk = self.0.remove("psk");
        let key = ppk(&mut self.0).and_then(|ppk| ppk.remove("key"));
        for secret in [psk, key].into_iter().flatten() {
            if let Value::String(mut text) = secret {
                text.zeroize();
            }
        }
    }
}

fn ppk(given: &mut Given) -> Option<&mut Given> {
    given.get_mut("ike")?.get_mut("ppk")?.as_object_mut()
}
