//! Events that kill whoever processes them, found by what was begun and never finished.
//!
//! Only a batch with redelivered events costs anything: a worker counts the head of the first one it
//! takes in its life, in the store, and forgets it when the batch is settled. From the second time at
//! the same head as many redelivered events as a batch holds go one by one, each counted before it is
//! touched; so does, in every life, whatever was counted and not finished. Nothing else does: after a
//! restart of the broker everything that waited is redelivered. The invariant: a process that dies
//! leaves one counted event behind at most, the one that was being tried; in one life a job is counted
//! at most once, and whoever is let go takes back what it was at, so that only deaths add up, not outages. Losing
//! a count only delays.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use broker::Incoming;
use handlers::Unavailable;
use store::StoreError;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::Parts;
use crate::worker::BATCH_EVENTS;

/// Begun so often with the same head, a batch goes one by one.
const HEAD_LIMIT: u64 = 2;
/// Begun alone and never finished so often, an event is given up.
const ALONE_LIMIT: u64 = 5;
/// Counted events that are remembered; more than one only when counts could not be taken back.
const ALONE_KNOWN: usize = 256;
/// How long an event waits for those that other shards try: each takes as long as the store may.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// Whose turn it is, of all shards of a process, to try an event that is counted: a death ends what all of
/// them were at, and whatever was counted then looks as guilty as the killer.
#[derive(Clone, Default)]
pub(crate) struct Turn(Arc<Mutex<()>>);

impl Turn {
    pub(crate) async fn take(&self) -> Result<MutexGuard<'_, ()>, Unavailable> {
        tokio::time::timeout(TURN_LIMIT, self.0.lock()).await.map_err(|_| Unavailable {
            dependency: "turn",
            detail: "another shard tries an event for very long".to_owned(),
            is_late: false,
        })
    }
}

/// What is to be done with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing speaks against applying it.
    Apply,
    /// It is a killer: it becomes a dead letter unread.
    GiveUp {
        /// Even telling who sent it what killed somebody.
        in_silence: bool,
    },
}

/// What a worker knows of those who had its shard before.
pub(crate) struct Deaths {
    shard: u16,
    /// The first batch with redelivered events was counted.
    counted: bool,
    /// Its head, until it is settled.
    head: Option<Uuid>,
    /// So many redelivered events are still to go one by one: the killer is among them, if there is one.
    to_search: usize,
    /// Counted in an earlier life and not finished.
    suspected: HashSet<Uuid>,
    /// Counted in this life and not settled, and what was said of it.
    alone: HashMap<Uuid, Verdict>,
    /// Being counted or tried at the moment.
    trying: Option<Uuid>,
}

/// The name of an event in counts. Strangers without a proper one share theirs: they are never
/// believed, so that only reading them could kill.
fn name(incoming: &Incoming) -> Uuid {
    Uuid::parse_str(&incoming.envelope.job_id).unwrap_or_default()
}

impl Deaths {
    pub(crate) fn new(shard: u16) -> Self {
        let (to_search, suspected, alone) = Default::default();
        Self { shard, counted: false, head: None, to_search, suspected, alone, trying: None }
    }

    /// Looks into the past of the first batch in this life with events that others may have begun before.
    pub(crate) async fn look(&mut self, parts: &Parts, received: &[Incoming]) -> Result<(), Unavailable> {
        let head = received.iter().find(|incoming| incoming.redelivered).map(name);
        let Some(head) = head.filter(|_| !self.counted) else { return Ok(()) };
        // Before it is: whoever is let go meanwhile may have counted it.
        self.head = Some(head);
        let again = parts.store.begin_again(self.shard, head, parts.clock.now()).await;
        let again = again.inspect_err(|_| self.head = None).map_err(|error| unavailable(&error))?;
        self.counted = true;
        if again.times >= HEAD_LIMIT {
            self.to_search = BATCH_EVENTS;
            tracing::warn!(shard = self.shard, times = again.times, "a batch was begun and not finished; one by one");
        }
        if !again.alone.is_empty() {
            let events = again.alone.len();
            tracing::warn!(shard = self.shard, events, "events were begun alone and not finished; they go alone");
        }
        self.suspected = again.alone.into_iter().collect();
        Ok(())
    }

    /// Whether others may have died of an event; asked of each event once, in the order of the queue.
    pub(crate) fn is_suspected(&mut self, incoming: &Incoming) -> bool {
        if !incoming.redelivered {
            return false;
        }
        let is_searched = self.to_search > 0;
        self.to_search = self.to_search.saturating_sub(1);
        let job = name(incoming);
        is_searched || self.suspected.contains(&job) || self.alone.contains_key(&job)
    }

    /// Counts that the event is begun by itself, and says what is to be done with it; the same again if it
    /// was counted already. To be called in one's [`Turn`], which lasts until the event is settled.
    pub(crate) async fn begin(&mut self, parts: &Parts, incoming: &Incoming) -> Result<Verdict, Unavailable> {
        let job = name(incoming);
        self.trying = Some(job);
        if let Some(verdict) = self.alone.get(&job) {
            return Ok(*verdict);
        }
        let times = parts.store.begin_alone(self.shard, job, parts.clock.now()).await;
        let verdict = judge(times.map_err(|error| unavailable(&error))?);
        if self.alone.len() >= ALONE_KNOWN {
            self.alone.clear();
        }
        self.alone.insert(job, verdict);
        Ok(verdict)
    }

    /// The event was settled.
    pub(crate) async fn finish(&mut self, parts: &Parts, job: Uuid) {
        self.trying = None;
        self.suspected.remove(&job);
        if self.alone.remove(&job).is_some() {
            lament(parts.store.finish_alone(self.shard, job).await);
        }
    }

    /// The event became a dead letter, and is received again all the same if what came with it kills: its count
    /// stays until it is gone.
    pub(crate) fn given_up(&mut self) {
        self.trying = None;
    }

    /// The event was given back and nobody died of it, so this time does not count. Whoever is guilty stays
    /// so.
    pub(crate) async fn survived(&mut self, parts: &Parts, job: Uuid) {
        self.trying = None;
        if self.alone.get(&job) != Some(&Verdict::Apply) {
            return;
        }
        match parts.store.take_back_alone(self.shard, job).await {
            Ok(()) => drop(self.alone.remove(&job)),
            Err(error) => tracing::warn!(%error, "a count of what was begun stays; it is not made again"),
        }
    }

    /// It was let go in the midst of whatever it was at, and nobody died of that.
    pub(crate) async fn let_go(&mut self, parts: &Parts) {
        let trying = self.trying.take().filter(|job| self.alone.get(job).is_none_or(|it| *it == Verdict::Apply));
        if let Some(job) = trying {
            lament(parts.store.take_back_alone(self.shard, job).await);
        }
        if let Some(head) = self.head.take() {
            lament(parts.store.take_back_again(self.shard, head).await);
        }
    }

    /// The batch was settled.
    pub(crate) async fn went_well(&mut self, parts: &Parts) {
        if let Some(head) = self.head.take() {
            lament(parts.store.finish_again(self.shard, head).await);
        }
    }

    /// The event's name in counts.
    pub(crate) fn name(incoming: &Incoming) -> Uuid {
        name(incoming)
    }
}

fn judge(times: u64) -> Verdict {
    match times {
        ..=ALONE_LIMIT => Verdict::Apply,
        times => Verdict::GiveUp { in_silence: times > ALONE_LIMIT + 1 },
    }
}

/// A count that stays although its event is settled ends with its hour.
fn lament(forgotten: Result<(), StoreError>) {
    if let Err(error) = forgotten {
        tracing::warn!(%error, "a count of what was begun stays; it ends by itself");
    }
}

fn unavailable(error: &StoreError) -> Unavailable {
    Unavailable { dependency: "store", detail: error.to_string(), is_late: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begun_alone_five_times_and_never_finished_it_is_given_up() {
        let verdicts: Vec<Verdict> = (1..=7).map(judge).collect();
        assert_eq!(verdicts[..5], [Verdict::Apply; 5]);
        assert_eq!(verdicts[5..], [Verdict::GiveUp { in_silence: false }, Verdict::GiveUp { in_silence: true }]);
    }
}
