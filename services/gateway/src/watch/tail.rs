//! What was committed lately, read from the store: so that what a processor committed and never told
//! is found without traffic and however many rooms are here.
//!
//! Knows no session. The invariant: each batch that is committed is heard of here within two seconds,
//! from pub/sub or from the store; the slow comparison of all rooms is behind both.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::{Rev, RoomId};
use store::{StoreError, TailCursor};
use telemetry::Counter;

use crate::shared::{LOOK_UP_LIMIT, Shared};

/// How often the tail is read. A delivery that is not here after one more round is not on its way.
const READ_EVERY: Duration = Duration::from_millis(900);
/// Pages read in one round; what is left comes in the next one.
const PAGES: usize = 40;
/// After so many rounds it is tidied up, and a cursor of that age is remembered.
const TIDY_ROUNDS: u64 = 60;
/// So many such cursors ago nobody reads any more: ten minutes.
const KEPT: usize = 10;

/// Reads on until the service stops.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown().clone();
    let (mut cursor, mut behind, mut old) = (None, HashMap::new(), VecDeque::new());
    for round in 1_u64.. {
        behind.retain(|room: &RoomId, rev: &mut Rev| shared.hub.is_behind(*room, *rev));
        for (room, rev) in behind.drain() {
            Counter::TailFound.inc();
            shared.hub.learn(room, rev);
        }
        let reading = async {
            read(&shared, &mut cursor, &mut behind).await?;
            if round % TIDY_ROUNDS == 0 {
                tidy(&shared, cursor, &mut old).await?;
            }
            Ok::<(), StoreError>(())
        };
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
) -> Result<(), StoreError> {
    let Some(cursor) = cursor else {
        *cursor = Some(shared.store.tail_cursor().await?);
        return Ok(());
    };
    for _ in 0..PAGES {
        let (rooms, complete) = shared.store.read_tail(cursor).await?;
        for (room, rev) in rooms {
            if shared.hub.note_stored(room, rev) {
                let highest = behind.entry(room).or_insert(rev);
                *highest = rev.max(*highest);
            }
        }
        if complete {
            break;
        }
    }
    Ok(())
}

/// Removes what all have read long ago.
async fn tidy(shared: &Shared, cursor: Option<TailCursor>, old: &mut VecDeque<TailCursor>) -> Result<(), StoreError> {
    old.extend(cursor);
    while old.len() > KEPT
        && let Some(before) = old.front()
    {
        while shared.store.forget_tail(*before).await? > 0 {}
        old.pop_front();
    }
    Ok(())
}
