//! What people and scrapers see of the gateway: the REST API, its OpenAPI document, and `/metrics`.
//!
//! | module | holds |
//! |---|---|
//! | `server` | the listeners (a Unix socket, HTTPS, `/metrics` over TCP) and their limits |
//! | `auth` | who may do what: credentials on the socket, bearer tokens from elsewhere |
//! | `routes` | what can be asked for, by path; [`openapi`] is the document of the same table |
//! | `problem` | every refusal as problem details (RFC 9457) |
//! | `metrics` | Prometheus' text format |
//! | `client` | the API's client, for the command line |
//!
//! What the data plane tells of itself, on its own socket ([`data_plane_socket`]), is part of status and metrics.
//!
//! No answer holds a secret but three: a new token, once; and the configuration of the other side and an exported document,
//! where `api.reveal_secrets` allows it, it is asked for, and who asks has the scope for it.

mod auth;
mod client;
mod data_plane;
mod metrics;
mod problem;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use auth::{Scope, Token, TokenError};
pub use client::{Client, ClientError, Events, Remote, Trust, encoded};
pub use data_plane::data_plane_socket;
pub use metrics::{CONTENT_TYPE, render};
pub use problem::{FieldError, PROBLEM_JSON, Problem};
pub use routes::{
    Application, Changed, Deleted, Done, Doomed, DoomedOne, Exported, NewToken, Page, SecretToken, openapi,
};
pub use server::{Identity, Listen, ServeError, Server, TlsError};
