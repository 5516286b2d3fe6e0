//! Retention: what is old goes in slices, openly, and out of nobody's way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::{Rev, RoomId, Timestamp, UserId};
use protocol::EventData;
use store::{Receipt, RoomWalk, Scope, Store, StoreError, StoreSettings};

use crate::bench::{Bench, Draft, NOW, on_both};

on_both!(
    of_a_rooms_changes_an_old_beginning_goes_and_never_the_newest,
    an_old_change_behind_a_younger_one_stays,
    who_asks_from_before_what_is_kept_is_told_so,
    a_message_is_its_own_receipt_when_its_change_has_gone,
    a_walk_reaches_every_room_also_when_it_began_anew_in_between,
    old_departures_go,
    a_departure_that_is_renewed_while_it_is_removed_stays,
    removing_two_hundred_thousand_changes_slows_nobody_and_goes_on_after_a_restart,
);

fn at(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + 1000 * seconds)
}

/// Stores one message a second in the room, from second 1 on.
async fn chat(bench: &Bench, room: RoomId, ann: UserId, seconds: &[i64]) {
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    for second in seconds {
        draft.message(ann, "x");
        draft.writes.events.last_mut().expect("just added").at = at(*second);
    }
    batch.commit(draft.finish()).await.expect("commits");
}

/// Walks once through all rooms; how many changes went.
async fn walk(store: &Store, before: Timestamp) -> u64 {
    let (mut walk, mut removed) = (RoomWalk::default(), 0);
    loop {
        let slice = store.prune_room_log(&mut walk, before).await.expect("removes");
        removed += slice.removed;
        assert!(slice.removed <= 1_000, "{slice:?}");
        if slice.at_end {
            return removed;
        }
    }
}

async fn revs(bench: &Bench, room: RoomId, after: i64) -> Result<Vec<i64>, StoreError> {
    let entries = bench.store.after_rev(room, Rev(after), 100).await?;
    Ok(entries.into_iter().map(|entry| entry.rev.0).collect())
}

async fn of_a_rooms_changes_an_old_beginning_goes_and_never_the_newest(bench: Bench) {
    let ann = bench.user().await;
    let (room, quiet) = (bench.group(&[ann]).await, bench.group(&[ann]).await);
    chat(&bench, room, ann, &[1, 2, 3, 4, 5]).await;
    assert_eq!(walk(&bench.store, NOW).await, 0, "nothing is older");
    assert_eq!(walk(&bench.store, at(3)).await, 3);
    assert_eq!(revs(&bench, room, 3).await, Ok(vec![4, 5, 6]));
    assert_eq!(walk(&bench.store, at(100)).await, 2);
    assert_eq!(revs(&bench, room, 5).await, Ok(vec![6]), "the newest stays");
    assert_eq!(revs(&bench, quiet, 0).await, Ok(vec![1]), "also when it is the only one");
    assert_eq!(walk(&bench.store, at(100)).await, 0);
    let before = bench.room(room).await.rev;
    chat(&bench, room, ann, &[6]).await;
    assert_eq!(bench.room(room).await.rev, before.next(), "numbers go on");
}

async fn an_old_change_behind_a_younger_one_stays(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    // Whoever stored the third had a clock behind the others'.
    chat(&bench, room, ann, &[1, 9, 2, 10]).await;
    assert_eq!(walk(&bench.store, at(5)).await, 2);
    assert_eq!(revs(&bench, room, 2).await, Ok(vec![3, 4, 5]));
}

async fn who_asks_from_before_what_is_kept_is_told_so(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    chat(&bench, room, ann, &[1, 2, 3]).await;
    assert_eq!(walk(&bench.store, at(3)).await, 3);
    for after in 0..3 {
        assert_eq!(revs(&bench, room, after).await, Err(StoreError::TooOld), "after {after}");
        assert_eq!(bench.store.after_rev_within(room, Rev(after), 1, 1).await, Err(StoreError::TooOld));
    }
    assert_eq!(revs(&bench, room, 3).await, Ok(vec![4]));
    assert_eq!(revs(&bench, room, 4).await, Ok(vec![]));
    assert!(!StoreError::TooOld.is_transient());
    assert_eq!(StoreError::TooOld.refusal().code, protocol::Code::TooOld);
    // What has gone happened long ago; what there never was did not happen.
    let asked = [(room, Rev(2)), (room, Rev(4)), (room, Rev(5))];
    let mut happened = bench.store.happened_at(&asked).await.expect("reads");
    happened.sort_unstable();
    assert_eq!(happened, [Timestamp(0), at(3)]);
}

async fn a_message_is_its_own_receipt_when_its_change_has_gone(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let id = bench.say(room, ann, &["kept"]).await[0];
    chat(&bench, room, ann, &[5]).await;
    assert_eq!(walk(&bench.store, at(3)).await, 2);
    let scope = Scope { rooms: vec![room], jobs: vec![id.into()], ..Scope::default() };
    let loaded = bench.store.begin(&scope).await.expect("begins").loaded;
    match loaded.receipts.get(&id.into()) {
        Some(Receipt::Stored { room: stored_in, entry }) => {
            assert_eq!((*stored_in, entry.rev), (room, Rev(2)));
            let EventData::MessageDelivered(said) = &entry.event else { panic!("{entry:?}") };
            assert_eq!(said.content.as_deref(), Some("kept"));
        }
        other => panic!("no receipt: {other:?}"),
    }
}

async fn a_walk_reaches_every_room_also_when_it_began_anew_in_between(bench: Bench) {
    let ann = bench.user().await;
    for _ in 0..150 {
        let room = bench.group(&[ann]).await;
        chat(&bench, room, ann, &[1, 2]).await;
    }
    let mut first = RoomWalk::default();
    let slice = bench.store.prune_room_log(&mut first, at(2)).await.expect("removes");
    assert!(slice.removed == 200 && !slice.at_end, "{slice:?}");
    assert_eq!(walk(&bench.store, at(2)).await, 100, "another one, from the beginning");
    let slice = bench.store.prune_room_log(&mut first, at(2)).await.expect("removes");
    assert!(slice.removed == 0 && slice.at_end, "{slice:?}");
    assert_eq!(first, RoomWalk::default());
}

async fn old_departures_go(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let rooms = [bench.group(&[ann, ben]).await, bench.group(&[ann, ben]).await, bench.group(&[ann, ben]).await];
    for (room, second) in rooms.iter().zip(1..) {
        crate::departure::change_at(&bench, *room, ben, false, at(second)).await;
    }
    assert_eq!(bench.store.forget_departures(at(1), 10).await, Ok(0));
    assert_eq!(bench.store.forget_departures(at(3), 1).await, Ok(1), "a slice, the oldest first");
    assert_eq!(bench.store.departures(ben, 10).await.expect("reads").len(), 2);
    assert_eq!(bench.store.forget_departures(at(3), 10).await, Ok(1));
    let left: Vec<RoomId> = bench.store.departures(ben, 10).await.expect("reads").into_iter().map(|it| it.0).collect();
    assert_eq!(left, [rooms[2]]);
}

async fn a_departure_that_is_renewed_while_it_is_removed_stays(bench: Bench) {
    use sqlx::{Connection as _, PgConnection};
    // The other database has one writer: nothing happens meanwhile.
    let StoreSettings::Postgres { url, .. } = &bench.settings else { return };
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    crate::departure::change_at(&bench, room, ben, false, at(1)).await;
    let mut renewing = PgConnection::connect(url).await.expect("connects");
    let mut watching = PgConnection::connect(url).await.expect("connects");
    sqlx::raw_sql("BEGIN; UPDATE room_departures SET left_at = left_at + 3600000")
        .execute(&mut renewing)
        .await
        .expect("renewed");
    let commit = async {
        crate::bench::until_somebody_waits(&mut watching).await;
        sqlx::raw_sql("COMMIT").execute(&mut renewing).await.expect("committed");
    };
    let (removed, ()) = tokio::join!(bench.store.forget_departures(at(3), 10), commit);
    assert_eq!(removed, Ok(0));
    assert_eq!(bench.store.departures(ben, 10).await.expect("reads").len(), 1);
}

/// Old changes without contents behind the room's creation, and the counter that goes with them.
async fn fill(bench: &Bench, room: RoomId, count: i64) {
    let (id, numbers) = match &bench.settings {
        StoreSettings::Postgres { .. } => {
            (format!("'{room}'::uuid"), format!("SELECT generate_series(2, {count}) AS n"))
        }
        StoreSettings::Sqlite { .. } => (
            format!("x'{}'", room.0.simple()),
            format!(
                "WITH RECURSIVE up(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM up WHERE n < {count}) SELECT n FROM up"
            ),
        ),
    };
    let sql = format!(
        "INSERT INTO room_events (room_id, rev, epoch, happened_at, payload)
             SELECT {id}, n, 1, {}, CAST('some words about it' AS BYTEA) FROM ({numbers}) AS numbers;
         UPDATE room_counters SET rev = {count} WHERE room_id = {id};",
        NOW.0
    );
    let sql = if matches!(bench.settings, StoreSettings::Sqlite { .. }) { sql.replace("BYTEA", "BLOB") } else { sql };
    bench.execute(sql.leak()).await;
}

/// The median time of a batch in the room, each of some messages.
async fn median_of_batches(bench: &Bench, room: RoomId, ann: UserId) -> Duration {
    let mut times = Vec::new();
    for _ in 0..40 {
        let started = Instant::now();
        bench.say(room, ann, &["x"; 20]).await;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

async fn removing_two_hundred_thousand_changes_slows_nobody_and_goes_on_after_a_restart(bench: Bench) {
    const OLD: i64 = 200_000;
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    fill(&bench, room, OLD).await;
    let alone = median_of_batches(&bench, room, ann).await;

    let before = at(1);
    let other = bench.second().await;
    let is_quiet = AtomicBool::new(false);
    let mut removed = 0;
    let (mut walk, mut slowest) = (RoomWalk::default(), Duration::ZERO);
    let removing = async {
        // Forgotten half-way, as by a restart, and found again where it was.
        while removed < OLD as u64 {
            if removed == OLD as u64 / 2 {
                walk = RoomWalk::default();
            }
            let started = Instant::now();
            let slice = other.prune_room_log(&mut walk, before).await.expect("removes");
            slowest = slowest.max(started.elapsed());
            removed += slice.removed;
            if slice.at_end {
                break;
            }
            if !is_quiet.load(Ordering::Relaxed) {
                tokio::time::sleep(started.elapsed() * 4).await;
            }
        }
    };
    let talking = async {
        let beside = median_of_batches(&bench, room, ann).await;
        is_quiet.store(true, Ordering::Relaxed);
        (beside, revs(&bench, room, OLD).await.expect("whole").len())
    };
    let ((), (beside, newer)) = tokio::join!(removing, talking);
    assert_eq!(removed, OLD as u64, "all that was old and nothing else");
    assert_eq!(newer, 100, "what is young is there");
    assert!(beside < alone * 5 + Duration::from_millis(50), "{beside:?} beside it, {alone:?} without");
    assert!(slowest < Duration::from_secs(2), "one slice took {slowest:?}");
    assert_eq!(revs(&bench, room, OLD - 1).await, Err(StoreError::TooOld));
}
