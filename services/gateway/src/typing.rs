//! Typing at its two ends: not published more often than it helps, and swept when it is over.
//!
//! Judges no right. The invariant: what is left out was published within the last second in the
//! same words.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use domain::{RoomId, UserId};

use crate::shared::Shared;

/// The same word of the same person about the same room is published once in so long.
const ONCE_MS: u64 = 1_000;
/// Words that are remembered; when there are more they are all published.
const REMEMBERED: usize = 65_536;
/// How often it is looked whose typing is over.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
struct Word {
    is_typing: bool,
    said_ms: u64,
}

/// What was published of late.
#[derive(Default)]
pub(crate) struct Published {
    words: DashMap<(RoomId, UserId), Word>,
}

impl Published {
    /// True if just that was published a moment ago.
    pub(crate) fn has(&self, room: RoomId, user: UserId, is_typing: bool, now_ms: u64) -> bool {
        let word = self.words.get(&(room, user));
        word.is_some_and(|word| word.is_typing == is_typing && now_ms < word.said_ms + ONCE_MS)
    }

    /// Notes that it was published.
    pub(crate) fn note(&self, room: RoomId, user: UserId, is_typing: bool, now_ms: u64) {
        if self.words.len() < REMEMBERED {
            self.words.insert((room, user), Word { is_typing, said_ms: now_ms });
        }
    }

    /// The next word is published whatever it is.
    pub(crate) fn forget(&self, room: RoomId, user: UserId) {
        self.words.remove(&(room, user));
    }

    fn sweep(&self, now_ms: u64) {
        if !self.words.is_empty() {
            self.words.retain(|_, word| now_ms < word.said_ms + ONCE_MS);
        }
    }
}

/// Ends what has gone on for too long, until the service stops.
pub(crate) async fn sweep(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown().clone();
    while !shutdown.is_requested() {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let now_ms = shared.wheel.now_ms();
        shared.hub.tick(now_ms);
        shared.published.sweep(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_same_word_counts_for_a_second_and_another_word_at_once() {
        let (published, room, user) = (Published::default(), RoomId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        assert!(!published.has(room, user, true, 0));
        published.note(room, user, true, 0);
        assert!(published.has(room, user, true, 999) && !published.has(room, user, true, 1_000));
        assert!(!published.has(room, user, false, 1));
        published.sweep(1_000);
        assert!(published.words.is_empty());
    }
}
