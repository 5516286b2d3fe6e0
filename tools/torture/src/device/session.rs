//! What belongs to one connection of a device and ends with it.

use std::collections::BTreeMap;

use testkit::client::Connection;
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
    pub(super) connection: Connection,
    /// Its number in the run.
    pub(super) number: u64,
    /// The number of its gateway.
    pub(super) gateway: usize,
    pub(super) is_ready: bool,
    pub(super) syncing: Option<Asked>,
    /// Then to ask for what is missing.
    pub(super) look_at: Option<Instant>,
    /// What a beacon said there is and was not there: rooms and revs.
    pub(super) behind: Vec<(usize, i64)>,
}

impl Session {
    pub(super) fn new(connection: Connection, number: u64, gateway: usize) -> Self {
        Self { connection, number, gateway, is_ready: false, syncing: None, look_at: None, behind: Vec::new() }
    }
}
