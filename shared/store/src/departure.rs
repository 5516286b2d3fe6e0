//! Who left which room, by which change.
//!
//! It knows no rights. The invariant: a departure stands here from the commit in which the member
//! was removed, and says the change that tells it.

use std::collections::HashMap;

use domain::{Rev, RoomId, UserId};
use prost::Message as _;
use protocol::EventData;
use protocol::wire::ServerEvent;
use uuid::Uuid;

use crate::db::Tx;
use crate::rows::{Rows, RowsSql};
use crate::write::NewRoomEvent;
use crate::{Store, StoreError};

const DEPARTED: RowsSql = rows_sql!([1 member uuid, 2 room uuid, 3 rev bigint, 4 at bigint]
    "INSERT INTO room_departures (user_id, room_id, rev, left_at, read_seq, read_at)
     SELECT member, room, rev, at, COALESCE(gone.read_seq, 0), gone.read_at FROM given
        LEFT JOIN room_members gone ON gone.room_id = room AND gone.user_id = member
     WHERE true
     ON CONFLICT (user_id, room_id) DO UPDATE SET rev = excluded.rev, left_at = excluded.left_at,
        read_at = CASE WHEN excluded.read_seq < room_departures.read_seq THEN room_departures.read_at
            ELSE excluded.read_at END,
        read_seq = CASE WHEN excluded.read_seq < room_departures.read_seq THEN room_departures.read_seq
            ELSE excluded.read_seq END");
const DEPARTURES: &str = "SELECT room_id, rev FROM room_departures WHERE user_id = $1
    ORDER BY left_at DESC, room_id LIMIT $2";

const DEPARTURE: &str = "SELECT rev FROM room_departures WHERE user_id = $1 AND room_id = $2";

impl Store {
    /// The change by which the user left a room the last time; `None`: never, or so long ago that it is
    /// not known any more.
    pub async fn departure(&self, user: UserId, room: RoomId) -> Result<Option<Rev>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<(i64,)> =
            on!(conn, c => sqlx::query_as(DEPARTURE).bind(user.0).bind(room.0).fetch_optional(c))?;
        Ok(found.map(|(rev,)| Rev(rev)))
    }

    /// The rooms that the user has ever left, the latest first, at most `limit`, and the change that
    /// says so. The user may have come back since.
    pub async fn departures(&self, user: UserId, limit: usize) -> Result<Vec<(RoomId, Rev)>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Vec<(Uuid, i64)> =
            on!(conn, c => sqlx::query_as(DEPARTURES).bind(user.0).bind(limit as i64).fetch_all(c))?;
        Ok(found.into_iter().map(|(room, rev)| (RoomId(room), Rev(rev))).collect())
    }
}

/// Records the departures among a batch's changes, while the members' rows are still there.
pub(crate) async fn record(tx: &mut Tx, events: &[NewRoomEvent]) -> Result<(), StoreError> {
    // Of one who left twice the last time counts. Ascending, so that batches never wait in a circle.
    let departures: HashMap<(UserId, RoomId), &NewRoomEvent> =
        events.iter().filter_map(|event| Some(((leaver(event)?, event.room), event))).collect();
    let mut departures: Vec<_> = departures.into_iter().collect();
    departures.sort_unstable_by_key(|(key, _)| *key);
    if departures.is_empty() {
        return Ok(());
    }
    let rows = Rows::new()
        .id(departures.iter().map(|((user, _), _)| user.0))
        .id(departures.iter().map(|((_, room), _)| room.0))
        .int(departures.iter().map(|(_, event)| event.rev.0))
        .int(departures.iter().map(|(_, event)| event.at.0));
    tx.conn.run(&DEPARTED, &rows).await?;
    Ok(())
}

fn leaver(event: &NewRoomEvent) -> Option<UserId> {
    // Only changes of membership begin an epoch.
    if event.rev != event.epoch {
        return None;
    }
    match ServerEvent::decode(event.payload.as_slice()).ok()?.kind? {
        EventData::RoomMemberLeft(left) => left.user_id.parse().ok(),
        _ => None,
    }
}
