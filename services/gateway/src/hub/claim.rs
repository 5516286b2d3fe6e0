//! Who lets a connection into a room: of several at once only the last one that came before the
//! connection was told anything.
//!
//! Waits for nothing. The invariant: what a connection is told on its way into a room is told under the
//! room's lock by the one that lets it in, and nothing once the client has switched the room off.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use domain::{Rev, RoomId};

use super::Hub;
use super::room::{Position, Room};
use crate::handle::Handle;

/// Who lets a connection in. No two have the same, but for all openings of sessions: nothing else lets
/// their connections in before they are done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// A session that is being opened.
    pub(crate) const OPENING: Self = Self(0);
}

/// Why a connection is let into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Its user became a member with that change.
    Word(Rev),
    /// The client wishes it.
    Wish,
}

/// The right to let a connection into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Claim {
    pub(crate) ticket: Ticket,
    /// The room has to be subscribed first.
    pub(crate) is_missing: bool,
}

impl Hub {
    /// Begins to let a connection into a room, holding what it releases. `None`: it is in or has been
    /// told so, or it is not to be let in. A word gives way to all else.
    pub(crate) fn claim(&self, handle: &Arc<Handle>, id: RoomId, way: Way) -> Option<Claim> {
        let mut shard = self.shard(id);
        let room = shard.entry(id).or_insert_with(|| Room::new(id));
        let is_wanted = match way {
            Way::Word(since) => room.position(handle.key) == Position::Absent && !handle.switched_off.covers(id, since),
            Way::Wish => true,
        };
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed) + 1);
        let is_claimed = is_wanted && room.claim(handle, ticket);
        is_claimed.then_some(Claim { ticket, is_missing: !room.subscribed })
    }

    /// Tells a connection something of a room that it is being let into. False: others let it in, or it
    /// is not let in any more.
    pub(crate) fn tell_entering(
        &self,
        handle: &Handle,
        room: RoomId,
        ticket: Ticket,
        tell: impl FnOnce(&Handle),
    ) -> bool {
        self.shard(room).get_mut(&room).is_some_and(|room| room.tell(handle.key, ticket, tell))
    }

    /// Opens a connection in a room it was armed for: the room is on from now on.
    pub(crate) fn open(&self, handle: &Handle, id: RoomId, ticket: Ticket) {
        if let Some(room) = self.shard(id).get_mut(&id)
            && room.open(handle.key, ticket)
        {
            handle.switched_off.remove(id);
        }
    }

    /// Takes a connection out of a room again unless it was let in by now.
    pub(crate) fn abandon(&self, handle: &Handle, room: RoomId, ticket: Ticket) {
        if let Some(room) = self.shard(room).get_mut(&room) {
            room.abandon(handle.key, ticket);
        }
    }

    /// Takes a connection out of a room because the client wishes it, who was a member at `rev`.
    pub(crate) fn switch_off(&self, handle: &Handle, id: RoomId, rev: Rev) {
        let mut shard = self.shard(id);
        let room = shard.get_mut(&id);
        let entered = room.and_then(|room| room.leave(handle.key)).unwrap_or(rev);
        handle.switched_off.add(id, rev.max(entered));
    }
}
