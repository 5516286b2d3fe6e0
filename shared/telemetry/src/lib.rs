//! What operators see: logs, metrics, health; and the HTTP server that all services share.
//!
//! Knows no feature. The invariant: a metric has one name, one doc line and at most one label whose
//! values come from a closed set.

mod client_address;
mod cors;
pub mod health;
pub mod http;
pub mod logs;
pub mod metric;
pub mod recorder;
mod unread;

pub use client_address::{client_address, network};
pub use cors::cors;
pub use health::{Check, Health, Readiness, admin_router};
pub use metric::{Counter, Gauge, Histogram};
