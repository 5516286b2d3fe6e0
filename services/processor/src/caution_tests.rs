//! Events that kill: lives of a worker on an embedded engine, each ended by a panic that nothing
//! catches.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use broker::LetterQuery;
use domain::{JobId, MessageId, RoomId};
use futures_util::FutureExt as _;
use protocol::Change;
use protocol::wire::MessageSend;
use store::message::Page;
use testkit::management::Management;
use testkit::services::{RedisServer, fresh_postgres, fresh_rabbitmq, management_url};
use testkit::{PATIENCE, until};

use super::*;
use crate::bench::{Bench, receive};
use crate::worker::{BATCH_EVENTS, Orders};

/// Nothing more comes after so long.
const QUIET: Duration = Duration::from_millis(500);

/// Shards where events wait in several queues side by side.
const SHARDS: u16 = 4;

struct World {
    bench: Bench,
    room: RoomId,
}

impl std::ops::Deref for World {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

impl World {
    async fn new() -> Self {
        Self::over(&[]).await
    }

    /// Over these services, or embedded.
    async fn over(services: &[(&str, &str)]) -> Self {
        let bench = Bench::over(services).await;
        let room = bench.new_room().await;
        Self { bench, room }
    }

    async fn say(&self, contents: &[&str]) {
        self.say_in(self.room, contents).await;
    }

    async fn say_in(&self, room: RoomId, contents: &[&str]) {
        for (number, content) in contents.iter().enumerate() {
            self.hand_in(room, number, content).await.expect("confirmed");
        }
    }

    /// Says all of it before the first of it is confirmed: on RabbitMQ as one message.
    async fn say_at_once(&self, contents: &[&str]) {
        let confirms = contents.iter().enumerate().map(|(number, content)| self.hand_in(self.room, number, content));
        let confirms: Vec<broker::Confirm> = confirms.collect();
        for confirm in futures_util::future::join_all(confirms).await {
            confirm.expect("confirmed");
        }
    }

    fn hand_in(&self, room: RoomId, number: usize, content: &str) -> broker::Confirm {
        let name = format!("{room} {number} {content}");
        let name = name[name.len().saturating_sub(64)..].to_owned();
        let send = MessageSend {
            room_id: room.to_string(),
            content: content.to_owned(),
            client_msg_id: name.clone(),
            ..Default::default()
        };
        let job = JobId::from(MessageId::of(self.ann, &name));
        self.hand_over(room, job, Change::MessageSend(send), &self.parts.keys)
    }

    /// Takes what there is until it is quiet; false when something killed it.
    async fn live(&self) -> bool {
        let mut consumer = self.parts.broker.consume(0).await.expect("free");
        let mut caution = Caution::new(0);
        let life = async {
            while let Ok(batch) = tokio::time::timeout(QUIET, consumer.next_batch(200)).await {
                caution.take(&self.parts, &mut consumer, batch.expect("open")).await.expect("nothing is away");
            }
        };
        AssertUnwindSafe(life).catch_unwind().await.is_ok()
    }

    /// A process that works on all shards: until all that is to be stored is, or something kills it; false
    /// then.
    async fn live_on_all(&self, redis: &RedisServer, done: impl AsyncFn() -> bool) -> bool {
        let opening = (0..SHARDS).map(|shard| self.parts.broker.consume(shard));
        let consumers = futures_util::future::join_all(opening).await;
        let working = consumers.into_iter().zip(0..).map(async |(consumer, shard)| {
            let (mut consumer, mut caution) = (consumer.expect("free"), Caution::new(shard));
            loop {
                let batch = consumer.next_batch(200).await.expect("open");
                caution.take(&self.parts, &mut consumer, batch).await.expect("nothing is away");
            }
        });
        let all = futures_util::future::join_all(working);
        let life = async {
            // Whatever is not a killer is still being applied when the killer has its turn to be.
            redis.pause();
            tokio::time::sleep(QUIET).await;
            redis.resume();
            testkit::until(testkit::PATIENCE, || done()).await;
        };
        let both = async {
            tokio::select! {
                _ = all => {}
                () = life => {}
            }
        };
        let lived = AssertUnwindSafe(both).catch_unwind().await.is_ok();
        redis.resume();
        lived
    }

    async fn contents(&self) -> Vec<String> {
        self.contents_of(self.room).await
    }

    async fn contents_of(&self, room: RoomId) -> Vec<String> {
        let stored = self.parts.store.history(room, Page::Newest, 100).await.expect("reads");
        stored.into_iter().map(|message| message.content).collect()
    }

    async fn letters(&self) -> Vec<broker::DeadLetter> {
        self.parts.broker.dead_letters(&LetterQuery::first(10)).await.expect("an answer").letters
    }

    /// Somebody takes so many events and leaves them behind; who comes next, and they.
    async fn left_behind(&self, events: usize) -> (Consumer, Vec<Incoming>) {
        let mut held = self.parts.broker.consume(0).await.expect("free");
        receive(&mut held, events).await;
        drop(held);
        let mut consumer = self.parts.broker.consume(0).await.expect("free");
        let left = receive(&mut consumer, events).await;
        assert!(left.iter().all(|incoming| incoming.redelivered));
        (consumer, left)
    }

    /// Whether anything is still counted as begun.
    async fn is_anything_counted(&self) -> bool {
        let again = self.parts.store.begin_again(0, uuid::Uuid::max(), self.parts.clock.now()).await.expect("counts");
        self.parts.store.finish_again(0, uuid::Uuid::max()).await.expect("forgets");
        !again.alone.is_empty() || again.times > 1
    }
}

#[tokio::test]
async fn an_event_that_kills_takes_nobody_along_and_ends_as_a_dead_letter() {
    let world = World::new().await;
    world.say(&["a", "b", "poison", "c", "d"]).await;
    let mut deaths = 0;
    while !world.live().await {
        deaths += 1;
        assert!(deaths < 20, "it kills for ever");
        if deaths == 3 {
            assert_eq!(world.contents().await, ["a", "b"], "those before it are done one by one");
        }
    }
    // Once before anybody suspects anything, once more with the same head, and five times alone.
    assert_eq!(deaths, 7);
    assert_eq!(world.contents().await, ["a", "b", "c", "d"]);
    let letters = world.parts.broker.dead_letters(&LetterQuery::first(10)).await.expect("an answer").letters;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].header("x-cause"), letters[0].header("x-kind")), (Some("crashes"), Some("bug")));
    assert_eq!(letters[0].header("x-sender"), Some(world.ann.to_string().as_str()));
    assert!(!world.is_anything_counted().await);
}

#[tokio::test]
async fn two_that_kill_are_both_found() {
    let world = World::new().await;
    world.say(&["a", "poison", "b", "poison", "c"]).await;
    let mut deaths = 0;
    while !world.live().await {
        deaths += 1;
        assert!(deaths < 30, "it kills for ever");
    }
    assert_eq!(world.contents().await, ["a", "b", "c"]);
    let letters = world.parts.broker.dead_letters(&LetterQuery::first(10)).await.expect("an answer").letters;
    assert_eq!(letters.len(), 2);
}

#[tokio::test]
async fn two_that_kill_in_one_bundle_are_both_found_and_end_once() {
    let (world, _redis, _) = over_services("1").await;
    world.say_at_once(&["a", "poison", "b", "poison", "c"]).await;
    let mut consumer = world.parts.broker.consume(0).await.expect("free");
    let bundled = consumer.next_batch(1).await.expect("open");
    assert_eq!(bundled.len(), 5, "it is one message");
    consumer.close().await;
    let mut deaths = 0;
    while !world.live().await {
        deaths += 1;
        assert!(deaths < 20, "they kill for ever");
        assert!(world.letters().await.is_empty(), "before all of the bundle are done with");
    }
    // The second needs five deaths of its own, and none of the first again.
    assert!((11..=13).contains(&deaths), "{deaths}");
    assert_eq!(world.contents().await, ["a", "b", "c"]);
    let causes: Vec<_> =
        world.letters().await.iter().map(|letter| letter.header("x-cause").map(str::to_owned)).collect();
    assert_eq!(causes, [Some("crashes".to_owned()), Some("crashes".to_owned())]);
    assert!(!world.is_anything_counted().await);
}

/// Takes half a minute: each is given up after three attempts, and an attempt lasts as long as a statement may.
#[tokio::test]
async fn two_that_never_end_in_time_in_one_bundle_are_both_given_up_and_their_neighbours_are_stored() {
    const LIMIT: Duration = Duration::from_secs(90);
    let (world, _redis, postgres) = over_services("1").await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.content LIKE '%slow%' THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION slow()";
    let mut database = <sqlx::PgConnection as sqlx::Connection>::connect(&postgres).await.expect("connects");
    sqlx::raw_sql(slow).execute(&mut database).await.expect("made");
    world.say_at_once(&["a", "slow 1", "b", "slow 2", "c"]).await;
    let orders = Orders::default();
    let done = async {
        // Neither is retried before all of the bundle are done with.
        until(LIMIT, || async { world.parts.broker.depths().await.is_ok_and(|depths| depths.retry == 2) }).await;
        orders.stop.request();
    };
    let working = Box::pin(crate::worker::run(world.parts.clone(), 0, orders.clone()));
    tokio::join!(working, done);
    assert_eq!(world.contents().await, ["a", "b", "c"]);
}

#[tokio::test]
async fn what_only_calls_itself_a_bundle_is_one_dead_letter_and_its_neighbours_are_stored() {
    let rabbit = fresh_rabbitmq().await;
    let (world, _redis, _) = over_rabbit("1", &rabbit).await;
    let (_, vhost) = rabbit.rsplit_once('/').expect("a virtual host");
    let management = Management::new(&management_url().await, vhost);
    world.say(&["a"]).await;
    let is_routed =
        management.publish("chat.events", "high", &serde_json::json!({"type": "bundle"}), "Z2FyYmFnZQ==").await;
    assert!(is_routed);
    world.say(&["b"]).await;
    assert!(world.live().await);
    assert_eq!(world.contents().await, ["a", "b"]);
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].header("x-cause"), letters[0].header("x-event")), (Some("undecodable"), Some("bundle")));
    assert_eq!(&letters[0].body[..], b"garbage");
    assert!(world.live().await && world.letters().await.len() == 1, "once");
}

#[tokio::test]
async fn whoever_dies_otherwise_leaves_no_count_behind() {
    let world = World::new().await;
    world.say(&["a", "b", "c"]).await;
    for _ in 0..3 {
        let mut consumer = world.parts.broker.consume(0).await.expect("free");
        let held = consumer.next_batch(200).await.expect("open");
        assert_eq!(held.len(), 3, "it dies before it did anything");
    }
    assert!(world.live().await);
    assert_eq!(world.contents().await, ["a", "b", "c"]);
    assert!(!world.is_anything_counted().await);
}

/// A world over real services, its Redis and where its Postgres is.
async fn over_services(shards: &str) -> (World, RedisServer, String) {
    over_rabbit(shards, &fresh_rabbitmq().await).await
}

/// The same over this RabbitMQ.
async fn over_rabbit(shards: &str, rabbit: &str) -> (World, RedisServer, String) {
    let redis = RedisServer::start().await;
    let (postgres, redis_url) = (fresh_postgres().await, redis.url());
    let services = [("DATABASE_URL", &*postgres), ("REDIS_URL", &redis_url), ("RABBITMQ_URL", rabbit)];
    let world = World::over(&[&services[..], &[("QUEUE_SHARDS", shards)]].concat()).await;
    (world, redis, postgres)
}

#[tokio::test]
async fn a_killer_in_one_shard_takes_no_event_of_another_along() {
    let (world, redis, postgres) = over_services("4").await;
    let mut database = <sqlx::PgConnection as sqlx::Connection>::connect(&postgres).await.expect("connects");
    let mut rooms = vec![None; usize::from(SHARDS)];
    while rooms.iter().any(Option::is_none) {
        let room = world.new_room().await;
        rooms[usize::from(domain::shard::shard_of(room.0, SHARDS))] = Some(room);
    }
    let rooms: Vec<RoomId> = rooms.into_iter().flatten().collect();
    for (shard, room) in rooms.iter().enumerate() {
        let first = if shard == 2 { "poison" } else { "first" };
        world.say_in(*room, &[first, "a", "b", "c"]).await;
    }
    let done = async || {
        let mut stored = 0;
        for room in &rooms {
            stored += world.contents_of(*room).await.len();
        }
        stored + world.letters().await.len() == 4 * rooms.len()
    };
    let mut deaths = 0;
    while !Box::pin(world.live_on_all(&redis, &done)).await {
        deaths += 1;
        assert!(deaths < 20, "it kills for ever");
        let counted = "SELECT COUNT(*) FROM begun_jobs WHERE is_alone AND count > 0";
        let counted: i64 = sqlx::query_scalar(counted).fetch_one(&mut database).await.expect("an answer");
        assert!(counted <= 1, "after death {deaths} as many look guilty: {counted}");
    }
    assert_eq!(world.letters().await.len(), 1);
    for (shard, room) in rooms.iter().enumerate() {
        let all = ["first", "a", "b", "c"];
        assert_eq!(world.contents_of(*room).await, all[usize::from(shard == 2)..], "of shard {shard}");
    }
    assert!((5..=9).contains(&deaths), "{deaths}");
}

#[tokio::test]
async fn a_killer_whose_dead_letter_was_not_taken_is_not_applied_after_all() {
    let world = World::new().await;
    world.say(&["poison"]).await;
    let (_consumer, left) = world.left_behind(1).await;
    let killer = &left[0];
    for _ in 0..5 {
        let begun = Deaths::new(0).begin(&world.parts, killer).await;
        assert_eq!(begun.expect("counts"), Verdict::Apply);
    }
    let mut deaths = Deaths::new(0);
    for _ in 0..3 {
        let verdict = deaths.begin(&world.parts, killer).await.expect("counts");
        assert_eq!(verdict, Verdict::GiveUp { in_silence: false });
        deaths.survived(&world.parts, Deaths::name(killer)).await;
    }
}

#[tokio::test]
async fn whoever_was_begun_and_given_back_is_no_killer_however_often() {
    let world = World::new().await;
    world.say(&["a"]).await;
    let (_consumer, left) = world.left_behind(1).await;
    let event = &left[0];
    for life in 0..10 {
        let mut deaths = Deaths::new(0);
        for _ in 0..2 {
            assert_eq!(deaths.begin(&world.parts, event).await.expect("counts"), Verdict::Apply, "in life {life}");
            deaths.survived(&world.parts, Deaths::name(event)).await;
        }
    }
    assert!(!world.is_anything_counted().await);
}

#[tokio::test]
async fn whoever_is_let_go_in_the_midst_of_an_event_leaves_no_count_behind() {
    let (world, _redis, postgres) = over_services("1").await;
    world.say(&["a", "b"]).await;
    let (consumer, left) = world.left_behind(2).await;
    let (first, now) = (Deaths::name(&left[0]), world.parts.clock.now());
    world.parts.store.begin_again(0, first, now).await.expect("somebody died at this head");
    world.parts.store.begin_alone(0, first, now).await.expect("and of this event");
    consumer.close().await;
    let pool = sqlx::PgPool::connect(&postgres).await.expect("connects");
    let counted = async || {
        let counts = "SELECT count FROM begun_jobs WHERE job_id = $1 ORDER BY is_alone";
        sqlx::query_scalar::<_, i64>(counts).bind(first).fetch_all(&pool).await.expect("an answer")
    };
    for life in 0..3 {
        let orders = Orders::default();
        let mut held = pool.begin().await.expect("begins");
        sqlx::query("SELECT 1 FROM room_counters FOR UPDATE").execute(&mut *held).await.expect("held");
        let letting_go = async {
            until(PATIENCE, || async { counted().await == [2, 2] }).await;
            orders.let_go.request();
            orders.stop.request();
        };
        tokio::join!(crate::worker::run(world.parts.clone(), 0, orders.clone()), letting_go);
        held.rollback().await.expect("let loose");
        assert_eq!(counted().await, [1, 1], "after life {life}");
    }
    let orders = Orders::default();
    let done = async {
        until(PATIENCE, || async { world.contents().await == ["a", "b"] && counted().await.is_empty() }).await;
        orders.stop.request();
    };
    tokio::join!(crate::worker::run(world.parts.clone(), 0, orders.clone()), done);
    assert!(world.letters().await.is_empty());
}

#[tokio::test]
async fn of_a_long_backlog_no_more_than_a_batch_goes_one_by_one() {
    let world = World::new().await;
    let all = BATCH_EVENTS + 50;
    world.say(&vec!["a"; all]).await;
    let (_consumer, left) = world.left_behind(all).await;
    let now = world.parts.clock.now();
    world.parts.store.begin_again(0, Deaths::name(&left[0]), now).await.expect("somebody died at this head");
    let mut deaths = Deaths::new(0);
    deaths.look(&world.parts, &left[..BATCH_EVENTS]).await.expect("looks");
    let suspected = left.iter().filter(|incoming| deaths.is_suspected(incoming)).count();
    assert_eq!(suspected, BATCH_EVENTS, "the killer, if there is one, was in the first batch");
}

#[tokio::test]
async fn what_was_begun_alone_and_not_finished_goes_alone_in_its_place_and_nothing_else_does() {
    let world = World::new().await;
    world.say(&["a", "b", "c", "d"]).await;
    let (mut consumer, left) = world.left_behind(4).await;
    let now = world.parts.clock.now();
    world.parts.store.begin_alone(0, Deaths::name(&left[1]), now).await.expect("counts");
    let mut deaths = Deaths::new(0);
    deaths.look(&world.parts, &left).await.expect("looks");
    let suspected: Vec<bool> = left.iter().map(|incoming| deaths.is_suspected(incoming)).collect();
    assert_eq!(suspected, [false, true, false, false]);
    Caution::new(0).take(&world.parts, &mut consumer, left).await.expect("applied");
    assert_eq!(world.contents().await, ["a", "b", "c", "d"]);
    assert!(!world.is_anything_counted().await);
}

#[tokio::test]
async fn a_redis_that_takes_nothing_keeps_nothing_from_being_stored() {
    let (world, redis, _) = over_services("1").await;
    world.say(&["a"]).await;
    redis.command("CONFIG SET maxmemory 1").await.expect("set");
    let mut consumer = world.parts.broker.consume(0).await.expect("free");
    let batch = consumer.next_batch(200).await.expect("open");
    let taken = Box::pin(Caution::new(0).take(&world.parts, &mut consumer, batch)).await;
    assert!(matches!(taken, Err(BatchError::Dependency(_))), "it cannot be told yet: {taken:?}");
    assert_eq!(world.contents().await, ["a"]);
    redis.command("CONFIG SET maxmemory 0").await.expect("set");
    consumer.close().await;
    assert!(world.live().await);
    assert_eq!(world.contents().await, ["a"], "once");
    assert!(world.letters().await.is_empty());
}
