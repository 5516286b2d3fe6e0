//! Which read marks were told here lately: so that those of which no word came can be told apart.
//!
//! Knows no store. The invariant: of one person in one room a mark is told again only if it moved
//! forward, or after so long that nobody remembers it.

use std::collections::HashMap;

use domain::{RoomId, Seq, UserId};
use parking_lot::{Mutex, MutexGuard};
use protocol::{Channel, EventData, OpenedDelivery};
use realtime::LogNumber;
use store::ReadMark;
use telemetry::Counter;

use super::Hub;
use super::user::shard_of;

/// So long a mark is remembered: several rounds of reading the tail.
const REMEMBERED_MS: u64 = 10_000;
/// Marks that one shard remembers; of more some are told twice.
const MARKS: usize = 16_384;
const SHARDS: usize = 16;

/// How far somebody has read, and until when that is remembered.
type Told = HashMap<(RoomId, UserId), (Seq, u64)>;

/// The marks that were told lately.
pub(super) struct Marks {
    shards: Box<[Mutex<Told>]>,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, room: RoomId) -> MutexGuard<'_, Told> {
        self.shards[shard_of(room.as_bytes(), SHARDS)].lock()
    }

    /// Notes what came for a room. False: the room was told as much already.
    pub(super) fn is_news(&self, room: RoomId, event: &EventData, now_ms: u64) -> bool {
        let EventData::MessageRead(mark) = event else { return true };
        let Ok(user) = mark.user_id.parse() else { return false };
        let mut shard = self.shard(room);
        let (seq, until_ms) = (Seq(mark.seq), now_ms + REMEMBERED_MS);
        if shard.len() >= MARKS {
            shard.clear();
        }
        let told = shard.entry((room, user)).or_insert((Seq(0), until_ms));
        let is_news = seq > told.0;
        *told = (seq.max(told.0), until_ms);
        is_news
    }

    fn lacks(&self, mark: &ReadMark) -> bool {
        self.shard(mark.room).get(&(mark.room, mark.user)).is_none_or(|told| told.0 < mark.seq)
    }

    /// Forgets what was told long ago.
    pub(super) fn forget(&self, now_ms: u64) {
        for shard in &self.shards {
            shard.lock().retain(|_, (_, until_ms)| *until_ms > now_ms);
        }
    }
}

impl Hub {
    /// True when somebody here follows the room and no word of the mark came.
    pub(crate) fn lacks_mark(&self, mark: &ReadMark) -> bool {
        self.shard(mark.room).get(&mark.room).is_some_and(|room| !room.is_empty()) && self.marks.lacks(mark)
    }

    /// Tells marks that were found in the store, unless word of them came meanwhile.
    pub(crate) fn tell_marks(&self, marks: Vec<ReadMark>, now_ms: u64) {
        for mark in marks.into_iter().filter(|mark| self.marks.lacks(mark)) {
            Counter::TailFound.inc();
            let opened = OpenedDelivery::passing(EventData::MessageRead(mark.to_wire()));
            self.route(Channel::Room(mark.room), opened, LogNumber::NONE, now_ms);
        }
        // Nobody counts beats for what did not come by the task of deliveries.
        self.let_all_leave(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;
    use uuid::Uuid;

    const ROOM: RoomId = RoomId(Uuid::from_u128(1));
    const READER: UserId = UserId(Uuid::from_u128(2));

    fn mark(seq: i64) -> ReadMark {
        ReadMark { room: ROOM, user: READER, seq: Seq(seq), at: Timestamp(0) }
    }

    fn is_news(marks: &Marks, seq: i64, now_ms: u64) -> bool {
        marks.is_news(ROOM, &EventData::MessageRead(mark(seq).to_wire()), now_ms)
    }

    #[test]
    fn a_mark_is_news_once_and_only_forward() {
        let marks = Marks::new();
        assert!(is_news(&marks, 5, 0) && !is_news(&marks, 5, 1) && !is_news(&marks, 4, 1) && is_news(&marks, 6, 1));
        assert!(!marks.lacks(&mark(6)) && marks.lacks(&mark(7)));
    }

    #[test]
    fn what_was_told_long_ago_is_forgotten() {
        let marks = Marks::new();
        assert!(is_news(&marks, 5, 0));
        marks.forget(REMEMBERED_MS - 1);
        assert!(!marks.lacks(&mark(5)));
        marks.forget(REMEMBERED_MS);
        assert!(marks.lacks(&mark(5)) && is_news(&marks, 5, REMEMBERED_MS));
    }
}
