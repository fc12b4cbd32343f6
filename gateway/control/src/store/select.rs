//! A part of the resources of a kind: which, in which order, and how many of them.

use super::{
    StoreError,
    database::{COLUMNS, Database, Row},
};
use crate::resource::{Kind, Resource};
use rusqlite::{Connection, named_params};

/// What is wanted of the resources of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Only those with this label, and with this value of it where one is given.
    pub label: Option<(String, Option<String>)>,
    /// By what they are ordered.
    pub order: Order,
    /// From the other end. Those that are alike in what they are ordered by stay in the order of the configuration.
    pub down: bool,
    /// How many are skipped, and how many come then at most; without it all.
    pub cut: Option<(u32, u32)>,
}

/// By what resources are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By where they are in the configuration.
    #[default]
    Place,
    /// By name, octet by octet.
    Name,
    /// By when they were created.
    Created,
    /// By when they were last changed.
    Updated,
}

impl Order {
    fn column(self) -> &'static str {
        match self {
            Order::Place => "place",
            Order::Name => "name",
            Order::Created => "created_at",
            Order::Updated => "updated_at",
        }
    }
}

impl Database {
    /// Those of a kind that are wanted, and how many there are in all but for the cut. Only the rows within it are read.
    pub(super) fn select<R: Resource>(&self, wanted: &Select) -> Result<(Vec<R>, usize), StoreError> {
        let (rows, total) = part(&self.connection, R::KIND, wanted).map_err(self.failed())?;
        let resources = rows.iter().map(Row::resource).collect::<Result<Vec<R>, _>>()?;
        // Somebody may have written between the two questions.
        Ok((resources, usize::try_from(total).unwrap_or(0).max(rows.len())))
    }
}

fn part(connection: &Connection, kind: Kind, wanted: &Select) -> rusqlite::Result<(Vec<Row>, i64)> {
    const FITS: &str = "kind = :kind AND (:key IS NULL OR EXISTS (SELECT 1 FROM json_each(given, '$.labels')
        WHERE key = :key AND (:value IS NULL OR atom = :value)))";
    let order = format!("{}{}", wanted.order.column(), if wanted.down { " DESC" } else { "" });
    let sql = format!(
        "SELECT {COLUMNS} FROM resource WHERE {FITS} ORDER BY {order}, place LIMIT :limit OFFSET :offset"
    );
    let (kind_word, key) = (kind.word(), wanted.label.as_ref().map(|(key, _)| key));
    let value = wanted.label.as_ref().and_then(|(_, value)| value.as_ref());
    // No limit, in SQLite's words.
    let (offset, limit) = wanted.cut.map_or((0, -1), |(offset, limit)| (offset, i64::from(limit)));
    let rows = connection
        .prepare(&sql)?
        .query_map(
            named_params! {":kind": kind_word, ":key": key, ":value": value, ":limit": limit, ":offset": offset},
            |row| Row::read(kind, row),
        )?
        .collect::<rusqlite::Result<Vec<Row>>>()?;
    let total = if wanted.cut.is_some() {
        connection
            .prepare(&format!("SELECT count(*) FROM resource WHERE {FITS}"))?
            .query_row(named_params! {":kind": kind_word, ":key": key, ":value": value}, |row| row.get(0))?
    } else {
        rows.len() as i64
    };
    Ok((rows, total))
}
