//! The dedupe claim in one process.
//!
//! Decides nothing. The invariant: bounded, and it forgets the oldest half first.

use std::collections::HashSet;

use domain::JobId;

use super::EmbeddedEngine;

/// Jobs in each of the two generations.
const GENERATION: usize = 65_536;

/// Two generations: a full one becomes the old one, and the old one is forgotten.
#[derive(Default)]
pub(super) struct Claims {
    young: HashSet<JobId>,
    old: HashSet<JobId>,
}

impl Claims {
    fn claim(&mut self, job: JobId) -> bool {
        if self.old.contains(&job) || !self.young.insert(job) {
            return false;
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }
}

impl EmbeddedEngine {
    pub(crate) fn claim(&self, jobs: &[JobId]) -> Vec<bool> {
        let mut claims = self.claims.lock();
        jobs.iter().map(|job| claims.claim(*job)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn old_claims_are_forgotten_and_recent_ones_are_not() {
        let mut claims = Claims::default();
        let job = |number: usize| JobId(Uuid::from_u128(number as u128));
        for number in 0..3 * GENERATION {
            assert!(claims.claim(job(number)));
        }
        assert!(claims.young.len() + claims.old.len() <= 2 * GENERATION);
        assert!(claims.claim(job(0)));
        assert!(!claims.claim(job(3 * GENERATION - 1)));
    }
}
