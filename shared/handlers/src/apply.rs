//! A batch of verified events through the store and out to the gateways.
//!
//! One claim, one transaction, one pipelined publish, however many events. An event that the store
//! rejects is found by itself and does not fail its neighbours; an outage fails the whole batch,
//! which is then given back and applied again: every step may be repeated.

use std::collections::HashSet;

use domain::{EventKind, JobId, MessageId, Timestamp};
use protocol::{Change, Code, VerifiedEnvelope};
use store::StoreError;
use store::batch::Scope;

use crate::plan::{Plan, Planner};
use crate::{Handlers, Unavailable, presence};

/// How often a batch is begun again when another shard stored one of its ids meanwhile.
const CONFLICT_LIMIT: u32 = 5;

/// One verified event and what the broker knows of its past.
#[derive(Debug, Clone)]
pub struct Job {
    /// The event.
    pub event: VerifiedEnvelope,
    /// It may have been received before: the store is asked for its outcome first.
    pub redelivered: bool,
    /// When its own processing first failed.
    pub first_failed_at: Option<Timestamp>,
    /// The next failure makes a dead letter: what waits for a target gives up.
    pub last_attempt: bool,
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
        /// Closed set, for metrics.
        cause: &'static str,
        /// For operators.
        error: String,
        /// Whether trying again later can help.
        retry: bool,
    },
}

/// Why a batch could not be stored as one.
enum BatchError {
    Unavailable(Unavailable),
    Rejected(String),
}

impl Handlers {
    /// Applies a batch in order; answers one outcome for each job. `Err`: nothing may be settled.
    pub async fn apply(&self, jobs: &[Job]) -> Result<Vec<Outcome>, Unavailable> {
        let mut outcomes = vec![Outcome::Ephemeral; jobs.len()];
        let (ephemeral, durable): (Vec<usize>, Vec<usize>) =
            (0..jobs.len()).partition(|index| jobs[*index].event.kind.is_ephemeral());

        if !durable.is_empty() {
            let batch: Vec<&Job> = durable.iter().map(|index| &jobs[*index]).collect();
            let stored = self.store_batch(&batch).await?;
            for (index, outcome) in durable.into_iter().zip(stored) {
                outcomes[index] = outcome;
            }
        }
        self.apply_ephemeral(ephemeral.into_iter().map(|index| &jobs[index].event)).await?;
        Ok(outcomes)
    }

    /// Typing is told in one round, however many type.
    async fn apply_ephemeral(&self, events: impl Iterator<Item = &VerifiedEnvelope>) -> Result<(), Unavailable> {
        let mut told = Vec::new();
        for event in events {
            match &event.change {
                Change::Typing(typing) => told.push(presence::typing(event, typing)),
                Change::PresenceSet(wish) => self.apply_presence(event.actor, wish).await?,
                _ => {}
            }
        }
        self.publish(&told).await
    }

    /// Stores the batch as one, or each event for itself if the store rejects the whole.
    async fn store_batch(&self, jobs: &[&Job]) -> Result<Vec<Outcome>, Unavailable> {
        match self.store_and_publish(jobs).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(BatchError::Unavailable(unavailable)) => return Err(unavailable),
            Err(BatchError::Rejected(error)) if jobs.len() == 1 => return Ok(vec![rejected(error)]),
            Err(BatchError::Rejected(error)) => {
                tracing::warn!(%error, events = jobs.len(), "a batch was rejected; one by one");
            }
        }
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            outcomes.push(match self.store_and_publish(std::slice::from_ref(job)).await {
                Ok(mut one) => one.pop().unwrap_or_else(|| rejected("no outcome".to_owned())),
                Err(BatchError::Unavailable(unavailable)) => return Err(unavailable),
                Err(BatchError::Rejected(error)) => rejected(error),
            });
        }
        Ok(outcomes)
    }

    async fn store_and_publish(&self, jobs: &[&Job]) -> Result<Vec<Outcome>, BatchError> {
        let mut seen = self.perhaps_seen(jobs).await.map_err(BatchError::Unavailable)?;
        for _ in 0..CONFLICT_LIMIT {
            match self.store_once(jobs, &seen).await {
                Ok(plan) => {
                    self.publish(&plan.deliveries).await.map_err(BatchError::Unavailable)?;
                    self.forget_caches(&plan).await;
                    return Ok(plan.outcomes);
                }
                // Somebody stored one of these ids meanwhile: now all of them are looked up.
                Err(StoreError::Conflict(_)) => seen = jobs.iter().map(|job| job.event.job_id).collect(),
                Err(StoreError::Rejected(error)) => return Err(BatchError::Rejected(error)),
                Err(error) => return Err(BatchError::Unavailable(unavailable(&error))),
            }
        }
        let detail = "the same ids are being stored elsewhere".to_owned();
        Err(BatchError::Unavailable(Unavailable { dependency: "store", detail }))
    }

    /// One transaction: lock and load, plan in memory, write, commit.
    async fn store_once(&self, jobs: &[&Job], seen: &HashSet<JobId>) -> Result<Plan, StoreError> {
        let mut batch = self.store().begin(&scope(jobs, seen)).await?;
        let mut planner = Planner::new(std::mem::take(&mut batch.loaded), self.parts.clock.now());
        for job in jobs {
            planner.add(job);
        }
        let mut plan = planner.finish();
        batch.commit(std::mem::take(&mut plan.writes)).await?;
        Ok(plan)
    }

    /// The jobs that may have been applied before. Redis only saves the look-up of those that were
    /// certainly not: if it says "new" wrongly, the store's unique ids say no.
    async fn perhaps_seen(&self, jobs: &[&Job]) -> Result<HashSet<JobId>, Unavailable> {
        let ids: Vec<JobId> = jobs.iter().map(|job| job.event.job_id).collect();
        let fresh = self.realtime().claim(&ids).await?;
        let mut seen = HashSet::new();
        let mut in_batch = HashSet::new();
        for (job, fresh) in jobs.iter().zip(fresh) {
            let id = job.event.job_id;
            if !fresh || job.redelivered || job.first_failed_at.is_some() || !in_batch.insert(id) {
                seen.insert(id);
            }
        }
        Ok(seen)
    }

    async fn forget_caches(&self, plan: &Plan) {
        for user in &plan.stale_users {
            if let Err(error) = self.realtime().forget_rooms(*user).await {
                tracing::warn!(%error, "a cached room list could not be forgotten");
            }
        }
        for room in &plan.stale_rooms {
            if let Err(error) = self.realtime().forget_members(*room).await {
                tracing::warn!(%error, "a cached member list could not be forgotten");
            }
        }
    }
}

fn rejected(error: String) -> Outcome {
    Outcome::Failed { cause: "store_rejected", error, retry: true }
}

pub(crate) fn unavailable(error: &StoreError) -> Unavailable {
    Unavailable { dependency: "store", detail: error.to_string() }
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
