//! Connections: how many at a time, and how long one may keep others waiting.

use crate::auth::{Peer, network};
use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Connections to the Unix socket at a time.
const LOCAL: usize = 256;
/// Connections from other machines at a time.
const REMOTE: usize = 128;
/// Of these, from one IPv4 address, or one /64 of IPv6.
const REMOTE_EACH: usize = 32;
/// How long the header of a request may take, and how long a connection may be idle.
const HEADER: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a reader may take nothing of an answer.
const STALL: Duration = Duration::from_secs(30);
/// Octets of a request's header.
const REQUEST: usize = 16 << 10;

/// Serves the Unix socket.
pub(super) async fn serve_local(listener: UnixListener, app: Router) {
    let places = Arc::new(Semaphore::new(LOCAL));
    // Nobody closes the semaphore.
    while let Ok(place) = places.clone().acquire_owned().await {
        let accepted =
            listener.accept().await.and_then(|(stream, _)| Ok((super::unix::peer(&stream)?, stream)));
        match accepted {
            Ok((peer, stream)) => drop(tokio::spawn(converse(stream, peer, app.clone(), place))),
            Err(e) => pause(&e).await,
        }
    }
}

/// Serves other machines over TLS.
pub(super) async fn serve_remote(listener: TcpListener, tls: TlsAcceptor, app: Router) {
    let places = Arc::new(Semaphore::new(REMOTE));
    let sources = Arc::new(Sources::default());
    // Nobody closes the semaphore.
    while let Ok(place) = places.clone().acquire_owned().await {
        let (stream, source) = match listener.accept().await {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            Err(e) => {
                pause(&e).await;
                continue;
            }
        };
        let Some(entry) = sources.enter(source) else { continue };
        let (tls, app) = (tls.clone(), app.clone());
        tokio::spawn(async move {
            let _entry = entry;
            match timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, Peer::Remote(source), app, place).await,
                Ok(Err(e)) => tracing::debug!("no TLS with {source}: {e}"),
                Err(_) => tracing::debug!("no TLS with {source} in time"),
            }
        });
    }
}

async fn pause(e: &io::Error) {
    tracing::debug!("cannot accept a connection to the API: {e}");
    sleep(Duration::from_millis(100)).await;
}

/// Answers the requests of one connection.
async fn converse<S>(stream: S, peer: Peer, app: Router, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        app.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(REQUEST)
        .serve_connection(TokioIo::new(Unstalled::new(stream)), service);
    // One that breaks is the client's loss.
    if let Err(e) = connection.await {
        tracing::debug!("a connection to the API broke: {e}");
    }
    drop(place);
}

/// How many connections each source has.
#[derive(Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

impl Sources {
    fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Entry> {
        let source = network(source);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        (*count < REMOTE_EACH).then(|| {
            *count += 1;
            Entry { sources: self.clone(), source }
        })
    }
}

/// A connection of a source, until it is dropped.
struct Entry {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// A stream that breaks when its reader takes nothing for [`STALL`].
struct Unstalled<S> {
    stream: S,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Unstalled<S> {
    fn new(stream: S) -> Self {
        Unstalled { stream, deadline: None }
    }

    /// What comes of a write that came to `result`: an error when none has come to anything for too long.
    fn watched<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.deadline = None;
            return result;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        c: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(c, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, c: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(c, from);
        self.watched(c, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, c: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(c);
        self.watched(c, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, c: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(c);
        self.watched(c, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_let_go() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let started = tokio::time::Instant::now();
        let mut stream = Unstalled::new(ours);
        let e = stream.write_all(&[0; 17]).await.unwrap_err();
        assert_eq!((e.kind(), started.elapsed() >= STALL), (io::ErrorKind::TimedOut, true));
    }

    #[test]
    fn one_address_does_not_take_every_place() {
        let sources = Arc::new(Sources::default());
        let [a, b] = [1, 2].map(|i| IpAddr::from([192, 0, 2, i]));
        let mut held: Vec<_> = std::iter::from_fn(|| sources.enter(a)).collect();
        assert_eq!(held.len(), REMOTE_EACH);
        assert!(sources.enter(b).is_some());
        let [c, d, e] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        let of_a_site: Vec<_> = std::iter::from_fn(|| sources.enter(c)).collect();
        assert!(of_a_site.len() == REMOTE_EACH && sources.enter(d).is_none() && sources.enter(e).is_some());
        drop(of_a_site);
        held.pop();
        assert!(sources.enter(a).is_some());
        drop(held);
        assert!(sources.0.lock().unwrap().is_empty());
    }
}
