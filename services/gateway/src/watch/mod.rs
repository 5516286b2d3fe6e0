//! What nobody told: found in the store, whatever pub/sub lost and whoever died before telling.
//!
//! Knows no transport. The invariant: nothing here is needed while nothing is lost, and what is lost
//! is made good without the clients' help.

pub(crate) mod beacon;
pub(crate) mod changes;
pub(crate) mod gaps;
pub(crate) mod tail;
