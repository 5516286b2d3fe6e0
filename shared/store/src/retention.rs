//! Removing what is older than anybody needs: changes of rooms, and who left them.
//!
//! In slices, each one statement that takes milliseconds and locks nothing that a storing transaction
//! waits for. The invariant: of a room's changes a beginning goes, all of it older than asked, and never
//! the newest one; so what is left is without a gap.

use std::collections::HashMap;

use domain::Timestamp;
use uuid::Uuid;

use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreError};

/// Rooms looked at in one slice.
const ROOMS: usize = 100;
/// Changes removed in one slice, at most.
const CHANGES: usize = 1_000;

/// How far a walk through all rooms has come. Whoever forgets it begins anew and finds what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomWalk {
    /// The rooms up to this one are done.
    done: Uuid,
}

/// What came of one slice of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Changes removed.
    pub removed: u64,
    /// All rooms were looked at; the walk stands at the beginning again.
    pub at_end: bool,
}

/// Rooms, their newest change, and their oldest one if it is another.
const OLDEST: &str = "SELECT c.room_id, c.rev, e.rev, e.happened_at
    FROM (SELECT room_id, rev FROM room_counters WHERE room_id > $1 ORDER BY room_id LIMIT $2) c
    LEFT JOIN room_events e ON e.room_id = c.room_id AND e.rev < c.rev
        AND e.rev = (SELECT MIN(o.rev) FROM room_events o WHERE o.room_id = c.room_id)
    ORDER BY c.room_id";
/// The last change of each room, before $2, up to which all are older than $3.
const UP_TO: RowsSql = rows_sql!([1 room uuid, 2 stop bigint, 3 before bigint]
    "SELECT room, upto FROM (SELECT given.room, (SELECT MAX(run.rev) FROM
        (SELECT e.rev, MAX(e.happened_at) OVER (ORDER BY e.rev) AS latest FROM room_events e
         WHERE e.room_id = given.room AND e.rev < given.stop) AS run
        WHERE run.latest < given.before) AS upto FROM given) AS found WHERE upto IS NOT NULL");
const REMOVE: RowsSql = rows_sql!([1 room uuid, 2 upto bigint]
    "DELETE FROM room_events WHERE (room_id, rev) IN
        (SELECT e.room_id, e.rev FROM given JOIN room_events e ON e.room_id = given.room AND e.rev <= given.upto)");
// The outer condition is the one that Postgres tests again on a row that was rewritten meanwhile.
const FORGET_DEPARTURES: &str = "DELETE FROM room_departures WHERE left_at < $1 AND (user_id, room_id) IN
    (SELECT user_id, room_id FROM room_departures WHERE left_at < $1 ORDER BY left_at LIMIT $2)";

/// A room, its newest change, and the number and the time of its oldest one if it is another.
type Oldest = (Uuid, i64, Option<i64>, Option<i64>);

impl Store {
    /// Removes changes from before that time of the next rooms of the walk, at most a thousand.
    pub async fn prune_room_log(&self, walk: &mut RoomWalk, before: Timestamp) -> Result<Slice, StoreError> {
        let mut conn = self.db.read().await?;
        let rooms: Vec<Oldest> =
            on!(conn, c => sqlx::query_as(OLDEST).bind(walk.done).bind(ROOMS as i64).fetch_all(c))?;
        let old: Vec<(Uuid, i64, i64)> = rooms
            .iter()
            .filter(|(.., at)| at.is_some_and(|at| at < before.0))
            .filter_map(|(room, newest, oldest, _)| Some((*room, *newest, (*oldest)?)))
            .collect();
        let most = (CHANGES / old.len().max(1)) as i64;
        let mut up_to: HashMap<Uuid, i64> = HashMap::new();
        if !old.is_empty() {
            let rows = Rows::new()
                .id(old.iter().map(|(room, ..)| *room))
                .int(old.iter().map(|(_, newest, oldest)| (*newest).min(oldest + most)))
                .int(old.iter().map(|_| before.0));
            up_to = conn.fetch::<(Uuid, i64)>(&UP_TO, &rows).await?.into_iter().collect();
        }
        drop(conn);
        let mut removed = 0;
        if !up_to.is_empty() {
            let rows = Rows::new().id(up_to.keys().copied()).int(up_to.values().copied());
            removed = self.db.write().await?.run(&REMOVE, &rows).await?;
        }
        // A room of which as much went as may go in one slice may have more: it is the next one.
        let has_more =
            |it: &Oldest| matches!((it.2, up_to.get(&it.0)), (Some(first), Some(last)) if last - first + 1 >= most);
        let unfinished = rooms.iter().position(has_more);
        let at_end = unfinished.is_none() && rooms.len() < ROOMS;
        walk.done = match unfinished {
            Some(0) => walk.done,
            Some(at) => rooms[at - 1].0,
            None if at_end => Uuid::nil(),
            None => rooms.last().map_or(Uuid::nil(), |it| it.0),
        };
        Ok(Slice { removed, at_end })
    }

    /// Removes at most `limit` departures from before that time, oldest first; how many.
    pub async fn forget_departures(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let mut conn = self.db.write().await?;
        run!(conn, FORGET_DEPARTURES, before.0, limit as i64)
    }
}
