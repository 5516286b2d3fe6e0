//! The engine inside one process: sharded maps and mailboxes, nothing to install.
//!
//! Knows no network and starts no task; what it holds ends with the process and is bounded. The
//! invariant: no call waits, and a room's log and its subscribers see deliveries in one order.

mod claim;
mod drained;
mod due;
mod expiring;
mod fanout;
mod presence;
mod recovery;

use std::sync::Arc;

use domain::{RoomId, UserId};
use parking_lot::Mutex;
use runtime::{Clock, Tasks};
use uuid::Uuid;

use self::claim::Claims;
use self::drained::Drained;
use self::expiring::Expiring;
use self::fanout::Shards;
use self::presence::People;
use self::recovery::Connections;
use crate::inbox::{Address, Inbox, Mailbox};
use crate::{LogNumber, MEMBERS_CACHED, ROOMS_CACHED};

/// Ids in each cache, 16 bytes each.
const CACHED_IDS: usize = 500_000;

pub(crate) struct EmbeddedEngine {
    shards: Shards,
    /// The last number given.
    numbered: Mutex<LogNumber>,
    connections: Mutex<Connections>,
    claims: Mutex<Claims>,
    drained: Drained,
    people: People,
    rooms: Mutex<Expiring<UserId>>,
    members: Mutex<Expiring<RoomId>>,
    clock: Clock,
}

impl Default for EmbeddedEngine {
    fn default() -> Self {
        Self {
            shards: Shards::default(),
            numbered: Mutex::default(),
            connections: Mutex::default(),
            claims: Mutex::default(),
            drained: Drained::default(),
            people: People::default(),
            rooms: Mutex::new(Expiring::new(ROOMS_CACHED, CACHED_IDS)),
            members: Mutex::new(Expiring::new(MEMBERS_CACHED, CACHED_IDS)),
            clock: Clock::system(),
        }
    }
}

impl EmbeddedEngine {
    pub(crate) fn inbox(tasks: &Tasks) -> Inbox {
        let mailbox = Arc::<Mailbox>::default();
        Inbox::new(Address::Embedded(Arc::clone(&mailbox)), mailbox, tasks.shutdown().child())
    }

    pub(crate) fn cached_rooms(&self, user: UserId) -> Option<Vec<RoomId>> {
        let ids = self.rooms.lock().get(&user, self.clock.monotonic_us())?;
        Some(ids.iter().copied().map(RoomId).collect())
    }

    pub(crate) fn cache_rooms(&self, user: UserId, rooms: &[RoomId]) {
        let ids: Arc<[Uuid]> = rooms.iter().map(|room| room.0).collect();
        self.rooms.lock().put(user, ids, self.clock.monotonic_us());
    }

    pub(crate) fn forget_rooms(&self, users: &[UserId]) {
        let mut rooms = self.rooms.lock();
        for user in users {
            rooms.forget(user);
        }
    }

    pub(crate) fn cached_members(&self, room: RoomId) -> Option<Vec<UserId>> {
        let ids = self.members.lock().get(&room, self.clock.monotonic_us())?;
        Some(ids.iter().copied().map(UserId).collect())
    }

    pub(crate) fn cache_members(&self, room: RoomId, members: &[UserId]) {
        let ids: Arc<[Uuid]> = members.iter().map(|user| user.0).collect();
        self.members.lock().put(room, ids, self.clock.monotonic_us());
    }

    pub(crate) fn forget_members(&self, rooms: &[RoomId]) {
        let mut members = self.members.lock();
        for room in rooms {
            members.forget(room);
        }
    }
}
