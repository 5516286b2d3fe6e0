//! One order per room, whatever clocks, gateways and processors do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use testkit::client::Person;
use testkit::cluster::{Node, System, SystemSpec};
use testkit::{PATIENCE, until};

use crate::scene::{
    Sent, Steady, a_room_on_every_shard, all_events, assert_exactly_once, assert_order, assert_seen_live, dead_letters,
    settled, until_metric,
};

const SENDERS: usize = 10;
const EACH: usize = 200;

/// One sender's messages, the gateway changing with each of them.
async fn alternate(system: &System, person: &Person, room: &str, done: &AtomicUsize) -> Vec<Sent> {
    let mut steady = Steady::new(system, person);
    for number in 0..EACH {
        steady.say(number % 2, room, &format!("{number}")).await;
        done.fetch_add(1, Ordering::Relaxed);
    }
    steady.sent
}

async fn when(done: &AtomicUsize, share: f64) {
    let wanted = ((SENDERS * EACH) as f64 * share) as usize;
    until(Duration::from_mins(3), || async { done.load(Ordering::Relaxed) >= wanted }).await;
}

/// What it has stored; it answers, however busy the machine is.
async fn processed(node: &Node) -> f64 {
    let count = || node.metric("chat_events_processed_total", &["outcome=\"stored\""]);
    until(PATIENCE, || async { count().await > 0.0 }).await;
    count().await
}

/// Adds one processor, stops one and kills one; returns how much each had processed by then.
async fn unrest(system: &System, done: &AtomicUsize) -> (Node, [f64; 3]) {
    let [first, second] = &system.processors[..] else { panic!("two processors to begin with") };
    when(done, 0.2).await;
    let third = system.spec("processor", 0).start().await;
    when(done, 0.4).await;
    let of_first = processed(first).await;
    let status = first.terminate(Duration::from_secs(20)).await;
    assert!(status.success(), "a stopped processor ends well: {status}");
    when(done, 0.6).await;
    first.start_again().await;
    let of_second = processed(second).await;
    second.kill9().await;
    when(done, 0.8).await;
    second.start_again().await;
    when(done, 1.0).await;
    let of_third = processed(&third).await;
    (third, [of_first, of_second, of_third])
}

#[tokio::test]
async fn two_thousand_messages_keep_each_senders_order_over_two_clocks_and_changing_processors() {
    let spec = SystemSpec::distributed(2, 2).clocks_ahead(&[0, 5]);
    let system = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_USER_BURST", "0").start().await;
    let people = system.people(["Ann", "Ben", "Cem", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon"]).await;
    let everybody: Vec<&Person> = people.iter().skip(1).collect();
    let rooms = a_room_on_every_shard(&people[0], &everybody).await;
    for processor in &system.processors {
        until_metric(processor, "chat_shards_owned", &[], 1.0).await;
    }
    let witness = people[0].connect(system.gateway(0)).await;

    let done = AtomicUsize::new(0);
    let talk =
        people.iter().enumerate().map(|(index, person)| alternate(&system, person, &rooms[index % rooms.len()], &done));
    let (sent, (_third, shares)) = tokio::join!(join_all(talk), unrest(&system, &done));

    for (index, room) in rooms.iter().enumerate() {
        let here: Vec<usize> = (0..SENDERS).filter(|sender| sender % rooms.len() == index).collect();
        let history = settled(&people[0], room, here.len() * EACH).await;
        for sender in &here {
            assert_order(&history, &people[*sender].id, &sent[*sender]);
            let of_sender = history.iter().filter(|item| item["senderId"] == people[*sender].id.as_str());
            assert_exactly_once(&of_sender.cloned().collect::<Vec<_>>(), &sent[*sender]);
        }
        assert_seen_live(&witness, room, &history).await;
        // room.created is the first event, then one for each message.
        assert_eq!(all_events(&witness, room).await.len(), 1 + history.len());
    }
    assert!(shares.iter().all(|share| *share > 0.0), "every processor did work: {shares:?}");
    assert!(dead_letters(&system).await.is_empty());
    system.assert_healthy();
}
