//! The work on one shard: receive a batch, apply it, settle it, again.
//!
//! The invariant: nothing is settled that was not applied, and nothing newer is applied before it.

use std::time::Duration;

use broker::{BrokerError, Consumer};
use handlers::Unavailable;
use runtime::{Backoff, Shutdown};

use crate::caution::Caution;
use crate::{Parts, batch};

/// Events in one batch at most. Larger batches save little and delay what is urgent; smaller ones make a single shard slow.
pub(crate) const BATCH_EVENTS: usize = 400;

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
    let mut caution = Caution::new(shard);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    while !stop.is_requested() {
        let Err(reason) = work(&parts, shard, &orders, &mut caution, &mut backoff).await else { return };
        // The consumer is closed by now: what it held is received again, in order.
        tracing::warn!(shard, %reason, "work on a shard is interrupted");
        let answered = wait_until_healthy(&parts, stop, &mut backoff).await;
        if let Interrupted::Dependency(unavailable) = reason {
            caution.given_back(&parts, &unavailable, answered).await;
        }
    }
}

/// Consumes until told to end.
async fn work(
    parts: &Parts,
    shard: u16,
    orders: &Orders,
    caution: &mut Caution,
    backoff: &mut Backoff,
) -> Result<(), Interrupted> {
    let mut consumer = parts.broker.consume(shard).await?;
    caution.begin(parts);
    let let_go = orders.let_go.requested();
    tokio::pin!(let_go);
    tokio::select! {
        biased;
        () = &mut let_go => {}
        worked = consume(parts, &mut consumer, &orders.stop, caution, backoff) => {
            // Whether it went well or not: everything is given back before the lease can be.
            consumer.close().await;
            return worked;
        }
    }
    consumer.abandon();
    caution.let_go(parts).await;
    orders.stop.requested().await;
    Ok(())
}

/// Takes batch after batch; asked to stop, what was already received too, and then no more.
async fn consume(
    parts: &Parts,
    consumer: &mut Consumer,
    stop: &Shutdown,
    caution: &mut Caution,
    backoff: &mut Backoff,
) -> Result<(), Interrupted> {
    loop {
        let received = tokio::select! {
            received = consumer.next_batch(BATCH_EVENTS) => received?,
            () = stop.requested() => break,
        };
        caution.take(parts, consumer, received).await?;
        backoff.reset();
    }
    consumer.begin_stop().await?;
    loop {
        let received = consumer.next_batch(BATCH_EVENTS).await?;
        if received.is_empty() {
            return Ok(());
        }
        caution.take(parts, consumer, received).await?;
    }
}

/// Probes until store, realtime and broker answer: an outage must not push events up the ladder. True
/// when they did at once.
async fn wait_until_healthy(parts: &Parts, stop: &Shutdown, backoff: &mut Backoff) -> bool {
    let mut at_once = true;
    while !stop.is_requested() {
        tokio::select! {
            () = stop.requested() => break,
            () = backoff.wait() => {}
        }
        let store = parts.store.ping().await.is_ok();
        let realtime = parts.realtime.ping().await.is_ok();
        if store && realtime && parts.broker.can_settle() {
            return at_once;
        }
        at_once = false;
    }
    false
}

impl From<batch::BatchError> for Interrupted {
    fn from(error: batch::BatchError) -> Self {
        match error {
            batch::BatchError::Broker(error) => Self::Broker(error),
            batch::BatchError::Dependency(error) => Self::Dependency(error),
        }
    }
}
