//! A rate limit as a pure function: the generic cell rate algorithm (ITU-T I.371), one number of state.

/// A rate with a burst. Zero `per_second` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events per second in the long run.
    pub per_second: u32,
    /// Events at once after a pause.
    pub burst: u32,
}

/// The state of one limited key: the theoretical arrival time, microseconds on the caller's clock.
pub type ArrivalUs = u64;

impl Rate {
    /// Takes one event at `now_us`. `Ok` holds the new state, `Err` the milliseconds to wait.
    pub fn take(self, state: ArrivalUs, now_us: u64) -> Result<ArrivalUs, u64> {
        if self.per_second == 0 {
            return Ok(state);
        }
        let interval = 1_000_000 / u64::from(self.per_second).max(1);
        let tolerance = interval * u64::from(self.burst.max(1));
        let next = state.max(now_us) + interval;
        let ahead = next - now_us;
        if ahead > tolerance { Err((ahead - tolerance).div_ceil(1000).max(1)) } else { Ok(next) }
    }

    /// Counts an event that has happened, allowed or not. The new state.
    pub fn owe(self, state: ArrivalUs, now_us: u64) -> ArrivalUs {
        if self.per_second == 0 { state } else { state.max(now_us) + 1_000_000 / u64::from(self.per_second).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let rate = Rate { per_second: 10, burst: 5 };
        let mut state = 0;
        for _ in 0..5 {
            state = rate.take(state, 1_000_000).expect("within the burst");
        }
        let wait_ms = rate.take(state, 1_000_000).expect_err("over the burst");
        assert_eq!(wait_ms, 100);
        assert!(rate.take(state, 1_000_000 + wait_ms * 1000).is_ok());
    }

    #[test]
    fn zero_means_unlimited() {
        let rate = Rate { per_second: 0, burst: 0 };
        assert!((0..10_000).all(|_| rate.take(0, 0).is_ok()));
    }
}
