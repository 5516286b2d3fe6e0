//! The one way to apply an event: dedupe, store, presence, fan-out; and to read what was applied.
//!
//! Used by processors for what comes through the broker and by the edge for direct events. Knows no
//! socket and no queue. The invariant: what is told to clients was committed before, and in the
//! order of `rev` of its room.

mod apply;
mod caches;
mod ephemeral;
mod fanout;
mod missed;
mod plan;
mod plan_message;
mod plan_room;
mod poll;
mod presence;
mod read;
mod replay;
mod room;
mod session;
mod sync;
mod teller;
mod timeline;

use std::sync::Arc;

use protocol::Keyring;
use realtime::{Realtime, RealtimeError};
use runtime::Clock;
use store::Store;

pub use apply::{Job, Outcome};
pub use missed::Missed;
pub use poll::Polled;
pub use room::CreatedRoom;
pub use teller::Told;

/// What the handlers work with.
pub struct HandlerParts {
    /// Where everything durable lies.
    pub store: Store,
    /// Fan-out, presence, claims.
    pub realtime: Realtime,
    /// Signs deliveries and checks those of the room log.
    pub keys: Keyring,
    /// The clock of `storedAt`.
    pub clock: Clock,
}

/// The handlers. Clones share their parts.
#[derive(Clone)]
pub struct Handlers {
    parts: Arc<HandlerParts>,
}

/// A dependency does not answer; nothing of the events themselves is wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{dependency} does not answer: {detail}")]
pub struct Unavailable {
    /// Which one: `store` or `realtime`.
    pub dependency: &'static str,
    /// What it said.
    pub detail: String,
    /// The store gave it up for the time it took: the store may be slow, or it is about these rows.
    pub is_late: bool,
}

impl From<RealtimeError> for Unavailable {
    fn from(error: RealtimeError) -> Self {
        Self { dependency: "realtime", detail: error.to_string(), is_late: false }
    }
}

impl Handlers {
    /// Handlers over these parts.
    pub fn new(parts: HandlerParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    fn store(&self) -> &Store {
        &self.parts.store
    }

    fn realtime(&self) -> &Realtime {
        &self.parts.realtime
    }
}
