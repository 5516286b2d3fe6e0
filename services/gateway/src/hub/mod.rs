//! Who is on this gateway and in which rooms; where deliveries are put into order.
//!
//! Knows no socket and waits for nothing: what takes time is asked for through bounded channels and
//! done by owned tasks. The invariant: a room's deliveries are released under its shard's lock, in
//! the order of their revs.

mod claim;
mod crowd;
mod marks;
mod member;
mod moved;
mod rhythm;
mod room;
mod sound;
mod standings;
mod typing;
mod user;

#[cfg(test)]
mod anew_tests;
#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use domain::room::{Role, RoomKind};
use domain::{Rev, RoomId, Timestamp, UserId};
use parking_lot::{Mutex, MutexGuard};
use protocol::{Channel, CloseCode, EventData, OpenedDelivery, wire};
use realtime::LogNumber;
use tokio::sync::mpsc;

pub(crate) use claim::{Claim, Ticket, Way};
use marks::Marks;
use rhythm::PutOff;
pub(crate) use rhythm::Wakes;
use room::{Armed, Need, Room};
pub(crate) use room::{Gap, Position};
use sound::Soundness;
use standings::Standings;
use typing::Typing;
pub(crate) use user::SHARDS as USER_SHARDS;
use user::Users;

use crate::codec::{Delivered, Place};
use crate::handle::Handle;

const SHARDS: usize = 64;
/// Rooms that may wait to be filled.
const FILLS: usize = 8192;
/// Joins that may wait in each lane.
const JOINS: usize = 1024;
/// Joins of one connection are done one after another, in one lane; lanes side by side.
const JOIN_LANES: u64 = 16;

/// A connection that has to follow a room from now on.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) handle: Arc<Handle>,
    pub(crate) room: RoomId,
    /// The connection is told this and then all that came after it.
    pub(crate) since: Rev,
    pub(crate) told: Arc<Delivered>,
    /// What fails is tried again later; otherwise the connection ends and reads the truth anew.
    pub(crate) is_patient: bool,
}

/// What the hub asks of the tasks around it.
pub(crate) struct Requests {
    pub(crate) fills: mpsc::Receiver<RoomId>,
    pub(crate) joins: Vec<mpsc::Receiver<Join>>,
}

/// What a filling came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    Done,
    /// Something is missing still; `progress` if less than before.
    More {
        progress: bool,
    },
}

/// What the store knows about a user in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) room: RoomId,
    pub(crate) rev: Rev,
    pub(crate) kind: RoomKind,
    pub(crate) role: Role,
}

/// The hub.
pub(crate) struct Hub {
    rooms: Box<[Mutex<HashMap<RoomId, Room>>]>,
    pub(crate) users: Users,
    typing: Typing,
    marks: Marks,
    standings: Standings,
    pub(crate) sound: Soundness,
    put_off: PutOff,
    fills: mpsc::Sender<RoomId>,
    joins: Vec<mpsc::Sender<Join>>,
    /// How often a room was seen to have moved in the store.
    moves: AtomicU64,
    /// How often somebody began to let a connection into a room.
    tickets: AtomicU64,
}

/// Ends a connection whose place another one took.
fn yield_device(handle: &Handle, taken: &wire::DeviceTaken) {
    let is_replaced = handle.identity().is_some_and(|identity| {
        identity.device.as_str() == taken.device_id && identity.session.to_string() == taken.session_id
    });
    if is_replaced {
        handle.close(CloseCode::Replaced);
    }
}

/// Ends a session that its user's rights do not cover any more.
fn revoke(handle: &Handle, revoked: wire::SessionRevoked) {
    if handle.rights.end_before(Timestamp(revoked.valid_after_ms)) || revoked.blocked {
        handle.close(CloseCode::Forbidden);
    }
}

impl Hub {
    /// A user may have so many devices here; zero: any number.
    pub(crate) fn new(user_devices: u32) -> (Arc<Self>, Requests) {
        let (fills, fill_requests) = mpsc::channel(FILLS);
        let (joins, join_requests) = (0..JOIN_LANES).map(|_| mpsc::channel(JOINS)).unzip();
        let rooms = (0..SHARDS).map(|_| Mutex::default()).collect();
        let hub = Self {
            rooms,
            users: Users::new(user_devices),
            typing: Typing::new(),
            marks: Marks::new(),
            standings: Standings::default(),
            sound: Soundness::default(),
            put_off: PutOff::default(),
            fills,
            joins,
            moves: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
        };
        (Arc::new(hub), Requests { fills: fill_requests, joins: join_requests })
    }

    fn shard(&self, room: RoomId) -> MutexGuard<'_, HashMap<RoomId, Room>> {
        self.rooms[user::shard_of(room.as_bytes(), SHARDS)].lock()
    }

    // ---- connections in rooms

    /// Adds a connection whose session is being opened to rooms, holding what they release; answers
    /// which of them have to be subscribed first.
    pub(crate) fn enter(&self, handle: &Arc<Handle>, rooms: &[RoomId]) -> Vec<RoomId> {
        let mut missing = Vec::new();
        for id in rooms {
            let mut shard = self.shard(*id);
            let room = shard.entry(*id).or_insert_with(|| Room::new(*id));
            room.claim(handle, Ticket::OPENING);
            if !room.subscribed {
                missing.push(*id);
            }
        }
        missing
    }

    /// The subscriptions of these rooms were confirmed.
    pub(crate) fn subscribed(&self, rooms: &[RoomId]) {
        for id in rooms {
            if let Some(room) = self.shard(*id).get_mut(id) {
                room.subscribed = true;
            }
        }
    }

    /// Says what the store knows of a connection that is let in; answers the rooms for which it was read
    /// too early.
    pub(crate) fn arm(&self, handle: &Handle, ticket: Ticket, known: &[Known]) -> Vec<RoomId> {
        let mut too_early = Vec::new();
        for it in known {
            let armed = match self.shard(it.room).get_mut(&it.room) {
                Some(room) => {
                    let armed = room.arm(handle.key, ticket, it.rev, it.kind, it.role);
                    self.count_gap(room);
                    armed
                }
                None => Armed::Gone,
            };
            match armed {
                Armed::Yes(need) => self.see_to(it.room, need),
                Armed::TooEarly => too_early.push(it.room),
                Armed::Gone => {}
            }
        }
        too_early
    }

    /// Takes a connection out of rooms.
    pub(crate) fn leave(&self, handle: &Handle, rooms: &[RoomId]) {
        for id in rooms {
            if let Some(room) = self.shard(*id).get_mut(id) {
                room.leave(handle.key);
            }
        }
    }

    /// Takes a connection out of all rooms, for good.
    pub(crate) fn leave_all(&self, handle: &Handle) {
        let rooms = handle.leave_all();
        self.leave(handle, &rooms);
    }

    /// Takes a connection out of everything, for good.
    pub(crate) fn depart(&self, handle: &Handle) {
        self.leave_all(handle);
        self.users.leave(handle);
    }

    /// The kind of a room and the role of a connection's user in it, if the room is on.
    pub(crate) fn standing(&self, handle: &Handle, room: RoomId) -> Option<(RoomKind, Role)> {
        self.shard(room).get(&room)?.standing(handle.key)
    }

    /// Where a connection stands in a room.
    pub(crate) fn position(&self, handle: &Handle, room: RoomId) -> Position {
        self.shard(room).get(&room).map_or(Position::Absent, |room| room.position(handle.key))
    }

    /// True if a connection gets what the room releases.
    pub(crate) fn is_open(&self, handle: &Handle, room: RoomId) -> bool {
        self.shard(room).get(&room).is_some_and(|room| room.is_open(handle.key))
    }

    // ---- deliveries

    /// Takes a genuine delivery that came at `now_ms` to where it belongs.
    pub(crate) fn route(&self, channel: Channel, opened: OpenedDelivery, number: LogNumber, now_ms: u64) {
        match (channel, &opened.event) {
            (Channel::User(user), EventData::DeviceTaken(taken)) => {
                return self.users.each_of(user, |handle| yield_device(handle, taken));
            }
            (Channel::User(user), EventData::SessionRevoked(revoked)) => {
                return self.users.each_of(user, |handle| revoke(handle, *revoked));
            }
            _ => {}
        }
        let _held = match channel {
            Channel::User(user) => self.standings.note(user, &opened.event),
            Channel::Room(_) => None,
        };
        self.pass_on(channel, opened, number, now_ms);
    }

    fn pass_on(&self, channel: Channel, opened: OpenedDelivery, number: LogNumber, now_ms: u64) {
        let delivered = Arc::new(Delivered::numbered(opened, number));
        match channel {
            Channel::Room(room) => self.accept(room, delivered, now_ms),
            Channel::User(user) => self.users.each_of(user, |handle| self.tell(user, handle, &delivered)),
        }
    }

    fn accept(&self, id: RoomId, delivered: Arc<Delivered>, now_ms: u64) {
        let place = self.sound.place(delivered.number);
        let mut shard = self.shard(id);
        let Some(room) = shard.get_mut(&id) else { return };
        let most = if room.is_crowd() { typing::PER_CROWD } else { typing::PER_ROOM };
        if !self.typing.is_news(id, &delivered.event, most, now_ms) || !self.marks.is_news(id, &delivered.event, now_ms)
        {
            return;
        }
        if let Some(reader) = crowd::spared(room, &delivered.event, now_ms) {
            drop(shard);
            return self.tell_reader(id, reader, &delivered);
        }
        let wakes = room.wakes();
        if let Some(ended) = self.typing.ended_by(id, &delivered.event) {
            // Without a rev it needs nothing.
            let _ = room.accept(Arc::new(ended), Place::Void, wakes);
        }
        let need = room.accept(delivered, place, wakes);
        if wakes == Wakes::OnBeat {
            self.put_off(id, &mut room.rhythm, now_ms);
        }
        self.count_gap(room);
        drop(shard);
        self.see_to(id, need);
    }

    /// Time goes on: whoever has typed for too long is told to have stopped.
    pub(crate) fn tick(&self, now_ms: u64) {
        self.marks.forget(now_ms);
        for (id, ended) in self.typing.expired(now_ms) {
            if let Some(room) = self.shard(id).get_mut(&id) {
                let _ = room.accept(Arc::new(ended), Place::Void, Wakes::AtOnce);
            }
        }
    }

    fn count_gap(&self, room: &mut Room) {
        let has_gap = room.gap().is_some();
        self.sound.count_gap(std::mem::replace(&mut room.has_gap, has_gap), has_gap);
    }

    /// Passes something of a user's own channel to one of the user's connections.
    pub(crate) fn tell(&self, user: UserId, handle: &Arc<Handle>, delivered: &Arc<Delivered>) {
        if handle.keep_early(delivered) {
            return;
        }
        let Some((room, since)) = delivered.room_entered_by(user) else {
            handle.tell(delivered);
            return;
        };
        self.join(Join { handle: Arc::clone(handle), room, since, told: Arc::clone(delivered), is_patient: false });
    }

    /// Asks for a join. If too many wait already, the connection ends and will read the truth anew.
    pub(crate) fn join(&self, join: Join) {
        let lane = (join.handle.key % JOIN_LANES) as usize;
        if let Err(refused) = self.joins[lane].try_send(join) {
            let (mpsc::error::TrySendError::Full(join) | mpsc::error::TrySendError::Closed(join)) = refused;
            if !join.is_patient {
                join.handle.close(CloseCode::TooSlow);
            }
        }
    }

    fn see_to(&self, id: RoomId, need: Need) {
        if need == Need::Fill && self.fills.try_send(id).is_err() {
            // The next delivery or the periodic comparison with the store asks again.
            self.stop_filling(id);
        }
    }

    // ---- gaps

    /// What is missing in a room; `None` when nothing is, and its filling is over.
    pub(crate) fn gap(&self, id: RoomId) -> Option<Gap> {
        let mut shard = self.shard(id);
        let room = shard.get_mut(&id)?;
        let gap = room.gap();
        if gap.is_none() {
            room.stop_filling();
        }
        gap
    }

    /// Takes what was missing.
    pub(crate) fn fill(&self, id: RoomId, found: Vec<OpenedDelivery>) -> Filled {
        let mut shard = self.shard(id);
        let Some(room) = shard.get_mut(&id) else { return Filled::Done };
        let before = room.released();
        for opened in found {
            // Already being filled: a further need is answered below.
            let _ = room.accept(Arc::new(Delivered::new(opened)), Place::Void, Wakes::AtOnce);
        }
        self.count_gap(room);
        if room.gap().is_none() {
            room.stop_filling();
            return Filled::Done;
        }
        Filled::More { progress: room.released() > before }
    }

    /// Gives up filling a room for now.
    pub(crate) fn stop_filling(&self, id: RoomId) {
        if let Some(room) = self.shard(id).get_mut(&id) {
            room.stop_filling();
        }
    }

    /// What is missing in a room is nowhere: its connections end, and catch up when they come back.
    pub(crate) fn begin_anew(&self, id: RoomId) {
        if let Some(room) = self.shard(id).get_mut(&id) {
            room.begin_anew();
            self.count_gap(room);
        }
    }

    /// True when the store is ahead of what was released.
    pub(crate) fn is_behind(&self, id: RoomId, rev: Rev) -> bool {
        self.shard(id).get(&id).is_some_and(|room| room.released().is_some_and(|released| released < rev))
    }

    /// Notes that the store has a room at `rev`.
    pub(crate) fn learn(&self, id: RoomId, rev: Rev) {
        let need = self.shard(id).get_mut(&id).map_or(Need::Nothing, |room| {
            let need = room.learn(rev);
            self.count_gap(room);
            need
        });
        self.see_to(id, need);
    }

    // ---- housekeeping

    /// All rooms with a local member at the moment.
    pub(crate) fn room_ids(&self) -> Vec<RoomId> {
        let of_shard = |shard: &Mutex<HashMap<RoomId, Room>>| {
            let shard = shard.lock();
            shard.iter().filter(|(_, room)| !room.is_empty()).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        self.rooms.iter().flat_map(of_shard).collect()
    }

    /// Forgets rooms and users that have been without a connection for `patience` counts;
    /// `unsubscribe` is called under the lock, so that it cannot overtake a new subscription.
    pub(crate) fn sweep(&self, count: u64, patience: u64, unsubscribe: impl Fn(&[Channel])) -> usize {
        let mut left = 0;
        for shard in &self.rooms {
            let mut shard = shard.lock();
            let mut gone = Vec::new();
            for (id, room) in shard.iter_mut().filter(|(_, room)| room.is_empty()) {
                if count >= *room.empty_since.get_or_insert(count) + patience {
                    gone.push(*id);
                }
            }
            if !gone.is_empty() {
                for id in &gone {
                    let had_gap = shard.remove(id).is_some_and(|room| room.has_gap);
                    self.sound.count_gap(had_gap, false);
                }
                let channels: Vec<Channel> = gone.into_iter().map(Channel::Room).collect();
                unsubscribe(&channels);
            }
            left += shard.len();
        }
        self.users.sweep(count, patience, |users| {
            let channels: Vec<Channel> = users.iter().copied().map(Channel::User).collect();
            unsubscribe(&channels);
        });
        left
    }
}
