//! What only RabbitMQ can go through, seen also with an operator's eyes.

use std::collections::BTreeSet;
use std::time::Instant;

use broker::{Broker, BrokerError, BrokerSettings, PublishError, UNSETTLED_LEAST};
use domain::shard::shard_of;
use domain::{Class, EventKind};
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use runtime::{Shutdown, Tasks};
use serde_json::json;
use testkit::services::fresh_rabbitmq;
use testkit::{PATIENCE, until};
use uuid::Uuid;

use super::raw::Raw;
use super::world::{FAILED_AT, Kind, World, dead_letters, drain, event, fail, names, receive, settle};

/// A client that is not ours.
pub(crate) async fn stranger(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

#[tokio::test]
async fn the_topology_is_what_operators_were_told() {
    let world = World::rabbitmq_at(fresh_rabbitmq().await, 2).await;
    let queues = world.management().await.queues().await;
    let of = |name: &str| queues.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    for class in Class::ALL {
        for shard in ["00", "01"] {
            let queue = of(&format!("chat.events.{class}.{shard}"));
            let arguments = json!({"x-max-priority": 10, "x-single-active-consumer": true});
            assert_eq!((&queue["arguments"], &queue["durable"]), (&arguments, &json!(true)));
        }
    }
    for (step, delay_ms) in [("1s", 1_000), ("5s", 5_000), ("25s", 25_000)] {
        let arguments = json!({"x-message-ttl": delay_ms, "x-dead-letter-exchange": "chat.events"});
        assert_eq!(of(&format!("chat.events.retry.{step}"))["arguments"], arguments);
    }
    assert_eq!(of("chat.events.dlq")["arguments"], json!({}), "no length limit");
    assert_eq!(queues.len(), 10);
}

#[tokio::test]
async fn an_event_shows_its_properties() {
    let world = World::new(Kind::RabbitMq).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let messages = world.management().await.look("chat.events.high", 1).await;
    let mut properties = messages[0]["properties"].clone();
    let headers = properties["headers"].take();
    let sent = event(EventKind::MessageSend, 1);
    assert_eq!(
        properties,
        json!({
            "message_id": sent.job_id.to_string(), "correlation_id": "1", "type": "message.send", "priority": 8,
            "timestamp": 1_700_000_000, "content_type": "application/x-protobuf", "app_id": "contract",
            "delivery_mode": 2, "headers": null,
        })
    );
    assert_eq!(
        headers,
        json!({"x-signature": sent.signature, "x-key-id": "key", "x-attempt": 0, "traceparent": sent.traceparent})
    );
}

#[tokio::test]
async fn a_room_has_its_shard() {
    let world = World::rabbitmq_at(fresh_rabbitmq().await, 4).await;
    assert_eq!(world.broker.shards(), 4);
    for room in 0..8_u128 {
        let mut sent = event(EventKind::MessageSend, room as u32);
        sent.shard_key = Uuid::from_u128(room);
        let shard = shard_of(sent.shard_key, 4);
        world.broker.publish(sent).await.expect("confirmed");
        let mut consumer = world.broker.consume(shard).await.expect("free");
        let batch = receive(&mut consumer, 1).await;
        assert_eq!(names(&batch), [room as u32]);
        settle(&mut consumer, batch).await;
        consumer.close().await;
    }
}

#[tokio::test]
async fn depths_count_what_waits_in_each_shard() {
    let world = World::rabbitmq_at(fresh_rabbitmq().await, 2).await;
    let mut expected = vec![[0; 3]; 2];
    for (number, kind) in [(1, EventKind::MessageSend), (2, EventKind::MessageSend), (3, EventKind::Typing)] {
        let mut sent = event(kind, number);
        sent.shard_key = (0..100).map(Uuid::from_u128).find(|key| shard_of(*key, 2) == number as u16 % 2).expect("one");
        world.broker.publish(sent).await.expect("confirmed");
        expected[number as usize % 2][kind.class().index()] += 1;
    }
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.low, depths.shards), (2, 1, expected));
}

#[tokio::test]
async fn an_event_that_no_queue_takes_is_unavailable_and_the_queue_is_made_again() {
    let world = World::new(Kind::RabbitMq).await;
    let (_connection, channel) = stranger(world.url()).await;
    channel.queue_delete("chat.events.high".into(), QueueDeleteOptions::default()).await.expect("deleted");
    assert_eq!(world.broker.publish(event(EventKind::MessageSend, 1)).await, Err(PublishError::Unavailable));
    until(PATIENCE, || async { world.broker.publish(event(EventKind::MessageSend, 2)).await.is_ok() }).await;
    assert_eq!(names(&receive(&mut world.consume().await, 1).await), [2]);
}

#[tokio::test]
async fn a_dead_letter_that_is_moved_back_starts_its_attempts_anew_and_says_when_it_first_failed() {
    let world = World::new(Kind::RabbitMq).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 1).await;
    fail(&mut consumer, batch, true).await;
    let batch = receive(&mut consumer, 1).await;
    assert_eq!(batch[0].failures, 1);
    fail(&mut consumer, batch, false).await;
    // As an operator does it: straight into the queue, which is the default exchange.
    world.management().await.shovel("chat.events.dlq", "", "chat.events.high").await;
    let again = receive(&mut consumer, 1).await;
    assert_eq!((again[0].failures, again[0].first_failed_at), (0, Some(FAILED_AT)));
    let sent = event(EventKind::MessageSend, 1);
    assert_eq!(format!("{:?}", again[0].envelope), format!("{:?}", sent.to_unverified()));
    // And the ladder leads back into the right queue.
    fail(&mut consumer, again, true).await;
    let last = receive(&mut consumer, 1).await;
    assert_eq!(last[0].failures, 1);
    settle(&mut consumer, last).await;
}

#[tokio::test]
async fn a_strange_message_arrives_empty_and_can_be_settled_in_any_way() {
    let world = World::new(Kind::RabbitMq).await;
    let (_connection, channel) = stranger(world.url()).await;
    let mut headers = FieldTable::default();
    headers.insert("x-attempt".into(), AMQPValue::Boolean(true));
    headers.insert("x-signature".into(), AMQPValue::Double(0.5));
    headers.insert("x-big".into(), AMQPValue::LongString("b".repeat(100_000).into()));
    // An expiry would make the dead letter vanish from the dead letters.
    let strange = BasicProperties::default().with_headers(headers).with_expiration("60000".into());
    for properties in [BasicProperties::default(), strange] {
        let publish = channel.basic_publish(
            "chat.events".into(),
            "high".into(),
            BasicPublishOptions::default(),
            b"???",
            properties,
        );
        publish.await.expect("sent").await.expect("taken");
    }
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 2).await;
    assert!(batch.iter().all(|incoming| incoming.envelope.job_id.is_empty() && incoming.failures == 0));
    fail(&mut consumer, batch, true).await;
    let batch = receive(&mut consumer, 2).await;
    assert!(batch.iter().all(|incoming| incoming.failures == 1 && &incoming.envelope.body[..] == b"???"));
    fail(&mut consumer, batch, false).await;
    assert_eq!(dead_letters(&world.broker, 10).await.len(), 2);
}

#[tokio::test]
async fn a_topology_that_contradicts_ours_is_named() {
    let url = fresh_rabbitmq().await;
    let (_connection, channel) = stranger(&url).await;
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("chat.events.low".into(), options, FieldTable::default()).await.expect("declared");
    let settings = BrokerSettings::RabbitMq { url, shards: 1, app_id: "contract".to_owned() };
    let refused = Broker::open(settings, &Tasks::new(Shutdown::new())).await.err().expect("refused");
    assert!(matches!(&refused, BrokerError::Topology(why) if why.contains("chat.events.low")), "{refused}");
}

#[tokio::test]
async fn another_process_takes_over_when_the_first_is_gone() {
    let world = World::new(Kind::RabbitMq).await;
    let other = world.another().await;
    world.publish(EventKind::MessageSend, 0..300).await;
    let mut consumer = world.consume().await;
    let unsettled = receive(&mut consumer, UNSETTLED_LEAST.into()).await;
    // Its whole process goes, the other one subscribes afterwards.
    drop(unsettled);
    world.broker.close().await;
    let mut successor = other.consume(0).await.expect("free");
    assert_eq!(drain(&mut successor, 300, 100).await, (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_queue_that_was_deleted_under_a_consumer_is_made_again() {
    let world = World::new(Kind::RabbitMq).await;
    let mut consumer = world.consume().await;
    let (_connection, channel) = stranger(world.url()).await;
    channel.queue_delete("chat.events.low".into(), QueueDeleteOptions::default()).await.expect("deleted");
    assert!(tokio::time::timeout(PATIENCE, consumer.next_batch(1)).await.expect("it is noticed").is_err());
    drop(consumer);
    until(PATIENCE, || async { world.broker.consume(0).await.is_ok() }).await;
    world.publish(EventKind::Typing, [1]).await;
    assert_eq!(names(&receive(&mut world.consume().await, 1).await), [1]);
}

#[tokio::test]
async fn a_message_that_no_client_can_read_becomes_a_dead_letter_and_stops_nobody() {
    let world = World::new(Kind::RabbitMq).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let mut raw = Raw::connect(world.url()).await;
    for key in ["high", "high", "low"] {
        raw.publish(("chat.events", key), b"caf\xe9", b"???").await;
    }
    world.publish(EventKind::MessageSend, [2]).await;
    world.publish(EventKind::Typing, [3]).await;
    let mut received = BTreeSet::new();
    let end = Instant::now() + PATIENCE;
    while received.len() < 3 {
        assert!(Instant::now() < end, "it stops everybody");
        // As a worker goes on whose consumer was lost.
        let Ok(mut consumer) = world.broker.consume(0).await else { continue };
        if let Ok(batch) = tokio::time::timeout(PATIENCE, consumer.next_batch(10)).await.expect("something comes") {
            received.extend(names(&batch));
            settle(&mut consumer, batch).await;
        }
        consumer.close().await;
    }
    let letters = dead_letters(&world.broker, 10).await;
    assert_eq!(letters.len(), 3, "{letters:?}");
    for letter in &letters {
        assert_eq!((letter.header("x-cause"), &letter.body[..]), (Some("undecodable"), &b"???"[..]));
        assert!(letter.header("x-body").is_some_and(|body| body.contains("caf")), "{letter:?}");
    }
    assert_eq!(letters[0].header("x-original-queue"), Some("chat.events.high"));
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.high + depths.low == 0) }).await;
}
