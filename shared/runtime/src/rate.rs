//! How many events come per second, as an average that forgets.
//!
//! The invariant: it knows no clock; who asks says what time it is.

use std::time::Duration;

use tokio::time::Instant;

/// Over how long it is averaged.
const MEMORY: Duration = Duration::from_millis(100);

/// A rate.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    per_second: f64,
    at: Instant,
}

impl Rate {
    /// Nothing has come so far.
    pub fn new(at: Instant) -> Self {
        Self { per_second: 0.0, at }
    }

    /// So many came now.
    pub fn add(&mut self, events: usize, now: Instant) {
        self.per_second = self.now(now) + events as f64 / MEMORY.as_secs_f64();
        self.at = now;
    }

    /// How many come in such a time.
    pub fn within(&self, time: Duration, now: Instant) -> f64 {
        self.now(now) * time.as_secs_f64()
    }

    fn now(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64() / MEMORY.as_secs_f64();
        self.per_second * (-passed).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_comes_and_what_came_long_ago_is_forgotten() {
        let (now, every) = (Instant::now(), Duration::from_millis(8));
        let mut rate = Rate::new(now);
        (0..50_u32).for_each(|index| rate.add(1, now + every * index));
        let last = now + every * 50;
        assert!((0.8..1.2).contains(&rate.within(every, last)), "one each time: {}", rate.within(every, last));
        assert!(rate.within(every, last + MEMORY * 5) < 0.01);
    }
}
