//! A batch of verified events through the store and out to the gateways.
//!
//! One claim, one transaction, one pipelined publish, however many events. An event that the store
//! rejects is found by itself and does not fail its neighbours; an outage fails the whole batch,
//! which is then given back and applied again: every step may be repeated.

use std::collections::HashSet;

use config::defect::{Defect, is_on};
use domain::{Cause, EventKind, JobId, MessageId, Timestamp};
use protocol::{Change, Code, VerifiedEnvelope};
use store::StoreError;
use store::batch::Scope;

use crate::plan::{Plan, Planner};
use crate::{Handlers, Unavailable};

/// How often a batch is begun again when another shard stored one of its ids meanwhile.
const CONFLICT_LIMIT: u32 = 5;

/// The weight of one transaction at most, whose statements must end within seconds. An event weighs
/// 1, and 1 for each person it is about and each KiB it holds.
const TRANSACTION_WEIGHT: usize = 2000;

/// One verified event and what the broker knows of its past.
#[derive(Debug, Clone)]
pub struct Job {
    /// The event.
    pub event: VerifiedEnvelope,
    /// It may have been received before: the store is asked for its outcome first.
    pub redelivered: bool,
    /// When its own processing first failed, whether or not it was a dead letter since.
    pub first_failed_at: Option<Timestamp>,
    /// The next failure makes a dead letter: what waits for a target gives up.
    pub last_attempt: bool,
}

impl Job {
    /// True when the event lost its place by failing once and what it changes was `changed_at` a time
    /// since: what was stored later is newer than it, in the batch in which it failed too, whose changes
    /// all have the time of its failure.
    pub(crate) fn was_overtaken(&self, changed_at: Option<Timestamp>) -> bool {
        self.first_failed_at.is_some_and(|failed_at| changed_at.is_some_and(|changed_at| changed_at >= failed_at))
    }
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored now.
    Stored,
    /// Stored or refused before; its outcome was told again.
    Duplicate,
    /// Refused for good; the sender was told.
    Refused(Code),
    /// Told to whom it may concern, never stored.
    Ephemeral,
    /// Its own processing failed.
    Failed {
        /// When, by the clock that stored times come from.
        at: Timestamp,
        /// Why; its kind says whether trying again later can help.
        cause: Cause,
        /// For operators.
        error: String,
    },
}

/// Why a batch could not be stored as one.
enum BatchError {
    Unavailable(Unavailable),
    Rejected(String),
}

impl Handlers {
    /// Applies a batch in order, what is durable first; answers one outcome for each job. `Err`:
    /// nothing may be settled.
    pub async fn apply(&self, jobs: &[Job]) -> Result<Vec<Outcome>, Unavailable> {
        let mut outcomes = vec![Outcome::Ephemeral; jobs.len()];
        let (ephemeral, durable): (Vec<usize>, Vec<usize>) =
            (0..jobs.len()).partition(|index| jobs[*index].event.kind.is_ephemeral());

        if !durable.is_empty() {
            let batch: Vec<&Job> = durable.iter().map(|index| &jobs[*index]).collect();
            let mut stored = Vec::with_capacity(batch.len());
            for portion in portions(&batch) {
                stored.extend(self.store_batch(portion).await?);
            }
            for (index, outcome) in durable.into_iter().zip(stored) {
                outcomes[index] = outcome;
            }
        }
        if !ephemeral.is_empty() {
            let events = ephemeral.into_iter().map(|index| &jobs[index].event).collect();
            self.apply_ephemeral(events).await;
        }
        Ok(outcomes)
    }

    /// Stores the batch as one, or each event for itself if the store rejects the whole.
    async fn store_batch(&self, jobs: &[&Job]) -> Result<Vec<Outcome>, Unavailable> {
        let at = self.parts.clock.now();
        match self.store_and_publish(jobs).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(BatchError::Unavailable(unavailable)) => return Err(unavailable),
            Err(BatchError::Rejected(error)) if jobs.len() == 1 => return Ok(vec![rejected(at, error)]),
            Err(BatchError::Rejected(error)) => {
                tracing::warn!(%error, events = jobs.len(), "a batch was rejected; one by one");
            }
        }
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            let at = self.parts.clock.now();
            outcomes.push(match self.store_and_publish(std::slice::from_ref(job)).await {
                Ok(mut one) => one.pop().unwrap_or_else(|| no_outcome(at)),
                Err(BatchError::Unavailable(unavailable)) => return Err(unavailable),
                Err(BatchError::Rejected(error)) => rejected(at, error),
            });
        }
        Ok(outcomes)
    }

    async fn store_and_publish(&self, jobs: &[&Job]) -> Result<Vec<Outcome>, BatchError> {
        let mut seen = self.perhaps_seen(jobs).await;
        for _ in 0..CONFLICT_LIMIT {
            match self.store_once(jobs, &seen).await {
                Ok(plan) => {
                    self.publish(&plan.deliveries).await.map_err(BatchError::Unavailable)?;
                    self.renew_caches(&plan).await;
                    return Ok(plan.outcomes);
                }
                // Somebody stored one of these ids meanwhile: now all of them are looked up.
                Err(StoreError::Conflict(_)) => seen = jobs.iter().map(|job| job.event.job_id).collect(),
                Err(StoreError::Rejected(error)) => return Err(BatchError::Rejected(error)),
                Err(error) => return Err(BatchError::Unavailable(unavailable(&error))),
            }
        }
        // By themselves all but the culprit find their place.
        Err(BatchError::Rejected("the same ids are being stored elsewhere".to_owned()))
    }

    /// One transaction: lock and load, plan in memory, write, commit.
    async fn store_once(&self, jobs: &[&Job], seen: &HashSet<JobId>) -> Result<Plan, StoreError> {
        let mut batch = self.store().begin(&scope(jobs, seen)).await?;
        let mut planner = Planner::new(std::mem::take(&mut batch.loaded), self.parts.clock.now());
        for job in jobs {
            planner.add(job);
        }
        let mut plan = planner.finish();
        if is_on(Defect::PublishBeforeCommit) {
            drop(self.publish(&plan.deliveries).await);
        }
        batch.commit(std::mem::take(&mut plan.writes)).await?;
        Ok(plan)
    }

    /// The jobs that may have been applied before. Redis only saves the look-up of those that were
    /// certainly not: if it says "new" wrongly, the store's unique ids say no, and if it says nothing, all
    /// are looked up. What then cannot be told is told when the batch is received again.
    async fn perhaps_seen(&self, jobs: &[&Job]) -> HashSet<JobId> {
        let ids: Vec<JobId> = jobs.iter().map(|job| job.event.job_id).collect();
        let fresh = match self.realtime().claim(&ids).await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::debug!(%error, "whether events are new is not known; all are looked up");
                return ids.into_iter().collect();
            }
        };
        let mut seen = HashSet::new();
        let mut in_batch = HashSet::new();
        for (job, fresh) in jobs.iter().zip(fresh) {
            let id = job.event.job_id;
            if !fresh || job.redelivered || job.first_failed_at.is_some() || !in_batch.insert(id) {
                seen.insert(id);
            }
        }
        seen
    }
}

fn rejected(at: Timestamp, error: String) -> Outcome {
    Outcome::Failed { at, cause: Cause::StoreRejected, error }
}

fn no_outcome(at: Timestamp) -> Outcome {
    Outcome::Failed { at, cause: Cause::NoOutcome, error: "it was applied and came to no outcome".to_owned() }
}

/// The batch cut into consecutive parts, each of which one transaction can store in time.
fn portions<'a, 'j>(mut jobs: &'a [&'j Job]) -> Vec<&'a [&'j Job]> {
    let mut portions = Vec::new();
    while !jobs.is_empty() {
        let mut total = 0;
        let fits = jobs.iter().take_while(|job| {
            total += weight(&job.event.change);
            total <= TRANSACTION_WEIGHT
        });
        let (portion, rest) = jobs.split_at(fits.count().max(1));
        portions.push(portion);
        jobs = rest;
    }
    portions
}

fn weight(change: &Change) -> usize {
    let people = if let Change::MemberAdd(add) = change { add.user_ids.len() } else { 0 };
    1 + people + change.encoded_len() / 1024
}

pub(crate) fn unavailable(error: &StoreError) -> Unavailable {
    let is_late = matches!(error, StoreError::TimedOut(_));
    Unavailable { dependency: "store", detail: error.to_string(), is_late }
}

/// What the transaction must lock and load for these jobs.
fn scope(jobs: &[&Job], seen: &HashSet<JobId>) -> Scope {
    let mut scope = Scope::default();
    for job in jobs {
        let event = &job.event;
        scope.rooms.push(event.room_id);
        scope.actors.push((event.room_id, event.actor));
        let targets = Planner::targets(&event.change);
        scope.messages.extend(targets.message);
        if event.kind == EventKind::MessageReact {
            scope.reactions.extend(targets.message.map(|message| (message, event.actor)));
        }
        if event.kind == EventKind::RoomUpdate && job.first_failed_at.is_some() {
            scope.titled.push(event.room_id);
        }
        scope.actors.extend(targets.users.iter().map(|user| (event.room_id, *user)));
        if event.kind == EventKind::MessageSend {
            if seen.contains(&event.job_id) {
                scope.messages.push(MessageId(event.job_id.0));
                scope.jobs.push(event.job_id);
            }
        } else {
            scope.jobs.push(event.job_id);
            scope.jobs.extend(targets.users.iter().map(|user| event.job_id.part(user.0)));
        }
    }
    scope.rooms.sort_unstable();
    scope.rooms.dedup();
    scope.actors.sort_unstable();
    scope.actors.dedup();
    scope
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
