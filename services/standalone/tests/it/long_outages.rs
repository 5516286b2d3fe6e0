//! Dependencies that are away for longer than the ladder of retries has steps, while people talk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use testkit::client::Person;
use testkit::cluster::{System, SystemSpec};
use testkit::services::PrivatePostgres;
use tokio::time::sleep;

use crate::scene::{
    Sent, Steady, a_room_on_every_shard, all_events, assert_exactly_once, assert_order, assert_seen_live, dead_letters,
    settled,
};

/// Between two messages of one person.
const PACE: Duration = Duration::from_millis(40);

/// The first two steps of the ladder and more; in the long runs a minute, longer than all of them.
fn away_for() -> Duration {
    Duration::from_secs(if std::env::var_os("TEST_FULL").is_some() { 60 } else { 15 })
}

async fn talk(system: &System, gateway: usize, person: &Person, room: &str, over: &AtomicBool) -> Vec<Sent> {
    let mut steady = Steady::new(system, person);
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        steady.say(gateway, room, &format!("{} {number}", &person.id[..8])).await;
        sleep(PACE).await;
    }
    steady.sent
}

/// Lets something be gone while four people talk in four rooms, and judges what became of it all.
async fn without(system: &System, away: impl Future<Output = ()>) {
    let people = system.people(["Ann", "Ben", "Cem", "Dan"]).await;
    let others: Vec<&Person> = people.iter().skip(1).collect();
    let rooms = a_room_on_every_shard(&people[0], &others).await;
    let witness = people[0].connect(system.gateway(1)).await;
    let over = AtomicBool::new(false);
    let talking = people.iter().zip(&rooms).enumerate().map(|(n, (who, room))| talk(system, n, who, room, &over));
    let outage = async {
        for room in &rooms {
            witness.delivered(room, 10).await;
        }
        away.await;
        system.wait_ready().await;
        // What waited is told before what is said now.
        sleep(Duration::from_secs(1)).await;
        over.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(join_all(talking), outage);
    for ((room, sent), person) in rooms.iter().zip(&sent).zip(&people) {
        let history = settled(&people[0], room, sent.len()).await;
        assert_exactly_once(&history, sent);
        assert_order(&history, &person.id, sent);
        assert_seen_live(&witness, room, &history).await;
        assert_eq!(all_events(&witness, room).await.len(), 1 + history.len());
    }
    assert!(dead_letters(system).await.is_empty(), "an outage makes no dead letters");
    for processor in &system.processors {
        let retried = processor.try_metric("chat_events_processed_total", &["outcome=\"retried\""]).await;
        assert_eq!(retried, Some(0.0), "it counts no attempt");
    }
    system.assert_healthy();
}

#[tokio::test]
async fn a_long_time_without_postgres_under_load_makes_no_dead_letters_and_keeps_the_order() {
    let postgres = PrivatePostgres::start().await;
    let system = SystemSpec::distributed(2, 2).env("DATABASE_URL", &postgres.url()).start().await;
    let away = async {
        postgres.stop().await;
        sleep(away_for()).await;
        postgres.start_again().await;
    };
    without(&system, away).await;
}

#[tokio::test]
async fn a_long_time_without_redis_under_load_makes_no_dead_letters_and_keeps_the_order() {
    let system = SystemSpec::distributed(2, 2).start().await;
    let away = async {
        system.redis().stop().await;
        sleep(away_for()).await;
        system.redis().start_again().await;
    };
    without(&system, away).await;
}
