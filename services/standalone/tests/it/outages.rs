//! Dependencies that go away and come back.

use std::time::Duration;

use serde_json::Value;
use testkit::client::{Person, Socket};
use testkit::cluster::{Node, System, SystemSpec};
use testkit::services::{PrivatePostgres, PrivateRabbit};
use testkit::{PATIENCE, until};
use tokio::time::Instant;

use crate::scene::{Steady, assert_exactly_once, assert_seen_live, dead_letters, settled};

const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// Two seconds by the contract, and something for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_millis(2500);

/// Panics unless the message is refused as the contract says while the broker is away.
async fn assert_unavailable(socket: &Socket, room: &str, name: &str) {
    let asked = Instant::now();
    let ack = socket.say(room, name, &format!("this is {name}")).await;
    assert_eq!((&ack["status"], &ack["code"]), (&Value::from("REJECTED"), &Value::from("UNAVAILABLE")), "{ack}");
    assert!(ack["retryAfterMs"].as_i64().is_some_and(|wait| wait > 0), "{ack}");
    assert_eq!(ack["clientMsgId"], name);
    assert!(asked.elapsed() < REFUSED_WITHIN, "refused only after {:?}", asked.elapsed());
}

#[tokio::test]
async fn without_the_broker_nothing_is_queued_and_the_service_recovers_by_itself() {
    let rabbit = PrivateRabbit::start().await;
    let spec = SystemSpec::distributed(1, 1).env("RABBITMQ_URL", &rabbit.url());
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let (socket, witness) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(0)).await);
    let mut steady = Steady::new(&system, &alice);
    steady.say(0, &room, "before").await;

    // Stopped in good order.
    rabbit.stop().await;
    assert_unavailable(&socket, &room, "stopped").await;
    let refused = alice.rest.post(&format!("/api/v1/conversations/{room}/messages"), message("stopped")).await;
    assert_eq!((refused.status, refused.code()), (503, "UNAVAILABLE"), "{}", refused.text);
    assert!(refused.retry_after_s.is_some());
    system.wait_not_ready(NOTICED_WITHIN).await;
    assert!(!is_up(system.gateway(0), "broker").await, "operators see which one it is");
    assert!(socket.is_open() && witness.is_open(), "open sockets stay");
    rabbit.start_again().await;
    system.wait_ready().await;
    steady.say(0, &room, "stopped").await;

    // Hanging: it takes connections and answers nothing.
    rabbit.pause().await;
    assert_unavailable(&socket, &room, "hanging").await;
    rabbit.resume().await;
    steady.say(0, &room, "hanging").await;

    // Killed under load: whatever it confirmed is still there.
    let talk = async {
        for number in 0..150 {
            steady.say(0, &room, &format!("load {number}")).await;
        }
    };
    let kill = async {
        until(PATIENCE, || async { witness.events("message.delivered").len() > 30 }).await;
        rabbit.kill9().await;
        rabbit.start_again().await;
    };
    tokio::join!(talk, kill);
    system.wait_ready().await;
    assert!(!steady.refusals.is_empty(), "the kill came while messages were sent");
    let history = settled(&bob, &room, steady.sent.len()).await;
    assert_exactly_once(&history, &steady.sent);
    assert_seen_live(&witness, &room, &history).await;
    assert!(rabbit.management().look("chat.events.dlq", 10).await.is_empty());
    let lost = system.gateway(0).metric("chat_connections_lost_total", &["dependency=\"broker\""]).await;
    assert!(lost >= 2.0, "stopped and killed: {lost}");
    assert!(socket.is_open() && witness.is_open());
    system.assert_healthy();
}

/// What a program's metrics say of a dependency.
async fn is_up(node: &Node, dependency: &str) -> bool {
    node.metric("chat_dependency_up", &[&format!("dependency=\"{dependency}\"")]).await > 0.5
}

#[tokio::test]
async fn under_an_alarm_of_the_broker_nothing_is_queued_and_operators_see_it() {
    let rabbit = PrivateRabbit::start().await;
    let system = SystemSpec::distributed(1, 1).env("RABBITMQ_URL", &rabbit.url()).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let (socket, witness) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(0)).await);
    let mut steady = Steady::new(&system, &alice);
    steady.say(0, &room, "before").await;
    let gateway = system.gateway(0);
    until(PATIENCE, || is_up(gateway, "broker")).await;
    for alarm in ["memory", "disk"] {
        if alarm == "memory" {
            rabbit.raise_alarm().await;
        } else {
            rabbit.raise_disk_alarm().await;
        }
        assert_unavailable(&socket, &room, alarm).await;
        until(NOTICED_WITHIN, || async { gateway.readyz().await == Some(503) && !is_up(gateway, "broker").await })
            .await;
        if alarm == "memory" {
            rabbit.end_alarm().await;
        } else {
            rabbit.end_disk_alarm().await;
        }
        system.wait_ready().await;
        assert!(is_up(gateway, "broker").await, "it is ready");
        steady.say(0, &room, alarm).await;
    }
    let history = settled(&bob, &room, steady.sent.len()).await;
    assert_exactly_once(&history, &steady.sent);
    assert_seen_live(&witness, &room, &history).await;
    assert!(socket.is_open() && witness.is_open(), "open sockets stay");
}

fn message(name: &str) -> Value {
    serde_json::json!({"content": format!("this is {name}"), "clientMsgId": name})
}

/// Talks before, while and after `away` lets something be gone, and judges what became of it all.
async fn survive(system: &System, away: impl Future<Output = ()>) {
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let witness = bob.connect(system.gateway(1)).await;
    let mut steady = Steady::new(system, &alice);
    for number in 0..20 {
        steady.say(0, &room, &format!("before {number}")).await;
    }
    // Some are acked and not yet stored when it goes away.
    away.await;
    system.wait_ready().await;
    for number in 0..20 {
        steady.say(1, &room, &format!("after {number}")).await;
    }
    let history = settled(&bob, &room, steady.sent.len()).await;
    assert_exactly_once(&history, &steady.sent);
    assert_seen_live(&witness, &room, &history).await;
    assert!(witness.is_open(), "open sockets stay");
    assert!(dead_letters(system).await.is_empty(), "an outage makes no dead letters");
    system.assert_healthy();
}

/// Panics unless whatever needs the store by REST is refused as the contract says while it is away.
async fn assert_rest_unavailable(system: &System, person: &Person, room: &str) {
    let (rest, place) = (system.rest(), format!("/api/v1/conversations/{room}/messages"));
    let log_in = serde_json::json!({"email": person.email, "password": Person::PASSWORD});
    let refresh = serde_json::json!({"refreshToken": person.refresh_token});
    for (what, answer) in [
        ("log-in", rest.post("/api/v1/auth/login", log_in).await),
        ("refresh", rest.post("/api/v1/auth/refresh", refresh).await),
        ("send", person.rest.post(&place, message("by rest")).await),
        ("history", person.rest.get(&place).await),
        ("rooms", person.rest.get("/api/v1/conversations").await),
    ] {
        assert_eq!((answer.status, answer.code()), (503, "UNAVAILABLE"), "{what}: {}", answer.text);
        assert!(answer.retry_after_s.is_some(), "{what}: {}", answer.text);
    }
}

#[tokio::test]
async fn without_postgres_everything_acked_waits_and_is_stored_when_it_is_back() {
    let postgres = PrivatePostgres::start().await;
    let system = SystemSpec::distributed(2, 2).env("DATABASE_URL", &postgres.url()).start().await;
    let [carol, dave] = system.people(["Carol", "Dave"]).await;
    let room = carol.create_group(&[&dave]).await;
    let socket = carol.connect(system.gateway(0)).await;
    let meanwhile = async {
        postgres.stop().await;
        // Members are known to the gateway and the broker is there: what is acked now must be kept.
        let acks = futures_util::future::join_all((0..10).map(|number| {
            let name = format!("meanwhile {number}");
            let (socket, room) = (&socket, &room);
            async move { socket.say(room, &name, "while the store is away").await }
        }));
        let acks = acks.await;
        system.wait_not_ready(NOTICED_WITHIN).await;
        assert!(!is_up(system.gateway(0), "store").await, "operators see which one it is");
        assert_rest_unavailable(&system, &carol, &room).await;
        postgres.start_again().await;
        let queued = acks.iter().filter(|ack| ack["status"] == "QUEUED").count();
        settled(&dave, &room, queued).await;
    };
    survive(&system, meanwhile).await;
}

/// How often a processor had to give back what it held.
fn interruptions(system: &System) -> usize {
    system.processors.iter().map(|node| node.log().matches("work on a shard is interrupted").count()).sum()
}

#[tokio::test]
async fn a_redis_that_is_full_is_told_as_lost_and_what_was_acked_is_stored_and_told_later() {
    let system = SystemSpec::distributed(2, 2).start().await;
    let [carol, dave] = system.people(["Carol", "Dave"]).await;
    let room = carol.create_group(&[&dave]).await;
    let (socket, witness) = (carol.connect(system.gateway(0)).await, dave.connect(system.gateway(1)).await);
    let meanwhile = async {
        system.redis().command("CONFIG SET maxmemory 1").await.unwrap();
        system.wait_not_ready(NOTICED_WITHIN).await;
        let before = interruptions(&system);
        assert_eq!(socket.say(&room, "meanwhile", "this is meanwhile").await["status"], "QUEUED");
        // Nobody tries again and again what cannot be done.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(interruptions(&system) <= before + 1, "{before} and then {}", interruptions(&system));
        system.redis().command("CONFIG SET maxmemory 0").await.unwrap();
        system.wait_ready().await;
        let history = settled(&dave, &room, 1).await;
        assert_seen_live(&witness, &room, &history).await;
    };
    survive(&system, meanwhile).await;
}

#[tokio::test]
async fn without_redis_nothing_is_lost_and_live_delivery_resumes() {
    let system = SystemSpec::distributed(2, 2).start().await;
    let [carol, dave] = system.people(["Carol", "Dave"]).await;
    let room = carol.create_group(&[&dave]).await;
    let (socket, witness) = (carol.connect(system.gateway(0)).await, dave.connect(system.gateway(1)).await);
    let meanwhile = async {
        system.redis().stop().await;
        let ack = socket.say(&room, "meanwhile", "this is meanwhile").await;
        system.wait_not_ready(NOTICED_WITHIN).await;
        assert!(!is_up(system.gateway(0), "realtime").await, "operators see which one it is");
        system.redis().start_again().await;
        if ack["status"] == "QUEUED" {
            let history = settled(&dave, &room, 1).await;
            assert_seen_live(&witness, &room, &history).await;
        }
    };
    survive(&system, meanwhile).await;
    // Wiped while everything runs: no wrong result, the next messages arrive all the same.
    system.redis().command("FLUSHALL").await.unwrap();
    let before = witness.events("message.delivered").len();
    assert_eq!(socket.say(&room, "wiped", "after the wipe").await["status"], "QUEUED");
    witness.event("message.delivered", |message| message["clientMsgId"] == "wiped").await;
    assert_eq!(witness.events("message.delivered").len(), before + 1);
}
