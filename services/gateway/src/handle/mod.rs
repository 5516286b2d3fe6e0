//! One connection as the rest of the gateway sees it: a place to put things for it, a way to end it.
//!
//! Knows no socket. The invariant: nothing that happens to a connection from outside waits for it;
//! the connection's own task picks it up.

pub(crate) mod deadlines;
pub(crate) mod followed;
pub(crate) mod outbox;
pub(crate) mod pace;
pub(crate) mod rights;
mod state;
pub(crate) mod switched_off;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use bytes::Bytes;
use domain::{DeviceId, RoomId, SessionId, UserId};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use protocol::{Ack, CloseCode, FrameId};
use telemetry::Counter;

use crate::codec::{Delivered, Dialect, Place};
use crate::handle::deadlines::{Deadlines, Due};
use crate::handle::followed::Followed;
use crate::handle::outbox::{Kind, Popped, Pushed};
use crate::handle::pace::Pace;
use crate::handle::rights::Rights;
use crate::handle::state::State;
use crate::handle::switched_off::SwitchedOff;
use crate::hub::Wakes;
use crate::idle::Activity;
use crate::watch::beacon::Quiet;

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
    /// Which of them have to be waited for.
    pub(crate) pace: Pace,
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

/// One connection. Shared by its task, the hub and the wheel.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Larger than that of any connection made before on this gateway.
    pub(crate) key: u64,
    pub(crate) dialect: Dialect,
    pub(crate) rights: Rights,
    pub(crate) quiet: Quiet,
    pub(crate) activity: Activity,
    pub(crate) switched_off: SwitchedOff,
    identity: OnceLock<Identity>,
    state: Mutex<State>,
    /// The rooms that are on for this connection; `None` once it has left the hub for good.
    rooms: Mutex<Option<Vec<RoomId>>>,
    waker: AtomicWaker,
    meters: Arc<Meters>,
    /// How far the client has followed all rooms together.
    pub(crate) followed: Followed,
}

impl Handle {
    pub(crate) fn new(key: u64, dialect: Dialect, deadlines: Deadlines, meters: Arc<Meters>) -> Arc<Self> {
        let state = State::new(deadlines);
        Arc::new(Self {
            key,
            dialect,
            rights: Rights::default(),
            quiet: Quiet::default(),
            activity: Activity::default(),
            identity: OnceLock::new(),
            state: Mutex::new(state),
            rooms: Mutex::new(Some(Vec::new())),
            switched_off: SwitchedOff::default(),
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
        let kind = delivered.topic.map_or(Kind::Event, Kind::Fleeting);
        self.push(delivered.bytes(self.dialect, Place::Sound), kind);
    }

    /// Queues a room's delivery, sound if everything before it was released.
    pub(crate) fn deliver(&self, delivered: &Delivered, place: Place, wakes: Wakes) {
        let kind = delivered.topic.map_or(Kind::Event, Kind::Fleeting);
        self.push_and(self.placed(delivered, place), kind, wakes);
    }

    /// Queues a delivery that was held back while the connection was not open in its room.
    pub(crate) fn deliver_held(&self, delivered: &Delivered) {
        self.push(self.placed(delivered, Place::Void), Kind::Held);
    }

    fn placed(&self, delivered: &Delivered, place: Place) -> Bytes {
        let is_placed = delivered.rev.is_some();
        let place = if is_placed { self.followed.place(delivered.number, place) } else { Place::Sound };
        delivered.bytes(self.dialect, place)
    }

    /// What waits now leaves before anything fleeting that is yet to come.
    pub(crate) fn let_first(&self) {
        self.state.lock().outbox.let_first();
    }

    /// Queues an answer.
    pub(crate) fn answer(&self, id: &FrameId, ack: &Ack) {
        self.push(self.dialect.ack(id, ack), Kind::Answer);
    }

    /// Queues something encoded; over the bound the connection is closed as too slow.
    pub(crate) fn push(&self, bytes: Bytes, kind: Kind) {
        self.push_and(bytes, kind, Wakes::AtOnce);
    }

    fn push_and(&self, bytes: Bytes, kind: Kind, wakes: Wakes) {
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
            Pushed::Replaced => {
                self.meters.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Pushed::Overflow => {
                Counter::Limited.inc_with("outbox");
                state.outbox.clear();
                state.close = Some(CloseCode::TooSlow);
                state.close_seen = false;
            }
        }
        state.pace(&self.meters.pace);
        self.count(before, state.outbox.bytes());
        let is_first = matches!(pushed, Pushed::Waits { was_empty: true } | Pushed::Overflow);
        if is_first && wakes == Wakes::OnBeat && !state.is_closed() {
            state.outbox.put_off();
            return;
        }
        let is_woken = is_first || (wakes == Wakes::AtOnce && state.outbox.take_put_off());
        drop(state);
        if is_woken {
            self.waker.wake();
        }
    }

    /// Wakes the session if it was not woken for what waits.
    pub(crate) fn wake_put_off(&self) {
        if self.state.lock().outbox.take_put_off() {
            self.waker.wake();
        }
    }

    /// Asks the connection to end; the first reason counts. But who has lost the right gets nothing more
    /// of what waits, which who is only drained does.
    pub(crate) fn close(&self, code: CloseCode) {
        let mut state = self.state.lock();
        let is_forbidden = code == CloseCode::Forbidden;
        if state.close.is_none_or(|first| first == CloseCode::Draining && is_forbidden) {
            (state.close, state.close_seen) = (Some(code), false);
            if is_forbidden {
                let before = state.outbox.bytes();
                state.outbox.clear();
                self.count(before, 0);
            }
            state.pace(&self.meters.pace);
            drop(state);
            self.waker.wake();
        }
    }

    /// True once its user has lost the right to it.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.state.lock().close == Some(CloseCode::Forbidden)
    }

    /// Nothing goes to the client any more: what waits is let go of, however long the handle is held.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        let before = state.outbox.bytes();
        state.outbox.clear();
        self.count(before, 0);
        (state.close, state.close_seen) = (Some(CloseCode::Normal), true);
        state.pace(&self.meters.pace);
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
    pub(crate) fn pop(&self) -> Option<Popped> {
        let mut state = self.state.lock();
        let before = state.outbox.bytes();
        let next = state.outbox.pop();
        state.set_blocked(false, &self.meters.pace);
        state.pace(&self.meters.pace);
        self.count(before, state.outbox.bytes());
        next
    }

    /// Notes how many bytes the transport holds, and whether it takes more.
    pub(crate) fn note_transport(&self, bytes: usize, is_blocked: bool) {
        let mut state = self.state.lock();
        state.outbox.note_transport(bytes);
        state.set_blocked(is_blocked, &self.meters.pace);
        state.pace(&self.meters.pace);
    }

    /// True when nothing waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().outbox.is_empty()
    }

    /// Bytes of answers that wait.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.state.lock().outbox.answer_bytes()
    }

    /// True while so much waits that nothing more should be added that can wait elsewhere.
    pub(crate) fn is_crowded(&self) -> bool {
        self.state.lock().outbox.is_crowded()
    }

    /// True once the session is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.state.lock().early.is_none()
    }

    /// The session is ready: user events go straight through from now on. What came too early.
    pub(crate) fn take_early(&self) -> Vec<Arc<Delivered>> {
        let mut state = self.state.lock();
        state.outbox.let_first();
        state.early.take().unwrap_or_default()
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

    /// When the wheel has to come by, by the deadlines as they are now: `planned` says at which of
    /// its ticks. One step, so that of two plans the later one is by the newer deadlines.
    pub(crate) fn plan_visit(&self, planned: impl FnOnce(u64) -> u64) -> u64 {
        let mut state = self.state.lock();
        state.visit_ms = planned(state.deadlines.next_ms());
        state.visit_ms
    }

    /// The wheel's visit planned for `planned_ms`. Whether to come again; if not, that entry is
    /// stale, or there is nothing left to watch.
    pub(crate) fn visit(&self, planned_ms: u64, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        if state.visit_ms != planned_ms || state.is_closed() {
            return false;
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
        let is_open = !state.is_closed();
        state.pace(&self.meters.pace);
        drop(state);
        if woken {
            self.waker.wake();
        }
        is_open
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

    /// True once the connection has left the hub for good, or is told to end.
    pub(crate) fn is_over(&self) -> bool {
        self.rooms.lock().is_none() || self.state.lock().is_closed()
    }

    /// All rooms, for the last time.
    pub(crate) fn leave_all(&self) -> Vec<RoomId> {
        self.rooms.lock().take().unwrap_or_default()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let left = state.outbox.bytes();
        state.leave(&self.meters.pace);
        self.count(left, 0);
    }
}

#[cfg(test)]
pub(crate) mod tests;
