//! Membership: who is in a room, in which role, and how far they have read.
//!
//! It knows no rights: it says what is, the callers judge. The invariant: how far somebody has read
//! only moves forward and never past the room's newest message.

use std::collections::HashMap;

use domain::room::{Role, RoomKind};
use domain::{RoomId, Seq, Timestamp, UserId};
use protocol::wire;
use uuid::Uuid;

use crate::db::Engine;
use crate::error::damaged;
use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreError};

/// What somebody is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The kind of room.
    pub kind: RoomKind,
    /// What the member may do.
    pub role: Role,
    /// True: the account is blocked and may do nothing.
    pub blocked: bool,
}

const STANDING: &str = "SELECT c.kind, m.role, u.blocked_at FROM room_members m
    JOIN room_counters c ON c.room_id = m.room_id JOIN users u ON u.user_id = m.user_id
    WHERE m.room_id = $1 AND m.user_id = $2";
const MEMBERS: &str =
    "SELECT user_id, role FROM room_members WHERE room_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3";
const SHARING: RowsSql = rows_sql!([1 id uuid, 2 viewer uuid]
    "SELECT id FROM given WHERE EXISTS (SELECT 1 FROM room_members v
        JOIN room_members o ON o.room_id = v.room_id AND o.user_id = given.id WHERE v.user_id = given.viewer)");
macro_rules! set_read {
    ($returning:literal) => {
        concat!(
            "UPDATE room_members
                SET read_seq = CASE WHEN c.last_seq < $3 THEN c.last_seq ELSE $3 END, read_at = $4
                FROM room_counters c
                WHERE room_members.room_id = $1 AND room_members.user_id = $2 AND c.room_id = $1
                  AND read_seq < $3 AND read_seq < c.last_seq
                RETURNING ",
            $returning
        )
    };
}
// With the tail. Beside a file whoever tells it is the one who stored it: no word is lost between them.
const SET_READ_POSTGRES: &str = concat!(
    "WITH moved AS (",
    set_read!("room_members.room_id AS room, user_id AS member, read_seq AS seq, read_at AS at"),
    "), tail AS (INSERT INTO room_changes (rooms, mark)
        SELECT ''::bytea, uuid_send(room) || uuid_send(member) || int8send(seq) || int8send(at) FROM moved)
     SELECT seq FROM moved"
);
const SET_READ_SQLITE: &str = set_read!("read_seq");
const HAS_READ: &str = "SELECT m.read_seq, c.last_seq FROM room_members m
    JOIN room_counters c ON c.room_id = m.room_id WHERE m.room_id = $1 AND m.user_id = $2";
/// How often a mark is tried that finds its member removed and added again.
const READ_ATTEMPTS: usize = 5;
pub(crate) const READS: &str = "SELECT user_id, read_seq FROM room_members
    WHERE room_id = $1 AND read_at IS NOT NULL ORDER BY read_at DESC, user_id LIMIT $2";

/// The same for many rooms in one round trip; beside a file a statement for each costs no more.
pub(crate) const READS_OF: RowsSql = RowsSql {
    postgres: "WITH given(room, most) AS (SELECT * FROM UNNEST($1::uuid[], $2::bigint[]))
        SELECT given.room, latest.user_id, latest.read_seq FROM given CROSS JOIN LATERAL
            (SELECT user_id, read_seq, read_at FROM room_members WHERE room_id = given.room AND read_at IS NOT NULL
             ORDER BY read_at DESC, user_id LIMIT given.most) latest
        ORDER BY latest.read_at DESC, latest.user_id",
    sqlite: "",
};

/// Read marks that [`Store::reads_since`] answers at most.
pub const READS_SINCE_MOST: usize = 200;
pub(crate) const READS_SINCE: RowsSql = rows_sql!([1 room uuid, 2 since bigint]
    "SELECT m.room_id, m.user_id, m.read_seq, m.read_at FROM given JOIN room_members m ON m.room_id = given.room
     WHERE m.read_at > given.since ORDER BY m.read_at, m.room_id, m.user_id LIMIT 200");

/// What became of a read mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The watermark stands here now.
    Moved(Seq),
    /// It stood there, or further on, already.
    Stood,
    /// Nobody reads in a room whose member they are not.
    NoMember,
}

/// How far somebody has read in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMark {
    /// Where.
    pub room: RoomId,
    /// Who.
    pub user: UserId,
    /// Up to and including this message.
    pub seq: Seq,
    /// Since when, by the clock of the edge that was told.
    pub at: Timestamp,
}

impl Store {
    /// What `user` is in `room`; `None`: no member, or no such room.
    pub async fn standing(&self, room: RoomId, user: UserId) -> Result<Option<Standing>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<(String, String, Option<i64>)> =
            on!(conn, c => sqlx::query_as(STANDING).bind(room.0).bind(user.0).fetch_optional(c))?;
        found.map(|(kind, role, blocked_at)| Standing::read(&kind, &role, blocked_at)).transpose()
    }

    /// The members of a room by ascending id, those after `after`, at most `limit`.
    pub async fn members(
        &self,
        room: RoomId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Role)>, StoreError> {
        let after = after.map_or_else(Uuid::nil, |user| user.0);
        let mut conn = self.db.read().await?;
        let found: Vec<(Uuid, String)> =
            on!(conn, c => sqlx::query_as(MEMBERS).bind(room.0).bind(after).bind(limit as i64).fetch_all(c))?;
        found.into_iter().map(|(user, role)| Ok((UserId(user), read_role(&role)?))).collect()
    }

    /// Those of `users` who share at least one room with `viewer`, the viewer included who has any.
    pub async fn sharing_room(&self, viewer: UserId, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let rows = Rows::new().id(users.iter().map(|user| user.0)).id(users.iter().map(|_| viewer.0));
        let found: Vec<(Uuid,)> = self.db.read().await?.fetch(&SHARING, &rows).await?;
        Ok(found.into_iter().map(|(user,)| UserId(user)).collect())
    }

    /// Marks everything up to and including `seq` (at most the newest message) as read.
    pub async fn set_read(&self, room: RoomId, user: UserId, seq: Seq, at: Timestamp) -> Result<Reading, StoreError> {
        for _ in 0..READ_ATTEMPTS {
            if let Some(moved) = self.move_read(room, user, seq, at).await? {
                return Ok(Reading::Moved(moved));
            }
            match self.has_read(room, user, seq).await? {
                None => return Ok(Reading::NoMember),
                Some(true) => return Ok(Reading::Stood),
                // It met a removal and then an addition: the new row was not there yet.
                Some(false) => {}
            }
        }
        Err(StoreError::TimedOut("a member came and went while a read mark was set".to_owned()))
    }

    /// Whether the watermark stands there already; `None`: no member.
    async fn has_read(&self, room: RoomId, user: UserId, seq: Seq) -> Result<Option<bool>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<(i64, i64)> =
            on!(conn, c => sqlx::query_as(HAS_READ).bind(room.0).bind(user.0).fetch_optional(c))?;
        Ok(found.map(|(read, last)| read >= seq.0.min(last)))
    }

    /// The new watermark if it moved.
    async fn move_read(&self, room: RoomId, user: UserId, seq: Seq, at: Timestamp) -> Result<Option<Seq>, StoreError> {
        let mut conn = self.db.write().await?;
        let sql = if matches!(conn.engine, Engine::Sqlite(_)) { SET_READ_SQLITE } else { SET_READ_POSTGRES };
        // All rows, though there is one at most: the commit, which may fail, comes after the last.
        let moved: Vec<(i64,)> = on!(conn, c => {
            sqlx::query_as(sql).bind(room.0).bind(user.0).bind(seq.0).bind(at.0).fetch_all(c)
        })?;
        Ok(moved.first().map(|(seq,)| Seq(*seq)))
    }

    /// The read marks of these rooms that moved after `since`, the earliest first: the first
    /// [`READS_SINCE_MOST`] of them.
    pub async fn reads_since(&self, rooms: &[RoomId], since: Timestamp) -> Result<Vec<ReadMark>, StoreError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let rows = Rows::new().id(rooms.iter().map(|room| room.0)).int(rooms.iter().map(|_| since.0));
        let found: Vec<(Uuid, Uuid, i64, i64)> = self.db.read().await?.fetch(&READS_SINCE, &rows).await?;
        let mark = |(room, user, seq, at)| ReadMark {
            room: RoomId(room),
            user: UserId(user),
            seq: Seq(seq),
            at: Timestamp(at),
        };
        Ok(found.into_iter().map(mark).collect())
    }

    /// How far the members of each room have read, those who have read anything, latest first, at most `limit`
    /// of a room; nothing of a room of which nobody has.
    pub async fn reads_of(
        &self,
        rooms: &[RoomId],
        limit: usize,
    ) -> Result<HashMap<RoomId, Vec<(UserId, Seq)>>, StoreError> {
        if rooms.is_empty() {
            return Ok(HashMap::new());
        }
        let mut conn = self.db.read().await?;
        let mut found: Vec<(Uuid, Uuid, i64)> = Vec::new();
        if matches!(conn.engine, Engine::Postgres(_)) {
            let rows = Rows::new().id(rooms.iter().map(|room| room.0)).int(rooms.iter().map(|_| limit as i64));
            found = conn.fetch(&READS_OF, &rows).await?;
        } else {
            for room in rooms {
                let of_room: Vec<(Uuid, i64)> =
                    on!(conn, c => sqlx::query_as(READS).bind(room.0).bind(limit as i64).fetch_all(c))?;
                found.extend(of_room.into_iter().map(|(user, seq)| (room.0, user, seq)));
            }
        }
        let mut reads: HashMap<RoomId, Vec<(UserId, Seq)>> = HashMap::new();
        for (room, user, seq) in found {
            reads.entry(RoomId(room)).or_default().push((UserId(user), Seq(seq)));
        }
        Ok(reads)
    }
}

impl ReadMark {
    /// As clients are told.
    pub fn to_wire(&self) -> wire::MessageReadBy {
        wire::MessageReadBy {
            room_id: self.room.to_string(),
            user_id: self.user.to_string(),
            seq: self.seq.0,
            read_at: self.at.to_rfc3339(),
        }
    }
}

impl Standing {
    pub(crate) fn read(kind: &str, role: &str, blocked_at: Option<i64>) -> Result<Self, StoreError> {
        Ok(Self { kind: read_kind(kind)?, role: read_role(role)?, blocked: blocked_at.is_some() })
    }
}

pub(crate) fn read_kind(text: &str) -> Result<RoomKind, StoreError> {
    RoomKind::parse(text).map_err(|_| damaged("a room's kind"))
}

pub(crate) fn read_role(text: &str) -> Result<Role, StoreError> {
    Role::parse(text).ok_or_else(|| damaged("a member's role"))
}
