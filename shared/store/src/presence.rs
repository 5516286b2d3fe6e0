//! Presence: what users wish to be seen as, and whom their coming and going may concern.
//!
//! It knows nobody's presence. The invariant: one wish per user, the one that was told last; a user's
//! events come in order, so no clock is asked.

use domain::UserId;
use domain::presence::Status;
use uuid::Uuid;

use crate::error::damaged;
use crate::rows::{Rows, RowsSql};
use crate::{Store, StoreError};

const WISH: RowsSql = rows_sql!([1 id uuid, 2 status text]
    "INSERT INTO presence_wishes (user_id, status) SELECT id, status FROM given WHERE true
     ON CONFLICT (user_id) DO UPDATE SET status = excluded.status
     WHERE presence_wishes.status <> excluded.status");
const WISHES: RowsSql = rows_sql!([1 id uuid]
    "SELECT w.user_id, w.status FROM given JOIN presence_wishes w ON w.user_id = given.id");
/// The first partners of a user by their rooms' ids, which an index has in order: no more rooms are read
/// than are wanted. Only the databases' ways to do so for each user in turn differ.
macro_rules! first_partners {
    () => {
        "SELECT other.user_id FROM room_members m
            JOIN room_counters c ON c.room_id = m.room_id AND c.kind = 'direct'
            JOIN room_members other ON other.room_id = m.room_id AND other.user_id <> m.user_id
            WHERE m.user_id = given.id ORDER BY m.room_id LIMIT (SELECT MAX(most) FROM given)"
    };
}
pub(crate) const DIRECT_PARTNERS: RowsSql = RowsSql {
    postgres: rows_sql!([1 id uuid, 2 most bigint]
        concat!("SELECT given.id, found.user_id FROM given CROSS JOIN LATERAL (", first_partners!(), ") AS found"))
    .postgres,
    sqlite: rows_sql!([1 id uuid, 2 most bigint]
        concat!("SELECT given.id, unhex(found.value) FROM given
            JOIN json_each((SELECT json_group_array(hex(user_id)) FROM (", first_partners!(), "))) AS found"))
    .sqlite,
};

impl Store {
    /// Keeps what users wish to be seen as; name each user once.
    pub async fn set_wishes(&self, wishes: &[(UserId, Status)]) -> Result<(), StoreError> {
        if wishes.is_empty() {
            return Ok(());
        }
        // In one order, so that two who write at once do not wait for one another.
        let mut wishes = wishes.to_vec();
        wishes.sort_unstable();
        let rows = Rows::new()
            .id(wishes.iter().map(|(user, _)| user.0))
            .text(wishes.iter().map(|(_, status)| status.as_str()));
        self.db.write().await?.run(&WISH, &rows).await?;
        Ok(())
    }

    /// What those of `users` wish to be seen as who ever said so, in no order.
    pub async fn wishes(&self, users: &[UserId]) -> Result<Vec<(UserId, Status)>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let rows = Rows::new().id(users.iter().map(|user| user.0));
        let found: Vec<(Uuid, String)> = self.db.read().await?.fetch(&WISHES, &rows).await?;
        let read = |(user, status): (Uuid, String)| {
            let status = Status::parse(&status).ok_or_else(|| damaged("a wish of presence"))?;
            Ok((UserId(user), status))
        };
        found.into_iter().map(read).collect()
    }

    /// The others in the users' direct rooms, as pairs of user and other, in no order; of each user the
    /// first `limit`. One statement, however many users; name each once.
    pub async fn direct_partners(&self, users: &[UserId], limit: usize) -> Result<Vec<(UserId, UserId)>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let rows = Rows::new().id(users.iter().map(|user| user.0)).int(users.iter().map(|_| limit as i64));
        let found: Vec<(Uuid, Uuid)> = self.db.read().await?.fetch(&DIRECT_PARTNERS, &rows).await?;
        Ok(found.into_iter().map(|(user, partner)| (UserId(user), UserId(partner))).collect())
    }
}
