//! The gateway as a whole.

use super::Answer;
use crate::{auth::Caller, metrics, problem::Problem, server::Gateway};
use adit_control::{
    Reloaded,
    status::{LogEntry, Status},
};
use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use std::convert::Infallible;

/// Everything at this moment.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(gateway): State<Gateway>) -> Answer<Status> {
    Ok(Json(gateway.status().await?))
}

/// The gateway's own log, oldest first: its last thousand events.
#[utoipa::path(get, path = "/v1/log", responses((status = 200, body = Vec<LogEntry>)))]
pub(super) async fn log(State(gateway): State<Gateway>) -> Json<Vec<LogEntry>> {
    Json(gateway.control.gateway_log().entries())
}

/// Have the configuration file read again. Tunnels that are the same go on untouched.
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, body = Reloaded),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "The configuration is wrong.")))]
pub(super) async fn reload(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> Answer<Reloaded> {
    let done = gateway.control.reload(caller.who()).await;
    done.map(Json).map_err(|e| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()))
}

/// The metrics in Prometheus' text format 0.0.4.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn scrape(State(gateway): State<Gateway>) -> Result<Response, Problem> {
    let pages = stream::iter(metrics::Pages::new(gateway.scraped().await?).map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], Body::from_stream(pages)).into_response())
}

/// The alarm templates that somebody names as a rule file of Prometheus.
#[utoipa::path(get, path = "/v1/alarm-rules", responses((status = 200, body = Object, content_type = "application/yaml")))]
pub(super) async fn alarm_rules(State(gateway): State<Gateway>) -> Result<Response, Problem> {
    let rules = gateway.control.store().alarm_rules().await?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], rules).into_response())
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> Json<&'static utoipa::openapi::OpenApi> {
    Json(super::openapi())
}
