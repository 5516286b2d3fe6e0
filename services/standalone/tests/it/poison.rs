//! Events that never end in time or kill whoever processes them, and a store that answers and cannot
//! be written.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testkit::client::Person;
use testkit::cluster::{NodeSpec, System, SystemSpec, target_dir};
use testkit::until;

use crate::scene::{SETTLED_WITHIN, dead_letters, settled};

async fn database(system: &System) -> PgConnection {
    PgConnection::connect(&system.spec("api", 0).env["DATABASE_URL"]).await.unwrap()
}

async fn run(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.unwrap();
}

/// How often the processor gave back what it held.
fn interruptions(system: &System) -> usize {
    system.processors[0].log().matches("work on a shard is interrupted").count()
}

async fn retried(system: &System) -> f64 {
    let retried = system.processors[0].try_metric("chat_events_processed_total", &["outcome=\"retried\""]);
    retried.await.expect("every outcome is counted from 0")
}

/// One shard: everybody is everybody's neighbour.
async fn one_shard() -> (System, [Person; 2]) {
    let system = SystemSpec::distributed(1, 1).env("QUEUE_SHARDS", "1").start().await;
    let people = system.people(["Alice", "Bob"]).await;
    (system, people)
}

#[tokio::test]
async fn an_event_that_never_ends_in_time_climbs_the_ladder_and_its_neighbours_go_on() {
    let (system, [alice, bob]) = one_shard().await;
    let (held, free) = (alice.create_group(&[&bob]).await, alice.create_group(&[&bob]).await);
    let socket = alice.connect(system.gateway(0)).await;
    let mut db = database(&system).await;
    run(&mut db, &format!("BEGIN; SELECT 1 FROM room_counters WHERE room_id = '{held}' FOR UPDATE")).await;
    assert_eq!(socket.say(&held, "held", "this is held").await["status"], "QUEUED");
    for number in 0..10 {
        assert_eq!(socket.say(&free, &number.to_string(), "this is free").await["status"], "QUEUED");
    }
    settled(&bob, &free, 10).await;
    until(SETTLED_WITHIN, || async { retried(&system).await >= 1.0 }).await;
    assert!(bob.history(&held).await.is_empty());
    assert!(dead_letters(&system).await.is_empty(), "it has the whole ladder before it");
    // What comes later is in nobody's way while the other one waits for its next attempt.
    assert_eq!(socket.say(&free, "later", "this is later").await["status"], "QUEUED");
    settled(&bob, &free, 11).await;
    run(&mut db, "COMMIT").await;
    settled(&bob, &held, 1).await;
    assert!(dead_letters(&system).await.is_empty());
    system.assert_healthy();
}

#[tokio::test]
async fn a_table_that_somebody_locks_for_long_is_no_failure_of_any_event() {
    let (system, [alice, bob]) = one_shard().await;
    let room = alice.create_group(&[&bob]).await;
    let socket = alice.connect(system.gateway(0)).await;
    assert_eq!(socket.say(&room, "before", "this is before").await["status"], "QUEUED");
    settled(&bob, &room, 1).await;
    let mut db = database(&system).await;
    run(&mut db, "BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE").await;
    for number in 0..5 {
        assert_eq!(socket.say(&room, &number.to_string(), "this is meanwhile").await["status"], "QUEUED");
    }
    // Twice as many attempts in vain as convict an event that has nobody to blame but itself.
    until(Duration::from_mins(2), || async { interruptions(&system) >= 6 }).await;
    run(&mut db, "COMMIT").await;
    settled(&bob, &room, 6).await;
    assert!(retried(&system).await < 0.5, "no attempt is counted");
    assert!(dead_letters(&system).await.is_empty());
    system.assert_healthy();
}

/// A processor with deliberate defects. `TEST_DEFECT_BINARIES` names a directory that has one; else it is
/// built, apart from the others.
fn defective_processor() -> PathBuf {
    if let Some(directory) = std::env::var_os("TEST_DEFECT_BINARIES") {
        return PathBuf::from(directory).join("processor");
    }
    let directory = target_dir().join("defects");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "processor", "--features", "defects", "--target-dir"]).arg(&directory);
    let status = cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).status().unwrap();
    assert!(status.success(), "cannot build a processor with defects");
    directory.join("debug/processor")
}

/// Needs another build of the processor, so only in long runs.
#[tokio::test]
async fn an_event_that_kills_its_processors_ends_as_a_dead_letter_and_its_neighbours_are_done() {
    let processor = defective_processor().display().to_string();
    let system = SystemSpec::distributed(1, 0).env("QUEUE_SHARDS", "1").start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let (room, other) = (alice.create_group(&[&bob]).await, alice.create_group(&[&bob]).await);
    let socket = alice.connect(system.gateway(0)).await;
    for (place, content) in [(&room, "first"), (&room, "poison"), (&room, "last"), (&other, "elsewhere")] {
        assert_eq!(socket.say(place, content, content).await["status"], "QUEUED");
    }
    let mut spec = NodeSpec { program: processor.leak(), ..system.spec("processor", 0) };
    spec.env.insert("TEST_DEFECT".to_owned(), "AbortOnPoison".to_owned());
    let port = spec.env["PORT"].clone();
    let mut running = spec.spawn(&[]);
    let mut deaths = 0;
    while dead_letters(&system).await.is_empty() {
        if running.ended().is_some() {
            deaths += 1;
            assert!(deaths < 20, "it kills for ever; on port {port}");
            running = spec.spawn(&[]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(deaths, 7);
    let contents =
        |items: Vec<serde_json::Value>| items.into_iter().map(|item| item["content"].clone()).collect::<Vec<_>>();
    assert_eq!(contents(settled(&bob, &room, 2).await), ["first", "last"]);
    assert_eq!(contents(settled(&bob, &other, 1).await), ["elsewhere"]);
    let letters = dead_letters(&system).await;
    let headers = &letters[0]["properties"]["headers"];
    assert_eq!((&headers["x-cause"], &headers["x-kind"]), (&"crashes".into(), &"bug".into()), "{headers}");
    assert_eq!(headers["x-sender"], alice.id.as_str());
    assert!(running.ended().is_none(), "it lives on");
}
