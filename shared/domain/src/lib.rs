//! The rules of the product: ids, limits, permissions, order, back-off.
//!
//! Everything here is a pure function or a plain value. It knows no I/O, no async, no clock and no
//! framework; time and randomness come in as arguments. The one invariant: the same input gives
//! the same answer in every process and in every version that shares a queue.

pub mod event;
pub mod failure;
pub mod id;
pub mod limits;
pub mod message;
pub mod permission;
pub mod presence;
pub mod rate;
pub mod retry;
pub mod room;
pub mod shard;
pub mod time;
pub mod user;

pub use event::{Class, EventKind};
pub use failure::{Cause, FailureKind};
pub use id::{CallId, DeviceId, JobId, Membership, MessageId, Rev, RoomId, Seq, SessionId, UserId};
pub use time::Timestamp;

/// Why a value from outside was refused: which field, and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field's name as the client wrote it (camelCase).
    pub field: &'static str,
    /// What was wrong, in words a client developer understands.
    pub reason: String,
    /// True when the value was well-formed but larger than its limit (`TOO_LARGE`).
    pub too_large: bool,
}

impl Invalid {
    /// A malformed or missing value.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into(), too_large: false }
    }

    /// A well-formed value over its size limit.
    pub fn too_large(field: &'static str, limit_bytes: usize) -> Self {
        Self { field, reason: format!("is larger than {limit_bytes} bytes"), too_large: true }
    }
}
