//! Moves what was committed from the `SQLite` write-ahead log into the file, beside the writer, so that
//! no batch pays for it.
//!
//! It knows no table. The invariant: it never waits for a writer nor makes one wait, and it ends with
//! the last handle on the store.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Shutdown, Tasks};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};

/// Pages in the write-ahead log (of 4 KiB, so 64 MiB) after which the writer itself checkpoints: for
/// when this task cannot keep up.
pub(crate) const WRITER_PAGES: &str = "16384";
const EVERY: Duration = Duration::from_secs(1);

/// The task; clones share it, and the last one ends it.
#[derive(Clone)]
pub(crate) struct Checkpointer {
    running: Arc<Running>,
}

struct Running {
    stop: Shutdown,
    tasks: Tasks,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl Checkpointer {
    pub(crate) async fn start(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let db = options.clone().connect().await?;
        let stop = Shutdown::new();
        let tasks = Tasks::new(stop.clone());
        tasks.detach("store checkpointer", run(db, stop.clone()));
        Ok(Self { running: Arc::new(Running { stop, tasks }) })
    }

    /// Ends it, so that the writer closes the file as the last one.
    pub(crate) async fn end(&self) {
        self.running.stop.request();
        self.running.tasks.drained(EVERY).await;
    }
}

async fn run(mut db: SqliteConnection, stop: Shutdown) {
    loop {
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut db).await {
            tracing::warn!(%error, "cannot checkpoint the store's file");
        }
    }
    // Nothing can be done about a connection that does not close.
    let _failed = sqlx::Connection::close(db).await;
}
