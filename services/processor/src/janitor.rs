//! The scheduled tidying-up: presence sets trimmed, sessions of leased gateways extended, expired
//! refresh tokens and old refusals removed. Any number of processors may run it: of presence one at a
//! time does the work, and of rows what one has removed the other does not find.

use std::time::Duration;

use domain::Timestamp;
use runtime::Shutdown;
use runtime::backoff::jittered;
use store::StoreError;

use crate::Parts;

const EVERY: Duration = Duration::from_secs(30);
/// Rows removed by one statement, so that none holds the store for long.
const SLICE: usize = 1000;
/// How long a refusal is kept: longer than anybody repeats what was refused.
const REFUSED_KEPT: Duration = Duration::from_hours(24 * 30);

pub(crate) async fn run(parts: Parts, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(jittered(EVERY)) => {}
        }
        let now = parts.clock.now();
        if let Err(error) = parts.realtime.janitor(now).await {
            tracing::warn!(%error, "presence was not trimmed");
        }
        let store = &parts.store;
        if let Err(error) = in_slices(&shutdown, || store.purge_expired(now, SLICE)).await {
            tracing::warn!(%error, "expired tokens were not removed");
        }
        let before = Timestamp(now.0 - REFUSED_KEPT.as_millis() as i64);
        if let Err(error) = in_slices(&shutdown, || store.forget_refused(before, SLICE)).await {
            tracing::warn!(%error, "old refusals were not removed");
        }
    }
}

/// Removes slice after slice until one was not full: a backlog is gone in one round.
async fn in_slices<F>(shutdown: &Shutdown, remove: impl Fn() -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    while remove().await? >= SLICE as u64 && !shutdown.is_requested() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn slices_are_removed_until_one_is_not_full() {
        let (left, slices) = (Cell::new(2_500_u64), Cell::new(0));
        let remove = || {
            let removed = left.get().min(SLICE as u64);
            left.set(left.get() - removed);
            slices.set(slices.get() + 1);
            ready(Ok(removed))
        };
        in_slices(&Shutdown::new(), remove).await.expect("removes");
        assert_eq!((left.get(), slices.get()), (0, 3));
    }

    #[tokio::test]
    async fn a_stop_ends_it_between_two_slices() {
        let (shutdown, slices) = (Shutdown::new(), Cell::new(0));
        shutdown.request();
        let remove = || {
            slices.set(slices.get() + 1);
            ready(Ok(SLICE as u64))
        };
        in_slices(&shutdown, remove).await.expect("removes");
        assert_eq!(slices.get(), 1);
    }
}
