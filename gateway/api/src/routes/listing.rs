//! Lists: what of them is wanted, in which order, and how much at a time.

use crate::problem::Problem;
use adit_control::resource::{Meta, Resource};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use utoipa::{IntoParams, ToSchema};

/// Resources of a page at most.
const MOST: usize = 1000;
/// Resources of a page, unless another number is asked for.
const USUAL: usize = 100;

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
    limit: Option<usize>,
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
    fn compare(self, a: &Meta, b: &Meta) -> Ordering {
        match self {
            Sort::Name => a.name.cmp(&b.name),
            Sort::NameDown => b.name.cmp(&a.name),
            Sort::Created => a.created_at.cmp(&b.created_at),
            Sort::CreatedDown => b.created_at.cmp(&a.created_at),
            Sort::Updated => a.updated_at.cmp(&b.updated_at),
            Sort::UpdatedDown => b.updated_at.cmp(&a.updated_at),
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
    /// What is wanted of `all`.
    ///
    /// # Errors
    /// 400 where the page has no size, or too large a one.
    pub(super) fn page<R: Resource>(&self, mut all: Vec<R>) -> Result<Page<R>, Problem> {
        let limit = self.limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(Problem::new(StatusCode::BAD_REQUEST, format!("limit: 1 to {MOST}, not {limit}")));
        }
        if let Some(label) = &self.label {
            let (key, value) = label.split_once('=').map_or((label.as_str(), None), |(k, v)| (k, Some(v)));
            let fits = |found: &String| value.is_none_or(|wanted| found == wanted);
            all.retain(|r| r.meta().labels.get(key).is_some_and(fits));
        }
        if let Some(text) = self.search.as_deref().map(str::to_lowercase) {
            all.retain(|r| serde_json::to_value(r).is_ok_and(|value| holds(&value, &text)));
        }
        if let Some(sort) = self.sort {
            all.sort_by(|a, b| sort.compare(a.meta(), b.meta()));
        }
        let total = all.len();
        let items = all.into_iter().skip(self.offset.unwrap_or(0) as usize).take(limit).collect();
        Ok(Page { items, total })
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
    use adit_control::resource::{Peer, PeerSpec};

    fn peers() -> Vec<Peer> {
        let names = ["berlin", "Aachen", "ulm"];
        let peer = |(i, name): (usize, &str)| {
            let labels = [("site".to_owned(), i.to_string())].into();
            let meta = Meta { name: name.to_owned(), labels, ..Meta::default() };
            Peer::new(meta, PeerSpec { address: format!("192.0.2.{i}"), asn: None })
        };
        names.into_iter().enumerate().map(peer).collect()
    }

    fn names(query: &str) -> (Vec<String>, usize) {
        let uri = format!("/?{query}").parse().unwrap();
        let axum::extract::Query(query) = axum::extract::Query::<ListQuery>::try_from_uri(&uri).unwrap();
        let page = query.page(peers()).unwrap();
        (page.items.into_iter().map(|p| p.meta.name).collect(), page.total)
    }

    #[test]
    fn a_list_is_narrowed_ordered_and_cut() {
        for (query, wanted, total) in [
            ("", &["berlin", "Aachen", "ulm"][..], 3),
            ("sort=name", &["Aachen", "berlin", "ulm"], 3),
            ("sort=-name&limit=1", &["ulm"], 3),
            ("limit=2&offset=2", &["ulm"], 3),
            ("search=AACH", &["Aachen"], 1),
            ("search=192.0.2.2", &["ulm"], 1),
            ("label=site", &["berlin", "Aachen", "ulm"], 3),
            ("label=site%3D0", &["berlin"], 1),
            ("label=other", &[], 0),
        ] {
            assert_eq!(names(query), (wanted.iter().map(|n| (*n).to_owned()).collect(), total), "{query}");
        }
        for limit in [0, 1001] {
            let query = ListQuery { limit: Some(limit), ..ListQuery::default() };
            assert_eq!(query.page(peers()).unwrap_err().status, 400);
        }
    }
}
