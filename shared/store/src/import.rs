//! Accounts and rooms by the hundred thousand, for seeding and importing.
//!
//! It checks only what the database can know. The invariant: everything of one import is applied or
//! nothing, and importing the same again changes nothing.

use std::collections::HashSet;

use domain::room::{Role, RoomKind};
use domain::{RoomId, Timestamp, UserId, limits};
use prost::Message as _;
use protocol::EventData;
use protocol::wire::{self, ServerEvent};
use uuid::Uuid;

use crate::db::Tx;
use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreError, change};

/// An account to be imported.
#[derive(Debug, Clone)]
pub struct ImportUser {
    /// Who.
    pub id: UserId,
    /// Normalised address.
    pub email: Option<String>,
    /// Argon2id hash, PHC string; `None`: cannot log in, but tokens count.
    pub password_hash: Option<String>,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
}

/// A room to be imported.
#[derive(Debug, Clone)]
pub struct ImportRoom {
    /// Which.
    pub id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// A group's name.
    pub title: Option<String>,
    /// Everybody in it; the first one is the owner.
    pub members: Vec<UserId>,
}

/// How many of the imported were new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Accounts.
    pub users: u64,
    /// Rooms.
    pub rooms: u64,
}

/// An import in progress. Dropping it rolls back.
#[derive(Debug)]
#[must_use = "an import that is dropped is rolled back"]
pub struct ImportTx {
    tx: Tx,
    now: Timestamp,
    counts: ImportCounts,
    /// Accounts that were there before and have a new room. Nobody knows the others' rooms yet.
    moved: HashSet<UserId>,
    /// Accounts of this import.
    fresh: HashSet<UserId>,
}

/// Rows in one statement.
const CHUNK: usize = 5_000;

const USERS: RowsSql = rows_sql!(
    [1 id uuid, 2 email text, 3 password_hash text, 4 first_name text, 5 last_name text, 6 at bigint]
    "INSERT INTO users (user_id, email, password_hash, first_name, last_name, created_at, tokens_valid_after)
     SELECT id, email, password_hash, first_name, last_name, at, 0 FROM given WHERE true ON CONFLICT DO NOTHING
     RETURNING user_id");
const KNOWN: RowsSql = rows_sql!([1 id uuid] "SELECT user_id FROM given JOIN users ON users.user_id = given.id");
const ROOMS: RowsSql = rows_sql!([1 room uuid, 2 title text, 3 creator uuid, 4 at bigint]
    "INSERT INTO rooms (room_id, title, created_by, created_at)
     SELECT room, title, creator, at FROM given WHERE true ON CONFLICT DO NOTHING RETURNING room_id");
const COUNTERS: RowsSql = rows_sql!([1 room uuid, 2 kind text]
    "INSERT INTO room_counters (room_id, kind, last_seq, rev, epoch) SELECT room, kind, 0, 1, 1 FROM given");
const EVENTS: RowsSql = rows_sql!([1 room uuid, 2 at bigint, 3 payload bytea]
    "INSERT INTO room_events (room_id, rev, epoch, happened_at, payload) SELECT room, 1, 1, at, payload FROM given");
const MEMBERS: RowsSql = rows_sql!([1 room uuid, 2 member uuid, 3 role text]
    "INSERT INTO room_members (room_id, user_id, role, joined_seq, read_seq)
     SELECT room, member, role, 0, 0 FROM given JOIN users ON users.user_id = given.member");

impl Store {
    /// Begins an import at `now`. Other writers of a `SQLite` file wait until it ends: read the
    /// whole input before.
    pub async fn begin_import(&self, now: Timestamp) -> Result<ImportTx, StoreError> {
        let (moved, fresh) = (HashSet::new(), HashSet::new());
        Ok(ImportTx { tx: self.db.begin_bulk().await?, now, counts: ImportCounts::default(), moved, fresh })
    }
}

impl ImportTx {
    /// Adds the accounts that are not there yet. `Conflict("email")` when an address belongs to an
    /// account with another id.
    pub async fn users(&mut self, users: &[ImportUser]) -> Result<(), StoreError> {
        for chunk in users.chunks(CHUNK) {
            let rows = Rows::new()
                .id(chunk.iter().map(|user| user.id.0))
                .maybe_text(chunk.iter().map(|user| user.email.as_deref()))
                .maybe_text(chunk.iter().map(|user| user.password_hash.as_deref()))
                .text(chunk.iter().map(|user| user.first_name.as_str()))
                .text(chunk.iter().map(|user| user.last_name.as_str()))
                .int(chunk.iter().map(|_| self.now.0));
            let added: Vec<(Uuid,)> = self.tx.conn.fetch(&USERS, &rows).await?;
            self.counts.users += added.len() as u64;
            let complete = added.len() == chunk.len();
            self.fresh.extend(added.into_iter().map(|(id,)| UserId(id)));
            if !complete {
                let ids: Vec<UserId> = chunk.iter().map(|user| user.id).collect();
                if !self.unknown_users(&ids).await?.is_empty() {
                    return Err(StoreError::Conflict("email"));
                }
            }
        }
        Ok(())
    }

    /// Those of `ids` that have no account, in the order given: to name the line that is wrong.
    pub async fn unknown_users(&mut self, ids: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let mut known = HashSet::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            let rows = Rows::new().id(chunk.iter().map(|id| id.0));
            let found: Vec<(Uuid,)> = self.tx.conn.fetch(&KNOWN, &rows).await?;
            known.extend(found.into_iter().map(|(id,)| UserId(id)));
        }
        Ok(ids.iter().copied().filter(|id| !known.contains(id)).collect())
    }

    /// Adds the rooms that are not there yet, each with its members and `room.created` as change
    /// number 1; rooms that exist stay as they are. `Conflict("memberIds")` when a member of a new
    /// room has no account or a room has no member.
    pub async fn rooms(&mut self, rooms: &[ImportRoom]) -> Result<(), StoreError> {
        for chunk in rooms.chunks(CHUNK) {
            let new = self.add_rooms(chunk).await?;
            self.counts.rooms += new.len() as u64;
            self.fill_rooms(&new).await?;
            self.add_members(&new).await?;
        }
        Ok(())
    }

    /// Adds the rooms alone and answers those that were not there.
    async fn add_rooms<'a>(&mut self, rooms: &'a [ImportRoom]) -> Result<Vec<&'a ImportRoom>, StoreError> {
        let creators: Option<Vec<Uuid>> = rooms.iter().map(|room| room.members.first().map(|id| id.0)).collect();
        let rows = Rows::new()
            .id(rooms.iter().map(|room| room.id.0))
            .maybe_text(rooms.iter().map(|room| room.title.as_deref()))
            .id(creators.ok_or(StoreError::Conflict("memberIds"))?)
            .int(rooms.iter().map(|_| self.now.0));
        let added: Vec<(Uuid,)> = self.tx.conn.fetch(&ROOMS, &rows).await?;
        let mut added: HashSet<Uuid> = added.into_iter().map(|(id,)| id).collect();
        // Of two lines with one id the first one counts.
        Ok(rooms.iter().filter(|room| added.remove(&room.id.0)).collect())
    }

    async fn fill_rooms(&mut self, rooms: &[&ImportRoom]) -> Result<(), StoreError> {
        let rows = Rows::new().id(rooms.iter().map(|room| room.id.0)).text(rooms.iter().map(|room| room.kind.as_str()));
        self.tx.conn.run(&COUNTERS, &rows).await?;
        let rows = Rows::new()
            .id(rooms.iter().map(|room| room.id.0))
            .int(rooms.iter().map(|_| self.now.0))
            .bytes(rooms.iter().map(|room| room.created(self.now).encode_to_vec()));
        self.tx.conn.run(&EVENTS, &rows).await?;
        Ok(())
    }

    async fn add_members(&mut self, rooms: &[&ImportRoom]) -> Result<(), StoreError> {
        let members: Vec<(Uuid, Uuid, Role)> =
            rooms.iter().flat_map(|room| room.roles().map(|(user, role)| (room.id.0, user.0, role))).collect();
        for chunk in members.chunks(CHUNK) {
            let rows = Rows::new()
                .id(chunk.iter().map(|member| member.0))
                .id(chunk.iter().map(|member| member.1))
                .text(chunk.iter().map(|member| member.2.as_str()));
            if self.tx.conn.run(&MEMBERS, &rows).await? < chunk.len() as u64 {
                return Err(StoreError::Conflict("memberIds"));
            }
            self.moved.extend(chunk.iter().map(|member| UserId(member.1)).filter(|user| !self.fresh.contains(user)));
        }
        Ok(())
    }

    /// Commits; how many were new.
    pub async fn commit(mut self) -> Result<ImportCounts, StoreError> {
        let mut moved: Vec<UserId> = self.moved.drain().collect();
        moved.sort_unstable();
        for chunk in moved.chunks(CHUNK) {
            change::grow(&mut self.tx, chunk.iter().copied()).await?;
        }
        self.tx.commit().await?;
        Ok(self.counts)
    }
}

impl ImportRoom {
    /// The members with their roles, each once.
    fn roles(&self) -> impl Iterator<Item = (UserId, Role)> {
        let owner = self.members.first().copied();
        let mut seen = HashSet::with_capacity(self.members.len());
        let members = self.members.iter().copied().filter(move |user| seen.insert(*user));
        members.map(move |user| {
            let owns = self.kind == RoomKind::Group && Some(user) == owner;
            (user, if owns { Role::Owner } else { Role::Member })
        })
    }

    fn created(&self, now: Timestamp) -> ServerEvent {
        let member =
            |(user, role): (UserId, Role)| wire::Member { user_id: user.to_string(), role: role.as_str().to_owned() };
        EventData::RoomCreated(wire::RoomCreated {
            room_id: self.id.to_string(),
            rev: 1,
            r#type: self.kind.as_str().to_owned(),
            title: self.title.clone(),
            // Of a very large room nobody is told all members at once: as many as a request makes one with.
            members: self.roles().take(limits::MEMBERS_PER_REQUEST + 1).map(member).collect(),
            created_by: self.members.first().map(UserId::to_string).unwrap_or_default(),
            created_at: now.to_rfc3339(),
            last_seq: 0,
        })
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_very_large_room_not_all_members_are_told_at_once() {
        let members = (1..=1_500).map(|number| UserId(Uuid::from_u128(number))).collect();
        let room = ImportRoom { id: RoomId(Uuid::nil()), kind: RoomKind::Group, title: None, members };
        let Some(EventData::RoomCreated(created)) = room.created(Timestamp(0)).kind else { panic!("another event") };
        assert_eq!(created.members.len(), limits::MEMBERS_PER_REQUEST + 1);
        assert_eq!(created.members[0].role, Role::Owner.as_str());
        assert_eq!(room.roles().count(), 1_500, "all of them are members");
    }
}
