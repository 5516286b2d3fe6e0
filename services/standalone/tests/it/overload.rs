//! More than the system can do: what was accepted is done, the rest is refused, nothing grows without
//! bound, and afterwards everything is as before.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::{Node, System, SystemSpec};
use testkit::proxy::{Proxy, Weather};
use testkit::services::fresh_postgres;
use testkit::{PATIENCE, until};
use tokio::time::{Instant, interval, sleep};

use crate::scene::{SHARDS, SLACK, dead_letters, settled, until_metric};

/// Over so many waiting events messages are refused here, where it is said.
const LIMIT: f64 = 1_000.0;
/// So many seconds of work may wait where nothing is said; several gateways, a busy machine and what is on its way
/// make it more.
const WORK_S: f64 = 6.0;
const WAITING_WORK_S: f64 = 2.5 * WORK_S;
/// What processors have taken and not settled, of four shards.
const TAKEN: f64 = 4.0 * 256.0;
/// Over so many waiting messages typing is shed, whatever the limit is.
const SHED_OVER: usize = 10_000;
/// The bounds of a hint.
const HINT_MS: std::ops::RangeInclusive<i64> = 500..=30_000;
/// By the contract normal latency is back within that after the load.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// So many times what was done was offered at least, over the whole time; unoptimised programs on a busy machine
/// leave less of it to those who offer.
const OVERLOADED: f64 = if cfg!(debug_assertions) { 2.0 } else { 3.0 };
/// So many times what is done is offered at any moment: more, because it does not all get out in time.
const OFFERED: f64 = 4.0;

/// Sent by one talker and not answered at most: what lies in buffers on the way is not offered yet, and would
/// be load after the load's end.
const UNANSWERED: usize = 1_000;

/// How long the load lasts.
fn load_lasts() -> Duration {
    Duration::from_secs(if std::env::var_os("TEST_FULL").is_some() { 60 } else { 10 })
}

/// One who talks as fast as told, in a room with one who listens.
struct Talker {
    person: Person,
    socket: Socket,
    room: String,
    sent: Vec<(String, i64)>,
}

impl Talker {
    async fn say(&mut self) {
        let name = format!("m{}", self.sent.len());
        let data = json!({"roomId": self.room, "content": format!("this is {name}"), "clientMsgId": name});
        let id = self.socket.send("message.send", data).await;
        self.sent.push((name, id));
    }

    /// Says something and waits until the listener has it; `None` when it was refused.
    async fn latency(&mut self, listener: &Socket) -> Option<Duration> {
        let started = Instant::now();
        self.say().await;
        let (name, id) = self.sent.last().unwrap().clone();
        if self.socket.ack(id).await["status"] != "QUEUED" {
            return None;
        }
        listener.event("message.delivered", |it| it["clientMsgId"] == name && it["roomId"] == self.room).await;
        Some(started.elapsed())
    }
}

struct Scene {
    system: System,
    listener: Person,
    /// Follows all rooms all the time.
    _ears: Socket,
    talkers: Vec<Talker>,
}

impl Scene {
    async fn start(spec: SystemSpec, limit: Option<f64>) -> Self {
        let limits = [("LIMIT_USER_EVENTS_PER_SEC", "0"), ("LIMIT_USER_BURST", "0")];
        let spec = limits.into_iter().fold(spec, |spec, (name, value)| spec.env(name, value));
        let spec = limit.into_iter().fold(spec, |spec, limit| spec.env("LIMIT_QUEUED_EVENTS", &limit.to_string()));
        let system = spec.start().await;
        let people = system.people(["Ann", "Ben", "Cem", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida"]).await;
        let [listener, rest @ ..] = people;
        let mut talkers = Vec::new();
        for (number, person) in rest.into_iter().enumerate() {
            let room = person.create_group(&[&listener]).await;
            let socket = person.connect(system.gateway(number)).await;
            talkers.push(Talker { person, socket, room, sent: Vec::new() });
        }
        let ears = listener.connect(system.gateway(0)).await;
        Self { system, listener, _ears: ears, talkers }
    }

    /// The slowest but one of sixty messages: about the 99th percentile. `None`: one of them was refused.
    async fn p99(&mut self) -> Option<Duration> {
        // One who has not heard the whole load finds what is new at once.
        let ears = self.listener.connect(self.system.gateway(0)).await;
        let mut latencies = Vec::new();
        for number in 0..60 {
            let talker = number % self.talkers.len();
            latencies.push(self.talkers[talker].latency(&ears).await?);
            sleep(Duration::from_millis(15)).await;
        }
        latencies.sort_unstable();
        Some(latencies[latencies.len() - 2])
    }
}

async fn stored(system: &System) -> f64 {
    let appliers: Vec<&Node> =
        if system.processors.is_empty() { vec![system.applier()] } else { system.processors.iter().collect() };
    let counts = appliers.iter().map(|node| node.metric("chat_events_processed_total", &["outcome=\"stored\""]));
    join_all(counts).await.into_iter().sum()
}

/// The resident memory of each program, MiB.
fn memory_mib(system: &System) -> Vec<f64> {
    let of = |node: &Node| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    system.all().map(of).collect()
}

/// What was seen from outside during the load.
#[derive(Debug, Default)]
struct Seen {
    /// Of each program the most in the first and in the second half of the load, MiB.
    halves: [Vec<f64>; 2],
    /// The most that waited in the high class, as gateways saw it.
    deepest: f64,
    /// The most that the broker had in all of its queues, as it says itself.
    held: f64,
    refusing: bool,
}

/// Events in the broker, waiting or taken and not settled; `None`: it does not say.
async fn held(system: &System) -> Option<f64> {
    let depths = system.management().try_queue_depths().await.ok()?;
    Some(depths.values().map(|it| it.messages_ready + it.messages_unacknowledged).sum::<u64>() as f64)
}

async fn watch(system: &System, lasts: Duration, over: &AtomicBool) -> Seen {
    let (mut seen, started) = (Seen::default(), Instant::now());
    while !over.load(Ordering::Relaxed) {
        let half = &mut seen.halves[usize::from(started.elapsed() > lasts / 2)];
        for (at, mib) in memory_mib(system).into_iter().enumerate() {
            half.resize(half.len().max(at + 1), 0.0);
            half[at] = half[at].max(mib);
        }
        let high = system.gateway(0).metric("chat_queue_depth", &["class=\"high\""]).await;
        let overloaded = system.gateway(0).metric("chat_overloaded", &["class=\"high\""]).await;
        (seen.deepest, seen.refusing) = (seen.deepest.max(high), seen.refusing || overloaded > 0.5);
        if system.is_distributed() {
            seen.held = seen.held.max(held(system).await.unwrap_or(0.0));
        }
        sleep(Duration::from_millis(300)).await;
    }
    seen
}

/// Panics unless all that was acked is stored once, and the rest was refused in a way that is honest.
async fn assert_kept(scene: &Scene) -> (usize, usize) {
    let (mut queued_in_all, mut refused_in_all) = (0, 0);
    for talker in &scene.talkers {
        let (mut queued, mut unsure) = (HashMap::new(), HashSet::new());
        for (name, id) in &talker.sent {
            let ack = talker.socket.ack(*id).await;
            match ack["code"].as_str() {
                None => drop(queued.insert(name.as_str(), ack["messageId"].clone())),
                Some("OVERLOADED") => {
                    assert!(ack["retryAfterMs"].as_i64().is_some_and(|hint| HINT_MS.contains(&hint)), "{ack}");
                    assert_eq!(ack["clientMsgId"], name.as_str());
                    refused_in_all += 1;
                }
                Some("UNAVAILABLE") => drop(unsure.insert(name.as_str())),
                Some(_) => panic!("refused for another reason: {ack}"),
            }
        }
        let history = settled(&scene.listener, &talker.room, queued.len()).await;
        let mut names = HashSet::new();
        for item in &history {
            let name = item["clientMsgId"].as_str().unwrap();
            assert!(names.insert(name), "stored twice: {item}");
            match queued.get(name) {
                Some(id) => assert_eq!(&item["messageId"], id),
                None => assert!(unsure.contains(name), "refused, and stored: {item}"),
            }
        }
        let lost: Vec<_> = queued.keys().filter(|name| !names.contains(*name)).collect();
        assert!(lost.is_empty(), "acked and lost: {lost:?}");
        assert_eq!(history[0]["senderId"], talker.person.id.as_str());
        queued_in_all += queued.len();
    }
    (queued_in_all, refused_in_all)
}

/// How much is offered, messages a second of all talkers: a multiple of what is done of it, and more as long
/// as nothing is refused.
struct Throttle {
    per_second: AtomicU64,
    over: AtomicBool,
}

impl Throttle {
    /// Follows what the system does until the time is up; how much that was.
    async fn follow(&self, system: &System, lasts: Duration) -> f64 {
        let (started, before) = (Instant::now(), stored(system).await);
        let (mut last, mut looked) = (before, started);
        while started.elapsed() < lasts {
            sleep(Duration::from_millis(500)).await;
            let now = stored(system).await;
            let done_per_second = (now - last) / looked.elapsed().as_secs_f64();
            (last, looked) = (now, Instant::now());
            let refusing = system.gateway(0).metric("chat_overloaded", &["class=\"high\""]).await > 0.5;
            let offered = self.per_second.load(Ordering::Relaxed) as f64;
            let more = if refusing { offered } else { (offered * 1.5).min(50_000.0) };
            self.per_second.store(more.max(OFFERED * done_per_second) as u64, Ordering::Relaxed);
        }
        self.over.store(true, Ordering::Relaxed);
        stored(system).await - before
    }

    /// Sends as fast as told until the time is up, whatever becomes of it.
    async fn talk(&self, talker: &mut Talker, talkers: usize) {
        let (mut due, mut tick) = (0.0, interval(Duration::from_millis(10)));
        let mut last = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            tick.tick().await;
            due += self.per_second.load(Ordering::Relaxed) as f64 / talkers as f64 * last.elapsed().as_secs_f64();
            last = Instant::now();
            // What could not be sent in time is not made up for.
            due = due.min(500.0);
            while due >= 1.0 && talker.sent.len() < talker.socket.answered() + UNANSWERED {
                talker.say().await;
                due -= 1.0;
            }
        }
    }
}

/// `limit`: of waiting events; `None`: what it is when nobody says, which follows what is drained.
async fn three_times_its_capacity(spec: SystemSpec, limit: Option<f64>) {
    let mut scene = Scene::start(spec, limit).await;
    let normal = scene.p99().await.expect("nothing is refused in quiet times");
    let before: usize = scene.talkers.iter().map(|talker| talker.sent.len()).sum();

    let throttle = Throttle { per_second: AtomicU64::new(1_000), over: AtomicBool::new(false) };
    let (system, count) = (&scene.system, scene.talkers.len());
    let talking = scene.talkers.iter_mut().map(|talker| throttle.talk(talker, count));
    let watching = watch(system, load_lasts(), &throttle.over);
    let (_, done, seen) = tokio::join!(join_all(talking), throttle.follow(system, load_lasts()), watching);
    let ended = Instant::now();
    let offered = scene.talkers.iter().map(|talker| talker.sent.len()).sum::<usize>() - before;

    let allowed = (3 * normal).max(normal + Duration::from_millis(150));
    let (back, returned) = loop {
        // Sixty messages take their time where the store is slow: it was back when the first of them was sent.
        let late = ended.elapsed();
        assert!(
            late < BACK_WITHIN + 10 * SLACK,
            "{late:?} after the load, normal is {normal:?}; done {done:.0} of {offered}, {seen:?}"
        );
        let window = scene.p99().await;
        if let Some(p99) = window.filter(|p99| *p99 <= allowed) {
            break (p99, late);
        }
        sleep(Duration::from_millis(100)).await;
    };
    let (queued, refused) = assert_kept(&scene).await;
    let report = format!(
        "offered {offered}, done meanwhile {done:.0}, queued {queued}, refused {refused}, normal {normal:?}, \
         after {back:?} within {returned:?}, {seen:?}"
    );
    assert!(offered as f64 > OVERLOADED * done, "it was not overloaded: {report}");
    assert!(refused > 0 && seen.refusing, "nothing was refused: {report}");
    let work = WAITING_WORK_S * done / load_lasts().as_secs_f64();
    let bound = limit.map_or(work, |limit| 4.0 * limit).max(4.0 * LIMIT);
    assert!(seen.deepest < bound, "too many waited: {report}");
    for (first, second) in seen.halves[0].iter().zip(&seen.halves[1]) {
        assert!(*second < first * 1.25 + 32.0, "memory grows: {report}");
        assert!(*second < 600.0, "too much memory: {report}");
    }
    if scene.system.is_distributed() {
        assert!(seen.held > 0.0 && seen.held < bound + TAKEN, "the broker held too many: {report}");
        assert!(dead_letters(&scene.system).await.is_empty());
    }
    scene.system.assert_healthy();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_times_its_capacity_what_was_acked_is_done_and_the_rest_refused_distributed() {
    three_times_its_capacity(SystemSpec::distributed(2, 2), Some(LIMIT)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_times_its_capacity_what_was_acked_is_done_and_the_rest_refused_all_in_one() {
    three_times_its_capacity(SystemSpec::all_in_one(), Some(LIMIT)).await;
}

/// Several gateways, none of which sees all that comes, know how much is drained, and the limit is far below
/// what the operator allows. Thousands wait then, which unoptimised programs on a busy machine work off too
/// slowly: only in long runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_times_its_capacity_the_limit_that_nobody_set_follows_what_is_drained() {
    // However fast the machine is: processors wait for the store, and are slower than those who talk.
    let url = fresh_postgres().await;
    let store = Proxy::before(&url).await;
    let spec = SystemSpec::distributed(2, 2).env("DATABASE_URL", &store.in_front_of(&url));
    store.set(Weather::Slow { delay: Duration::from_millis(15), bytes_per_s: 100_000_000 });
    three_times_its_capacity(spec, None).await;
}

/// Sends until one is refused; the refusal, and the names of those that were queued before.
async fn until_refused(socket: &Socket, room: &str, queued: &mut Vec<String>) -> Value {
    for _ in 0..100 {
        let first = queued.len();
        let names: Vec<String> = (first..first + 100).map(|number| format!("m{number}")).collect();
        let acks = join_all(names.iter().map(|name| socket.say(room, name, "waits"))).await;
        let refusal = acks.iter().find(|ack| ack["status"] != "QUEUED").cloned();
        queued.extend(names.into_iter().zip(&acks).filter(|(_, ack)| ack["status"] == "QUEUED").map(|(name, _)| name));
        if let Some(refusal) = refusal {
            return refusal;
        }
        sleep(Duration::from_millis(300)).await;
    }
    panic!("nothing is refused; {} are queued", queued.len());
}

#[tokio::test]
async fn over_the_limit_messages_are_refused_with_a_hint_and_what_has_room_is_not() {
    let spec = SystemSpec::distributed(1, 1).env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_QUEUED_EVENTS", "500");
    let system = spec.start().await;
    let [ann, ben] = system.people(["Ann", "Ben"]).await;
    let room = ann.create_group(&[&ben]).await;
    let socket = ann.connect(system.gateway(0)).await;
    assert_eq!(socket.say(&room, "first", "hello").await["status"], "QUEUED");
    let message = settled(&ben, &room, 1).await[0]["messageId"].clone();
    system.processors[0].pause();

    let mut queued = Vec::new();
    let refusal = until_refused(&socket, &room, &mut queued).await;
    assert_eq!((&refusal["status"], &refusal["code"]), (&json!("REJECTED"), &json!("OVERLOADED")), "{refusal}");
    assert!(refusal["retryAfterMs"].as_i64().is_some_and(|hint| HINT_MS.contains(&hint)), "{refusal}");
    assert!(queued.len() > 400 && queued.len() < 1_500, "{} of about 500 were taken", queued.len());
    until_metric(system.gateway(0), "chat_overloaded", &["class=\"high\""], 1.0).await;
    assert!(system.gateway(0).metric("chat_limited_total", &["limit=\"queued_events\""]).await > 0.0);

    // By REST the same, once the api has seen it.
    until(PATIENCE, || async {
        let form = json!({"content": "by REST", "clientMsgId": "rest"});
        let answer = ann.rest.post(&format!("/api/v1/conversations/{room}/messages"), form).await;
        assert!(matches!((answer.status, answer.code()), (202, _) | (503, "OVERLOADED")), "{}", answer.text);
        if answer.status == 503 {
            assert!(answer.retry_after_s.is_some_and(|wait| (1..=30).contains(&wait)), "{:?}", answer.retry_after_s);
        }
        answer.status == 503
    })
    .await;

    // The medium class has room, and what is direct needs none.
    let edit = json!({"roomId": room, "messageId": message, "content": "edited"});
    assert_eq!(socket.request("message.edit", edit).await["status"], "QUEUED");
    assert_eq!(socket.request("message.read", json!({"roomId": room, "seq": 1})).await["status"], "OK");

    // Worked off, it takes messages again, and what was acked is there.
    system.processors[0].resume();
    until(Duration::from_mins(1), || async {
        system.gateway(0).metric("chat_overloaded", &["class=\"high\""]).await < 0.5
    })
    .await;
    assert_eq!(socket.say(&room, "afterwards", "hello").await["status"], "QUEUED");
    until(Duration::from_mins(1), || async {
        let stored = ben.history(&room).await;
        let names: HashSet<&str> = stored.iter().map(|item| item["clientMsgId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), stored.len(), "stored twice");
        queued.iter().all(|name| names.contains(name.as_str())) && names.contains("afterwards")
    })
    .await;
    assert!(dead_letters(&system).await.is_empty());
    system.assert_healthy();
}

/// Messages of one person, all of which are taken.
async fn say_many(socket: &Socket, room: &str, count: usize) {
    for first in (0..count).step_by(200) {
        let names: Vec<String> = (first..first + 200).map(|number| format!("m{number}")).collect();
        let acks = join_all(names.iter().map(|name| socket.say(room, name, "waits"))).await;
        assert!(acks.iter().all(|ack| ack["status"] == "QUEUED"), "{:?}", acks.last());
    }
}

/// Typing, seen from outside: acked, and whether the others are told of it. `limit`: of waiting events;
/// without one, so many wait that typing is shed and messages are not refused.
#[rstest]
#[case::while_more_than_ten_thousand_wait(None)]
#[case::while_messages_are_refused(Some(500))]
#[tokio::test]
async fn typing_is_left_out_and_comes_back(#[case] limit: Option<u32>) {
    let spec = SystemSpec::distributed(1, 0).env("LIMIT_USER_EVENTS_PER_SEC", "0");
    let spec = limit.into_iter().fold(spec, |spec, limit| spec.env("LIMIT_QUEUED_EVENTS", &limit.to_string()));
    let mut system = spec.start().await;
    let [ann, ben, cem] = system.people(["Ann", "Ben", "Cem"]).await;
    let room = ann.create_group(&[&ben, &cem]).await;
    let (first, witness) = (ann.connect(system.gateway(0)).await, ben.connect(system.gateway(0)).await);
    let later = cem.connect(system.gateway(0)).await;
    let typing = json!({"roomId": room, "isTyping": true});
    let shed = async |system: &System| system.gateway(0).metric("chat_events_shed_total", &[]).await;

    if limit.is_some() {
        let refusal = until_refused(&first, &room, &mut Vec::new()).await;
        assert_eq!(refusal["code"], "OVERLOADED", "{refusal}");
    } else {
        say_many(&first, &room, SHED_OVER + 200).await;
        until_metric(system.gateway(0), "chat_queue_depth", &["class=\"high\""], SHED_OVER as f64 + 1.0).await;
        assert_eq!(first.say(&room, "one more", "waits").await["status"], "QUEUED");
    }
    let before = shed(&system).await;
    assert_eq!(first.request("typing", typing.clone()).await["status"], "OK");
    assert!(shed(&system).await > before, "typing is not shed");
    let low = system.management().queue_depths().await;
    let low: Vec<_> =
        low.into_iter().filter(|(name, depth)| name.contains(".low") && depth.messages_ready > 0).collect();
    assert!(low.is_empty(), "it was published: {low:?}");

    // Worked off, others are told who types, and nothing of what was shed.
    system.add_processor().await;
    until(Duration::from_mins(1), || async {
        assert_eq!(later.request("typing", typing.clone()).await["status"], "OK");
        sleep(Duration::from_millis(500)).await;
        witness.events("typing").iter().any(|it| it["userId"] == cem.id.as_str())
    })
    .await;
    let shard = domain::shard::shard_of(room.parse().unwrap(), SHARDS);
    let asked = format!("HGET chat:drained high.{shard}");
    let drained = async || system.redis().command(&asked).await.unwrap_or_default();
    let drained = async || drained().await.lines().nth(1).and_then(|it| it.parse::<usize>().ok()).unwrap_or(0);
    until(PATIENCE, || async { drained().await > 400 }).await;
    let told = witness.events("typing");
    assert!(told.iter().all(|it| it["userId"] == cem.id.as_str()), "{told:?}");
    assert!(dead_letters(&system).await.is_empty());
    system.assert_healthy();
}
