//! A session's own presence: there from `session.ready` to the end of the connection.
//!
//! Knows no status a user chose. The invariant: trouble with presence is no trouble for a session.

use std::sync::Arc;
use std::time::Duration;

use domain::RoomId;
use realtime::DeviceLease;

use crate::handle::Identity;
use crate::shared::Shared;

/// How long telling may take; presence is worth no more.
const TELL_LIMIT: Duration = Duration::from_secs(5);

pub(crate) fn lease(shared: &Shared, identity: &Identity) -> DeviceLease {
    DeviceLease {
        user: identity.user,
        device: identity.device.clone(),
        session: identity.session,
        gateway: shared.gateway,
    }
}

/// Notes that a session is there, and tells whom it may concern if its user was not before.
pub(crate) async fn arrive(shared: Arc<Shared>, identity: Identity, rooms: Vec<RoomId>) {
    let arriving = async {
        let lease = lease(&shared, &identity);
        take_device(&shared, &lease).await?;
        let was_away = shared.realtime.arrive(&lease, shared.clock.now()).await?;
        shared.realtime.cache_rooms(identity.user, &rooms).await?;
        if was_away {
            shared.handlers.announce_presence(identity.user).await;
        }
        Ok::<(), realtime::RealtimeError>(())
    };
    note(tokio::time::timeout(TELL_LIMIT, arriving).await, "arrival");
}

/// Ends the device's connection on another gateway, if there is one.
async fn take_device(shared: &Shared, lease: &DeviceLease) -> Result<(), realtime::RealtimeError> {
    let others = shared.realtime.sessions_of(lease.user).await?;
    if others.iter().any(|other| other.device == lease.device && other.gateway != lease.gateway) {
        shared.handlers.announce_device(lease.user, &lease.device, lease.session).await;
    }
    Ok(())
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
