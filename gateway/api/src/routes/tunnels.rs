//! One tunnel as it runs.

use super::{Answer, Done, NotedAnswer};
use crate::{
    auth::{Caller, Noted, Scope},
    problem::{Asked, Named, Problem},
    server::Gateway,
};
use adit_control::{
    Action, ActionError, PeerFilesError, Rekey,
    diagnose::Diagnosis,
    peer_config::{self, PeerFile, Vendor},
    resource::Tunnel,
    status::{LogEntry, TunnelStatus},
    store::StoreError,
};
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::net::IpAddr;
use utoipa::IntoParams;

/// One tunnel at this moment.
#[utoipa::path(get, path = "/v1/tunnels/{name}/status", params(("name" = String, Path, description = "Its name or its id.")),
    responses((status = 200, body = TunnelStatus),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none.")))]
pub(super) async fn status(State(gateway): State<Gateway>, Named(name): Named) -> Answer<TunnelStatus> {
    let name = running(&gateway, name).await?;
    gateway.control.tunnel_status(&name).await?.map(Json).ok_or_else(|| Problem::no_tunnel(&name))
}

/// A tunnel's connection log, oldest first: its last thousand events.
#[utoipa::path(get, path = "/v1/tunnels/{name}/log", params(("name" = String, Path, description = "Its name or its id.")),
    responses((status = 200, body = Vec<LogEntry>),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none.")))]
pub(super) async fn log(State(gateway): State<Gateway>, Named(name): Named) -> Answer<Vec<LogEntry>> {
    let name = running(&gateway, name).await?;
    gateway.control.log(&name).await?.map(Json).ok_or_else(|| Problem::no_tunnel(&name))
}

/// Why a tunnel does not do what it should: what is wrong, which field to change, and what each side has. What comes first is
/// to be mended first.
#[utoipa::path(get, path = "/v1/tunnels/{name}/diagnosis", params(("name" = String, Path, description = "Its name or its id.")),
    responses((status = 200, body = Diagnosis),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none.")))]
pub(super) async fn diagnosis(State(gateway): State<Gateway>, Named(name): Named) -> Answer<Diagnosis> {
    let name = running(&gateway, name).await?;
    let status = gateway.status().await?;
    let found = gateway.control.diagnose(&name, &status).await?;
    found.map(Json).ok_or_else(|| Problem::no_tunnel(&name))
}

/// What is asked of the other side's configuration.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PeerConfigQuery {
    /// Whose configuration, as in `strongswan`.
    #[serde(rename = "for")]
    vendor: String,
    /// With its keys; otherwise a word stands where they go.
    #[serde(default)]
    with_psk: bool,
    /// Where the other side reaches this gateway, if that is not its address.
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
}

/// The configuration of the other side: local and remote swapped, in the words of its vendor.
#[utoipa::path(get, path = "/v1/tunnels/{name}/peer-config",
    params(("name" = String, Path, description = "Its name or its id."), PeerConfigQuery),
    responses((status = 200, body = Vec<PeerFile>),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "The vendor cannot have it.")))]
pub(super) async fn peer_config(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    Asked(query): Asked<PeerConfigQuery>,
) -> Result<Response, Problem> {
    if query.with_psk {
        caller.needs(Scope::RevealSecrets)?;
    }
    let vendor = query.vendor.parse::<Vendor>();
    let vendor = vendor.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.to_string()))?;
    let request = peer_config::Request { vendor, with_psk: query.with_psk, address: query.address };
    let name = running(&gateway, name).await?;
    let code = |e: &PeerFilesError| match e {
        PeerFilesError::NoTunnel(_) => StatusCode::NOT_FOUND,
        PeerFilesError::Secret => StatusCode::FORBIDDEN,
        PeerFilesError::Vendor(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let files = gateway.control.peer_files(&name, request).await?;
    let files = files.map_err(|e| Problem::new(code(&e), e.to_string()))?;
    let noted = query.with_psk.then(|| Extension(Noted(format!("the keys of tunnel {name:?} are shown"))));
    Ok((noted, Json(files)).into_response())
}

/// Take a tunnel up: negotiate at once, also where it is on demand or was taken down.
#[utoipa::path(post, path = "/v1/tunnels/{name}/up", params(("name" = String, Path, description = "Its name or its id.")),
    responses((status = 200, body = Done),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Its state does not allow it.")))]
pub(super) async fn up(State(gateway): State<Gateway>, Named(name): Named) -> NotedAnswer<Done> {
    act(&gateway, name, Action::Up).await
}

/// Take a tunnel down and keep it down until `up` or a change of its configuration. What it protects is dropped.
#[utoipa::path(post, path = "/v1/tunnels/{name}/down", params(("name" = String, Path, description = "Its name or its id.")),
    responses((status = 200, body = Done),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Its state does not allow it.")))]
pub(super) async fn down(State(gateway): State<Gateway>, Named(name): Named) -> NotedAnswer<Done> {
    act(&gateway, name, Action::Down).await
}

/// What is to be renewed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RekeyQuery {
    /// Which of its SAs.
    #[serde(default)]
    #[param(inline)]
    what: Rekey,
}

/// Renew a tunnel's SAs while traffic goes on.
#[utoipa::path(post, path = "/v1/tunnels/{name}/rekey",
    params(("name" = String, Path, description = "Its name or its id."), RekeyQuery),
    responses((status = 200, body = Done),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is none."),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Its state does not allow it.")))]
pub(super) async fn rekey(
    State(gateway): State<Gateway>,
    Named(name): Named,
    Asked(query): Asked<RekeyQuery>,
) -> NotedAnswer<Done> {
    act(&gateway, name, Action::Rekey(query.what)).await
}

async fn act(gateway: &Gateway, name: String, action: Action) -> NotedAnswer<Done> {
    let code = |e: &ActionError| match e {
        ActionError::Unknown(_) => StatusCode::NOT_FOUND,
        ActionError::Refused(..) => StatusCode::CONFLICT,
    };
    let name = running(gateway, name).await?;
    let done = gateway.control.act(&name, action).await?;
    done.map(|done| (Extension(Noted(done.clone())), Json(Done { done })))
        .map_err(|e| Problem::new(code(&e), e.to_string()))
}

/// The name of a tunnel that is named by its name or its id.
async fn running(gateway: &Gateway, name: String) -> Result<String, Problem> {
    match gateway.control.store().get::<Tunnel>(&name).await {
        Ok(tunnel) => Ok(tunnel.meta.name),
        // It may be on its way out, and run still.
        Err(StoreError::NotFound { .. }) => Ok(name),
        Err(e) => Err(e.into()),
    }
}
