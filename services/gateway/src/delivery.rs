//! What comes from pub/sub: checked to be genuine, then taken to the hub.
//!
//! Knows no session. The invariant: nothing that one of our keys did not sign for the channel it
//! came on reaches a client.

use std::sync::Arc;
use std::time::Duration;

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
    let mut due_ms = None;
    loop {
        let wait = due_ms.map(|due: u64| Duration::from_millis(due.saturating_sub(shared.wheel.now_ms())));
        tokio::select! {
            arrival = inbox.recv() => match arrival {
                Some(first) => {
                    if take_burst(&shared, &keys, &lost, first, &mut inbox) {
                        tokio::task::yield_now().await;
                    }
                }
                None => break,
            },
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            () = shutdown.requested() => break,
        }
        if !shared.meters.pace.is_free() {
            // Outboxes are small: a burst must make no client look slow that reads.
            shared.hub.let_all_leave(shared.wheel.now_ms());
            shared.breathe().await;
        }
        due_ms = shared.hub.let_leave(shared.wheel.now_ms());
    }
    shared.hub.let_all_leave(shared.wheel.now_ms());
}

/// Takes what came together, as far as it is one burst; true if there is more.
fn take_burst(shared: &Shared, keys: &Keyring, lost: &Notify, first: Arrival, inbox: &mut Inbox) -> bool {
    let (mut bytes, mut next) = (0, Some(first));
    while let Some(arrival) = next {
        match arrival {
            Arrival::Delivery { channel, number, payload } => {
                take(shared, keys, channel, number, &payload);
                bytes += payload.len();
            }
            Arrival::Reconnected => {
                tracing::warn!("deliveries may have been lost; comparing all rooms with the store");
                shared.hub.sound.note_loss();
                lost.notify_one();
            }
        }
        if bytes >= BURST_BYTES || !shared.meters.pace.is_free() {
            return true;
        }
        next = inbox.next_at_hand();
    }
    false
}

pub(crate) fn take(shared: &Shared, keys: &Keyring, channel: Channel, number: LogNumber, payload: &[u8]) {
    let Some(opened) = delivery::open(channel, payload, keys) else {
        Counter::DeliveriesForged.inc();
        tracing::warn!(?channel, "a delivery that is not genuine was dropped");
        return;
    };
    shared.hub.route(channel, opened, number, shared.wheel.now_ms());
}
