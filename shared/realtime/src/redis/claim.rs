//! The dedupe claim: who asks first is told so.
//!
//! It saves look-ups and decides nothing. The invariant: of all who claim one job, at most one is
//! told `true` while the claim lives.

use std::sync::LazyLock;

use domain::JobId;

use super::round::{Round, Script, read};
use super::{RedisEngine, keys};
use crate::RealtimeError;

/// Jobs in one round.
const SLICE: usize = 512;

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/claim.lua")));

impl RedisEngine {
    pub(crate) async fn claim(&self, jobs: &[JobId]) -> Result<Vec<bool>, RealtimeError> {
        let mut fresh = Vec::with_capacity(jobs.len());
        for slice in jobs.chunks(SLICE) {
            let mut round = Round::new(Some(&CLAIM));
            for together in slice.chunks(self.keys.together(SLICE)) {
                let names: Vec<String> = together.iter().map(|job| keys::claim(*job)).collect();
                round.call(&names).arg(keys::CLAIM_TTL.as_millis() as u64);
            }
            for answer in self.send(&round).await? {
                fresh.extend(read::<Vec<bool>>(answer)?);
            }
        }
        Ok(fresh)
    }
}
