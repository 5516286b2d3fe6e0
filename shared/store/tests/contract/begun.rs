//! Counts of events that were begun and not finished.

use std::time::Duration;

use domain::Timestamp;
use store::begun::{Again, BELIEVED};
use uuid::Uuid;

use crate::bench::{Bench, NOW, on_both};

on_both!(
    what_is_begun_again_is_counted_by_its_head_until_it_is_finished,
    what_is_begun_alone_is_counted_apart_and_seen_with_the_next_batch,
    what_is_taken_back_was_not_counted,
    a_count_is_forgotten_after_an_hour,
    counts_that_nobody_believes_are_removed_in_slices_of_all_shards,
);

const HEAD: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn times(times: u64) -> Again {
    Again { times, alone: Vec::new() }
}

async fn what_is_begun_again_is_counted_by_its_head_until_it_is_finished(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.begin_again(3, HEAD, NOW).await, Ok(times(1)));
    assert_eq!(store.begin_again(3, HEAD, NOW).await, Ok(times(2)));
    assert_eq!(store.begin_again(3, OTHER, NOW).await, Ok(times(1)), "another head");
    assert_eq!(store.begin_again(4, HEAD, NOW).await, Ok(times(1)), "another shard");
    store.finish_again(3, HEAD).await.expect("finished");
    store.finish_again(3, HEAD).await.expect("finished twice is finished");
    assert_eq!(store.begin_again(3, HEAD, NOW).await, Ok(times(1)));
    assert_eq!(store.begin_again(4, HEAD, NOW).await, Ok(times(2)));
    store.take_back_again(4, HEAD).await.expect("taken back");
    assert_eq!(store.begin_again(4, HEAD, NOW).await, Ok(times(2)), "once less");
}

async fn what_is_begun_alone_is_counted_apart_and_seen_with_the_next_batch(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.begin_again(0, HEAD, NOW).await, Ok(times(1)));
    assert_eq!(store.begin_alone(0, HEAD, NOW).await, Ok(1));
    assert_eq!(store.begin_alone(0, HEAD, NOW).await, Ok(2));
    assert_eq!(store.begin_alone(0, OTHER, NOW).await, Ok(1));
    assert_eq!(store.begin_again(0, HEAD, NOW).await, Ok(Again { times: 2, alone: vec![HEAD, OTHER] }));
    assert_eq!(store.begin_again(1, HEAD, NOW).await, Ok(times(1)), "nobody was alone in that shard");
    store.finish_alone(0, HEAD).await.expect("finished");
    store.finish_alone(0, OTHER).await.expect("finished");
    assert_eq!(store.begin_again(0, HEAD, NOW).await, Ok(times(3)), "alone is another count");
    assert_eq!(store.begin_alone(0, HEAD, NOW).await, Ok(1));
}

async fn what_is_taken_back_was_not_counted(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.begin_alone(0, HEAD, NOW).await, Ok(1));
    assert_eq!(store.begin_alone(0, HEAD, NOW).await, Ok(2));
    assert_eq!(store.take_back_alone(0, HEAD).await, Ok(()));
    assert_eq!(store.begin_alone(0, HEAD, NOW).await, Ok(2));
    for _ in 0..3 {
        assert_eq!(store.take_back_alone(0, HEAD).await, Ok(()));
    }
    assert_eq!(store.begin_again(0, OTHER, NOW).await, Ok(times(1)), "nobody is alone any more");
    assert_eq!(store.begin_alone(0, HEAD, NOW).await, Ok(1), "no less than nothing");
}

async fn counts_that_nobody_believes_are_removed_in_slices_of_all_shards(bench: Bench) {
    let store = &bench.store;
    for shard in 0..5 {
        assert_eq!(store.begin_again(shard, HEAD, NOW).await, Ok(times(1)));
    }
    assert_eq!(store.forget_begun(NOW.plus(BELIEVED), 3).await, Ok(0), "they are believed");
    assert_eq!(store.begin_alone(9, OTHER, NOW.plus(BELIEVED)).await, Ok(1));
    let later = NOW.plus(BELIEVED + Duration::from_secs(1));
    assert_eq!(store.forget_begun(later, 3).await, Ok(3));
    assert_eq!(store.forget_begun(later, 3).await, Ok(2));
    assert_eq!(store.begin_alone(9, OTHER, later).await, Ok(2), "a younger one stays");
}

async fn a_count_is_forgotten_after_an_hour(bench: Bench) {
    let store = &bench.store;
    let later = |by: Duration| Timestamp(NOW.0 + by.as_millis() as i64);
    assert_eq!(store.begin_again(0, HEAD, NOW).await, Ok(times(1)));
    assert_eq!(store.begin_alone(0, OTHER, NOW).await, Ok(1));
    let (soon, minute) = (BELIEVED * 9 / 10, Duration::from_mins(1));
    assert_eq!(store.begin_again(0, HEAD, later(soon)).await, Ok(Again { times: 2, alone: vec![OTHER] }));
    assert_eq!(store.begin_again(0, HEAD, later(BELIEVED + minute)).await, Ok(times(3)), "its last change counts");
    assert_eq!(store.begin_again(0, HEAD, later(3 * BELIEVED)).await, Ok(times(1)));
}
