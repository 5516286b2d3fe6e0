//! A broker that is stopped, killed or hangs. Each test has a RabbitMQ of its own.

use std::time::{Duration, Instant};

use broker::{CONFIRM_LIMIT, Consumer, PublishError, Settlement};
use domain::EventKind;
use testkit::services::PrivateRabbit;
use testkit::{PATIENCE, until};

use super::world::{World, event, failure, name, names, next, receive, settle};

/// Waits until publishing works again.
async fn until_accepted(world: &World, name: u32) {
    until(PATIENCE, || async { world.broker.publish(event(EventKind::MessageSend, name)).await.is_ok() }).await;
}

/// A consumer, as soon as one can be had.
async fn consumer_again(world: &World) -> Consumer {
    let end = Instant::now() + PATIENCE;
    loop {
        match world.broker.consume(0).await {
            Ok(consumer) => return consumer,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn private_stopped_broker_refuses_at_once_and_everything_works_again_when_it_is_back() {
    let rabbit = PrivateRabbit::start().await;
    let world = World::rabbitmq_at(rabbit.url(), 1).await;
    world.publish(EventKind::MessageSend, 0..20).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 10).await;
    settle(&mut consumer, batch).await;
    let unsettled = receive(&mut consumer, 5).await;

    rabbit.stop().await;
    until(PATIENCE, || async { !world.broker.is_connected() }).await;
    let began = Instant::now();
    assert_eq!(world.broker.publish(event(EventKind::MessageSend, 99)).await, Err(PublishError::Unavailable));
    assert!(began.elapsed() < Duration::from_millis(100), "after {:?}", began.elapsed());
    assert!(world.broker.ping().await.is_err() && world.broker.depths().await.is_err());
    let lost = tokio::time::timeout(PATIENCE, consumer.next_batch(10)).await.expect("it is noticed");
    assert!(lost.is_err());
    let unsettled = unsettled.into_iter().map(|incoming| (incoming, broker::Settlement::Done)).collect();
    assert!(consumer.settle(unsettled).await.is_err(), "nothing can be settled any more");
    consumer.close().await;

    rabbit.start_again().await;
    until_accepted(&world, 20).await;
    assert!(world.broker.is_connected() && world.broker.ping().await.is_ok());
    let mut consumer = consumer_again(&world).await;
    assert_eq!(names(&receive(&mut consumer, 11).await), (10..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn private_hanging_broker_is_noticed_within_the_limit_and_again_when_it_goes_on() {
    let rabbit = PrivateRabbit::start().await;
    let world = World::rabbitmq_at(rabbit.url(), 1).await;
    let mut consumer = world.consume().await;
    rabbit.pause().await;
    for number in 0..3 {
        let began = Instant::now();
        assert_eq!(world.broker.publish(event(EventKind::MessageSend, number)).await, Err(PublishError::Unavailable));
        assert!(began.elapsed() < CONFIRM_LIMIT * 5 / 4, "after {:?}", began.elapsed());
    }
    let began = Instant::now();
    assert!(world.broker.ping().await.is_err());
    assert!(began.elapsed() < Duration::from_millis(2_500), "after {:?}", began.elapsed());
    let lost = tokio::time::timeout(Duration::from_secs(20), consumer.next_batch(10)).await.expect("it is noticed");
    assert!(lost.is_err());
    drop(consumer);
    rabbit.resume().await;
    until_accepted(&world, 3).await;
    let mut consumer = consumer_again(&world).await;
    // What hung may have got through after all; nothing newer comes before it.
    let mut received = Vec::new();
    while received.last() != Some(&3) {
        let batch = next(&mut consumer, 10).await;
        received.extend(names(&batch));
        settle(&mut consumer, batch).await;
    }
    assert!(received.is_sorted(), "{received:?}");
}

#[tokio::test]
async fn private_killed_broker_loses_nothing_that_it_confirmed() {
    let rabbit = PrivateRabbit::start().await;
    let world = World::rabbitmq_at(rabbit.url(), 1).await;
    let mut confirmed = Vec::new();
    let publishing = async {
        for number in 0.. {
            let confirms: Vec<_> =
                (0..20).map(|n| world.broker.publish(event(EventKind::MessageSend, number * 20 + n))).collect();
            for (n, confirm) in confirms.into_iter().enumerate() {
                match confirm.await {
                    Ok(()) => confirmed.push(number * 20 + n as u32),
                    Err(_) => return,
                }
            }
        }
    };
    let killing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rabbit.kill9().await;
    };
    tokio::join!(publishing, killing);
    assert!(confirmed.len() > 20, "it was under load");
    rabbit.start_again().await;
    until_accepted(&world, u32::MAX).await;
    let mut consumer = consumer_again(&world).await;
    let mut received = Vec::new();
    while received.last() != Some(&u32::MAX) {
        let batch = next(&mut consumer, 200).await;
        received.extend(batch.iter().map(name));
        settle(&mut consumer, batch).await;
    }
    let lost: Vec<_> = confirmed.iter().filter(|name| received.binary_search(name).is_err()).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(received.is_sorted());
}

#[tokio::test]
async fn private_alarm_holds_up_the_copies_of_failed_events_and_no_acks() {
    let rabbit = PrivateRabbit::start().await;
    let world = World::rabbitmq_at(rabbit.url(), 2).await;
    for number in 0..40_u32 {
        let mut sent = event(EventKind::MessageSend, number);
        sent.shard_key = uuid::Uuid::from_u128(number.into());
        world.broker.publish(sent).await.expect("confirmed");
    }
    let consume = |shard| world.broker.consume(shard);
    let (mut failing, mut other) = (consume(0).await.expect("free"), consume(1).await.expect("free"));
    let mut batch = next(&mut failing, 100).await;
    let last = batch.pop().expect("every shard has some");
    let (acked, kept) = (names(&batch), name(&last));
    let others = next(&mut other, 100).await;
    rabbit.raise_alarm().await;

    let batch = batch.into_iter().map(|incoming| (incoming, Settlement::Done));
    let batch = batch.chain([(last, Settlement::Failed(failure(true)))]).collect();
    let began = Instant::now();
    assert!(failing.settle(batch).await.is_err(), "nothing can be published");
    assert!(began.elapsed() < Duration::from_secs(4), "it waited {:?}", began.elapsed());
    failing.close().await;
    settle(&mut other, others).await;
    let others_are_acked = async || {
        let queues = rabbit.management().queues().await;
        let of_other = |queue: &&serde_json::Value| queue["name"] == "chat.events.high.01";
        queues.iter().find(of_other).is_some_and(|queue| queue["messages"] == 0)
    };
    until(PATIENCE, || async { others_are_acked().await }).await;

    // What could not be copied is received again, and nothing else of its batch.
    let mut failing = consumer_again(&world).await;
    let again = next(&mut failing, 100).await;
    assert!(names(&again).starts_with(&[kept]), "{:?}", names(&again));
    assert!(names(&again).iter().all(|name| !acked.contains(name)));
    rabbit.end_alarm().await;
    settle(&mut failing, again).await;
}
