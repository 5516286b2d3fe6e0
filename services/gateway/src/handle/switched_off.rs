//! The rooms that a client switched off for its connection.
//!
//! Asks nobody. The invariant: a room is off for the membership the user had when the client said so, not
//! for a later one; and no more is kept than rooms that are off.

use std::collections::{BTreeMap, HashMap};

use domain::{Rev, RoomId};
use parking_lot::Mutex;

/// Rooms that are off, and a rev at which the user was a member. Without any it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct SwitchedOff(Mutex<BTreeMap<RoomId, Rev>>);

impl SwitchedOff {
    /// The user is a member at `rev`, and the client does not want the room.
    pub(crate) fn add(&self, room: RoomId, rev: Rev) {
        self.0.lock().insert(room, rev);
    }

    /// The room is on again.
    pub(crate) fn remove(&self, room: RoomId) {
        self.0.lock().remove(&room);
    }

    /// True if the client does not want the room.
    pub(crate) fn contains(&self, room: RoomId) -> bool {
        self.0.lock().contains_key(&room)
    }

    /// True if the client does not want the room, of which its user became a member at `since`.
    pub(crate) fn covers(&self, room: RoomId, since: Rev) -> bool {
        self.0.lock().get(&room).is_some_and(|rev| since <= *rev)
    }

    /// True while nothing is off.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// The user left these rooms at these revs. Who has come back since has them on.
    pub(crate) fn forget(&self, departures: &[(RoomId, Rev)]) {
        let departures: HashMap<_, _> = departures.iter().copied().collect();
        self.0.lock().retain(|room, rev| departures.get(room).is_none_or(|left| left <= rev));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ONE: RoomId = RoomId(Uuid::from_u128(1));
    const OTHER: RoomId = RoomId(Uuid::from_u128(2));

    #[test]
    fn a_room_is_off_for_one_membership_only() {
        let off = SwitchedOff::default();
        off.add(ONE, Rev(5));
        off.add(OTHER, Rev(5));
        assert!(off.covers(ONE, Rev(5)) && !off.covers(ONE, Rev(6)));
        off.forget(&[(ONE, Rev(5)), (OTHER, Rev(6))]);
        assert!(off.contains(ONE) && !off.contains(OTHER), "who left before is no less a member since");
        off.remove(ONE);
        assert!(off.is_empty());
    }
}
