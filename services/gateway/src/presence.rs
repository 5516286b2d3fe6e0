//! A session's own presence: there from `session.ready` to the end of the connection.
//!
//! Knows no status a user chose. The invariant: trouble with presence is no trouble for a session.

use std::time::Duration;

use domain::RoomId;
use realtime::DeviceLease;
use tokio::sync::Semaphore;

use crate::handle::Identity;
use crate::shared::Shared;

/// How long telling may take; presence is worth no more.
const TELL_LIMIT: Duration = Duration::from_secs(5);
/// Arrivals and departures at a time. When everybody comes or goes at once, the rest waits and costs
/// next to nothing meanwhile.
const AT_ONCE: usize = 64;
/// Who waits longer than that is left to the gateway's lease.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// Whose turn it is.
pub(crate) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Turns {
    /// Does `work` when it is its turn; it is made only then.
    pub(crate) async fn wait_for<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F) {
        let Ok(_turn) = tokio::time::timeout(TURN_LIMIT, self.0.acquire()).await else {
            tracing::debug!("nobody was told of an arrival or a departure");
            return;
        };
        Box::pin(work()).await;
    }
}

pub(crate) fn lease(shared: &Shared, identity: &Identity) -> DeviceLease {
    DeviceLease {
        user: identity.user,
        device: identity.device.clone(),
        session: identity.session,
        gateway: shared.gateway,
    }
}

/// Notes that a session is there, and tells whom it may concern if its user was not before.
pub(crate) async fn arrive(shared: &Shared, identity: &Identity, rooms: &[RoomId]) {
    let arriving = async {
        let lease = lease(shared, identity);
        let arrived = shared.realtime.arrive(&lease, shared.clock.now()).await?;
        // A connection on this gateway has learnt it from the hub already.
        if let Some(replaced) = arrived.replaced {
            shared.handlers.announce_device(lease.user, &lease.device, replaced).await;
        }
        shared.realtime.cache_rooms(identity.user, rooms).await?;
        if arrived.was_offline {
            shared.handlers.announce_presence(identity.user).await;
        }
        Ok::<(), realtime::RealtimeError>(())
    };
    note(tokio::time::timeout(TELL_LIMIT, arriving).await, "arrival");
}

/// Notes that a session is gone, and tells whom it may concern if it was its user's last.
pub(crate) async fn depart(shared: &Shared, identity: &Identity) {
    let departing = async {
        let lease = lease(shared, identity);
        if shared.realtime.depart(&lease, shared.clock.now()).await? {
            shared.handlers.announce_presence(identity.user).await;
        }
        Ok::<(), realtime::RealtimeError>(())
    };
    note(tokio::time::timeout(TELL_LIMIT, departing).await, "departure");
}

fn note<E>(told: Result<Result<(), realtime::RealtimeError>, E>, what: &'static str) {
    match told {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, what, "presence was not noted"),
        Err(_) => tracing::debug!(what, "presence was not noted in time"),
    }
}
