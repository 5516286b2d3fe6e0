//! How bytes come and go: what yields a client's packets and takes ours.
//!
//! A transport knows nothing of users, rooms and commands. The invariant: a session is the same
//! over every transport; whatever differs is said by [`Link`] or by the dialect.

mod frames;
mod request;
pub(crate) mod socketio;
mod upgrade;
mod websocket;

use std::task::{Context, Poll};

use bytes::Bytes;
use protocol::CloseCode;
use tokio_tungstenite::tungstenite::Utf8Bytes;

pub(crate) use request::{Offered, Params};
pub(crate) use upgrade::{Accepted, Pending, Refused, Upgrade, choose_subprotocol};
pub(crate) use websocket::WebSocket;

/// What came from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Received {
    /// A text packet.
    Text(Utf8Bytes),
    /// A binary packet.
    Binary(Bytes),
    /// A sign of life that says nothing else.
    Alive,
    /// What came breaks the transport's own rules.
    Broken(CloseCode),
    /// The client is gone, orderly or not.
    Gone,
}

/// What goes to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A text packet.
    Text(Utf8Bytes),
    /// A question whether the client is there, for transports that have one.
    Ping,
}

/// The client cannot be reached any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Both directions of one client, polled by the one task that owns them.
pub(crate) trait Link: Send + Unpin {
    /// The next thing from the client.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received>;

    /// Ready when `send` may be called.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Takes a frame; it may wait until the next flush.
    fn send(&mut self, frame: Frame);

    /// Ready when everything sent has left this process.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Says goodbye with a code, if the transport has codes, and ends; bounded in time.
    fn close(self, code: CloseCode) -> impl Future<Output = ()> + Send;
}
