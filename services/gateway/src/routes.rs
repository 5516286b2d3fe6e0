//! The gateway's addresses: two for native sockets, one for Socket.IO, and the page.
//!
//! Only decides whether a request becomes a socket. The invariant: whatever is refused here costs
//! no task.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use domain::limits::FRAME_BYTES;
use telemetry::cors;
use transport::Link;
use transport::engineio::{Rejection, Route};
use transport::handshake::{Refused, Upgrade, choose_subprotocol};

use crate::codec::Dialect;
use crate::door::admission::{Admitted, Declined};
use crate::door::offered::{Offered, Params};
use crate::shared::Shared;
use crate::{pages, session};

/// All routes of a gateway; pages of `origins` may poll (`*` alone: of any).
pub(crate) fn router(shared: Arc<Shared>, origins: &[String]) -> Router {
    let mut engine = Router::new().route("/socket.io/", any(socketio)).route("/socket.io", any(socketio));
    if let Some(cors) = cors(origins) {
        engine = engine.layer(cors);
    }
    Router::new()
        .route("/ws", get(native))
        .route("/chat", get(native))
        .merge(engine)
        .with_state(shared)
        .merge(pages::router())
}

async fn native(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let begun =
        choose_subprotocol(request.headers(), &Dialect::SUBPROTOCOLS).map_err(Declined::from).and_then(|subprotocol| {
            Ok((begin(&shared, &request)?, Upgrade::begin(&mut request, subprotocol)?, subprotocol))
        });
    let (begun, Upgrade { response, socket }, subprotocol) = match begun {
        Ok(begun) => begun,
        Err(declined) => return declined_by(&shared, &request, declined).into_response(),
    };
    let dialect = Dialect::of_subprotocol(subprotocol);
    let tasks = shared.tasks.clone();
    tasks.detach_light(async move {
        if let Some(socket) = Box::pin(socket.accept(FRAME_BYTES)).await {
            run(shared, socket, dialect, begun).await;
        }
    });
    response
}

async fn socketio(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let route = match shared.engine.route(&request) {
        Ok(route) => route,
        Err(rejection) => {
            // A session that is no more is nobody's fault.
            if rejection != Rejection::UnknownSession {
                shared.admission.failed(peer(&request), request.headers(), shared.clock.monotonic_us());
            }
            return rejection.into_response();
        }
    };
    match route {
        Route::OpenPolling => match begin(&shared, &request) {
            Ok(begun) => {
                let (link, polling) = shared.engine.open_polling();
                shared.tasks.clone().detach_light(run(shared, link, Dialect::SocketIo, begun));
                polling.poll().await
            }
            Err(declined) => engine_declined(declined_by(&shared, &request, declined)),
        },
        Route::OpenSocket => match open_socket(Arc::clone(&shared), &mut request) {
            Ok(response) => response,
            Err(declined) => engine_declined(declined_by(&shared, &request, declined)),
        },
        Route::Poll(polling) => polling.poll().await,
        Route::Post(polling) => polling.post(request.into_body(), FRAME_BYTES).await,
        Route::Upgrade(polling) => beside(&shared, shared.engine.upgrade(polling, &mut request)),
        Route::Stray => beside(&shared, shared.engine.turn_away(&mut request)),
    }
}

fn open_socket(shared: Arc<Shared>, request: &mut Request) -> Result<Response, Declined> {
    let begun = begin(&shared, request)?;
    let Upgrade { response, socket } = Upgrade::begin(request, None)?;
    let tasks = shared.tasks.clone();
    tasks.detach_light(async move {
        if let Some(socket) = Box::pin(socket.accept(FRAME_BYTES)).await {
            let link = shared.engine.open_socket(socket);
            run(shared, link, Dialect::SocketIo, begun).await;
        }
    });
    Ok(response)
}

/// Answers a WebSocket handshake and does what follows from it.
fn beside<F>(shared: &Shared, upgrade: Result<(Response, F), Refused>) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    match upgrade {
        Ok((response, work)) => {
            shared.tasks.detach("upgrade", work);
            response
        }
        Err(refused) => engine_declined(refused.into()),
    }
}

/// Engine.IO's own words for what is no handshake.
fn engine_declined(declined: Declined) -> Response {
    match declined {
        Declined::Handshake(_) | Declined::BadQuery => Rejection::BadRequest.into_response(),
        declined => declined.into_response(),
    }
}

/// A client that may come in.
struct Begun {
    offered: Option<Box<Offered>>,
    admitted: Admitted,
}

fn begin(shared: &Shared, request: &Request) -> Result<Begun, Declined> {
    if shared.is_draining() {
        return Err(Declined::Draining);
    }
    let offered = Offered::read(request.headers(), &Params::read(request.uri())?)?.boxed();
    let now_us = shared.clock.monotonic_us();
    let admitted = shared.admission.admit(peer(request), request.headers(), now_us)?;
    shared.openings.handshake(now_us).map_err(Declined::Busy)?;
    Ok(Begun { offered, admitted })
}

/// What was no handshake counts against its address.
fn declined_by(shared: &Shared, request: &Request, declined: Declined) -> Declined {
    if matches!(declined, Declined::Handshake(_) | Declined::BadQuery) {
        shared.admission.failed(peer(request), request.headers(), shared.clock.monotonic_us());
    }
    declined
}

fn peer(request: &Request) -> SocketAddr {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(unknown, |ConnectInfo(peer)| *peer)
}

/// One connection.
async fn run<L: Link>(shared: Arc<Shared>, link: L, dialect: Dialect, begun: Begun) {
    let Begun { offered, admitted } = begun;
    session::serve(shared, link, dialect, offered, admitted).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_is_small() {
        for bytes in [future_bytes(run::<transport::Socket>), future_bytes(run::<transport::engineio::EngineLink>)] {
            assert!(bytes < 1024, "{bytes}");
        }
    }
}
