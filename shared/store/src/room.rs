//! Rooms: making them, finding them, where each of them stands.
//!
//! It knows no rights. The invariant: a direct room exists once, however many make it at once, and
//! a room's counters exist exactly as long as the room.

use domain::room::{Role, RoomKind};
use domain::{Rev, RoomId, Seq, Timestamp, UserId};
use uuid::Uuid;

use crate::db::Tx;
use crate::member::{read_kind, read_role};
use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreError, change};

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Which.
    pub id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// A group's name.
    pub title: Option<String>,
    /// Who made it.
    pub created_by: UserId,
    /// Since when.
    pub created_at: Timestamp,
    /// The number of its newest message; zero: none yet.
    pub last_seq: Seq,
    /// The number of its newest durable change.
    pub rev: Rev,
    /// The `rev` of its newest change of membership.
    pub epoch: Rev,
}

/// A conversation to be made.
#[derive(Debug, Clone)]
pub struct NewRoom {
    /// Which; for a direct room `RoomId::direct(a, b)`.
    pub id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// A group's name.
    pub title: Option<String>,
    /// Who makes it.
    pub creator: UserId,
    /// Everybody in it, the creator included.
    pub members: Vec<(UserId, Role)>,
    /// Now.
    pub at: Timestamp,
    /// The encoded `wire::ServerEvent` of `room.created`, which is the room's change number 1.
    pub payload: Vec<u8>,
}

/// What came of making a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New(Room),
    /// It was there before, unchanged.
    Existing(Room),
}

/// Where a room stands, for one of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomState {
    /// Which.
    pub room_id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// What the member may do there.
    pub role: Role,
    /// The number of its newest message.
    pub last_seq: Seq,
    /// The number of its newest durable change.
    pub rev: Rev,
    /// The `rev` of its newest change of membership.
    pub epoch: Rev,
    /// How far the member has read.
    pub read_seq: Seq,
    /// Messages since then, or since the member joined; never below 0.
    pub unread: i64,
}

macro_rules! room_columns {
    () => {
        "r.room_id, c.kind, r.title, r.created_by, r.created_at, c.last_seq, c.rev, c.epoch"
    };
}
macro_rules! state_columns {
    () => {
        "c.room_id, c.kind, m.role, c.last_seq, c.rev, c.epoch, m.read_seq, m.joined_seq"
    };
}

const NEW_ROOM: &str = "INSERT INTO rooms (room_id, title, created_by, created_at)
    VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const NEW_COUNTERS: &str = "INSERT INTO room_counters (room_id, kind, last_seq, rev, epoch) VALUES ($1, $2, 0, 1, 1)";
const NEW_MEMBERS: RowsSql = rows_sql!([1 room uuid, 2 member uuid, 3 role text]
    "INSERT INTO room_members (room_id, user_id, role, joined_seq, read_seq)
     SELECT room, member, role, 0, 0 FROM given JOIN users ON users.user_id = given.member WHERE true
     ON CONFLICT DO NOTHING");
const FIRST_EVENT: &str =
    "INSERT INTO room_events (room_id, rev, epoch, payload, happened_at) VALUES ($1, 1, 1, $2, $3)";
const ONE: &str = concat!(
    "SELECT ",
    room_columns!(),
    " FROM rooms r JOIN room_counters c ON c.room_id = r.room_id WHERE r.room_id = $1"
);
pub(crate) const CONVERSATIONS: &str = concat!(
    "SELECT ",
    room_columns!(),
    " FROM room_members m JOIN rooms r ON r.room_id = m.room_id
     JOIN room_counters c ON c.room_id = m.room_id
     WHERE m.user_id = $1 AND m.room_id > $2 ORDER BY m.room_id LIMIT $3"
);
pub(crate) const ROOM_STATES: RowsSql = rows_sql!([1 room uuid, 2 member uuid] concat!(
    "SELECT ", state_columns!(), " FROM given
     JOIN room_members m ON m.room_id = given.room AND m.user_id = given.member
     JOIN room_counters c ON c.room_id = m.room_id"
));
const REVS: RowsSql = rows_sql!([1 room uuid]
    "SELECT c.room_id, c.last_seq, c.rev FROM given JOIN room_counters c ON c.room_id = given.room");

#[derive(sqlx::FromRow)]
struct RoomRecord {
    room_id: Uuid,
    kind: String,
    title: Option<String>,
    created_by: Uuid,
    created_at: i64,
    last_seq: i64,
    rev: i64,
    epoch: i64,
}

impl RoomRecord {
    fn read(self) -> Result<Room, StoreError> {
        Ok(Room {
            id: RoomId(self.room_id),
            kind: read_kind(&self.kind)?,
            title: self.title,
            created_by: UserId(self.created_by),
            created_at: Timestamp(self.created_at),
            last_seq: Seq(self.last_seq),
            rev: Rev(self.rev),
            epoch: Rev(self.epoch),
        })
    }
}

#[derive(sqlx::FromRow)]
pub(crate) struct StateRecord {
    pub(crate) room_id: Uuid,
    pub(crate) kind: String,
    pub(crate) role: String,
    pub(crate) last_seq: i64,
    pub(crate) rev: i64,
    pub(crate) epoch: i64,
    pub(crate) read_seq: i64,
    pub(crate) joined_seq: i64,
}

impl StateRecord {
    pub(crate) fn read(self) -> Result<RoomState, StoreError> {
        Ok(RoomState {
            room_id: RoomId(self.room_id),
            kind: read_kind(&self.kind)?,
            role: read_role(&self.role)?,
            last_seq: Seq(self.last_seq),
            rev: Rev(self.rev),
            epoch: Rev(self.epoch),
            read_seq: Seq(self.read_seq),
            unread: (self.last_seq - self.read_seq.max(self.joined_seq)).max(0),
        })
    }
}

impl Store {
    /// Makes a room with its members and its first change (`room.created`, `rev` 1), or finds the
    /// one with that id. `Conflict("memberIds")` when a member has no account.
    pub async fn create_room(&self, new: &NewRoom) -> Result<Created, StoreError> {
        let mut tx = self.db.begin().await?;
        let title = new.title.as_deref();
        // Whoever comes second waits here until the first one is done.
        if run!(tx.conn, NEW_ROOM, new.id.0, title, new.creator.0, new.at.0)? == 0 {
            let found: Option<RoomRecord> = on!(tx.conn, c => sqlx::query_as(ONE).bind(new.id.0).fetch_optional(c))?;
            tx.roll_back().await?;
            let found = found.ok_or(StoreError::Conflict("room"))?;
            return found.read().map(Created::Existing);
        }
        if !fill_room(&mut tx, new).await? {
            tx.roll_back().await?;
            return Err(StoreError::Conflict("memberIds"));
        }
        tx.commit().await?;
        Ok(Created::New(Room {
            id: new.id,
            kind: new.kind,
            title: new.title.clone(),
            created_by: new.creator,
            created_at: new.at,
            last_seq: Seq::ZERO,
            rev: Rev(1),
            epoch: Rev(1),
        }))
    }

    /// One room.
    pub async fn room(&self, id: RoomId) -> Result<Option<Room>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<RoomRecord> = on!(conn, c => sqlx::query_as(ONE).bind(id.0).fetch_optional(c))?;
        found.map(RoomRecord::read).transpose()
    }

    /// Every room of a user, in no order.
    pub async fn rooms_of(&self, user: UserId) -> Result<Vec<RoomState>, StoreError> {
        Ok(self.membership_of(user).await?.map(|of| of.rooms).unwrap_or_default())
    }

    /// Those of `rooms` that the user is a member of, in no order.
    pub async fn room_states(&self, user: UserId, rooms: &[RoomId]) -> Result<Vec<RoomState>, StoreError> {
        let mut rooms = rooms.to_vec();
        rooms.sort_unstable();
        rooms.dedup();
        let rows = Rows::new().id(rooms.iter().map(|room| room.0)).id(rooms.iter().map(|_| user.0));
        let found: Vec<StateRecord> = self.db.read().await?.fetch(&ROOM_STATES, &rows).await?;
        found.into_iter().map(StateRecord::read).collect()
    }

    /// Where those of `rooms` stand that exist, in no order.
    pub async fn revs(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Seq, Rev)>, StoreError> {
        let rows = Rows::new().id(rooms.iter().map(|room| room.0));
        let found: Vec<(Uuid, i64, i64)> = self.db.read().await?.fetch(&REVS, &rows).await?;
        Ok(found.into_iter().map(|(room, seq, rev)| (RoomId(room), Seq(seq), Rev(rev))).collect())
    }

    /// The rooms of a user by ascending id, those after `after`, at most `limit`.
    pub async fn conversations(
        &self,
        user: UserId,
        after: Option<RoomId>,
        limit: usize,
    ) -> Result<Vec<Room>, StoreError> {
        let after = after.map_or_else(Uuid::nil, |room| room.0);
        let mut conn = self.db.read().await?;
        let found: Vec<RoomRecord> =
            on!(conn, c => sqlx::query_as(CONVERSATIONS).bind(user.0).bind(after).bind(limit as i64).fetch_all(c))?;
        found.into_iter().map(RoomRecord::read).collect()
    }
}

/// Gives a new room its counters, members and first change; false when a member has no account.
async fn fill_room(tx: &mut Tx, new: &NewRoom) -> Result<bool, StoreError> {
    let rows = Rows::new()
        .id(new.members.iter().map(|_| new.id.0))
        .id(new.members.iter().map(|(user, _)| user.0))
        .text(new.members.iter().map(|(_, role)| role.as_str()));
    if tx.conn.run(&NEW_MEMBERS, &rows).await? != new.members.len() as u64 {
        return Ok(false);
    }
    run!(tx.conn, NEW_COUNTERS, new.id.0, new.kind.as_str())?;
    run!(tx.conn, FIRST_EVENT, new.id.0, new.payload.as_slice(), new.at.0)?;
    change::grow(tx, new.members.iter().map(|(user, _)| *user)).await?;
    Ok(true)
}
