//! What comes from pub/sub: checked to be genuine, then taken to the hub.
//!
//! Knows no session. The invariant: nothing that one of our keys did not sign for the channel it
//! came on reaches a client.

use std::sync::Arc;

use protocol::{Channel, Keyring, delivery};
use realtime::{Arrival, Inbox, LogNumber};
use telemetry::Counter;
use tokio::sync::Notify;

use crate::shared::Shared;

/// What is taken in one go before the sessions get a chance to send it.
const BURST_BYTES: usize = 32 * 1024;

/// Takes deliveries until the service stops; `lost` is told when some may be missing.
pub(crate) async fn run(shared: Arc<Shared>, mut inbox: Inbox, keys: Keyring, lost: Arc<Notify>) {
    let shutdown = shared.tasks.shutdown().clone();
    let mut burst_bytes = 0;
    loop {
        let arrival = tokio::select! {
            arrival = inbox.recv() => arrival,
            () = shutdown.requested() => return,
        };
        match arrival {
            Some(Arrival::Delivery { channel, number, payload }) => {
                take(&shared, &keys, channel, number, &payload);
                burst_bytes += payload.len();
                if burst_bytes >= BURST_BYTES {
                    burst_bytes = 0;
                    tokio::task::yield_now().await;
                }
                // Outboxes are small: a burst must make no client look slow that reads.
                shared.breathe().await;
            }
            Some(Arrival::Reconnected) => {
                tracing::warn!("deliveries may have been lost; comparing all rooms with the store");
                shared.hub.sound.note_loss();
                lost.notify_one();
            }
            None => return,
        }
    }
}

pub(crate) fn take(shared: &Shared, keys: &Keyring, channel: Channel, number: LogNumber, payload: &[u8]) {
    let Some(opened) = delivery::open(channel, payload, keys) else {
        Counter::DeliveriesForged.inc();
        tracing::warn!(?channel, "a delivery that is not genuine was dropped");
        return;
    };
    shared.hub.route(channel, opened, number, shared.wheel.now_ms());
}
