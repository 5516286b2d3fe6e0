//! The tail of what was committed: which rooms moved, and how far; which read marks did.
//!
//! It knows no events. The invariant: whoever reads on with his cursor learns of every batch that
//! was committed since, however late; of some he learns twice.

use std::time::Duration;

use domain::{Rev, RoomId, Seq, Timestamp, UserId};
use uuid::Uuid;

use crate::change;
use crate::db::Tx;
use crate::error::damaged;
use crate::rows::{Rows, RowsSql};
use crate::{Head, ReadMark, Store, StoreError};

/// How far somebody has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailCursor {
    /// The first number that was not read yet.
    from: i64,
    /// Where the next reading begins, if this one goes on over several pages.
    next: Option<i64>,
}

/// What was committed, as far as one reading goes.
#[derive(Debug, Default)]
pub struct Tail {
    /// The rooms that moved and where each of them stood then; a room may be told several times.
    pub rooms: Vec<(RoomId, Rev)>,
    /// Read marks that moved. On `SQLite` none: in one process no word of them is lost.
    pub marks: Vec<ReadMark>,
    /// False: there is more, read again at once.
    pub complete: bool,
}

/// Batches in one reading.
const PAGE: i64 = 500;
/// A room and its rev in a row.
const ENTRY_BYTES: usize = 24;

const HEADS: RowsSql = rows_sql!([1 room uuid, 2 seq bigint, 3 rev bigint, 4 epoch bigint]
    "UPDATE room_counters SET last_seq = given.seq, rev = given.rev, epoch = given.epoch
     FROM given WHERE room_id = given.room");
const TAIL_SQLITE: &str = "INSERT INTO room_changes (rooms) VALUES ($1)";
const HORIZON_SQLITE: &str =
    "SELECT 1 + COALESCE(MAX(changed_in), 0) AS begins, 9223372036854775807 AS ends FROM room_changes";
const READ: &str = "SELECT changed_in, rooms, mark FROM room_changes
    WHERE changed_in >= $1 AND changed_in < $2 ORDER BY changed_in LIMIT $3";
const FORGET: &str = "DELETE FROM room_changes WHERE changed_in IN
    (SELECT changed_in FROM room_changes WHERE changed_in < $1 ORDER BY changed_in LIMIT $2)";
const NOTE_PLACE: &str = "INSERT INTO tail_places (noted_at, place) SELECT $1, $2
    WHERE NOT EXISTS (SELECT 1 FROM tail_places WHERE noted_at > $3 AND noted_at <= $1) ON CONFLICT DO NOTHING";
const PLACE: &str = "SELECT MAX(place) FROM tail_places WHERE noted_at <= $1 AND place <= $2";
// All older than the one that is in use, and what another installation or a clock far ahead has left.
const FORGET_PLACES: &str = "DELETE FROM tail_places
    WHERE noted_at < (SELECT MAX(noted_at) FROM tail_places WHERE noted_at <= $1)
        OR noted_at < $3 AND place > $2 OR noted_at > $4";
/// Places are noted so far apart, whoever does it.
const PLACES_APART: Duration = Duration::from_secs(30);
/// A clock that is further ahead is wrong.
const AHEAD_MOST: Duration = Duration::from_hours(1);

impl Store {
    /// Where somebody begins to read who has read the rooms after this call.
    pub async fn tail_cursor(&self) -> Result<TailCursor, StoreError> {
        let (from, _) = change::horizon(&self.db, &mut self.db.read().await?, HORIZON_SQLITE).await?;
        Ok(TailCursor { from, next: None })
    }

    /// What was committed since the last reading.
    pub async fn read_tail(&self, cursor: &mut TailCursor) -> Result<Tail, StoreError> {
        let mut conn = self.db.read().await?;
        let (begins, ends) = change::horizon(&self.db, &mut conn, HORIZON_SQLITE).await?;
        let rows: Vec<(i64, Vec<u8>, Option<Vec<u8>>)> =
            on!(conn, c => sqlx::query_as(READ).bind(cursor.from).bind(ends).bind(PAGE).fetch_all(c))?;
        drop(conn);
        // What commits late between two pages lies above what was the horizon at the first one.
        let next = cursor.next.unwrap_or(begins);
        let complete = (rows.len() as i64) < PAGE;
        *cursor = match rows.last() {
            Some((last, ..)) if !complete => TailCursor { from: last + 1, next: Some(next) },
            _ => TailCursor { from: next, next: None },
        };
        let mut tail = Tail { complete, ..Tail::default() };
        for (_, packed, mark) in rows {
            read_row(&packed, &mut tail.rooms)?;
            if let Some(mark) = mark {
                tail.marks.push(read_mark(&mark)?);
            }
        }
        Ok(tail)
    }

    /// Notes where the tail stands now, and says where it stood at least `ago`, at the latest moment that
    /// somebody noted; `None`: nobody did so long ago.
    pub async fn tail_place(&self, now: Timestamp, ago: Duration) -> Result<Option<TailCursor>, StoreError> {
        let (here, _) = change::horizon(&self.db, &mut self.db.read().await?, HORIZON_SQLITE).await?;
        let before = |span: Duration| now.0 - span.as_millis() as i64;
        let mut conn = self.db.write().await?;
        run!(conn, NOTE_PLACE, now.0, here, before(PLACES_APART))?;
        let (place,): (Option<i64>,) = on!(conn, c => sqlx::query_as(PLACE).bind(before(ago)).bind(here).fetch_one(c))?;
        run!(conn, FORGET_PLACES, before(ago), here, before(PLACES_APART), now.plus(AHEAD_MOST).0)?;
        Ok(place.map(|from| TailCursor { from, next: None }))
    }

    /// Removes at most `limit` batches of what lies before a cursor; how many.
    pub async fn forget_tail(&self, before: TailCursor, limit: usize) -> Result<u64, StoreError> {
        let mut conn = self.db.write().await?;
        run!(conn, FORGET, before.from, limit as i64)
    }
}

/// Writes the new counters of rooms, and that they have moved, beside a file.
pub(crate) async fn write_heads(tx: &mut Tx, heads: &[(RoomId, Head)]) -> Result<(), StoreError> {
    if heads.is_empty() {
        return Ok(());
    }
    tx.conn.run(&HEADS, &head_rows(heads)).await?;
    run!(tx.conn, TAIL_SQLITE, packed(heads))?;
    Ok(())
}

/// Rooms with their `seq`, `rev` and `epoch`.
pub(crate) fn head_rows(heads: &[(RoomId, Head)]) -> Rows<'static> {
    Rows::new()
        .id(heads.iter().map(|(room, _)| room.0))
        .int(heads.iter().map(|(_, head)| head.last_seq.0))
        .int(heads.iter().map(|(_, head)| head.rev.0))
        .int(heads.iter().map(|(_, head)| head.epoch.0))
}

fn packed(heads: &[(RoomId, Head)]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(ENTRY_BYTES * heads.len());
    for (room, head) in heads {
        packed.extend_from_slice(room.as_bytes());
        packed.extend_from_slice(&head.rev.0.to_be_bytes());
    }
    packed
}

fn read_row(packed: &[u8], rooms: &mut Vec<(RoomId, Rev)>) -> Result<(), StoreError> {
    let (entries, rest) = packed.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(damaged("the tail"));
    }
    for entry in entries {
        let [room @ .., _, _, _, _, _, _, _, _] = *entry;
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, rev @ ..] = *entry;
        rooms.push((RoomId(Uuid::from_bytes(room)), Rev(i64::from_be_bytes(rev))));
    }
    Ok(())
}

fn read_mark(packed: &[u8]) -> Result<ReadMark, StoreError> {
    let damaged = || damaged("the tail");
    let (room, rest) = packed.split_first_chunk::<16>().ok_or_else(damaged)?;
    let (user, rest) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
    let (seq, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let at = rest.try_into().map_err(|_| damaged())?;
    Ok(ReadMark {
        room: RoomId(Uuid::from_bytes(*room)),
        user: UserId(Uuid::from_bytes(*user)),
        seq: Seq(i64::from_be_bytes(*seq)),
        at: Timestamp(i64::from_be_bytes(at)),
    })
}
