//! The tail: no batch is missed by whoever reads on.

use std::collections::HashMap;
use std::time::Duration;

use domain::{Rev, RoomId, Seq};
use store::{ReadMark, Store, StoreSettings, TailCursor};

use crate::bench::{Bench, Draft, NOW, on_both};

on_both!(
    rooms_that_moved_are_told_with_their_revs,
    many_batches_come_in_pages,
    what_is_being_committed_while_others_read_is_found,
    what_was_read_long_ago_is_removed,
    where_the_tail_stood_is_known_to_whoever_comes_later,
    read_marks_that_moved_are_told_where_word_of_them_can_be_lost,
);

/// The highest rev of each room that was told.
async fn read(store: &Store, cursor: &mut TailCursor) -> HashMap<RoomId, Rev> {
    let mut told = HashMap::new();
    loop {
        let tail = store.read_tail(cursor).await.expect("reads");
        for (room, rev) in tail.rooms {
            let highest = told.entry(room).or_insert(rev);
            *highest = rev.max(*highest);
        }
        if tail.complete {
            return told;
        }
    }
}

async fn rooms_that_moved_are_told_with_their_revs(bench: Bench) {
    let ann = bench.user().await;
    let (one, two) = (bench.group(&[ann]).await, bench.group(&[ann]).await);
    let mut cursor = bench.store.tail_cursor().await.expect("reads");
    bench.say(one, ann, &["a", "b"]).await;
    bench.say(two, ann, &["c"]).await;
    assert_eq!(read(&bench.store, &mut cursor).await, HashMap::from([(one, Rev(3)), (two, Rev(2))]));
    bench.say(one, ann, &["d"]).await;
    assert_eq!(read(&bench.store, &mut cursor).await.get(&one), Some(&Rev(4)));
    let dropped = bench.begin(one, &[ann]).await;
    drop(dropped);
    assert!(read(&bench.store, &mut cursor).await.get(&one).is_none_or(|rev| *rev == Rev(4)));
}

async fn many_batches_come_in_pages(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let mut cursor = bench.store.tail_cursor().await.expect("reads");
    for _ in 0..520 {
        bench.say(room, ann, &["x"]).await;
    }
    let first = bench.store.read_tail(&mut cursor).await.expect("reads");
    assert_eq!((first.rooms.len(), first.complete), (500, false));
    assert_eq!(read(&bench.store, &mut cursor).await, HashMap::from([(room, Rev(521))]));
}

async fn what_is_being_committed_while_others_read_is_found(bench: Bench) {
    let ann = bench.user().await;
    let people = [ann];
    let rooms: Vec<RoomId> = futures_util::future::join_all((0..4).map(|_| bench.group(&people))).await;
    let mut cursor = bench.store.tail_cursor().await.expect("reads");
    let mut told: HashMap<RoomId, Rev> = HashMap::new();
    let speaking = async {
        let talks = rooms.iter().map(async |room| {
            for number in 0..20 {
                let batch = bench.begin(*room, &[ann]).await;
                let mut draft = Draft::of(&batch, *room);
                draft.message(ann, "x");
                if number % 4 == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                }
                batch.commit(draft.finish()).await.expect("commits");
            }
        });
        futures_util::future::join_all(talks).await;
    };
    let mut speaking = std::pin::pin!(speaking);
    let mut done = false;
    while !done {
        tokio::select! {
            () = &mut speaking => done = true,
            () = tokio::time::sleep(std::time::Duration::from_millis(2)) => {}
        }
        told.extend(read(&bench.store, &mut cursor).await);
    }
    assert!(rooms.iter().all(|room| told.get(room) == Some(&Rev(21))), "{told:?}");
}

async fn what_was_read_long_ago_is_removed(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let mut cursor = bench.store.tail_cursor().await.expect("reads");
    let begun = cursor;
    bench.say(room, ann, &["a"]).await;
    bench.say(room, ann, &["b"]).await;
    assert_eq!(bench.store.forget_tail(begun, 100).await, Ok(0));
    let old = cursor;
    testkit::until(testkit::PATIENCE, || {
        // Elsewhere a transaction may hold the horizon back for a moment.
        let (store, mut reading) = (bench.store.clone(), cursor);
        async move {
            read(&store, &mut reading).await;
            store.forget_tail(reading, 100).await.expect("removes");
            let mut again = old;
            read(&store, &mut again).await.is_empty()
        }
    })
    .await;
    bench.say(room, ann, &["c"]).await;
    assert_eq!(read(&bench.store, &mut cursor).await, HashMap::from([(room, Rev(4))]));
}

async fn where_the_tail_stood_is_known_to_whoever_comes_later(bench: Bench) {
    const AGO: Duration = Duration::from_mins(10);
    let at = |seconds: u64| NOW.plus(Duration::from_secs(seconds));
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    // What is noted too early, by a clock that is ahead by hours, is no place of the past.
    assert_eq!(bench.store.tail_place(at(30_000), AGO).await, Ok(None));
    assert_eq!(bench.store.tail_place(at(0), AGO).await, Ok(None));
    let store = bench.second().await;
    let mut places = Vec::new();
    for round in 0..30 {
        bench.say(room, ann, &["a"]).await;
        places.push(store.tail_place(at(60 + 60 * round), AGO).await.expect("an answer"));
        // Many processors ask; one place a minute is enough.
        store.tail_place(at(61 + 60 * round), AGO).await.expect("an answer");
    }
    assert!(places[..9].iter().all(Option::is_none), "{places:?}");
    assert!(places[9..].iter().all(Option::is_some), "{places:?}");
}

async fn read_marks_that_moved_are_told_where_word_of_them_can_be_lost(bench: Bench) {
    let [ann, ben] = bench.users().await;
    let room = bench.group(&[ann, ben]).await;
    bench.say(room, ann, &["1", "2"]).await;
    let mut cursor = bench.store.tail_cursor().await.expect("reads");
    for seq in [1, 2, 2] {
        bench.store.set_read(room, ben, Seq(seq), NOW).await.expect("answers");
    }
    let tail = bench.store.read_tail(&mut cursor).await.expect("reads");
    let told: Vec<ReadMark> = [1, 2].map(|seq| ReadMark { room, user: ben, seq: Seq(seq), at: NOW }).into();
    let in_one_process = matches!(bench.settings, StoreSettings::Sqlite { .. });
    assert_eq!(tail.marks, if in_one_process { vec![] } else { told });
}
