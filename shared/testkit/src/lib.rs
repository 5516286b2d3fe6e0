//! What tests stand on: private real services, real processes, clients.
//!
//! Only tests depend on this crate; it knows no port, no adapter and no handler, so that what it
//! observes, it observes from outside. The invariant: whatever a test starts through it is gone when
//! the test's process is gone, however that ends.

pub mod client;
pub mod cluster;
pub mod folder;
pub mod guard;
pub mod management;
pub mod process;
pub mod proxy;
pub mod services;
pub mod wait;

pub use client::token;
pub use wait::{PATIENCE, holds_within, until};
