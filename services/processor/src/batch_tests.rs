//! Batches with events in them that are given up, on an embedded engine.

use broker::{Fate, LetterQuery, Reach, Selection};
use domain::{JobId, MessageId, RoomId};
use protocol::Keyring;
use protocol::wire::{MessageEdit, MessageSend};
use testkit::PATIENCE;

use super::*;
use crate::bench::{Bench, known_key, receive};

struct World {
    bench: Bench,
    room: RoomId,
    /// Signs with a key that the processor was not given.
    early: Keyring,
}

impl std::ops::Deref for World {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

impl World {
    async fn new() -> Self {
        let bench = Bench::over(&[]).await;
        let early = Keyring::parse(&format!("k2:{},{}", "REVG".repeat(11), known_key())).expect("keys");
        Self { room: bench.new_room().await, bench, early }
    }

    async fn say(&self, name: &str, keys: &Keyring) -> MessageId {
        let id = MessageId::of(self.ann, name);
        let (room_id, content, client_msg_id) = (self.room.to_string(), name.to_owned(), name.to_owned());
        let send = MessageSend { room_id, content, client_msg_id, ..Default::default() };
        self.publish(self.room, JobId::from(id), Change::MessageSend(send), keys).await;
        id
    }

    async fn edit(&self, message: MessageId, content: &str, keys: &Keyring) {
        let (room_id, message_id) = (self.room.to_string(), message.to_string());
        let edit = MessageEdit { room_id, message_id, content: content.to_owned() };
        self.publish(self.room, JobId::generate(), Change::MessageEdit(edit), keys).await;
    }

    /// Takes the next `count` events as one batch.
    async fn take(&self, consumer: &mut Consumer, count: usize) -> Result<(), BatchError> {
        let batch = receive(consumer, count).await;
        Box::pin(apply_and_settle(&self.parts, consumer, batch, Company::Any, &mut Frontier::default())).await
    }

    async fn content(&self, message: MessageId) -> String {
        self.parts.store.message(message).await.expect("reads").expect("it is there").content
    }
}

#[tokio::test]
async fn an_edit_that_is_replayed_does_not_overwrite_a_newer_one_be_it_of_its_own_batch() {
    let mut world = World::new().await;
    let mut consumer = world.parts.broker.consume(0).await.expect("free");
    let ours = world.parts.keys.clone();
    let [first, second] = [world.say("one", &ours).await, world.say("two", &ours).await];
    world.take(&mut consumer, 2).await.expect("settled");
    // One is overtaken in its own batch, the other in the next.
    world.edit(second, "old", &world.early).await;
    world.edit(first, "old", &world.early).await;
    world.edit(first, "new", &ours).await;
    world.take(&mut consumer, 3).await.expect("settled");
    world.edit(second, "new", &ours).await;
    world.take(&mut consumer, 1).await.expect("settled");
    let letters = world.parts.broker.dead_letters(&LetterQuery::first(10)).await.expect("an answer").letters;
    assert_eq!(letters.iter().map(|letter| letter.header("x-cause")).collect::<Vec<_>>(), [Some("unknown_key"); 2]);

    world.bench.parts.keys = world.early.clone();
    let reach = Reach { letters: 10, within: PATIENCE };
    let swept = world.parts.broker.sweep(&Selection::All, Fate::Replay, reach).await.expect("an answer");
    assert_eq!(swept.count, 2);
    world.take(&mut consumer, 2).await.expect("settled");
    assert_eq!((world.content(first).await, world.content(second).await), ("new".to_owned(), "new".to_owned()));
    let letters = world.parts.broker.dead_letters(&LetterQuery::first(10)).await.expect("an answer").letters;
    assert!(letters.is_empty(), "they were refused: {letters:?}");
}

#[tokio::test]
async fn a_dead_letter_is_counted_when_it_lies_among_the_dead_letters_and_not_before() {
    let metrics = telemetry::recorder::install();
    let counted = |count: u32| {
        let line = format!("chat_dead_letters_total{{cause=\"unknown_key\"}} {count}\n");
        assert!(metrics.render().contains(&line), "no {line}");
    };
    telemetry::metric::describe_all();
    let world = World::new().await;
    let mut consumer = world.parts.broker.consume(0).await.expect("free");
    world.say("settled", &world.early).await;
    world.take(&mut consumer, 1).await.expect("settled");
    counted(1);
    world.say("not settled", &world.early).await;
    let batch = tokio::time::timeout(PATIENCE, consumer.next_batch(200)).await.expect("it comes").expect("open");
    world.parts.broker.close().await;
    assert!(
        Box::pin(apply_and_settle(&world.parts, &mut consumer, batch, Company::Any, &mut Frontier::default()))
            .await
            .is_err()
    );
    counted(1);
}

#[tokio::test]
async fn what_was_settled_counts_as_drained_however_it_ended_and_what_was_not_does_not() {
    let world = World::new().await;
    let drained = || world.parts.tally.take();
    let mut consumer = world.parts.broker.consume(0).await.expect("free");
    let ours = world.parts.keys.clone();
    let message = world.say("stored", &ours).await;
    world.say("refused", &world.early).await;
    world.edit(message, "edited", &ours).await;
    world.take(&mut consumer, 3).await.expect("settled");
    assert_eq!(drained(), [(0, [2, 1, 0])]);
    world.say("not settled", &ours).await;
    let batch = receive(&mut consumer, 1).await;
    world.parts.broker.close().await;
    assert!(
        Box::pin(apply_and_settle(&world.parts, &mut consumer, batch, Company::Any, &mut Frontier::default()))
            .await
            .is_err()
    );
    assert!(drained().is_empty());
}

#[tokio::test]
async fn an_event_without_an_outcome_is_given_up_as_a_bug_and_no_other_takes_the_blame() {
    let metrics = telemetry::recorder::install();
    let world = World::new().await;
    let (mut consumer, ours) = (world.parts.broker.consume(0).await.expect("free"), world.parts.keys.clone());
    world.say("before", &ours).await;
    let forgotten = world.say("unanswered", &ours).await;
    let after = world.say("after", &ours).await;
    world.take(&mut consumer, 3).await.expect("settled");

    let letters = world.parts.broker.dead_letters(&LetterQuery::first(10)).await.expect("an answer").letters;
    let told = |letter: &broker::DeadLetter| {
        let header = |name| letter.header(name).unwrap_or_default().to_owned();
        (letter.job_id.clone(), header("x-cause"), header("x-kind"))
    };
    let given_up = (forgotten.to_string(), "no_outcome".to_owned(), "bug".to_owned());
    assert_eq!(letters.iter().map(told).collect::<Vec<_>>(), [given_up], "at once, and nobody else");
    assert_eq!(world.content(after).await, "after", "its neighbours are done");
    assert!(world.parts.store.message(forgotten).await.expect("reads").is_none());
    assert!(metrics.render().contains("chat_dead_letters_total{cause=\"no_outcome\"} 1\n"));
    world.say("later", &ours).await;
    world.take(&mut consumer, 1).await.expect("settled");
}

#[tokio::test]
async fn an_edit_waits_at_the_end_of_the_ladder_while_its_message_may_be_on_its_way() {
    let world = World::new().await;
    let (mut consumer, ours) = (world.parts.broker.consume(0).await.expect("free"), world.parts.keys.clone());
    let mut frontier = Frontier::default();
    frontier.begin(world.parts.clock.monotonic_us());
    world.edit(MessageId::of(world.ann, "late"), "edited", &ours).await;
    let mut batch = receive(&mut consumer, 1).await;
    (batch[0].failures, batch[0].first_failed_at) = (3, Some(world.parts.clock.now()));
    Box::pin(apply_and_settle(&world.parts, &mut consumer, batch, Company::Any, &mut frontier)).await.expect("settled");

    let late = world.say("late", &ours).await;
    let batch = receive(&mut consumer, 1).await;
    Box::pin(apply_and_settle(&world.parts, &mut consumer, batch, Company::Any, &mut frontier)).await.expect("settled");
    world.parts.clock.shift(25_100);
    let batch = receive(&mut consumer, 1).await;
    assert_eq!(batch[0].failures, 3, "no further than it was");
    Box::pin(apply_and_settle(&world.parts, &mut consumer, batch, Company::Any, &mut frontier)).await.expect("settled");
    assert_eq!(world.content(late).await, "edited");
}
