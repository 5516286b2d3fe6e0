//! Room on the disk: while there is little left, nothing new is taken, so that what was taken can still be
//! stored, settled and, where it must be, given up.
//!
//! It knows no file. The invariant: whoever has refused takes again only when there is clearly more.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use runtime::disk::Space;

/// With less than this nothing new is taken.
const LITTLE: u64 = 16 * 1024 * 1024;
/// With this much it is again.
const ENOUGH: u64 = 24 * 1024 * 1024;
/// With less than this a batch does not fit any more.
const NEXT_TO_NOTHING: u64 = 1024 * 1024;
/// What an event takes up in the store beside its body, about.
const AROUND_BODY: u64 = 1024;

/// Whether there is room.
#[derive(Debug, Default)]
pub(super) struct Room {
    is_short: AtomicBool,
    is_little: AtomicBool,
    is_none: AtomicBool,
    /// What will be written once more: into the store.
    waiting_bytes: AtomicU64,
    /// What the store's file has inside of it.
    spare_bytes: OnceLock<Arc<AtomicU64>>,
}

impl Room {
    /// So little that logs should be given back.
    pub(super) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Acquire)
    }

    pub(super) fn is_little(&self) -> bool {
        self.is_little.load(Ordering::Acquire)
    }

    /// Not even for what was taken before.
    pub(super) fn is_none(&self) -> bool {
        self.is_none.load(Ordering::Acquire)
    }

    /// So many events with so many bytes of bodies wait from now on.
    pub(super) fn expect(&self, events: u64, body_bytes: u64) {
        self.waiting_bytes.fetch_add(events * AROUND_BODY + body_bytes, Ordering::AcqRel);
    }

    /// An event with such a body waits no longer.
    pub(super) fn settle(&self, body_bytes: u64) {
        let less = |bytes: u64| bytes.saturating_sub(AROUND_BODY + body_bytes);
        self.waiting_bytes.update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Counts what the store can write over as room.
    pub(super) fn count_in(&self, spare_bytes: Arc<AtomicU64>) {
        // Said before: it is the same.
        let _known = self.spare_bytes.set(spare_bytes);
    }

    /// Looks at the disk on which a folder lies, and says aloud when it has turned.
    pub(super) fn look(&self, folder: &Path) {
        self.note(Space::of(folder));
    }

    /// `None`: the system does not say.
    pub(super) fn note(&self, space: Option<Space>) {
        let left = space.map(Space::left_bytes);
        self.is_short.store(space.is_some_and(Space::is_short), Ordering::Release);
        self.is_none.store(left.is_some_and(|left| left < NEXT_TO_NOTHING), Ordering::Release);

        let was_little = self.is_little();
        let needed = if was_little { ENOUGH } else { LITTLE };
        let room = left.map(|left| self.room_for_new(left));
        let is_little = room.is_some_and(|room| room < needed);
        self.is_little.store(is_little, Ordering::Release);
        if is_little && !was_little {
            tracing::error!(
                ?space,
                room_bytes = room,
                needed_bytes = ENOUGH,
                "the disk is full; nothing new is taken until it is not"
            );
        } else if was_little && !is_little {
            tracing::info!(?space, room_bytes = room, "the disk has room again");
        }
    }

    /// What is left for new events when those that wait are stored. Queues and logs need some of the disk
    /// itself, so what the store has inside its file counts up to as much again.
    fn room_for_new(&self, left: u64) -> u64 {
        let spare = self.spare_bytes.get().map_or(0, |bytes| bytes.load(Ordering::Acquire));
        let waiting = self.waiting_bytes.load(Ordering::Acquire);
        (left + spare.min(left)).saturating_sub(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(free_bytes: u64) -> Space {
        Space { free_bytes, log_bytes: 0 }
    }

    #[test]
    fn it_takes_clearly_more_to_go_on_than_to_stop() {
        let room = Room::default();
        for (free_bytes, is_little) in [
            (Some(LITTLE), false),
            (Some(LITTLE - 1), true),
            (Some(ENOUGH - 1), true),
            (Some(ENOUGH), false),
            (Some(LITTLE), false),
            (Some(0), true),
            (None, false),
        ] {
            room.note(free_bytes.map(space));
            assert_eq!(room.is_little(), is_little, "{free_bytes:?}");
            assert_eq!(room.is_none(), free_bytes == Some(0), "{free_bytes:?}");
        }
    }

    #[test]
    fn what_waits_and_what_lies_in_logs_has_its_room_kept() {
        let room = Room::default();
        room.expect(2, LITTLE);
        room.note(Some(space(2 * LITTLE + 2 * AROUND_BODY)));
        assert!(!room.is_little());
        room.note(Some(space(2 * LITTLE + 2 * AROUND_BODY - 1)));
        assert!(room.is_little() && !room.is_none());
        room.settle(LITTLE);
        room.settle(0);
        room.note(Some(space(ENOUGH)));
        assert!(!room.is_little());
        room.settle(7);
        let in_logs = |log_bytes| Some(Space { free_bytes: ENOUGH, log_bytes });
        room.note(in_logs(ENOUGH - LITTLE + 1));
        assert!(room.is_little() && !room.is_none());
        room.note(in_logs(ENOUGH - NEXT_TO_NOTHING + 1));
        assert!(room.is_none());
    }

    #[test]
    fn what_the_store_can_write_over_is_room_up_to_what_the_disk_has_itself() {
        let (room, spare) = (Room::default(), Arc::new(AtomicU64::new(0)));
        room.count_in(Arc::clone(&spare));
        room.note(Some(space(LITTLE - 1)));
        assert!(room.is_little());
        // Old rows were removed: the file keeps its size, and has room.
        spare.store(100 * LITTLE, Ordering::Release);
        room.note(Some(space(LITTLE - 1)));
        assert!(!room.is_little());
        room.note(Some(space(LITTLE / 2 - 1)));
        assert!(room.is_little(), "queues and logs would have none");
    }
}
