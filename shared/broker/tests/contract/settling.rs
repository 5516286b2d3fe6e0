//! Events that fail: retries and dead letters.

use std::time::{Duration, Instant};

use broker::{Failure, Incoming, Settlement};
use domain::EventKind;
use rstest::rstest;
use testkit::{PATIENCE, until};

use super::world::{FAILED_AT, Kind, World, dead_letters, event, fail, failure, names, nothing, receive, settle};

#[rstest]
#[tokio::test]
async fn a_failed_event_comes_again_after_a_second_intact_and_counted(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let mut consumer = world.consume().await;
    let first = receive(&mut consumer, 1).await;
    let failed = Instant::now();
    fail(&mut consumer, first, true).await;
    assert_eq!(world.broker.depths().await.expect("an answer").retry, 1);
    let second = receive(&mut consumer, 1).await;
    assert!(failed.elapsed() >= Duration::from_millis(950), "after {:?}", failed.elapsed());
    assert!(failed.elapsed() < Duration::from_secs(4), "after {:?}", failed.elapsed());
    assert_eq!((second[0].failures, second[0].first_failed_at), (1, Some(FAILED_AT)));
    let sent = event(EventKind::MessageSend, 1);
    assert_eq!(format!("{:?}", second[0].envelope), format!("{:?}", sent.to_unverified()));
    assert_eq!(second[0].class, sent.class());
    settle(&mut consumer, second).await;
    nothing(&mut consumer).await;
}

#[rstest]
#[tokio::test]
async fn a_retried_event_keeps_its_priority_and_lets_others_pass(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let mut world = World::new(kind).await;
    world.publish(EventKind::PresenceSet, [1, 2]).await;
    let mut consumer = world.consume().await;
    let mut batch = receive(&mut consumer, 2).await;
    let second = batch.pop().map(|incoming| (incoming, Settlement::Done));
    let first = batch.pop().map(|incoming| (incoming, Settlement::Failed(failure(true))));
    consumer.settle(first.into_iter().chain(second).collect()).await.expect("settled");
    consumer.close().await;
    world.publish(EventKind::Typing, [3]).await;
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.low == 2) }).await;
    world.reopen().await;
    let received = receive(&mut world.consume().await, 2).await;
    assert_eq!(names(&received), [1, 3], "the retried presence goes before typing");
    assert_eq!([received[0].failures, received[1].failures], [1, 0]);
}

/// Makes an event look as if it had failed that often.
fn aged(mut batch: Vec<Incoming>, failures: u32) -> Vec<Incoming> {
    for incoming in &mut batch {
        incoming.failures = failures;
    }
    batch
}

#[rstest]
#[tokio::test]
async fn an_event_that_climbed_the_whole_ladder_is_a_readable_dead_letter(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 1).await;
    fail(&mut consumer, aged(batch, 3), true).await;
    nothing(&mut consumer).await;
    let letters = dead_letters(&world.broker, 10).await;
    assert_eq!(letters.len(), 1);
    let sent = event(EventKind::MessageSend, 1);
    assert_eq!((&letters[0].job_id, letters[0].kind.as_str()), (&sent.job_id.to_string(), "message.send"));
    assert_eq!(letters[0].body, sent.body);
    for (header, value) in [
        ("x-cause", "store_rejected"),
        ("x-kind", "retry"),
        ("x-error", "it was no good"),
        ("x-event", "message.send"),
        ("x-sender", "alice"),
        ("x-room", "lounge"),
        ("x-body", r#"{"content":"hi"}"#),
        ("x-first-failed-at", "2023-11-14T22:13:20.123Z"),
        ("x-last-failed-at", "2023-11-14T22:13:20.123Z"),
        ("x-original-queue", "chat.events.high"),
        ("x-original-routing-key", "high"),
        ("x-attempts-made", "4"),
    ] {
        assert_eq!(letters[0].headers.get(header).map(String::as_str), Some(value), "{header}");
    }
    assert_eq!(letters[0].headers.get("x-attempt"), None);
}

#[rstest]
#[tokio::test]
async fn a_failure_that_does_not_count_takes_the_same_step_again(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 1).await;
    fail(&mut consumer, batch, true).await;
    for _ in 0..2 {
        let incoming = receive(&mut consumer, 1).await.remove(0);
        assert_eq!(incoming.failures, 1);
        let failed = Settlement::Failed(Failure { counts: false, ..failure(true) });
        consumer.settle(vec![(incoming, failed)]).await.expect("settled");
    }
    assert!(dead_letters(&world.broker, 10).await.is_empty());
}

#[rstest]
#[tokio::test]
async fn what_must_not_be_retried_is_a_dead_letter_at_once_and_its_neighbours_are_not(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let mut world = World::new(kind).await;
    world.publish(EventKind::MessageSend, 0..10).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 10).await.into_iter().enumerate();
    let settled = batch.map(|(number, incoming)| match number {
        3 | 7 => (incoming, Settlement::Failed(failure(false))),
        _ => (incoming, Settlement::Done),
    });
    consumer.settle(settled.collect()).await.expect("settled");
    consumer.close().await;
    world.reopen().await;
    let look = async || {
        let letters = dead_letters(&world.broker, 10).await;
        letters.into_iter().map(|letter| letter.job_id).collect::<Vec<_>>()
    };
    let dead = [3, 7].map(|number| event(EventKind::MessageSend, number).job_id.to_string());
    assert_eq!(look().await, dead);
    assert_eq!(look().await, dead, "looking changes nothing");
    assert_eq!(dead_letters(&world.broker, 1).await.len(), 1);
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.dead == 2) }).await;
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.retry), (0, 0));
}

#[rstest]
#[tokio::test]
async fn a_huge_event_becomes_a_dead_letter_too(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let mut huge = event(EventKind::MessageSend, 1);
    huge.body = vec![b'x'; 300_000].into();
    world.broker.publish(huge).await.expect("confirmed");
    let mut consumer = world.consume().await;
    let incoming = receive(&mut consumer, 1).await.remove(0);
    let mut failure = failure(false);
    (failure.error, failure.note.rendering) = ("e".repeat(200_000), "r".repeat(500_000));
    consumer.settle(vec![(incoming, Settlement::Failed(failure))]).await.expect("settled");
    let letters = dead_letters(&world.broker, 10).await;
    assert_eq!((letters.len(), letters[0].body.len()), (1, 300_000));
}

/// Takes 31 s, hence both engines at once.
#[tokio::test]
async fn the_whole_ladder_takes_1_5_and_25_seconds() {
    tokio::join!(climb(Kind::RabbitMq), climb(Kind::Embedded));
}

async fn climb(kind: Kind) {
    let world = World::new(kind).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let mut consumer = world.consume().await;
    let mut failing = Instant::now();
    for (failures, seconds) in [(0, 0), (1, 1), (2, 5), (3, 25)] {
        let failed = Instant::now();
        let batch = receive(&mut consumer, 1).await;
        let (most, least) = (failing.elapsed().as_secs_f64(), failed.elapsed().as_secs_f64());
        assert_eq!(batch[0].failures, failures);
        // It waits from some moment between the two on.
        assert!(most > f64::from(seconds) - 0.1, "{kind:?}: {most} s");
        assert!(least < f64::from(seconds) + 3.0, "{kind:?}: {least} s");
        failing = Instant::now();
        fail(&mut consumer, batch, true).await;
    }
    assert_eq!(dead_letters(&world.broker, 10).await.len(), 1);
}
