//! The configuration as one document: applied, and written.

use crate::{
    auth::{Caller, Noted, Scope},
    problem::{Asked, Body, Problem},
    server::Gateway,
};
use adit_control::store::{Document, Plan};
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zeroize::Zeroizing;

/// A document, and how it is applied.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// TOML, as docs/configuration.md describes it.
    pub document: String,
    /// What messages call it.
    #[serde(default)]
    pub name: String,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Delete peers, tunnels, groups and alarm templates that are not in the document, if that names any resource.
    #[serde(default)]
    pub prune: bool,
    /// Only if nothing has changed since the plan with this digest was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Make the configuration what a document says, all of it or nothing. What is the same goes on untouched.
#[utoipa::path(post, path = "/v1/apply", request_body = Application, responses(
    (status = 200, body = Plan),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "The running gateway cannot have it without a restart."),
    (status = 412, body = Problem, content_type = "application/problem+json",
        description = "Something has been changed since the plan with that digest was made."),
    (status = 413, body = Problem, content_type = "application/problem+json", description = "The body is larger than 16 MiB."),
    (status = 500, body = Problem, content_type = "application/problem+json", description = "It cannot be stored.")))]
pub(super) async fn apply(
    State(gateway): State<Gateway>,
    Body(asked): Body<Application>,
) -> Result<Response, Problem> {
    let Application { document, name, dry_run, prune, digest } = asked;
    let name = if name.is_empty() { "document".into() } else { name.into() };
    let document = Document { text: Zeroizing::new(document), name, prune, dry_run, digest, is_own: false };
    let plan = gateway.control.apply(document).await?;
    let noted = (!dry_run).then(|| Extension(Noted(format!("a document is applied: {plan}"))));
    Ok((noted, Json(plan)).into_response())
}

/// What is asked of an export.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportQuery {
    /// With the keys of every tunnel.
    #[serde(default)]
    with_psk: bool,
}

/// The configuration as a document.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Exported {
    /// TOML that can be applied; where it has no keys, those that are there stay then.
    pub document: String,
}

/// The configuration as a document that can be applied.
#[utoipa::path(get, path = "/v1/export", params(ExportQuery), responses(
    (status = 200, body = Exported),
    (status = 500, body = Problem, content_type = "application/problem+json", description = "It cannot be read.")))]
pub(super) async fn export(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<ExportQuery>,
) -> Result<Response, Problem> {
    if query.with_psk {
        caller.needs(Scope::RevealSecrets)?;
        if !gateway.control.reveals_secrets().await? {
            let words = adit_control::PeerFilesError::Secret.to_string();
            return Err(Problem::new(StatusCode::FORBIDDEN, words));
        }
    }
    let document = gateway.control.store().export(query.with_psk).await?;
    let noted = query.with_psk.then(|| Extension(Noted("the keys of every tunnel are exported".into())));
    Ok((noted, Json(Exported { document: document.to_string() })).into_response())
}
