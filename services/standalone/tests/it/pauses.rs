//! How long deliveries pause while processors come and go: in every room, by the clock of who waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use testkit::client::{Person, Socket};
use testkit::cluster::{Node, Removal, System, SystemSpec};
use testkit::until;
use tokio::time::{Instant, interval};

use crate::scene::{SETTLED_WITHIN, SLACK, a_room_on_every_shard, dead_letters, until_metric};

/// A room in which one thing is said after another, each once the one before was delivered.
const BETWEEN: Duration = Duration::from_millis(20);

/// Two processors with two shards each, and a room on every shard.
struct Scene {
    system: System,
    rooms: Vec<String>,
    sender: Socket,
    witness: Socket,
    _people: [Person; 2],
}

impl Scene {
    async fn new() -> Self {
        let spec = SystemSpec::distributed(1, 2).env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_USER_BURST", "0");
        let system = spec.start().await;
        let people = system.people(["Alice", "Bob"]).await;
        let rooms = a_room_on_every_shard(&people[0], &[&people[1]]).await;
        let gateway = system.gateway(0);
        let (sender, witness) = (people[0].connect(gateway).await, people[1].connect(gateway).await);
        for processor in &system.processors {
            until_metric(processor, "chat_shards_owned", &[], 2.0).await;
        }
        Self { system, rooms, sender, witness, _people: people }
    }

    /// In each room the longest time from what was said to its delivery, while `change` happens to the
    /// system and until it has settled.
    async fn longest(&mut self, change: impl AsyncFnOnce(&mut System)) -> Vec<Duration> {
        let over = AtomicBool::new(false);
        let Self { system, rooms, sender, witness, .. } = self;
        let talking = rooms.iter().map(|room| talk(sender, witness, room, &over));
        let change = async {
            // All rooms are under way.
            tokio::time::sleep(10 * BETWEEN).await;
            change(system).await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(join_all(talking), change).0
    }

    async fn judge(&self) {
        assert!(dead_letters(&self.system).await.is_empty());
        assert!(self.sender.is_open() && self.witness.is_open());
        self.system.assert_healthy();
    }
}

async fn talk(sender: &Socket, witness: &Socket, room: &str, over: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (name, asked) = (format!("{number} {room}"), Instant::now());
        assert_eq!(sender.say(room, &name, "how long?").await["status"], "QUEUED");
        witness.event("message.delivered", |told| told["clientMsgId"] == name.as_str()).await;
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(BETWEEN).await;
    }
    longest
}

async fn owns(processor: &Node, shards: f64) {
    until(SETTLED_WITHIN, || async { processor.try_metric("chat_shards_owned", &[]).await == Some(shards) }).await;
}

#[allow(clippy::print_stderr, reason = "shows what was measured to whoever reads the documents")]
fn show(what: &str, pauses: &[Duration]) {
    eprintln!("{what}: {pauses:?}");
}

/// Panics unless every room was told again within `limit`.
fn assert_within(what: &str, pauses: &[Duration], limit: Duration) {
    show(what, pauses);
    assert!(pauses.iter().all(|pause| *pause <= limit), "{what}: {pauses:?}, not within {limit:?}");
}

#[tokio::test]
async fn when_a_processor_is_killed_deliveries_of_its_rooms_pause_for_two_seconds_at_most() {
    let mut scene = Scene::new().await;
    let pauses = scene
        .longest(async |system| {
            system.processors[0].kill9().await;
            owns(&system.processors[1], 4.0).await;
        })
        .await;
    assert_within("a processor is killed", &pauses, Duration::from_secs(2) + SLACK);
    scene.system.processors[0].start_again().await;
    scene.judge().await;
}

#[tokio::test]
async fn when_a_processor_stands_still_deliveries_of_its_rooms_pause_for_twelve_seconds_at_most() {
    let mut scene = Scene::new().await;
    let pauses = scene
        .longest(async |system| {
            system.processors[0].pause();
            owns(&system.processors[1], 4.0).await;
        })
        .await;
    // The broker gives up a connection of which it heard nothing for two to three heartbeats of 4 s.
    assert_within("a processor stands still", &pauses, Duration::from_secs(12) + SLACK);
    assert!(pauses.iter().any(|pause| *pause > Duration::from_secs(4)), "it had rooms: {pauses:?}");
    // It comes back to what is not its own any more.
    let pauses = scene
        .longest(async |system| {
            system.processors[0].resume();
            join_all(system.processors.iter().map(|processor| owns(processor, 2.0))).await;
        })
        .await;
    assert_within("it goes on", &pauses, Duration::from_secs(2) + SLACK);
    scene.judge().await;
}

/// Somebody says so much in each room, ten times a second: half of it would be more within the pause than the
/// least limit of waiting events.
const EACH_TIME: usize = 8;

/// Waits until the witness has what was said in each room under that number.
async fn delivered(witness: &Socket, rooms: &[String], number: usize) {
    for room in rooms {
        let name = format!("m{number} {room}");
        witness.event("message.delivered", |told| told["clientMsgId"] == name.as_str()).await;
    }
}

#[tokio::test]
async fn while_a_processor_stands_still_nothing_that_comes_at_a_steady_pace_is_refused() {
    let mut scene = Scene::new().await;
    let Scene { system, rooms, sender, witness, .. } = &mut scene;
    let (over, said) = (AtomicBool::new(false), AtomicUsize::new(0));
    let talking = async {
        let mut pace = interval(Duration::from_millis(100));
        while !over.load(Ordering::Relaxed) {
            pace.tick().await;
            let first = said.fetch_add(EACH_TIME, Ordering::Relaxed);
            let names: Vec<String> = (first..first + EACH_TIME).map(|number| format!("m{number}")).collect();
            let says = rooms.iter().flat_map(|room| names.iter().map(move |name| (room, format!("{name} {room}"))));
            let acks = says.map(async |(room, name)| sender.say(room, &name, "at a steady pace").await);
            for ack in join_all(acks).await {
                assert_eq!(ack["status"], "QUEUED", "{ack}");
            }
        }
    };
    let hang = async {
        tokio::time::sleep(10 * BETWEEN).await;
        system.processors[0].pause();
        owns(&system.processors[1], 4.0).await;
        // The broker gives up its connection later; and what waited then is worked off under load.
        delivered(witness, rooms, said.load(Ordering::Relaxed) - 1).await;
        delivered(witness, rooms, said.load(Ordering::Relaxed) - 1).await;
        over.store(true, Ordering::Relaxed);
        system.processors[0].resume();
    };
    tokio::join!(talking, hang);
    let said = said.into_inner();
    assert!(said * 2 > 1_500, "{said} in each room would wait wherever there is a limit at all");
    delivered(witness, rooms, said - 1).await;
    scene.judge().await;
}

#[tokio::test]
async fn when_processors_are_added_and_removed_nobody_waits_for_a_delivery_for_a_second() {
    let mut scene = Scene::new().await;
    let pauses = scene
        .longest(async |system| {
            system.add_processor().await;
            until_metric(&system.processors[2], "chat_shards_owned", &[], 1.0).await;
        })
        .await;
    assert_within("one is added", &pauses, Duration::from_secs(1) + SLACK);
    for (left, shards) in [(2, [2.0, 2.0].as_slice()), (1, &[4.0])] {
        let pauses = scene
            .longest(async |system| {
                let ended = system.remove_processor(0, Removal::Terminate(SETTLED_WITHIN)).await;
                assert!(ended.is_some_and(|ended| ended.success()));
                for (processor, shards) in system.processors.iter().zip(shards) {
                    owns(processor, *shards).await;
                }
            })
            .await;
        assert_within(&format!("one is removed, {left} are left"), &pauses, Duration::from_secs(1) + SLACK);
    }
    scene.judge().await;
}
