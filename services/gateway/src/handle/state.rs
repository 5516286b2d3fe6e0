//! What a connection's handle guards with its lock: what waits, what is asked of the connection's task.
//!
//! Wakes nobody. The invariant: whoever delivers waits for a connection exactly while its outbox is crowded and it
//! is not closed.

use std::sync::Arc;

use protocol::CloseCode;

use crate::codec::Delivered;
use crate::handle::deadlines::Deadlines;
use crate::handle::outbox::Outbox;
use crate::handle::pace::{Pace, Round};

#[derive(Debug)]
pub(super) struct State {
    pub(super) outbox: Outbox,
    pub(super) deadlines: Deadlines,
    /// When the wheel comes by; other entries of the wheel are stale.
    pub(super) visit_ms: u64,
    pub(super) close: Option<CloseCode>,
    pub(super) close_seen: bool,
    pub(super) ping: bool,
    pub(super) expiring: bool,
    /// User events that came before the session was ready; `None` once it is.
    pub(super) early: Option<Vec<Arc<Delivered>>>,
    crowding: Crowding,
}

/// Whether whoever delivers has to wait for a connection.
#[derive(Debug, Default)]
struct Crowding {
    /// The network takes nothing at the moment.
    is_blocked: bool,
    /// The round since which it is waited for.
    round: Option<Round>,
}

impl State {
    pub(super) fn new(deadlines: Deadlines) -> Self {
        Self {
            outbox: Outbox::default(),
            deadlines,
            visit_ms: 0,
            close: None,
            close_seen: false,
            ping: false,
            expiring: false,
            early: Some(Vec::new()),
            crowding: Crowding::default(),
        }
    }

    /// Says whether this connection has to be waited for.
    pub(super) fn pace(&mut self, pace: &Pace) {
        match self.crowding.round {
            None if self.outbox.is_crowded() && !self.is_closed() => {
                self.crowding.round = Some(pace.enter(self.crowding.is_blocked));
            }
            Some(round) if self.outbox.is_relieved() || self.is_closed() => {
                // Whoever was waited for in vain is not waited for again before all has left.
                if self.outbox.is_empty() || self.is_closed() || pace.is_waited_for(round) {
                    pace.leave(round, self.crowding.is_blocked);
                    self.crowding.round = None;
                }
            }
            None | Some(_) => {}
        }
    }

    pub(super) fn set_blocked(&mut self, is_blocked: bool, pace: &Pace) {
        if self.crowding.is_blocked != is_blocked {
            self.crowding.is_blocked = is_blocked;
            if let Some(round) = self.crowding.round {
                pace.block(round, is_blocked);
            }
        }
    }

    /// Whoever is gone is waited for no more.
    pub(super) fn leave(&self, pace: &Pace) {
        if let Some(round) = self.crowding.round {
            pace.leave(round, self.crowding.is_blocked);
        }
    }

    /// True when nothing more goes to the client; one that is drained still gets its acks.
    pub(super) fn is_closed(&self) -> bool {
        self.close.is_some_and(|code| code != CloseCode::Draining)
    }
}
