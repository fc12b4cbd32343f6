//! What people and scrapers see of the gateway.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`](adit_control::status::Status) as JSON |
//! | `GET /v1/tunnels/{name}/log` | the tunnel's connection log: a list of [`LogEntry`](adit_control::status::LogEntry); 404 when there is no such tunnel |
//! | `GET /v1/tunnels/{name}/peer-config?for=VENDOR` | the configuration of the other side: a list of [`PeerFile`](adit_control::peer_config::PeerFile); with `&address=IP` as reached there, with `&with_psk=true` with the keys; 400 when a parameter is not understood, 403 when keys are not to be shown, 404 when there is no such tunnel, 422 when the vendor cannot have it |
//! | `POST /v1/tunnels/{name}/up`, `…/down`, `…/rekey?what=ike` (`child`, `all`) | [`Done`]; 404 when there is no such tunnel, 409 with [`Problem`] when its state does not allow it |
//! | `POST /v1/reload` | [`Reloaded`](adit_control::Reloaded); 422 with [`Problem`] when the configuration is refused |
//! | `GET /metrics` | Prometheus' text format 0.0.4 |
//!
//! What the data plane tells of itself, on its own socket ([`data_plane_socket`]), is part of status and metrics.
//!
//! All of it on a Unix socket that only its owner may open; `/metrics` alone on a TCP address too, if one is configured.
//! No answer holds a secret but the configuration of the other side, where `api.reveal_secrets` allows it and it is asked
//! for.

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
