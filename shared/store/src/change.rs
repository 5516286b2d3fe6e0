//! The version of a user's set of rooms, and whose rights or rooms have changed.
//!
//! It knows no rights: it says whose changed, the callers compare. The invariants: whoever looks
//! again with the cursor of the last look is told of every change that was committed since, however
//! late and by whomever; and users' rows are locked in the order of their ids, after all else, so
//! that transactions never wait in a circle.

use std::collections::HashMap;

use domain::{Membership, RoomId, UserId};
use uuid::Uuid;

use crate::db::{Conn, Db, Tx};
use crate::room::StateRecord;
use crate::rows::{Rows, RowsSql};
use crate::user::AccountRecord;
use crate::{Account, RoomState, Store, StoreError};

/// A user's account and rooms at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomsOf {
    /// The account, with the version of the set.
    pub account: Account,
    /// The rooms, in no order.
    pub rooms: Vec<RoomState>,
}

/// How far somebody has looked at what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeCursor {
    /// What follows this was not seen yet.
    after: (i64, Uuid),
    /// Where the next look begins, if this one goes on over several pages.
    next: Option<i64>,
}

const LOCK: RowsSql = rows_sql!([1 member uuid]
    "SELECT user_id FROM users WHERE user_id IN (SELECT member FROM given) ORDER BY user_id",
    postgres " FOR UPDATE");
const GROW: RowsSql = rows_sql!([1 member uuid]
    "UPDATE users SET membership = membership + 1 FROM given WHERE user_id = given.member");
pub(crate) const ROOMS_OF: RowsSql = rows_sql!([1 id uuid]
    "SELECT u.user_id, u.blocked_at, u.tokens_valid_after, u.membership, u.account_role, c.room_id, c.kind, m.role, c.last_seq, c.rev, c.epoch, m.read_seq, m.joined_seq
    FROM given JOIN users u ON u.user_id = given.id LEFT JOIN room_members m ON m.user_id = u.user_id
    LEFT JOIN room_counters c ON c.room_id = m.room_id");
const ROOM_SETS: RowsSql = rows_sql!([1 id uuid]
    "SELECT u.user_id, u.membership, m.room_id FROM given JOIN users u ON u.user_id = given.id
     LEFT JOIN room_members m ON m.user_id = u.user_id");
const ACCOUNTS: RowsSql = rows_sql!([1 id uuid]
    "SELECT u.user_id, u.blocked_at, u.tokens_valid_after, u.membership, u.account_role FROM given JOIN users u ON u.user_id = given.id");
// Transactions below the oldest running one are all done: the next look begins there, and finds once
// more what was seen of those above. Numbers that were not given yet come from another installation.
const HORIZON_POSTGRES: &str = "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT) AS begins,
    CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT) AS ends";
// There is one writer: whatever is above the highest number comes later.
const HORIZON_SQLITE: &str = "SELECT 1 + COALESCE((SELECT changed_in FROM users WHERE changed_in > 0
    ORDER BY changed_in DESC LIMIT 1), 0) AS begins, 9223372036854775807 AS ends";
const CHANGED: &str = "SELECT changed_in, user_id, blocked_at, tokens_valid_after, membership, account_role FROM users
    WHERE changed_in > 0 AND (changed_in, user_id) > ($1, $2) AND changed_in < $3
    ORDER BY changed_in, user_id LIMIT $4";

#[derive(sqlx::FromRow)]
struct RoomsRecord {
    #[sqlx(flatten)]
    account: AccountRecord,
    room_id: Option<Uuid>,
    kind: Option<String>,
    role: Option<String>,
    last_seq: Option<i64>,
    rev: Option<i64>,
    epoch: Option<i64>,
    read_seq: Option<i64>,
    joined_seq: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct ChangedRecord {
    changed_in: i64,
    #[sqlx(flatten)]
    account: AccountRecord,
}

impl RoomsRecord {
    /// The room of this row; none if the user has none.
    fn state(&mut self) -> Option<StateRecord> {
        Some(StateRecord {
            room_id: self.room_id?,
            kind: self.kind.take()?,
            role: self.role.take()?,
            last_seq: self.last_seq?,
            rev: self.rev?,
            epoch: self.epoch?,
            read_seq: self.read_seq?,
            joined_seq: self.joined_seq?,
        })
    }
}

impl ChangeCursor {
    fn from(number: i64) -> Self {
        Self { after: (number, Uuid::nil()), next: None }
    }
}

impl Store {
    /// An account and all its rooms at one moment.
    pub async fn membership_of(&self, user: UserId) -> Result<Option<RoomsOf>, StoreError> {
        Ok(self.memberships_of(&[user]).await?.remove(&user))
    }

    /// The same of many users; nothing of who has no account.
    pub async fn memberships_of(&self, users: &[UserId]) -> Result<HashMap<UserId, RoomsOf>, StoreError> {
        let rows = Rows::new().id(users.iter().map(|id| id.0));
        let found: Vec<RoomsRecord> = self.db.read().await?.fetch(&ROOMS_OF, &rows).await?;
        let mut all: HashMap<UserId, RoomsOf> = HashMap::with_capacity(users.len());
        for mut record in found {
            let state = record.state();
            let account = Account::from(record.account);
            let of = all.entry(account.id).or_insert_with(|| RoomsOf { account, rooms: Vec::new() });
            of.rooms.extend(state.map(StateRecord::read).transpose()?);
        }
        Ok(all)
    }

    /// The ids of the rooms of those of `users` who have an account, and the version of each set at
    /// that moment, in no order.
    pub async fn room_sets(&self, users: &[UserId]) -> Result<HashMap<UserId, (Membership, Vec<RoomId>)>, StoreError> {
        let rows = Rows::new().id(users.iter().map(|id| id.0));
        let found: Vec<(Uuid, i64, Option<Uuid>)> = self.db.read().await?.fetch(&ROOM_SETS, &rows).await?;
        let mut sets: HashMap<UserId, (Membership, Vec<RoomId>)> = HashMap::with_capacity(users.len());
        for (user, membership, room) in found {
            let (_, rooms) = sets.entry(UserId(user)).or_insert((Membership(membership), Vec::new()));
            rooms.extend(room.map(RoomId));
        }
        Ok(sets)
    }

    /// How those of `ids` stand that have an account, in no order.
    pub async fn accounts(&self, ids: &[UserId]) -> Result<Vec<Account>, StoreError> {
        let rows = Rows::new().id(ids.iter().map(|id| id.0));
        let found: Vec<AccountRecord> = self.db.read().await?.fetch(&ACCOUNTS, &rows).await?;
        Ok(found.into_iter().map(Account::from).collect())
    }

    /// Where somebody begins to look who has read the accounts after this call.
    pub async fn change_cursor(&self) -> Result<ChangeCursor, StoreError> {
        let (begins, _) = horizon(&self.db, &mut self.db.read().await?, HORIZON_SQLITE).await?;
        Ok(ChangeCursor::from(begins))
    }

    /// Accounts whose rights (blocked, tokens void) or membership changed since the last look, at
    /// most `limit` (some of them perhaps once more); as many as that: look again at once.
    pub async fn changed_accounts(&self, cursor: &mut ChangeCursor, limit: usize) -> Result<Vec<Account>, StoreError> {
        let mut conn = self.db.read().await?;
        let (begins, ends) = horizon(&self.db, &mut conn, HORIZON_SQLITE).await?;
        let (number, user) = cursor.after;
        let found: Vec<ChangedRecord> = on!(conn, c => {
            sqlx::query_as(CHANGED).bind(number).bind(user).bind(ends).bind(limit as i64).fetch_all(c)
        })?;
        // What commits late between two pages lies above what was the horizon at the first one.
        let next = cursor.next.unwrap_or(begins);
        *cursor = match found.last() {
            Some(last) if found.len() >= limit => {
                ChangeCursor { after: (last.changed_in, last.account.user_id), next: Some(next) }
            }
            _ => ChangeCursor::from(next),
        };
        Ok(found.into_iter().map(|record| record.account.into()).collect())
    }
}

/// From which number on somebody else may still come, and below which number all of ours lie.
pub(crate) async fn horizon(db: &Db, conn: &mut Conn, sqlite: &'static str) -> Result<(i64, i64), StoreError> {
    let sql = if matches!(db, Db::Postgres { .. }) { HORIZON_POSTGRES } else { sqlite };
    on!(*conn, c => sqlx::query_as(sql).fetch_one(c))
}

/// Notes that the set of rooms, or a role there, of each of these users has changed: once for each
/// transaction. The last thing a transaction writes.
pub(crate) async fn grow(tx: &mut Tx, users: impl Iterator<Item = UserId>) -> Result<(), StoreError> {
    let mut users: Vec<Uuid> = users.map(|user| user.0).collect();
    if users.is_empty() {
        return Ok(());
    }
    users.sort_unstable();
    users.dedup();
    let rows = Rows::new().id(users);
    tx.conn.run(&LOCK, &rows).await?;
    tx.conn.run(&GROW, &rows).await?;
    Ok(())
}
