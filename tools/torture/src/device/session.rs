//! What belongs to one connection of a device and ends with it.

use std::collections::BTreeMap;

use testkit::client::Connection;
use tokio::time::Instant;

use crate::history::At;

/// A `sync` without an answer.
pub(super) struct Asked {
    pub(super) id: i64,
    pub(super) at: Instant,
    pub(super) sent: At,
    /// By room: how often it had begun anew by then (`View::turns`).
    pub(super) turns: BTreeMap<usize, (u64, u64)>,
}

/// A connection.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Its number in the run.
    pub(super) number: u64,
    /// The number of its gateway.
    pub(super) gateway: usize,
    /// When it was first asked for.
    pub(super) began: At,
    pub(super) is_ready: bool,
    /// It is given up, because what had to come did not.
    pub(super) is_silent: bool,
    pub(super) syncing: Option<Asked>,
    /// Then to ask for what is missing.
    pub(super) look_at: Option<Instant>,
    /// What a beacon said there is and was not there: rooms and revs.
    pub(super) behind: Vec<(usize, i64)>,
}

impl Session {
    pub(super) fn new(connection: Connection, number: u64, gateway: usize, began: At) -> Self {
        let (is_ready, is_silent, syncing, look_at, behind) = Default::default();
        Self { connection, number, gateway, began, is_ready, is_silent, syncing, look_at, behind }
    }
}
