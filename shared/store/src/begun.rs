//! Events that were begun and perhaps never finished: how a killer is found that leaves no error.
//!
//! Counts only; what follows from a count is the caller's business. The invariant: a count is
//! committed before the event it is about is touched, and is forgotten an hour after its last change.

use std::time::Duration;

use domain::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError};

/// How long a count is believed: longer than a supervisor waits between two starts.
pub const BELIEVED: Duration = Duration::from_hours(1);

/// Events of one shard that are named: each is one death, or a count that could not be taken back.
const ALONE_LIMIT: i64 = 1_000;

/// Rows whose count is 0 were taken back; they end with their hour, too.
const FORGET: &str = "DELETE FROM begun_jobs WHERE shard = $1 AND begun_at < $2";
const BEGIN: &str = "INSERT INTO begun_jobs (shard, job_id, is_alone, count, begun_at) VALUES ($1, $2, $3, 1, $4)
    ON CONFLICT (shard, job_id, is_alone)
    DO UPDATE SET count = begun_jobs.count + 1, begun_at = excluded.begun_at RETURNING count";
const ALONE: &str = "SELECT job_id FROM begun_jobs WHERE shard = $1 AND is_alone AND count > 0
    ORDER BY begun_at DESC, job_id LIMIT $2";
const TAKE_BACK: &str = "UPDATE begun_jobs SET count = count - 1
    WHERE shard = $1 AND job_id = $2 AND is_alone = $3 AND count > 0";
const FORGET_ALL: &str = "DELETE FROM begun_jobs WHERE begun_at < $1 AND (shard, job_id, is_alone) IN
    (SELECT shard, job_id, is_alone FROM begun_jobs WHERE begun_at < $1 LIMIT $2)";
const FINISH: &str = "DELETE FROM begun_jobs WHERE shard = $1 AND job_id = $2 AND is_alone = $3";

/// What is known of the past of a batch that others may have begun before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// How often it was begun with this head and not finished, this time included.
    pub times: u64,
    /// Events of the shard that were begun alone and not finished, the latest first.
    pub alone: Vec<Uuid>,
}

impl Store {
    /// Counts that a batch of the shard is begun whose first event others may have begun before.
    pub async fn begin_again(&self, shard: u16, head: Uuid, now: Timestamp) -> Result<Again, StoreError> {
        let mut conn = self.db.write().await?;
        run!(conn, FORGET, i64::from(shard), now.0 - BELIEVED.as_millis() as i64)?;
        let (times,): (i64,) = on!(conn, c => {
            sqlx::query_as(BEGIN).bind(i64::from(shard)).bind(head).bind(false).bind(now.0).fetch_one(c)
        })?;
        let alone: Vec<(Uuid,)> =
            on!(conn, c => sqlx::query_as(ALONE).bind(i64::from(shard)).bind(ALONE_LIMIT).fetch_all(c))?;
        Ok(Again { times: times as u64, alone: alone.into_iter().map(|(job,)| job).collect() })
    }

    /// The batch with that head was settled.
    pub async fn finish_again(&self, shard: u16, head: Uuid) -> Result<(), StoreError> {
        run!(self.db.write().await?, FINISH, i64::from(shard), head, false).map(drop)
    }

    /// The batch with that head was begun and given back: it was not that often.
    pub async fn take_back_again(&self, shard: u16, head: Uuid) -> Result<(), StoreError> {
        run!(self.db.write().await?, TAKE_BACK, i64::from(shard), head, false).map(drop)
    }

    /// Counts that an event is begun by itself; how often that was, this time included.
    pub async fn begin_alone(&self, shard: u16, job: Uuid, now: Timestamp) -> Result<u64, StoreError> {
        let mut conn = self.db.write().await?;
        let (times,): (i64,) = on!(conn, c => {
            sqlx::query_as(BEGIN).bind(i64::from(shard)).bind(job).bind(true).bind(now.0).fetch_one(c)
        })?;
        Ok(times as u64)
    }

    /// The event was settled.
    pub async fn finish_alone(&self, shard: u16, job: Uuid) -> Result<(), StoreError> {
        run!(self.db.write().await?, FINISH, i64::from(shard), job, true).map(drop)
    }

    /// The event was begun by itself and given back: it was not that often.
    pub async fn take_back_alone(&self, shard: u16, job: Uuid) -> Result<(), StoreError> {
        run!(self.db.write().await?, TAKE_BACK, i64::from(shard), job, true).map(drop)
    }

    /// Removes at most `limit` counts that are believed no more, of all shards; how many.
    pub async fn forget_begun(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        run!(self.db.write().await?, FORGET_ALL, now.0 - BELIEVED.as_millis() as i64, limit as i64)
    }
}
