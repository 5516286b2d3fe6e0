//! Rows that nobody needs any more are removed: expired tokens, old receipts, what gateways have read, and
//! the beginnings of rooms' logs.
//!
//! In slices of milliseconds, at rest four times as long as at work, so that no more than a fifth of one
//! connection's time goes into each of two tasks. The invariant: a stop waits for one slice at most, and
//! whatever was left lying is found the next time, here or by another processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime::backoff::jittered;
use runtime::{Clock, Shutdown};
use store::{RoomWalk, Store, StoreError};
use telemetry::Counter;

use crate::{Parts, age};

/// How often rows are looked for.
const EVERY: Duration = Duration::from_mins(1);
/// Rows removed by one statement, so that none holds the store for long.
const SLICE: usize = 1000;
/// Rest for each unit of work, and the least of it.
const REST: u32 = 4;
const REST_LEAST: Duration = Duration::from_millis(10);
/// What is older than this of the tail nobody reads any more.
const TAIL_KEPT: Duration = Duration::from_mins(10);
/// Between two walks through all rooms.
const WALK_EVERY: Duration = Duration::from_hours(1);
/// How often a processor looks whether the walk is its duty, and how long it lets the store recover.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Whether this processor does what one in the whole system should: whoever works on the first shard. Two
/// that both think so, for a moment, remove the same rows once.
#[derive(Clone, Default)]
pub(crate) struct Duty(Arc<AtomicBool>);

impl Duty {
    pub(crate) fn set(&self, is_ours: bool) {
        self.0.store(is_ours, Ordering::Relaxed);
    }

    fn is_ours(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Removes what has expired until the processor stops. Any number of processors may: what one has
/// removed the other does not find.
pub(crate) async fn run(parts: Parts, shutdown: Shutdown) {
    while pause(&shutdown, jittered(EVERY)).await {
        let rounds = [
            ("tokens", tokens(&parts, &shutdown).await),
            ("receipts", receipts(&parts, &shutdown).await),
            ("departures", departures(&parts, &shutdown).await),
            ("room_changes", room_changes(&parts.store, &parts.clock, &shutdown).await),
            ("begun", begun(&parts, &shutdown).await),
        ];
        for (what, round) in rounds {
            if let Err(error) = round {
                tracing::warn!(what, %error, "old rows were not removed");
            }
        }
    }
}

async fn tokens(parts: &Parts, shutdown: &Shutdown) -> Result<(), StoreError> {
    let now = parts.clock.now();
    in_slices(&parts.clock, shutdown, "tokens", || parts.store.purge_expired(now, SLICE)).await
}

async fn receipts(parts: &Parts, shutdown: &Shutdown) -> Result<(), StoreError> {
    let Some(kept) = parts.room_log_kept else { return Ok(()) };
    let before = age::receipts_until(parts.clock.now(), kept);
    in_slices(&parts.clock, shutdown, "receipts", || parts.store.forget_refused(before, SLICE)).await
}

async fn departures(parts: &Parts, shutdown: &Shutdown) -> Result<(), StoreError> {
    let Some(kept) = parts.room_log_kept else { return Ok(()) };
    let before = age::receipts_until(parts.clock.now(), kept);
    in_slices(&parts.clock, shutdown, "departures", || parts.store.forget_departures(before, SLICE)).await
}

/// Counts of what processors began and never finished, when nobody believes them any more.
async fn begun(parts: &Parts, shutdown: &Shutdown) -> Result<(), StoreError> {
    let now = parts.clock.now();
    in_slices(&parts.clock, shutdown, "begun", || parts.store.forget_begun(now, SLICE)).await
}

/// What all gateways have read long ago. Where the tail stood when is noted in the store, so that it matters
/// to nobody how long a processor lives.
async fn room_changes(store: &Store, clock: &Clock, shutdown: &Shutdown) -> Result<(), StoreError> {
    let Some(before) = store.tail_place(clock.now(), TAIL_KEPT).await? else { return Ok(()) };
    in_slices(clock, shutdown, "room_changes", || store.forget_tail(before, SLICE)).await
}

/// Walks through the rooms again and again and removes what is old of their logs, if it is this
/// processor's duty, until the processor stops.
pub(crate) async fn walk(parts: Parts, shutdown: Shutdown) {
    let Some(kept) = parts.room_log_kept else { return shutdown.requested().await };
    let mut walk = RoomWalk::default();
    let mut rest = jittered(LOOK_EVERY);
    while pause(&shutdown, rest).await {
        rest = if parts.duty.is_ours() { step(&parts, &mut walk, kept).await } else { LOOK_EVERY };
    }
}

/// One slice; how long to rest after it.
async fn step(parts: &Parts, walk: &mut RoomWalk, kept: Duration) -> Duration {
    let started_us = parts.clock.monotonic_us();
    let before = age::receipts_until(parts.clock.now(), kept);
    match parts.store.prune_room_log(walk, before).await {
        Ok(slice) => {
            Counter::Pruned.add_with("room_events", slice.removed);
            if slice.at_end { jittered(WALK_EVERY) } else { rest_after(&parts.clock, started_us) }
        }
        Err(error) => {
            tracing::warn!(%error, "old changes of rooms were not removed");
            LOOK_EVERY
        }
    }
}

/// Removes slice after slice until one was not full: a backlog is gone in one round.
async fn in_slices<F>(
    clock: &Clock,
    shutdown: &Shutdown,
    what: &'static str,
    remove: impl Fn() -> F,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    loop {
        let started_us = clock.monotonic_us();
        let removed = remove().await?;
        Counter::Pruned.add_with(what, removed);
        if removed < SLICE as u64 || !pause(shutdown, rest_after(clock, started_us)).await {
            return Ok(());
        }
    }
}

fn rest_after(clock: &Clock, started_us: u64) -> Duration {
    let worked = Duration::from_micros(clock.monotonic_us().saturating_sub(started_us));
    (worked * REST).max(REST_LEAST)
}

/// False when a stop was requested.
async fn pause(shutdown: &Shutdown, span: Duration) -> bool {
    tokio::select! {
        biased;
        () = shutdown.requested() => false,
        () = tokio::time::sleep(span) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use domain::room::{Role, RoomKind};
    use domain::{RoomId, Timestamp, UserId};
    use store::{NewRoom, NewUser, Scope, StoreSettings, Writes};
    use testkit::folder::Folder;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slices_are_removed_until_one_is_not_full() {
        let (left, slices) = (Cell::new(2_500_u64), Cell::new(0));
        let remove = || {
            let removed = left.get().min(SLICE as u64);
            left.set(left.get() - removed);
            slices.set(slices.get() + 1);
            ready(Ok(removed))
        };
        in_slices(&Clock::system(), &Shutdown::new(), "tokens", remove).await.expect("removes");
        assert_eq!((left.get(), slices.get()), (0, 3));
    }

    #[tokio::test]
    async fn a_stop_ends_it_between_two_slices() {
        let (shutdown, slices) = (Shutdown::new(), Cell::new(0));
        shutdown.request();
        let remove = || {
            slices.set(slices.get() + 1);
            ready(Ok(SLICE as u64))
        };
        in_slices(&Clock::system(), &shutdown, "tokens", remove).await.expect("removes");
        assert_eq!(slices.get(), 1);
    }

    #[tokio::test]
    async fn work_is_followed_by_four_times_as_much_rest() {
        let clock = Clock::system();
        let started_us = clock.monotonic_us();
        assert!(rest_after(&clock, started_us) >= REST_LEAST);
        clock.shift(50);
        assert!(rest_after(&clock, started_us) >= Duration::from_millis(200));
    }

    /// Notes in the store that the room has moved.
    async fn touch(store: &Store, room: RoomId) {
        let scope = Scope { rooms: vec![room], ..Scope::default() };
        let batch = store.begin(&scope).await.expect("begins");
        let heads = vec![(room, batch.loaded.rooms[&room])];
        batch.commit(Writes { heads, ..Writes::default() }).await.expect("commits");
    }

    async fn room(store: &Store) -> RoomId {
        let (user, at) = (UserId::generate(), Timestamp(0));
        let (email, name) = ("ann@example.org".to_owned(), "Ann".to_owned());
        let new = NewUser {
            id: user,
            email,
            password_hash: String::new(),
            first_name: name.clone(),
            last_name: name,
            phone: None,
            created_at: at,
        };
        store.create_user(&new).await.expect("a user");
        let (id, kind, members) = (RoomId::generate(), RoomKind::Group, vec![(user, Role::Owner)]);
        let new = NewRoom { id, kind, title: None, creator: user, members, at, payload: Vec::new() };
        store.create_room(&new).await.expect("a room");
        id
    }

    #[tokio::test]
    async fn the_tail_is_kept_for_ten_minutes_and_no_longer_whoever_removes_it() {
        let folder = Folder::new();
        let path = folder.path().join("chat.sqlite");
        let store = Store::open(StoreSettings::Sqlite { path, sync_full: false }).await.expect("opens");
        store.migrate().await.expect("migrates");
        let room = room(&store).await;
        let (clock, shutdown) = (Clock::system(), Shutdown::new());
        let begun = store.tail_cursor().await.expect("a place");
        // Each round is another processor's: none remembers anything. They come every half minute.
        let mut left = Vec::new();
        for _ in 0..40 {
            touch(&store, room).await;
            room_changes(&store, &clock, &shutdown).await.expect("removes");
            let mut cursor = begun;
            left.push(store.read_tail(&mut cursor).await.expect("reads").rooms.len());
            clock.shift(31_000);
        }
        assert!(left[..20].iter().copied().eq(1..=20), "less than ten minutes behind one finds all: {left:?}");
        assert!(left[20..].iter().all(|left| (19..=20).contains(left)), "no more is kept: {left:?}");
        store.close().await;
    }
}
