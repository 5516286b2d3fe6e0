//! What was committed lately, read from the store: so that what a processor committed and never told
//! is found without traffic and however many rooms are here.
//!
//! Knows no session. The invariant: each batch that is committed is heard of here within two seconds,
//! from pub/sub or from the store; the slow comparison of all rooms is behind both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Rev, RoomId, UserId};
use store::{ReadMark, StoreError, TailCursor};
use telemetry::Counter;

use crate::shared::{LOOK_UP_LIMIT, Shared};

/// How often the tail is read. A delivery that is not here after one more round is not on its way.
const READ_EVERY: Duration = Duration::from_millis(900);
/// Pages read in one round; what is left comes in the next one.
const PAGES: usize = 40;
/// Read marks of different people that are kept until all were read.
const MARKS: usize = 50_000;

/// Reads on until the service stops.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown().clone();
    let (mut cursor, mut behind, mut marks) = (None, HashMap::new(), Marks::default());
    loop {
        shared.hub.tell_marks(marks.take(), shared.wheel.now_ms());
        behind.retain(|room: &RoomId, rev: &mut Rev| shared.hub.is_behind(*room, *rev));
        for (room, rev) in behind.drain() {
            Counter::TailFound.inc();
            shared.hub.learn(room, rev);
        }
        let reading = read(&shared, &mut cursor, &mut behind, &mut marks);
        let read = tokio::select! {
            () = shutdown.requested() => return,
            read = tokio::time::timeout(LOOK_UP_LIMIT, reading) => read,
        };
        if !matches!(read, Ok(Ok(()))) {
            tracing::debug!("the tail of what was committed could not be read");
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(READ_EVERY) => {}
        }
    }
}

/// Read marks that were found and not told here: of each person in each room the furthest, once all were
/// read that there are, so that an older one is not told after a newer one that was told long ago.
#[derive(Debug, Default)]
struct Marks {
    furthest: HashMap<(RoomId, UserId), ReadMark>,
    is_all: bool,
}

impl Marks {
    /// Notes what a reading found; `is_all` if there is no more.
    fn find(&mut self, found: impl Iterator<Item = ReadMark>, is_all: bool) {
        self.is_all = is_all;
        for mark in found {
            let furthest = self.furthest.entry((mark.room, mark.user)).or_insert(mark);
            if mark.seq > furthest.seq {
                *furthest = mark;
            }
        }
    }

    /// Those that may be told.
    fn take(&mut self) -> Vec<ReadMark> {
        if !self.is_all && self.furthest.len() < MARKS {
            return Vec::new();
        }
        std::mem::take(&mut self.furthest).into_values().collect()
    }
}

async fn read(
    shared: &Shared,
    cursor: &mut Option<TailCursor>,
    behind: &mut HashMap<RoomId, Rev>,
    marks: &mut Marks,
) -> Result<(), StoreError> {
    let Some(cursor) = cursor else {
        *cursor = Some(shared.store.tail_cursor().await?);
        return Ok(());
    };
    for _ in 0..PAGES {
        let tail = shared.store.read_tail(cursor).await?;
        for (room, rev) in tail.rooms {
            if shared.hub.note_stored(room, rev) {
                let highest = behind.entry(room).or_insert(rev);
                *highest = rev.max(*highest);
            }
        }
        marks.find(tail.marks.into_iter().filter(|mark| shared.hub.lacks_mark(mark)), tail.complete);
        if tail.complete {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Seq, Timestamp};
    use uuid::Uuid;

    fn mark(user: u128, seq: i64) -> ReadMark {
        let (room, user) = (RoomId(Uuid::from_u128(1)), UserId(Uuid::from_u128(user)));
        ReadMark { room, user, seq: Seq(seq), at: Timestamp(0) }
    }

    #[test]
    fn of_the_marks_of_one_person_the_furthest_is_told_and_only_once_all_were_read() {
        let mut marks = Marks::default();
        marks.find([mark(1, 5), mark(2, 9)].into_iter(), false);
        assert_eq!(marks.take(), [], "there are more, which may be further");
        marks.find([mark(1, 6), mark(2, 8)].into_iter(), true);
        let mut told = marks.take();
        told.sort_unstable_by_key(|mark| mark.seq);
        assert_eq!(told, [mark(1, 6), mark(2, 9)]);
        assert_eq!(marks.take(), []);
    }
}
