//! How a batch is taken: as one, or, when something is wrong with it, one by one.
//!
//! Decides and delegates: `batch` applies, `suspects` and `deaths` remember. The invariant: events of
//! a batch are applied in the order in which they came, but for those that failed before.

use std::time::Duration;

use broker::{Consumer, Incoming, Place};
use domain::Cause;
use handlers::Unavailable;
use uuid::Uuid;

use crate::batch::{self, BatchError, Company};
use crate::deaths::{Deaths, Verdict};
use crate::frontier::Frontier;
use crate::suspects::Suspects;
use crate::{Parts, note};

/// So long a count is taken back when everything is let go at once: less than that may take.
const LET_GO_LIMIT: Duration = Duration::from_millis(500);

/// What a worker has learnt, over all its consumers.
pub(crate) struct Caution {
    suspects: Suspects,
    deaths: Deaths,
    frontier: Frontier,
    /// What is being tried alone at the moment.
    alone: Option<String>,
    /// Given up, and received again if this consumer ends before what came with it is settled.
    held: Vec<Held>,
}

/// An event that was given up and is not gone.
struct Held {
    place: Place,
    job: String,
    name: Uuid,
}

impl Held {
    fn of(incoming: &Incoming) -> Self {
        Self { place: incoming.place(), job: incoming.envelope.job_id.clone(), name: Deaths::name(incoming) }
    }
}

impl Caution {
    pub(crate) fn new(shard: u16) -> Self {
        let (suspects, frontier, alone, held) = Default::default();
        Self { suspects, deaths: Deaths::new(shard), frontier, alone, held }
    }

    /// A consumer begins.
    pub(crate) fn begin(&mut self, parts: &Parts) {
        // It is received again, and what was said of it stands.
        self.held.clear();
        self.frontier.begin(parts.clock.monotonic_us());
    }

    /// Applies and settles a batch. After an error what was not settled is received again.
    pub(crate) async fn take(
        &mut self,
        parts: &Parts,
        consumer: &mut Consumer,
        received: Vec<Incoming>,
    ) -> Result<(), BatchError> {
        self.alone = None;
        self.frontier.came(&received, parts.clock.monotonic_us());
        self.deaths.look(parts, &received).await?;
        let (mut others, mut failed_before) = (Vec::with_capacity(received.len()), Vec::new());
        for incoming in received {
            if self.deaths.is_suspected(&incoming) {
                // In its place.
                self.take_all(parts, consumer, std::mem::take(&mut others)).await?;
                self.take_counted(parts, consumer, incoming).await?;
            } else if self.suspects.is_known(&incoming.envelope.job_id) {
                failed_before.push(incoming);
            } else {
                others.push(incoming);
            }
        }
        self.take_all(parts, consumer, others).await?;
        for incoming in failed_before {
            self.take_one(parts, consumer, incoming).await?;
        }
        self.bury(parts, consumer).await;
        self.suspects.went_well();
        self.deaths.went_well(parts).await;
        Ok(())
    }

    /// Forgets what was said of those that are gone for good.
    async fn bury(&mut self, parts: &Parts, consumer: &Consumer) {
        let (held, gone): (Vec<Held>, Vec<Held>) =
            std::mem::take(&mut self.held).into_iter().partition(|it| consumer.holds(it.place));
        self.held = held;
        for Held { job, name, .. } in gone {
            self.suspects.executed(&job);
            self.deaths.finish(parts, name).await;
        }
    }

    /// Some events, together where nothing speaks against it.
    async fn take_all(
        &mut self,
        parts: &Parts,
        consumer: &mut Consumer,
        received: Vec<Incoming>,
    ) -> Result<(), BatchError> {
        if !self.suspects.is_anybody() {
            return Box::pin(batch::apply_and_settle(parts, consumer, received, Company::Any, &mut self.frontier))
                .await;
        }
        for incoming in received {
            self.take_one(parts, consumer, incoming).await?;
        }
        Ok(())
    }

    /// One event of which others may have died: in its turn, counted, or no more of it.
    async fn take_counted(
        &mut self,
        parts: &Parts,
        consumer: &mut Consumer,
        incoming: Incoming,
    ) -> Result<(), BatchError> {
        let _turn = parts.turn.take().await?;
        let (name, held) = (Deaths::name(&incoming), Held::of(&incoming));
        let taken = match self.deaths.begin(parts, &incoming).await? {
            Verdict::Apply => self.take_one(parts, consumer, incoming).await,
            Verdict::GiveUp { in_silence } => {
                let error = "whoever processed it by itself died, again and again".to_owned();
                let note = if in_silence { note::of_killer() } else { note::of_unverified(&incoming) };
                let failed = batch::fail(parts, consumer, incoming, (Cause::Crashes, error), note).await;
                if failed.is_ok() && consumer.holds(held.place) {
                    // Whoever dies of what came with it must not need as many deaths of this one again.
                    self.deaths.given_up();
                    self.held.push(held);
                    return Ok(());
                }
                failed
            }
        };
        match taken {
            Ok(()) => self.deaths.finish(parts, name).await,
            Err(_) => self.deaths.survived(parts, name).await,
        }
        taken
    }

    /// The work was dropped where it was, for another may have the shard. Waits no longer than `LET_GO_LIMIT`.
    pub(crate) async fn let_go(&mut self, parts: &Parts) {
        if tokio::time::timeout(LET_GO_LIMIT, self.deaths.let_go(parts)).await.is_err() {
            tracing::warn!("a count of what was begun stays; it ends by itself");
        }
    }

    /// One event by itself.
    async fn take_one(&mut self, parts: &Parts, consumer: &mut Consumer, incoming: Incoming) -> Result<(), BatchError> {
        if let Some(said) = self.suspects.convict(&incoming.envelope.job_id, incoming.failures) {
            let (note, held) = (note::of_unverified(&incoming), Held::of(&incoming));
            batch::fail(parts, consumer, incoming, (Cause::TimedOut, said), note).await?;
            if consumer.holds(held.place) {
                self.held.push(held);
            } else {
                self.suspects.executed(&held.job);
            }
        } else {
            self.alone = Some(incoming.envelope.job_id.clone());
            let received = vec![incoming];
            Box::pin(batch::apply_and_settle(parts, consumer, received, Company::None, &mut self.frontier)).await?;
            self.alone = None;
        }
        Ok(())
    }

    /// A batch was given back for this; `answered`: everything answered at once afterwards.
    pub(crate) async fn given_back(&mut self, parts: &Parts, reason: &Unavailable, answered: bool) {
        let alone = self.alone.take();
        if !answered {
            return self.suspects.acquit();
        }
        self.suspects.in_vain();
        let Some(job) = alone.filter(|_| reason.is_late) else { return };
        // Whoever holds a whole table is in everybody's way.
        match parts.store.is_writable().await {
            Ok(()) => self.suspects.late(&job, &reason.detail),
            Err(error) => {
                tracing::warn!(%error, "the store answers and cannot be written");
                self.suspects.acquit();
            }
        }
    }
}

#[cfg(test)]
#[path = "caution_tests.rs"]
mod tests;
