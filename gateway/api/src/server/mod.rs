//! The server: its listeners, and the one application behind them.

mod connections;
mod latest;
mod scrape;
mod tls;
mod unix;

pub(crate) use tls::fingerprint;
pub use tls::{Identity, TlsError};

use crate::{
    auth::{Doorkeeper, TokenError, Tokens, admit},
    data_plane::{self, data_plane_socket},
    routes,
};
use adit_control::{
    Control, Stopped,
    status::{ApiStatus, Status},
};
use axum::{Router, middleware, routing::get};
use latest::Latest;
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};

/// How long followers have to take the last events.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The Unix socket, made with mode 0600.
    pub socket: PathBuf,
    /// Where `/metrics` alone is served over TCP to whoever comes.
    pub metrics: Option<SocketAddr>,
    /// Where everything is served over TLS to whoever has a token.
    pub https: Option<(SocketAddr, Identity)>,
    /// The file in which earlier versions kept their tokens: what is in it moves into the store.
    pub tokens_of_old: PathBuf,
}

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
    /// A TCP address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}")]
    Address {
        /// Where.
        address: SocketAddr,
        /// For what.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// There is no certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokenError),
}

/// Whom requests are about.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) control: Control,
    pub(crate) tokens: Arc<Tokens>,
    /// The data plane's socket.
    data_plane: Arc<Path>,
    https: Option<ApiStatus>,
    scraped: Arc<Latest<Status>>,
    /// Told when streams are to end, which listen to it as long as they last.
    pub(crate) closing: Arc<watch::Sender<()>>,
}

impl Gateway {
    pub(crate) async fn status(&self) -> Result<Status, Stopped> {
        let mut status = self.control.status().await?;
        data_plane::complete(&mut status, &self.data_plane).await;
        status.api = self.https.clone();
        Ok(status)
    }

    /// The same, one for all who scrape at the same time.
    pub(crate) async fn scraped(&self) -> Result<Arc<Status>, Stopped> {
        self.scraped.get(|| self.status()).await
    }
}

/// A running server. It stops when it is dropped, and its socket goes with it.
pub struct Server {
    socket: PathBuf,
    metrics: Option<SocketAddr>,
    https: Option<(SocketAddr, String)>,
    tasks: Vec<JoinHandle<()>>,
    closing: Arc<watch::Sender<()>>,
}

impl Server {
    /// Listens wherever it should. The data plane is asked on [`data_plane_socket`].
    ///
    /// # Errors
    /// When one of the addresses cannot be listened on, or there is no certificate for HTTPS.
    pub async fn start(control: Control, listen: &Listen) -> Result<Server, ServeError> {
        let local = unix::listen(&listen.socket)?;
        // From here on the socket goes when it fails.
        let mut server = Server {
            socket: listen.socket.clone(),
            metrics: None,
            https: None,
            tasks: Vec::new(),
            closing: Arc::default(),
        };
        let tokens = Tokens::open(control.store().clone(), &listen.tokens_of_old).await?;
        let tls = match &listen.https {
            Some((address, identity)) => {
                let (tls, fingerprint, is_new) = tls::acceptor(identity)?;
                if is_new {
                    control.gateway_log().info(format!("a certificate for HTTPS is made: {fingerprint}"));
                }
                let (listener, address) = bind(*address, "HTTPS").await?;
                server.https = Some((address, fingerprint));
                Some((listener, tls))
            }
            None => None,
        };
        let https = server.https.clone();
        let log = control.gateway_log().clone();
        let gateway = Gateway {
            control,
            tokens: tokens.clone(),
            data_plane: data_plane_socket(&listen.socket).into(),
            https: https.map(|(address, fingerprint)| ApiStatus { listen: address.to_string(), fingerprint }),
            scraped: Arc::default(),
            closing: server.closing.clone(),
        };
        server.tasks.push(tokio::spawn(data_plane::watch(gateway.data_plane.clone(), log.clone())));
        let door = Doorkeeper::new(tokens, log);
        let app =
            routes::all().layer(middleware::from_fn_with_state(door, admit)).with_state(gateway.clone());
        if let Some((listener, tls)) = tls {
            server.tasks.push(tokio::spawn(connections::serve_remote(listener, tls, app.clone())));
        }
        server.tasks.push(tokio::spawn(connections::serve_local(local, app)));
        if let Some(address) = listen.metrics {
            let (listener, address) = bind(address, "metrics").await?;
            server.metrics = Some(address);
            let scraped = Router::new()
                .route("/metrics", get(routes::scrape))
                .fallback(routes::not_found)
                .with_state(gateway);
            server.tasks.push(tokio::spawn(scrape::serve_strangers(listener, scraped)));
        }
        Ok(server)
    }

    /// Stops, once who follows events has been told those that have happened, or does not take them.
    pub async fn close(self) {
        self.closing.send_replace(());
        // Who does not take them has waited long enough.
        let _ = timeout(LAST_WORDS, self.closing.closed()).await;
    }

    /// Where metrics are served over TCP.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Where HTTPS is served, and the fingerprint (SHA-256) of its certificate.
    pub fn https(&self) -> Option<(SocketAddr, &str)> {
        self.https.as_ref().map(|(address, fingerprint)| (*address, fingerprint.as_str()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // It may have been removed by somebody else.
        let _ = fs::remove_file(&self.socket);
    }
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Address { address, what, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
