//! Whether a request is let in.

use super::{Scope, Tokens, attempts::Attempts};
use crate::problem::Problem;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// How long a request may take, its body included, until its answer begins.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this machine.
    Local {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Another machine.
    Remote(IpAddr),
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What he may do.
    scopes: Vec<Scope>,
}

impl Caller {
    /// Refuses with 403 what takes a scope that he does not have.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let words = format!("this takes a token of the scope {}", scope.word());
        Err(Problem::new(StatusCode::FORBIDDEN, words))
    }
}

/// What decides who comes in.
#[derive(Clone)]
pub(crate) struct Doorkeeper {
    tokens: Arc<Tokens>,
    attempts: Arc<Mutex<Attempts>>,
}

impl Doorkeeper {
    /// One that takes these tokens.
    pub(crate) fn new(tokens: Arc<Tokens>) -> Self {
        Doorkeeper { tokens, attempts: Arc::default() }
    }

    async fn caller(&self, peer: Peer, headers: &HeaderMap) -> Result<Caller, Response> {
        let source = match peer {
            Peer::Local { uid, gid } => return local(uid, gid).map_err(IntoResponse::into_response),
            Peer::Remote(source) => source,
        };
        if let Some(wait) = self.attempts().wait(Instant::now(), source) {
            return Err(too_many(wait));
        }
        let shown = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        // The scheme is the same in any case (RFC 9110 section 11.1).
        let token = shown.and_then(|v| v.split_once(' ')).filter(|(s, _)| s.eq_ignore_ascii_case("bearer"));
        let Some((_, shown)) = token else {
            return Err(unauthorized(
                "Bearer realm=\"adit\"",
                "this takes a token: `Authorization: Bearer TOKEN`",
            ));
        };
        let Some(token) = self.tokens.verify(shown.trim()).await else {
            self.attempts().failed(Instant::now(), source);
            tracing::warn!("{source} showed a token that is none, or has ended");
            let challenge = "Bearer realm=\"adit\", error=\"invalid_token\"";
            return Err(unauthorized(challenge, "the token is none of this gateway, or has ended"));
        };
        Ok(Caller { scopes: token.scopes })
    }

    fn attempts(&self) -> std::sync::MutexGuard<'_, Attempts> {
        // What is held under the lock is whole after each step.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a request in, or answers why not; what is let in has a [`Caller`], and a time to be done by.
pub(crate) async fn admit(State(door): State<Doorkeeper>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Problem::new(StatusCode::FORBIDDEN, "nobody knows who asks").into_response();
    };
    let caller = match door.caller(peer, request.headers()).await {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if let Err(refused) = caller.needs(if safe { Scope::Read } else { Scope::Write }) {
        return refused.into_response();
    }
    request.extensions_mut().insert(caller);
    match timeout(PATIENCE, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "the request took longer than 30 s").into_response()
        }
    }
}

/// Root, and whoever the process runs as, may do everything.
fn local(uid: u32, gid: u32) -> Result<Caller, Problem> {
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if uid == 0 || uid == own_uid || gid == own_gid {
        return Ok(Caller { scopes: Scope::ALL.to_vec() });
    }
    let words = format!("user {uid} is neither root nor the owner of this socket");
    Err(Problem::new(StatusCode::FORBIDDEN, words))
}

fn unauthorized(challenge: &'static str, words: &str) -> Response {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, words).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let words = format!("too many tokens from here were none; again in {seconds} s");
    let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, words).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_on_the_machine_are_refused() {
        assert!(local(0, 12345).is_ok());
        let refused = local(4_000_000_000, 4_000_000_000).unwrap_err();
        assert_eq!(refused.status, 403);
        assert!(refused.detail.contains("4000000000"));
    }
}
