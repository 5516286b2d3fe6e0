//! The file and its statements: what is on disk, and nothing of when.
//!
//! Three tables: `ready` (by place), `waiting` (for their next attempt) and `dead`. The invariant:
//! an event lies in exactly one of them, and moves between them inside one transaction.

use std::path::Path;
use std::time::Duration;

use domain::{Class, Timestamp};
use protocol::UnverifiedEnvelope;
use runtime::checkpoint::{LOG_LIMIT, WRITER_PAGES};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::lanes::{Event, Lane};
use crate::{BrokerError, Depths};

/// So long the log is waited for when it is given back, and the writer meanwhile.
const BRIEFLY: Duration = Duration::from_millis(20);
/// Rows per INSERT: a few fixed sizes, so that each is prepared once.
const CHUNKS: [usize; 6] = [64, 16, 8, 4, 2, 1];
const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS ready (
    place INTEGER PRIMARY KEY, job_id TEXT NOT NULL, kind TEXT NOT NULL, correlation_id TEXT,
    timestamp_s INTEGER NOT NULL, key_id TEXT NOT NULL, signature TEXT NOT NULL, traceparent TEXT,
    body BLOB NOT NULL, failures INTEGER NOT NULL, first_failed_at INTEGER);
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY AUTOINCREMENT, ready_at INTEGER NOT NULL, lane INTEGER NOT NULL,
    job_id TEXT NOT NULL, kind TEXT NOT NULL, correlation_id TEXT,
    timestamp_s INTEGER NOT NULL, key_id TEXT NOT NULL, signature TEXT NOT NULL, traceparent TEXT,
    body BLOB NOT NULL, failures INTEGER NOT NULL, first_failed_at INTEGER);
CREATE INDEX IF NOT EXISTS waiting_ready_at ON waiting (ready_at, id);
CREATE TABLE IF NOT EXISTS dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, lane INTEGER NOT NULL, headers TEXT NOT NULL,
    job_id TEXT NOT NULL, kind TEXT NOT NULL, correlation_id TEXT,
    timestamp_s INTEGER NOT NULL, key_id TEXT NOT NULL, signature TEXT NOT NULL, traceparent TEXT,
    body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS dead_job ON dead (job_id);
CREATE INDEX IF NOT EXISTS dead_cause ON dead (json_extract(headers, '$.\"x-cause\"'));
CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, count INTEGER NOT NULL);
";
/// Says which format it is.
const MARK: &str = "PRAGMA user_version = 1";

/// An event that waits for its next attempt.
#[derive(Debug)]
pub(super) struct Delayed {
    pub(super) ready_at: Timestamp,
    pub(super) lane: Lane,
    pub(super) envelope: UnverifiedEnvelope,
    pub(super) failures: u32,
    pub(super) first_failed_at: Option<Timestamp>,
}

/// An event that was given up.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) lane: Lane,
    /// JSON object of strings.
    pub(super) headers: String,
    pub(super) envelope: UnverifiedEnvelope,
}

/// What one transaction does.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// New in `ready`.
    pub(super) ready: Vec<Event>,
    /// Gone from `ready`.
    pub(super) settled: Vec<i64>,
    /// Gone from `waiting`, for they are in `ready` now.
    pub(super) due: Vec<i64>,
    pub(super) delayed: Vec<Delayed>,
    pub(super) dead: Vec<Dead>,
    /// Write something even if there is nothing to write, to see whether that works again.
    pub(super) probe: bool,
}

impl Changes {
    /// Whether one statement does all of it.
    fn is_one_insert(&self) -> bool {
        let Self { ready, settled, due, delayed, dead, probe } = self;
        let is_nothing_else = settled.is_empty() && due.is_empty() && delayed.is_empty() && dead.is_empty() && !probe;
        is_nothing_else && CHUNKS.contains(&ready.len())
    }
}

/// What the file held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) lanes: Vec<(Lane, u64)>,
    pub(super) last_number: i64,
    pub(super) next_due: Option<Timestamp>,
    pub(super) retrying: u64,
    pub(super) dead: u64,
    /// Of what is ready: events, and bytes of their bodies.
    pub(super) ready: (u64, u64),
}

/// The database's error as ours.
pub(super) fn unavailable(error: &sqlx::Error) -> BrokerError {
    BrokerError::Unavailable(error.to_string())
}

/// Opens a connection. Only the owner of the file may `write`.
pub(super) async fn connect(path: &Path, sync_full: bool, write: bool) -> Result<SqliteConnection, sqlx::Error> {
    let options = options(path, sync_full);
    let options = if write {
        let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        options.pragma("wal_autocheckpoint", WRITER_PAGES).pragma("journal_size_limit", LOG_LIMIT)
    } else {
        options.pragma("wal_autocheckpoint", "0")
    };
    options.connect().await
}

/// Opens a connection to checkpoint with: whoever writes never waits long for it.
pub(super) async fn connect_beside(path: &Path, sync_full: bool) -> Result<SqliteConnection, sqlx::Error> {
    options(path, sync_full).busy_timeout(BRIEFLY).pragma("wal_autocheckpoint", "0").connect().await
}

fn options(path: &Path, sync_full: bool) -> SqliteConnectOptions {
    let synchronous = if sync_full { SqliteSynchronous::Full } else { SqliteSynchronous::Normal };
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(5));
    options.synchronous(synchronous).disable_statement_logging()
}

/// Makes the tables and says what lies in them. Writes nothing where they are: a disk may be full.
pub(super) async fn prepare(db: &mut SqliteConnection) -> Result<Found, BrokerError> {
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *db).await.map_err(|error| unavailable(&error))?;
    if version > FORMAT {
        return Err(BrokerError::Topology(format!("the file is of format {version}, this version knows {FORMAT}")));
    }
    read_found(db, version == FORMAT).await.map_err(|error| unavailable(&error))
}

async fn read_found(db: &mut SqliteConnection, is_marked: bool) -> Result<Found, sqlx::Error> {
    sqlx::raw_sql(SCHEMA).execute(&mut *db).await?;
    if !is_marked {
        sqlx::raw_sql(MARK).execute(&mut *db).await?;
    }
    let (retrying, dead) = count_failed(db).await?;
    let mut found = Found { next_due: next_due(db).await?, retrying, dead, ..Default::default() };
    let lanes = "SELECT place >> 56, COUNT(*), MAX(place & 72057594037927935), SUM(LENGTH(body)) FROM ready
        GROUP BY 1";
    for row in sqlx::query(lanes).fetch_all(db).await? {
        if let Some(lane) = Lane::from_code(row.try_get(0)?) {
            found.lanes.push((lane, row.try_get::<i64, _>(1)? as u64));
        }
        found.last_number = found.last_number.max(row.try_get(2)?);
        let (events, body_bytes) = found.ready;
        let (more, more_bytes) = (row.try_get::<i64, _>(1)?, row.try_get::<i64, _>(3)?);
        found.ready = (events + more.unsigned_abs(), body_bytes + more_bytes.unsigned_abs());
    }
    Ok(found)
}

/// When the next event of `waiting` is due.
pub(super) async fn next_due(db: &mut SqliteConnection) -> Result<Option<Timestamp>, sqlx::Error> {
    let at: Option<i64> = sqlx::query_scalar("SELECT MIN(ready_at) FROM waiting").fetch_one(db).await?;
    Ok(at.map(Timestamp))
}

/// Events of a lane behind a place, in order.
pub(super) async fn read_ready(
    db: &mut SqliteConnection,
    lane: Lane,
    behind: i64,
    limit: usize,
) -> Result<Vec<Event>, sqlx::Error> {
    let sql = "SELECT job_id, kind, correlation_id, timestamp_s, key_id, signature, traceparent, body, failures,
        first_failed_at, place FROM ready WHERE place > ? AND place < ? ORDER BY place LIMIT ?";
    let end = lane.code() + 1;
    let rows = sqlx::query(sql).bind(behind).bind(end << 56).bind(limit as i64).fetch_all(db).await?;
    let event = |row: &SqliteRow| {
        let (failures, first_failed_at) = attempts(row)?;
        Ok(Event { place: row.try_get(10)?, envelope: envelope(row)?, failures, first_failed_at, redelivered: true })
    };
    rows.iter().map(event).collect()
}

/// Events whose next attempt is due, in the order in which they became so, with their ids.
pub(super) async fn read_due(
    db: &mut SqliteConnection,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(i64, Delayed)>, sqlx::Error> {
    let sql = "SELECT job_id, kind, correlation_id, timestamp_s, key_id, signature, traceparent, body, failures,
        first_failed_at, id, ready_at, lane FROM waiting WHERE ready_at <= ? ORDER BY ready_at, id LIMIT ?";
    let rows = sqlx::query(sql).bind(now.0).bind(limit as i64).fetch_all(db).await?;
    let delayed = |row: &SqliteRow| {
        let (failures, first_failed_at) = attempts(row)?;
        let lane = Lane::from_code(row.try_get(12)?).unwrap_or(Lane::of(Class::Low, 0));
        let ready_at = Timestamp(row.try_get(11)?);
        Ok((row.try_get(10)?, Delayed { ready_at, lane, envelope: envelope(row)?, failures, first_failed_at }))
    };
    rows.iter().map(delayed).collect()
}

fn envelope(row: &SqliteRow) -> Result<UnverifiedEnvelope, sqlx::Error> {
    Ok(UnverifiedEnvelope {
        job_id: row.try_get(0)?,
        kind: row.try_get(1)?,
        correlation_id: row.try_get(2)?,
        timestamp_s: row.try_get::<i64, _>(3)? as u64,
        key_id: row.try_get(4)?,
        signature: row.try_get(5)?,
        traceparent: row.try_get(6)?,
        body: row.try_get::<Vec<u8>, _>(7)?.into(),
    })
}

fn attempts(row: &SqliteRow) -> Result<(u32, Option<Timestamp>), sqlx::Error> {
    Ok((row.try_get(8)?, row.try_get::<Option<i64>, _>(9)?.map(Timestamp)))
}

/// Commits all changes or none. Not by the library's transaction: on a full disk SQLite rolls back by
/// itself, the library's own rollback then fails, and it would never begin another. What one statement
/// can do is a transaction by itself.
pub(super) async fn commit(db: &mut SqliteConnection, changes: &Changes) -> Result<(), sqlx::Error> {
    if changes.is_one_insert() {
        return insert_ready(db, &changes.ready).await;
    }
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *db).await?;
    let mut written = write(db, changes).await;
    if written.is_ok() {
        written = sqlx::raw_sql("COMMIT").execute(&mut *db).await.map(drop);
    }
    if written.is_err() {
        // An error: it was rolled back already.
        let _ = sqlx::raw_sql("ROLLBACK").execute(db).await;
    }
    written
}

async fn write(db: &mut SqliteConnection, changes: &Changes) -> Result<(), sqlx::Error> {
    insert_ready(db, &changes.ready).await?;
    for (sql, ids) in [
        ("DELETE FROM ready WHERE place IN (SELECT value FROM json_each(?))", &changes.settled),
        ("DELETE FROM waiting WHERE id IN (SELECT value FROM json_each(?))", &changes.due),
    ] {
        if !ids.is_empty() {
            let list = serde_json::to_string(ids).expect("a list of numbers is JSON");
            sqlx::query(sql).bind(list).execute(&mut *db).await?;
        }
    }
    for delayed in &changes.delayed {
        insert_delayed(db, delayed).await?;
    }
    for dead in &changes.dead {
        insert_dead(db, dead).await?;
    }
    if changes.probe {
        let sql = "INSERT INTO probe VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET count = count + 1";
        sqlx::query(sql).execute(db).await?;
    }
    Ok(())
}

async fn insert_ready(db: &mut SqliteConnection, mut events: &[Event]) -> Result<(), sqlx::Error> {
    while !events.is_empty() {
        let size = CHUNKS.into_iter().find(|size| *size <= events.len()).unwrap_or(1);
        let (chunk, rest) = events.split_at(size);
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO ready (place, job_id, kind, correlation_id, timestamp_s, key_id, signature, traceparent,
             body, failures, first_failed_at) ",
        );
        insert.push_values(chunk, |mut row, event| {
            let envelope = &event.envelope;
            row.push_bind(event.place)
                .push_bind(&envelope.job_id)
                .push_bind(&envelope.kind)
                .push_bind(&envelope.correlation_id)
                .push_bind(envelope.timestamp_s as i64)
                .push_bind(&envelope.key_id)
                .push_bind(&envelope.signature)
                .push_bind(&envelope.traceparent)
                .push_bind(&envelope.body[..])
                .push_bind(event.failures)
                .push_bind(event.first_failed_at.map(|at| at.0));
        });
        insert.build().execute(&mut *db).await?;
        events = rest;
    }
    Ok(())
}

async fn insert_delayed(db: &mut SqliteConnection, delayed: &Delayed) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO waiting (ready_at, lane, failures, first_failed_at, job_id, kind, correlation_id,
        timestamp_s, key_id, signature, traceparent, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(sql).bind(delayed.ready_at.0).bind(delayed.lane.code()).bind(delayed.failures);
    let query = query.bind(delayed.first_failed_at.map(|at| at.0));
    bind_envelope(query, &delayed.envelope).execute(db).await.map(drop)
}

async fn insert_dead(db: &mut SqliteConnection, dead: &Dead) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO dead (lane, headers, job_id, kind, correlation_id,
        timestamp_s, key_id, signature, traceparent, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(sql).bind(dead.lane.code()).bind(&dead.headers);
    bind_envelope(query, &dead.envelope).execute(db).await.map(drop)
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind_envelope<'q>(query: Query<'q>, envelope: &'q UnverifiedEnvelope) -> Query<'q> {
    query
        .bind(&envelope.job_id)
        .bind(&envelope.kind)
        .bind(&envelope.correlation_id)
        .bind(envelope.timestamp_s as i64)
        .bind(&envelope.key_id)
        .bind(&envelope.signature)
        .bind(&envelope.traceparent)
        .bind(&envelope.body[..])
}

/// Counts all three tables, row by row; for who does not own the file. The owner knows without looking.
pub(super) async fn depths(db: &mut SqliteConnection) -> Result<Depths, sqlx::Error> {
    let (retry, dead) = count_failed(db).await?;
    let mut ready = [0; 3];
    for row in sqlx::query("SELECT place >> 56, COUNT(*) FROM ready GROUP BY 1").fetch_all(db).await? {
        if let Some(lane) = Lane::from_code(row.try_get(0)?) {
            ready[lane.class().index()] += row.try_get::<i64, _>(1)? as u64;
        }
    }
    Ok(Depths { retry, dead, ..Depths::ready(vec![ready]) })
}

/// How many events wait for their next attempt, and how many were given up.
pub(super) async fn count_failed(db: &mut SqliteConnection) -> Result<(u64, u64), sqlx::Error> {
    let count = "SELECT (SELECT COUNT(*) FROM waiting), (SELECT COUNT(*) FROM dead)";
    let row = sqlx::query(count).fetch_one(db).await?;
    Ok((row.try_get::<i64, _>(0)? as u64, row.try_get::<i64, _>(1)? as u64))
}

/// A number that changes when another connection has changed the file.
pub(super) async fn data_version(db: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(db).await
}

/// Moves what it can from the write-ahead log into the file, without holding up the writer, and says how many
/// pages the log had. `gives_back`: the log itself too, to the disk, for which the writer waits a moment.
pub(super) async fn checkpoint(db: &mut SqliteConnection, gives_back: bool) -> Result<u32, sqlx::Error> {
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut *db).await?;
    let pages = row.try_get::<i64, _>("log")?;
    if gives_back {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(db).await?;
    }
    Ok(u32::try_from(pages).unwrap_or(0))
}
