//! Background tasks with an owner: none ends unnoticed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::task::TaskTracker;

use crate::Shutdown;

/// The tasks of one service. Clones share them.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
    failed: Arc<AtomicBool>,
}

impl Tasks {
    /// No tasks yet; they end when `shutdown` is requested.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { tracker: TaskTracker::new(), shutdown, failed: Arc::default() }
    }

    /// The request these tasks obey.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a task that must run as long as the service: if it panics or returns before a stop
    /// was requested, the whole service is stopped and `failed` says so.
    pub fn own<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (shutdown, failed) = (self.shutdown.clone(), Arc::clone(&self.failed));
        self.tracker.spawn(async move {
            let outcome = std::panic::AssertUnwindSafe(task).catch_unwind().await;
            if outcome.is_err() || !shutdown.is_requested() {
                tracing::error!(
                    task = name,
                    panicked = outcome.is_err(),
                    "a background task ended; stopping the service"
                );
                failed.store(true, Ordering::SeqCst);
                shutdown.request();
            }
        });
    }

    /// Starts a task that may end whenever it is done, such as one connection. A panic is logged
    /// and harms nothing else.
    pub fn detach<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(async move {
            if std::panic::AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task panicked");
            }
        });
    }

    /// Like `detach`, but without a wrapper: for futures by the ten thousand.
    pub fn detach_light<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// True when a task that had to run ended early.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// How many tasks run.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// True when no task runs.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until all tasks have ended, at most `limit`. True when they have.
    pub async fn drained(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Runs `task` on a thread where it may block (hashing, compression).
pub async fn blocking<T, F>(task: F) -> Result<T, tokio::task::JoinError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(task).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_stops_the_service() {
        let tasks = Tasks::new(Shutdown::new());
        tasks.own("short", async {});
        tasks.shutdown().requested().await;
        assert!(tasks.drained(Duration::from_secs(5)).await);
        assert!(tasks.failed());
    }

    #[tokio::test]
    async fn a_task_that_obeys_the_stop_is_no_failure() {
        let tasks = Tasks::new(Shutdown::new());
        let shutdown = tasks.shutdown().clone();
        tasks.own("long", async move { shutdown.requested().await });
        tasks.shutdown().request();
        assert!(tasks.drained(Duration::from_secs(5)).await);
        assert!(!tasks.failed());
    }

    #[tokio::test]
    async fn a_panic_of_a_detached_task_harms_nothing_else() {
        let tasks = Tasks::new(Shutdown::new());
        tasks.detach("one connection", async { panic!("on purpose") });
        assert!(tasks.drained(Duration::from_secs(5)).await);
        assert!(!tasks.shutdown().is_requested());
    }
}
