//! `/metrics` over TCP, for whoever comes.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

/// Connections at a time.
const CONNECTIONS: usize = 16;

/// How long a connection may take in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are kept of a request; hyper's least.
const REQUEST: usize = 8192;

/// Serves whoever comes over TCP: a few at a time, each for a short time, so that nobody can take the process its memory,
/// its descriptors or the attention of `control`.
pub(super) async fn serve_strangers(listener: TcpListener, app: Router) {
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
