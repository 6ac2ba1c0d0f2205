//! [`serve`]: connections in, over TCP or a Unix socket, each with limits on time, and an orderly end. What the requests
//! mean is the router's.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;

use crate::api::common::body::Loopback;
use crate::generate::hub::Hub;
use crate::http::timed::Timed;
#[cfg(unix)]
use crate::http::unix_socket::UnixSocket;

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a connection's start, or the last answer, to the end of the next request's headers.
    pub headers: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub write: Duration,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// What running requests get to finish when the server is told to end.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(30),
            write: Duration::from_secs(60),
            connections: 1024,
            grace: Duration::from_secs(10),
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// A network address.
    Tcp(TcpListener),
    /// A socket in the file system.
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// A connection, and whether its client is on this machine.
type Accepted = (Box<dyn Duplex>, bool);

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// How long streams get to send their last record once they were told to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves until `end` is ready; then accepts no more, lets what runs finish within the grace, and tells the rest.
pub async fn serve(listener: Listener, app: Router, hub: Hub, limits: Limits, end: impl Future<Output = ()> + Send) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let (closing, closed) = watch::channel(false);
    let mut end = std::pin::pin!(end);
    loop {
        let ((stream, near), place) = tokio::select! {
            () = &mut end => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (app, closed) = (app.clone(), closed.clone());
        tokio::spawn(async move {
            connection(stream, near, app, limits, closed).await;
            drop(place);
        });
    }
    drop(listener);
    // Connections finish the answer they are at and take no other request.
    closing.send_replace(true);
    hub.shut_down(limits.grace).await;
    let all = places.acquire_many(u32::try_from(limits.connections).unwrap_or(u32::MAX));
    let _ = tokio::time::timeout(LAST_WORDS, all).await;
}

async fn accept(listener: &Listener, places: &Arc<Semaphore>) -> (Accepted, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed; if it were, waiting would be all that is left.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { std::future::pending().await };
        match accept_any(listener).await {
            Ok(accepted) => return (accepted, place),
            Err(error) => {
                // Out of file descriptors, or a client gone already: the next may work.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn accept_any(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            // Tokens are small and each is to go out at once.
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream), peer.ip().to_canonical().is_loopback()))
        }
        #[cfg(unix)]
        Listener::Unix(socket) => Ok((Box::new(socket.accept().await?), true)),
    }
}

async fn connection(
    stream: Box<dyn Duplex>,
    near: bool,
    app: Router,
    limits: Limits,
    mut closed: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let app = app.clone();
        async move {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(Loopback(near));
            let response: Result<_, Infallible> = app.oneshot(request).await;
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .serve_connection(TokioIo::new(Timed::new(stream, limits.write)), service);
    let mut connection = std::pin::pin!(connection);
    let told = async move {
        // Where the sender is gone, so is the server.
        let _ = closed.wait_for(|closed| *closed).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
