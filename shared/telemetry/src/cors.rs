//! Which pages elsewhere may call the API and poll by Socket.IO (Fetch standard, CORS protocol).

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember the answer to a preflight.
const REMEMBERED: Duration = Duration::from_mins(10);

/// The layer for `origins`: `*` alone is any; none means the own pages only and needs no layer.
/// Tokens travel in a header of their own, so credentials in the browser's sense are never allowed.
pub fn cors(origins: &[String]) -> Option<CorsLayer> {
    let allowed = match origins {
        [] => return None,
        [any] if any == "*" => AllowOrigin::any(),
        named => AllowOrigin::list(named.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let asked = ["idempotency-key", "x-request-id", "traceparent"].map(HeaderName::from_static);
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE].into_iter().chain(asked).collect::<Vec<_>>())
        .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER])
        .max_age(REMEMBERED);
    Some(layer)
}
