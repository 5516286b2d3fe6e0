//! Taking leave of all clients before the service stops.
//!
//! The invariant: what was accepted before is confirmed and acked before its connection is closed,
//! and all of it ends within the limit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::{CloseCode, EventData, wire};

use crate::handle::Handle;
use crate::handle::outbox::Kind;
use crate::shared::Shared;

/// How long taking leave may take altogether.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Over how long clients are asked to spread their coming back, at least.
pub(crate) const RETURN_WITHIN_MS: u64 = 5_000;
/// So many come back in a second, unless that takes too long.
const RETURNS_PER_SEC: u64 = 500;
/// Nobody is asked to stay away for longer.
const RETURN_WITHIN_MOST_MS: u64 = 60_000;
/// How long the connections stay after `/readyz` has said that the service stops: no new ones are
/// sent here meanwhile.
const STAY: Duration = Duration::from_secs(1);
/// Over how long the connections are closed.
const CLOSE_OVER: Duration = Duration::from_secs(2);
const CLOSE_STEPS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Refuses new connections, tells the others when to come back, closes them, waits for them.
pub(crate) async fn drain(shared: &Arc<Shared>) {
    shared.draining.request();
    let drained = async {
        let handles = shared.wheel.handles();
        tracing::info!(connections = handles.len(), "taking leave of all clients");
        shared.return_within_ms.store(return_within_ms(handles.len()), Ordering::SeqCst);
        for handle in &handles {
            warn(shared, handle);
        }
        if !handles.is_empty() {
            tokio::time::sleep(STAY).await;
        }
        close(&handles).await;
        while shared.live.load(Ordering::SeqCst) > 0 {
            // Whoever slipped in while the door was being shut.
            for handle in shared.wheel.handles() {
                handle.close(CloseCode::Draining);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if tokio::time::timeout(DRAIN_LIMIT, drained).await.is_err() {
        tracing::warn!(left = shared.live.load(Ordering::SeqCst), "not all clients were taken leave of in time");
    }
}

fn warn(shared: &Shared, handle: &Arc<Handle>) {
    if handle.is_ready() {
        let warning =
            EventData::ServerDraining(wire::ServerDraining { retry_after_ms: retry_after_ms(shared, handle.key) });
        handle.push(handle.dialect.event(&warning), Kind::Answer);
    }
}

/// Over how long so many connections come back.
fn return_within_ms(connections: usize) -> u64 {
    (connections as u64 * 1000 / RETURNS_PER_SEC).clamp(RETURN_WITHIN_MS, RETURN_WITHIN_MOST_MS)
}

/// When a client is to come back: for one connection always the same, for all together spread.
pub(crate) fn retry_after_ms(shared: &Shared, key: u64) -> i64 {
    spread(key, shared.return_within_ms.load(Ordering::Relaxed))
}

fn spread(key: u64, within_ms: u64) -> i64 {
    // Fibonacci hashing: neighbours lie far apart.
    let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ((spread * within_ms) >> 32) as i64 + 1
}

/// Closes a few at a time, so that not all come back at once.
async fn close(handles: &[Arc<Handle>]) {
    let share = handles.len().div_ceil(CLOSE_STEPS as usize).max(1);
    for slice in handles.chunks(share) {
        for handle in slice {
            handle.close(CloseCode::Draining);
        }
        if handles.len() > share {
            tokio::time::sleep(CLOSE_OVER / CLOSE_STEPS).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_the_whole_time() {
        let mut buckets = [0; 10];
        for key in 0..1000 {
            let wait_ms = spread(key, RETURN_WITHIN_MS);
            assert!((1..=RETURN_WITHIN_MS as i64).contains(&wait_ms));
            buckets[((wait_ms - 1) as usize * 10 / RETURN_WITHIN_MS as usize).min(9)] += 1;
        }
        assert!(buckets.iter().all(|count| (80..=120).contains(count)), "{buckets:?}");
    }

    #[test]
    fn the_more_come_back_the_longer_it_may_take() {
        assert_eq!(return_within_ms(10), 5_000);
        assert_eq!(return_within_ms(10_000), 20_000);
        assert_eq!(return_within_ms(1_000_000), 60_000);
    }
}
