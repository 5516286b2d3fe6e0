//! One batch: verify, apply, decide what becomes of each event, settle.
//!
//! A bad signature is a dead letter at once. An event whose processing panics or comes to no outcome is
//! found by itself: the batch is applied again one by one, and only that event is blamed.

use std::panic::AssertUnwindSafe;

use broker::{BrokerError, Consumer, DeadLetterNote, Failure, Incoming, Settlement};
use config::defect::{Defect, is_on};
use domain::retry::next_step;
use domain::{Cause, Class, FailureKind, Timestamp};
use futures_util::FutureExt as _;
use handlers::{Handlers, Job, Outcome, Unavailable};
use protocol::{BadEnvelope, Change};
use telemetry::{Counter, Histogram};

use crate::frontier::Frontier;
use crate::{Parts, age, note};

/// What becomes of events, as it is counted.
pub(crate) const OUTCOMES: [&str; 6] = ["stored", "duplicate", "refused", "ephemeral", "retried", "dead_letter"];

const NO_OUTCOME: &str = "it was applied and came to no outcome";

/// Why a batch was not settled; all of it will be received again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Dependency(#[from] Unavailable),
}

/// How a batch is applied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// Perhaps in one transaction with batches of other shards.
    Any,
    /// In its own: what happens then is about it.
    None,
}

pub(crate) async fn apply_and_settle(
    parts: &Parts,
    consumer: &mut Consumer,
    received: Vec<Incoming>,
    company: Company,
    frontier: &mut Frontier,
) -> Result<(), BatchError> {
    let started_us = parts.clock.monotonic_us();
    // Before anything of the batch is stored, so that what is stored of it counts as later.
    let at = parts.clock.now();
    let (mut jobs, mut checked) = (Vec::with_capacity(received.len()), Vec::with_capacity(received.len()));
    for incoming in &received {
        checked.push(check(parts, incoming, frontier).map(|job| jobs.push(job)));
    }
    let (jobs, outcomes) = apply(parts, jobs, company).await?;

    let mut outcomes = jobs.iter().zip(outcomes);
    let mut settled = Vec::with_capacity(received.len());
    for (incoming, checked) in received.into_iter().zip(checked) {
        let settlement = match checked {
            Err(bad) => Settlement::Failed(unbelieved(at, &incoming, bad)),
            Ok(()) => match outcomes.next() {
                Some((job, outcome)) => settle(parts, &incoming, job, outcome),
                None => Settlement::Failed(no_outcome(at, &incoming)),
            },
        };
        settled.push((incoming, settlement));
    }
    let count = settled.len();
    settle_and_tell(parts, consumer, settled).await?;
    frontier.passed(jobs.iter());
    Histogram::BatchSeconds.record(parts.clock.monotonic_us().saturating_sub(started_us) as f64 / 1e6);
    Histogram::BatchEvents.record(count as f64);
    Ok(())
}

/// Settles an event as failed that was not applied this time.
pub(crate) async fn fail(
    parts: &Parts,
    consumer: &mut Consumer,
    incoming: Incoming,
    (cause, error): (Cause, String),
    note: DeadLetterNote,
) -> Result<(), BatchError> {
    let failure = Failure { cause, error, at: parts.clock.now(), counts: true, note };
    Ok(settle_and_tell(parts, consumer, vec![(incoming, Settlement::Failed(failure))]).await?)
}

/// Settles, and counts it and tells of what failed once that is so: until then all of it may be received again.
async fn settle_and_tell(
    parts: &Parts,
    consumer: &mut Consumer,
    settled: Vec<(Incoming, Settlement)>,
) -> Result<(), BrokerError> {
    let told = |(incoming, settlement): &(Incoming, Settlement)| match settlement {
        Settlement::Done => None,
        Settlement::Failed(failure) => Some(Told::of(incoming, failure)),
    };
    let failures: Vec<Told> = settled.iter().filter_map(told).collect();
    let count = |class| settled.iter().filter(|(incoming, _)| incoming.class == class).count() as u64;
    let drained = Class::ALL.map(count);
    consumer.settle(settled).await?;
    parts.tally.add(consumer.shard(), drained);
    failures.iter().for_each(Told::tell);
    Ok(())
}

/// Whether an event that fails like this now is tried again.
fn is_retried(incoming: &Incoming, failure: &Failure) -> bool {
    failure.cause.kind() == FailureKind::Retry && !(failure.counts && is_last_attempt(incoming))
}

/// Whether the ladder ends here.
fn is_last_attempt(incoming: &Incoming) -> bool {
    next_step(incoming.failures.saturating_add(1)).is_none()
}

/// A failure, kept to be told of when it is settled.
struct Told {
    cause: Cause,
    is_retried: bool,
    job: String,
    event: String,
    class: Class,
}

impl Told {
    fn of(incoming: &Incoming, failure: &Failure) -> Self {
        let (job, event) = (incoming.envelope.job_id.clone(), incoming.envelope.kind.clone());
        let is_retried = is_retried(incoming, failure);
        Self { cause: failure.cause, is_retried, job, event, class: incoming.class }
    }

    /// Counts it, and says aloud when it made a dead letter: a bug is an error that should wake
    /// somebody, everything else can wait until an operator comes.
    fn tell(&self) {
        if self.is_retried {
            return Counter::EventsProcessed.inc_with("retried");
        }
        let Self { cause, job, event, class, .. } = self;
        Counter::EventsProcessed.inc_with("dead_letter");
        Counter::DeadLetters.inc_with(cause.as_str());
        match cause.kind() {
            FailureKind::Bug => tracing::error!(job, event, %class, %cause, "an event became a dead letter by a bug"),
            kind => tracing::warn!(job, event, %class, %cause, %kind, "an event became a dead letter"),
        }
    }
}

/// Believed or not.
fn check(parts: &Parts, incoming: &Incoming, frontier: &Frontier) -> Result<Job, BadEnvelope> {
    let now = parts.clock.now();
    let event = age::check(incoming.envelope.verify(&parts.keys)?, now, parts.room_log_kept)?;
    Ok(Job {
        event,
        redelivered: incoming.redelivered,
        first_failed_at: incoming.first_failed_at,
        last_attempt: is_last_attempt(incoming) && frontier.is_past(incoming.first_failed_at, now),
    })
}

/// Applies the batch; if something in it panics or has no outcome, each event by itself.
async fn apply(parts: &Parts, jobs: Vec<Job>, company: Company) -> Result<(Vec<Job>, Vec<Outcome>), Unavailable> {
    if jobs.is_empty() {
        return Ok((jobs, Vec::new()));
    }
    die_of_poison(&jobs);
    let jobs = match company {
        Company::Any => match parts.joint.apply(jobs).await? {
            (jobs, Some(outcomes)) => return Ok((jobs, outcomes?)),
            (jobs, None) => jobs,
        },
        Company::None => jobs,
    };
    if company == Company::Any {
        tracing::error!(events = jobs.len(), "a batch was not applied well: a panic or no outcome; one by one");
    }
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in &jobs {
        let at = parts.clock.now();
        let one = AssertUnwindSafe(applied(&parts.handlers, std::slice::from_ref(job))).catch_unwind().await;
        outcomes.push(match one {
            Ok(applied) => applied?.into_iter().next().unwrap_or_else(|| none_came(at)),
            Err(_) => Outcome::Failed { at, cause: Cause::Panic, error: "processing it panicked".to_owned() },
        });
    }
    Ok((jobs, outcomes))
}

#[cfg(not(test))]
pub(crate) async fn applied(handlers: &Handlers, jobs: &[Job]) -> Result<Vec<Outcome>, Unavailable> {
    handlers.apply(jobs).await
}

/// With a deliberate defect: what says `unanswered` is forgotten.
#[cfg(test)]
pub(crate) async fn applied(handlers: &Handlers, jobs: &[Job]) -> Result<Vec<Outcome>, Unavailable> {
    let is_forgotten =
        |job: &Job| matches!(&job.event.change, Change::MessageSend(send) if send.content == "unanswered");
    let known: Vec<Job> = jobs.iter().filter(|job| !is_forgotten(job)).cloned().collect();
    handlers.apply(&known).await
}

fn none_came(at: Timestamp) -> Outcome {
    Outcome::Failed { at, cause: Cause::NoOutcome, error: NO_OUTCOME.to_owned() }
}

fn no_outcome(at: Timestamp, incoming: &Incoming) -> Failure {
    let note = note::of_unverified(incoming);
    Failure { cause: Cause::NoOutcome, error: NO_OUTCOME.to_owned(), at, counts: true, note }
}

/// A deliberate defect, for tests; those of this crate see it as a panic that nothing catches.
fn die_of_poison(jobs: &[Job]) {
    let is_poison = |job: &Job| matches!(&job.event.change, Change::MessageSend(send) if send.content == "poison");
    if (cfg!(test) || is_on(Defect::AbortOnPoison)) && jobs.iter().any(is_poison) {
        die();
    }
}

#[cfg(not(test))]
fn die() {
    std::process::abort();
}

#[cfg(test)]
fn die() {
    panic!("poison");
}

fn settle(parts: &Parts, incoming: &Incoming, job: &Job, outcome: Outcome) -> Settlement {
    let label = match outcome {
        Outcome::Stored => {
            let waited = parts.clock.now().since(job.event.accepted_at);
            Histogram::AcceptedToStoredSeconds.record(waited.as_secs_f64());
            "stored"
        }
        Outcome::Duplicate => "duplicate",
        Outcome::Refused(_) => "refused",
        Outcome::Ephemeral => "ephemeral",
        Outcome::Failed { at, cause, error } => {
            // What waits for a message that may still be on its way does not come to the ladder's end.
            let counts = cause != Cause::TargetMissing || !is_last_attempt(incoming);
            return Settlement::Failed(Failure { cause, error, at, counts, note: note::of_job(incoming, job) });
        }
    };
    Counter::EventsProcessed.inc_with(label);
    Settlement::Done
}

fn unbelieved(at: Timestamp, incoming: &Incoming, bad: BadEnvelope) -> Failure {
    Failure { cause: bad.cause(), error: bad.to_string(), at, counts: true, note: note::of_unverified(incoming) }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
