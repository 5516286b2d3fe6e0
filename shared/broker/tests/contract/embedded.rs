//! What only the embedded engine can go through.

use std::time::Duration;

use broker::{Broker, BrokerError, BrokerSettings, PublishError, Settlement};
use domain::EventKind;
use sqlx::{Connection as _, SqliteConnection};
use testkit::{PATIENCE, until};

use super::world::{Kind, World, dead_letters, event, fail, failure, names, nothing, receive, settle};

#[tokio::test]
async fn an_embedded_file_keeps_everything_over_a_restart() {
    let mut world = World::new(Kind::Embedded).await;
    world.publish(EventKind::MessageSend, 0..10).await;
    let mut consumer = world.consume().await;
    let mut batch = receive(&mut consumer, 6).await;
    let unsettled = batch.split_off(4);
    let dead = batch.split_off(3);
    let retried = batch.split_off(2);
    settle(&mut consumer, batch).await;
    fail(&mut consumer, retried, true).await;
    fail(&mut consumer, dead, false).await;
    drop((unsettled, consumer));
    world.reopen().await;
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.retry, depths.dead), (6, 1, 1));
    let received = receive(&mut world.consume().await, 7).await;
    assert_eq!(names(&received), [4, 5, 6, 7, 8, 9, 2], "the retried one last, once it is due");
    assert!(received[0].redelivered && received[6].failures == 1);
}

#[tokio::test]
async fn another_process_may_look_at_an_embedded_file_but_neither_publish_nor_consume() {
    let world = World::new(Kind::Embedded).await;
    world.publish(EventKind::MessageSend, 0..3).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 1).await;
    fail(&mut consumer, batch, false).await;
    let other = world.another().await;
    assert_eq!(other.publish(event(EventKind::MessageSend, 9)).await, Err(PublishError::Unavailable));
    assert!(matches!(other.consume(0).await, Err(BrokerError::Unavailable(_))));
    assert!(!other.is_connected() && other.ping().await.is_err());
    let depths = other.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.dead), (2, 1));
    assert_eq!(dead_letters(&other, 10).await.len(), 1);
}

#[tokio::test]
async fn the_embedded_engine_has_one_shard() {
    let world = World::new(Kind::Embedded).await;
    assert_eq!(world.broker.shards(), 1);
    assert!(world.broker.consume(1).await.is_err());
}

#[tokio::test]
async fn a_file_of_a_later_format_is_refused() {
    let world = World::new(Kind::Embedded).await;
    world.broker.close().await;
    let url = format!("sqlite://{}", world.file().display());
    let mut db = SqliteConnection::connect(&url).await.expect("the file opens");
    sqlx::query("PRAGMA user_version = 99").execute(&mut db).await.expect("written");
    db.close().await.expect("closed");
    let settings = BrokerSettings::Embedded { path: world.file(), sync_full: true };
    assert!(matches!(Broker::open(settings, &world.tasks).await, Err(BrokerError::Topology(_))));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_unavailable_until_it_can() {
    let world = World::new(Kind::Embedded).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let url = format!("sqlite://{}", world.file().display());
    let mut db = SqliteConnection::connect(&url).await.expect("the file opens");
    // Whatever is inserted now fails as on a full disk: with the whole transaction.
    let full = "CREATE TRIGGER full BEFORE INSERT ON ready BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    sqlx::query(full).execute(&mut db).await.expect("made");
    assert_eq!(world.broker.publish(event(EventKind::MessageSend, 2)).await, Err(PublishError::Unavailable));
    sqlx::query("DROP TRIGGER full").execute(&mut db).await.expect("dropped");
    until(PATIENCE, || async { world.broker.ping().await.is_ok() }).await;
    world.publish(EventKind::MessageSend, [3]).await;
    let received = receive(&mut world.consume().await, 2).await;
    assert_eq!(names(&received), [1, 3]);
}

#[tokio::test]
async fn a_disk_that_hangs_answers_nobody_late() {
    let world = World::new(Kind::Embedded).await;
    let url = format!("sqlite://{}", world.file().display());
    let mut db = SqliteConnection::connect(&url).await.expect("the file opens");
    // Whoever holds the write lock holds up the writer.
    let holding = db.begin_with("BEGIN IMMEDIATE").await.expect("the lock is free");
    let began = std::time::Instant::now();
    let first = world.broker.publish(event(EventKind::MessageSend, 1));
    tokio::task::yield_now().await;
    let second = world.broker.publish(event(EventKind::MessageSend, 2));
    let not_ready = until(PATIENCE, || async { world.broker.ping().await.is_err() });
    let (first, second, ()) = tokio::join!(first, second, not_ready);
    let answers = (first, second);
    assert_eq!(answers, (Err(PublishError::Unavailable), Err(PublishError::Unavailable)));
    assert!(began.elapsed() < broker::CONFIRM_LIMIT * 5 / 4, "after {:?}", began.elapsed());
    holding.rollback().await.expect("released");
    until(PATIENCE, || async { world.broker.publish(event(EventKind::MessageSend, 3)).await.is_ok() }).await;
}

#[tokio::test]
async fn what_was_settled_while_the_file_could_not_be_written_is_gone_once_it_can() {
    let mut world = World::new(Kind::Embedded).await;
    world.publish(EventKind::MessageSend, [1, 2]).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 1).await;
    let url = format!("sqlite://{}", world.file().display());
    let mut db = SqliteConnection::connect(&url).await.expect("the file opens");
    for table in ["ready", "probe"] {
        let event = if table == "ready" { "DELETE" } else { "INSERT" };
        let full =
            format!("CREATE TRIGGER {table}_full BEFORE {event} ON {table} BEGIN SELECT RAISE(ROLLBACK, 'full'); END");
        sqlx::query(sqlx::AssertSqlSafe(full)).execute(&mut db).await.expect("made");
    }
    settle(&mut consumer, batch).await;
    until(PATIENCE, || async { world.broker.ping().await.is_err() }).await;
    for table in ["ready", "probe"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {table}_full"))).execute(&mut db).await.expect("dropped");
    }
    until(PATIENCE, || async { world.broker.ping().await.is_ok() }).await;
    drop(consumer);
    world.reopen().await;
    assert_eq!(names(&receive(&mut world.consume().await, 1).await), [2]);
}

/// Somebody settles the first two of three events, one of them as a dead letter, and gives up waiting while the
/// disk hangs; then the disk goes on.
async fn given_up_in_the_midst(world: &World, db: &mut SqliteConnection) {
    world.publish(EventKind::MessageSend, [1, 2, 3]).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 2).await;
    let holding = db.begin_with("BEGIN IMMEDIATE").await.expect("the lock is free");
    let settlements = [Settlement::Failed(failure(false)), Settlement::Done];
    let settling = consumer.settle(batch.into_iter().zip(settlements).collect());
    assert!(tokio::time::timeout(Duration::from_millis(300), settling).await.is_err(), "it hangs");
    drop(consumer);
    let mut successor = world.consume().await;
    assert_eq!(names(&receive(&mut successor, 1).await), [3], "nobody knows what becomes of the others");
    successor.close().await;
    holding.rollback().await.expect("released");
}

#[tokio::test]
async fn what_was_settled_after_its_consumer_gave_up_waiting_is_not_seen_again() {
    let world = World::new(Kind::Embedded).await;
    let url = format!("sqlite://{}", world.file().display());
    let mut db = SqliteConnection::connect(&url).await.expect("the file opens");
    given_up_in_the_midst(&world, &mut db).await;
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.dead == 1) }).await;
    let mut consumer = world.consume().await;
    assert_eq!(names(&receive(&mut consumer, 1).await), [3]);
    nothing(&mut consumer).await;
    assert_eq!(dead_letters(&world.broker, 10).await.len(), 1);
}

#[tokio::test]
async fn what_could_not_be_settled_after_its_consumer_gave_up_waiting_comes_again_in_its_place() {
    let world = World::new(Kind::Embedded).await;
    let url = format!("sqlite://{}", world.file().display());
    let mut db = SqliteConnection::connect(&url).await.expect("the file opens");
    let full = "CREATE TRIGGER full BEFORE INSERT ON dead BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    sqlx::query(full).execute(&mut db).await.expect("made");
    given_up_in_the_midst(&world, &mut db).await;
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.high == 3) }).await;
    let received = receive(&mut world.consume().await, 3).await;
    assert_eq!(names(&received), [1, 2, 3]);
    assert!(received.iter().all(|incoming| incoming.redelivered));
}

#[tokio::test]
async fn a_file_that_could_not_be_read_is_read_again_once_it_can() {
    let mut world = World::new(Kind::Embedded).await;
    world.publish(EventKind::MessageSend, [1, 2]).await;
    world.broker.close().await;
    let url = format!("sqlite://{}", world.file().display());
    let mut db = SqliteConnection::connect(&url).await.expect("the file opens");
    // What is no number cannot be read as one.
    sqlx::query("UPDATE ready SET failures = 'many'").execute(&mut db).await.expect("written");
    world.broker = world.another().await;
    let mut consumer = world.consume().await;
    let mending = async {
        until(PATIENCE, || async { world.broker.ping().await.is_err() }).await;
        sqlx::query("UPDATE ready SET failures = 0").execute(&mut db).await.expect("written");
    };
    let (received, ()) = tokio::join!(receive(&mut consumer, 2), mending);
    assert_eq!(names(&received), [1, 2]);
}

#[tokio::test]
async fn what_became_due_is_handed_out_even_if_the_next_time_cannot_be_read() {
    let world = World::new(Kind::Embedded).await;
    world.publish(EventKind::MessageSend, [1]).await;
    let mut consumer = world.consume().await;
    let batch = receive(&mut consumer, 1).await;
    fail(&mut consumer, batch, true).await;
    let url = format!("sqlite://{}", world.file().display());
    let mut db = SqliteConnection::connect(&url).await.expect("the file opens");
    // One that never becomes due, and whose time is no number.
    let strange = "INSERT INTO waiting (ready_at, lane, job_id, kind, timestamp_s, key_id, signature, body, failures)
        VALUES ('never', 0, '', '', 0, '', '', x'', 0)";
    sqlx::query(strange).execute(&mut db).await.expect("written");
    assert_eq!(names(&receive(&mut consumer, 1).await), [1]);
}

#[tokio::test]
async fn failed_events_are_counted_along() {
    let mut world = World::new(Kind::Embedded).await;
    world.publish(EventKind::MessageSend, 0..3).await;
    let mut consumer = world.consume().await;
    let mut batch = receive(&mut consumer, 3).await;
    let retried = batch.split_off(2);
    fail(&mut consumer, batch, false).await;
    fail(&mut consumer, retried, true).await;
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.retry, depths.dead), (0, 1, 2));
    assert_eq!(names(&receive(&mut consumer, 1).await), [2]);
    assert_eq!(world.broker.depths().await.expect("an answer").retry, 0);
    drop(consumer);
    world.reopen().await;
    let depths = world.broker.depths().await.expect("an answer");
    assert_eq!((depths.high, depths.retry, depths.dead), (1, 0, 2), "found again");
}
