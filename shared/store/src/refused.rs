//! Refusals that nobody will ask for any more.
//!
//! Who writes and reads them is the batch. The invariant: none goes that is younger than asked.

use domain::Timestamp;

use crate::{Store, StoreError};

const FORGET: &str = "DELETE FROM refused_jobs WHERE job_id IN
    (SELECT job_id FROM refused_jobs WHERE refused_at < $1 ORDER BY refused_at LIMIT $2)";

impl Store {
    /// Removes at most `limit` refusals from before that time, oldest first; how many.
    pub async fn forget_refused(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let mut conn = self.db.write().await?;
        run!(conn, FORGET, before.0, limit as i64)
    }
}
