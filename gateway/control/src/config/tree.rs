//! Objects of JSON as the tables of a file: what the reader checks is the same for both.

use serde_json::{Map, Value as Json};
use toml_edit::{Array, InlineTable, Item, Table, Value};

/// An object as the table that a file would have. What is null is not there.
pub(crate) fn table(object: &Map<String, Json>) -> Table {
    object.iter().filter_map(|(name, json)| Some((name.as_str(), Item::Value(value(json)?)))).collect()
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
