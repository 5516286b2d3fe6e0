//! Several events as one message of RabbitMQ: when that is so, and that nobody notices.

use std::ops::Range;
use std::time::Duration;

use broker::{Consumer, Incoming, Settlement, UNSETTLED_LEAST};
use bytes::Bytes;
use domain::EventKind;
use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use protocol::bundle;
use serde_json::Value;
use testkit::{PATIENCE, until};

use super::rabbitmq::stranger;
use super::world::{Kind, World, dead_letters, event, fail, failure, names, next, nothing, receive, settle};

const QUEUE: &str = "chat.events.high";

/// Publishes so many events before the first of them is confirmed.
async fn burst(world: &World, kind: EventKind, names: Range<u32>) {
    let confirms: Vec<_> = names.map(|name| world.broker.publish(event(kind, name))).collect();
    for confirm in join_all(confirms).await {
        confirm.expect("confirmed");
    }
}

/// A queue's messages, as operators see them.
async fn messages(world: &World, queue: &str) -> Vec<Value> {
    world.management().await.look(queue, 1_000).await
}

/// Of messages, how many events each holds.
fn counts(messages: &[Value]) -> Vec<u64> {
    let count = |message: &Value| match message["properties"]["type"].as_str() {
        Some("bundle") => message["properties"]["headers"]["x-count"].as_u64().expect("a count"),
        _ => 1,
    };
    messages.iter().map(count).collect()
}

/// Publishes messages of type `bundle`, as anybody could.
async fn publish_raw(world: &World, bodies: impl IntoIterator<Item = Bytes>) {
    let (_connection, channel) = stranger(world.url()).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("with confirms");
    for body in bodies {
        let properties = BasicProperties::default().with_type("bundle".into()).with_priority(8).with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let publish = channel.basic_publish("chat.events".into(), "high".into(), options, &body, properties);
        publish.await.expect("sent").await.expect("taken");
    }
}

async fn publish_bundle(world: &World, names: Range<u32>) {
    publish_raw(world, [bundle::pack(names.map(|name| event(EventKind::MessageSend, name)))]).await;
}

#[tokio::test]
async fn on_an_idle_system_each_event_is_a_message_and_under_load_several_are_one() {
    let world = World::new(Kind::RabbitMq).await;
    for number in 0..5 {
        world.publish(EventKind::MessageSend, [number]).await;
    }
    assert_eq!(counts(&messages(&world, QUEUE).await), [1; 5]);
    burst(&world, EventKind::MessageSend, 5..305).await;
    let messages = messages(&world, QUEUE).await;
    let held = counts(&messages);
    assert_eq!(held.iter().sum::<u64>(), 305);
    assert!(held.len() < 100, "{held:?}");
    assert!(held.iter().all(|count| *count <= bundle::MOST as u64), "{held:?}");
    let bundled = messages.iter().find(|message| message["properties"]["type"] == "bundle").expect("a bundle");
    let properties = &bundled["properties"];
    assert_eq!((&properties["priority"], &properties["delivery_mode"]), (&8.into(), &2.into()));
    assert_eq!((&properties["headers"]["x-attempt"], &properties["message_id"]), (&0.into(), &Value::Null));

    let mut consumer = world.consume().await;
    let received = receive(&mut consumer, 305).await;
    assert_eq!(names(&received), (0..305).collect::<Vec<_>>());
    for (incoming, name) in received.iter().zip(0..) {
        let sent = event(EventKind::MessageSend, name);
        assert_eq!(format!("{:?}", incoming.envelope), format!("{:?}", sent.to_unverified()));
    }
    settle(&mut consumer, received).await;
    consumer.close().await;
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.high == 0) }).await;
    nothing(&mut world.consume().await).await;
}

#[tokio::test]
async fn a_bundle_has_events_of_one_queue_and_one_priority() {
    let world = World::new(Kind::RabbitMq).await;
    let kinds = [EventKind::Typing, EventKind::PresenceSet, EventKind::MessageSend, EventKind::MessageEdit];
    let publish = |name: u32| world.broker.publish(event(kinds[name as usize % 4], name));
    for confirm in join_all((0..400).map(publish)).await {
        confirm.expect("confirmed");
    }
    for (queue, count) in [(QUEUE, 100), ("chat.events.medium", 100), ("chat.events.low", 200)] {
        let held = counts(&messages(&world, queue).await);
        assert_eq!(held.iter().sum::<u64>(), count, "{queue}");
        assert!((held.len() as u64) < count / 2, "{held:?}");
    }
    let mut consumer = world.consume().await;
    // On RabbitMQ each class comes through a channel of its own.
    let received = receive(&mut consumer, 400).await;
    let of = |rest: u32| names(&received).into_iter().filter(move |name| name % 4 == rest);
    for rest in 0..4 {
        assert!(of(rest).eq((0..400).filter(|name| name % 4 == rest)), "{:?}", of(rest).collect::<Vec<_>>());
    }
    let priority = |rest| names(&received).iter().rposition(|name| name % 4 == rest).expect("some");
    let first_typing = names(&received).iter().position(|name| name % 4 == 0).expect("some");
    assert!(priority(1) < first_typing, "a higher priority overtakes");
}

#[tokio::test]
async fn of_a_bundle_each_event_is_retried_or_dead_by_itself() {
    let mut world = World::new(Kind::RabbitMq).await;
    publish_bundle(&world, 0..6).await;
    let mut consumer = world.consume().await;
    let received = receive(&mut consumer, 6).await.into_iter();
    let settled = received.zip(0..).map(|(incoming, number)| match number {
        1 => (incoming, Settlement::Failed(failure(true))),
        3 => (incoming, Settlement::Failed(failure(false))),
        _ => (incoming, Settlement::Done),
    });
    consumer.settle(settled.collect()).await.expect("settled");
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.retry, depths.dead), (0, 1, 1));
    let letters = dead_letters(&world.broker, 10).await;
    let dead = event(EventKind::MessageSend, 3);
    assert_eq!((letters.len(), &letters[0].job_id), (1, &dead.job_id.to_string()));
    assert_eq!((letters[0].kind.as_str(), &letters[0].body), ("message.send", &dead.body));
    assert_eq!(letters[0].header("x-count"), None);
    let again = receive(&mut consumer, 1).await;
    assert_eq!((names(&again), again[0].failures), (vec![1], 1));
    settle(&mut consumer, again).await;
    consumer.close().await;
    world.reopen().await;
    nothing(&mut world.consume().await).await;
}

#[tokio::test]
async fn a_bundle_that_is_settled_in_part_comes_again_whole_and_nothing_was_made_of_it() {
    let world = World::new(Kind::RabbitMq).await;
    publish_bundle(&world, 0..6).await;
    let mut consumer = world.consume().await;
    let mut first = next(&mut consumer, 4).await;
    assert_eq!(names(&first), [0, 1, 2, 3, 4, 5], "it stays together");
    first.truncate(4);
    let place = first[0].place();
    let outcome = |(incoming, number): (Incoming, u32)| match number {
        1 => (incoming, Settlement::Failed(failure(true))),
        2 => (incoming, Settlement::Failed(failure(false))),
        _ => (incoming, Settlement::Done),
    };
    consumer.settle(first.into_iter().zip(0..).map(outcome).collect()).await.expect("settled");
    assert!(consumer.holds(place));
    consumer.close().await;
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.retry, depths.dead), (0, 0));

    let mut consumer = world.consume().await;
    let again = receive(&mut consumer, 6).await;
    assert_eq!(names(&again), (0..6).collect::<Vec<_>>());
    assert!(again.iter().all(|incoming| incoming.redelivered && incoming.failures == 0));
    let place = again[0].place();
    consumer.settle(again.into_iter().zip(0..).map(outcome).collect()).await.expect("settled");
    assert!(!consumer.holds(place));
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.retry, depths.dead), (0, 1, 1));
}

#[tokio::test]
async fn a_connection_that_is_lost_gives_back_every_event_of_its_bundles_in_order() {
    const COUNT: u32 = 1_000;
    let world = World::new(Kind::RabbitMq).await;
    let receiving = async {
        let (mut settled, mut again) = (0, 0);
        while settled < COUNT {
            // The connection that was lost may not be known to be.
            let Ok(mut consumer) = world.broker.consume(0).await else { continue };
            let Ok(batch) = consumer.next_batch(150).await else { continue };
            let first = names(&batch)[0];
            assert!(first <= settled, "{first} came, and {settled} is next");
            again += settled - first;
            assert!(batch.len() == 1 || names(&batch).windows(2).all(|pair| pair[0] + 1 == pair[1]));
            let done: Vec<Incoming> = batch.into_iter().take(100).collect();
            settled = settled.max(first + done.len() as u32);
            settle(&mut consumer, done).await;
            // What it has settled may be on its way still.
            tokio::time::sleep(Duration::from_millis(50)).await;
            consumer.abandon();
        }
        again
    };
    let ((), again) = tokio::join!(burst(&world, EventKind::MessageSend, 0..COUNT), receiving);
    assert!(again > 0, "no bundle was settled in part");
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.high < 32) }).await;
}

#[tokio::test]
async fn what_calls_itself_a_bundle_and_is_none_is_one_dead_letter() {
    let world = World::new(Kind::RabbitMq).await;
    publish_raw(&world, [Bytes::from_static(b"no bundle")]).await;
    let mut consumer = world.consume().await;
    let received = receive(&mut consumer, 1).await;
    assert_eq!((received[0].envelope.kind.as_str(), &received[0].envelope.body[..]), ("bundle", &b"no bundle"[..]));
    fail(&mut consumer, received, false).await;
    nothing(&mut consumer).await;
    let letters = dead_letters(&world.broker, 10).await;
    assert_eq!((letters.len(), &letters[0].body[..]), (1, &b"no bundle"[..]));
}

#[tokio::test]
async fn depths_count_the_events_of_bundles() {
    let world = World::new(Kind::RabbitMq).await;
    burst(&world, EventKind::MessageSend, 0..500).await;
    for number in 500..503 {
        world.publish(EventKind::MessageSend, [number]).await;
    }
    let held = counts(&messages(&world, QUEUE).await);
    assert!(held.len() < 250, "{held:?}");
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.shards), (503, vec![[503, 0, 0]]));
    let mut consumer = world.consume().await;
    let most = receive(&mut consumer, 500).await;
    settle(&mut consumer, most).await;
    consumer.close().await;
    // Whatever came last is what is left.
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.high == 3) }).await;
}

#[tokio::test]
async fn closing_finishes_what_waits_for_its_bundle() {
    let world = World::new(Kind::RabbitMq).await;
    let confirms: Vec<_> = (0..100).map(|name| world.broker.publish(event(EventKind::MessageSend, name))).collect();
    world.broker.close().await;
    assert!(join_all(confirms).await.iter().all(Result::is_ok));
    let held = counts(&messages(&world, QUEUE).await);
    assert_eq!(held.iter().sum::<u64>(), 100);
}

#[tokio::test]
async fn a_batch_holds_whole_bundles_and_no_more_than_was_asked_for_but_for_the_first() {
    let world = World::new(Kind::RabbitMq).await;
    for first in [0, 20, 40] {
        publish_bundle(&world, first..first + 20).await;
    }
    world.publish(EventKind::MessageSend, 60..70).await;
    let mut consumer = world.consume().await;
    // Let all have arrived.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut from = 0;
    for (most, count) in [(1, 20), (39, 20), (25, 25), (5, 5)] {
        let batch = next(&mut consumer, most).await;
        assert_eq!(names(&batch), (from..from + count).collect::<Vec<_>>());
        from += count;
        settle(&mut consumer, batch).await;
    }
    consumer.close().await;
    nothing(&mut world.consume().await).await;
}

/// Settles what comes up to this event, or a little beyond; what came.
async fn drain_up_to(consumer: &mut Consumer, last: u32) -> Range<u32> {
    let mut came: Option<Range<u32>> = None;
    while came.as_ref().is_none_or(|came| came.end <= last) {
        // As long as a processor works on a batch; whatever may come meanwhile comes.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let batch = next(consumer, 200).await;
        let names = names(&batch);
        let begin = came.as_ref().map_or(names[0], |came| came.end);
        assert!((begin..).zip(&names).all(|(expected, name)| expected == *name), "{begin}, but {names:?}");
        came = Some(came.map_or(begin, |came| came.start)..begin + names.len() as u32);
        settle(consumer, batch).await;
    }
    came.expect("something came")
}

#[tokio::test]
async fn the_fuller_the_messages_the_fewer_are_prefetched() {
    const BUNDLES: u32 = 400;
    const LEAST: u64 = UNSETTLED_LEAST as u64;
    let world = World::new(Kind::RabbitMq).await;
    let management = world.management().await;
    let prefetched = async |expected: Range<u64>| {
        let unsettled = async || management.queue_depths().await[QUEUE].messages_unacknowledged;
        until(PATIENCE, || async { expected.contains(&unsettled().await) }).await;
    };
    let pack = |first: u32| bundle::pack((first..first + 32).map(|name| event(EventKind::MessageSend, name)));
    publish_raw(&world, (0..BUNDLES).map(|number| pack(number * 32))).await;
    let mut consumer = world.consume().await;
    prefetched(LEAST..LEAST + 1).await;
    let first = drain_up_to(&mut consumer, 300 * 32).await;
    assert_eq!(first.start, 0);
    prefetched(LEAST / 2..LEAST + 1).await;
    let small = |first: u32| bundle::pack((first..first + 2).map(|name| event(EventKind::MessageSend, name)));
    publish_raw(&world, (0..500).map(|number| small(BUNDLES * 32 + number * 2))).await;
    let second = drain_up_to(&mut consumer, BUNDLES * 32 + 400).await;
    assert_eq!(second.start, first.end);
    prefetched(33..129).await;
    let third = drain_up_to(&mut consumer, BUNDLES * 32 + 999).await;
    assert_eq!(third, second.end..BUNDLES * 32 + 1_000);

    // When it has become calm few are prefetched again, so that bundles that come suddenly are few here.
    for name in third.end..third.end + 64 {
        world.publish(EventKind::MessageSend, [name]).await;
        drain_up_to(&mut consumer, name).await;
    }
    publish_raw(&world, (0..BUNDLES).map(|number| pack((BUNDLES + number) * 32 + 2_000))).await;
    prefetched(LEAST..LEAST + 1).await;
}
