//! What operators do with dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{
    Broker, BrokerError, Consumer, Fate, Incoming, LetterCursor, LetterQuery, Reach, Selection, Settlement, Swept,
};
use domain::{Cause, EventKind};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use rstest::rstest;
use testkit::{PATIENCE, until};

use super::rabbitmq::stranger;
use super::world::{Kind, World, dead_letters, event, failure, name, names, next, nothing, receive, settle};

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

    let one = world.broker.dead_letter(&id(4)).await.expect("an answer").expect("it is there");
    assert_eq!((one.header("x-cause"), one.header("x-kind")), (Some("panic"), Some("bug")));
    assert_eq!(one.body, event(EventKind::MessageSend, 4).body);
    assert_eq!(world.broker.dead_letter(&id(9)).await.expect("an answer"), None);
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
    assert_eq!((name(&again[0]), again[0].failures, again[0].first_failed_at), (4, 0, None));
    let sent = event(EventKind::MessageSend, 4);
    assert_eq!(format!("{:?}", again[0].envelope), format!("{:?}", sent.to_unverified()));
    assert_eq!(again[0].class, sent.class());
    settle(&mut consumer, again).await;
    assert_eq!(sweep(&world.broker, &ids([4]), Fate::Replay).await, done(0), "it is not there any more");
    assert_eq!(left(&world.broker).await, [1, 2, 3, 5].map(id));
    let kept = world.broker.dead_letter(&id(2)).await.expect("an answer").expect("it is there");
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
