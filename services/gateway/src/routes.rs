//! The gateway's addresses: two for native sockets, one for Socket.IO, and the page.
//!
//! Only decides whether a request becomes a socket. The invariant: whatever is refused here costs
//! no task.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, header};

use crate::admission::Admitted;
use crate::codec::Dialect;
use crate::shared::Shared;
use crate::transport::{Accepted, Offered, Params, Pending, Refused, Upgrade, choose_subprotocol};
use crate::{pages, session};

/// All routes of a gateway.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/ws", get(native))
        .route("/chat", get(native))
        .route("/socket.io/", get(socketio))
        .route("/socket.io", get(socketio))
        .with_state(shared)
        .merge(pages::router())
}

async fn native(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let begun = Params::read(request.uri()).and_then(|params| {
        let subprotocol = choose_subprotocol(request.headers())?;
        begin(&shared, &mut request, &params, subprotocol)
    });
    match begun {
        Ok(begun) => serve(shared, begun, Dialect::Native),
        Err(refused) => refused.into_response(),
    }
}

async fn socketio(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let Ok(params) = Params::read(request.uri()) else { return engine_refusal(3, "Bad request") };
    if params.engine.as_deref() != Some("4") {
        return engine_refusal(5, "Unsupported protocol version");
    }
    if params.sid.is_some() {
        return engine_refusal(1, "Session ID unknown");
    }
    if params.transport.as_deref() != Some("websocket") {
        return engine_refusal(0, "Transport unknown");
    }
    match begin(&shared, &mut request, &params, None) {
        Ok(begun) => serve(shared, begun, Dialect::SocketIo),
        Err(Refused::NotAnUpgrade | Refused::BadHandshake | Refused::BadQuery) => engine_refusal(3, "Bad request"),
        Err(refused) => refused.into_response(),
    }
}

/// Engine.IO's own way to refuse a handshake.
fn engine_refusal(code: u8, message: &str) -> Response {
    let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

struct Begun {
    upgrade: Upgrade,
    offered: Offered,
    admitted: Admitted,
}

fn begin(
    shared: &Shared,
    request: &mut Request,
    params: &Params,
    subprotocol: Option<&'static str>,
) -> Result<Begun, Refused> {
    if shared.is_draining() {
        return Err(Refused::Draining);
    }
    let offered = Offered::read(request.headers(), params)?;
    let upgrade = Upgrade::begin(request, subprotocol)?;
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(unknown, |ConnectInfo(peer)| *peer);
    let admitted = shared.admission.admit(peer, request.headers(), shared.clock.monotonic_us())?;
    Ok(Begun { upgrade, offered, admitted })
}

fn serve(shared: Arc<Shared>, begun: Begun, dialect: Dialect) -> Response {
    let Begun { upgrade: Upgrade { response, socket }, offered, admitted } = begun;
    let tasks = shared.tasks.clone();
    tasks.detach_light(run(shared, socket, dialect, offered, admitted));
    response
}

/// One connection. Boxed for the rare kind of socket, so that the usual kind stays small.
async fn run(shared: Arc<Shared>, socket: Pending, dialect: Dialect, offered: Offered, admitted: Admitted) {
    match Box::pin(socket.accept()).await {
        Some(Accepted::Plain(socket)) => session::serve(shared, socket, dialect, offered, admitted).await,
        Some(Accepted::Wrapped(socket)) => {
            Box::pin(session::serve(shared, socket, dialect, offered, admitted)).await;
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_is_small() {
        let bytes = future_bytes(run);
        assert!(bytes < 1024, "{bytes}");
    }
}
