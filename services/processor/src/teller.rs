//! Tells who came and who went, several times a second. Any number of processors may do it side by
//! side: each user is in one pair of hands.
//!
//! The invariant: while a dependency is down it asks less and less often, and nothing is lost by that.

use std::time::Duration;

use runtime::backoff::jittered;
use runtime::{Backoff, Shutdown};

use crate::Parts;

/// How long a change waits at most before somebody looks.
const EVERY: Duration = Duration::from_millis(250);

pub(crate) async fn run(parts: Parts, shutdown: Shutdown) {
    let mut backoff = Backoff::new(EVERY, Duration::from_secs(5));
    while !shutdown.is_requested() {
        let pause = match parts.handlers.tell_presence().await {
            Ok(told) => {
                backoff.reset();
                if told.gateway_died {
                    end_sessions(&parts).await;
                }
                (!told.is_full).then(|| jittered(EVERY))
            }
            Err(error) => {
                tracing::warn!(%error, "presence was not told; it will be");
                Some(backoff.next_delay())
            }
        };
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause.unwrap_or_default()) => {}
        }
    }
}

/// Ends the sessions of a gateway that died; if that fails the janitor will in its turn.
async fn end_sessions(parts: &Parts) {
    match parts.realtime.janitor(parts.clock.now()).await {
        Ok(trimmed) if trimmed.gone == 0 => {}
        Ok(trimmed) => tracing::info!(users = trimmed.gone, "a gateway's lease ran out; its users are gone"),
        Err(error) => tracing::warn!(%error, "a gateway's lease ran out; its users are not ended yet"),
    }
}
