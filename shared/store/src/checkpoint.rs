//! Moves what was committed from the `SQLite` write-ahead log into the file, beside the writer, so that
//! no batch pays for it.
//!
//! It knows no table. The invariants: it never waits for a writer nor makes one wait, unless the disk is
//! short of room and the log is given back, and then for a moment; and it ends with the last handle on the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime::checkpoint::Pace;
use runtime::disk::Space;
use runtime::{Shutdown, Tasks};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};

/// So long the log is waited for when it is given back, and a writer meanwhile.
const BRIEFLY: Duration = Duration::from_millis(20);

/// The task; clones share it, and the last one ends it.
#[derive(Clone)]
pub(crate) struct Checkpointer {
    running: Arc<Running>,
}

struct Running {
    stop: Shutdown,
    tasks: Tasks,
    spare_bytes: Arc<AtomicU64>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl Checkpointer {
    pub(crate) async fn start(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let db = options.clone().busy_timeout(BRIEFLY).connect().await?;
        let folder = options.get_filename().parent().unwrap_or(Path::new(".")).to_owned();
        let (stop, spare_bytes) = (Shutdown::new(), Arc::<AtomicU64>::default());
        let tasks = Tasks::new(stop.clone());
        tasks.detach("store checkpointer", run(db, folder, Arc::clone(&spare_bytes), stop.clone()));
        Ok(Self { running: Arc::new(Running { stop, tasks, spare_bytes }) })
    }

    /// What the file has inside of it to write over, bytes; it is looked at while the disk is short of room.
    pub(crate) fn spare_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.running.spare_bytes)
    }

    /// Ends it, so that the writer closes the file as the last one.
    pub(crate) async fn end(&self) {
        self.running.stop.request();
        self.running.tasks.drained(Pace::LEAST).await;
    }
}

async fn run(mut db: SqliteConnection, folder: PathBuf, spare_bytes: Arc<AtomicU64>, stop: Shutdown) {
    let (mut pace, mut waited, mut is_failing) = (Pace::default(), Duration::ZERO, false);
    loop {
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep(Pace::LEAST) => waited += Pace::LEAST,
        }
        let is_short = Space::of(&folder).is_some_and(Space::is_short);
        if !is_short && !is_failing && waited < pace.pause() {
            continue;
        }
        waited = Duration::ZERO;
        let result = checkpoint(&mut db, is_short, &spare_bytes).await;
        // Once, and not again with each trial.
        if let Some(error) = result.as_ref().err().filter(|_| !is_failing) {
            tracing::warn!(%error, "cannot checkpoint the store's file; it tries again every second");
        }
        is_failing = result.is_err();
        pace.learn(result.unwrap_or_default());
    }
    // Nothing can be done about a connection that does not close.
    let _failed = sqlx::Connection::close(db).await;
}

/// Folds the log into the file, and says how many pages it had. Where the disk is short of room, gives the log
/// back and says what the file has.
async fn checkpoint(db: &mut SqliteConnection, is_short: bool, spare_bytes: &AtomicU64) -> Result<u32, sqlx::Error> {
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut *db).await?;
    let pages = row.try_get::<i64, _>("log")?;
    if is_short {
        // Whoever writes waits for what came since, not for all of it.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *db).await?;
        let free = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size";
        let bytes: i64 = sqlx::query_scalar(free).fetch_one(db).await?;
        spare_bytes.store(bytes.unsigned_abs(), Ordering::Release);
    }
    Ok(u32::try_from(pages).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteJournalMode;

    use super::*;

    #[tokio::test]
    async fn a_log_is_given_back_where_room_is_short_and_kept_where_it_is_not() {
        let folder = testkit::folder::Folder::new();
        let (path, log) = (folder.path().join("chat.db"), folder.path().join("chat.db-wal"));
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal);
        let mut db = options.connect().await.expect("opens");
        let fill = "CREATE TABLE filler (bytes BLOB); INSERT INTO filler VALUES (ZEROBLOB(1000000))";
        sqlx::raw_sql(fill).execute(&mut db).await.expect("written");
        let (log_bytes, spare) = (|| log.metadata().expect("a log").len(), AtomicU64::new(0));
        let mut beside = options.connect().await.expect("opens");
        checkpoint(&mut beside, false, &spare).await.expect("folded");
        assert!(log_bytes() > 1_000_000);
        sqlx::raw_sql("DELETE FROM filler").execute(&mut db).await.expect("written");
        checkpoint(&mut beside, true, &spare).await.expect("folded");
        assert_eq!(log_bytes(), 0);
        assert!((950_000..1_100_000).contains(&spare.into_inner()), "the file keeps its size, and has room");
    }
}
