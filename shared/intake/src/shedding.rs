//! Under load the edge stops publishing what may be lost: presence and typing, never messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::{Broker, Depths};
use runtime::Tasks;

/// Ready events in the high class over which shedding begins.
const BEGIN_OVER: u64 = 10_000;
/// Ready events in the high class under which it ends; the distance keeps it from flapping.
const END_UNDER: u64 = 8_000;
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// Whether ephemeral events are shed at the moment.
#[derive(Default)]
pub(crate) struct Shedding {
    on: AtomicBool,
}

impl Shedding {
    /// Samples the broker's depth until the service stops.
    pub(crate) fn watch(broker: Broker, tasks: &Tasks) -> Arc<Self> {
        let shedding = Arc::new(Self::default());
        let (watched, shutdown) = (Arc::clone(&shedding), tasks.shutdown().clone());
        tasks.own("queue depth", async move {
            while !shutdown.is_requested() {
                // It also shows them as metrics.
                if let Ok(depths) = broker.depths().await {
                    watched.judge(&depths);
                }
                tokio::select! {
                    () = shutdown.requested() => {}
                    () = tokio::time::sleep(SAMPLE_EVERY) => {}
                }
            }
        });
        shedding
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn judge(&self, depths: &Depths) {
        let was_on = self.is_on();
        let now_on = depths.high > if was_on { END_UNDER } else { BEGIN_OVER };
        if was_on != now_on {
            tracing::warn!(shedding = now_on, high = depths.high, "shedding of presence and typing changed");
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
        let at = |high| Depths { high, ..Depths::default() };
        for (depth, expected) in [(10_000, false), (10_001, true), (8_001, true), (8_000, false), (10_000, false)] {
            shedding.judge(&at(depth));
            assert_eq!(shedding.is_on(), expected, "{depth}");
        }
    }
}
