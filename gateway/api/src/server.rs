//! The HTTP server.

use crate::{
    Done, Problem,
    data_plane::{self, data_plane_socket},
    metrics,
};
use adit_control::{
    Action, ActionError, Control, PeerFilesError, Rekey, Stopped,
    peer_config::{self, Vendor},
    status::Status,
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path as UrlPath, Query, RawQuery, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use std::{
    convert::Infallible,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

/// Connections over TCP at a time.
const CONNECTIONS: usize = 16;

/// How long a connection over TCP may take in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are kept of a request over TCP; hyper's least.
const REQUEST: usize = 8192;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody listens there already.
    #[error("another Adit listens on {}: stop it, or give this one another api.socket", .0.display())]
    Taken(PathBuf),
    /// The address of the metrics cannot be listened on.
    #[error("cannot listen on {address} for metrics: {source}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Whom requests are about.
#[derive(Clone)]
struct Gateway {
    control: Control,
    /// The data plane's socket.
    data_plane: Arc<Path>,
}

impl Gateway {
    async fn status(&self) -> Result<Status, Stopped> {
        let mut status = self.control.status().await?;
        data_plane::complete(&mut status, &self.data_plane).await;
        Ok(status)
    }
}

/// A running server. It stops when it is dropped, and its socket goes with it.
pub struct Server {
    socket: PathBuf,
    metrics: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on the Unix socket, made with mode 0600, and for metrics on a TCP address. The data plane is asked on
    /// [`data_plane_socket`].
    ///
    /// # Errors
    /// When one of the two cannot be listened on.
    pub async fn start(
        control: Control,
        socket: &Path,
        metrics: Option<SocketAddr>,
    ) -> Result<Server, ServeError> {
        let listener = listen(socket)?;
        let gateway = Gateway { control, data_plane: data_plane_socket(socket).into() };
        let all = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/tunnels/{name}/log", get(log))
            .route("/v1/tunnels/{name}/peer-config", get(peer_config))
            .route("/v1/tunnels/{name}/up", post(up))
            .route("/v1/tunnels/{name}/down", post(down))
            .route("/v1/tunnels/{name}/rekey", post(rekey))
            .route("/v1/reload", post(reload))
            .route("/metrics", get(scrape))
            .fallback(not_found)
            .with_state(gateway.clone());
        let mut server = Server { socket: socket.to_owned(), metrics: None, tasks: Vec::new() };
        server.tasks.push(tokio::spawn(async move {
            if let Err(e) = axum::serve(listener, all).await {
                tracing::error!("the API has stopped: {e}");
            }
        }));
        if let Some(address) = metrics {
            let failed = |source| ServeError::Metrics { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            server.metrics = Some(listener.local_addr().map_err(failed)?);
            let scraped =
                Router::new().route("/metrics", get(scrape)).fallback(not_found).with_state(gateway);
            server.tasks.push(tokio::spawn(serve_strangers(listener, scraped)));
        }
        Ok(server)
    }

    /// Where metrics are served over TCP.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // It may have been removed by somebody else.
        let _ = fs::remove_file(&self.socket);
    }
}

/// Serves whoever comes over TCP: a few at a time, each for a short time, so that nobody can take the process its memory,
/// its descriptors or the attention of `control`.
async fn serve_strangers(listener: TcpListener, app: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Nobody closes the semaphore.
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::debug!("cannot accept a connection for metrics: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(REQUEST)
                .serve_connection(TokioIo::new(stream), service);
            // One that breaks or takes too long is the client's loss.
            let _ = timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

/// Makes the socket under another name and moves it in place once only its owner may open it.
fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Socket { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
    }
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(failed(io::Error::other("there is a file of that name that is not a socket")));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(ServeError::Taken(path.to_owned()));
        }
    }
    let making = path.with_file_name(format!(".{}", std::process::id()));
    // Left over from a process of the same number that ended between the two steps.
    let _ = fs::remove_file(&making);
    let listener = UnixListener::bind(&making).map_err(failed)?;
    fs::set_permissions(&making, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&making, path))
        .inspect_err(|_| drop(fs::remove_file(&making)))
        .map_err(failed)?;
    Ok(listener)
}

async fn status(State(gateway): State<Gateway>) -> Response {
    gateway.status().await.map_or_else(stopped, |status| Json(status).into_response())
}

async fn log(State(Gateway { control, .. }): State<Gateway>, UrlPath(name): UrlPath<String>) -> Response {
    match control.log(&name).await {
        Ok(Some(entries)) => Json(entries).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, format!("there is no tunnel {name:?}")),
        Err(e) => stopped(e),
    }
}

/// What is asked of the other side's configuration.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerConfigQuery {
    #[serde(rename = "for")]
    vendor: String,
    #[serde(default)]
    with_psk: bool,
    address: Option<IpAddr>,
}

async fn peer_config(
    State(Gateway { control, .. }): State<Gateway>,
    UrlPath(name): UrlPath<String>,
    query: Result<Query<PeerConfigQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(e) => return problem(StatusCode::BAD_REQUEST, e.body_text()),
    };
    let vendor = match query.vendor.parse::<Vendor>() {
        Ok(vendor) => vendor,
        Err(e) => return problem(StatusCode::BAD_REQUEST, e.to_string()),
    };
    let request = peer_config::Request { vendor, with_psk: query.with_psk, address: query.address };
    let code = |e: &PeerFilesError| match e {
        PeerFilesError::NoTunnel(_) => StatusCode::NOT_FOUND,
        PeerFilesError::Secret => StatusCode::FORBIDDEN,
        PeerFilesError::Vendor(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    match control.peer_files(&name, request).await {
        Ok(Ok(files)) => Json(files).into_response(),
        Ok(Err(e)) => problem(code(&e), e.to_string()),
        Err(e) => stopped(e),
    }
}

async fn up(State(Gateway { control, .. }): State<Gateway>, UrlPath(name): UrlPath<String>) -> Response {
    act(&control, &name, Action::Up).await
}

async fn down(State(Gateway { control, .. }): State<Gateway>, UrlPath(name): UrlPath<String>) -> Response {
    act(&control, &name, Action::Down).await
}

async fn rekey(
    State(Gateway { control, .. }): State<Gateway>,
    UrlPath(name): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let what = match query.as_deref() {
        None | Some("" | "what=all") => Rekey::All,
        Some("what=ike") => Rekey::Ike,
        Some("what=child") => Rekey::Child,
        Some(other) => {
            let error = format!("{other:?} is not understood; allowed: what=ike, what=child, what=all");
            return problem(StatusCode::BAD_REQUEST, error);
        }
    };
    act(&control, &name, Action::Rekey(what)).await
}

async fn act(control: &Control, name: &str, action: Action) -> Response {
    match control.act(name, action).await {
        Ok(Ok(done)) => Json(Done { done }).into_response(),
        Ok(Err(e @ ActionError::Unknown(_))) => problem(StatusCode::NOT_FOUND, e.to_string()),
        Ok(Err(e @ ActionError::Refused(..))) => problem(StatusCode::CONFLICT, e.to_string()),
        Err(e) => stopped(e),
    }
}

async fn reload(State(Gateway { control, .. }): State<Gateway>) -> Response {
    match control.reload().await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(e)) => problem(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()),
        Err(e) => stopped(e),
    }
}

async fn scrape(State(gateway): State<Gateway>) -> Response {
    let status = match gateway.status().await {
        Ok(status) => status,
        Err(e) => return stopped(e),
    };
    let pages = stream::iter(metrics::Pages::new(status).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], Body::from_stream(pages)).into_response()
}

async fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing at this path".into())
}

fn stopped(e: Stopped) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, e.to_string())
}

fn problem(code: StatusCode, error: String) -> Response {
    (code, Json(Problem { error })).into_response()
}
