//! Engine.IO v4 (<https://socket.io/docs/v4/engine-io-protocol/>): sessions over long-polling, over
//! WebSocket, and from the one to the other.
//!
//! Knows nothing of Socket.IO. The invariant: a session is served by one task through one [`EngineLink`],
//! whatever requests carry it; what was sent over one transport is not sent again over the other.

mod link;
pub mod packet;
mod payload;
mod polling;
mod route;
mod server;

pub use link::EngineLink;
pub use polling::Polling;
pub use route::{Rejection, Route};
pub use server::Server;

/// What an Engine.IO server tells its clients, and what it bounds them to.
#[derive(Debug, Clone)]
pub struct Config {
    /// How often clients are pinged, milliseconds. Whoever serves a session does the pinging.
    pub ping_interval_ms: u64,
    /// How long a client's pong may take, milliseconds.
    pub ping_timeout_ms: u64,
    /// Bytes of one message, and of one request's body.
    pub max_payload: usize,
    /// Names this process in session ids, so that proxies can route by it; no hyphen.
    pub tag: String,
}
