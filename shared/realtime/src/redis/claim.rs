//! The dedupe claim: who asks first is told so.
//!
//! It saves look-ups and decides nothing. The invariant: of all who claim one job, at most one is
//! told `true` while the claim lives.

use std::sync::LazyLock;

use domain::JobId;
use redis::Script;

use super::{RedisEngine, keys};
use crate::RealtimeError;

/// Jobs in one run of the script.
const SLICE: usize = 512;

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/claim.lua")));

impl RedisEngine {
    pub(crate) async fn claim(&self, jobs: &[JobId]) -> Result<Vec<bool>, RealtimeError> {
        let mut fresh = Vec::with_capacity(jobs.len());
        for slice in jobs.chunks(SLICE) {
            let mut script = CLAIM.prepare_invoke();
            for job in slice {
                script.key(keys::claim(*job));
            }
            script.arg(keys::CLAIM_TTL.as_millis() as u64);
            fresh.extend(self.script::<Vec<bool>>(&script).await?);
        }
        Ok(fresh)
    }
}
