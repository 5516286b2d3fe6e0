//! One connection as the rest of the gateway sees it: a place to put things for it, a way to end it.
//!
//! Knows no socket. The invariant: nothing that happens to a connection from outside waits for it;
//! the connection's own task picks it up.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use bytes::Bytes;
use domain::{DeviceId, RoomId, SessionId, UserId};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use protocol::{Ack, CloseCode, FrameId};

use crate::beacon::Quiet;
use crate::codec::{Delivered, Dialect, Place};
use crate::deadlines::{Deadlines, Due};
use crate::followed::Followed;
use crate::idle::Activity;
use crate::outbox::{Kind, Outbox, Pushed};
use crate::rights::Rights;

/// User events that may wait for a connection that is still being opened.
const EARLY_EVENTS: usize = 256;

/// What all connections of a gateway together have waiting; read by metrics once a second.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// Bytes in outboxes.
    pub(crate) outbox_bytes: AtomicI64,
    /// Deliveries put into outboxes so far.
    pub(crate) deliveries: AtomicU64,
    /// Deliveries dropped because the client was slow.
    pub(crate) dropped: AtomicU64,
}

/// Whose connection it is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    pub(crate) device: DeviceId,
}

/// What a connection's task has to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Close(CloseCode),
    Ping,
    Expiring,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    deadlines: Deadlines,
    /// When the wheel comes by; other entries of the wheel are stale.
    visit_ms: u64,
    close: Option<CloseCode>,
    close_seen: bool,
    ping: bool,
    expiring: bool,
    /// User events that came before the session was ready; `None` once it is.
    early: Option<Vec<Arc<Delivered>>>,
}

impl State {
    /// True when nothing more goes to the client; one that is drained still gets its acks.
    fn is_closed(&self) -> bool {
        self.close.is_some_and(|code| code != CloseCode::Draining)
    }
}

/// One connection. Shared by its task, the hub and the wheel.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Larger than that of any connection made before on this gateway.
    pub(crate) key: u64,
    pub(crate) dialect: Dialect,
    pub(crate) rights: Rights,
    pub(crate) quiet: Quiet,
    pub(crate) activity: Activity,
    identity: OnceLock<Identity>,
    state: Mutex<State>,
    /// The rooms that are on for this connection; `None` once it has left the hub for good.
    rooms: Mutex<Option<Vec<RoomId>>>,
    /// The client switched rooms off, so that not all of its user's rooms are on.
    is_selective: AtomicBool,
    waker: AtomicWaker,
    meters: Arc<Meters>,
    /// How far the client has followed all rooms together.
    pub(crate) followed: Followed,
}

impl Handle {
    pub(crate) fn new(key: u64, dialect: Dialect, deadlines: Deadlines, meters: Arc<Meters>) -> Arc<Self> {
        let state = State {
            outbox: Outbox::default(),
            deadlines,
            visit_ms: 0,
            close: None,
            close_seen: false,
            ping: false,
            expiring: false,
            early: Some(Vec::new()),
        };
        Arc::new(Self {
            key,
            dialect,
            rights: Rights::default(),
            quiet: Quiet::default(),
            activity: Activity::default(),
            identity: OnceLock::new(),
            state: Mutex::new(state),
            rooms: Mutex::new(Some(Vec::new())),
            is_selective: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            meters,
            followed: Followed::default(),
        })
    }

    /// Says whose connection this is; the first word counts.
    pub(crate) fn identify(&self, identity: Identity) {
        let _ = self.identity.set(identity);
    }

    /// Whose connection this is, once it is known.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }

    /// True if the connection is known to be `user`'s.
    pub(crate) fn is_of(&self, user: UserId) -> bool {
        self.identity().is_some_and(|identity| identity.user == user)
    }

    // ---- what others put here

    /// Queues a delivery that has no place among those of rooms.
    pub(crate) fn tell(&self, delivered: &Delivered) {
        self.queue(delivered, Place::Sound);
    }

    /// Queues a room's delivery, sound if everything before it was released.
    pub(crate) fn deliver(&self, delivered: &Delivered, place: Place) {
        let is_placed = delivered.rev.is_some();
        self.queue(delivered, if is_placed { self.followed.place(delivered.number, place) } else { Place::Sound });
    }

    fn queue(&self, delivered: &Delivered, place: Place) {
        let kind = if delivered.is_fleeting() { Kind::Fleeting } else { Kind::Event };
        self.push(delivered.bytes(self.dialect, place), kind);
    }

    /// Queues an answer.
    pub(crate) fn answer(&self, id: &FrameId, ack: &Ack) {
        self.push(self.dialect.ack(id, ack), Kind::Answer);
    }

    /// Queues something encoded; over the bound the connection is closed as too slow.
    pub(crate) fn push(&self, bytes: Bytes, kind: Kind) {
        if kind == Kind::Event {
            self.quiet.broken();
        }
        let mut state = self.state.lock();
        if state.is_closed() {
            return;
        }
        let before = state.outbox.bytes();
        let pushed = state.outbox.push(bytes, kind);
        match pushed {
            Pushed::Waits { .. } if kind != Kind::Answer => {
                self.meters.deliveries.fetch_add(1, Ordering::Relaxed);
            }
            Pushed::Waits { .. } => {}
            Pushed::Dropped => {
                self.meters.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Pushed::Overflow => {
                state.outbox.clear();
                state.close = Some(CloseCode::TooSlow);
                state.close_seen = false;
            }
        }
        self.count(before, state.outbox.bytes());
        drop(state);
        if matches!(pushed, Pushed::Waits { was_empty: true } | Pushed::Overflow) {
            self.waker.wake();
        }
    }

    /// Asks the connection to end; the first reason counts.
    pub(crate) fn close(&self, code: CloseCode) {
        let mut state = self.state.lock();
        if state.close.is_none() {
            state.close = Some(code);
            if code == CloseCode::Forbidden {
                // Who has lost the right gets nothing more of what waits either.
                let before = state.outbox.bytes();
                state.outbox.clear();
                self.count(before, 0);
            }
            drop(state);
            self.waker.wake();
        }
    }

    /// Takes a delivery of the user's own channel unless the session is ready.
    pub(crate) fn keep_early(&self, delivered: &Arc<Delivered>) -> bool {
        let mut state = self.state.lock();
        let Some(early) = &mut state.early else { return false };
        if early.len() < EARLY_EVENTS {
            early.push(Arc::clone(delivered));
        } else {
            state.close.get_or_insert(CloseCode::TooSlow);
        }
        true
    }

    // ---- what the connection's own task takes

    /// Registers who is woken when there is something to see to.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// The next signal; each is seen once.
    pub(crate) fn take_signal(&self) -> Option<Signal> {
        let mut state = self.state.lock();
        if let Some(code) = state.close
            && !state.close_seen
        {
            state.close_seen = true;
            return Some(Signal::Close(code));
        }
        if std::mem::take(&mut state.expiring) {
            return Some(Signal::Expiring);
        }
        std::mem::take(&mut state.ping).then_some(Signal::Ping)
    }

    /// The next thing to send.
    pub(crate) fn pop(&self) -> Option<Bytes> {
        let mut state = self.state.lock();
        let before = state.outbox.bytes();
        let next = state.outbox.pop();
        self.count(before, state.outbox.bytes());
        next
    }

    /// True when nothing waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().outbox.is_empty()
    }

    /// True when answers pile up.
    pub(crate) fn is_congested(&self) -> bool {
        self.state.lock().outbox.is_congested()
    }

    /// True once the session is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.state.lock().early.is_none()
    }

    /// The session is ready: user events go straight through from now on. What came too early.
    pub(crate) fn take_early(&self) -> Vec<Arc<Delivered>> {
        self.state.lock().early.take().unwrap_or_default()
    }

    fn count(&self, before: usize, after: usize) {
        if before != after {
            self.meters.outbox_bytes.fetch_add(after as i64 - before as i64, Ordering::Relaxed);
        }
    }

    // ---- deadlines

    /// The client gave a sign of life.
    pub(crate) fn heard(&self) {
        self.state.lock().deadlines.heard();
    }

    /// The client has so long to say who it is.
    pub(crate) fn await_authentication(&self, by_ms: u64) {
        self.state.lock().deadlines.authenticate_by(by_ms);
    }

    /// The client said who it is with a token that is good until then.
    pub(crate) fn authenticated(&self, expires_at_ms: u64) {
        let mut state = self.state.lock();
        state.deadlines.authenticated();
        state.deadlines.expires_at(expires_at_ms);
    }

    /// When the wheel has to come by.
    pub(crate) fn next_deadline_ms(&self) -> u64 {
        self.state.lock().deadlines.next_ms()
    }

    /// Notes the wheel's next visit.
    pub(crate) fn expect_visit(&self, at_ms: u64) {
        self.state.lock().visit_ms = at_ms;
    }

    /// The wheel's visit planned for `planned_ms`. When to come again; `None`: that entry is stale,
    /// or there is nothing left to watch.
    pub(crate) fn visit(&self, planned_ms: u64, now_ms: u64) -> Option<u64> {
        let mut state = self.state.lock();
        if state.visit_ms != planned_ms || state.is_closed() {
            return None;
        }
        let mut woken = false;
        while let Some(due) = state.deadlines.due(now_ms) {
            woken = true;
            let code = match due {
                Due::Ping => {
                    state.ping = true;
                    continue;
                }
                Due::Expiring => {
                    state.expiring = true;
                    continue;
                }
                Due::NoPong => CloseCode::PongTimeout,
                Due::NotAuthenticated | Due::Expired => CloseCode::Unauthenticated,
            };
            state.close.get_or_insert(code);
        }
        let next_ms = (!state.is_closed()).then(|| state.deadlines.next_ms());
        drop(state);
        if woken {
            self.waker.wake();
        }
        next_ms
    }

    // ---- the hub's index of this connection's rooms

    /// Notes a room; false when the connection has left for good and must not be added anywhere.
    pub(crate) fn note_room(&self, room: RoomId) -> bool {
        let mut rooms = self.rooms.lock();
        let Some(rooms) = &mut *rooms else { return false };
        if rooms.len() == rooms.capacity() {
            rooms.reserve_exact(rooms.len() / 4 + 1);
        }
        rooms.push(room);
        true
    }

    /// The rooms that are on at the moment.
    pub(crate) fn room_ids(&self) -> Vec<RoomId> {
        self.rooms.lock().clone().unwrap_or_default()
    }

    /// Forgets a room.
    pub(crate) fn forget_room(&self, room: RoomId) {
        if let Some(rooms) = &mut *self.rooms.lock()
            && let Some(at) = rooms.iter().position(|it| *it == room)
        {
            rooms.swap_remove(at);
        }
    }

    /// Makes room for that many rooms at once.
    pub(crate) fn reserve_rooms(&self, count: usize) {
        if let Some(rooms) = &mut *self.rooms.lock() {
            rooms.reserve_exact(count);
        }
    }

    /// Notes that the client does not want all of its user's rooms.
    pub(crate) fn set_selective(&self) {
        self.is_selective.store(true, Ordering::Relaxed);
    }

    /// False while all of the user's rooms are meant to be on.
    pub(crate) fn is_selective(&self) -> bool {
        self.is_selective.load(Ordering::Relaxed)
    }

    /// All rooms, for the last time.
    pub(crate) fn leave_all(&self) -> Vec<RoomId> {
        self.rooms.lock().take().unwrap_or_default()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let left = self.state.get_mut().outbox.bytes();
        self.count(left, 0);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use uuid::Uuid;

    /// A connection of `user` that nobody reads from but the test.
    pub(crate) fn handle(key: u64, user: u128) -> Arc<Handle> {
        handle_of(Dialect::Native, key, user)
    }

    pub(crate) fn handle_of(dialect: Dialect, key: u64, user: u128) -> Arc<Handle> {
        let handle = Handle::new(key, dialect, Deadlines::new(0, 5_000), Arc::default());
        handle.identify(Identity {
            user: UserId(Uuid::from_u128(user)),
            session: SessionId(Uuid::from_u128(u128::from(key))),
            device: DeviceId::parse("d").expect("well-formed"),
        });
        handle
    }

    /// Everything that waits for a connection, as JSON.
    pub(crate) fn sent(handle: &Handle) -> Vec<serde_json::Value> {
        let texts = std::iter::from_fn(|| handle.pop());
        texts.map(|text| serde_json::from_slice(&text).expect("JSON")).collect()
    }

    #[test]
    fn the_first_reason_to_close_counts_and_is_seen_once() {
        let handle = handle(1, 1);
        handle.close(CloseCode::Replaced);
        handle.close(CloseCode::Draining);
        assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::Replaced)));
        assert_eq!(handle.take_signal(), None);
    }

    #[test]
    fn who_reads_too_slowly_is_closed_as_such_and_its_queue_is_freed() {
        let handle = handle(1, 1);
        for _ in 0..5_000 {
            handle.push("x".repeat(1000).into(), Kind::Event);
        }
        assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::TooSlow)));
        assert!(handle.is_idle());
        assert_eq!(handle.meters.outbox_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_wheel_turns_deadlines_into_signals() {
        let handle = handle(1, 1);
        handle.authenticated(u64::MAX);
        handle.expect_visit(25_000);
        assert_eq!(handle.visit(24_000, 24_000), None, "a stale entry");
        assert_eq!(handle.visit(25_000, 25_000), Some(45_000));
        assert_eq!(handle.take_signal(), Some(Signal::Ping));
        handle.expect_visit(45_000);
        handle.visit(45_000, 45_000);
        assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::PongTimeout)));
    }

    #[test]
    fn a_connection_that_has_left_takes_no_more_rooms() {
        let handle = handle(1, 1);
        let room = RoomId(Uuid::from_u128(9));
        assert!(handle.note_room(room));
        assert_eq!(handle.leave_all(), [room]);
        assert!(!handle.note_room(room));
    }
}
