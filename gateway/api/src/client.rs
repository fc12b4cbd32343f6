//! A client of the Unix socket, for the command line.

use crate::{Done, Problem};
use adit_control::{
    Action, Rekey, Reloaded,
    peer_config::{self, PeerFile},
    status::{LogEntry, Status},
};
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::net::UnixStream;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no Adit answers on {}: {source}{}", socket.display(), remedy(source))]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to Adit broke: {0}")]
    Connection(#[from] hyper::Error),
    /// The answer is not what this build understands.
    #[error("Adit's answer cannot be read ({0}): is it another version?")]
    Answer(String),
    /// The request was refused.
    #[error("{0}")]
    Refused(String),
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "; is `adit run` running? Give its socket with --socket"
        }
        io::ErrorKind::PermissionDenied => "; run as root",
        _ => "",
    }
}

/// A running gateway, by its socket.
#[derive(Clone, Debug)]
pub struct Client(PathBuf);

impl Client {
    /// Names the socket; nothing is opened.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client(socket.into())
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.0
    }

    /// Everything at this moment.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.json(Method::GET, "/v1/status").await
    }

    /// A tunnel's connection log, oldest first.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is no such tunnel.
    pub async fn log(&self, tunnel: &str) -> Result<Vec<LogEntry>, ClientError> {
        self.json(Method::GET, &format!("/v1/tunnels/{}/log", encoded(tunnel))).await
    }

    /// The configuration of the other side of a tunnel.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is no such tunnel, its keys are not to be shown, or the vendor
    /// cannot have it.
    pub async fn peer_files(
        &self,
        tunnel: &str,
        request: peer_config::Request,
    ) -> Result<Vec<PeerFile>, ClientError> {
        let peer_config::Request { vendor, with_psk, address } = request;
        let address = address.map_or_else(String::new, |a| format!("&address={}", encoded(&a.to_string())));
        let path =
            format!("/v1/tunnels/{}/peer-config?for={vendor}&with_psk={with_psk}{address}", encoded(tunnel));
        self.json(Method::GET, &path).await
    }

    /// Takes a tunnel up, takes it down, or renews its SAs; answers in words what comes of it.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is no such tunnel, or its state does not allow it.
    pub async fn act(&self, tunnel: &str, action: Action) -> Result<String, ClientError> {
        let verb = match action {
            Action::Up => "up",
            Action::Down => "down",
            Action::Rekey(Rekey::All) => "rekey",
            Action::Rekey(Rekey::Ike) => "rekey?what=ike",
            Action::Rekey(Rekey::Child) => "rekey?what=child",
        };
        let path = format!("/v1/tunnels/{}/{verb}", encoded(tunnel));
        self.json::<Done>(Method::POST, &path).await.map(|answer| answer.done)
    }

    /// Has the configuration file read again.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when the configuration is.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.json(Method::POST, "/v1/reload").await
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let (code, body) = self.request(Method::GET, "/metrics").await?;
        let text = String::from_utf8(body.to_vec()).map_err(|e| ClientError::Answer(e.to_string()))?;
        if code == StatusCode::OK { Ok(text) } else { Err(ClientError::Refused(text)) }
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        let unreadable = |e: serde_json::Error| ClientError::Answer(e.to_string());
        let (code, body) = self.request(method, path).await?;
        if code.is_success() {
            return serde_json::from_slice(&body).map_err(unreadable);
        }
        let problem: Problem = serde_json::from_slice(&body).map_err(unreadable)?;
        Err(ClientError::Refused(problem.error))
    }

    async fn request(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.0)
            .await
            .map_err(|source| ClientError::Unreachable { socket: self.0.clone(), source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "adit")
            .body(Empty::<Bytes>::new())
            .map_err(|e| ClientError::Answer(e.to_string()))?;
        let response = sender.send_request(request).await?;
        let code = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((code, body))
    }
}

/// A path segment with everything but unreserved characters as `%XX` (RFC 3986 section 2.1).
fn encoded(segment: &str) -> String {
    let byte = |b: u8| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    };
    segment.bytes().map(byte).collect()
}
