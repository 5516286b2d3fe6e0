//! The REST service: accounts, conversations and messages under `/api/v1`, described by itself.
//!
//! Knows HTTP and nothing of sockets; what it changes in rooms goes through the same intake as
//! theirs. The invariant: whatever goes wrong, the answer is a problem document (RFC 9457) with a
//! public code and a request id, and never a detail of the inside.

mod admin;
mod app;
mod body;
mod caller;
mod client_address;
mod context;
mod docs;
mod letter;
mod logins;
mod openapi;
mod page;
mod polls;
mod problem;
mod query;
mod routes;
mod user;

use std::sync::Arc;

use auth::Tokens;
use axum::Router;
use config::Settings;
use engine::Engine;
use intake::Intake;
use runtime::{Shutdown, Tasks};

pub use app::intake;
pub use context::unknown_route;
pub use letter::Letter;
pub use openapi::document;

/// What the service works with.
pub struct ApiParts {
    /// Its settings: limits, origins, proxies, lifetimes.
    pub settings: Arc<Settings>,
    /// The open engine.
    pub engine: Engine,
    /// What issues and verifies access tokens.
    pub tokens: Tokens,
    /// The way in. In one process with a gateway it is the gateway's, so that a user has one rate.
    pub intake: Intake,
    /// What its background tasks run under.
    pub tasks: Tasks,
    /// Requested once the service is about to stop: polls that wait are then answered at once.
    pub stopping: Shutdown,
}

/// All routes: `/api/v1/…`, `/api-docs/openapi.json`, `/api-docs/asyncapi.json` and, outside production, the page
/// `/api-docs`.
///
/// The router has no fallback, so that it can be merged with others; whoever serves it adds
/// [`unknown_route`].
pub fn router(parts: ApiParts) -> Router {
    let with_page = !parts.settings.environment.is_production();
    let app = Arc::new(app::App::new(parts));
    let (rest, openapi) = routes::all().split_for_parts();
    let rest = context::wrap(rest, &app).with_state(app);
    Router::new().nest(openapi::ROOT, rest).merge(context::name(docs::router(openapi, with_page)))
}
