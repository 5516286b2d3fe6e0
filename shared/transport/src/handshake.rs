//! From an HTTP request to a socket: the WebSocket handshake (RFC 6455 section 4.2) over hyper.
//!
//! Knows no session. The invariant: a request that is refused never becomes a socket, and one that
//! is accepted is answered before anything else is done with it.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::{Socket, WebSocket};

/// A request that will become a socket once its response was sent.
pub struct Upgrade {
    /// What the request is answered with.
    pub response: Response,
    /// The socket, once that was sent.
    pub socket: Pending,
}

/// A socket to be.
pub struct Pending(OnUpgrade);

/// Why a request did not become a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not a WebSocket handshake at all.
    NotAnUpgrade,
    /// One of another version of the protocol.
    OtherVersion,
    /// A malformed one.
    BadHandshake,
    /// None of the subprotocols offered is spoken here.
    UnknownSubprotocol,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::NotAnUpgrade => (StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket only"),
            Self::OtherVersion => (StatusCode::UPGRADE_REQUIRED, "this address speaks version 13 of WebSocket"),
            Self::BadHandshake => (StatusCode::BAD_REQUEST, "not a valid WebSocket handshake"),
            Self::UnknownSubprotocol => (StatusCode::BAD_REQUEST, "none of these subprotocols is spoken here"),
        };
        let mut response = (status, words).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        if self == Self::OtherVersion {
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

impl Upgrade {
    /// Checks the handshake; `subprotocol` goes into the answer.
    pub fn begin(request: &mut Request, subprotocol: Option<&'static str>) -> Result<Self, Refused> {
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
    /// The socket, once the response was sent; `None` if the client went away before, or if the request
    /// was not served from a plain TCP stream. A message from the client may have `max_bytes`.
    pub async fn accept(self, max_bytes: usize) -> Option<Socket> {
        let upgraded = self.0.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
        Some(WebSocket::new(parts.io.into_inner(), parts.read_buf, max_bytes).await)
    }
}

/// Chooses among the subprotocols spoken: the first one offered that is `spoken`, none if none is
/// offered.
pub fn choose_subprotocol(headers: &HeaderMap, spoken: &[&'static str]) -> Result<Option<&'static str>, Refused> {
    if headers.get(header::SEC_WEBSOCKET_PROTOCOL).is_none() {
        return Ok(None);
    }
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut names = offers.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let chosen = names.find_map(|name| spoken.iter().find(|it| **it == name.trim()));
    chosen.map(|name| Some(*name)).ok_or(Refused::UnknownSubprotocol)
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
        let choose = |names: &[&'static str]| choose_subprotocol(&offered(names), &["a.json", "a.protobuf"]);
        assert_eq!(choose(&[]), Ok(None));
        assert_eq!(choose(&["a.json"]), Ok(Some("a.json")));
        assert_eq!(choose(&["x, a.protobuf", "a.json"]), Ok(Some("a.protobuf")));
        assert_eq!(choose(&["x"]), Err(Refused::UnknownSubprotocol));
    }
}
