//! Addresses that fail again and again are kept out for a while, each time for longer.
//!
//! Pure: time comes in as microseconds of a clock that never goes back. The invariant: an address
//! that does not fail more often than allowed is never kept out, however much it does besides.

const MINUTE_US: u64 = 60_000_000;
/// How long an address is kept out the first time.
const BLOCK_US: u64 = 15_000_000;
/// Each time twice as long, so many times.
const DOUBLINGS: u32 = 5;
/// After so long without a block the first time counts as the first again.
const FORGIVEN_US: u64 = 10 * MINUTE_US;

/// The failures of one address.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// When all of them will count for nothing (GCRA, as in `domain::rate`, by the minute).
    worn_off_us: u64,
    blocked_until_us: u64,
    blocks: u32,
}

/// How many failures lead to a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks {
    per_minute: u32,
}

impl Blocks {
    /// So many failures a minute are allowed; zero: any number.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute }
    }

    pub(crate) fn is_off(self) -> bool {
        self.per_minute == 0
    }

    /// Counts a failure.
    pub(crate) fn count(self, failures: &mut Failures, now_us: u64) {
        if self.is_off() || failures.blocked_until_us > now_us {
            return;
        }
        failures.worn_off_us = failures.worn_off_us.max(now_us) + MINUTE_US / u64::from(self.per_minute);
        if failures.worn_off_us - now_us <= MINUTE_US {
            return;
        }
        if now_us > failures.blocked_until_us.saturating_add(FORGIVEN_US) {
            failures.blocks = 0;
        }
        failures.blocked_until_us = now_us + (BLOCK_US << failures.blocks);
        failures.blocks = (failures.blocks + 1).min(DOUBLINGS);
        failures.worn_off_us = 0;
    }
}

impl Failures {
    /// `Err`: kept out for so many milliseconds more.
    pub(crate) fn judge(&self, now_us: u64) -> Result<(), u64> {
        match self.blocked_until_us.saturating_sub(now_us) {
            0 => Ok(()),
            left_us => Err(left_us.div_ceil(1000)),
        }
    }

    /// False when there is nothing to remember.
    pub(crate) fn matter(&self, now_us: u64) -> bool {
        self.worn_off_us > now_us
            || (self.blocked_until_us > 0 && now_us <= self.blocked_until_us.saturating_add(FORGIVEN_US))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(failures: &mut Failures, times: u32, now_us: u64) {
        (0..times).for_each(|_| Blocks::new(60).count(failures, now_us));
    }

    #[test]
    fn as_many_as_are_allowed_in_a_minute_do_no_harm() {
        let mut failures = Failures::default();
        for minute in 0..10 {
            fail(&mut failures, 60, minute * MINUTE_US);
            assert_eq!(failures.judge(minute * MINUTE_US), Ok(()));
        }
    }

    #[test]
    fn each_time_it_takes_twice_as_long_up_to_eight_minutes_until_all_is_forgiven() {
        let (mut failures, mut now_us, mut waits) = (Failures::default(), 0, Vec::new());
        for _ in 0..8 {
            fail(&mut failures, 61, now_us);
            let wait_ms = failures.judge(now_us).expect_err("kept out");
            waits.push(wait_ms / 1000);
            now_us += wait_ms * 1000;
            assert_eq!(failures.judge(now_us), Ok(()));
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 480, 480]);
        assert!(failures.matter(now_us));
        now_us += FORGIVEN_US + 1;
        assert!(!failures.matter(now_us));
        fail(&mut failures, 61, now_us);
        assert_eq!(failures.judge(now_us), Err(15_000));
    }
}
