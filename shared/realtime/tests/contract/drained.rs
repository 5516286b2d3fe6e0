//! The totals of what processors settled.

use futures_util::future::join_all;
use realtime::Realtime;
use rstest::rstest;
use testkit::services::RedisServer;
use testkit::{PATIENCE, until};

use super::world::{Kind, World};

async fn drained(realtime: &Realtime) -> Vec<[u64; 3]> {
    realtime.drained(2).await.expect("an answer")
}

#[rstest]
#[tokio::test]
async fn what_all_processors_drained_is_added_up_for_each_shard_and_class(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let World { realtime, .. } = &World::new(kind).await;
    assert_eq!(drained(realtime).await, [[0; 3]; 2]);
    let settled = [(1, [200, 0, 7]), (0, [10, 0, 0])];
    join_all((0..20).map(|_| async { realtime.count_drained(&settled).await.expect("counted") })).await;
    assert_eq!(drained(realtime).await, [[200, 0, 0], [4_000, 0, 140]]);
    // One shard more than is asked for: others have another number of them.
    realtime.count_drained(&[(0, [0, 1, 0]), (2, [5, 5, 5])]).await.expect("counted");
    assert_eq!(drained(realtime).await, [[200, 1, 0], [4_000, 0, 140]]);
}

#[rstest]
#[tokio::test]
async fn what_was_drained_is_seen_through_every_connection_and_forgotten_when_nothing_is_for_long(
    #[values(Kind::Redis, Kind::Cluster)] kind: Kind,
) {
    let world = World::new(kind).await;
    let other = Realtime::open(world.settings(), &world.tasks).await.expect("opens");
    world.realtime.count_drained(&[(0, [5, 0, 0])]).await.expect("counted");
    assert_eq!(drained(&other).await, [[5, 0, 0], [0; 3]]);
    assert!((590_000..=600_000).contains(&world.ask_number("PTTL chat:drained").await));
    world.ask("PEXPIRE chat:drained 5000").await;
    other.count_drained(&[(0, [1, 0, 0])]).await.expect("counted");
    assert!(world.ask_number("PTTL chat:drained").await > 590_000, "it lives on while something is drained");
}

#[rstest]
#[tokio::test]
async fn totals_that_were_lost_begin_anew_at_zero(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    world.realtime.count_drained(&[(0, [100, 10, 1])]).await.expect("counted");
    world.ask_all("FLUSHALL").await;
    assert_eq!(drained(&world.realtime).await, [[0; 3]; 2]);
    world.realtime.count_drained(&[(1, [3, 0, 0])]).await.expect("counted");
    assert_eq!(drained(&world.realtime).await, [[0; 3], [3, 0, 0]]);
    world.each(RedisServer::kill9).await;
    assert!(world.realtime.count_drained(&[(0, [1; 3])]).await.is_err() && world.realtime.drained(2).await.is_err());
    world.each(RedisServer::start_again).await;
    until(PATIENCE, || async { world.realtime.count_drained(&[(0, [2; 3])]).await.is_ok() }).await;
    until(PATIENCE, || async { world.realtime.drained(2).await.is_ok_and(|totals| totals[0][1] >= 2) }).await;
}
