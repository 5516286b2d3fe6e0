//! How a connection comes to follow rooms: the one order of steps in which nothing is missed.
//!
//! Knows no transport. The invariant: a connection holds what a room releases, and the subscription
//! is confirmed, before the store is read; so what was read and what is held leave no gap.

use std::sync::Arc;
use std::time::Duration;

use domain::{Membership, Rev, RoomId, UserId};
use protocol::{Channel, CloseCode, EventData, Refusal};
use store::{RoomState, RoomsOf};

use crate::codec::Delivered;
use crate::entering::Entering;
use crate::handle::Handle;
use crate::hub::{Join, Known, Position, Ticket, Way};
use crate::shared::{Shared, within};

/// The store is read again when a room was released further meanwhile; twice is enough unless rooms
/// are joined all the time.
pub(crate) const READINGS: usize = 8;
/// How often it is looked whether an earlier membership is wound up, and how long altogether.
const WIND_UP_STEP: Duration = Duration::from_millis(50);
const WIND_UP_STEPS: usize = 100;

/// What the store says, as the hub wants it.
pub(crate) fn known(states: &[RoomState]) -> Vec<Known> {
    let of_room = |state: &RoomState| Known { room: state.room_id, rev: state.rev, kind: state.kind, role: state.role };
    states.iter().map(of_room).collect()
}

/// Enters rooms, holding what they release, with confirmed subscriptions.
async fn enter(shared: &Shared, handle: &Arc<Handle>, rooms: &[RoomId], also: Option<Channel>) -> Result<(), Refusal> {
    let missing = shared.hub.enter(handle, rooms);
    let channels: Vec<Channel> = also.into_iter().chain(missing.into_iter().map(Channel::Room)).collect();
    shared.subscribe(&channels).await
}

/// Enters all rooms of the user and the user's own channel. The account, and the rooms as the
/// connection is armed with them; `open` them once the client was told.
pub(crate) async fn follow_all(shared: &Shared, handle: &Arc<Handle>, user: UserId) -> Result<RoomsOf, Refusal> {
    // Only a hint: it saves a second reading of the store, it decides nothing.
    let hint = within(async { Ok(shared.realtime.cached_rooms(user).await.ok().flatten()) });
    let mut entered = hint.await.ok().flatten().unwrap_or_default();
    handle.reserve_rooms(entered.len());
    enter(shared, handle, &entered, Some(Channel::User(user))).await?;
    for _ in 0..READINGS {
        let read = within(shared.lookups.rooms_of(user));
        let found = read.await?.ok_or_else(|| Refusal::unauthenticated("the token is not valid"))?;
        let rooms: Vec<RoomId> = found.rooms.iter().map(|state| state.room_id).collect();
        let (fresh, gone) = differences(&entered, &rooms);
        shared.hub.leave(handle, &gone);
        if fresh.is_empty() && shared.hub.arm(handle, Ticket::OPENING, &known(&found.rooms)).is_empty() {
            return Ok(found);
        }
        enter(shared, handle, &fresh, None).await?;
        entered = rooms;
    }
    Err(Refusal::unavailable())
}

/// What is only in `rooms`, and what is only in `entered`.
fn differences(entered: &[RoomId], rooms: &[RoomId]) -> (Vec<RoomId>, Vec<RoomId>) {
    let only = |these: &[RoomId], those: &[RoomId]| {
        let those: std::collections::HashSet<&RoomId> = those.iter().collect();
        these.iter().filter(|room| !those.contains(room)).copied().collect()
    };
    (only(rooms, entered), only(entered, rooms))
}

/// What the store says about a user in a room; `None` for strangers.
pub(crate) async fn state_of(shared: &Shared, user: UserId, room: RoomId) -> Result<Option<RoomState>, Refusal> {
    let read = async { shared.store.room_states(user, &[room]).await.map_err(|error| error.refusal()) };
    let states = within(read).await?;
    Ok(states.into_iter().next())
}

/// Carries out a join that the user's own channel told of. What cannot be done ends the connection,
/// which then reads the truth anew.
pub(crate) async fn join(shared: &Arc<Shared>, join: Join) {
    let Some(user) = join.handle.identity().map(|identity| identity.user) else { return };
    if try_join(shared, &join, user).await.is_err() && !join.is_patient {
        join.handle.close(CloseCode::Draining);
    }
}

async fn try_join(shared: &Arc<Shared>, join: &Join, user: UserId) -> Result<(), Refusal> {
    let Join { handle, room, since, told, is_patient: _ } = join;
    if is_there_already(shared, join).await? {
        return Ok(());
    }
    let Some(entering) = Entering::begin(shared, handle, *room, Way::Word(*since)) else { return Ok(()) };
    let Some(state) = entering.follow(user).await? else { return Ok(()) };
    if has_left_since(shared, user, *room, *since).await? {
        return Ok(());
    }
    let missed = if state.rev > *since { replay(shared, *room, *since, state.rev).await? } else { Vec::new() };
    entering.tell(told, &missed).await;
    Ok(())
}

/// True when the word of a joining is old: the user left after it, and joined once more, which has a word
/// of its own. A job that is received again tells its outcome again, however long ago that was.
async fn has_left_since(shared: &Shared, user: UserId, room: RoomId, since: Rev) -> Result<bool, Refusal> {
    let read = async { shared.store.departure(user, room).await.map_err(|error| error.refusal()) };
    Ok(within(read).await?.is_some_and(|left| left > since))
}

/// True if the connection is in the room with all of `since`. An earlier membership is waited for
/// until it is wound up.
async fn is_there_already(shared: &Shared, join: &Join) -> Result<bool, Refusal> {
    for _ in 0..WIND_UP_STEPS {
        match shared.hub.position(&join.handle, join.room) {
            Position::Absent => return Ok(false),
            Position::Following(released) if released >= join.since => return Ok(true),
            Position::Following(_) | Position::Entering => tokio::time::sleep(WIND_UP_STEP).await,
        }
    }
    Err(Refusal::unavailable())
}

async fn replay(shared: &Shared, room: RoomId, after: Rev, up_to: Rev) -> Result<Vec<Arc<Delivered>>, Refusal> {
    let (mut all, mut position) = (Vec::new(), after);
    while position < up_to {
        let replay = async { shared.handlers.replay(room, position, up_to).await.map_err(|_| Refusal::unavailable()) };
        let found = within(replay).await?.ok_or_else(Refusal::unavailable)?;
        let reached = found.last().and_then(|last| last.rev).filter(|reached| *reached > position);
        let wanted = found.into_iter().filter(|opened| opened.rev.is_some_and(|rev| rev > position && rev <= up_to));
        all.extend(wanted.map(|opened| Arc::new(Delivered::new(opened))));
        position = reached.ok_or_else(Refusal::unavailable)?;
    }
    Ok(all)
}

/// The first thing a client is told.
pub(crate) fn session_ready(
    shared: &Shared,
    identity: &crate::handle::Identity,
    states: &[RoomState],
    membership: Membership,
) -> EventData {
    let room = |state: &RoomState| protocol::wire::SessionRoom {
        room_id: state.room_id.to_string(),
        last_seq: state.last_seq.0,
        rev: state.rev.0,
        unread: state.unread,
    };
    EventData::SessionReady(protocol::wire::SessionReady {
        user_id: identity.user.to_string(),
        session_id: identity.session.to_string(),
        device_id: identity.device.to_string(),
        rooms: states.iter().map(room).collect(),
        server_time: shared.clock.now().to_rfc3339(),
        limits: Some(shared.limits),
        membership: membership.0,
    })
}
