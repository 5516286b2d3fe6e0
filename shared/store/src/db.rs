//! The connections: pools of either database, one way to use both, transactions.
//!
//! It knows no table. The invariant: every wait ends, and a connection that did not answer in time
//! is closed instead of being used again.

use std::future::Future;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use runtime::checkpoint::{LOG_LIMIT, WRITER_PAGES};
use runtime::{Shutdown, Tasks};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, FromRow, PgPool, Postgres, Sqlite, SqlitePool};
use tokio::time::timeout;

use crate::checkpoint::Checkpointer;
use crate::rows::{Rows, RowsSql};
use crate::{StoreError, StoreSettings};

/// A free connection, a new one included.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(2);
/// One statement, seen from here. The server's own limit lies just below.
const STATEMENT_LIMIT: Duration = Duration::from_secs(3);
/// One statement of an import, which moves thousands of rows.
const BULK_LIMIT: Duration = Duration::from_secs(30);
/// A sign of life.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// An idle connection is tried before use if it was idle so long.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// That trial, and the one when a connection goes back: short, so that a dead connection leaves time
/// for a new one, and never holds its place in the pool for long.
const TRIAL_LIMIT: Duration = Duration::from_millis(800);
/// The server looks so often whether the client of a running statement is still there.
const WATCH_CLIENT: &str = "SET client_connection_check_interval = '500ms'";
/// Readers of a `SQLite` file beside its one writer.
const SQLITE_READERS: u32 = 4;

/// The tables that a batch writes, locked as its statements lock them.
const LIKE_A_WRITER: &str = "LOCK TABLE room_counters, messages, room_events, room_members, refused_jobs, users
    IN ROW EXCLUSIVE MODE";

/// Settings of each Postgres session. A statement may run, or wait for a row lock, a little less than
/// we wait for the statement, so that the server and not the clock says what was wrong, and nothing
/// runs on for which nobody waits. A process that stands still in the middle of a batch keeps the
/// rooms it locked for 3 s at most.
///
/// All our statements look rows up by an index, a few at a time. Left alone, the planner takes the
/// empty tables of a new installation for small ones, plans to read them whole, and a busy session
/// keeps that plan while they grow. So: one plan for each statement, by index, in nested loops.
const POSTGRES_SESSION: [(&str, &str); 12] = [
    ("statement_timeout", "2800ms"),
    ("lock_timeout", "2500ms"),
    ("idle_in_transaction_session_timeout", "3s"),
    ("default_transaction_isolation", "read committed"),
    ("tcp_keepalives_idle", "10"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_material", "off"),
];

/// Asks either database the same: `on!(conn, c => sqlx::query_as(SQL).bind(id).fetch_all(c))`.
macro_rules! on {
    ($conn:expr, $c:ident => $future:expr) => {{
        let conn: &mut $crate::db::Conn = &mut $conn;
        let limit = conn.ask();
        let answer = match &mut conn.engine {
            $crate::db::Engine::Postgres(held) => {
                let $c = &mut **held;
                $crate::db::answer_within(limit, $future).await
            }
            $crate::db::Engine::Sqlite(held) => {
                let $c = &mut **held;
                $crate::db::answer_within(limit, $future).await
            }
        };
        conn.judge(answer)
    }};
}

/// Changes rows on either database: `run!(conn, SQL, id, now)`; how many.
macro_rules! run {
    ($conn:expr, $sql:expr $(, $value:expr)* $(,)?) => {
        on!($conn, c => async {
            let statement = sqlx::query($sql)$(.bind($value))*;
            statement.execute(c).await.map(|done| done.rows_affected())
        })
    };
}

/// The pools of one database.
#[derive(Clone)]
pub(crate) enum Db {
    Postgres {
        pool: PgPool,
        options: Box<PgConnectOptions>,
        /// Bring connections back into the pool.
        returns: Tasks,
    },
    /// One writer, so that writers queue here and not inside the database.
    Sqlite { write: SqlitePool, read: SqlitePool, checkpointer: Checkpointer },
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Postgres { .. } => "Postgres",
            Self::Sqlite { .. } => "Sqlite",
        })
    }
}

impl Db {
    pub(crate) async fn open(settings: StoreSettings) -> Result<Self, StoreError> {
        match settings {
            StoreSettings::Postgres { url, max_connections } => {
                let options = postgres_options(&url)?;
                // The pool hides why it cannot connect; one attempt of our own tells.
                let probe = timeout(PING_LIMIT, sqlx::PgConnection::connect_with(&options)).await;
                probe.map_err(|_| StoreError::timed_out())??.close().await?;
                let (pool, returns) = (postgres_pool(&options, max_connections), Tasks::new(Shutdown::new()));
                Ok(Self::Postgres { pool, options: Box::new(options), returns })
            }
            StoreSettings::Sqlite { path, sync_full } => {
                let synchronous = if sync_full { SqliteSynchronous::Full } else { SqliteSynchronous::Normal };
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(synchronous)
                    .busy_timeout(Duration::from_millis(2500))
                    .foreign_keys(true)
                    .pragma("temp_store", "memory")
                    .pragma("journal_size_limit", LOG_LIMIT)
                    .pragma("wal_autocheckpoint", WRITER_PAGES)
                    .statement_cache_capacity(256)
                    .disable_statement_logging();
                let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_LIMIT).test_before_acquire(false);
                // The writer opens first: it makes the file and its write-ahead log.
                let forever = None::<Duration>;
                let write = pool().max_connections(1).idle_timeout(forever).max_lifetime(forever);
                let write = write.connect_with(options.clone()).await?;
                let checkpointer = Checkpointer::start(&options).await?;
                let read = pool().max_connections(SQLITE_READERS).connect_lazy_with(options.pragma("query_only", "on"));
                Ok(Self::Sqlite { write, read, checkpointer })
            }
        }
    }

    /// What a file has inside of it to write over, bytes.
    pub(crate) fn spare_bytes(&self) -> Option<Arc<AtomicU64>> {
        match self {
            Self::Postgres { .. } => None,
            Self::Sqlite { checkpointer, .. } => Some(checkpointer.spare_bytes()),
        }
    }

    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let ask = async {
            let mut conn = self.read().await?;
            run!(conn, "SELECT 1").map(drop)
        };
        timeout(PING_LIMIT, ask).await.map_err(|_| StoreError::timed_out())?
    }

    /// Takes the locks that a writer takes, and gives them back.
    pub(crate) async fn try_writing(&self) -> Result<(), StoreError> {
        let trial = async {
            let mut tx = self.begin().await?;
            if matches!(tx.conn.engine, Engine::Postgres(_)) {
                run!(tx.conn, LIKE_A_WRITER)?;
            }
            tx.roll_back().await
        };
        timeout(STATEMENT_LIMIT, trial).await.map_err(|_| StoreError::timed_out())?
    }

    pub(crate) async fn close(&self) {
        let close = async {
            match self {
                Self::Postgres { pool, .. } => pool.close().await,
                Self::Sqlite { write, read, checkpointer } => {
                    checkpointer.end().await;
                    read.close().await;
                    write.close().await;
                }
            }
        };
        if timeout(STATEMENT_LIMIT, close).await.is_err() {
            tracing::warn!("the store was closed while connections were in use");
        }
    }

    /// A connection for statements that only read.
    pub(crate) async fn read(&self) -> Result<Conn, StoreError> {
        match self {
            Self::Postgres { pool, returns, .. } => Conn::postgres(pool, returns).await,
            Self::Sqlite { read, .. } => Ok(Conn::new(Engine::Sqlite(read.acquire().await?), None)),
        }
    }

    /// A connection for one statement that writes.
    pub(crate) async fn write(&self) -> Result<Conn, StoreError> {
        match self {
            Self::Postgres { pool, returns, .. } => Conn::postgres(pool, returns).await,
            Self::Sqlite { write, .. } => Ok(Conn::new(Engine::Sqlite(write.acquire().await?), None)),
        }
    }

    /// A transaction that may write. On `SQLite` it holds the writers' lock from its beginning.
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = Tx { conn: self.write().await?, open: true };
        tx.conn.command("BEGIN", "BEGIN IMMEDIATE").await?;
        Ok(tx)
    }

    /// The same for thousands of rows.
    pub(crate) async fn begin_bulk(&self) -> Result<Tx, StoreError> {
        let mut tx = self.begin().await?;
        tx.conn.limit = BULK_LIMIT;
        if matches!(tx.conn.engine, Engine::Postgres(_)) {
            run!(tx.conn, "SET LOCAL statement_timeout = '30s'")?;
            run!(tx.conn, "SET LOCAL idle_in_transaction_session_timeout = '60s'")?;
        }
        Ok(tx)
    }
}

fn postgres_options(url: &str) -> Result<PgConnectOptions, StoreError> {
    Ok(PgConnectOptions::from_str(url)?
        .application_name("chatchit")
        .options(POSTGRES_SESSION)
        .statement_cache_capacity(256)
        .disable_statement_logging())
}

fn postgres_pool(options: &PgConnectOptions, max_connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections.max(2))
        .acquire_timeout(ACQUIRE_LIMIT)
        .test_before_acquire(false)
        .after_connect(|conn, _meta| {
            Box::pin(async move {
                // Servers before version 14, and some systems, cannot.
                match sqlx::raw_sql(WATCH_CLIENT).execute(conn).await {
                    Err(error) if !matches!(error, sqlx::Error::Database(_)) => Err(error),
                    _ => Ok(()),
                }
            })
        })
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
                    timeout(TRIAL_LIMIT, conn.ping()).await.map_err(late)??;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options.clone())
}

/// A connection out of a pool; it goes back when dropped, unless it still owes an answer: whoever
/// gave up waiting, a caller that was cancelled included, leaves a connection nobody may use again.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) engine: Engine,
    pub(crate) limit: Duration,
    /// Asked and not answered.
    pub(crate) busy: bool,
    closing: bool,
    returns: Option<Tasks>,
}

#[derive(Debug)]
pub(crate) enum Engine {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

/// What a statement came to; `None`: no answer in time.
pub(crate) async fn answer_within<T>(
    limit: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Option<Result<T, sqlx::Error>> {
    timeout(limit, statement).await.ok()
}

impl Conn {
    fn new(engine: Engine, returns: Option<Tasks>) -> Self {
        Self { engine, limit: STATEMENT_LIMIT, busy: false, closing: false, returns }
    }

    async fn postgres(pool: &PgPool, returns: &Tasks) -> Result<Self, StoreError> {
        Ok(Self::new(Engine::Postgres(pool.acquire().await?), Some(returns.clone())))
    }

    /// Marks that it owes an answer; within which time.
    pub(crate) fn ask(&mut self) -> Duration {
        self.busy = true;
        self.limit
    }

    /// Turns an answer into a result; without one the connection stays busy and is given up.
    pub(crate) fn judge<T>(&mut self, answer: Option<Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        let result = answer.ok_or_else(StoreError::timed_out)?;
        self.busy = false;
        result.map_err(StoreError::from)
    }

    fn close_on_drop(&mut self) {
        self.closing = true;
        match &mut self.engine {
            Engine::Postgres(held) => held.close_on_drop(),
            Engine::Sqlite(held) => held.close_on_drop(),
        }
    }

    async fn command(&mut self, postgres: &'static str, sqlite: &'static str) -> Result<(), StoreError> {
        let sql = if matches!(self.engine, Engine::Postgres(_)) { postgres } else { sqlite };
        on!(*self, c => async { sqlx::raw_sql(sql).execute(c).await.map(drop) })
    }

    /// Runs a statement over many rows; how many it changed.
    pub(crate) async fn run(&mut self, sql: &RowsSql, rows: &Rows<'_>) -> Result<u64, StoreError> {
        let limit = self.limit;
        let answer = match &mut self.engine {
            Engine::Postgres(held) => {
                let arguments = rows.postgres()?;
                self.busy = true;
                let statement = sqlx::query_with(sql.postgres, arguments).execute(&mut **held);
                answer_within(limit, statement).await.map(|done| done.map(|done| done.rows_affected()))
            }
            Engine::Sqlite(held) => {
                let arguments = rows.sqlite()?;
                self.busy = true;
                let statement = sqlx::query_with(sql.sqlite, arguments).execute(&mut **held);
                answer_within(limit, statement).await.map(|done| done.map(|done| done.rows_affected()))
            }
        };
        self.judge(answer)
    }

    /// Runs a query over many rows.
    pub(crate) async fn fetch<T>(&mut self, sql: &RowsSql, rows: &Rows<'_>) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let limit = self.limit;
        let answer = match &mut self.engine {
            Engine::Postgres(held) => {
                let query = sqlx::query_as_with(sql.postgres, rows.postgres()?);
                self.busy = true;
                answer_within(limit, query.fetch_all(&mut **held)).await
            }
            Engine::Sqlite(held) => {
                let query = sqlx::query_as_with(sql.sqlite, rows.sqlite()?);
                self.busy = true;
                answer_within(limit, query.fetch_all(&mut **held)).await
            }
        };
        self.judge(answer)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.busy {
            self.close_on_drop();
        }
        // Left alone, the pool tries a connection that comes back without a limit, and one that went
        // dead in that moment would hold its place until TCP gives up.
        if let (Engine::Postgres(held), Some(returns)) = (&mut self.engine, &self.returns)
            && !self.closing
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let back = tokio::time::timeout(TRIAL_LIMIT, held.return_to_pool());
            returns.detach_light(async move { drop(back.await) });
        }
    }
}

/// A transaction. Dropping it closes its connection, which rolls back on either database.
#[derive(Debug)]
pub(crate) struct Tx {
    pub(crate) conn: Conn,
    open: bool,
}

impl Tx {
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        self.conn.command("COMMIT", "COMMIT").await?;
        self.open = false;
        Ok(())
    }

    /// Rolls back and keeps the connection.
    pub(crate) async fn roll_back(mut self) -> Result<(), StoreError> {
        self.conn.command("ROLLBACK", "ROLLBACK").await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if self.open {
            self.conn.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::services::fresh_postgres;

    use super::*;

    #[tokio::test]
    async fn a_server_gives_up_a_statement_before_its_client_does_and_watches_the_client() {
        let settings = StoreSettings::Postgres { url: fresh_postgres().await, max_connections: 2 };
        let db = Db::open(settings).await.expect("opens");
        let mut conn = db.read().await.expect("a connection");
        let ask = "SELECT current_setting('client_connection_check_interval')";
        let interval: String = on!(conn, c => async {
            sqlx::query_scalar::<_, String>(ask).fetch_one(c).await
        })
        .expect("answers");
        assert_eq!(interval, "500ms");
        let error = run!(conn, "SELECT pg_sleep(10)").expect_err("too long");
        assert!(matches!(&error, StoreError::TimedOut(why) if why.contains("57014")), "{error}");
        assert!(!conn.busy, "it answered");
    }
}
