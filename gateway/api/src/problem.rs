//! Why a request is refused: problem details (RFC 9457), the one form of every answer that is not what was asked for.

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

/// The media type of [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request is refused (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: what kind of problem it is, `status` says.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, for people; several lines where there are several reasons.
    pub detail: String,
    /// Each wrong field, where it is a matter of fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Its name, as in `ipsec.lifetime`.
    pub field: String,
    /// What is wrong with its value, and what is allowed.
    pub detail: String,
    /// The resource that it clashes with, as in `tunnel "a-b"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clashes_with: Option<String>,
}

impl Problem {
    /// A problem that is told in words alone.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("Unknown").into(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// 404 for a tunnel that is not there.
    pub(crate) fn no_tunnel(name: &str) -> Self {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no tunnel {name:?}"))
    }
}

impl From<adit_control::Stopped> for Problem {
    fn from(e: adit_control::Stopped) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, e.to_string())
    }
}

/// Why an answer is a fault of ours, in words; the extension of such an answer.
#[derive(Clone, Debug)]
pub(crate) struct ServerFault(pub(crate) String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let fault = (status == StatusCode::INTERNAL_SERVER_ERROR).then(|| ServerFault(self.detail.clone()));
        let mut response = (status, Json(self)).into_response();
        let kind = header::HeaderValue::from_static(PROBLEM_JSON);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(fault) = fault {
            response.extensions_mut().insert(fault);
        }
        response
    }
}

/// A body of JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Json::from_request(request, state).await.map(|Json(value)| Body(value)).map_err(|e: JsonRejection| {
            // What does not fit names the field; what is no JSON names the place.
            let words = match &e {
                JsonRejection::JsonDataError(e) => cause(e),
                JsonRejection::JsonSyntaxError(e) => format!("the body is not JSON: {}", cause(e)),
                JsonRejection::MissingJsonContentType(_) => "the body has to be application/json".into(),
                e => e.body_text(),
            };
            Problem::new(e.status(), words)
        })
    }
}

/// The innermost reason.
fn cause(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

/// What follows the `?`.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Asked(value)),
            Err(e @ QueryRejection::FailedToDeserializeQueryString(_)) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the query is not understood: {}", cause(&e)),
            )),
            Err(e) => Err(Problem::new(e.status(), e.body_text())),
        }
    }
}

/// The variable segment of a path.
pub(crate) struct Named(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        segment
            .map(|Path(name)| Named(name))
            .map_err(|e: PathRejection| Problem::new(e.status(), e.body_text()))
    }
}
