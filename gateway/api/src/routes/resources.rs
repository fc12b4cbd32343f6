//! The resources: gateway, peers, tunnels, connection groups and alarm templates, as they are configured.
//!
//! A revision is a resource's entity tag. Who sends it with a change (`If-Match`) has the change refused if somebody else
//! was faster; who sends none changes what is there.

use super::listing::{ListQuery, Page};
use crate::{
    auth::Noted,
    problem::{Asked, Body, FieldError, Named, Problem},
    server::Gateway,
};
use adit_control::{
    ConfigError,
    config::Diagnostic,
    resource::{
        Alarm, AlarmBody, AlarmPatch, Gateway as GatewayResource, GatewayBody, GatewayPatch, Group,
        GroupBody, GroupPatch, Kind, Peer, PeerBody, PeerPatch, Reference, Resource, Tunnel, TunnelBody,
        TunnelPatch, Violation,
    },
    store::{Edit, Given, StoreError, Written},
};
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Resources that are deleted at a time at most.
const DOOMED: usize = 10_000;
/// Resources of one deletion that the gateway's log names.
const NAMED: usize = 20;

/// A resource as a change has made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed<R> {
    /// The resource.
    #[serde(flatten)]
    pub resource: R,
    /// What works and should not be used; of no field, that the process's own file undoes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Violation>,
}

/// What there is to say of resources that are deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// What undoes it.
    pub warnings: Vec<Violation>,
}

/// Resources of one kind that are to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Doomed {
    /// Of which kind they are.
    pub kind: Kind,
    /// Which they are.
    #[schema(min_items = 1, max_items = 10000)]
    pub resources: Vec<DoomedOne>,
}

/// A resource that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DoomedOne {
    /// Its id or its name.
    pub name: String,
    /// Only if it is still of this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

async fn get<R: Resource>(gateway: &Gateway, name: &str) -> Result<Response, Problem> {
    let resource = gateway.control.store().get::<R>(name).await?;
    Ok((tagged(&resource), Json(resource)).into_response())
}

async fn create<R: Resource>(gateway: &Gateway, given: Given, list: &str) -> Result<Response, Problem> {
    let written = gateway.control.create::<R>(given).await?;
    let location = format!("{list}/{}", written.resource.meta().id);
    let mut response = changed(written, "created");
    *response.status_mut() = StatusCode::CREATED;
    // An id has nothing that a header could not.
    response.headers_mut().extend(HeaderValue::try_from(location).ok().map(|v| (header::LOCATION, v)));
    Ok(response)
}

async fn update<R: Resource>(
    gateway: &Gateway,
    name: &str,
    headers: &HeaderMap,
    edit: Edit,
) -> Result<Response, Problem> {
    let done = match &edit {
        Edit::Replace(_) => "replaced".into(),
        Edit::Merge(given) => format!("changed ({})", fields_of(given).join(", ")),
    };
    Ok(changed(gateway.control.update::<R>(name, wanted_revision(headers)?, edit).await?, &done))
}

async fn delete<R: Resource>(
    gateway: &Gateway,
    names: Vec<(String, Option<u64>)>,
) -> Result<Response, Problem> {
    let some: Vec<String> =
        names.iter().take(NAMED).map(|(name, _)| format!("{} {name:?}", R::KIND)).collect();
    let others = names.len() - some.len();
    let warnings = gateway.control.delete::<R>(names).await?.warnings;
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    let noted = Extension(Noted(format!("{}{others} deleted", some.join(", "))));
    Ok(match warnings.is_empty() {
        true => (StatusCode::NO_CONTENT, noted).into_response(),
        false => (noted, Json(Deleted { warnings })).into_response(),
    })
}

/// Delete resources of one kind, all of them or none.
#[utoipa::path(post, path = "/v1/delete", tag = "resources", request_body = Doomed, responses((status = 204),
    (status = 200, body = Deleted, description = "They are deleted, and there is something to say of it."),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "One of them is not there."),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "One of them is in use."),
    (status = 412, body = Problem, content_type = "application/problem+json",
        description = "One of them has been changed meanwhile.")))]
async fn delete_many(
    State(gateway): State<Gateway>,
    Body(doomed): Body<Doomed>,
) -> Result<Response, Problem> {
    if doomed.resources.is_empty() {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "resources: at least one"));
    }
    if doomed.resources.len() > DOOMED {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "resources: at most 10000"));
    }
    let names = doomed.resources.into_iter().map(|one| (one.name, one.revision)).collect();
    match doomed.kind {
        Kind::Gateway => delete::<GatewayResource>(&gateway, names).await,
        Kind::Peer => delete::<Peer>(&gateway, names).await,
        Kind::Tunnel => delete::<Tunnel>(&gateway, names).await,
        Kind::Group => delete::<Group>(&gateway, names).await,
        Kind::Alarm => delete::<Alarm>(&gateway, names).await,
    }
}

/// The handlers of one kind, each with its lines of the document.
macro_rules! kind {
    ($module:ident, $resource:ty, $body:ty, $patch:ty, $list:literal, $one:literal) => {
        mod $module {
            use super::*;

            /// All of them that are as wanted, a page at a time.
            #[utoipa::path(get, path = $list, tag = "resources", operation_id = concat!("list_", stringify!($module)),
                params(ListQuery), responses((status = 200, body = Page<$resource>)))]
            pub(super) async fn list(
                State(gateway): State<Gateway>,
                Asked(query): Asked<ListQuery>,
            ) -> Result<Json<Page<$resource>>, Problem> {
                query.page(gateway.control.store()).await.map(Json)
            }

            /// Create one: with those of its fields that are not to have their default.
            #[utoipa::path(post, path = $list, tag = "resources", operation_id = concat!("create_", stringify!($module)),
                request_body = $body,
                responses((status = 201, body = Changed<$resource>,
                        headers(("Location" = String, description = "Where it is."), ("ETag" = String, description = "Its revision."))),
                    (status = 409, body = Problem, content_type = "application/problem+json",
                        description = "Its name is taken, or the running gateway cannot have it.")))]
            pub(super) async fn create(
                State(gateway): State<Gateway>,
                Body(given): Body<Given>,
            ) -> Result<Response, Problem> {
                super::create::<$resource>(&gateway, given, $list).await
            }

            /// One as it is configured, with every default.
            #[utoipa::path(get, path = $one, tag = "resources", operation_id = concat!("get_", stringify!($module)),
                params(("name" = String, Path, description = "Its id or its name.")),
                responses((status = 200, body = $resource, headers(("ETag" = String, description = "Its revision."))),
                    (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none.")))]
            pub(super) async fn get(
                State(gateway): State<Gateway>,
                Named(name): Named,
            ) -> Result<Response, Problem> {
                super::get::<$resource>(&gateway, &name).await
            }

            /// Change one to what is given, with defaults for what is not. Secrets that are not given stay.
            #[utoipa::path(put, path = $one, tag = "resources", operation_id = concat!("replace_", stringify!($module)),
                request_body = $body,
                params(("name" = String, Path, description = "Its id or its name."),
                    ("If-Match" = Option<String>, Header, description = "Its revision, as ETag had it.")),
                responses((status = 200, body = Changed<$resource>, headers(("ETag" = String, description = "Its revision."))),
                    (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
                    (status = 409, body = Problem, content_type = "application/problem+json",
                        description = "Its name is taken, or the running gateway cannot have it."),
                    (status = 412, body = Problem, content_type = "application/problem+json",
                        description = "It has been changed meanwhile.")))]
            pub(super) async fn replace(
                State(gateway): State<Gateway>,
                Named(name): Named,
                headers: HeaderMap,
                Body(given): Body<Given>,
            ) -> Result<Response, Problem> {
                super::update::<$resource>(&gateway, &name, &headers, Edit::Replace(given)).await
            }

            /// Change some of its fields (RFC 7396): what is null goes back to its default.
            #[utoipa::path(patch, path = $one, tag = "resources", operation_id = concat!("change_", stringify!($module)),
                request_body = $patch,
                params(("name" = String, Path, description = "Its id or its name."),
                    ("If-Match" = Option<String>, Header, description = "Its revision, as ETag had it.")),
                responses((status = 200, body = Changed<$resource>, headers(("ETag" = String, description = "Its revision."))),
                    (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
                    (status = 409, body = Problem, content_type = "application/problem+json",
                        description = "Its name is taken, or the running gateway cannot have it."),
                    (status = 412, body = Problem, content_type = "application/problem+json",
                        description = "It has been changed meanwhile.")))]
            pub(super) async fn change(
                State(gateway): State<Gateway>,
                Named(name): Named,
                headers: HeaderMap,
                Body(given): Body<Given>,
            ) -> Result<Response, Problem> {
                super::update::<$resource>(&gateway, &name, &headers, Edit::Merge(given)).await
            }

            /// Delete one.
            #[utoipa::path(delete, path = $one, tag = "resources", operation_id = concat!("delete_", stringify!($module)),
                params(("name" = String, Path, description = "Its id or its name."),
                    ("If-Match" = Option<String>, Header, description = "Its revision, as ETag had it.")),
                responses((status = 204),
                    (status = 200, body = Deleted, description = "It is deleted, and there is something to say of it."),
                    (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
                    (status = 409, body = Problem, content_type = "application/problem+json",
                        description = "Others need it: which, it says."),
                    (status = 412, body = Problem, content_type = "application/problem+json",
                        description = "It has been changed meanwhile.")))]
            pub(super) async fn delete(
                State(gateway): State<Gateway>,
                Named(name): Named,
                headers: HeaderMap,
            ) -> Result<Response, Problem> {
                let revision = wanted_revision(&headers)?;
                super::delete::<$resource>(&gateway, vec![(name, revision)]).await
            }
        }
    };
}

kind!(alarms, Alarm, AlarmBody, AlarmPatch, "/v1/alarms", "/v1/alarms/{name}");
kind!(gateways, GatewayResource, GatewayBody, GatewayPatch, "/v1/gateways", "/v1/gateways/{name}");
kind!(groups, Group, GroupBody, GroupPatch, "/v1/groups", "/v1/groups/{name}");
kind!(peers, Peer, PeerBody, PeerPatch, "/v1/peers", "/v1/peers/{name}");
kind!(tunnels, Tunnel, TunnelBody, TunnelPatch, "/v1/tunnels", "/v1/tunnels/{name}");

/// Every route of this file.
pub(super) fn routed() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(gateways::list, gateways::create))
        .routes(routes!(gateways::get, gateways::replace, gateways::change, gateways::delete))
        .routes(routes!(peers::list, peers::create))
        .routes(routes!(peers::get, peers::replace, peers::change, peers::delete))
        .routes(routes!(tunnels::list, tunnels::create))
        .routes(routes!(tunnels::get, tunnels::replace, tunnels::change, tunnels::delete))
        .routes(routes!(groups::list, groups::create))
        .routes(routes!(groups::get, groups::replace, groups::change, groups::delete))
        .routes(routes!(alarms::list, alarms::create))
        .routes(routes!(alarms::get, alarms::replace, alarms::change, alarms::delete))
        .routes(routes!(delete_many))
}

fn changed<R: Resource>(written: Written<R>, done: &str) -> Response {
    let tag = tagged(&written.resource);
    let noted = Noted(format!("{} {:?} {done}", R::KIND, written.resource.meta().name));
    (tag, Extension(noted), Json(Changed { resource: written.resource, warnings: written.warnings }))
        .into_response()
}

/// The fields that something is given for, those within others by their way from the top.
fn fields_of(given: &Given) -> Vec<String> {
    let names = given.iter().map(|(name, value)| match value {
        Value::Object(inner) if !inner.is_empty() => {
            fields_of(inner).iter().map(|field| format!("{name}.{field}")).collect()
        }
        _ => vec![name.clone()],
    });
    names.flatten().collect()
}

/// The entity tag (RFC 9110 section 8.8.3).
fn tagged<R: Resource>(resource: &R) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", resource.meta().revision))]
}

/// The revision that a resource must have to be changed (RFC 9110 section 13.1.1).
fn wanted_revision(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let revision = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse().ok());
    let words = || format!("If-Match: {tag:?} is no revision; allowed: one, as ETag has it, or *");
    revision.map(Some).ok_or_else(|| Problem::new(StatusCode::PRECONDITION_FAILED, words()))
}

impl From<StoreError> for Problem {
    fn from(e: StoreError) -> Self {
        let status = match &e {
            StoreError::NotFound { .. } => StatusCode::NOT_FOUND,
            StoreError::NameTaken(_) | StoreError::InUse { .. } | StoreError::Refused(_) => {
                StatusCode::CONFLICT
            }
            StoreError::Invalid(_) | StoreError::Document(_) => StatusCode::UNPROCESSABLE_ENTITY,
            StoreError::Changed { .. } | StoreError::Moved => StatusCode::PRECONDITION_FAILED,
            StoreError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Applied(_) | StoreError::Unreadable { .. } | StoreError::Database { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let mut problem = Problem::new(status, e.to_string());
        let clash = |field: &str, detail: String, with: &Reference| FieldError {
            field: field.into(),
            detail,
            clashes_with: Some(with.to_string()),
        };
        problem.errors = match &e {
            StoreError::Invalid(violations) => violations.iter().map(FieldError::from).collect(),
            // Of a document: its diagnostics name the tunnel as well.
            StoreError::Document(ConfigError::Invalid { problems, .. }) => {
                problems.iter().map(FieldError::from).collect()
            }
            StoreError::NameTaken(other) => vec![clash("name", e.to_string(), other)],
            StoreError::InUse { by, .. } => by.iter().map(|one| clash("", "needs it".into(), one)).collect(),
            _ => Vec::new(),
        };
        problem
    }
}

impl From<&Diagnostic> for FieldError {
    fn from(d: &Diagnostic) -> Self {
        FieldError {
            field: d.field.clone(),
            detail: d.to_string(),
            clashes_with: d.clashes_with.as_ref().map(|name| format!("tunnel {name:?}")),
        }
    }
}

impl From<&Violation> for FieldError {
    fn from(v: &Violation) -> Self {
        let value = v.value.as_ref().map_or(String::new(), |value| format!("{value} "));
        let allowed = v.allowed.as_ref().map_or(String::new(), |allowed| format!("; allowed: {allowed}"));
        FieldError {
            field: v.field.clone(),
            detail: format!("{value}{}{allowed}", v.why),
            clashes_with: v.clashes_with.as_ref().map(ToString::to_string),
        }
    }
}
