//! The one task that writes the file: its queue makes the order of calls the order on disk.
//!
//! Group commit: while a commit runs, submissions and settlements gather, and the next commit takes
//! them all; an idle system waits for nothing. The invariant: a confirm is a yes only after its
//! commit, an event is handed out only after its commit, and every submission is answered within
//! `CONFIRM_LIMIT` even when the disk hangs.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::Timestamp;
use runtime::{Clock, Shutdown};
use sqlx::{Connection as _, SqliteConnection};
use telemetry::Gauge;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Shared;
use super::file::{self, Changes, Dead, Delayed, Found};
use super::lanes::{Event, Lane};
use crate::CONFIRM_LIMIT;
use crate::publish::{Submission, Ticket};

/// Events in one commit: at 64 rows per statement and some 15 µs per statement this is a few
/// milliseconds, about as long as an fsync.
const COMMIT_LIMIT: usize = 512;
/// Settlements in one commit; each is a whole batch.
const ORDERS_LIMIT: usize = 64;
/// Events loaded at once.
const LOAD_LIMIT: usize = 1_024;
/// How often to look whether others have changed the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to leave the disk alone after a failure.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A settled batch.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) settled: Vec<i64>,
    pub(super) delayed: Vec<Delayed>,
    pub(super) dead: Vec<Dead>,
    /// Told once it is on disk.
    pub(super) done: Option<oneshot::Sender<()>>,
}

/// The task's belongings.
pub(super) struct Writer {
    db: SqliteConnection,
    submissions: mpsc::Receiver<Submission>,
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    clock: Clock,
    last_number: i64,
    /// What has a higher number was never handed out before this process began.
    first_number: i64,
    next_due: Option<Timestamp>,
    next_look: Instant,
    /// Of the file, when it was last looked at.
    version: Option<i64>,
    /// Settled, but the commit that was to say so failed.
    left_over: Vec<i64>,
    /// The lock on the file; held as long as this task writes.
    lock: std::fs::File,
}

/// What one commit is made of.
#[derive(Default)]
struct Work {
    changes: Changes,
    tickets: Vec<Ticket>,
    done: Vec<oneshot::Sender<()>>,
    /// Those of `changes.settled` for whose commit nobody waits.
    acked: Vec<i64>,
}

impl Writer {
    pub(super) fn new(
        db: SqliteConnection,
        found: &Found,
        submissions: mpsc::Receiver<Submission>,
        orders: mpsc::Receiver<Order>,
        shared: Arc<Shared>,
        lock: std::fs::File,
    ) -> Self {
        let (last_number, next_due, left_over) = (found.last_number, found.next_due, Vec::new());
        let clock = Clock::system();
        let (first_number, next_look, version) = (last_number, Instant::now(), None);
        Self {
            db,
            submissions,
            orders,
            shared,
            clock,
            last_number,
            first_number,
            next_due,
            next_look,
            version,
            left_over,
            lock,
        }
    }

    /// Writes until every handle is gone or it is asked to end, then waits for the service's `stop`.
    pub(super) async fn run(mut self, closing: Shutdown, stop: Shutdown) {
        while self.turn(&closing).await {}
        // Whatever is still in the queues when nobody sends any more.
        self.submissions.close();
        self.orders.close();
        while !(self.submissions.is_empty() && self.orders.is_empty()) {
            let (chunk, orders) = (Vec::new(), Vec::new());
            self.cycle(chunk, orders).await;
        }
        self.shared.end();
        // Nothing more can be done about a file that does not close; it is whole all the same.
        let _failed = self.db.close().await;
        drop(self.lock);
        self.shared.ended.request();
        stop.requested().await;
    }

    /// Waits for something to do and does it; false when it is asked to end.
    async fn turn(&mut self, closing: &Shutdown) -> bool {
        let (mut chunk, mut orders) = (Vec::new(), Vec::new());
        let until_due = self.next_due.map(|at| at.since(self.clock.now()));
        let healthy = self.shared.is_healthy();
        if healthy && Instant::now() >= self.next_look {
            self.look_around().await;
        }
        tokio::select! {
            biased;
            count = self.submissions.recv_many(&mut chunk, COMMIT_LIMIT) => if count == 0 { return false },
            count = self.orders.recv_many(&mut orders, ORDERS_LIMIT) => if count == 0 { return false },
            () = self.shared.wanted.notified() => {}
            () = self.shared.touched.notified() => {
                self.next_look = Instant::now();
                return true;
            }
            () = tokio::time::sleep_until(self.next_look), if healthy => return true,
            () = tokio::time::sleep(until_due.unwrap_or_default()), if until_due.is_some() && healthy => {}
            () = tokio::time::sleep(PROBE_EVERY), if !healthy => {}
            () = closing.requested() => return false,
        }
        self.cycle(chunk, orders).await;
        true
    }

    /// One commit of everything that is there, and its consequences.
    async fn cycle(&mut self, chunk: Vec<Submission>, orders: Vec<Order>) {
        let began = Instant::now();
        let mut work = self.gather(chunk, orders);
        let result = {
            let writing =
                write(&mut self.db, &mut work.changes, &mut self.last_number, self.next_due, self.clock.now());
            guarded(writing, began, &mut work.tickets, &mut self.submissions, &self.shared).await
        };
        match result {
            Ok(next_due) => self.committed(work, next_due),
            Err(error) => {
                // Once, and not again with each trial.
                if self.shared.is_healthy() {
                    tracing::error!(%error, "the embedded broker cannot write; it tries again every second");
                }
                self.shared.set_healthy(false);
                let back = self.shared.doubt.resolve(work.done, false, &work.changes.settled);
                self.shared.lanes.lock().give_back(back);
                self.shared.arrived.notify_one();
                self.left_over = work.acked;
            }
        }
        self.load().await;
    }

    fn gather(&mut self, mut chunk: Vec<Submission>, mut orders: Vec<Order>) -> Work {
        while chunk.len() < COMMIT_LIMIT
            && let Ok(submission) = self.submissions.try_recv()
        {
            chunk.push(submission);
        }
        while orders.len() < ORDERS_LIMIT
            && let Ok(order) = self.orders.try_recv()
        {
            orders.push(order);
        }
        let mut work = Work::default();
        work.changes.probe = !self.shared.is_healthy();
        work.acked = std::mem::take(&mut self.left_over);
        for Submission { envelope, ticket } in chunk {
            self.last_number += 1;
            let place = Lane::of(envelope.class(), envelope.kind.priority()).place(self.last_number);
            let envelope = envelope.to_unverified();
            work.changes.ready.push(Event { place, envelope, failures: 0, first_failed_at: None, redelivered: false });
            work.tickets.push(ticket);
        }
        for order in orders {
            let settled = if order.done.is_some() { &mut work.changes.settled } else { &mut work.acked };
            settled.extend(order.settled);
            work.changes.delayed.extend(order.delayed);
            work.changes.dead.extend(order.dead);
            work.done.extend(order.done);
        }
        work.changes.settled.extend(&work.acked);
        work
    }

    fn committed(&mut self, work: Work, next_due: Option<Timestamp>) {
        self.next_due = next_due;
        self.shared.set_healthy(true);
        self.shared.count(&work.changes);
        if !work.changes.ready.is_empty() {
            let mut lanes = self.shared.lanes.lock();
            work.changes.ready.into_iter().for_each(|event| lanes.append(event));
            drop(lanes);
            self.shared.arrived.notify_one();
        }
        work.tickets.into_iter().for_each(Ticket::confirm);
        for event in self.shared.doubt.resolve(work.done, true, &work.changes.settled) {
            self.shared.room.settle(event.envelope.body.len() as u64);
        }
        Gauge::ConfirmsOutstanding.set(self.submissions.len() as f64);
    }

    /// Notices what others have changed: dead letters that they moved or dropped.
    async fn look_around(&mut self) {
        self.next_look = Instant::now() + LOOK_EVERY;
        let (db, version, shared) = (&mut self.db, self.version, &*self.shared);
        let looking = async {
            let now = file::data_version(db).await?;
            if version == Some(now) {
                return Ok(None);
            }
            Ok::<_, sqlx::Error>(Some((now, file::count_failed(db).await?, file::next_due(db).await?)))
        };
        let looked = guarded(looking, Instant::now(), &mut Vec::new(), &mut self.submissions, shared).await;
        match looked {
            Ok(Some((version, (retrying, dead), next_due))) => {
                (self.version, self.next_due) = (Some(version), next_due);
                self.shared.retrying.store(retrying, Ordering::Release);
                self.shared.dead.store(dead, Ordering::Release);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the embedded broker cannot see whether others changed its file"),
        }
    }

    /// Brings events from disk into memory where too few are left. When that fails, the next probe
    /// tries again: nobody else would, for nobody waits for what is only on disk.
    async fn load(&mut self) {
        let Some(wanted) = self.shared.lanes.lock().wanted() else { return };
        let reading = file::read_ready(&mut self.db, wanted.lane, wanted.behind, LOAD_LIMIT);
        let read = guarded(reading, Instant::now(), &mut Vec::new(), &mut self.submissions, &self.shared).await;
        match read {
            Ok(mut events) => {
                for event in &mut events {
                    event.redelivered = Lane::number(event.place) <= self.first_number;
                }
                self.shared.lanes.lock().load(wanted, events, LOAD_LIMIT);
                self.shared.arrived.notify_one();
            }
            Err(error) => {
                tracing::error!(%error, "the embedded broker cannot read");
                self.shared.set_healthy(false);
            }
        }
    }
}

/// Adds the events that are due to the changes and commits them all. Says when the next is due.
async fn write(
    db: &mut SqliteConnection,
    changes: &mut Changes,
    last_number: &mut i64,
    next_due: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let is_due = next_due.is_some_and(|at| at <= now);
    if is_due {
        for (id, delayed) in file::read_due(db, now, COMMIT_LIMIT).await? {
            *last_number += 1;
            changes.due.push(id);
            let Delayed { lane, envelope, failures, first_failed_at, .. } = delayed;
            let place = lane.place(*last_number);
            changes.ready.push(Event { place, envelope, failures, first_failed_at, redelivered: false });
        }
    }
    file::commit(db, changes).await?;
    if is_due {
        // What is committed stays so: when this one question fails, it is asked again soon.
        return Ok(file::next_due(db).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the embedded broker cannot read");
            Some(now.plus(PROBE_EVERY))
        }));
    }
    Ok(changes.delayed.iter().map(|delayed| delayed.ready_at).chain(next_due).min())
}

/// Awaits the disk. When it hangs, says so to whoever asks, answers those who wait for it in time,
/// and refuses who comes anew.
async fn guarded<T>(
    writing: impl Future<Output = T>,
    began: Instant,
    tickets: &mut Vec<Ticket>,
    submissions: &mut mpsc::Receiver<Submission>,
    shared: &Shared,
) -> T {
    let mut writing = pin!(writing);
    // What gathers during this commit has the same limit again for its own.
    let hanging = began + CONFIRM_LIMIT / 2;
    let late = tickets.first().map_or(began + CONFIRM_LIMIT, Ticket::deadline);
    loop {
        let is_hanging = Instant::now() >= hanging;
        if is_hanging {
            shared.set_healthy(false);
        }
        tokio::select! {
            biased;
            result = &mut writing => return result,
            () = tokio::time::sleep_until(late), if !tickets.is_empty() => tickets.clear(),
            () = tokio::time::sleep_until(hanging), if !is_hanging => {}
            Some(refused) = submissions.recv(), if is_hanging => drop(refused),
        }
    }
}
