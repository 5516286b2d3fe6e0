//! One request to stop, seen by everything that runs.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Asks a service to stop; clones share the request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Nothing is requested yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything to stop. Asking twice changes nothing.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// True once a stop was requested.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until a stop is requested.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// A request of its own that this one also triggers.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }

    /// Waits for SIGTERM or SIGINT, then requests the stop. A second signal ends the process.
    pub async fn on_signals(self) -> std::io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "stopping");
        self.request();
        next().await;
        tracing::warn!("second signal: stopping at once");
        std::process::exit(130);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way() {
        let parent = Shutdown::new();
        let (child, other) = (parent.child(), parent.child());
        child.request();
        assert!(!parent.is_requested() && !other.is_requested());
        parent.request();
        other.requested().await;
    }
}
