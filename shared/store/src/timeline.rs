//! A room's timeline: every durable change by `rev`, for those who missed some.
//!
//! Events of messages are rebuilt from the messages as they now stand, so that what was taken back
//! is gone here too. The invariant: what is given out is contiguous and ascending.

use std::collections::HashMap;

use domain::{MessageId, Rev, RoomId, Timestamp, limits};
use prost::Message as _;
use protocol::EventData;
use protocol::wire::ServerEvent;
use uuid::Uuid;

use crate::error::damaged;
use crate::rows::{Rows, RowsSql};
use crate::{MessageRow, Store, StoreError, message};

/// One durable change of a room.
#[derive(Debug, Clone, PartialEq)]
pub struct RevEntry {
    /// Its number.
    pub rev: Rev,
    /// The `rev` of the room's newest change of membership at that time.
    pub epoch: Rev,
    /// What the members are told.
    pub event: EventData,
}

/// A page bounded by number ($3) and by weight ($4): the weights are read first, without the contents.
pub(crate) const AFTER: &str = "WITH page AS (SELECT e.rev AS place, 512 + OCTET_LENGTH(e.payload)
        + COALESCE(OCTET_LENGTH(m.content), 0) + COALESCE(OCTET_LENGTH(m.attachments), 0) AS weight
        FROM room_events e LEFT JOIN messages m ON m.message_id = e.message_id
        WHERE e.room_id = $1 AND e.rev > $2 ORDER BY e.rev LIMIT $3),
    sums AS (SELECT place, SUM(weight) OVER (ORDER BY place) - weight AS before FROM page)
    SELECT rev, epoch, message_id, payload FROM sums JOIN room_events ON room_id = $1 AND rev = place
    WHERE before < $4 ORDER BY rev";

const HAPPENED: RowsSql = rows_sql!([1 room uuid, 2 rev bigint] "SELECT COALESCE(e.happened_at, 0) FROM given
     JOIN room_counters c ON c.room_id = given.room AND c.rev >= given.rev
     LEFT JOIN room_events e ON e.room_id = given.room AND e.rev = given.rev");

/// A change as it is stored.
#[derive(sqlx::FromRow)]
pub(crate) struct EventRecord {
    pub(crate) rev: i64,
    pub(crate) epoch: i64,
    pub(crate) message_id: Option<Uuid>,
    pub(crate) payload: Vec<u8>,
}

impl Store {
    /// When these changes happened, by the clock of whoever stored them, and the beginning of time for
    /// what was removed for its age; in no order, and nothing of changes that there are not.
    pub async fn happened_at(&self, changes: &[(RoomId, Rev)]) -> Result<Vec<Timestamp>, StoreError> {
        let rows = Rows::new().id(changes.iter().map(|(room, _)| room.0)).int(changes.iter().map(|(_, rev)| rev.0));
        let found: Vec<(i64,)> = self.db.read().await?.fetch(&HAPPENED, &rows).await?;
        Ok(found.into_iter().map(|(at,)| Timestamp(at)).collect())
    }

    /// The changes that follow `rev`, ascending and without a gap, at most `limit`; fewer when they
    /// are heavy, but not none while there are any. `TooOld` when the first of them was removed.
    pub async fn after_rev(&self, room: RoomId, rev: Rev, limit: usize) -> Result<Vec<RevEntry>, StoreError> {
        self.after_rev_within(room, rev, limit, limits::PAGE_BYTES).await
    }

    /// The same, within about so many bytes.
    pub async fn after_rev_within(
        &self,
        room: RoomId,
        rev: Rev,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<RevEntry>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Vec<EventRecord> = on!(conn, c => {
            sqlx::query_as(AFTER).bind(room.0).bind(rev.0).bind(limit as i64).bind(bytes as i64).fetch_all(c)
        })?;
        let about = found.iter().filter_map(|record| record.message_id.map(MessageId));
        let mut messages = message::load(&mut conn, about).await?;
        message::add_reactions(&mut conn, messages.values_mut()).await?;
        drop(conn);
        // Only beginnings of timelines are ever removed.
        if found.first().is_some_and(|first| first.rev > rev.next().0) {
            return Err(StoreError::TooOld);
        }
        let mut expected = rev;
        found
            .into_iter()
            .map(|record| {
                expected = expected.next();
                if record.rev != expected.0 {
                    return Err(damaged("the order of a room's changes"));
                }
                record.read(&messages)
            })
            .collect()
    }
}

impl EventRecord {
    /// The change as it is told now: what it says of a message is taken from the message.
    pub(crate) fn read(self, messages: &HashMap<MessageId, MessageRow>) -> Result<RevEntry, StoreError> {
        let message = self.message_id.and_then(|id| messages.get(&MessageId(id)));
        let event = if self.payload.is_empty() {
            let row = message.ok_or_else(|| damaged("a change without its message"))?;
            EventData::MessageDelivered(row.to_event())
        } else {
            let stored = ServerEvent::decode(self.payload.as_slice()).ok().and_then(|event| event.kind);
            match (stored, message) {
                (Some(EventData::MessageEdited(mut edited)), Some(row)) => {
                    edited.content.clone_from(&row.content);
                    EventData::MessageEdited(edited)
                }
                (Some(other), _) => other,
                (None, _) => return Err(damaged("a change")),
            }
        };
        Ok(RevEntry { rev: Rev(self.rev), epoch: Rev(self.epoch), event })
    }
}
