//! What pub/sub lost: found by comparing with the store, filled from the room's log or the store.
//!
//! Knows no session. The invariant: at most a fixed number of rooms are filled at a time, a room that
//! cannot be filled is tried again, less and less often, and a gap that nobody can fill is never jumped.

use std::sync::Arc;
use std::time::Duration;

use domain::{Rev, RoomId};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use protocol::OpenedDelivery;
use runtime::Backoff;
use tokio::sync::{Notify, mpsc};

use crate::handle::Handle;
use crate::hub::{Filled, Join};
use crate::shared::{LOOK_UP_LIMIT, Shared};
use crate::{following, presence, refusals};

/// Rooms filled at a time.
const FILLING: usize = 16;
/// Connections looked after at a time.
const AT_ONCE: usize = 8;
/// Fruitless attempts after which a room's filling is given up until something new is heard of it.
const ATTEMPTS: u32 = 12;
/// How often a slice of the rooms is compared with the store.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Rooms compared in one go.
const SLICE: usize = 500;
/// A delivery that is on its way arrives in less, on a busy machine too.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// Deliveries found that are released in one go before the sessions get a chance to send them: at
/// most a small part of what one outbox may hold.
const BURST: usize = 4;

/// Fills rooms until the service stops.
pub(crate) async fn fill_gaps(shared: Arc<Shared>, mut rooms: mpsc::Receiver<RoomId>) {
    let shutdown = shared.tasks.shutdown().clone();
    let mut filling = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            Some(room) = rooms.recv(), if filling.len() < FILLING => filling.push(fill(&shared, room)),
            Some(()) = filling.next(), if !filling.is_empty() => {}
        }
    }
}

async fn fill(shared: &Shared, room: RoomId) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut fruitless = 0;
    while let Some(gap) = shared.hub.gap(room) {
        let replay = shared.handlers.replay(room, gap.after, gap.up_to);
        let filled = match tokio::time::timeout(LOOK_UP_LIMIT, replay).await {
            Ok(Ok(Some(found))) => release(shared, room, found).await,
            Ok(Ok(None)) => {
                tracing::warn!(%room, after = %gap.after, "what is missing is not kept any more; clients load it anew");
                return shared.hub.begin_anew(room);
            }
            Ok(Err(_)) | Err(_) => Filled::More { progress: false },
        };
        match filled {
            Filled::Done => return,
            Filled::More { progress: true } => {
                fruitless = 0;
                backoff.reset();
            }
            Filled::More { progress: false } if fruitless >= ATTEMPTS => {
                tracing::warn!(%room, after = %gap.after, up_to = %gap.up_to, "a gap could not be filled for now");
                shared.hub.stop_filling(room);
                return;
            }
            Filled::More { progress: false } => {
                fruitless += 1;
                backoff.wait().await;
            }
        }
    }
}

/// Hands what was found to the hub, a few at a time.
async fn release(shared: &Shared, room: RoomId, found: Vec<OpenedDelivery>) -> Filled {
    let mut found = found.into_iter().peekable();
    let mut progress = false;
    loop {
        let filled = shared.hub.fill(room, found.by_ref().take(BURST).collect());
        progress |= matches!(filled, Filled::More { progress: true });
        if filled == Filled::Done || found.peek().is_none() {
            return if filled == Filled::Done { filled } else { Filled::More { progress } };
        }
        tokio::task::yield_now().await;
        shared.breathe().await;
    }
}

/// Carries out joins, those of one lane one after another, until the service stops.
pub(crate) async fn carry_out_joins(shared: Arc<Shared>, lanes: Vec<mpsc::Receiver<Join>>) {
    let lane = async |mut joins: mpsc::Receiver<Join>| {
        while let Some(join) = joins.recv().await {
            following::join(&shared, join).await;
        }
    };
    tokio::select! {
        () = shared.tasks.shutdown().requested() => {}
        _ = futures_util::future::join_all(lanes.into_iter().map(lane)) => {}
    }
}

/// Compares rooms with the store until the service stops: slice by slice all the time, and all of
/// them at once when something may have been lost.
pub(crate) async fn compare(shared: Arc<Shared>, lost: Arc<Notify>) {
    let shutdown = shared.tasks.shutdown().clone();
    let mut rest: Vec<RoomId> = Vec::new();
    loop {
        let everything = tokio::select! {
            () = shutdown.requested() => return,
            () = lost.notified() => true,
            () = tokio::time::sleep(COMPARE_EVERY) => false,
        };
        if everything {
            tokio::select! {
                () = shutdown.requested() => return,
                () = catch_up(&shared) => {}
            }
            continue;
        }
        if rest.is_empty() {
            rest = shared.hub.room_ids();
        }
        let slice = rest.split_off(rest.len().saturating_sub(SLICE));
        compare_slice(&shared, &slice).await;
    }
}

async fn compare_slice(shared: &Shared, rooms: &[RoomId]) {
    let mut behind = revs(shared, rooms).await.unwrap_or_default();
    behind.retain(|(room, rev)| shared.hub.note_stored(*room, *rev));
    if behind.is_empty() {
        return;
    }
    tokio::time::sleep(ON_ITS_WAY).await;
    behind.retain(|(room, rev)| shared.hub.is_behind(*room, *rev));
    for (room, rev) in behind {
        shared.hub.learn(room, rev);
    }
}

/// Everything that may have been lost with a connection to pub/sub: deliveries, joins, presence.
async fn catch_up(shared: &Arc<Shared>) {
    let losses = shared.hub.sound.losses();
    let mut rooms = shared.hub.room_ids();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    while !rooms.is_empty() {
        let slice = rooms.split_off(rooms.len().saturating_sub(SLICE));
        let Some(revs) = revs(shared, &slice).await else {
            rooms.extend(slice);
            backoff.wait().await;
            continue;
        };
        for (room, rev) in revs {
            shared.hub.note_stored(room, rev);
            shared.hub.learn(room, rev);
        }
    }
    shared.hub.sound.losses_are_known(losses);
    shared.doubts.suspect(shared.hub.users.ids());
    let handles = futures_util::stream::iter(shared.hub.users.handles());
    handles.for_each_concurrent(AT_ONCE, async |handle| look_after(shared, &handle).await).await;
    presence::refresh(shared).await;
}

/// What a connection may have missed of its user's own channel; its rooms are looked after elsewhere
/// (see `changes`).
async fn look_after(shared: &Arc<Shared>, handle: &Arc<Handle>) {
    let Some(identity) = handle.identity().filter(|_| handle.is_ready()) else { return };
    let read = tokio::time::timeout(LOOK_UP_LIMIT, shared.store.rooms_of(identity.user)).await;
    let Ok(Ok(states)) = read else { return };
    let ids: Vec<RoomId> = states.iter().map(|state| state.room_id).collect();
    refusals::tell(shared, handle).await;
    presence::arrive(shared, handle, identity, &ids).await;
}

async fn revs(shared: &Shared, rooms: &[RoomId]) -> Option<Vec<(RoomId, Rev)>> {
    if rooms.is_empty() {
        return Some(Vec::new());
    }
    let read = tokio::time::timeout(LOOK_UP_LIMIT, shared.store.revs(rooms)).await;
    Some(read.ok()?.ok()?.into_iter().map(|(room, _, rev)| (room, rev)).collect())
}
