//! What a publisher gets back: a confirm that always resolves.
//!
//! Knows no engine. The invariant: whoever holds the other end of a confirm either answers it or
//! drops it, and a dropped one reads as `Unavailable`; so no publisher waits for ever. How many
//! confirms are outstanding is bounded here, for both engines alike.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use protocol::SignedEnvelope;
use telemetry::Histogram;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::CONFIRM_LIMIT;

/// Events that may wait for their confirms at once. At 5,000 events/s the broker's slowest confirms
/// took 100 ms (500 outstanding); this leaves twenty times that, at some 10 MiB of memory.
pub const OUTSTANDING_LIMIT: usize = 10_000;

/// Why an event may not have reached the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker did not confirm the event. It may still have been stored: publishing it again
    /// under the same job id is harmless.
    #[error("the broker did not confirm the event")]
    Unavailable,
    /// Too many events wait for their confirms; this one was not sent.
    #[error("too many events wait for their confirms")]
    Overloaded,
}

/// The broker's answer to one published event; resolves within `CONFIRM_LIMIT`.
#[derive(Debug)]
#[must_use = "an event is accepted only once it is confirmed"]
pub struct Confirm(State);

#[derive(Debug)]
enum State {
    Refused(PublishError),
    Waiting(oneshot::Receiver<Result<(), PublishError>>),
}

impl Confirm {
    /// A confirm that is refused already.
    pub(crate) fn refused(why: PublishError) -> Self {
        Self(State::Refused(why))
    }
}

impl Future for Confirm {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Refused(why) => Poll::Ready(Err(*why)),
            State::Waiting(waiting) => {
                waiting.poll_unpin(context).map(|answer| answer.unwrap_or(Err(PublishError::Unavailable)))
            }
        }
    }
}

/// An event on its way into an engine's task.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) envelope: SignedEnvelope,
    pub(crate) ticket: Ticket,
}

/// The engine's end of a confirm. Dropping it answers `Unavailable`.
#[derive(Debug)]
pub(crate) struct Ticket {
    answer: Option<oneshot::Sender<Result<(), PublishError>>>,
    since: Instant,
    outstanding: Arc<Outstanding>,
}

impl Ticket {
    /// Answers that the event is safe.
    pub(crate) fn confirm(mut self) {
        Histogram::ConfirmSeconds.record(self.since.elapsed().as_secs_f64());
        if let Some(answer) = self.answer.take() {
            // Nobody waits any more: the client went away. The event stays accepted.
            let _gone = answer.send(Ok(()));
        }
    }

    /// When it must be answered.
    pub(crate) fn deadline(&self) -> Instant {
        self.since + CONFIRM_LIMIT
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.outstanding.leave();
    }
}

#[derive(Debug, Default)]
struct Outstanding {
    count: AtomicUsize,
    none: Notify,
}

impl Outstanding {
    /// Counts one more unless the limit is reached.
    fn enter(&self) -> bool {
        let more = |count: usize| (count < OUTSTANDING_LIMIT).then_some(count + 1);
        self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn leave(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none.notify_waiters();
        }
    }
}

/// The way into an engine's task: bounded, and in the order of the calls.
#[derive(Debug)]
pub(crate) struct Gate {
    submissions: mpsc::Sender<Submission>,
    outstanding: Arc<Outstanding>,
}

impl Gate {
    /// A gate and what the engine's task receives from.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Submission>) {
        let (submissions, received) = mpsc::channel(OUTSTANDING_LIMIT);
        (Self { submissions, outstanding: Arc::default() }, received)
    }

    /// Hands an event to the engine's task.
    pub(crate) fn submit(&self, envelope: SignedEnvelope) -> Confirm {
        if !self.outstanding.enter() {
            return Confirm::refused(PublishError::Overloaded);
        }
        let (answer, waiting) = oneshot::channel();
        let outstanding = Arc::clone(&self.outstanding);
        let ticket = Ticket { answer: Some(answer), since: Instant::now(), outstanding };
        match self.submissions.try_send(Submission { envelope, ticket }) {
            Ok(()) => Confirm(State::Waiting(waiting)),
            Err(mpsc::error::TrySendError::Full(_)) => Confirm::refused(PublishError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Confirm::refused(PublishError::Unavailable),
        }
    }

    /// How many confirms are outstanding.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.count.load(Ordering::Acquire)
    }

    /// Waits until no confirm is outstanding, at most `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let flushed = async {
            loop {
                let none = self.outstanding.none.notified();
                if self.outstanding() == 0 {
                    return;
                }
                none.await;
            }
        };
        // Those still outstanding resolve by their own limit.
        let _late = tokio::time::timeout(limit, flushed).await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use domain::{EventKind, JobId};
    use uuid::Uuid;

    /// An envelope that no key signed.
    pub(crate) fn envelope(kind: EventKind, number: u128) -> SignedEnvelope {
        SignedEnvelope {
            job_id: JobId(Uuid::from_u128(number)),
            kind,
            shard_key: Uuid::from_u128(7),
            correlation_id: Some(format!("m{number}")),
            timestamp_s: 1_700_000_000,
            key_id: "a".into(),
            signature: "ab".repeat(32),
            traceparent: None,
            body: Bytes::from_static(b"body"),
        }
    }

    fn submit(gate: &Gate) -> Confirm {
        gate.submit(envelope(EventKind::MessageSend, 1))
    }

    #[tokio::test]
    async fn a_confirm_whose_ticket_is_dropped_is_unavailable() {
        let (gate, mut received) = Gate::new();
        let confirm = submit(&gate);
        drop(received.recv().await);
        assert_eq!(confirm.await, Err(PublishError::Unavailable));
        assert_eq!(gate.outstanding(), 0);
    }

    #[tokio::test]
    async fn a_confirm_says_what_its_ticket_was_answered() {
        let (gate, mut received) = Gate::new();
        let confirm = submit(&gate);
        received.recv().await.expect("submitted").ticket.confirm();
        assert_eq!(confirm.await, Ok(()));
    }

    #[tokio::test]
    async fn too_many_outstanding_confirms_are_overload_and_room_returns() {
        let (gate, mut received) = Gate::new();
        let confirms: Vec<_> = (0..OUTSTANDING_LIMIT).map(|_| submit(&gate)).collect();
        assert_eq!(submit(&gate).await, Err(PublishError::Overloaded));
        drop(received.recv().await);
        let room = submit(&gate);
        drop((received, confirms));
        assert_eq!(room.await, Err(PublishError::Unavailable));
    }

    #[tokio::test]
    async fn flush_waits_for_the_last_confirm() {
        let (gate, mut received) = Gate::new();
        let confirm = submit(&gate);
        let mut flush = Box::pin(gate.flush(Duration::from_mins(1)));
        assert!(flush.as_mut().now_or_never().is_none());
        received.recv().await.expect("submitted").ticket.confirm();
        flush.await;
        assert_eq!(confirm.await, Ok(()));
    }
}
