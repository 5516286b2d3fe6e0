//! SIGTERM in the middle of everything: clients that do not read, that poll, that go on sending.
//!
//! The invariant: it is said at once that the service stops, whoever was told QUEUED is right, and
//! the process ends well and in time, whatever clients and the broker do.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::{Node, System, SystemSpec};
use testkit::services::PrivateRabbit;
use testkit::{PATIENCE, until};
use tokio::time::Instant;

use crate::scene::{Sent, settled};
use crate::sleeper::{Sleeper, talk_until_too_slow};

/// Ten seconds for clients that do not read, some for what is in hand and for a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(16);
/// For `/readyz`.
const SAID_WITHIN: Duration = Duration::from_secs(1).saturating_add(crate::scene::SLACK);

/// A Socket.IO client that polls.
struct Poller {
    address: String,
    http: reqwest::Client,
}

impl Poller {
    async fn connect(node: &Node, token: &str) -> Self {
        let http = reqwest::Client::new();
        let path = format!("{}/socket.io/?EIO=4&transport=polling", node.url());
        let opened = http.get(&path).send().await.unwrap().text().await.unwrap();
        let opened: Value = serde_json::from_str(opened.strip_prefix('0').unwrap()).unwrap();
        let poller = Self { address: format!("{path}&sid={}", opened["sid"].as_str().unwrap()), http };
        let connect = format!("40/chat,{}", json!({"token": token}));
        assert_eq!(poller.http.post(&poller.address).body(connect).send().await.unwrap().status(), 200);
        poller.hear("session.ready").await;
        poller
    }

    /// Polls until that event came, or until the server ends the session.
    async fn hear(&self, event: &str) {
        let mut heard = String::new();
        while !heard.contains(&format!("[\"{event}\"")) {
            let answer = self.http.get(&self.address).timeout(PATIENCE).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "after {heard}");
            heard += &answer.text().await.expect("a body");
        }
    }
}

/// Sends messages without waiting, until the connection is over; the frames' ids and names.
async fn pour(socket: &Socket, room: &str, prefix: &str) -> Vec<(i64, String)> {
    let mut frames = Vec::new();
    while socket.is_open() {
        let name = format!("{prefix} {}", frames.len());
        let data = json!({"roomId": room, "content": format!("this is {name}"), "clientMsgId": name});
        frames.push((socket.send("message.send", data).await, name));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    frames
}

/// What was acked QUEUED; panics when something else was said than that or UNAVAILABLE.
async fn queued(socket: &Socket, frames: &[(i64, String)]) -> Vec<Sent> {
    let mut queued = Vec::new();
    for (id, name) in frames {
        let Some(ack) = socket.try_ack(*id, PATIENCE).await else { continue };
        if ack["status"] == "QUEUED" {
            let message_id = ack["messageId"].as_str().unwrap().to_owned();
            queued.push(Sent { name: name.clone(), message_id });
        } else {
            assert_eq!(ack["code"], "UNAVAILABLE", "{name}: {ack}");
        }
    }
    queued
}

/// SIGTERM while somebody looks; panics unless `/readyz` says so while `open` is open, and the end is good.
async fn stop(node: &Node, open: &Socket) {
    let began = Instant::now();
    let look = async {
        until(SAID_WITHIN, || async { node.readyz().await == Some(503) }).await;
        assert!(open.is_open(), "the open sockets stay for a while");
        let refused = reqwest::get(format!("{}/ws", node.url())).await;
        assert!(refused.is_ok_and(|answer| answer.status() != 101));
    };
    let (status, ()) = tokio::join!(node.terminate(ENDS_WITHIN), look);
    assert!(status.success(), "{status} after {:?}", began.elapsed());
}

/// Panics unless all that was acked is in history, once, and nothing stands there twice.
async fn assert_kept(person: &Person, room: &str, sent: &[Sent]) {
    let history = settled(person, room, sent.len()).await;
    for message in sent {
        let found = history.iter().filter(|item| item["clientMsgId"] == message.name.as_str());
        let ids: Vec<&Value> = found.map(|item| &item["messageId"]).collect();
        assert_eq!(ids, [message.message_id.as_str()], "{message:?}");
    }
}

async fn drain_while_all_goes_on(system: &System) {
    let [alice, bob, carol, dave] = system.people(["Alice", "Bob", "Carol", "Dave"]).await;
    let room = alice.create_group(&[&bob, &carol, &dave]).await;
    let node = system.gateway(0);
    let (sender, listener) = (alice.connect(node).await, dave.connect(node).await);
    // When the first one is closed for it, as much less waits for the other at the gateway.
    let first = Sleeper::open(node, &bob.token).await;
    for number in 0..6 {
        assert_eq!(sender.say(&room, &format!("{number}"), &"x".repeat(16_000)).await["status"], "QUEUED");
    }
    let sleeper = Sleeper::open(node, &bob.token).await;
    let said = talk_until_too_slow(node, &sender, &listener, &room).await;
    let stopping = async {
        listener.delivered(&room, said + 20).await;
        let poller = Poller::connect(node, &carol.token).await;
        tokio::join!(stop(node, &listener), poller.hear("server.draining"))
    };
    let (frames, _) = tokio::join!(pour(&sender, &room, "flowing"), stopping);
    for socket in [&sender, &listener] {
        assert_eq!(socket.closed().await.map(|closed| closed.0), Some(4503));
        assert!(socket.event("server.draining", |_| true).await["retryAfterMs"].is_number());
    }
    drop((first, sleeper));
    let sent = queued(&sender, &frames).await;
    assert!(sent.len() > 20, "messages flowed");
    node.start_again().await;
    assert_kept(&dave, &room, &sent).await;
}

#[tokio::test]
async fn the_all_in_one_that_is_stopped_ends_well_whatever_its_clients_do() {
    let system = SystemSpec::all_in_one().env("LIMIT_USER_EVENTS_PER_SEC", "0").start().await;
    drain_while_all_goes_on(&system).await;
    system.assert_healthy();
}

#[tokio::test]
async fn a_gateway_that_is_stopped_ends_well_whatever_its_clients_and_the_broker_do() {
    let rabbit = PrivateRabbit::start().await;
    let spec = SystemSpec::distributed(1, 1).env("RABBITMQ_URL", &rabbit.url());
    let system = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").start().await;
    drain_while_all_goes_on(&system).await;

    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let node = system.gateway(0);
    let (sender, listener) = (alice.connect(node).await, bob.connect(node).await);
    assert_eq!(sender.say(&room, "before", "this is before").await["status"], "QUEUED");
    rabbit.pause().await;
    let (frames, ()) = tokio::join!(pour(&sender, &room, "hanging"), stop(node, &listener));
    let sent = queued(&sender, &frames).await;
    rabbit.resume().await;
    node.start_again().await;
    system.wait_ready().await;
    assert!(sent.is_empty(), "nothing is QUEUED without the broker's word: {sent:?}");
    assert_kept(&bob, &room, &sent).await;
    system.assert_healthy();
}
