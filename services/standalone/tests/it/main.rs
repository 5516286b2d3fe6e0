//! Whole-system tests: real processes, real services, clients from outside.
//!
//! One binary, one module per promise. Each test starts what it needs and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test may panic wherever it likes")]

mod bad_frames;
mod bad_requests;
mod bad_tokens;
mod causes;
mod configuration;
mod crashes;
mod dead_letters;
mod drain;
mod full_disk;
mod full_disk_alone;
mod key_rotation;
mod limits;
mod live;
mod long_outages;
mod lost_words;
mod old_events;
mod order;
mod outages;
mod overload;
mod page;
mod pauses;
mod poison;
mod polling;
mod presence;
mod priorities;
mod protobuf;
mod redis_cluster;
mod rights;
mod scene;
mod sleeper;
mod slow;
mod stock_clients;
mod storm;
mod triage;
mod typing;
