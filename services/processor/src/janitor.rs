//! The scheduled tidying-up: presence sets trimmed, sessions of leased gateways extended, expired
//! refresh tokens removed. Any number of processors may run it; one at a time does the work.

use std::time::Duration;

use runtime::Shutdown;
use runtime::backoff::jittered;

use crate::Parts;

const EVERY: Duration = Duration::from_secs(30);
const EXPIRED_TOKENS: usize = 1000;

pub(crate) async fn run(parts: Parts, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(jittered(EVERY)) => {}
        }
        let now = parts.clock.now();
        match parts.realtime.janitor(now).await {
            Ok(trimmed) => tracing::debug!(users = trimmed.users, "trimmed presence"),
            Err(error) => tracing::warn!(%error, "presence was not trimmed"),
        }
        if let Err(error) = parts.store.purge_expired(now, EXPIRED_TOKENS).await {
            tracing::warn!(%error, "expired tokens were not removed");
        }
    }
}
