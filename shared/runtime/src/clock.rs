//! The clock, as a value that tests can shift.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use domain::Timestamp;

/// Wall and monotonic time. Clones share one shift.
#[derive(Debug, Clone)]
pub struct Clock {
    shift_ms: Arc<AtomicI64>,
    started: Instant,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self { shift_ms: Arc::default(), started: Instant::now() }
    }

    /// Moves this clock and its clones by `by_ms` more; for tests of clock-dependent behaviour.
    pub fn shift(&self, by_ms: i64) {
        self.shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Now, by the wall.
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Timestamp(now_ms.saturating_add(self.shift_ms.load(Ordering::Relaxed)))
    }

    /// Microseconds since 1970, by the wall.
    pub fn now_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shift_us = self.shift_ms.load(Ordering::Relaxed).saturating_mul(1000);
        (since.as_micros() as u64).saturating_add_signed(shift_us)
    }

    /// Microseconds since this clock was made; never goes back.
    pub fn monotonic_us(&self) -> u64 {
        let shift_us = self.shift_ms.load(Ordering::Relaxed).max(0) as u64 * 1000;
        self.started.elapsed().as_micros() as u64 + shift_us
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_a_shift() {
        let clock = Clock::system();
        let (copy, before) = (clock.clone(), clock.now());
        clock.shift(3_600_000);
        assert!(copy.now().since(before).as_secs() >= 3_600);
    }
}
