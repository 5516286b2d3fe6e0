//! Moves what was committed from the `SQLite` write-ahead log into the file, beside the writer, so that
//! no batch pays for it.
//!
//! It knows no table. The invariants: it never waits for a writer nor makes one wait, unless the disk is
//! short of room and the log is given back, and then for a moment; and it ends with the last handle on the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime::disk::Space;
use runtime::{Shutdown, Tasks};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};

/// Pages in the write-ahead log (of 4 KiB, so 64 MiB) after which the writer itself checkpoints: for
/// when this task cannot keep up.
pub(crate) const WRITER_PAGES: &str = "16384";
/// To so many bytes a log is cut when it begins anew: as many.
pub(crate) const LOG_LIMIT: &str = "67108864";
const EVERY: Duration = Duration::from_secs(1);
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
        self.running.tasks.drained(EVERY).await;
    }
}

async fn run(mut db: SqliteConnection, folder: PathBuf, spare_bytes: Arc<AtomicU64>, stop: Shutdown) {
    let mut is_failing = false;
    loop {
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        let is_short = Space::of(&folder).is_some_and(Space::is_short);
        let failed = checkpoint(&mut db, is_short, &spare_bytes).await.err();
        // Once, and not again with each trial.
        if let Some(error) = failed.as_ref().filter(|_| !is_failing) {
            tracing::warn!(%error, "cannot checkpoint the store's file; it tries again every second");
        }
        is_failing = failed.is_some();
    }
    // Nothing can be done about a connection that does not close.
    let _failed = sqlx::Connection::close(db).await;
}

/// Folds the log into the file. Where the disk is short of room, gives the log back and says what the file has.
async fn checkpoint(db: &mut SqliteConnection, is_short: bool, spare_bytes: &AtomicU64) -> Result<(), sqlx::Error> {
    sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut *db).await?;
    if is_short {
        // Whoever writes waits for what came since, not for all of it.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *db).await?;
        let free = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size";
        let bytes: i64 = sqlx::query_scalar(free).fetch_one(db).await?;
        spare_bytes.store(bytes.unsigned_abs(), Ordering::Release);
    }
    Ok(())
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
