//! How far the store has each room, as far as it was heard: what beacons are made of.
//!
//! Knows nothing of what was released. The invariant: each move of a room has a number of its own,
//! larger than that of any move before.

use std::sync::atomic::Ordering;

use domain::{Rev, RoomId};

use super::Hub;

/// A room that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) room: RoomId,
    /// Where the store has it.
    pub(crate) rev: Rev,
    /// The number of that move.
    pub(crate) number: u64,
}

impl Hub {
    /// Notes that the store has a room at `rev`. True: that is ahead of what was released here.
    pub(crate) fn note_stored(&self, id: RoomId, rev: Rev) -> bool {
        let mut shard = self.shard(id);
        let Some(room) = shard.get_mut(&id) else { return false };
        if rev > room.stored {
            room.stored = rev;
            room.moved = self.moves.fetch_add(1, Ordering::Relaxed) + 1;
        }
        room.released().is_some_and(|released| released < rev)
    }

    /// The number of the latest move.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Those of `rooms` that moved after the move with that number.
    pub(crate) fn moved_since(&self, rooms: &[RoomId], number: u64) -> Vec<Moved> {
        let moved = |id: &RoomId| {
            let shard = self.shard(*id);
            let room = shard.get(id).filter(|room| room.moved > number)?;
            Some(Moved { room: *id, rev: room.stored, number: room.moved })
        };
        rooms.iter().filter_map(moved).collect()
    }
}
