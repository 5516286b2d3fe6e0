//! The descriptions for machines (`/api-docs/openapi.json`, of the sockets `/api-docs/asyncapi.json`) and the page for
//! people (`/api-docs`).

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use crate::openapi;
use crate::problem::Problem;

const DOCUMENT_PATH: &str = "/api-docs/openapi.json";

/// Where the sockets are described; the page links to it.
const SOCKETS_PATH: &str = "/api-docs/asyncapi.json";

/// The page runs its own scripts and calls the own server, nothing else.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                           frame-ancestors 'none'; base-uri 'self'";

/// Routes for the documents and, if wanted, the page.
pub(crate) fn router(document: OpenApi, with_page: bool) -> Router {
    let json = Bytes::from(openapi::complete(document).to_json().expect("a document made of plain data is JSON"));
    let sockets = Bytes::from(protocol::asyncapi::text());
    let router = Router::new().route(DOCUMENT_PATH, serve(json)).route(SOCKETS_PATH, serve(sockets));
    if !with_page {
        return router;
    }
    let config = Arc::new(Config::from(DOCUMENT_PATH));
    let root = {
        let config = Arc::clone(&config);
        move || async move { file("index.html", config) }
    };
    router
        .route("/api-docs", get(root.clone()))
        .route("/api-docs/", get(root))
        .route("/api-docs/{*file}", get(move |Path(name): Path<String>| async move { file(&name, config) }))
}

/// Answers with a document.
fn serve(json: Bytes) -> MethodRouter {
    get(move || async move { ([(header::CONTENT_TYPE, "application/json")], json) })
}

fn file(name: &str, config: Arc<Config<'static>>) -> Response {
    let found = match utoipa_swagger_ui::serve(name, config) {
        Ok(Some(found)) if !found.gzpipped => found,
        Ok(_) => return Problem::from_status(StatusCode::NOT_FOUND).into_response(),
        Err(error) => {
            tracing::error!(%error, "a file of the API page cannot be served");
            return Problem::from_status(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        }
    };
    let mut bytes = found.bytes.into_owned();
    if name == "index.html" {
        // Its links are relative to a folder; the page is served without a slash at the end, too.
        let page = String::from_utf8_lossy(&bytes).replacen("<head>", "<head>\n    <base href=\"/api-docs/\">", 1);
        bytes = page.into_bytes();
    }
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    let kind =
        HeaderValue::from_str(&found.content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    response
}
