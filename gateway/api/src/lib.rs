//! What people and scrapers see of the gateway.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`](adit_control::status::Status) as JSON |
//! | `GET /v1/tunnels/{name}/log` | the tunnel's connection log: a list of [`LogEntry`](adit_control::status::LogEntry); 404 when there is no such tunnel |
//! | `POST /v1/tunnels/{name}/up`, `…/down`, `…/rekey?what=ike` (`child`, `all`) | [`Done`]; 404 when there is no such tunnel, 409 with [`Problem`] when its state does not allow it |
//! | `POST /v1/reload` | [`Reloaded`](adit_control::Reloaded); 422 with [`Problem`] when the configuration is refused |
//! | `GET /metrics` | Prometheus' text format 0.0.4 |
//!
//! What the data plane tells of itself, on its own socket ([`data_plane_socket`]), is part of status and metrics.
//!
//! All of it on a Unix socket that only its owner may open; `/metrics` alone on a TCP address too, if one is configured.
//! No answer holds a secret: `control` does not hand any out.

mod client;
mod data_plane;
mod metrics;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError};
pub use data_plane::data_plane_socket;
pub use metrics::{CONTENT_TYPE, render};
pub use server::{ServeError, Server};

use serde::{Deserialize, Serialize};

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In words.
    pub done: String,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// In words; several lines where there are several reasons.
    pub error: String,
}
