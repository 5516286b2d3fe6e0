//! How bytes come and go: what yields a client's packets and takes ours.
//!
//! A transport knows nothing of users, rooms and commands. The invariant: whoever serves a client
//! sees the same thing over every transport; whatever differs is behind [`Link`].

pub mod engineio;
mod frames;
mod gate;
pub mod handshake;
pub mod socketio;
mod websocket;

use std::task::{Context, Poll};

use bytes::Bytes;
use protocol::CloseCode;
use tokio_tungstenite::tungstenite::Utf8Bytes;

pub use websocket::WebSocket;

/// A WebSocket over what our HTTP server reads from.
pub type Socket = WebSocket<tokio::net::TcpStream>;

/// What came from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
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
pub enum Frame {
    /// A text packet, UTF-8.
    Text(Bytes),
    /// A binary packet.
    Binary(Bytes),
    /// A question whether the client is there, for transports that have one.
    Ping,
}

impl Frame {
    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(payload) | Self::Binary(payload) => payload.len(),
            Self::Ping => 0,
        }
    }

    /// True without a payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The client cannot be reached any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Both directions of one client, polled by the one task that owns them.
pub trait Link: Send + Unpin {
    /// What the transport itself says first, if anything.
    fn greeting(&self) -> Option<Bytes> {
        None
    }

    /// The next thing from the client.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received>;

    /// Ready when `send` may be called.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Takes a frame; it may wait until the next flush.
    fn send(&mut self, frame: Frame);

    /// Ready when everything sent has left this process.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Bytes that were sent and have not left this process, as far as they are known.
    fn backlog(&self) -> usize {
        0
    }

    /// True while the client goes over to another transport: it takes nothing meanwhile, and what it says
    /// has to be read for it to arrive there.
    fn is_going_over(&self) -> bool {
        false
    }

    /// Before anything was received: no frame may be larger than that. `None`, later: none than the
    /// transport allows.
    fn bound(&mut self, max_bytes: Option<usize>) {
        let _ = max_bytes;
    }

    /// Says goodbye with a code, if the transport has codes, and ends; bounded in time.
    fn close(self, code: CloseCode) -> impl Future<Output = ()> + Send;
}
