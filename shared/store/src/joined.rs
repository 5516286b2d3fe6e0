//! Since when somebody is a member, as the room's timeline tells it.
//!
//! It knows no rights. The invariant: nothing is read but the changes between the last message before
//! the joining and the first one after it, however long the timeline is.

use domain::{Rev, RoomId, UserId};
use prost::Message as _;
use protocol::EventData;
use protocol::wire::ServerEvent;

use crate::{Store, StoreError};

/// Changes of membership without a message in between that are looked through.
const MOST: i64 = 2000;

const MESSAGES_AROUND: &str = "SELECT before.rev, after.rev FROM room_members m
    LEFT JOIN messages before ON before.room_id = m.room_id AND before.seq = m.joined_seq
    LEFT JOIN messages after ON after.room_id = m.room_id AND after.seq = m.joined_seq + 1
    WHERE m.room_id = $1 AND m.user_id = $2";
const CHANGES_BETWEEN: &str = "SELECT rev, payload FROM room_events
    WHERE room_id = $1 AND rev > $2 AND rev < $3 AND rev = epoch ORDER BY rev DESC LIMIT $4";

impl Store {
    /// The change by which the user became a member: `room.memberJoined`, or `room.created` for who
    /// was there from the beginning. `None` for who is no member. In the midst of very many changes of
    /// membership it may be an earlier one.
    pub async fn joined_rev(&self, room: RoomId, user: UserId) -> Result<Option<Rev>, StoreError> {
        let mut conn = self.db.read().await?;
        let around: Option<(Option<i64>, Option<i64>)> =
            on!(conn, c => sqlx::query_as(MESSAGES_AROUND).bind(room.0).bind(user.0).fetch_optional(c))?;
        let Some((before, after)) = around else { return Ok(None) };
        let (before, after) = (before.unwrap_or(0), after.unwrap_or(i64::MAX));
        let changes: Vec<(i64, Vec<u8>)> = on!(conn, c => {
            sqlx::query_as(CHANGES_BETWEEN).bind(room.0).bind(before).bind(after).bind(MOST).fetch_all(c)
        })?;
        let name = user.to_string();
        let joined = changes.iter().find(|(_, payload)| is_joining(payload, &name));
        let earliest = changes.last().map_or(before + 1, |(rev, _)| *rev);
        Ok(Some(Rev(joined.map_or(earliest, |(rev, _)| *rev))))
    }
}

fn is_joining(payload: &[u8], user: &str) -> bool {
    match ServerEvent::decode(payload).ok().and_then(|event| event.kind) {
        Some(EventData::RoomMemberJoined(joined)) => joined.user_id == user,
        Some(EventData::RoomCreated(_)) => true,
        _ => false,
    }
}
