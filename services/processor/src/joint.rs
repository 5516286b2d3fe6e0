//! Batches of several shards become one when much comes, for a transaction costs the same however little it does.
//!
//! While little comes, each shard's batch is applied at once and by itself: nobody waits for anybody. The invariant:
//! events of one shard are applied in their order, and whoever asked gets the outcomes of his own events.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use handlers::{Handlers, Job, Outcome, Unavailable};
use runtime::Rate;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::batch::applied;

/// What is applied together begins no sooner after what was before. Gateways send as often.
const RHYTHM: Duration = Duration::from_millis(10);
/// What gateways sent at one moment comes within that.
const GATHER: Duration = Duration::from_millis(4);
/// So many events within [`RHYTHM`] are much.
const MUCH: f64 = 5.0;
/// So many that wait do not wait for what is under way.
const ENOUGH: usize = 200;
/// Events in one transaction: more cost no less each and delay what is urgent.
const MOST: usize = 400;
/// Transactions at a time, while each shard has its own and when they are joined.
const SINGLE_LIMIT: usize = 64;
const JOINT_LIMIT: usize = 3;

/// What came of a batch; `None`: it panicked or not every event has an outcome.
pub(crate) type Applied = Option<Result<Vec<Outcome>, Unavailable>>;

/// A shard's batch, and who waits for it.
struct Waiting {
    since: Instant,
    jobs: Vec<Job>,
    answer: oneshot::Sender<(Vec<Job>, Applied)>,
}

/// Where workers bring their batches. Clones bring them to the same place.
#[derive(Clone)]
pub(crate) struct Joint {
    brought: mpsc::Sender<Waiting>,
}

/// Who joins them.
pub(crate) struct Joiner {
    handlers: Handlers,
    brought: mpsc::Receiver<Waiting>,
    waiting: VecDeque<Waiting>,
    rate: Rate,
    last_start: Instant,
    /// Batches that were joined then.
    last_joined: usize,
}

impl Joint {
    /// Both sides. What is brought is applied while the joiner runs.
    pub(crate) fn new(handlers: Handlers) -> (Self, Joiner) {
        let (sender, brought) = mpsc::channel(SINGLE_LIMIT);
        let now = Instant::now();
        let joiner = Joiner {
            handlers,
            brought,
            waiting: VecDeque::new(),
            rate: Rate::new(now),
            last_start: now,
            last_joined: 0,
        };
        (Self { brought: sender }, joiner)
    }

    /// Applies a batch, perhaps together with others, and gives it back with what came of it. Whoever does not wait
    /// for that any more has let it go.
    pub(crate) async fn apply(&self, jobs: Vec<Job>) -> Result<(Vec<Job>, Applied), Unavailable> {
        let (answer, answered) = oneshot::channel();
        let ended = || Unavailable { dependency: "store", detail: "the process ends".to_owned(), is_late: false };
        let since = Instant::now();
        self.brought.send(Waiting { since, jobs, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }
}

impl Joiner {
    /// Runs until nobody can bring anything any more.
    pub(crate) async fn run(mut self) {
        let handlers = self.handlers.clone();
        let mut running = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !running.is_empty() {
            let due = self.due();
            tokio::select! {
                came = self.brought.recv(), if is_open => match came {
                    Some(came) => self.take(came),
                    None => is_open = false,
                },
                _ = running.next(), if !running.is_empty() => {}
                () = sleep_until(due), if !self.waiting.is_empty() && running.is_empty() => {}
            }
            while let Ok(came) = self.brought.try_recv() {
                self.take(came);
            }
            while let Some(together) = self.next(running.len(), Instant::now()) {
                running.push(apply(&handlers, together));
            }
        }
    }

    fn take(&mut self, came: Waiting) {
        self.rate.add(came.jobs.len(), Instant::now());
        self.waiting.push_back(came);
    }

    /// When what waits is to be applied if nothing is under way.
    fn due(&self) -> Instant {
        // Nobody waits for company who had none.
        let gathered = self.waiting.front().filter(|_| self.last_joined > 1).map(|it| it.since + GATHER);
        gathered.into_iter().chain([self.last_start + RHYTHM]).max().unwrap_or(self.last_start)
    }

    /// What is to be applied now, `running` others being under way.
    fn next(&mut self, running: usize, now: Instant) -> Option<Vec<Waiting>> {
        self.waiting.retain(|it| !it.answer.is_closed());
        let events: usize = self.waiting.iter().map(|it| it.jobs.len()).sum();
        let is_much = self.rate.within(RHYTHM, now) >= MUCH;
        let may_start = if !is_much {
            running < SINGLE_LIMIT
        } else if events >= ENOUGH {
            running < JOINT_LIMIT
        } else {
            running == 0 && now >= self.due()
        };
        if !may_start || self.waiting.is_empty() {
            return None;
        }
        let mut total = 0;
        let fits = self.waiting.iter().take_while(|it| {
            total += it.jobs.len();
            total <= MOST
        });
        let count = if is_much { fits.count().max(1) } else { 1 };
        (self.last_start, self.last_joined) = (now, count);
        Some(self.waiting.drain(..count).collect())
    }
}

/// Applies batches as one and answers whoever still waits; given up when nobody does.
async fn apply(handlers: &Handlers, together: Vec<Waiting>) {
    let (mut jobs, mut answers) = (Vec::new(), Vec::with_capacity(together.len()));
    for mut waiting in together {
        answers.push((waiting.jobs.len(), waiting.answer));
        jobs.append(&mut waiting.jobs);
    }
    let nobody_waits = join_all(answers.iter_mut().map(|(_, answer)| answer.closed()));
    let applied = tokio::select! {
        applied = AssertUnwindSafe(Box::pin(applied(handlers, &jobs))).catch_unwind() => applied,
        _ = pin!(nobody_waits) => return,
    };
    let mut applied = match applied {
        Ok(Ok(outcomes)) if outcomes.len() == jobs.len() => Some(Ok(outcomes)),
        Ok(Err(unavailable)) => Some(Err(unavailable)),
        Ok(Ok(_)) | Err(_) => None,
    };
    for (count, answer) in answers {
        let mine = applied.as_mut().map(|it| match it {
            Ok(outcomes) => Ok(outcomes.drain(..count).collect()),
            Err(unavailable) => Err(unavailable.clone()),
        });
        // Who does not wait any more gets them again from the broker.
        let _ = answer.send((jobs.drain(..count).collect(), mine));
    }
}

#[cfg(test)]
#[path = "joint_tests.rs"]
mod tests;
