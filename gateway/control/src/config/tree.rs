//! Tables of the file and objects of JSON, one as the other: what the reader checks is the same for both.

use serde_json::{Map, Number, Value as Json};
use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, TableLike, Value};

/// An object as the table that a file would have. What is null is not there.
pub(crate) fn table(object: &Map<String, Json>) -> Table {
    let item = |json: &Json| match json {
        Json::Object(fields) => Some(Item::Table(table(fields))),
        Json::Array(list) if !list.is_empty() && list.iter().all(Json::is_object) => {
            let tables = list.iter().filter_map(Json::as_object).map(table);
            Some(Item::ArrayOfTables(tables.collect::<ArrayOfTables>()))
        }
        other => value(other).map(Item::Value),
    };
    // A name leads what it names.
    let (names, others): (Vec<_>, Vec<_>) = object.iter().partition(|(name, _)| *name == "name");
    names.into_iter().chain(others).filter_map(|(name, json)| Some((name, item(json)?))).collect()
}

/// A table as an object.
pub(crate) fn object(table: &dyn TableLike) -> Map<String, Json> {
    table.iter().filter_map(|(name, item)| Some((name.to_owned(), of_item(item)?))).collect()
}

fn value(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match n.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(n.as_f64()?),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(list) => Value::Array(list.iter().filter_map(value).collect::<Array>()),
        Json::Object(fields) => Value::InlineTable(
            fields.iter().filter_map(|(name, json)| Some((name, value(json)?))).collect::<InlineTable>(),
        ),
    })
}

fn of_item(item: &Item) -> Option<Json> {
    match item {
        Item::None => None,
        Item::Value(value) => Some(of_value(value)),
        Item::Table(table) => Some(Json::Object(object(table))),
        Item::ArrayOfTables(tables) => {
            Some(Json::Array(tables.iter().map(|table| Json::Object(object(table))).collect()))
        }
    }
}

fn of_value(value: &Value) -> Json {
    match value {
        Value::String(s) => Json::String(s.value().clone()),
        Value::Integer(n) => Json::from(*n.value()),
        Value::Float(x) => Number::from_f64(*x.value()).map_or(Json::Null, Json::Number),
        Value::Boolean(b) => Json::Bool(*b.value()),
        Value::Datetime(d) => Json::String(d.value().to_string()),
        Value::Array(list) => Json::Array(list.iter().map(of_value).collect()),
        Value::InlineTable(table) => Json::Object(object(table)),
    }
}
