//! Refusals after the batch that wrote them: told to whoever was away, and forgotten in the end.
//!
//! As receipts the batch reads them itself. The invariant: none goes that is younger than asked.

use domain::{Timestamp, UserId};
use prost::Message as _;
use protocol::wire::MessageFailed;

use crate::error::damaged;
use crate::{Store, StoreError};

const FORGET: &str = "DELETE FROM refused_jobs WHERE job_id IN
    (SELECT job_id FROM refused_jobs WHERE refused_at < $1 ORDER BY refused_at LIMIT $2)";

const OF_USER: &str = "SELECT failure FROM refused_jobs
    WHERE user_id = $1 AND refused_at >= $2 AND failure IS NOT NULL ORDER BY refused_at DESC LIMIT $3";

impl Store {
    /// What a user was refused since then, oldest first; of very many the newest.
    pub async fn refusals_of(
        &self,
        user: UserId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<MessageFailed>, StoreError> {
        let mut conn = self.db.read().await?;
        let found: Vec<(Vec<u8>,)> =
            on!(conn, c => sqlx::query_as(OF_USER).bind(user.0).bind(since.0).bind(limit as i64).fetch_all(c))?;
        let read = |(failure,): (Vec<u8>,)| {
            MessageFailed::decode(failure.as_slice()).map_err(|_| damaged("what a sender is told"))
        };
        found.into_iter().rev().map(read).collect()
    }

    /// Removes at most `limit` refusals from before that time, oldest first; how many.
    pub async fn forget_refused(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let mut conn = self.db.write().await?;
        run!(conn, FORGET, before.0, limit as i64)
    }
}
