//! What was said in seeded rooms: messages that are there from the beginning, for trying and measuring.
//!
//! They go past the broker and are nobody's jobs: no receipt is kept. Message by message over all rooms, as
//! in life, so that a room's history lies scattered in the store. The invariant: a room that has as
//! many already gets none, so the same again changes nothing.

use domain::{MessageId, Timestamp, UserId};
use runtime::Clock;
use store::{Head, MessageRow, NewRoomEvent, Scope, Store, StoreError, Writes};

use crate::line::RoomLine;

/// Messages in one transaction.
const CHUNK: usize = 1_000;
/// From one message of a room to its next.
const PACE_MS: i64 = 60_000;
/// What is said is cut out of this.
const TALK: &str = "Has anybody seen the new figures? They look better than last week, and I think we can show them on \
    Monday if the plots are ready by then. I will bring coffee. Could someone check the second page again, please?";

/// How many messages each room is to have at least.
pub(crate) struct History<'a> {
    rooms: &'a [RoomLine],
    messages: u64,
    now: Timestamp,
}

impl<'a> History<'a> {
    /// So many messages, spread evenly over these rooms.
    pub(crate) fn new(rooms: &'a [RoomLine], messages: u64) -> Self {
        Self { rooms, messages, now: Clock::system().now() }
    }

    /// Stores those that are not there yet; how many that were.
    pub(crate) async fn store(&self, store: &Store) -> Result<u64, StoreError> {
        let mut stored = 0;
        let most = self.wanted(0);
        let mut from = 0;
        while from < most {
            let step = (CHUNK / self.rooms.len()).max(1) as i64;
            let up_to = (from + step).min(most);
            for (index, rooms) in self.rooms.chunks(CHUNK).enumerate() {
                stored += self.store_up_to(store, index * CHUNK, rooms, up_to).await?;
            }
            from = up_to;
        }
        Ok(stored)
    }

    /// How many the room at that place is to have: the first ones have one more if it does not come out even.
    fn wanted(&self, index: usize) -> i64 {
        let (rooms, index) = (self.rooms.len() as u64, index as u64);
        self.messages.saturating_add(rooms.saturating_sub(1)).saturating_sub(index).checked_div(rooms).unwrap_or(0)
            as i64
    }

    /// Brings a chunk of rooms to at most so many messages each.
    async fn store_up_to(
        &self,
        store: &Store,
        first: usize,
        rooms: &[RoomLine],
        up_to: i64,
    ) -> Result<u64, StoreError> {
        let scope = Scope { rooms: rooms.iter().map(|room| room.id).collect(), ..Scope::default() };
        let batch = store.begin(&scope).await?;
        let mut writes = Writes::default();
        for (index, room) in rooms.iter().enumerate() {
            let (wanted, before) = (self.wanted(first + index), batch.loaded.rooms.get(&room.id));
            let Some(before) = before.filter(|head| head.last_seq.0 < wanted.min(up_to)) else { continue };
            let mut head = *before;
            while head.last_seq.0 < wanted.min(up_to) {
                head = Head { last_seq: head.last_seq.next(), rev: head.rev.next(), ..head };
                let at = Timestamp(self.now.0 - (wanted - head.last_seq.0) * PACE_MS);
                let message = said(room, head, at);
                writes.events.push(told(&message, head));
                writes.messages.push(message);
            }
            writes.heads.push((room.id, head));
        }
        let count = writes.messages.len() as u64;
        if count > 0 {
            batch.commit(writes).await?;
        }
        Ok(count)
    }
}

/// The members speak in turn.
fn said(room: &RoomLine, head: Head, at: Timestamp) -> MessageRow {
    let turn = head.last_seq.0 as usize;
    let sender = room.members.get(turn % room.members.len().max(1)).copied().unwrap_or(UserId(room.id.0));
    let begins = turn * 7 % (TALK.len() / 2);
    let length = 20 + turn * 13 % (TALK.len() / 2);
    MessageRow {
        id: MessageId::generate(),
        room: room.id,
        seq: head.last_seq,
        rev: head.rev,
        sender,
        client_msg_id: format!("seed-{turn}"),
        kind: "TEXT".to_owned(),
        content: TALK[begins..(begins + length).min(TALK.len())].trim().to_owned(),
        reply_to: None,
        mentions: Vec::new(),
        attachments: Vec::new(),
        sent_at: at,
        stored_at: at,
        edited_at: None,
        deleted_at: None,
        reactions: Vec::new(),
    }
}

fn told(message: &MessageRow, head: Head) -> NewRoomEvent {
    NewRoomEvent {
        room: message.room,
        rev: head.rev,
        epoch: head.epoch,
        job: None,
        message: Some(message.id),
        payload: Vec::new(),
        at: message.stored_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::room::RoomKind;
    use domain::{RoomId, Seq};
    use store::{Page, StoreSettings};

    fn rooms(count: u64) -> Vec<RoomLine> {
        let member = |number| UserId::seeded("h", number);
        let room = |number| RoomLine {
            id: RoomId::seeded("h", number),
            kind: RoomKind::Group,
            title: None,
            members: vec![member(1), member(2)],
        };
        (1..=count).map(room).collect()
    }

    #[test]
    fn messages_are_spread_evenly_and_none_is_lost() {
        let rooms = rooms(7);
        let history = History::new(&rooms, 24);
        let wanted: Vec<i64> = (0..7).map(|index| history.wanted(index)).collect();
        assert_eq!(wanted, [4, 4, 4, 3, 3, 3, 3]);
        assert_eq!(History::new(&[], 24).wanted(0), 0);
    }

    #[tokio::test]
    async fn each_room_is_filled_once_and_reads_as_if_it_had_been_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.sqlite");
        let store = Store::open(StoreSettings::Sqlite { path, sync_full: false }).await.expect("opens");
        store.migrate().await.expect("migrates");
        let rooms = rooms(3);
        let user = |number: u64| crate::line::UserLine {
            id: UserId::seeded("h", number),
            email: None,
            first_name: "h".to_owned(),
            last_name: number.to_string(),
            password: None,
        };
        crate::apply::apply(&store, &[user(1), user(2)], &rooms).await.expect("seeded");
        assert_eq!(History::new(&rooms, 10).store(&store).await.expect("stored"), 10);
        assert_eq!(History::new(&rooms, 10).store(&store).await.expect("stored"), 0, "the same again");
        assert_eq!(History::new(&rooms, 13).store(&store).await.expect("stored"), 3, "more");
        let room = store.room(rooms[0].id).await.expect("read").expect("there");
        assert_eq!((room.last_seq, room.rev.0), (Seq(5), 6));
        let page = store.history(room.id, Page::Newest, 10).await.expect("a page");
        assert!(page.iter().all(|row| !row.content.is_empty() && row.sender != UserId(room.id.0)), "{page:?}");
        let entries = store.after_rev(room.id, domain::Rev(1), 10).await.expect("the timeline");
        assert_eq!(entries.len(), 5);
    }
}
