//! What a request wants of an Engine.IO server, and how it is told that it cannot have it.
//!
//! Decides nothing about users. The invariant: the order of the checks is that of the protocol's own
//! server, so that clients are told the same.

use std::sync::Arc;

use axum::extract::{Query, Request};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};

use super::polling::Polling;

/// What a request wants.
pub enum Route {
    /// A new session over long-polling.
    OpenPolling,
    /// A new session over WebSocket.
    OpenSocket,
    /// What waits for a session's client.
    Poll(Arc<Polling>),
    /// What a session's client says.
    Post(Arc<Polling>),
    /// To go on with a session over WebSocket.
    Upgrade(Arc<Polling>),
    /// A WebSocket for a session that has one: it is accepted and closed.
    Stray,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Neither polling nor websocket.
    UnknownTransport,
    /// There is no such session here.
    UnknownSession,
    /// A session is not opened in this way.
    BadMethod,
    /// The request does not fit its session, or is malformed.
    BadRequest,
    /// Another version of the protocol than 4.
    UnsupportedVersion,
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let (code, message) = match self {
            Self::UnknownTransport => (0, "Transport unknown"),
            Self::UnknownSession => (1, "Session ID unknown"),
            Self::BadMethod => (2, "Bad handshake method"),
            Self::BadRequest => (3, "Bad request"),
            Self::UnsupportedVersion => (5, "Unsupported protocol version"),
        };
        let body = format!(r#"{{"code":{code},"message":"{message}"}}"#);
        (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

/// What is registered under a session's id.
#[derive(Clone)]
pub(crate) enum Entry {
    /// A session over WebSocket.
    Socket,
    /// One over long-polling.
    Polling(Arc<Polling>),
}

#[derive(Debug, Default, serde::Deserialize)]
struct Parameters {
    #[serde(rename = "EIO")]
    version: Option<String>,
    transport: Option<String>,
    sid: Option<String>,
}

/// Finds out what a request wants; `find` looks up a session.
pub(crate) fn route(request: &Request, find: impl Fn(&str) -> Option<Entry>) -> Result<Route, Rejection> {
    let Query(parameters) = Query::<Parameters>::try_from_uri(request.uri()).map_err(|_| Rejection::BadRequest)?;
    let is_upgrade = request.headers().contains_key(header::UPGRADE);
    let is_polling = match parameters.transport.as_deref() {
        Some("polling") => true,
        Some("websocket") => false,
        _ => return Err(Rejection::UnknownTransport),
    };
    if is_polling && is_upgrade {
        return Err(Rejection::BadRequest);
    }
    let is_current = parameters.version.as_deref() == Some("4");
    match parameters.sid {
        None if request.method() != Method::GET => Err(Rejection::BadMethod),
        None if !is_polling && !is_upgrade => Err(Rejection::BadRequest),
        _ if !is_current => Err(Rejection::UnsupportedVersion),
        None if is_polling => Ok(Route::OpenPolling),
        None => Ok(Route::OpenSocket),
        Some(sid) => match find(&sid).ok_or(Rejection::UnknownSession)? {
            Entry::Polling(polling) if is_polling => match *request.method() {
                Method::GET => Ok(Route::Poll(polling)),
                Method::POST => Ok(Route::Post(polling)),
                _ => Err(Rejection::BadMethod),
            },
            Entry::Polling(polling) if is_upgrade => Ok(Route::Upgrade(polling)),
            Entry::Socket if is_upgrade => Ok(Route::Stray),
            Entry::Polling(_) | Entry::Socket => Err(Rejection::BadRequest),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use rstest::rstest;

    fn asked(method: &str, query: &str, is_upgrade: bool) -> Result<Route, Rejection> {
        let mut request = Request::builder().method(method).uri(format!("/socket.io/?{query}"));
        if is_upgrade {
            request = request.header(header::UPGRADE, "websocket");
        }
        let find = |sid: &str| (sid == "known").then_some(Entry::Socket);
        route(&request.body(Body::empty()).expect("a request"), find)
    }

    #[rstest]
    #[case("GET", "EIO=4", false, Rejection::UnknownTransport)]
    #[case("GET", "EIO=4&transport=abc", false, Rejection::UnknownTransport)]
    #[case("GET", "EIO=4&transport=polling&sid=x", false, Rejection::UnknownSession)]
    #[case("POST", "EIO=4&transport=polling", false, Rejection::BadMethod)]
    #[case("PUT", "EIO=4&transport=polling", false, Rejection::BadMethod)]
    #[case("GET", "EIO=4&transport=websocket", false, Rejection::BadRequest)]
    #[case("GET", "EIO=4&transport=polling", true, Rejection::BadRequest)]
    #[case("GET", "EIO=4&transport=polling&sid=known", false, Rejection::BadRequest)]
    #[case("GET", "EIO=4&transport=polling&transport=polling", false, Rejection::BadRequest)]
    #[case("GET", "transport=polling", false, Rejection::UnsupportedVersion)]
    #[case("GET", "EIO=3&transport=polling", false, Rejection::UnsupportedVersion)]
    fn what_cannot_be_had_is_refused_with_its_code(
        #[case] method: &str,
        #[case] query: &str,
        #[case] is_upgrade: bool,
        #[case] expected: Rejection,
    ) {
        assert_eq!(asked(method, query, is_upgrade).err(), Some(expected));
    }

    #[test]
    fn sessions_are_opened_and_strays_recognised() {
        assert!(matches!(asked("GET", "EIO=4&transport=polling", false), Ok(Route::OpenPolling)));
        assert!(matches!(asked("GET", "EIO=4&transport=websocket", true), Ok(Route::OpenSocket)));
        assert!(matches!(asked("GET", "EIO=4&transport=websocket&sid=known", true), Ok(Route::Stray)));
    }
}
