//! The store's contract: one suite, both databases.
//!
//! Each test is written once over a [`Bench`] and run on either; what only one of them can show
//! stands in `lease`, `outage` and `black_hole`.

mod batch;
mod begun;
mod bench;
mod black_hole;
mod change;
mod departure;
mod import;
mod lease;
mod message;
mod outage;
mod presence;
mod refused;
mod retention;
mod room;
mod tail;
mod token;
mod user;
