//! What operators do with dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{
    Broker, BrokerError, BrokerSettings, Consumer, Fate, Incoming, LOOK_LIMIT, LetterCursor, LetterPage, LetterQuery,
    Reach, Selection, Settlement, Swept,
};
use domain::{Cause, EventKind};
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use rstest::rstest;
use sqlx::{Connection as _, SqliteConnection};
use testkit::services::fresh_rabbitmq;
use testkit::{PATIENCE, until};

use super::rabbitmq::stranger;
use super::world::{FAILED_AT, Kind, World, dead_letters, event, failure, name, names, next, nothing, receive, settle};

const EVERYTHING: Reach = Reach { letters: usize::MAX, within: Duration::from_mins(1) };

fn id(name: u32) -> String {
    event(EventKind::MessageSend, name).job_id.to_string()
}

fn ids(names: impl IntoIterator<Item = u32>) -> Selection {
    Selection::Ids(names.into_iter().map(id).collect())
}

fn done(count: u64) -> Swept {
    Swept { count, more: false }
}

/// Fails these events for good.
async fn bury(consumer: &mut Consumer, batch: Vec<Incoming>, cause: Cause) {
    let failed = |mut incoming: Incoming| {
        incoming.failures = 3;
        let mut failure = failure(true);
        failure.cause = cause;
        (incoming, Settlement::Failed(failure))
    };
    consumer.settle(batch.into_iter().map(failed).collect()).await.expect("settled");
}

/// Makes dead letters of new events: one by one their causes.
async fn dead(world: &World, consumer: &mut Consumer, causes: impl IntoIterator<Item = (u32, Cause)>) {
    for (name, cause) in causes {
        world.publish(EventKind::MessageSend, [name]).await;
        let batch = receive(consumer, 1).await;
        bury(consumer, batch, cause).await;
    }
}

async fn left(broker: &Broker) -> Vec<String> {
    dead_letters(broker, 1_000).await.into_iter().map(|letter| letter.job_id).collect()
}

async fn sweep(broker: &Broker, selection: &Selection, fate: Fate) -> Swept {
    broker.sweep(selection, fate, EVERYTHING).await.expect("the broker answers")
}

const MIXED: [(u32, Cause); 5] = [
    (1, Cause::BadSignature),
    (2, Cause::StoreRejected),
    (3, Cause::BadSignature),
    (4, Cause::Panic),
    (5, Cause::BadSignature),
];

#[rstest]
#[tokio::test]
async fn letters_are_shown_page_by_page_by_cause_and_one_by_one(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    dead(&world, &mut world.consume().await, MIXED).await;
    let mut query = LetterQuery::first(2);
    let mut pages: Vec<Vec<String>> = Vec::new();
    loop {
        let page = world.broker.dead_letters(&query).await.expect("an answer");
        pages.push(page.letters.into_iter().map(|letter| letter.job_id).collect());
        let Some(next) = page.next else { break };
        query.after = Some(next.to_string().parse::<LetterCursor>().expect("as it was said"));
    }
    assert_eq!(pages, [vec![id(1), id(2)], vec![id(3), id(4)], vec![id(5)]]);

    let forged = LetterQuery { cause: Some(Cause::BadSignature), ..LetterQuery::first(2) };
    let page = world.broker.dead_letters(&forged).await.expect("an answer");
    assert_eq!(page.letters.iter().map(|letter| letter.job_id.clone()).collect::<Vec<_>>(), [id(1), id(3)]);
    let rest = LetterQuery { after: page.next, ..forged };
    let page = world.broker.dead_letters(&rest).await.expect("an answer");
    assert_eq!((page.letters.len(), page.letters[0].job_id.as_str(), page.next), (1, id(5).as_str(), None));

    let one = world.broker.dead_letter(&id(4), LOOK_LIMIT).await.expect("an answer").expect("it is there");
    assert_eq!((one.header("x-cause"), one.header("x-kind")), (Some("panic"), Some("bug")));
    assert_eq!(one.body, event(EventKind::MessageSend, 4).body);
    assert_eq!(world.broker.dead_letter(&id(9), LOOK_LIMIT).await.expect("an answer"), None);
    assert_eq!(left(&world.broker).await, [1, 2, 3, 4, 5].map(id), "looking changes nothing");
}

#[rstest]
#[tokio::test]
async fn a_replayed_letter_is_received_as_it_was_published_and_is_gone_from_the_letters(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let mut consumer = world.consume().await;
    dead(&world, &mut consumer, MIXED).await;
    assert_eq!(sweep(&world.broker, &ids([4, 9]), Fate::Replay).await, done(1));
    let again = receive(&mut consumer, 1).await;
    assert_eq!((name(&again[0]), again[0].failures, again[0].first_failed_at), (4, 0, Some(FAILED_AT)));
    let sent = event(EventKind::MessageSend, 4);
    assert_eq!(format!("{:?}", again[0].envelope), format!("{:?}", sent.to_unverified()));
    assert_eq!(again[0].class, sent.class());
    settle(&mut consumer, again).await;
    assert_eq!(sweep(&world.broker, &ids([4]), Fate::Replay).await, done(0), "it is not there any more");
    assert_eq!(left(&world.broker).await, [1, 2, 3, 5].map(id));
    let kept = world.broker.dead_letter(&id(2), LOOK_LIMIT).await.expect("an answer").expect("it is there");
    assert_eq!((kept.header("x-sender"), kept.header("x-attempts-made")), (Some("alice"), Some("4")));
    nothing(&mut consumer).await;
}

#[rstest]
#[tokio::test]
async fn letters_are_replayed_by_cause_and_all_of_them_in_their_order(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let mut consumer = world.consume().await;
    dead(&world, &mut consumer, MIXED).await;
    assert_eq!(sweep(&world.broker, &Selection::Cause(Cause::BadSignature), Fate::Replay).await, done(3));
    let again = receive(&mut consumer, 3).await;
    assert_eq!(names(&again), [1, 3, 5]);
    // They die again at once: what comes back is not taken by the call that is to come, but by itself.
    bury(&mut consumer, again, Cause::UnknownKey).await;
    assert_eq!(sweep(&world.broker, &Selection::Cause(Cause::BadSignature), Fate::Replay).await, done(0));
    until(PATIENCE, || async { left(&world.broker).await == [2, 4, 1, 3, 5].map(id) }).await;
    assert_eq!(sweep(&world.broker, &Selection::All, Fate::Replay).await, done(5));
    let again = receive(&mut consumer, 5).await;
    assert_eq!(names(&again), [2, 4, 1, 3, 5]);
    settle(&mut consumer, again).await;
    assert_eq!(sweep(&world.broker, &Selection::All, Fate::Replay).await, done(0));
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| (depths.dead, depths.retry) == (0, 0)) })
        .await;
}

#[rstest]
#[tokio::test]
async fn a_dropped_letter_is_gone_and_the_others_keep_their_order(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let mut world = World::new(kind).await;
    let mut consumer = world.consume().await;
    dead(&world, &mut consumer, MIXED).await;
    assert_eq!(sweep(&world.broker, &ids([3, 3]), Fate::Drop).await, done(1));
    assert_eq!(sweep(&world.broker, &Selection::Cause(Cause::StoreRejected), Fate::Drop).await, done(1));
    assert_eq!(left(&world.broker).await, [1, 4, 5].map(id));
    nothing(&mut consumer).await;
    drop(consumer);
    world.reopen().await;
    assert_eq!(left(&world.broker).await, [1, 4, 5].map(id));
    assert_eq!(sweep(&world.broker, &Selection::All, Fate::Drop).await, done(3));
    assert_eq!(left(&world.broker).await, Vec::<String>::new());
    until(PATIENCE, || async { world.broker.depths().await.is_ok_and(|depths| depths.dead == 0) }).await;
}

#[rstest]
#[tokio::test]
async fn a_call_goes_as_far_as_it_may_and_says_whether_there_is_more(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let mut consumer = world.consume().await;
    dead(&world, &mut consumer, (0..150).map(|name| (name, Cause::StoreRejected))).await;
    let some = Reach { letters: 70, ..EVERYTHING };
    let first = world.broker.sweep(&Selection::All, Fate::Drop, some).await.expect("an answer");
    assert_eq!(first, Swept { count: 70, more: true });
    let none = Reach { letters: 10, within: Duration::ZERO };
    let no_time = world.broker.sweep(&Selection::All, Fate::Drop, none).await.expect("an answer");
    assert_eq!(no_time, Swept { count: 0, more: true });
    let page = world.broker.dead_letters(&LetterQuery::first(1)).await.expect("an answer");
    assert_eq!(page.letters[0].job_id, id(70), "the oldest go first");
    assert_eq!(world.broker.sweep(&Selection::All, Fate::Drop, EVERYTHING).await.expect("an answer"), done(80));
}

#[rstest]
#[tokio::test]
async fn whoever_takes_letters_out_between_two_pages_misses_none(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    dead(&world, &mut world.consume().await, (0..6).map(|name| (name, Cause::StoreRejected))).await;
    let mut seen = BTreeSet::new();
    let mut query = LetterQuery::first(2);
    loop {
        let page = world.broker.dead_letters(&query).await.expect("an answer");
        let shown: Vec<String> = page.letters.into_iter().map(|letter| letter.job_id).collect();
        sweep(&world.broker, &Selection::Ids(shown.clone()), Fate::Drop).await;
        seen.extend(shown);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, (0..6).map(id).collect());
}

#[rstest]
#[tokio::test]
async fn operators_that_work_at_once_replay_each_letter_once(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let mut consumer = world.consume().await;
    dead(&world, &mut consumer, (0..40).map(|name| (name, Cause::StoreRejected))).await;
    let other = world.visit().await;
    let each = ids(0..40);
    let counts = tokio::join!(
        sweep(&world.broker, &Selection::All, Fate::Replay),
        sweep(&other, &Selection::All, Fate::Replay),
        sweep(&world.broker, &each, Fate::Replay),
    );
    assert_eq!(counts.0.count + counts.1.count + counts.2.count, 40);
    let mut received = Vec::new();
    while received.len() < 40 {
        let batch = next(&mut consumer, 100).await;
        received.extend(names(&batch));
        settle(&mut consumer, batch).await;
    }
    received.sort_unstable();
    assert_eq!(received, (0..40).collect::<Vec<_>>());
    nothing(&mut consumer).await;
}

#[rstest]
#[tokio::test]
async fn an_operator_that_goes_in_the_middle_leaves_every_letter_somewhere(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let mut consumer = world.consume().await;
    dead(&world, &mut consumer, (0..200).map(|name| (name, Cause::StoreRejected))).await;
    for pause_ms in [1, 5, 20, 60, 100, 150] {
        let sweeping = world.broker.sweep(&Selection::All, Fate::Replay, EVERYTHING);
        let _gone = tokio::time::timeout(Duration::from_millis(pause_ms), sweeping).await;
    }
    let mut found: BTreeSet<String> = BTreeSet::new();
    until(PATIENCE, || async { world.broker.dead_letters(&LetterQuery::first(1)).await.is_ok() }).await;
    found.extend(left(&world.broker).await);
    while let Ok(batch) = tokio::time::timeout(Duration::from_secs(2), consumer.next_batch(100)).await {
        let batch = batch.expect("connected");
        found.extend(batch.iter().map(|incoming| incoming.envelope.job_id.clone()));
        settle(&mut consumer, batch).await;
    }
    assert_eq!(found, (0..200).map(id).collect());
}

#[tokio::test]
async fn another_process_replays_and_drops_in_an_embedded_file_and_its_owner_notices() {
    let world = World::new(Kind::Embedded).await;
    let mut consumer = world.consume().await;
    dead(&world, &mut consumer, MIXED).await;
    let visitor = world.visit().await;
    assert_eq!(left(&visitor).await, [1, 2, 3, 4, 5].map(id));
    assert_eq!(sweep(&visitor, &ids([2]), Fate::Replay).await, done(1));
    let again = receive(&mut consumer, 1).await;
    assert_eq!(names(&again), [2]);
    settle(&mut consumer, again).await;
    assert_eq!(sweep(&visitor, &Selection::Cause(Cause::BadSignature), Fate::Drop).await, done(3));
    until(PATIENCE, || async {
        world.broker.depths().await.is_ok_and(|depths| (depths.high, depths.retry, depths.dead) == (0, 0, 1))
    })
    .await;
    assert!(visitor.consume(0).await.is_err() && !visitor.is_connected(), "a visitor owns nothing");
}

#[tokio::test]
async fn what_a_visitor_replays_while_nothing_runs_is_processed_at_the_next_start() {
    let mut world = World::new(Kind::Embedded).await;
    let mut consumer = world.consume().await;
    dead(&world, &mut consumer, MIXED).await;
    drop(consumer);
    world.broker.close().await;
    let visitor = world.visit().await;
    assert_eq!(sweep(&visitor, &ids([1, 5]), Fate::Replay).await, done(2));
    // And it does not keep anybody from starting.
    world.broker = world.another().await;
    assert_eq!(names(&receive(&mut world.consume().await, 2).await), [1, 5]);
    assert_eq!(world.broker.depths().await.expect("an answer").dead, 3);
    drop(visitor);
}

#[tokio::test]
async fn an_embedded_file_that_was_never_used_has_no_letters() {
    let world = World::new(Kind::Embedded).await;
    let fresh = world.visit_at(&world.file().with_extension("fresh")).await;
    assert_eq!(left(&fresh).await, Vec::<String>::new());
    assert_eq!(sweep(&fresh, &Selection::All, Fate::Replay).await, done(0));
}

#[tokio::test]
async fn one_operator_at_a_time_looks_at_the_letters_of_rabbitmq() {
    let world = World::new(Kind::RabbitMq).await;
    dead(&world, &mut world.consume().await, MIXED).await;
    let (connection, channel) = stranger(world.url()).await;
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let turn = channel.queue_declare("chat.events.dlq.operator".into(), options, FieldTable::default());
    turn.await.expect("nobody operates");
    let refused = world.broker.dead_letters(&LetterQuery::first(1)).await;
    assert!(matches!(&refused, Err(BrokerError::Unavailable(why)) if why.contains("another operator")), "{refused:?}");
    connection.close(200, "done".into()).await.expect("closed");
    assert_eq!(left(&world.broker).await.len(), 5);
}

/// Puts letters among the dead ones that only say so much of themselves.
async fn strange_letters(world: &World, count: u32, properties: BasicProperties) {
    let (connection, channel) = stranger(world.url()).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let mut sent = Vec::new();
    for number in 0..count {
        let (options, body) = (BasicPublishOptions::default(), number.to_be_bytes());
        let publish = channel.basic_publish("".into(), "chat.events.dlq".into(), options, &body, properties.clone());
        sent.push(publish.await.expect("sent"));
    }
    for confirm in sent {
        assert!(confirm.await.expect("an answer").is_ack());
    }
    connection.close(200, "done".into()).await.expect("closed");
}

#[tokio::test]
async fn letters_of_one_id_or_of_none_are_paged_through_and_that_ends() {
    let world = World::new(Kind::RabbitMq).await;
    strange_letters(&world, 30, BasicProperties::default()).await;
    strange_letters(&world, 30, BasicProperties::default().with_message_id("again".into())).await;
    let mut query = LetterQuery::first(7);
    let mut seen = Vec::new();
    for _ in 0..20 {
        let page = world.broker.dead_letters(&query).await.expect("an answer");
        seen.extend(page.letters.into_iter().map(|letter| letter.body[3]));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..30).chain(0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_that_runs_out_of_time_ends_where_it_was_and_the_next_goes_on() {
    let world = World::new(Kind::RabbitMq).await;
    strange_letters(&world, 3_000, BasicProperties::default()).await;
    // None of that cause: all of them are looked at for nothing.
    let query = |after, within| LetterQuery { cause: Some(Cause::Panic), after, limit: 10, within };
    let none = world.broker.dead_letters(&query(None, Duration::ZERO)).await;
    assert!(matches!(none, Err(BrokerError::TooMany)), "{none:?}");
    let mut within = Duration::from_millis(10);
    let page = loop {
        match world.broker.dead_letters(&query(None, within)).await {
            Ok(page) => break page,
            Err(BrokerError::TooMany) => within *= 2,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(page.letters.is_empty());
    let next = page.next.expect("that was too short for all of them");
    let none = world.broker.dead_letters(&query(Some(next.clone()), Duration::ZERO)).await;
    assert!(matches!(none, Err(BrokerError::TooMany)), "it would be told the same place for ever: {none:?}");
    let one = world.broker.dead_letter("nobody", Duration::ZERO).await;
    assert!(matches!(one, Err(BrokerError::TooMany)), "{one:?}");
    let rest = world.broker.dead_letters(&query(Some(next), EVERYTHING.within)).await.expect("time enough");
    assert_eq!(rest, LetterPage { letters: Vec::new(), next: None });
}

#[tokio::test]
async fn who_visits_with_another_number_of_shards_is_refused_and_makes_nothing() {
    let url = fresh_rabbitmq().await;
    let world = World::rabbitmq_at(url.clone(), 4).await;
    let _busy = world.consume().await;
    let two = world.broker.consume(2).await.expect("free");
    let queues = world.management().await.queues().await.len();
    let visit = async |shards| {
        let settings = BrokerSettings::RabbitMq { url: url.clone(), shards, app_id: "visitor".to_owned() };
        Broker::visit(settings, &world.tasks).await
    };
    for (shards, named) in
        [(1, "no queue chat.events.high;"), (2, "works on the queue chat.events.high.02"), (8, "no queue")]
    {
        let refused = visit(shards).await.err().expect("refused").to_string();
        assert!(refused.contains("QUEUE_SHARDS") && refused.contains(named), "{shards}: {refused}");
    }
    assert!(visit(4).await.is_ok());
    assert_eq!(world.management().await.queues().await.len(), queues, "nothing was made");
    // Those of a larger number of shards in former times are in nobody's way.
    two.close().await;
    until(PATIENCE, || async { visit(2).await.is_ok() }).await;
}

#[tokio::test]
async fn confirms_go_on_while_many_letters_of_an_embedded_file_are_replayed() {
    let world = World::new(Kind::Embedded).await;
    dead(&world, &mut world.consume().await, [(1, Cause::StoreRejected)]).await;
    let mut db = SqliteConnection::connect(&format!("sqlite://{}", world.file().display())).await.expect("opens");
    let copies = "INSERT INTO dead (lane, headers, job_id, kind, timestamp_s, key_id, signature, body)
        WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 20000)
        SELECT lane, headers, job_id || n, kind, timestamp_s, key_id, signature, zeroblob(2000) FROM dead, number";
    sqlx::query(copies).execute(&mut db).await.expect("written");
    let visitor = world.visit().await;
    let sweeping = sweep(&visitor, &Selection::All, Fate::Replay);
    let mut slowest = Duration::ZERO;
    let publishing = async {
        for name in 10.. {
            let began = std::time::Instant::now();
            world.broker.publish(event(EventKind::MessageSend, name)).await.expect("confirmed");
            slowest = slowest.max(began.elapsed());
        }
    };
    tokio::select! {
        swept = sweeping => assert_eq!(swept, done(20_001)),
        () = publishing => unreachable!("it goes on for ever"),
    }
    assert!(world.broker.is_connected());
    assert!(slowest < Duration::from_secs(5), "a confirm took {slowest:?}");
}
