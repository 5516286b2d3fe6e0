//! Publishing: what arrives, and in which order.

use std::time::Duration;

use domain::EventKind;
use futures_util::future::join_all;
use rstest::rstest;

use super::world::{Kind, World, drain, event, names, next, nothing, receive, settle};

#[rstest]
#[tokio::test]
async fn an_event_arrives_whole_and_once_settled_never_again(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let mut world = World::new(kind).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let mut consumer = world.consume().await;
    let received = receive(&mut consumer, 1).await;
    let sent = event(EventKind::MessageSend, 1);
    assert_eq!(format!("{:?}", received[0].envelope), format!("{:?}", sent.to_unverified()));
    assert_eq!((received[0].failures, received[0].first_failed_at), (0, None));
    assert_eq!(received[0].class, sent.class());
    settle(&mut consumer, received).await;
    consumer.close().await;
    world.reopen().await;
    nothing(&mut world.consume().await).await;
}

#[rstest]
#[tokio::test]
async fn what_is_left_out_stays_out(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let mut sent = event(EventKind::Typing, 1);
    (sent.correlation_id, sent.traceparent, sent.body) = (None, None, bytes::Bytes::new());
    world.broker.publish(sent.clone()).await.expect("confirmed");
    let received = receive(&mut world.consume().await, 1).await;
    assert_eq!(format!("{:?}", received[0].envelope), format!("{:?}", sent.to_unverified()));
}

#[rstest]
#[tokio::test]
async fn events_that_come_while_somebody_waits_arrive_at_once(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let mut consumer = world.consume().await;
    for number in 0..5 {
        let ((), received) = tokio::join!(world.publish(EventKind::MessageSend, [number]), next(&mut consumer, 10));
        assert_eq!(names(&received), [number]);
        settle(&mut consumer, received).await;
    }
}

#[rstest]
#[tokio::test]
async fn a_higher_priority_overtakes(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    world.publish(EventKind::Typing, 1..=3).await;
    world.publish(EventKind::PresenceSet, 4..=5).await;
    let mut consumer = world.consume().await;
    assert_eq!(names(&receive(&mut consumer, 5).await), [4, 5, 1, 2, 3]);
}

#[rstest]
#[tokio::test]
async fn an_urgent_class_goes_first(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    world.publish(EventKind::Typing, [1]).await;
    world.publish(EventKind::MessageEdit, [2]).await;
    world.publish(EventKind::MessageSend, [3]).await;
    let mut consumer = world.consume().await;
    // On RabbitMQ each class comes through a channel of its own: let all have arrived.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(names(&next(&mut consumer, 10).await), [3, 2, 1]);
}

#[rstest]
#[tokio::test]
async fn every_class_that_waits_gets_its_share(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    world.publish(EventKind::Typing, 0..20).await;
    world.publish_many(EventKind::MessageSend, 100..1_100).await;
    let mut consumer = world.consume().await;
    let received = drain(&mut consumer, 1_020, 40).await;
    let last_low = received.iter().rposition(|name| *name < 100).expect("all arrive");
    assert!(last_low < 700, "the last of twenty low events came as number {last_low}");
    let high: Vec<u32> = received.into_iter().filter(|name| *name >= 100).collect();
    assert!(high.is_sorted(), "and the others keep their order");
}

#[rstest]
#[tokio::test]
async fn ten_thousand_in_a_row_keep_their_order_and_none_is_lost(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    const COUNT: u32 = 10_000;
    let world = World::new(kind).await;
    let mut consumer = world.consume().await;
    let receiving = drain(&mut consumer, COUNT as usize, 200);
    let ((), received) = tokio::join!(world.publish_many(EventKind::MessageSend, 0..COUNT), receiving);
    assert_eq!(received, (0..COUNT).collect::<Vec<_>>());
}

#[rstest]
#[tokio::test]
async fn a_long_backlog_keeps_its_order(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    const COUNT: u32 = 12_000;
    let mut world = World::new(kind).await;
    world.publish_many(EventKind::MessageSend, 0..COUNT).await;
    assert_eq!(world.broker.depths().await.expect("an answer").high, u64::from(COUNT));
    world.reopen().await;
    world.publish(EventKind::MessageSend, [COUNT]).await;
    let mut consumer = world.consume().await;
    let received = drain(&mut consumer, COUNT as usize + 1, 500).await;
    assert_eq!(received, (0..=COUNT).collect::<Vec<_>>());
}

#[rstest]
#[tokio::test]
async fn of_many_publishers_each_keeps_its_order(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    const EACH: u32 = 100;
    let world = World::new(kind).await;
    let one_by_one = |publisher: u32| {
        let world = &world;
        async move {
            for number in 0..EACH {
                world.publish(EventKind::MessageSend, [publisher * 1_000 + number]).await;
            }
        }
    };
    join_all((0..20).map(one_by_one)).await;
    let received = drain(&mut world.consume().await, 20 * EACH as usize, 100).await;
    for publisher in 0..20 {
        let own = received.iter().filter(|name| *name / 1_000 == publisher).map(|name| name % 1_000);
        assert!(own.eq(0..EACH), "publisher {publisher}");
    }
}

#[rstest]
#[tokio::test]
async fn depths_count_what_waits_by_class(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    world.publish(EventKind::MessageSend, 0..3).await;
    world.publish(EventKind::MessageEdit, 0..2).await;
    world.publish(EventKind::Typing, 0..1).await;
    let depths = world.broker.depths().await.expect("an answer");
    let counts = [depths.high, depths.medium, depths.low, depths.retry, depths.dead];
    assert_eq!((counts, depths.shards), ([3, 2, 1, 0, 0], vec![[3, 2, 1]]));
}

#[rstest]
#[tokio::test]
async fn a_closed_broker_refuses(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    assert!(world.broker.is_connected() && world.broker.ping().await.is_ok());
    let last = world.broker.publish(event(EventKind::MessageSend, 1));
    world.broker.close().await;
    assert_eq!(last.await, Ok(()), "what was under way is finished first");
    assert!(!world.broker.is_connected() && world.broker.ping().await.is_err());
    assert!(world.broker.publish(event(EventKind::MessageSend, 2)).await.is_err());
}
