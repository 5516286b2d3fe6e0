//! What was stored and never told: the processor publishes into a Redis to which nobody listens.
//!
//! The invariant: every gateway notices all of it by itself, in time, and tells it in its place.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::{Service, System, SystemSpec};
use testkit::proxy::Weather;
use testkit::services::RedisServer;
use testkit::until;

use crate::scene::{SLACK, until_metric};

/// For what is told to a room.
const FOUND_WITHIN: Duration = Duration::from_secs(3);
/// For what is taken from somebody.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// Makes the processor talk to that Redis, and waits until it works again.
async fn let_talk_to(system: &System, redis: &RedisServer) {
    let processor = &system.processors[0];
    assert!(processor.terminate(Duration::from_secs(30)).await.success());
    processor.set_env("REDIS_URL", &redis.url());
    processor.start_again().await;
    until_metric(processor, "chat_shards_owned", &[], f64::from(crate::scene::SHARDS)).await;
}

fn revs(socket: &Socket, room: &str) -> Vec<i64> {
    let told = socket.everything();
    let of_room = told.iter().filter(|(name, data)| name != "session.ready" && data["roomId"] == room);
    of_room.filter_map(|(_, data)| data["rev"].as_i64()).collect()
}

/// Waits until all of them were told of `rev`; panics when that took longer than `limit`.
async fn told(sockets: &[&Socket], room: &str, rev: i64, limit: Duration) {
    until(limit + SLACK, || async { sockets.iter().all(|socket| revs(socket, room).last() == Some(&rev)) }).await;
}

/// Waits for a beacon that says where a room is, and two more; panics unless it said so once.
async fn assert_beacon(socket: &Socket, wanted: Value) {
    socket.event("rooms.beacon", |beacon| *beacon == wanted).await;
    let count = socket.events("rooms.beacon").len();
    until(testkit::PATIENCE, || async { socket.events("rooms.beacon").len() >= count + 2 }).await;
    let said = socket.events("rooms.beacon").into_iter().filter(|beacon| beacon["rooms"] == wanted["rooms"]);
    assert_eq!(said.count(), 1, "once for a move: {:?}", socket.events("rooms.beacon"));
}

async fn membership(person: &Person, system: &System) -> (Socket, i64) {
    let path = format!("/ws?token={}", person.token);
    let socket = Socket::open(&system.gateway(1).url(), &path).await;
    let ready = socket.event("session.ready", |_| true).await;
    (socket, ready["membership"].as_i64().unwrap())
}

#[tokio::test]
async fn what_a_processor_stores_and_nobody_hears_of_is_noticed_on_every_gateway() {
    let system = SystemSpec::distributed(2, 1).env("BEACON_EVERY", "1s").start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    let room = alice.create_group(&[&bob]).await;
    let elsewhere = RedisServer::start().await;
    let_talk_to(&system, &elsewhere).await;
    let one = alice.connect(system.gateway(0)).await;
    let ((two, of_bob), carols) = (membership(&bob, &system).await, carol.connect(system.gateway(1)).await);

    assert_eq!(one.say(&room, "lost", "a lost word").await["status"], "QUEUED");
    told(&[&one, &two], &room, 2, FOUND_WITHIN).await;
    assert_eq!(two.events("message.delivered")[0]["content"], "a lost word");
    for gateway in 0..2 {
        assert!(system.gateway(gateway).metric("chat_tail_found_total", &[]).await > 0.0, "found by the tail");
    }
    assert_beacon(&two, json!({"rooms": [{"roomId": room, "rev": 2}], "membership": of_bob})).await;

    let members = format!("/api/v1/conversations/{room}/members");
    alice.rest.post(&members, json!({"userIds": [carol.id]})).await.expect(202);
    told(&[&one, &two, &carols], &room, 3, FOUND_WITHIN).await;
    alice.rest.delete(&format!("{members}/{}", bob.id)).await.expect(202);
    told(&[&two], &room, 4, TAKEN_WITHIN).await;
    assert_eq!(two.events("room.memberLeft")[0]["userId"], bob.id.as_str());
    told(&[&one, &carols], &room, 4, FOUND_WITHIN).await;

    let_talk_to(&system, system.redis()).await;
    assert_eq!(carols.say(&room, "heard", "a word that is heard").await["status"], "QUEUED");
    told(&[&one, &carols], &room, 5, FOUND_WITHIN).await;
    assert_eq!(revs(&one, &room), [2, 3, 4, 5], "in order, without gap, once");
    assert_eq!((revs(&carols, &room), revs(&two, &room)), (vec![3, 4, 5], vec![2, 3, 4]));
    system.assert_healthy();
}

#[tokio::test]
async fn a_read_mark_of_which_no_word_came_is_told_on_every_gateway() {
    let system = SystemSpec::distributed(2, 1).proxied().start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let (one, two) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(1)).await);
    assert_eq!(one.say(&room, "a word", "a word").await["status"], "QUEUED");
    told(&[&one, &two], &room, 2, FOUND_WITHIN).await;

    let to_redis = system.gateway(1).proxy(Service::Redis).unwrap();
    to_redis.set(Weather::Cut);
    assert_eq!(two.request("message.read", json!({"roomId": room, "seq": 1})).await["status"], "OK");
    let marks = |socket: &Socket| socket.events("message.read").len();
    until(FOUND_WITHIN + SLACK, || async { marks(&one) == 1 && marks(&two) == 1 }).await;
    assert_eq!(one.events("message.read")[0]["userId"], bob.id.as_str());

    to_redis.set(Weather::Fine);
    system.wait_ready().await;
    assert_eq!(one.request("message.read", json!({"roomId": room, "seq": 1})).await["status"], "OK");
    until(FOUND_WITHIN + SLACK, || async { marks(&one) == 2 && marks(&two) == 2 }).await;
    // Two rounds more of looking into the store: what was told is not told again.
    assert_eq!(one.say(&room, "another", "another word").await["status"], "QUEUED");
    told(&[&one, &two], &room, 3, FOUND_WITHIN).await;
    assert_eq!((marks(&one), marks(&two)), (2, 2));
    system.assert_healthy();
}
