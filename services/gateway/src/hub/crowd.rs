//! Very large rooms: where everybody would be told of everybody, only a part of what leaves no trace is told.
//!
//! Ten thousand who read a message are ten thousand marks for each of ten thousand. The invariant: what has a
//! rev is never left out, of each mark its reader's own devices learn, and in a room with at most
//! `CROWD` connections nothing is left out.

use std::sync::Arc;

use domain::{RoomId, UserId};
use protocol::EventData;
use telemetry::Counter;

use super::Hub;
use super::room::Room;
use super::typing::PER_CROWD;
use crate::codec::Delivered;

/// With more connections here than this a room is a crowd.
pub(super) const CROWD: usize = 1_000;
/// Read marks that a crowd is told within a second.
const MARKS: u32 = 5;

/// What a crowd was told of late.
#[derive(Debug, Default)]
pub(super) struct Told {
    second: u32,
    marks: u32,
}

impl Told {
    /// True if it may be told one more mark.
    fn takes_mark(&mut self, now_ms: u64) -> bool {
        let second = (now_ms / 1_000) as u32;
        if second != self.second {
            *self = Self { second, marks: 0 };
        }
        self.marks += u32::from(self.marks <= MARKS);
        self.marks <= MARKS
    }
}

/// The reader, if all but the reader's own devices are spared this mark.
pub(super) fn spared(room: &mut Room, event: &EventData, now_ms: u64) -> Option<UserId> {
    let EventData::MessageRead(mark) = event else { return None };
    if !room.is_crowd() || room.told.takes_mark(now_ms) {
        return None;
    }
    Counter::ReadsSpared.inc();
    mark.user_id.parse().ok()
}

impl Hub {
    /// False if nobody here would be told that somebody types in a crowd: others do already.
    pub(crate) fn takes_typing(&self, id: RoomId, user: UserId) -> bool {
        let is_crowd = self.shard(id).get(&id).is_some_and(Room::is_crowd);
        !is_crowd || self.typing.has_place(id, user, PER_CROWD)
    }

    /// Tells a reader's own connections how far has been read.
    pub(super) fn tell_reader(&self, id: RoomId, reader: UserId, delivered: &Arc<Delivered>) {
        // Found before the room is locked: nobody holds both locks.
        let own = self.users.handles_of(reader);
        if let Some(room) = self.shard(id).get_mut(&id) {
            for handle in own {
                room.offer_to(handle.key, delivered);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Handle;
    use crate::handle::tests::{handle, sent};
    use crate::hub::tests::{ROOM, join, message};
    use protocol::{Channel, OpenedDelivery, wire};
    use realtime::LogNumber;
    use uuid::Uuid;

    fn mark(reader: u128, seq: i64) -> OpenedDelivery {
        let user_id = Uuid::from_u128(reader).to_string();
        let mark = wire::MessageReadBy { room_id: ROOM.to_string(), user_id, seq, ..Default::default() };
        OpenedDelivery::passing(EventData::MessageRead(mark))
    }

    fn typing(by: u128) -> OpenedDelivery {
        let user_id = Uuid::from_u128(by).to_string();
        let typing = wire::Typing { room_id: ROOM.to_string(), user_id, is_typing: true };
        OpenedDelivery::passing(EventData::Typing(typing))
    }

    /// A hub with that many people in one room.
    fn crowded(people: u128) -> (Arc<Hub>, Vec<Arc<Handle>>) {
        let (hub, _requests) = Hub::new(0);
        let handles: Vec<_> = (1..=people).map(|number| handle(number as u64, number)).collect();
        hub.enter(&handles[0], &[ROOM]);
        for one in &handles {
            assert!(hub.users.enter(one).is_none());
            join(hub.shard(ROOM).get_mut(&ROOM).expect("there"), one, 0);
        }
        (hub, handles)
    }

    fn tell(hub: &Hub, opened: OpenedDelivery, now_ms: u64) {
        hub.route(Channel::Room(ROOM), opened, LogNumber::NONE, now_ms);
    }

    #[test]
    fn a_crowd_is_told_a_few_marks_in_a_second_and_readers_all_of_their_own() {
        let people = CROWD as u128 + 1;
        let (hub, handles) = crowded(people);
        for reader in 1..=people {
            tell(&hub, mark(reader, 1), 5_500);
        }
        let told: Vec<usize> = handles.iter().map(|handle| sent(handle).len()).collect();
        assert_eq!(told[..MARKS as usize], [MARKS as usize; MARKS as usize], "those whose own marks all are told");
        assert!(told[MARKS as usize..].iter().all(|count| *count == MARKS as usize + 1), "and everybody's own");
        tell(&hub, mark(1, 2), 6_000);
        assert_eq!(sent(&handles[700]).len(), 1, "the next second");
        tell(&hub, message(1), 6_000);
        assert_eq!(sent(&handles[700]).len(), 1, "a message is told to everybody");
    }

    #[test]
    fn of_a_few_of_a_crowd_it_is_told_that_they_type() {
        let (hub, handles) = crowded(CROWD as u128 + 1);
        (1..=100).for_each(|by| tell(&hub, typing(by), 1));
        assert_eq!(sent(&handles[700]).len(), PER_CROWD);
        let takes = |by| hub.takes_typing(ROOM, UserId(Uuid::from_u128(by)));
        assert!(takes(1) && !takes(100), "of whom nobody would be told, nothing is published");
    }

    #[test]
    fn in_a_room_that_is_no_crowd_nothing_is_left_out() {
        let (hub, handles) = crowded(40);
        (1..=40).for_each(|reader| tell(&hub, mark(reader, 1), 5_500));
        assert!(handles.iter().all(|handle| sent(handle).len() == 40));
    }
}
