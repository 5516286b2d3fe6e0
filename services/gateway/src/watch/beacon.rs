//! `rooms.beacon`: what a connection that hears nothing is told of where its rooms stand.
//!
//! Knows what the store said and not what was released here. The invariants: a connection that got
//! news of its rooms gets no beacon for a while; work is done in slices, a part of the users at a
//! time, and nothing is kept for a connection but two numbers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use domain::{Membership, UserId};
use protocol::{EventData, wire};
use telemetry::Counter;

use crate::handle::Handle;
use crate::handle::outbox::Kind;
use crate::hub::USER_SHARDS;
use crate::shared::{LOOK_UP_LIMIT, Shared};
use crate::watch::changes;

/// Rooms in one beacon; the others are in the next one.
const BEACON_ROOMS: usize = 100;
/// Visits without news in between after which a connection gets one: two halves of the time.
const QUIET_VISITS: u8 = 2;
/// Users whose membership is read in one go.
const USERS: usize = 1_000;
/// After so many connections others get a chance to run.
const BREATH: usize = 64;

/// How long a connection has heard nothing, and up to which move of a room it was told.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    visits: AtomicU8,
    told: AtomicU64,
}

impl Quiet {
    /// News of a room go to the connection.
    pub(crate) fn broken(&self) {
        self.visits.store(0, Ordering::Relaxed);
    }

    /// The client knows all moves of its rooms up to that one.
    pub(crate) fn knows(&self, moves: u64) {
        self.told.store(moves, Ordering::Relaxed);
    }

    fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// True at the visit at which it has been quiet for long.
    fn is_due(&self) -> bool {
        let visits = self.visits.load(Ordering::Relaxed) + 1;
        self.visits.store(visits % QUIET_VISITS, Ordering::Relaxed);
        visits == QUIET_VISITS
    }
}

/// Sends beacons until the service stops: twice in `every` each connection is visited.
pub(crate) async fn run(shared: Arc<Shared>, every: Duration) {
    let shutdown = shared.tasks.shutdown().clone();
    let pause = every / (2 * USER_SHARDS as u32);
    for shard in (0..USER_SHARDS).cycle() {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let due: Vec<Arc<Handle>> = shared.hub.users.handles_in(shard).into_iter().filter(is_due).collect();
        if !due.is_empty() {
            send(&shared, &due).await;
        }
    }
}

fn is_due(handle: &Arc<Handle>) -> bool {
    handle.quiet.is_due() && handle.is_ready() && handle.is_idle()
}

async fn send(shared: &Shared, due: &[Arc<Handle>]) {
    let mut users: Vec<UserId> = due.iter().filter_map(|handle| handle.identity().map(|it| it.user)).collect();
    users.sort_unstable();
    users.dedup();
    let mut memberships: HashMap<UserId, Membership> = HashMap::with_capacity(users.len());
    for users in users.chunks(USERS) {
        let read = tokio::time::timeout(LOOK_UP_LIMIT, shared.store.accounts(users)).await;
        let Ok(Ok(accounts)) = read else { return };
        for account in accounts {
            // What was read for one purpose serves another.
            changes::apply(shared, &account);
            memberships.insert(account.id, account.membership);
        }
    }
    for (count, handle) in due.iter().enumerate() {
        let Some(user) = handle.identity().map(|it| it.user) else { continue };
        let Some(membership) = memberships.get(&user) else { continue };
        tell(shared, handle, *membership);
        if count % BREATH == BREATH - 1 {
            tokio::task::yield_now().await;
        }
    }
}

fn tell(shared: &Shared, handle: &Handle, membership: Membership) {
    let up_to = shared.hub.moves();
    let mut moved = if handle.quiet.told() < up_to {
        shared.hub.moved_since(&handle.room_ids(), handle.quiet.told())
    } else {
        Vec::new()
    };
    moved.sort_unstable_by_key(|it| it.number);
    let is_all = moved.len() <= BEACON_ROOMS;
    moved.truncate(BEACON_ROOMS);
    let told = if is_all { up_to } else { moved.last().map_or(up_to, |last| last.number) };
    let rooms = moved.iter().map(|it| wire::RoomPosition { room_id: it.room.to_string(), rev: it.rev.0 }).collect();
    let beacon = wire::RoomsBeacon { rooms, membership: membership.0 };
    if handle.is_idle() {
        handle.quiet.knows(told);
        Counter::BeaconsSent.inc();
        handle.push(handle.dialect.event(&EventData::RoomsBeacon(beacon)), Kind::Answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_after_two_quiet_visits_and_not_after_news() {
        let quiet = Quiet::default();
        assert_eq!([quiet.is_due(), quiet.is_due(), quiet.is_due(), quiet.is_due()], [false, true, false, true]);
        assert!(!quiet.is_due());
        quiet.broken();
        assert_eq!([quiet.is_due(), quiet.is_due()], [false, true]);
    }
}
