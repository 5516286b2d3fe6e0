//! What belongs to one connection of a device and ends with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use testkit::client::Line;
use tokio::time::Instant;

/// A `sync` without an answer.
pub(super) struct Asked {
    pub(super) id: i64,
    pub(super) at: Instant,
    /// By room: how often the user had become a member then.
    pub(super) joins: BTreeMap<usize, u64>,
}

/// A connection.
pub(super) struct Session {
    pub(super) line: Line,
    /// Its number in the run.
    pub(super) number: u64,
    pub(super) opened: Instant,
    pub(super) heard: Instant,
    pub(super) is_ready: bool,
    /// Socket.IO: let into the namespace. Until then events are kept, as the stock client does.
    pub(super) is_accepted: bool,
    pub(super) is_recovered: bool,
    /// With their offsets, which count once the event was taken.
    pub(super) kept: Vec<(String, Value, Option<String>)>,
    pub(super) hint: Option<Duration>,
    pub(super) code: Option<u16>,
    pub(super) syncing: Option<Asked>,
    /// Then to ask for what is missing.
    pub(super) look_at: Option<Instant>,
    /// What a beacon said there is and was not there: rooms and revs.
    pub(super) behind: Vec<(usize, i64)>,
}

impl Session {
    pub(super) fn new(line: Line, number: u64) -> Self {
        let now = Instant::now();
        Self {
            line,
            number,
            opened: now,
            heard: now,
            is_ready: false,
            is_accepted: false,
            is_recovered: false,
            kept: Vec::new(),
            hint: None,
            code: None,
            syncing: None,
            look_at: None,
            behind: Vec::new(),
        }
    }
}
