//! Shard leases: spread, handed over, lost with their holder.

use std::time::{Duration, Instant};

use store::{LeaseView, ShardLeases};
use testkit::{PATIENCE, until};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::bench::Bench;

async fn holder(bench: &Bench, shards: u16) -> ShardLeases {
    bench.store.shard_leases(Uuid::now_v7(), shards).await.expect("a session")
}

async fn tick(leases: &mut ShardLeases) -> LeaseView {
    let mut view = leases.tick().await.expect("the session lives");
    view.held.sort_unstable();
    view
}

#[tokio::test]
async fn two_holders_never_have_the_same_shard() {
    let bench = Bench::postgres().await;
    let (mut one, mut two) = (holder(&bench, 4).await, holder(&bench, 4).await);
    assert_eq!(tick(&mut one).await, LeaseView { live: 2, mine: vec![], free: vec![0, 1, 2, 3], held: vec![0, 0] });
    for shard in [1, 3] {
        assert_eq!(one.try_take(shard).await, Ok(true));
    }
    assert_eq!(two.try_take(3).await, Ok(false));
    assert_eq!(two.try_take(0).await, Ok(true));
    assert_eq!(tick(&mut one).await, LeaseView { live: 2, mine: vec![1, 3], free: vec![2], held: vec![1, 2] });
    assert_eq!(tick(&mut two).await, LeaseView { live: 2, mine: vec![0], free: vec![2], held: vec![1, 2] });
}

#[tokio::test]
async fn what_is_given_up_can_be_taken_at_once() {
    let bench = Bench::postgres().await;
    let (mut one, mut two) = (holder(&bench, 2).await, holder(&bench, 2).await);
    // Taking twice is taking once: one giving up frees it.
    assert_eq!((one.try_take(0).await, one.try_take(0).await), (Ok(true), Ok(true)));
    one.give_up(1).await.expect("no effect on what is not one's own");
    one.give_up(0).await.expect("gives up");
    assert_eq!(two.try_take(0).await, Ok(true));
    assert_eq!(one.try_take(0).await, Ok(false));
}

#[tokio::test]
async fn the_leases_of_a_holder_that_dies_are_free_at_once() {
    let bench = Bench::postgres().await;
    let (mut one, two) = (holder(&bench, 2).await, Mutex::new(holder(&bench, 2).await));
    assert_eq!(one.try_take(0).await, Ok(true));
    let died = Instant::now();
    drop(one);
    until(PATIENCE, || async { two.lock().await.try_take(0).await.expect("lives") }).await;
    assert!(died.elapsed() < Duration::from_secs(1), "{:?}", died.elapsed());
    assert_eq!(tick(&mut *two.lock().await).await.live, 1);
}

#[tokio::test]
async fn a_holder_that_stands_still_loses_its_leases_and_is_told() {
    let bench = Bench::postgres().await;
    let (mut still, two) = (holder(&bench, 2).await, Mutex::new(holder(&bench, 2).await));
    assert_eq!(still.try_take(0).await, Ok(true));
    let last_sign = Instant::now();
    until(PATIENCE, || async { two.lock().await.try_take(0).await.expect("lives") }).await;
    let took = last_sign.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert!(still.tick().await.expect_err("its session has ended").is_transient());
    assert!(still.try_take(1).await.is_err(), "it is of no more use");
}

#[tokio::test]
async fn holders_of_different_databases_do_not_meet() {
    let (bench, other) = (Bench::postgres().await, Bench::postgres().await);
    let (mut here, mut there) = (holder(&bench, 1).await, holder(&other, 1).await);
    assert_eq!(here.try_take(0).await, Ok(true));
    assert_eq!(there.try_take(0).await, Ok(true));
    assert_eq!(tick(&mut here).await.live, 1);
}

#[tokio::test]
async fn an_embedded_holder_has_everything_from_the_start() {
    let bench = Bench::sqlite().await;
    let mut alone = holder(&bench, 2).await;
    assert_eq!(tick(&mut alone).await, LeaseView { live: 1, mine: vec![0, 1], free: vec![], held: vec![2] });
    alone.give_up(1).await.expect("gives up");
    assert_eq!(tick(&mut alone).await, LeaseView { live: 1, mine: vec![0], free: vec![1], held: vec![1] });
    assert_eq!(alone.try_take(1).await, Ok(true));
}
