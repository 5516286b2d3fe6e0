//! A server that does just what the protocol authors' official test suites ask for.
//!
//! ```text
//! MODE=engine PORT=3000 cargo run --example socketio_conformance    Engine.IO v4: an echo at /engine.io/
//! PORT=3000 cargo run --example socketio_conformance                Socket.IO v5: / and /custom at /socket.io/
//! ```
//!
//! Ping interval 300 ms, time-out 200 ms, connect time-out 1 s, `maxPayload` 1,000,000, CORS `*`. The
//! suites lie in socketio/socket.io under `docs/engine.io-protocol/v4-test-suite` and
//! `docs/socket.io-protocol/v5-test-suite`.

mod client;
mod echo;
mod namespaces;

use std::io::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use runtime::{Shutdown, Tasks};
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;
use transport::Link as _;
use transport::engineio::{Config, EngineLink, Route, Server};
use transport::handshake::Upgrade;

const PING_INTERVAL_MS: u64 = 300;
const PING_TIMEOUT_MS: u64 = 200;
const MAX_PAYLOAD: usize = 1_000_000;

/// What is spoken.
#[derive(Clone, Copy)]
enum Mode {
    Engine,
    SocketIo,
}

struct App {
    server: Server,
    tasks: Tasks,
    mode: Mode,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let port: u16 = std::env::var("PORT").ok().map_or(Ok(3000), |port| port.parse())?;
    let (mode, path) = match std::env::var("MODE").as_deref() {
        Ok("engine") => (Mode::Engine, "/engine.io/"),
        _ => (Mode::SocketIo, "/socket.io/"),
    };
    let shutdown = Shutdown::new();
    let tasks = Tasks::new(shutdown.clone());
    let config = Config {
        ping_interval_ms: PING_INTERVAL_MS,
        ping_timeout_ms: PING_TIMEOUT_MS,
        max_payload: MAX_PAYLOAD,
        tag: "example".to_owned(),
    };
    let app = Arc::new(App { server: Server::new(config), tasks: tasks.clone(), mode });
    let router = Router::new().route(path, any(answer)).with_state(app).layer(CorsLayer::permissive());
    // Both families: `localhost` is either.
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let bound = listener.local_addr()?;
    telemetry::http::serve(listener, router.clone(), &tasks);
    match TcpListener::bind(("::1", bound.port())).await {
        Ok(listener) => telemetry::http::serve(listener, router, &tasks),
        Err(error) => tracing::info!(%error, "not listening on ::1"),
    }
    writeln!(std::io::stdout(), "http://{bound}")?;
    let signals = shutdown.clone();
    tasks.detach("signals", async move { drop(signals.on_signals().await) });
    shutdown.requested().await;
    Ok(())
}

async fn answer(State(app): State<Arc<App>>, mut request: Request) -> Response {
    let route = match app.server.route(&request) {
        Ok(route) => route,
        Err(rejection) => return rejection.into_response(),
    };
    match route {
        Route::OpenPolling => {
            let (link, polling) = app.server.open_polling();
            app.tasks.detach("client", serve(link, app.mode));
            polling.poll().await
        }
        Route::OpenSocket => match Upgrade::begin(&mut request, None) {
            Ok(Upgrade { response, socket }) => {
                let (server, mode) = (app.server.clone(), app.mode);
                app.tasks.detach("client", async move {
                    if let Some(socket) = socket.accept(MAX_PAYLOAD).await {
                        serve(server.open_socket(socket), mode).await;
                    }
                });
                response
            }
            Err(refused) => refused.into_response(),
        },
        Route::Poll(polling) => polling.poll().await,
        Route::Post(polling) => polling.post(request.into_body(), MAX_PAYLOAD).await,
        Route::Upgrade(polling) => beside(&app, app.server.upgrade(polling, &mut request)),
        Route::Stray => beside(&app, app.server.turn_away(&mut request)),
    }
}

fn beside<F>(app: &App, upgrade: Result<(Response, F), transport::handshake::Refused>) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    match upgrade {
        Ok((response, work)) => {
            app.tasks.detach("upgrade", work);
            response
        }
        Err(refused) => refused.into_response(),
    }
}

async fn serve(link: EngineLink, mode: Mode) {
    let mut client = client::Client::new(link);
    let code = match mode {
        Mode::Engine => echo::run(&mut client).await,
        Mode::SocketIo => namespaces::run(&mut client).await,
    };
    client.link.close(code).await;
}
