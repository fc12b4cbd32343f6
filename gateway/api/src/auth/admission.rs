//! Whether a request is let in.

use super::{
    Scope, Token, Tokens,
    attempts::{Attempts, network},
};
use crate::problem::{Problem, ServerFault};
use adit_control::log::GatewayLog;
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

/// What a request has done that belongs into the gateway's log, in words; the extension of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Noted(pub(crate) String);

/// Who makes a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// In words.
    who: String,
    /// What he may do.
    scopes: Vec<Scope>,
    /// The token that he has shown; `None` of a process of this machine.
    pub(crate) token: Option<Token>,
}

impl Caller {
    /// Who it is, in words.
    pub(crate) fn who(&self) -> &str {
        &self.who
    }

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
    log: GatewayLog,
}

impl Doorkeeper {
    /// One that takes these tokens.
    pub(crate) fn new(tokens: Arc<Tokens>, log: GatewayLog) -> Self {
        Doorkeeper { tokens, attempts: Arc::default(), log }
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
            let text = format!("{source} showed a token that is none, or has ended");
            self.log.refused(&format!("token {}", network(source)), text);
            let challenge = "Bearer realm=\"adit\", error=\"invalid_token\"";
            return Err(unauthorized(challenge, "the token is none of this gateway, or has ended"));
        };
        let who = format!("token {:?} from {source}", token.name);
        Ok(Caller { who, scopes: token.scopes.clone(), token: Some(token) })
    }

    /// Writes into the gateway's log what a request has done, and what it was refused.
    fn note(&self, asked: &Asked, answer: &mut Response) {
        let Asked { who, what, safe } = asked;
        if let Some(Noted(done)) = answer.extensions_mut().remove() {
            self.log.info(format!("{done}, by {who}"));
        }
        if answer.status() == StatusCode::FORBIDDEN {
            // One token from many addresses is one.
            let key = who.split_once(" from ").map_or(who.as_str(), |(token, _)| token);
            self.log.refused(key, format!("{who} may not {what}"));
        }
        if let Some(ServerFault(why)) = answer.extensions_mut().remove() {
            let text = format!("{what} by {who} failed: {why}");
            // A change may be stored although not all of it works: each is told.
            if *safe { self.log.fault(&why, text) } else { self.log.error(text) }
        }
    }

    fn attempts(&self) -> std::sync::MutexGuard<'_, Attempts> {
        // What is held under the lock is whole after each step.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let in.
struct Asked {
    who: String,
    /// Its method and its path.
    what: String,
    /// Whether it changes nothing.
    safe: bool,
}

/// Tells of a change that nobody has waited for, unless it is disarmed: what had begun is done, and no answer says what that is.
struct Unanswered<'a> {
    door: &'a Doorkeeper,
    asked: &'a Asked,
    armed: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.armed {
            let Asked { who, what, .. } = self.asked;
            self.door.log.warn(format!("{what} by {who} was not waited for; if it had begun, it is done"));
        }
    }
}

/// Lets a request in, or answers why not; what is let in has a [`Caller`], and a time to be done by.
pub(crate) async fn admit(State(door): State<Doorkeeper>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Problem::new(StatusCode::FORBIDDEN, "nobody knows who asks").into_response();
    };
    let caller = match door.caller(peer, request.headers()).await {
        Ok(caller) => caller,
        Err(mut refused) => {
            // Who is nobody takes a place for one request, not for as long as he likes.
            refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return refused;
        }
    };
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let what = format!("{} {}", request.method(), request.uri().path());
    let asked = Asked { who: caller.who.clone(), what, safe };
    let mut unanswered = Unanswered { door: &door, asked: &asked, armed: false };
    let mut answer = match caller.needs(if safe { Scope::Read } else { Scope::Write }) {
        Err(refused) => refused.into_response(),
        Ok(()) => {
            request.extensions_mut().insert(caller);
            unanswered.armed = !safe;
            let answer = timeout(PATIENCE, next.run(request)).await;
            unanswered.armed &= answer.is_err();
            answer.unwrap_or_else(|_| {
                let words =
                    "the request took longer than 30 s; a change that had begun by then is still made";
                Problem::new(StatusCode::REQUEST_TIMEOUT, words).into_response()
            })
        }
    };
    drop(unanswered);
    door.note(&asked, &mut answer);
    answer
}

/// Root, and whoever the process runs as, may do everything.
fn local(uid: u32, gid: u32) -> Result<Caller, Problem> {
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if uid == 0 || uid == own_uid || gid == own_gid {
        return Ok(Caller { who: format!("uid {uid}"), scopes: Scope::ALL.to_vec(), token: None });
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
