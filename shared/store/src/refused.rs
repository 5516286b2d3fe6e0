//! Refusals after the batch that wrote them: told to whoever was away, and forgotten in the end.
//!
//! As receipts the batch reads them itself. The invariant: none goes that is younger than asked.

use domain::{JobId, Timestamp, UserId};
use prost::Message as _;
use protocol::wire::MessageFailed;
use uuid::Uuid;

use crate::error::damaged;
use crate::{Store, StoreError};

const FORGET: &str = "DELETE FROM refused_jobs WHERE refused_at < $1 AND job_id IN
    (SELECT job_id FROM refused_jobs WHERE refused_at < $1 ORDER BY refused_at LIMIT $2)";

const OF_USER: &str = "SELECT refused_at, job_id, failure FROM refused_jobs
    WHERE user_id = $1 AND (refused_at > $2 OR (refused_at = $2 AND job_id > $3)) AND failure IS NOT NULL
    ORDER BY refused_at, job_id LIMIT $4";

/// A place among a user's refusals.
pub type RefusalCursor = (Timestamp, JobId);

impl Store {
    /// What a user was refused after that place, oldest first, each with its own.
    pub async fn refusals_of(
        &self,
        user: UserId,
        after: RefusalCursor,
        limit: usize,
    ) -> Result<Vec<(RefusalCursor, MessageFailed)>, StoreError> {
        let (at, job) = after;
        let mut conn = self.db.read().await?;
        let found: Vec<(i64, Uuid, Vec<u8>)> = on!(conn, c => {
            sqlx::query_as(OF_USER).bind(user.0).bind(at.0).bind(job.0).bind(limit as i64).fetch_all(c)
        })?;
        let read = |(at, job, failure): (i64, Uuid, Vec<u8>)| {
            let failure = MessageFailed::decode(failure.as_slice()).map_err(|_| damaged("what a sender is told"))?;
            Ok(((Timestamp(at), JobId(job)), failure))
        };
        found.into_iter().map(read).collect()
    }

    /// Removes at most `limit` refusals from before that time, oldest first; how many.
    pub async fn forget_refused(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let mut conn = self.db.write().await?;
        run!(conn, FORGET, before.0, limit as i64)
    }
}
