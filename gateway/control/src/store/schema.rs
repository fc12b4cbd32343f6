//! The tables, and the way from every version of them to the latest.

use super::OpenError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// The steps from an empty database on; the version of a database is how many of them it has taken. A step that has been
/// released never changes.
const MIGRATIONS: [&str; 5] = [
    "CREATE TABLE setting (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    -- `given` is what somebody gave, without secrets; `shown` the specification with every default, both as JSON.
    CREATE TABLE resource (
        place INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        revision INTEGER NOT NULL,
        given TEXT NOT NULL,
        shown TEXT NOT NULL,
        secret BLOB,
        slots INTEGER NOT NULL,
        strangers_at TEXT,
        UNIQUE (kind, name)
    ) STRICT;
    CREATE INDEX resource_strangers ON resource (strangers_at) WHERE strangers_at IS NOT NULL;
    CREATE TABLE uses (
        user TEXT NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
        used TEXT NOT NULL REFERENCES resource (id) ON DELETE RESTRICT,
        PRIMARY KEY (user, used)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX uses_used ON uses (used);
    CREATE TABLE pair (
        local TEXT NOT NULL,
        remote TEXT NOT NULL,
        tunnel TEXT NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
        PRIMARY KEY (local, remote)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX pair_tunnel ON pair (tunnel);",
    "-- Bearer tokens: times are seconds since 1970, `scopes` are words between spaces.
    CREATE TABLE token (
        place INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE,
        scopes TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        last_used_at INTEGER,
        salt TEXT NOT NULL,
        hash TEXT NOT NULL
    ) STRICT;",
    "-- Tunnels of one connection group have the same pairs.
    CREATE TABLE pair_of_several (
        local TEXT NOT NULL,
        remote TEXT NOT NULL,
        tunnel TEXT NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
        PRIMARY KEY (local, remote, tunnel)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO pair_of_several SELECT local, remote, tunnel FROM pair;
    DROP TABLE pair;
    ALTER TABLE pair_of_several RENAME TO pair;
    CREATE INDEX pair_tunnel ON pair (tunnel);",
    "-- The token that a token was made with goes with it.
    ALTER TABLE token ADD COLUMN made_by TEXT;",
    "-- Who is at an address, and whose health check asks it.
    CREATE INDEX resource_peer_at ON resource (json_extract(shown, '$.address')) WHERE kind = 'peer';
    CREATE INDEX resource_asks ON resource (json_extract(shown, '$.health_check.destination')) WHERE kind = 'tunnel';",
];

/// Takes the steps that a database has not taken yet, all or none.
///
/// # Errors
/// A later Adit wrote it, or it refuses.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let damaged = |e: rusqlite::Error| super::database::unusable(path, e);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(damaged)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", (), |row| row.get(0)).map_err(damaged)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    for (done, step) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step).map_err(damaged)?;
        transaction.pragma_update(None, "user_version", done as i64 + 1).map_err(damaged)?;
    }
    transaction.commit().map_err(damaged)
}
