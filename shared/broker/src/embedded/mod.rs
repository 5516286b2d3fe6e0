//! The embedded engine: durable queues in a SQLite file, for one process.
//!
//! Same priorities, back-offs and dead letters as on RabbitMQ, with one shard. The invariant: one
//! process at a time owns the file; another one may look at it and operate on dead letters, which the
//! owner notices, but neither publish nor consume.

mod consumer;
mod doubt;
mod file;
mod lanes;
mod letters;
mod room;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use domain::Class;
use parking_lot::Mutex;
use protocol::SignedEnvelope;
use runtime::checkpoint::Pace;
use runtime::{Clock, Shutdown, Tasks};
use sqlx::SqliteConnection;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use self::doubt::Doubt;
use self::file::{Changes, Found, unavailable};
use self::lanes::Lanes;
use self::room::Room;
use self::writer::{Order, Writer};
use crate::letters::{DeadLetter, Fate, LetterPage, LetterQuery, Reach, Selection, Swept};
use crate::publish::Gate;
use crate::turn::Turns;
use crate::{ASK_LIMIT, BrokerError, CONFIRM_LIMIT, Confirm, Depths, PublishError};

pub(crate) use self::consumer::ShardConsumer;

/// Settled batches that may wait for the writer.
const ORDERS_LIMIT: usize = 256;
/// How long a predecessor that is about to end may still own the file.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// How often the disk is looked at while it is short of room.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the writer and the consumer share.
#[derive(Debug, Default)]
struct Shared {
    lanes: Mutex<Lanes>,
    /// Something may have come into the lanes.
    arrived: Notify,
    /// A lane should be loaded from disk.
    wanted: Notify,
    /// Another connection of this process has changed the file.
    touched: Notify,
    /// How many events wait for their next attempt, and how many were given up: counted along, for
    /// dead letters are kept without limit and a count of the table would walk through them all.
    retrying: AtomicU64,
    dead: AtomicU64,
    /// The last write or read failed, or it hangs.
    failing: AtomicBool,
    doubt: Doubt,
    room: Room,
    over: AtomicBool,
    /// Requested when the file is closed.
    ended: Shutdown,
}

impl Shared {
    /// Takes up what lies in the file at the start.
    fn found(&self, found: &Found) {
        found.lanes.iter().for_each(|(lane, count)| self.lanes.lock().found(*lane, *count));
        self.retrying.store(found.retrying, Ordering::Release);
        self.dead.store(found.dead, Ordering::Release);
        let (events, body_bytes) = found.ready;
        self.room.expect(events, body_bytes);
    }

    /// Counts what was committed.
    fn count(&self, changes: &Changes) {
        // What another connection has replayed may be due before it was counted.
        let (more, fewer) = (changes.delayed.len() as u64, changes.due.len() as u64);
        let retrying = self.retrying.load(Ordering::Acquire).saturating_add(more).saturating_sub(fewer);
        self.retrying.store(retrying, Ordering::Release);
        self.dead.fetch_add(changes.dead.len() as u64, Ordering::AcqRel);
        let bodies = changes.ready.iter().map(|event| event.envelope.body.len() as u64);
        self.room.expect(changes.ready.len() as u64, bodies.sum());
    }

    fn depths(&self) -> Depths {
        let lanes = self.lanes.lock();
        let (retry, dead) = (self.retrying.load(Ordering::Acquire), self.dead.load(Ordering::Acquire));
        Depths { retry, dead, ..Depths::ready(vec![Class::ALL.map(|class| lanes.depth(class))]) }
    }

    fn is_healthy(&self) -> bool {
        !self.failing.load(Ordering::Acquire)
    }

    fn set_healthy(&self, healthy: bool) {
        self.failing.store(!healthy, Ordering::Release);
    }

    fn is_ended(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.arrived.notify_one();
    }
}

/// Queues in a file.
pub(crate) struct Embedded {
    gate: Gate,
    shared: Arc<Shared>,
    closing: Shutdown,
    turns: Turns,
    /// `None`: another process owns the file.
    orders: Option<mpsc::Sender<Order>>,
    path: PathBuf,
    sync_full: bool,
    reader: tokio::sync::Mutex<SqliteConnection>,
}

impl Embedded {
    pub(crate) async fn open(path: PathBuf, sync_full: bool, tasks: &Tasks) -> Result<Self, BrokerError> {
        let (gate, submissions) = Gate::new();
        let (shared, closing) = (Arc::<Shared>::default(), Shutdown::new());
        let mut orders = None;
        if let Some(lock) = lock(&path).await? {
            let mut db = file::connect(&path, sync_full, true).await.map_err(|error| unavailable(&error))?;
            let found = file::prepare(&mut db).await?;
            shared.found(&found);
            shared.wanted.notify_one();
            let (sender, received) = mpsc::channel(ORDERS_LIMIT);
            orders = Some(sender);
            let writer = Writer::new(db, &found, submissions, received, Arc::clone(&shared), lock);
            tasks.own("embedded broker writer", writer.run(closing.clone(), tasks.shutdown().clone()));
            let db = file::connect_beside(&path, sync_full).await.map_err(|error| unavailable(&error))?;
            let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
            shared.room.look(&folder);
            let checkpointer = checkpoint(db, folder, Arc::clone(&shared), tasks.shutdown().clone());
            tasks.own("embedded broker checkpointer", checkpointer);
        } else {
            tracing::info!("another process owns the embedded broker's file; only looking");
        }
        let reader = file::connect(&path, sync_full, false).await.map_err(|error| unavailable(&error))?.into();
        Ok(Self { gate, shared, closing, turns: Turns::new(1), orders, path, sync_full, reader })
    }

    /// Opens the file without ever taking it over.
    pub(crate) async fn visit(path: PathBuf, sync_full: bool) -> Result<Self, BrokerError> {
        let (gate, _nobody) = Gate::new();
        let mut db = file::connect(&path, sync_full, true).await.map_err(|error| unavailable(&error))?;
        file::prepare(&mut db).await?;
        let (shared, closing, turns) = (Arc::default(), Shutdown::new(), Turns::new(1));
        Ok(Self { gate, shared, closing, turns, orders: None, path, sync_full, reader: db.into() })
    }

    pub(crate) fn publish(&self, envelope: SignedEnvelope) -> Confirm {
        if self.is_connected() { self.gate.submit(envelope) } else { Confirm::refused(PublishError::Unavailable) }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.can_settle() && !self.shared.room.is_little()
    }

    pub(crate) fn can_settle(&self) -> bool {
        let has_room = !self.shared.room.is_none();
        self.orders.is_some() && self.shared.is_healthy() && has_room && !self.closing.is_requested()
    }

    pub(crate) fn count_in(&self, spare_bytes: Arc<AtomicU64>) {
        self.shared.room.count_in(spare_bytes);
    }

    pub(crate) async fn consume(&self, shard: u16) -> Result<ShardConsumer, BrokerError> {
        let orders = self.orders.clone().ok_or_else(not_ours)?;
        let turn = self.turns.take(shard, ASK_LIMIT).await?;
        Ok(ShardConsumer::new(Arc::clone(&self.shared), orders, turn))
    }

    pub(crate) async fn depths(&self) -> Result<Depths, BrokerError> {
        if self.orders.is_some() {
            return Ok(self.shared.depths());
        }
        let mut reader = self.reader.lock().await;
        file::depths(&mut reader).await.map_err(|error| unavailable(&error))
    }

    pub(crate) async fn dead_letters(&self, query: &LetterQuery) -> Result<LetterPage, BrokerError> {
        letters::page(&mut self.operate().await?, query).await.map_err(|error| unavailable(&error))
    }

    pub(crate) async fn dead_letter(&self, job_id: &str, _time: Duration) -> Result<Option<DeadLetter>, BrokerError> {
        letters::one(&mut self.operate().await?, job_id).await.map_err(|error| unavailable(&error))
    }

    pub(crate) async fn sweep(&self, selection: &Selection, fate: Fate, reach: Reach) -> Result<Swept, BrokerError> {
        let mut db = self.operate().await?;
        let swept = letters::sweep(&mut db, selection, fate, reach, Clock::system().now()).await;
        self.shared.touched.notify_one();
        swept.map_err(|error| unavailable(&error))
    }

    /// A connection for one call, which may be dropped at any moment.
    async fn operate(&self) -> Result<SqliteConnection, BrokerError> {
        file::connect(&self.path, self.sync_full, false).await.map_err(|error| unavailable(&error))
    }

    pub(crate) async fn ping(&self) -> Result<(), BrokerError> {
        if self.orders.is_none() {
            return Err(not_ours());
        }
        if self.shared.room.is_little() {
            return Err(BrokerError::Unavailable("the disk is full".to_owned()));
        }
        if !self.is_connected() {
            return Err(BrokerError::Unavailable("the last write failed or hangs".to_owned()));
        }
        let mut reader = self.reader.lock().await;
        sqlx::query("SELECT 1").execute(&mut *reader).await.map(drop).map_err(|error| unavailable(&error))
    }

    pub(crate) async fn flush(&self, limit: Duration) {
        self.gate.flush(limit).await;
    }

    pub(crate) async fn close(&self) {
        self.flush(CONFIRM_LIMIT).await;
        self.closing.request();
        if self.orders.is_some() {
            // A disk that hangs longer than this keeps the file; it is whole all the same.
            let _late = tokio::time::timeout(ASK_LIMIT, self.shared.ended.requested()).await;
        }
    }
}

fn not_ours() -> BrokerError {
    BrokerError::Unavailable("another process owns the embedded broker's file".to_owned())
}

/// Takes the file for this process; `None` when another one has it.
async fn lock(path: &Path) -> Result<Option<File>, BrokerError> {
    let failed = |error: &std::io::Error| BrokerError::Unavailable(format!("cannot lock the broker's file: {error}"));
    let lock = File::create(path.with_added_extension("lock")).map_err(|error| failed(&error))?;
    let until = Instant::now() + LOCK_LIMIT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Checkpoints beside the writer, so that its commits need not, and looks how much room there is.
async fn checkpoint(mut db: SqliteConnection, folder: PathBuf, shared: Arc<Shared>, stop: Shutdown) {
    let (mut pace, mut last, mut is_failing) = (Pace::default(), Instant::now(), false);
    loop {
        let pause = if shared.room.is_short() { LOOK_EVERY } else { Pace::LEAST };
        tokio::select! {
            () = shared.ended.requested() => break,
            () = tokio::time::sleep(pause) => {}
        }
        shared.room.look(&folder);
        let is_short = shared.room.is_short();
        if last.elapsed() < if is_short || is_failing { Pace::LEAST } else { pace.pause() } {
            continue;
        }
        let result = file::checkpoint(&mut db, is_short).await;
        last = Instant::now();
        // Once, and not again with each trial.
        if let Some(error) = result.as_ref().err().filter(|_| !is_failing) {
            tracing::warn!(%error, "cannot checkpoint the embedded broker's file; it tries again every second");
        }
        is_failing = result.is_err();
        pace.learn(result.unwrap_or_default());
    }
    drop(db);
    stop.requested().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_due_before_it_was_counted_leaves_no_monstrous_depth() {
        let shared = Shared::default();
        shared.count(&Changes { due: vec![1, 2], ..Default::default() });
        assert_eq!(shared.depths().retry, 0);
    }
}
