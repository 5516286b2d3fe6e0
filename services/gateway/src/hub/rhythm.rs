//! Rooms with many connections send in a rhythm: what comes shortly after something else leaves together with what
//! still comes, with one call of the kernel for each connection instead of one for each delivery.
//!
//! Knows no socket: it says when sessions are woken, and what waits for a session leaves whenever it is. The
//! invariants: nothing is put off for longer than a beat, and the order of what leaves is that in which it came.

use domain::RoomId;
use parking_lot::Mutex;

use super::Hub;

/// With so many connections a room sends in a rhythm: a call for each costs more than a beat is worth.
const MANY: usize = 64;
/// From beat to beat of a room.
const BEAT_MS: u64 = 14;

/// When the sessions of whoever is told something are woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wakes {
    AtOnce,
    /// With the beat of the room.
    OnBeat,
}

/// Where a room stands in its rhythm.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    last_ms: Option<u64>,
    is_put_off: bool,
}

impl Rhythm {
    /// How sessions of a room with so many of them are woken.
    pub(super) fn wakes(connections: usize) -> Wakes {
        if connections < MANY { Wakes::AtOnce } else { Wakes::OnBeat }
    }

    /// Something was put off: when it leaves, if nothing else was put off already.
    fn put_off(&mut self, now_ms: u64) -> Option<u64> {
        if std::mem::replace(&mut self.is_put_off, true) {
            return None;
        }
        Some(self.last_ms.map_or(now_ms, |last| now_ms.max(last + BEAT_MS)))
    }

    /// What was put off leaves.
    fn leave(&mut self, now_ms: u64) {
        (self.last_ms, self.is_put_off) = (Some(now_ms), false);
    }
}

/// The rooms in which something was put off, and until when.
#[derive(Debug, Default)]
pub(super) struct PutOff {
    rooms: Mutex<Vec<(u64, RoomId)>>,
}

impl Hub {
    /// What was just put into the outboxes of a room's connections leaves with the room's beat.
    pub(super) fn put_off(&self, id: RoomId, rhythm: &mut Rhythm, now_ms: u64) {
        if let Some(due_ms) = rhythm.put_off(now_ms) {
            self.put_off.rooms.lock().push((due_ms, id));
        }
    }

    /// What was put off until now leaves; when the next is due.
    pub(crate) fn let_leave(&self, now_ms: u64) -> Option<u64> {
        self.let_leave_due_by(now_ms, now_ms);
        self.put_off.rooms.lock().iter().map(|(due_ms, _)| *due_ms).min()
    }

    /// All that was put off leaves now.
    pub(crate) fn let_all_leave(&self, now_ms: u64) {
        self.let_leave_due_by(u64::MAX, now_ms);
    }

    fn let_leave_due_by(&self, by_ms: u64, now_ms: u64) {
        let due: Vec<_> = self.put_off.rooms.lock().extract_if(.., |(due_ms, _)| *due_ms <= by_ms).collect();
        for (_, id) in due {
            if let Some(room) = self.shard(id).get_mut(&id) {
                room.rhythm.leave(now_ms);
                room.wake_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Handle;
    use crate::handle::tests::{handle, sent};
    use crate::hub::tests::{ROOM, join, message};
    use protocol::Channel;
    use realtime::LogNumber;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct World {
        hub: Arc<Hub>,
        handles: Vec<Arc<Handle>>,
        woken: Arc<Woken>,
    }

    impl World {
        fn new(people: usize) -> Self {
            let (hub, _requests) = Hub::new(0);
            let handles: Vec<_> = (1..=people).map(|number| handle(number as u64, number as u128)).collect();
            hub.enter(&handles[0], &[ROOM]);
            for one in &handles {
                join(hub.shard(ROOM).get_mut(&ROOM).expect("there"), one, 0);
            }
            Self { hub, handles, woken: Arc::default() }
        }

        /// A message comes, and the burst that it is ends. How many sessions were woken by it.
        fn tell(&self, rev: i64, now_ms: u64) -> usize {
            self.counted(|| {
                self.hub.route(Channel::Room(ROOM), message(rev), LogNumber::NONE, now_ms);
                self.hub.let_leave(now_ms);
            })
        }

        fn counted(&self, step: impl FnOnce()) -> usize {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.handles.iter().for_each(|handle| handle.register(&waker));
            self.woken.0.store(0, Ordering::Relaxed);
            step();
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_first_leaves_at_once_and_what_follows_within_a_beat_leaves_together() {
        let world = World::new(MANY);
        assert_eq!(world.tell(1, 100), MANY);
        world.handles.iter().for_each(|handle| assert_eq!(sent(handle).len(), 1));
        assert_eq!((world.tell(2, 103), world.tell(3, 104)), (0, 0));
        assert_eq!(world.hub.let_leave(105), Some(100 + BEAT_MS));
        assert_eq!(world.counted(|| assert_eq!(world.hub.let_leave(100 + BEAT_MS), None)), MANY);
        world.handles.iter().for_each(|handle| assert_eq!(sent(handle).len(), 2));
        assert_eq!(world.tell(4, 200), MANY, "after a pause at once again");
    }

    #[test]
    fn in_a_small_room_nothing_is_put_off() {
        let world = World::new(MANY - 1);
        let told: Vec<usize> = (1..=3)
            .map(|rev| {
                let woken = world.tell(rev, 100);
                world.handles.iter().for_each(|handle| drop(sent(handle)));
                woken
            })
            .collect();
        assert_eq!(told, [MANY - 1; 3]);
    }

    #[test]
    fn whoever_is_told_something_urgent_meanwhile_is_woken_at_once_and_whoever_leaves_too() {
        let world = World::new(MANY);
        world.tell(1, 100);
        world.handles.iter().for_each(|handle| drop(sent(handle)));
        assert_eq!(world.tell(2, 101), 0);
        let urgent = world.counted(|| world.handles[3].push("ack".into(), crate::handle::outbox::Kind::Answer));
        assert_eq!(urgent, 1);
        assert_eq!(world.counted(|| world.hub.leave(&world.handles[4], &[ROOM])), 1);
        assert_eq!(world.counted(|| world.hub.let_all_leave(101)), MANY - 2, "all but those two");
    }
}
