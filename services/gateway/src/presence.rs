//! A session's own presence: there from `session.ready` to the end of the connection.
//!
//! Knows no status a user chose, and tells nobody: what changed is noted in the realtime port, and
//! processors tell. The invariant: trouble with presence is no trouble for a session, and a departure
//! that could not be noted is noted later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use domain::{RoomId, UserId};
use parking_lot::Mutex;
use protocol::CloseCode;
use realtime::{DeviceLease, RealtimeError};
use tokio::sync::Semaphore;

use crate::handle::{Handle, Identity};
use crate::shared::{LOOK_UP_LIMIT, Shared};

/// How long telling may take; presence is worth no more.
pub(crate) const TELL_LIMIT: Duration = Duration::from_secs(5);
/// Arrivals and departures at a time. When everybody comes or goes at once, the rest waits and costs
/// next to nothing meanwhile.
const AT_ONCE: usize = 64;
/// Who waits longer than that to arrive is left to the gateway's lease, and to depart, to the sweep.
const TURN_LIMIT: Duration = Duration::from_secs(30);
/// Departures kept that could not be noted; of more than these the users go after
/// [`realtime::ONLINE_FOR`].
const UNNOTED: usize = 20_000;
/// Of these, noted in one sweep.
const AGAIN: usize = 200;
/// Users whose presence is renewed in one call.
const RENEWED: usize = 2000;
/// Users told anew in one go.
const REFRESHED: usize = 100;

/// Whose turn it is, and who left without a word.
pub(crate) struct Turns {
    turns: Semaphore,
    unnoted: Mutex<VecDeque<DeviceLease>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_ONCE), unnoted: Mutex::default() }
    }
}

impl Turns {
    /// Does `work` when it is its turn; it is made only then. False if its turn never came.
    pub(crate) async fn wait_for<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F) -> bool {
        let Ok(_turn) = tokio::time::timeout(TURN_LIMIT, self.turns.acquire()).await else {
            tracing::debug!("an arrival or a departure waited too long");
            return false;
        };
        Box::pin(work()).await;
        true
    }

    fn keep(&self, lease: DeviceLease) {
        let mut unnoted = self.unnoted.lock();
        if unnoted.len() < UNNOTED {
            unnoted.push_back(lease);
        }
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

/// Notes that a session is there. Of two connections of one device the older one is told to go, be it
/// this one or one elsewhere.
pub(crate) async fn arrive(shared: &Shared, handle: &Handle, identity: &Identity, rooms: &[RoomId]) {
    let arriving = async {
        if handle.is_over() {
            return Ok(());
        }
        let lease = lease(shared, identity);
        let other = shared.realtime.arrive(&lease, shared.clock.now()).await?;
        handle.activity.arrived(shared.wheel.now_ms());
        match other {
            Some(newer) if newer > lease.session => handle.close(CloseCode::Replaced),
            // A connection on this gateway has learnt it from the hub already.
            Some(older) => shared.handlers.announce_device(lease.user, &lease.device, older).await,
            None => {}
        }
        shared.realtime.cache_rooms(identity.user, rooms).await
    };
    match tokio::time::timeout(TELL_LIMIT, arriving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an arrival was not noted"),
        Err(_) => tracing::debug!("an arrival was not noted in time"),
    }
}

/// Notes that a session is gone, when it is its turn; if that fails, later.
pub(crate) async fn depart(shared: &Shared, identity: &Identity) {
    let lease = lease(shared, identity);
    let departing = async || {
        if let Err(error) = note_departure(shared, &lease).await {
            tracing::debug!(%error, "a departure is not noted yet");
            shared.turns.keep(lease.clone());
        }
    };
    if !shared.turns.wait_for(departing).await {
        shared.turns.keep(lease.clone());
    }
}

/// Renews this gateway's lease and its users' presence until the service stops.
pub(crate) async fn renew_lease(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown().clone();
    while !shutdown.is_requested() {
        renew(&shared, &shared.hub.users.ids()).await;
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(realtime::RENEW_EVERY) => {}
        }
    }
}

async fn renew(shared: &Shared, users: &[UserId]) {
    // Without users, too: the lease itself has to be renewed.
    let first = users.is_empty().then_some(users);
    for slice in first.into_iter().chain(users.chunks(RENEWED)) {
        let renewal = shared.realtime.renew_gateway(shared.gateway, slice, shared.clock.now());
        if !matches!(tokio::time::timeout(LOOK_UP_LIMIT, renewal).await, Ok(Ok(()))) {
            tracing::debug!("the gateway's lease was not renewed");
            return;
        }
    }
}

/// Tells the clients here how those stand of whom a change may have been lost with the connection to
/// pub/sub.
pub(crate) async fn refresh(shared: &Shared) {
    for slice in shared.hub.users.ids().chunks(REFRESHED) {
        shared.hub.begin_standings();
        let read = match tokio::time::timeout(TELL_LIMIT, shared.handlers.presence_for(slice)).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                tracing::warn!(%error, "presence was not told anew");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!("presence was not told anew in time");
                Vec::new()
            }
        };
        shared.hub.tell_standings(read, shared.wheel.now_ms());
        tokio::task::yield_now().await;
    }
}

/// Notes some of the departures that could not be noted before.
pub(crate) async fn depart_again(shared: &Shared) {
    for _ in 0..AGAIN {
        let Some(lease) = shared.turns.unnoted.lock().pop_front() else { return };
        if note_departure(shared, &lease).await.is_err() {
            shared.turns.keep(lease);
            return;
        }
    }
}

async fn note_departure(shared: &Shared, lease: &DeviceLease) -> Result<(), RealtimeError> {
    let late = || RealtimeError::Unavailable("no answer in time".to_owned());
    let noted = tokio::time::timeout(TELL_LIMIT, shared.realtime.depart(lease, shared.clock.now())).await;
    noted.map_err(|_| late())?
}
