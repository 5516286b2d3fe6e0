//! Forgets refresh tokens whose time is over, a slice at a time.
//!
//! Several services may do so at once; what one has forgotten the other does not find.

use std::time::Duration;

use runtime::{Clock, Tasks};
use store::Store;

/// From one look to the next.
const EVERY: Duration = Duration::from_mins(10);
/// Tokens in one slice, so that no statement holds the store for long.
const SLICE: usize = 1000;

pub(crate) fn start(store: Store, clock: Clock, tasks: &Tasks) {
    let shutdown = tasks.shutdown().clone();
    tasks.own("refresh token purge", async move {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(runtime::backoff::jittered(EVERY)) => {}
            }
            if let Err(error) = store.purge_expired(clock.now(), SLICE).await {
                tracing::warn!(%error, "expired refresh tokens could not be forgotten");
            }
        }
    });
}
