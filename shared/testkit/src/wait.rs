//! Awaiting what must become true, instead of sleeping and hoping.
//!
//! The invariant: a wait that fails names the line that waited.

use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

/// How long a test waits for what should come at once; generous, because machines get busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Waits until `condition` says true; panics, naming the caller, when it has not by `limit`.
#[track_caller]
pub fn until<C, F>(limit: Duration, condition: C) -> impl Future<Output = ()>
where
    C: FnMut() -> F,
    F: Future<Output = bool>,
{
    let caller = Location::caller();
    async move {
        assert!(holds_within(limit, condition).await, "{caller}: did not become true within {limit:?}");
    }
}

/// Waits until `condition` says true: false when it has not by `limit`.
pub async fn holds_within<C, F>(limit: Duration, mut condition: C) -> bool
where
    C: FnMut() -> F,
    F: Future<Output = bool>,
{
    let end = Instant::now() + limit;
    while !condition().await {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_returns_once_the_condition_holds() {
        let mut looks = 0;
        until(PATIENCE, || {
            looks += 1;
            let done = looks == 3;
            async move { done }
        })
        .await;
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "wait.rs")]
    async fn a_wait_in_vain_names_the_line_that_waited() {
        until(Duration::from_millis(1), || async { false }).await;
    }
}
