//! The bearer tokens of the API: who they are of, and the hash of each. What they mean is the API's business.

use super::{Store, StoreError, database::Database, run};
use rusqlite::{Connection, Row};

/// A token as it is kept: without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptToken {
    /// Its number.
    pub id: String,
    /// What it is for; no other has this name.
    pub name: String,
    /// The words of what it allows.
    pub scopes: Vec<String>,
    /// When it was made, in seconds since 1970.
    pub created_at: u64,
    /// When it ends, in seconds since 1970; `None` is never.
    pub expires_at: Option<u64>,
    /// When it was used last, in seconds since 1970, as far as that has been noted.
    pub last_used_at: Option<u64>,
    /// What its hash was made with.
    pub salt: String,
    /// The hash of its secret.
    pub hash: String,
    /// The number of the token that it was made with; `None` of one that was made on the machine.
    pub made_by: Option<String>,
}

impl Store {
    /// Every token, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tokens(&self) -> Result<Vec<KeptToken>, StoreError> {
        run(&self.reader, |database| all(&database.connection).map_err(database.failed())).await
    }

    /// Keeps tokens, all of them or none; those whose number is known already stay as they are.
    ///
    /// # Errors
    /// [`StoreError::Database`], also where one has the name of another.
    pub async fn add_tokens(&self, tokens: Vec<KeptToken>) -> Result<(), StoreError> {
        self.write(move |database| add(database, &tokens)).await
    }

    /// Deletes a token by its number, and whichever were made with it, by whatever way; their numbers.
    ///
    /// # Errors
    /// [`StoreError::Database`]: all are still there.
    pub async fn delete_token(&self, id: &str) -> Result<Vec<String>, StoreError> {
        let id = id.to_owned();
        self.write(move |database| {
            let sql = "WITH RECURSIVE doomed (id) AS (
                    VALUES (?1) UNION SELECT token.id FROM token JOIN doomed ON token.made_by = doomed.id
                ) DELETE FROM token WHERE id IN doomed RETURNING id";
            let deleted = || -> rusqlite::Result<Vec<String>> {
                database.connection.prepare(sql)?.query_map([&id], |row| row.get(0))?.collect()
            };
            deleted().map_err(database.failed())
        })
        .await
    }

    /// Notes when a token was used.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn note_token_use(&self, id: &str, at: u64) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(move |database| {
            let sql = "UPDATE token SET last_used_at = ?2 WHERE id = ?1";
            let noted = database.connection.execute(sql, (id, seconds(at)));
            noted.map(drop).map_err(database.failed())
        })
        .await
    }
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<KeptToken>> {
    let sql = "SELECT id, name, scopes, created_at, expires_at, last_used_at, salt, hash, made_by FROM token ORDER BY place";
    connection.prepare(sql)?.query_map((), read)?.collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<KeptToken> {
    let since_1970 = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
    Ok(KeptToken {
        id: row.get(0)?,
        name: row.get(1)?,
        scopes: row.get::<_, String>(2)?.split_whitespace().map(str::to_owned).collect(),
        created_at: since_1970(row.get(3)?),
        expires_at: row.get::<_, Option<i64>>(4)?.map(since_1970),
        last_used_at: row.get::<_, Option<i64>>(5)?.map(since_1970),
        salt: row.get(6)?,
        hash: row.get(7)?,
        made_by: row.get(8)?,
    })
}

fn add(database: &mut Database, tokens: &[KeptToken]) -> Result<(), StoreError> {
    let path = database.path.clone();
    let failed = |source| StoreError::Database { path: path.clone(), source };
    let transaction = database.connection.transaction().map_err(failed)?;
    let sql =
        "INSERT INTO token (id, name, scopes, created_at, expires_at, last_used_at, salt, hash, made_by)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING";
    for token in tokens {
        let times =
            (seconds(token.created_at), token.expires_at.map(seconds), token.last_used_at.map(seconds));
        let fields = (
            &token.id,
            &token.name,
            token.scopes.join(" "),
            times.0,
            times.1,
            times.2,
            &token.salt,
            &token.hash,
            &token.made_by,
        );
        transaction.execute(sql, fields).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

fn seconds(since_1970: u64) -> i64 {
    i64::try_from(since_1970).unwrap_or(i64::MAX)
}
