//! Events per second of each user, in one number per user.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use domain::UserId;
use domain::rate::{ArrivalUs, Rate};

/// After so many events, users whose budget is full again are forgotten.
const SWEEP_EVERY: u64 = 16_384;

pub(crate) struct Limiter {
    rate: Rate,
    states: DashMap<UserId, ArrivalUs>,
    taken: AtomicU64,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, states: DashMap::new(), taken: AtomicU64::new(0) }
    }

    /// Takes one event; `Err` holds the milliseconds to wait.
    pub(crate) fn take(&self, user: UserId, now_us: u64) -> Result<(), u64> {
        if self.rate.per_second == 0 {
            return Ok(());
        }
        if self.taken.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.states.retain(|_, state| *state > now_us);
        }
        let mut state = self.states.entry(user).or_insert(0);
        *state = self.rate.take(*state, now_us)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn one_user_over_the_rate_does_not_slow_another() {
        let limiter = Limiter::new(Rate { per_second: 1, burst: 2 });
        let (busy, calm) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        assert!(limiter.take(busy, 1).is_ok() && limiter.take(busy, 1).is_ok());
        assert!(limiter.take(busy, 1).is_err());
        assert!(limiter.take(calm, 1).is_ok());
    }

    #[test]
    fn idle_users_are_forgotten() {
        let limiter = Limiter::new(Rate { per_second: 1_000_000, burst: 1 });
        for n in 0..u128::from(SWEEP_EVERY) {
            let _ = limiter.take(UserId(Uuid::from_u128(n)), 1_000_000 * n as u64);
        }
        assert!(limiter.states.len() <= 2, "{}", limiter.states.len());
    }
}
