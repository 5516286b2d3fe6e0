//! Under load the edge stops publishing what may be lost: presence and typing, never messages.

use std::sync::atomic::{AtomicBool, Ordering};

/// Ready events in the high class over which shedding begins.
const BEGIN_OVER: u64 = 10_000;
/// Ready events in the high class under which it ends; the distance keeps it from flapping.
const END_UNDER: u64 = 8_000;

/// Whether ephemeral events are shed for the length of the high class at the moment.
#[derive(Default)]
pub(crate) struct Shedding {
    on: AtomicBool,
}

impl Shedding {
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// By what is ready in the high class.
    pub(crate) fn judge(&self, high: u64) {
        let was_on = self.is_on();
        let now_on = high > if was_on { END_UNDER } else { BEGIN_OVER };
        if was_on != now_on {
            tracing::warn!(shedding = now_on, high, "shedding of presence and typing changed");
            self.on.store(now_on, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shedding_begins_and_ends_at_different_depths() {
        let shedding = Shedding::default();
        for (depth, expected) in [(10_000, false), (10_001, true), (8_001, true), (8_000, false), (10_000, false)] {
            shedding.judge(depth);
            assert_eq!(shedding.is_on(), expected, "{depth}");
        }
    }
}
