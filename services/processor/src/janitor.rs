//! The scheduled tidying-up of presence: sets trimmed, sessions of leased gateways extended. Any number of
//! processors may run it: one at a time does the work.

use std::time::Duration;

use runtime::Shutdown;
use runtime::backoff::jittered;

use crate::Parts;

const EVERY: Duration = Duration::from_secs(30);

pub(crate) async fn run(parts: Parts, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(jittered(EVERY)) => {}
        }
        if let Err(error) = parts.realtime.janitor(parts.clock.now()).await {
            tracing::warn!(%error, "presence was not trimmed");
        }
    }
}
