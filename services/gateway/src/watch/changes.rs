//! Rights and rooms that changed in the store: found there, whoever changed them and whether or not
//! anybody was told.
//!
//! Knows no transport. The invariant: within a second of its commit a change of rights has ended the
//! sessions it ends, and who was removed from a room has left it here, with pub/sub or without.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Membership, Rev, RoomId, UserId};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use protocol::{CloseCode, EventData, OpenedDelivery, wire};
use store::{Account, ChangeCursor, StoreError};
use telemetry::{Counter, Gauge};
use tokio::sync::Notify;

use crate::codec::Delivered;
use crate::following;
use crate::handle::Handle;
use crate::hub::{Join, Position};
use crate::shared::{LOOK_UP_LIMIT, Shared};

/// How often it is looked: twice a second and a little more, so that there is time to act.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// Accounts read in one go.
const PAGE: usize = 1_000;
/// Users whose rooms are read in one go.
const USERS: usize = 200;
/// How long nothing is compared when nothing is in doubt.
const IDLE: Duration = Duration::from_secs(5);
/// Connections that are brought up to date at a time.
const AT_ONCE: usize = 16;
/// A word that is on its way brings a connection into a new room sooner than that many looks; after
/// so many more it is tried again.
const PATIENCE: u32 = 1;
const AGAIN: u32 = 4;
/// Changes of a room read in one go, and how often, to find the one by which somebody left.
const CHANGES: usize = 500;
const CHANGE_PAGES: usize = 4;
/// Deliveries released in one go before the sessions get a chance to send them.
const BURST: usize = 16;
/// A user's latest departures that are looked through.
const DEPARTURES: usize = 1_000;
/// Changes of members looked back on to find the one by which somebody came.
const HOPS: usize = 32;

/// Users whose connections may not follow the right rooms.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    users: Mutex<HashMap<UserId, Doubt>>,
    added: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct Doubt {
    /// How often the user's rooms were compared with the store.
    looks: u32,
    /// The store says that they have changed; otherwise it is only possible.
    is_known: bool,
    /// It came up again since they were last handed out to be compared.
    is_anew: bool,
    /// Not again before.
    due: Option<Instant>,
}

impl Doubts {
    /// The user's rooms have changed.
    pub(crate) fn know(&self, user: UserId) {
        let mut doubts = self.users.lock();
        let doubt = doubts.entry(user).or_default();
        (doubt.is_known, doubt.is_anew) = (true, true);
        self.added.notify_one();
    }

    /// These users' rooms may have changed.
    pub(crate) fn suspect(&self, users: impl IntoIterator<Item = UserId>) {
        let mut doubts = self.users.lock();
        for user in users {
            doubts.entry(user).or_default().is_anew = true;
        }
        self.added.notify_one();
    }

    /// The next ones to be compared: who was not yet, those known to have changed first. And how many
    /// there are altogether.
    fn next(&self) -> (Vec<(UserId, u32)>, usize) {
        let now = Instant::now();
        let mut doubts = self.users.lock();
        let is_due = |doubt: &Doubt| doubt.due.is_none_or(|due| due <= now);
        let mut due: Vec<(UserId, Doubt)> =
            doubts.iter().filter(|(_, doubt)| is_due(doubt)).map(|(user, doubt)| (*user, *doubt)).collect();
        due.sort_unstable_by_key(|(_, doubt)| (doubt.looks, !doubt.is_known));
        due.truncate(USERS);
        for (user, _) in &due {
            doubts.entry(*user).or_default().is_anew = false;
        }
        (due.into_iter().map(|(user, doubt)| (user, doubt.looks)).collect(), doubts.len())
    }

    /// The user's connections follow the rooms that were read, or do not yet.
    fn settle(&self, user: UserId, settled: bool) {
        let mut doubts = self.users.lock();
        let Some(doubt) = doubts.get_mut(&user) else { return };
        if doubt.is_anew {
            // What came up meanwhile may be younger than what was read.
            (doubt.looks, doubt.due) = (0, None);
        } else if settled {
            doubts.remove(&user);
        } else {
            doubt.looks += 1;
            doubt.due = Some(Instant::now() + LOOK_EVERY);
        }
    }
}

/// Looks until the service stops.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown().clone();
    let mut cursor = None;
    loop {
        let looked = tokio::select! {
            () = shutdown.requested() => return,
            looked = tokio::time::timeout(LOOK_UP_LIMIT, look(&shared, &mut cursor)) => looked,
        };
        if !matches!(looked, Ok(Ok(()))) {
            Counter::ChangeLooksFailed.inc();
            tracing::debug!("whose rights changed could not be read");
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Brings connections into agreement with the store until the service stops.
pub(crate) async fn reconcile(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown().clone();
    loop {
        let (doubts, count) = shared.doubts.next();
        Gauge::DoubtfulUsers.set(count as f64);
        tokio::select! {
            () = shutdown.requested() => return,
            () = settle(&shared, &doubts) => {}
        }
        if doubts.is_empty() {
            tokio::select! {
                () = shutdown.requested() => return,
                () = shared.doubts.added.notified() => {}
                () = tokio::time::sleep(if count == 0 { IDLE } else { LOOK_EVERY / 4 }) => {}
            }
        }
    }
}

async fn look(shared: &Shared, cursor: &mut Option<ChangeCursor>) -> Result<(), StoreError> {
    let Some(cursor) = cursor else {
        let begun = shared.store.change_cursor().await?;
        // Who came before there was a cursor.
        for users in shared.hub.users.ids().chunks(PAGE) {
            for account in shared.store.accounts(users).await? {
                apply(shared, &account);
            }
        }
        *cursor = Some(begun);
        return Ok(());
    };
    loop {
        let changed = shared.store.changed_accounts(cursor, PAGE).await?;
        for account in &changed {
            apply(shared, account);
        }
        if changed.len() < PAGE {
            return Ok(());
        }
    }
}

/// Ends the sessions of an account that are over, and notes if others follow other rooms.
pub(crate) fn apply(shared: &Shared, account: &Account) {
    let mut differs = false;
    shared.hub.users.each_of(account.id, |handle| {
        if handle.rights.end_before(account.tokens_valid_after) || account.blocked {
            handle.close(CloseCode::Forbidden);
        } else {
            differs |= !handle.rights.is_at(account.membership);
        }
    });
    if differs {
        shared.doubts.know(account.id);
    }
}

/// Compares the rooms of users with the store.
async fn settle(shared: &Arc<Shared>, doubts: &[(UserId, u32)]) {
    if doubts.is_empty() {
        return;
    }
    let users: Vec<UserId> = doubts.iter().map(|(user, _)| *user).collect();
    let read = tokio::time::timeout(LOOK_UP_LIMIT, shared.store.room_sets(&users)).await;
    let Ok(Ok(mut sets)) = read else {
        // Nobody was compared.
        return tokio::time::sleep(LOOK_EVERY).await;
    };
    let each: Vec<_> =
        doubts.iter().map(|(user, looks)| (*user, *looks, sets.remove(user).unwrap_or_default())).collect();
    let each = futures_util::stream::iter(each);
    each.for_each_concurrent(AT_ONCE, async |(user, looks, (membership, rooms))| {
        let rooms: HashSet<RoomId> = rooms.into_iter().collect();
        let mut settled = true;
        for handle in shared.hub.users.handles_of(user) {
            settled &= compare(shared, &handle, user, membership, &rooms, looks).await;
        }
        shared.doubts.settle(user, settled);
    })
    .await;
}

/// Takes a connection out of the rooms its user was removed from, and after some patience into those
/// the user was added to and the client has not switched off. True if it follows just these.
async fn compare(
    shared: &Arc<Shared>,
    handle: &Arc<Handle>,
    user: UserId,
    membership: Membership,
    rooms: &HashSet<RoomId>,
    looks: u32,
) -> bool {
    let lost: Vec<RoomId> = handle.room_ids().into_iter().filter(|room| !rooms.contains(room)).collect();
    for room in &lost {
        leave(shared, handle, user, *room).await;
    }
    if !handle.is_ready() {
        // It reads the user's rooms itself; whether it read the right ones is seen afterwards.
        return false;
    }
    if !forget_switched_off(shared, handle, user).await {
        return false;
    }
    let is_off = |room: &RoomId| handle.switched_off.contains(*room);
    let is_missing = |room: &&RoomId| shared.hub.position(handle, **room) == Position::Absent && !is_off(room);
    let gained: Vec<RoomId> = rooms.iter().filter(is_missing).copied().collect();
    if gained.is_empty() && lost.is_empty() {
        let is_as_wished = |room: &RoomId| shared.hub.is_open(handle, *room) || is_off(room);
        if !rooms.iter().all(is_as_wished) {
            // It is being let in; until it was told, it does not follow them all.
            return false;
        }
        handle.rights.follows(membership);
        shared.renewals.ask(handle, membership);
        return true;
    }
    if looks % AGAIN == PATIENCE {
        for room in gained {
            join(shared, handle, user, room).await;
        }
    }
    false
}

/// What a client switched off is on again once its user has left the room: for when the user comes back.
/// False if that could not be read.
async fn forget_switched_off(shared: &Shared, handle: &Handle, user: UserId) -> bool {
    if handle.switched_off.is_empty() {
        return true;
    }
    let read = tokio::time::timeout(LOOK_UP_LIMIT, shared.store.departures(user, DEPARTURES)).await;
    let Ok(Ok(departures)) = read else { return false };
    handle.switched_off.forget(&departures);
    true
}

/// Makes a connection leave a room its user was removed from. What led there is released first, so
/// that the client is told in order, this removal last; if that cannot be read in time, the connection
/// ends: the client comes back and is told where it stands.
async fn leave(shared: &Shared, handle: &Arc<Handle>, user: UserId, room: RoomId) {
    for _ in 0..CHANGE_PAGES {
        let Position::Following(released) = shared.hub.position(handle, room) else { return };
        let read = tokio::time::timeout(LOOK_EVERY, shared.store.after_rev(room, released, CHANGES)).await;
        let Ok(Ok(changes)) = read else {
            return cut_off(shared, handle, room);
        };
        if changes.is_empty() {
            break;
        }
        for burst in changes.chunks(BURST) {
            let opened = |entry: &store::RevEntry| OpenedDelivery {
                rev: Some(entry.rev),
                epoch: entry.epoch,
                except: None,
                event: entry.event.clone(),
            };
            shared.hub.fill(room, burst.iter().map(opened).collect());
            tokio::task::yield_now().await;
        }
    }
    // Who was added once more since the rooms were read is a member.
    let is_member = matches!(following::state_of(shared, user, room).await, Ok(Some(_)));
    // One that is just being let in holds its removal, and leaves when it is to be opened.
    if !is_member && shared.hub.is_open(handle, room) {
        cut_off(shared, handle, room);
    }
}

/// Takes the room from a connection that cannot be told why.
fn cut_off(shared: &Shared, handle: &Arc<Handle>, room: RoomId) {
    Counter::RoomsReconciled.inc_with("left");
    shared.hub.leave(handle, &[room]);
    handle.close(CloseCode::Draining);
}

/// Brings a connection into a room as the lost word would have done.
async fn join(shared: &Shared, handle: &Arc<Handle>, user: UserId, room: RoomId) {
    let Ok(Some((since, told))) = tokio::time::timeout(LOOK_UP_LIMIT, entrance(shared, user, room)).await else {
        return;
    };
    Counter::RoomsReconciled.inc_with("joined");
    shared.hub.join(Join { handle: Arc::clone(handle), room, since, told: Arc::new(told), is_patient: true });
}

/// The change by which somebody became a member, and its number. One that lies behind very many later
/// changes of members is told as if it were the latest of them.
async fn entrance(shared: &Shared, user: UserId, room: RoomId) -> Option<(Rev, Delivered)> {
    let latest = shared.store.room_states(user, &[room]).await.ok()?.first()?.epoch;
    let mut at = latest;
    for _ in 0..HOPS {
        let mut entries = match shared.store.after_rev(room, Rev((at.0 - 2).max(0)), 2).await {
            // The one before is not kept any more.
            Err(StoreError::TooOld) => shared.store.after_rev(room, Rev(at.0 - 1), 1).await.unwrap_or_default(),
            entries => entries.ok()?,
        };
        entries.retain(|entry| entry.rev <= at);
        let before = entries.first().filter(|entry| entry.rev < at).map(|entry| entry.epoch);
        let Some(change) = entries.pop().filter(|entry| entry.rev == at) else { break };
        let told = delivered(change.rev, change.event);
        if told.room_entered_by(user).is_some() {
            return Some((at, told));
        }
        let Some(before) = before.filter(|before| *before > Rev::ZERO) else { break };
        at = before;
    }
    let joined = wire::RoomMemberJoined {
        room_id: room.to_string(),
        rev: latest.0,
        user_id: user.to_string(),
        ..wire::RoomMemberJoined::default()
    };
    Some((latest, delivered(latest, EventData::RoomMemberJoined(joined))))
}

fn delivered(rev: Rev, event: EventData) -> Delivered {
    Delivered::new(OpenedDelivery { rev: Some(rev), epoch: rev, except: None, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_into_doubt_once_more_while_being_compared_is_compared_again() {
        let doubts = Doubts::default();
        let user = UserId::generate();
        for _ in 0..2 {
            doubts.know(user);
            assert_eq!(doubts.next(), (vec![(user, 0)], 1));
            doubts.suspect([user]);
            doubts.settle(user, true);
        }
        assert_eq!(doubts.next(), (vec![(user, 0)], 1));
        doubts.settle(user, true);
        assert_eq!(doubts.next(), (vec![], 0));
    }
}
