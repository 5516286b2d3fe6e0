//! One batch: verify, apply, decide what becomes of each event, settle.
//!
//! A bad signature is a dead letter at once. An event whose processing panics is found by itself:
//! the batch is applied again one by one, and only that event is blamed.

use std::panic::AssertUnwindSafe;

use broker::{BrokerError, Consumer, Failure, Incoming, Settlement};
use domain::retry::next_step;
use futures_util::FutureExt as _;
use handlers::{Job, Outcome, Unavailable};
use protocol::BadEnvelope;
use telemetry::{Counter, Histogram};

use crate::{Parts, age, note};

/// Why a batch was not settled; all of it will be received again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Dependency(#[from] Unavailable),
}

/// An event of the batch: believed or not.
type Checked = Result<Job, BadEnvelope>;

pub(crate) async fn apply_and_settle(
    parts: &Parts,
    consumer: &mut Consumer,
    received: Vec<Incoming>,
) -> Result<(), BatchError> {
    let started_us = parts.clock.monotonic_us();
    let checked: Vec<Checked> = received.iter().map(|incoming| check(parts, incoming)).collect();
    let jobs: Vec<Job> = checked.iter().filter_map(|checked| checked.as_ref().ok().cloned()).collect();
    let outcomes = apply(parts, &jobs).await?;

    let mut outcomes = jobs.iter().zip(outcomes);
    let mut settled = Vec::with_capacity(received.len());
    for (incoming, checked) in received.into_iter().zip(checked) {
        let settlement = match checked {
            Err(bad) => Settlement::Failed(dead_letter(parts, &incoming, bad)),
            Ok(_) => match outcomes.next() {
                Some((job, outcome)) => settle(parts, &incoming, job, outcome),
                None => continue,
            },
        };
        settled.push((incoming, settlement));
    }
    let count = settled.len();
    consumer.settle(settled).await?;
    Histogram::BatchSeconds.record(parts.clock.monotonic_us().saturating_sub(started_us) as f64 / 1e6);
    Histogram::BatchEvents.record(count as f64);
    Ok(())
}

fn check(parts: &Parts, incoming: &Incoming) -> Checked {
    let event = age::check(incoming.envelope.verify(&parts.keys)?, parts.clock.now(), parts.room_log_kept)?;
    Ok(Job {
        event,
        redelivered: incoming.redelivered,
        first_failed_at: incoming.first_failed_at,
        last_attempt: next_step(incoming.failures.saturating_add(1)).is_none(),
    })
}

/// Applies the batch; if something in it panics, each event by itself.
async fn apply(parts: &Parts, jobs: &[Job]) -> Result<Vec<Outcome>, Unavailable> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    if let Ok(outcomes) = AssertUnwindSafe(parts.handlers.apply(jobs)).catch_unwind().await {
        return outcomes;
    }
    tracing::error!(events = jobs.len(), "applying a batch panicked; one by one");
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        let at = parts.clock.now();
        let one = AssertUnwindSafe(parts.handlers.apply(std::slice::from_ref(job))).catch_unwind().await;
        outcomes.push(match one {
            Ok(applied) => applied?.into_iter().next().unwrap_or(Outcome::Ephemeral),
            Err(_) => Outcome::Failed { at, cause: "bug", error: "processing it panicked".to_owned(), retry: false },
        });
    }
    Ok(outcomes)
}

fn settle(parts: &Parts, incoming: &Incoming, job: &Job, outcome: Outcome) -> Settlement {
    let label = match &outcome {
        Outcome::Stored => {
            let waited = parts.clock.now().since(job.event.accepted_at);
            Histogram::AcceptedToStoredSeconds.record(waited.as_secs_f64());
            "stored"
        }
        Outcome::Duplicate => "duplicate",
        Outcome::Refused(_) => "refused",
        Outcome::Ephemeral => "ephemeral",
        Outcome::Failed { retry: true, .. } if !job.last_attempt => "retried",
        Outcome::Failed { .. } => "dead_letter",
    };
    Counter::EventsProcessed.inc_with(label);
    let Outcome::Failed { at, cause, error, retry } = outcome else { return Settlement::Done };
    if label == "dead_letter" {
        Counter::DeadLetters.inc_with(cause);
        tracing::error!(job = %job.event.job_id, kind = %job.event.kind, cause, "an event became a dead letter");
    }
    let note = note::of_job(incoming, job);
    Settlement::Failed(Failure { cause, error, retry, at, note })
}

fn dead_letter(parts: &Parts, incoming: &Incoming, bad: BadEnvelope) -> Failure {
    Counter::EventsProcessed.inc_with("dead_letter");
    Counter::DeadLetters.inc_with(bad.as_str());
    tracing::error!(cause = bad.as_str(), class = %incoming.class, "an event was not believed");
    Failure {
        cause: bad.as_str(),
        error: bad.to_string(),
        retry: false,
        at: parts.clock.now(),
        note: note::of_unverified(incoming),
    }
}
