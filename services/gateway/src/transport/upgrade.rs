//! From an HTTP request to a socket: the WebSocket handshake (RFC 6455 section 4.2) over hyper.
//!
//! Knows no session. The invariant: a request that is refused never becomes a socket, and one that
//! is accepted is answered before anything else is done with it.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::WebSocket;

/// The subprotocol spoken at `/ws`.
pub(crate) const SUBPROTOCOL: &str = "chatchit.v1.json";

/// A request that will become a socket once its response was sent.
pub(crate) struct Upgrade {
    pub(crate) response: Response,
    pub(crate) socket: Pending,
}

/// A socket to be.
pub(crate) struct Pending(OnUpgrade);

/// A socket over whatever the HTTP server read from.
pub(crate) enum Accepted {
    /// As it nearly always is.
    Plain(WebSocket<TcpStream>),
    /// Over a server that wraps its sockets.
    Wrapped(WebSocket<TokioIo<Upgraded>>),
}

/// Why a request did not become a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not a WebSocket handshake at all.
    NotAnUpgrade,
    /// One of another version of the protocol.
    OtherVersion,
    /// A malformed one.
    BadHandshake,
    /// None of the subprotocols offered is spoken here.
    UnknownSubprotocol,
    /// A query that cannot be read, or a device name that is none.
    BadQuery,
    /// Too many connections of that address.
    TooMany,
    /// The service is about to stop.
    Draining,
}

impl Refused {
    /// The answer to the request.
    pub(crate) fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::NotAnUpgrade => (StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket only"),
            Self::OtherVersion => (StatusCode::UPGRADE_REQUIRED, "this address speaks version 13 of WebSocket"),
            Self::BadHandshake => (StatusCode::BAD_REQUEST, "not a valid WebSocket handshake"),
            Self::UnknownSubprotocol => (StatusCode::BAD_REQUEST, "none of these subprotocols is spoken here"),
            Self::BadQuery => (StatusCode::BAD_REQUEST, "the query holds a malformed parameter"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "the service is about to stop"),
        };
        let mut response = (status, words).into_response();
        let headers = response.headers_mut();
        match self {
            Self::NotAnUpgrade => drop(headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"))),
            Self::OtherVersion => {
                drop(headers.insert(header::UPGRADE, HeaderValue::from_static("websocket")));
                drop(headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
            }
            Self::TooMany | Self::Draining => drop(headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => {}
        }
        response
    }
}

impl Upgrade {
    /// Checks the handshake; `subprotocol` goes into the answer.
    pub(crate) fn begin(request: &mut Request, subprotocol: Option<&'static str>) -> Result<Self, Refused> {
        if !request.headers().contains_key(header::UPGRADE) {
            return Err(Refused::NotAnUpgrade);
        }
        let version = request.headers().get(header::SEC_WEBSOCKET_VERSION);
        if version.is_some_and(|version| version != "13") {
            return Err(Refused::OtherVersion);
        }
        let mut response = create_response_with_body(request, Body::empty).map_err(|_| Refused::BadHandshake)?;
        if let Some(name) = subprotocol {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        Ok(Self { response, socket: Pending(hyper::upgrade::on(request)) })
    }
}

impl Pending {
    /// The socket, once the response was sent; `None` if the client went away before.
    pub(crate) async fn accept(self) -> Option<Accepted> {
        let upgraded = self.0.await.ok()?;
        Some(match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => Accepted::Plain(WebSocket::new(parts.io.into_inner(), parts.read_buf).await),
            Err(upgraded) => Accepted::Wrapped(WebSocket::new(TokioIo::new(upgraded), Bytes::new()).await),
        })
    }
}

/// Chooses the subprotocol at `/ws`: ours if it is offered, none if none is.
pub(crate) fn choose_subprotocol(headers: &HeaderMap) -> Result<Option<&'static str>, Refused> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut names = offers.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if headers.get(header::SEC_WEBSOCKET_PROTOCOL).is_none() {
        return Ok(None);
    }
    if names.any(|name| name.trim() == SUBPROTOCOL) { Ok(Some(SUBPROTOCOL)) } else { Err(Refused::UnknownSubprotocol) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: &[&'static str]) -> HeaderMap {
        let values = names.iter().map(|name| (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name)));
        values.collect()
    }

    #[test]
    fn ours_or_none_is_spoken_and_nothing_else() {
        assert_eq!(choose_subprotocol(&offered(&[])), Ok(None));
        assert_eq!(choose_subprotocol(&offered(&["chatchit.v1.json"])), Ok(Some(SUBPROTOCOL)));
        assert_eq!(choose_subprotocol(&offered(&["x, chatchit.v1.json"])), Ok(Some(SUBPROTOCOL)));
        assert_eq!(choose_subprotocol(&offered(&["x"])), Err(Refused::UnknownSubprotocol));
        assert_eq!(choose_subprotocol(&offered(&["chatchit.v1.protobuf"])), Err(Refused::UnknownSubprotocol));
    }
}
