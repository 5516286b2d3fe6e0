//! The work on one shard: receive a batch, apply it, settle it, again.
//!
//! The invariant: nothing is settled that was not applied, and nothing newer is applied before it.

use std::time::Duration;

use broker::{BrokerError, Consumer};
use handlers::Unavailable;
use runtime::{Backoff, Shutdown};

use crate::{Parts, batch};

/// Events in one batch at most. Larger batches save little and delay what is urgent.
const BATCH_EVENTS: usize = 200;

/// What a worker makes of its experience: how long to wait before it tries again, and how many
/// events it dares to take at once.
struct Pace {
    backoff: Backoff,
    events: usize,
    /// Batches given back one after another because a dependency did not answer.
    in_vain: u32,
}

impl Pace {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        Self { backoff, events: BATCH_EVENTS, in_vain: 0 }
    }

    fn settled(&mut self) {
        self.backoff.reset();
        (self.events, self.in_vain) = (BATCH_EVENTS, 0);
    }

    /// A dependency that fails again with the same events may be all right and the batch too much.
    fn given_back(&mut self) {
        self.in_vain += 1;
        if self.in_vain >= 2 {
            self.events = (self.events / 2).max(1);
        }
    }
}

/// Why the work on a shard was interrupted. Neither counts as a failure of any event.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Dependency(#[from] Unavailable),
}

/// The two ways in which a worker is asked to end.
#[derive(Clone, Default)]
pub(crate) struct Orders {
    /// Settle what was received, then end: the lease is still held.
    pub(crate) stop: Shutdown,
    /// Let go at once: the lease is lost and another may have it.
    pub(crate) let_go: Shutdown,
}

/// Works on `shard` until told to end; survives the loss of any dependency.
pub(crate) async fn run(parts: Parts, shard: u16, orders: Orders) {
    let stop = &orders.stop;
    let mut pace = Pace::new();
    while !stop.is_requested() {
        let Err(reason) = work(&parts, shard, &orders, &mut pace).await else { return };
        // The consumer is closed by now: what it held is received again, in order.
        tracing::warn!(shard, %reason, "work on a shard is interrupted");
        if matches!(reason, Interrupted::Dependency(_)) {
            pace.given_back();
        }
        wait_until_healthy(&parts, stop, &mut pace.backoff).await;
    }
}

/// Consumes until told to end.
async fn work(parts: &Parts, shard: u16, orders: &Orders, pace: &mut Pace) -> Result<(), Interrupted> {
    let mut consumer = parts.broker.consume(shard).await?;
    let let_go = orders.let_go.requested();
    tokio::pin!(let_go);
    tokio::select! {
        biased;
        () = &mut let_go => {}
        worked = consume(parts, &mut consumer, &orders.stop, pace) => {
            // Whether it went well or not: everything is given back before the lease can be.
            consumer.close().await;
            return worked;
        }
    }
    consumer.abandon();
    orders.stop.requested().await;
    Ok(())
}

/// Takes batch after batch; asked to stop, what was already received too, and then no more.
async fn consume(parts: &Parts, consumer: &mut Consumer, stop: &Shutdown, pace: &mut Pace) -> Result<(), Interrupted> {
    loop {
        let received = tokio::select! {
            received = consumer.next_batch(pace.events) => received?,
            () = stop.requested() => break,
        };
        batch::apply_and_settle(parts, consumer, received).await?;
        pace.settled();
    }
    consumer.begin_stop().await?;
    loop {
        let received = consumer.next_batch(pace.events).await?;
        if received.is_empty() {
            return Ok(());
        }
        batch::apply_and_settle(parts, consumer, received).await?;
    }
}

/// Probes until store, realtime and broker answer: an outage must not push events up the ladder.
async fn wait_until_healthy(parts: &Parts, stop: &Shutdown, backoff: &mut Backoff) {
    while !stop.is_requested() {
        tokio::select! {
            () = stop.requested() => return,
            () = backoff.wait() => {}
        }
        let store = parts.store.ping().await.is_ok();
        let realtime = parts.realtime.ping().await.is_ok();
        if store && realtime && parts.broker.is_connected() {
            return;
        }
    }
}

impl From<batch::BatchError> for Interrupted {
    fn from(error: batch::BatchError) -> Self {
        match error {
            batch::BatchError::Broker(error) => Self::Broker(error),
            batch::BatchError::Dependency(error) => Self::Dependency(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_fails_twice_is_tried_in_ever_smaller_parts_until_one_succeeds() {
        let mut pace = Pace::new();
        pace.given_back();
        assert_eq!(pace.events, BATCH_EVENTS, "an outage begins like this, too");
        pace.given_back();
        assert_eq!(pace.events, BATCH_EVENTS / 2);
        for _ in 0..20 {
            pace.given_back();
        }
        assert_eq!(pace.events, 1);
        pace.settled();
        assert_eq!((pace.events, pace.in_vain), (BATCH_EVENTS, 0));
    }
}
