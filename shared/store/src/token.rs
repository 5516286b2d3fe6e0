//! Refresh tokens: a family begins with a login and ends with a logout, with expiry, or when one of
//! its tokens is used twice.
//!
//! It never sees a token, only its SHA-256. The invariant: of all uses of one token, also
//! concurrent ones, at most one rotates, and the second use ends the whole family.

use domain::{Timestamp, UserId};
use uuid::Uuid;

use crate::db::Tx;
use crate::{Store, StoreError};

/// The first token of a family.
#[derive(Debug, Clone)]
pub struct NewRefresh {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// A new id for the family.
    pub family: Uuid,
    /// Whose.
    pub user: UserId,
    /// Void from then on.
    pub expires_at: Timestamp,
    /// Now.
    pub created_at: Timestamp,
}

/// The token that replaces a used one.
#[derive(Debug, Clone)]
pub struct NextRefresh {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Void from then on.
    pub expires_at: Timestamp,
}

/// What came of using a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It was good, is used now, and the next one is stored.
    Rotated {
        /// Whose.
        user: UserId,
        /// Its family.
        family: Uuid,
    },
    /// It had been used before: the whole family has ended.
    Reused {
        /// Whose.
        user: UserId,
    },
    /// Unknown, expired, or of a family that has ended.
    Unknown,
}

const NEW_FAMILY: &str = "INSERT INTO refresh_families (family, user_id, expires_at) VALUES ($1, $2, $3)";
const NEW_TOKEN: &str =
    "INSERT INTO refresh_tokens (token_hash, family, created_at, expires_at) VALUES ($1, $2, $3, $4)";
// Changes nothing but locks the family, which is where everything begins that adds to it or ends it.
const LOCK: &str = "UPDATE refresh_families SET expires_at = expires_at
    WHERE family IN (SELECT family FROM refresh_tokens WHERE token_hash = $1) RETURNING family, user_id";
const USE: &str = "UPDATE refresh_tokens SET used_at = $2
    WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $2";
const WAS_USED: &str = "SELECT used_at FROM refresh_tokens WHERE token_hash = $1 AND used_at IS NOT NULL";
const OWNER: &str = "SELECT f.user_id FROM refresh_tokens t JOIN refresh_families f ON f.family = t.family
    WHERE t.token_hash = $1";
const PROLONG: &str = "UPDATE refresh_families SET expires_at = $2 WHERE family = $1";
const END: &str = "DELETE FROM refresh_families WHERE family = $1";
const END_OF: &str = "DELETE FROM refresh_families
    WHERE family IN (SELECT family FROM refresh_tokens WHERE token_hash = $1) AND expires_at > $2";
const PURGE_TOKENS: &str = "DELETE FROM refresh_tokens WHERE expires_at < $1 AND token_hash IN
    (SELECT token_hash FROM refresh_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)";
// Only those without tokens: no statement removes more rows than it says. The outer conditions are those
// that Postgres tests again on a row that changed meanwhile.
const PURGE_FAMILIES: &str = "DELETE FROM refresh_families WHERE expires_at < $1 AND family IN
    (SELECT f.family FROM refresh_families f WHERE f.expires_at < $1
        AND NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.family = f.family)
     ORDER BY f.expires_at LIMIT $2)";

impl Store {
    /// Begins a family with its first token.
    pub async fn start_family(&self, new: &NewRefresh) -> Result<(), StoreError> {
        let hash = new.hash.as_slice();
        let mut tx = self.db.begin().await?;
        run!(tx.conn, NEW_FAMILY, new.family, new.user.0, new.expires_at.0)?;
        run!(tx.conn, NEW_TOKEN, hash, new.family, new.created_at.0, new.expires_at.0)?;
        tx.commit().await
    }

    /// Whose token it is, used or not; `None` when it is unknown.
    pub async fn refresh_owner(&self, hash: &[u8; 32]) -> Result<Option<UserId>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Option<(Uuid,)> = on!(conn, c => sqlx::query_as(OWNER).bind(hash.as_slice()).fetch_optional(c))?;
        Ok(found.map(|(user,)| UserId(user)))
    }

    /// Uses the token `old` and stores `next` in its place.
    pub async fn rotate(&self, old: &[u8; 32], next: &NextRefresh, now: Timestamp) -> Result<Rotation, StoreError> {
        let mut tx = self.db.begin().await?;
        let rotation = rotate_in(&mut tx, old.as_slice(), next, now).await?;
        tx.commit().await?;
        Ok(rotation)
    }

    /// Ends the family of that token (logout); false when there is none.
    pub async fn end_family(&self, hash: &[u8; 32], now: Timestamp) -> Result<bool, StoreError> {
        let mut conn = self.db.write().await?;
        Ok(run!(conn, END_OF, hash.as_slice(), now.0)? > 0)
    }

    /// Removes at most `limit` tokens that have expired and, when that was all of them, at most `limit`
    /// families that have none left; how many rows.
    pub async fn purge_expired(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let mut conn = self.db.write().await?;
        let tokens = run!(conn, PURGE_TOKENS, now.0, limit as i64)?;
        if tokens >= limit as u64 {
            return Ok(tokens);
        }
        Ok(tokens + run!(conn, PURGE_FAMILIES, now.0, limit as i64)?)
    }
}

async fn rotate_in(tx: &mut Tx, old: &[u8], next: &NextRefresh, now: Timestamp) -> Result<Rotation, StoreError> {
    let found: Option<(Uuid, Uuid)> = on!(tx.conn, c => sqlx::query_as(LOCK).bind(old).fetch_optional(c))?;
    let Some((family, user)) = found else { return Ok(Rotation::Unknown) };
    let user = UserId(user);
    if run!(tx.conn, USE, old, now.0)? == 0 {
        let earlier: Option<(i64,)> = on!(tx.conn, c => sqlx::query_as(WAS_USED).bind(old).fetch_optional(c))?;
        if earlier.is_none() {
            return Ok(Rotation::Unknown);
        }
        // Whoever uses a token twice, one of the two is a thief.
        run!(tx.conn, END, family)?;
        return Ok(Rotation::Reused { user });
    }
    run!(tx.conn, PROLONG, family, next.expires_at.0)?;
    run!(tx.conn, NEW_TOKEN, next.hash.as_slice(), family, now.0, next.expires_at.0)?;
    Ok(Rotation::Rotated { user, family })
}
