//! Lists: what of them is wanted, in which order, and how much at a time.

use crate::problem::Problem;
use adit_control::{
    resource::Resource,
    store::{Order, Select, Store},
};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Resources of a page at most.
const MOST: u32 = 1000;
/// Resources of a page, unless another number is asked for.
const USUAL: u32 = 100;

/// What of a list is wanted.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only those that have this text in any of their fields, in any case.
    search: Option<String>,
    /// Only those with this label: `key`, or `key=value`.
    label: Option<String>,
    /// In which order: without it, that of the configuration.
    #[param(inline)]
    sort: Option<Sort>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// How many are skipped before.
    #[param(minimum = 0, maximum = 4294967295u32)]
    offset: Option<u32>,
}

/// An order; with `-`, from the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
enum Sort {
    #[serde(rename = "name")]
    Name,
    #[serde(rename = "-name")]
    NameDown,
    #[serde(rename = "created_at")]
    Created,
    #[serde(rename = "-created_at")]
    CreatedDown,
    #[serde(rename = "updated_at")]
    Updated,
    #[serde(rename = "-updated_at")]
    UpdatedDown,
}

impl Sort {
    fn order(self) -> (Order, bool) {
        match self {
            Sort::Name => (Order::Name, false),
            Sort::NameDown => (Order::Name, true),
            Sort::Created => (Order::Created, false),
            Sort::CreatedDown => (Order::Created, true),
            Sort::Updated => (Order::Updated, false),
            Sort::UpdatedDown => (Order::Updated, true),
        }
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<R> {
    /// What is in this part.
    pub items: Vec<R>,
    /// How many there are in all that are as wanted.
    pub total: usize,
}

impl ListQuery {
    /// What is wanted of the resources in `store`.
    ///
    /// # Errors
    /// 400 where the page has no size, or too large a one; what the store says.
    pub(super) async fn page<R: Resource>(self, store: &Store) -> Result<Page<R>, Problem> {
        let limit = self.limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(Problem::new(StatusCode::BAD_REQUEST, format!("limit: 1 to {MOST}, not {limit}")));
        }
        let offset = self.offset.unwrap_or(0);
        let label = self.label.map(|label| match label.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (label, None),
        });
        let (order, down) = self.sort.map_or_else(Default::default, Sort::order);
        let Some(text) = self.search.map(|text| text.to_lowercase()) else {
            let cut = Some((offset, limit));
            let (items, total) = store.select(Select { label, order, down, cut }).await?;
            return Ok(Page { items, total });
        };
        let (all, _) = store.select::<R>(Select { label, order, down, cut: None }).await?;
        // Thousands are looked through.
        let found = tokio::task::spawn_blocking(move || {
            let has = |r: &R| serde_json::to_value(r).is_ok_and(|value| holds(&value, &text));
            let mut found: Vec<R> = all.into_iter().filter(has).collect();
            let total = found.len();
            found.drain(..total.min(offset as usize));
            found.truncate(limit as usize);
            Page { items: found, total }
        });
        found.await.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
    }
}

/// Whether a value, or one within it, has this text.
fn holds(value: &serde_json::Value, text: &str) -> bool {
    match value {
        serde_json::Value::String(s) => s.to_lowercase().contains(text),
        serde_json::Value::Number(n) => n.to_string() == text,
        serde_json::Value::Array(list) => list.iter().any(|v| holds(v, text)),
        serde_json::Value::Object(fields) => fields.values().any(|v| holds(v, text)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_control::{resource::Peer, store};
    use serde_json::json;

    #[tokio::test]
    async fn a_list_is_narrowed_ordered_and_cut() {
        let dir = std::env::temp_dir().join(format!("adit-listing-{}", std::process::id()));
        let store = Store::open(&dir, None).unwrap();
        for (i, name) in ["berlin", "Aachen", "ulm"].into_iter().enumerate() {
            let given = json!({"name": name, "address": format!("192.0.2.{i}"), "labels": {"site": i.to_string(), "a'.\"b": ""}});
            let given = given.as_object().unwrap().clone();
            store.create::<Peer>(given, store::nobody()).await.unwrap();
        }
        for (query, wanted, total) in [
            ("", &["berlin", "Aachen", "ulm"][..], 3),
            ("sort=name", &["Aachen", "berlin", "ulm"], 3),
            ("sort=-name&limit=1", &["ulm"], 3),
            ("sort=-created_at", &["ulm", "Aachen", "berlin"], 3),
            ("sort=updated_at&offset=1", &["Aachen", "ulm"], 3),
            ("limit=2&offset=2", &["ulm"], 3),
            ("offset=4294967295", &[], 3),
            ("search=AACH", &["Aachen"], 1),
            ("search=192.0.2.2", &["ulm"], 1),
            ("search=192.0.2&sort=name&offset=1&limit=1", &["berlin"], 3),
            ("search=192.0.2&offset=7", &[], 3),
            ("label=site", &["berlin", "Aachen", "ulm"], 3),
            ("label=site&limit=1&offset=1", &["Aachen"], 3),
            ("label=site%3D0", &["berlin"], 1),
            ("label=a'.%22b", &["berlin", "Aachen", "ulm"], 3),
            ("label=a'.%22b%3D", &["berlin", "Aachen", "ulm"], 3),
            ("label=site%3D0&search=aachen", &[], 0),
            ("label=other", &[], 0),
        ] {
            let uri = format!("/?{query}").parse().unwrap();
            let axum::extract::Query(asked) = axum::extract::Query::<ListQuery>::try_from_uri(&uri).unwrap();
            let page = asked.page::<Peer>(&store).await.unwrap();
            let names: Vec<_> = page.items.iter().map(|p| p.meta.name.as_str()).collect();
            assert_eq!((&names[..], page.total), (wanted, total), "{query}");
        }
        for limit in [0, 1001] {
            let query = ListQuery { limit: Some(limit), ..ListQuery::default() };
            assert_eq!(query.page::<Peer>(&store).await.unwrap_err().status, 400);
        }
        drop(store);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
