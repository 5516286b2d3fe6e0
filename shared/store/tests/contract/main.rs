//! The store's contract: one suite, both databases.
//!
//! Each test is written once over a [`Bench`] and run on either; what only one of them can show
//! stands in `lease` and `outage`.

mod batch;
mod bench;
mod import;
mod lease;
mod message;
mod outage;
mod room;
mod token;
mod user;
