//! What has to be done from time to time for all connections together.
//!
//! The invariant: nothing here is needed for a right result, only for a tidy one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use telemetry::{Counter, Gauge};

use crate::shared::Shared;

/// How often the hub is swept and the meters are read.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Sweeps for which a room or user without connections is kept, so that a client that comes back at
/// once costs no subscription.
const PATIENCE: u64 = 10;

/// Sweeps until the service stops.
pub(crate) async fn sweep(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown().clone();
    let mut count = 0;
    let mut reported = (0, 0);
    while !shutdown.is_requested() {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        count += 1;
        let unsubscribe = |channels: &[protocol::Channel]| shared.realtime.unsubscribe(&shared.inbox, channels);
        Gauge::LocalRooms.set(shared.hub.sweep(count, PATIENCE, unsubscribe) as f64);
        report(&shared, &mut reported);
    }
}

fn report(shared: &Shared, reported: &mut (u64, u64)) {
    let meters = &shared.meters;
    Gauge::OutboxBytes.set(meters.outbox_bytes.load(Ordering::Relaxed) as f64);
    let now = (meters.deliveries.load(Ordering::Relaxed), meters.dropped.load(Ordering::Relaxed));
    Counter::DeliveriesQueued.add(now.0 - reported.0);
    Counter::DeliveriesDropped.add(now.1 - reported.1);
    *reported = now;
}
