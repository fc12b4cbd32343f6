//! A client of the API, for the command line: over the Unix socket, or over HTTPS with a token.

mod events;
mod https;

pub use events::Events;
pub use https::{Remote, Trust};

use crate::{
    Application, Deleted, Done, Doomed, DoomedOne, Exported, FieldError, NewToken, Page, Problem,
    SecretToken, Token,
};
use adit_control::{
    Action, Rekey, Reloaded,
    diagnose::Diagnosis,
    peer_config::{self, PeerFile},
    resource::Kind,
    status::{LogEntry, Status, TunnelStatus},
    store::Plan,
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{io, path::PathBuf};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no Adit answers on {place}: {source}{}", remedy(source))]
    Unreachable {
        /// Where.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// What is named cannot be asked.
    #[error("{0}")]
    Place(String),
    /// The connection broke.
    #[error("the connection to Adit broke: {0}")]
    Connection(#[from] hyper::Error),
    /// The answer is not what this build understands.
    #[error("Adit's answer cannot be read ({0}): is it another version?")]
    Answer(String),
    /// The request was refused.
    #[error("{}", words(.0))]
    Refused(Box<Problem>),
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "; is `adit run` running? Give its socket with --socket, or its address with --url"
        }
        io::ErrorKind::PermissionDenied => "; run as root",
        _ => "",
    }
}

/// The detail, and a line for each field that it does not name.
fn words(problem: &Problem) -> String {
    let clash = |e: &FieldError| e.clashes_with.as_ref().map_or(String::new(), |c| format!(" ({c})"));
    let line = |e: &FieldError| format!("{}: {}{}", e.field, e.detail, clash(e));
    let told = |e: &FieldError| {
        // What has no field is told of another: that it is in the way.
        let other = e.clashes_with.as_deref().filter(|_| e.field.is_empty());
        problem.detail.contains(other.unwrap_or(&line(e)))
    };
    let fields = problem.errors.iter().filter(|e| !told(e)).map(line);
    std::iter::once(problem.detail.clone()).chain(fields).collect::<Vec<_>>().join("\n")
}

/// A running gateway.
#[derive(Clone, Debug)]
pub enum Client {
    /// By its socket.
    Local(PathBuf),
    /// By its address.
    Remote(Remote),
}

impl Client {
    /// Names the socket; nothing is opened.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client::Local(socket.into())
    }

    /// Everything at this moment.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// One tunnel at this moment.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is no such tunnel.
    pub async fn tunnel(&self, name: &str) -> Result<TunnelStatus, ClientError> {
        self.get(&format!("/v1/tunnels/{}/status", encoded(name))).await
    }

    /// A tunnel's connection log, oldest first.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is no such tunnel.
    pub async fn log(&self, tunnel: &str) -> Result<Vec<LogEntry>, ClientError> {
        self.get(&format!("/v1/tunnels/{}/log", encoded(tunnel))).await
    }

    /// The gateway's own log, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn gateway_log(&self) -> Result<Vec<LogEntry>, ClientError> {
        self.get("/v1/log").await
    }

    /// Why a tunnel does not do what it should.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is no such tunnel.
    pub async fn diagnose(&self, tunnel: &str) -> Result<Diagnosis, ClientError> {
        self.get(&format!("/v1/tunnels/{}/diagnosis", encoded(tunnel))).await
    }

    /// What happens from now on to one tunnel, or to all and to the gateway.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is no such tunnel.
    pub async fn events(&self, tunnel: Option<&str>) -> Result<Events, ClientError> {
        let query = tunnel.map_or_else(String::new, |tunnel| format!("?tunnel={}", encoded(tunnel)));
        self.stream(&format!("/v1/events{query}")).await
    }

    /// What happens to the gateway itself from now on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn gateway_events(&self) -> Result<Events, ClientError> {
        self.stream("/v1/events?gateway=true").await
    }

    async fn stream(&self, path: &str) -> Result<Events, ClientError> {
        let response = self.request(Method::GET, path, None).await?;
        if response.status().is_success() {
            return Ok(Events::new(response.into_body()));
        }
        Err(refused(&response.into_body().collect().await?.to_bytes()))
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
        self.get(&path).await
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

    /// Applies a document, or says what that would do.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when the document is.
    pub async fn apply(&self, application: &Application) -> Result<Plan, ClientError> {
        self.send(Method::POST, "/v1/apply", application).await
    }

    /// The configuration as a document.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when keys are asked for and not to be shown.
    pub async fn export(&self, with_psk: bool) -> Result<Exported, ClientError> {
        self.get(&format!("/v1/export?with_psk={with_psk}")).await
    }

    /// A page of the resources of a kind: those that are as wanted, by the parameters of the list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn resources(
        &self,
        kind: Kind,
        wanted: &[(&str, Option<String>)],
        limit: usize,
        offset: usize,
    ) -> Result<Page<Value>, ClientError> {
        let mut path = format!("{}?limit={limit}&offset={offset}", path_of(kind));
        for (name, value) in wanted {
            path.extend(value.iter().map(|value| format!("&{name}={}", encoded(value))));
        }
        self.get(&path).await
    }

    /// One resource, by its name or its id.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is none.
    pub async fn resource(&self, kind: Kind, name: &str) -> Result<Value, ClientError> {
        self.get(&format!("{}/{}", path_of(kind), encoded(name))).await
    }

    /// Creates a resource, and returns it as it is then.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] with what is wrong of its fields.
    pub async fn create(&self, kind: Kind, given: &Map<String, Value>) -> Result<Value, ClientError> {
        self.send(Method::POST, path_of(kind), given).await
    }

    /// Changes some fields of a resource, and returns it as it is then.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] with what is wrong of its fields.
    pub async fn edit(
        &self,
        kind: Kind,
        name: &str,
        given: &Map<String, Value>,
    ) -> Result<Value, ClientError> {
        self.send(Method::PATCH, &format!("{}/{}", path_of(kind), encoded(name)), given).await
    }

    /// Deletes resources of a kind, all of them or none.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when one is not there, or in use.
    pub async fn delete(&self, kind: Kind, names: &[String]) -> Result<Deleted, ClientError> {
        let one = |name: &String| DoomedOne { name: name.clone(), revision: None };
        let doomed = Doomed { kind, resources: names.iter().map(one).collect() };
        let body = serde_json::to_vec(&doomed).map_err(|e| ClientError::Place(e.to_string()))?;
        let (code, body) = self.ask(Method::POST, "/v1/delete", Some(body.into())).await?;
        match code {
            StatusCode::NO_CONTENT => Ok(Deleted { warnings: Vec::new() }),
            code if code.is_success() => read(&body),
            _ => Err(refused(&body)),
        }
    }

    /// Every token, without its secret.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tokens(&self) -> Result<Vec<Token>, ClientError> {
        self.get("/v1/tokens").await
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_token(&self, new: &NewToken) -> Result<SecretToken, ClientError> {
        self.send(Method::POST, "/v1/tokens", new).await
    }

    /// Deletes a token by its number or its name.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when there is none.
    pub async fn delete_token(&self, which: &str) -> Result<(), ClientError> {
        let (code, body) = self.ask(Method::DELETE, &format!("/v1/tokens/{}", encoded(which)), None).await?;
        if code.is_success() { Ok(()) } else { Err(refused(&body)) }
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.text("/metrics").await
    }

    /// The alarm templates as a rule file of Prometheus.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn alarm_rules(&self) -> Result<String, ClientError> {
        self.text("/v1/alarm-rules").await
    }

    async fn text(&self, path: &str) -> Result<String, ClientError> {
        let (code, body) = self.ask(Method::GET, path, None).await?;
        if !code.is_success() {
            return Err(refused(&body));
        }
        String::from_utf8(body.to_vec()).map_err(|e| ClientError::Answer(e.to_string()))
    }

    /// What a path of the API answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path).await
    }

    /// Sends `value` as JSON to a path of the API, and returns the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        value: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(value).map_err(|e| ClientError::Place(e.to_string()))?;
        let (code, body) = self.ask(method, path, Some(body.into())).await?;
        if code.is_success() { read(&body) } else { Err(refused(&body)) }
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        let (code, body) = self.ask(method, path, None).await?;
        if code.is_success() { read(&body) } else { Err(refused(&body)) }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let response = self.request(method, path, body).await?;
        let code = response.status();
        Ok((code, response.into_body().collect().await?.to_bytes()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let (request, body) = match self {
            Client::Local(_) => (request.header(header::HOST, "adit"), body),
            Client::Remote(remote) => (remote.headed(request), body),
        };
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|e| ClientError::Place(e.to_string()))?;
        match self {
            Client::Local(socket) => {
                let failed =
                    |source| ClientError::Unreachable { place: socket.display().to_string(), source };
                exchange(UnixStream::connect(socket).await.map_err(failed)?, request).await
            }
            Client::Remote(remote) => exchange(remote.connect().await?, request).await,
        }
    }
}

/// One request and its answer. The connection lives as long as the answer is read.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Where the resources of a kind are.
fn path_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Gateway => "/v1/gateways",
        Kind::Peer => "/v1/peers",
        Kind::Tunnel => "/v1/tunnels",
        Kind::Group => "/v1/groups",
        Kind::Alarm => "/v1/alarms",
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|e| ClientError::Answer(e.to_string()))
}

fn refused(body: &[u8]) -> ClientError {
    read(body).map_or_else(|e| e, |problem| ClientError::Refused(Box::new(problem)))
}

/// A path segment with everything but unreserved characters as `%XX` (RFC 3986 section 2.1).
pub fn encoded(segment: &str) -> String {
    let byte = |b: u8| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    };
    segment.bytes().map(byte).collect()
}
