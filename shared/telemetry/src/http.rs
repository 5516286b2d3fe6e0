//! The HTTP server that all services share: bounded, timed, and it lets go of upgraded sockets.
//!
//! Knows no route. The invariant: a connection either makes progress or is closed, and a panic in
//! a handler is an answer `500` that tells nothing.

use std::any::Any;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::{Shutdown, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{Counter, Histogram, unread};

/// Connections that speak HTTP at one time; a socket that was upgraded no longer counts.
const CONNECTIONS: usize = 16_384;
/// From the start of a connection or the end of an answer to the end of the next request's headers.
const HEADER_READ_LIMIT: Duration = Duration::from_secs(10);
/// A request's line and headers together.
const HEADER_BYTES: usize = 64 * 1024;
/// How long a request may still run after the stop.
pub const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// What a peer does not take from us in this time ends its connection, upgraded or not.
const UNREAD_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait when no connection can be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `tasks` are told to end; then open requests are finished.
/// Handlers get the peer's address as `ConnectInfo<SocketAddr>`.
pub fn serve(listener: TcpListener, router: Router, tasks: &Tasks) {
    let router = router
        .layer(middleware::from_fn(measure))
        .layer(CatchPanicLayer::custom(answer_panic as fn(Box<dyn Any + Send>) -> Response));
    tasks.own("http", accept_until(listener, router, tasks.shutdown().clone(), tasks.clone()));
}

async fn accept_until(listener: TcpListener, router: Router, shutdown: Shutdown, tasks: Tasks) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = shutdown.requested() => return,
        };
        if let Some((stream, peer, permit)) = accepted {
            tasks.detach("http connection", connection(stream, peer, permit, router.clone(), shutdown.clone()));
        }
    }
}

/// The next connection; `None` after a failure, which has then been waited out.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
    router: Router,
    shutdown: Shutdown,
) {
    if prepare(&stream).is_err() {
        return; // The peer has gone already.
    }
    let service = hyper::service::service_fn(move |request| respond(router.clone(), peer, request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_LIMIT)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    // How a connection ends is the peer's affair: errors here are broken pipes and time-outs.
    let ended = tokio::select! {
        _ = serving.as_mut() => true,
        () = shutdown.requested() => false,
    };
    if !ended {
        serving.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_ANSWER_LIMIT, serving).await;
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    // Neither HTTP nor WebSocket notices by itself that nobody reads.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_LIMIT))?;
    Ok(())
}

async fn respond(router: Router, peer: SocketAddr, request: Request<Incoming>) -> Result<Response, Infallible> {
    let (mut request, unread) = unread::watch(request);
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = router.oneshot(request).await;
    unread.discard().await;
    response
}

async fn measure(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let response = next.run(request).await;
    Counter::HttpRequests.inc_with(status_class(response.status()));
    if let Some(route) = route {
        Histogram::HttpSeconds.record_for(route.as_str().to_owned(), started.elapsed().as_secs_f64());
    }
    response
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

fn answer_panic(_: Box<dyn Any + Send>) -> Response {
    let body = r#"{"type":"about:blank","title":"Internal Server Error","status":500,"code":"INTERNAL"}"#;
    (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}
