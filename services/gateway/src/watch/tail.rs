//! What was committed lately, read from the store: so that what a processor committed and never told
//! is found without traffic and however many rooms are here.
//!
//! Knows no session. The invariant: each batch that is committed is heard of here within two seconds,
//! from pub/sub or from the store; the slow comparison of all rooms is behind both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Rev, RoomId};
use store::{ReadMark, StoreError, TailCursor};
use telemetry::Counter;

use crate::shared::{LOOK_UP_LIMIT, Shared};

/// How often the tail is read. A delivery that is not here after one more round is not on its way.
const READ_EVERY: Duration = Duration::from_millis(900);
/// Pages read in one round; what is left comes in the next one.
const PAGES: usize = 40;

/// Reads on until the service stops.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown().clone();
    let (mut cursor, mut behind, mut marks) = (None, HashMap::new(), Vec::new());
    loop {
        shared.hub.tell_marks(marks.drain(..), shared.wheel.now_ms());
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

async fn read(
    shared: &Shared,
    cursor: &mut Option<TailCursor>,
    behind: &mut HashMap<RoomId, Rev>,
    marks: &mut Vec<ReadMark>,
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
        marks.extend(tail.marks.into_iter().filter(|mark| shared.hub.lacks_mark(mark)));
        if tail.complete {
            break;
        }
    }
    Ok(())
}
