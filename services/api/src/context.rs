//! What surrounds every request: its id, its time limit, its trace, and the last word on its answer.
//!
//! The invariant: no answer with an error status leaves without being a problem document that names
//! the request.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use protocol::Refusal;
use telemetry::{Counter, cors};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::app::App;
use crate::problem::Problem;

/// A request's id, in and out.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// An id from outside is kept up to this length.
const REQUEST_ID_BYTES: usize = 128;
/// A body may have as many bytes as a frame.
pub(crate) const BODY_BYTES: usize = domain::limits::FRAME_BYTES;
/// A request that takes longer is given up.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// The route that waits, and so may take so much longer.
const POLL: &str = "/api/v1/sync";
const POLL_LIMIT: Duration = Duration::from_millis(domain::limits::POLL_WAIT_MS as u64);

/// Puts the context around routes; unknown paths among them are problems too.
pub(crate) fn wrap(routes: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    let routes = routes.fallback(unknown_path).layer(CatchPanicLayer::custom(panicked));
    let routes = match cors(&app.settings.http.cors_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(middleware::from_fn_with_state(Arc::clone(app), context))
}

/// Gives the answers of routes without state or limits of their own what every answer carries.
pub(crate) fn name(routes: Router) -> Router {
    routes.layer(middleware::from_fn(async |request: Request, next: Next| {
        let id = request_id(request.headers());
        finish(next.run(request).await, &id)
    }))
}

/// The answer where no route of any service is: 404 as a problem document.
pub async fn unknown_route(headers: HeaderMap) -> Response {
    finish(unknown_path().await, &request_id(&headers))
}

async fn unknown_path() -> Response {
    Problem::from_status(StatusCode::NOT_FOUND).into_response()
}

async fn context(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let span = tracing::info_span!("request", id, method = %request.method(), route);
    let started_us = app.clock.monotonic_us();
    let limit = if route == POLL { REQUEST_LIMIT + POLL_LIMIT } else { REQUEST_LIMIT };
    let answer = tokio::time::timeout(limit, next.run(request)).instrument(span.clone()).await;
    let response = answer.unwrap_or_else(|_| Problem::from(Refusal::unavailable()).into_response());
    let took_ms = app.clock.monotonic_us().saturating_sub(started_us) / 1000;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), took_ms, "answered"));
    finish(response, &id)
}

/// Renders problems with the request's id and adds what every answer carries.
fn finish(mut response: Response, id: &str) -> Response {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let problem = response.extensions_mut().remove::<Problem>().unwrap_or_else(|| Problem::from_status(status));
        Counter::RequestsRefused.inc_with(problem.code().as_str());
        let (mut parts, _) = response.into_parts();
        let (rendered, body) = problem.render(Some(id)).into_parts();
        // Headers that layers added stay (CORS, Allow); those of the old body go.
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.extend(rendered.headers);
        response = Response::from_parts(parts, body);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The client's own id if it is a plain one, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'='))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// A panic in a route is our fault and nobody else's business.
#[allow(clippy::needless_pass_by_value, reason = "the layer hands the panic over")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = words.unwrap_or("?"), "a route panicked");
    Problem::from(Refusal::internal()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    fn id_for(given: &'static str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static(given));
        request_id(&headers)
    }

    #[test]
    fn plain_ids_are_kept_and_others_replaced() {
        assert_eq!(id_for("req-1:a.b_c"), "req-1:a.b_c");
        for bad in ["", "two words", "<script>", "\"quoted\""] {
            assert!(Uuid::try_parse(&id_for(bad)).is_ok(), "{bad:?}");
        }
        assert!(Uuid::try_parse(&request_id(&HeaderMap::new())).is_ok());
    }

    #[tokio::test]
    async fn a_panic_is_answered_without_detail() {
        async fn broken() {
            panic!("the password is hunter2");
        }
        let router: Router = Router::new().route("/", get(broken)).layer(CatchPanicLayer::custom(panicked));
        let request = Request::builder().uri("/").body(Body::empty()).expect("a request");
        let response = finish(router.oneshot(request).await.expect("answered"), "r1");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), BODY_BYTES).await.expect("a body");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("INTERNAL") && text.contains("r1") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn an_answer_without_words_becomes_a_problem_and_keeps_its_headers() {
        let bare = (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")]).into_response();
        let finished = finish(bare, "r1");
        assert_eq!(finished.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(finished.headers()[header::ALLOW], "GET");
        assert_eq!(finished.headers()[header::CONTENT_TYPE], crate::problem::MEDIA_TYPE);
        assert_eq!(finished.headers()[REQUEST_ID], "r1");
    }
}
