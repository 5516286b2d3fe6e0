//! What several tests need: steady senders and the judgement over what was stored.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::System;
use testkit::{PATIENCE, until};

/// How long a message may take to be stored once the system is whole again.
pub(crate) const SETTLED_WITHIN: Duration = Duration::from_mins(1);

/// What unoptimised programs on a busy machine may take besides; the contract's own figures are held
/// against optimised ones (`./test.sh -- --release -p chatchit`).
pub(crate) const SLACK: Duration = Duration::from_secs(if cfg!(debug_assertions) { 1 } else { 0 });

/// What `QUEUE_SHARDS` is when nobody says.
pub(crate) const SHARDS: u16 = 4;

/// A message as a sender remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) name: String,
    pub(crate) message_id: String,
}

/// One who says one thing after another, each acked before the next, and does not give up: what is
/// refused as `UNAVAILABLE` or unanswered is sent again under the same name, elsewhere if need be.
pub(crate) struct Steady<'a> {
    system: &'a System,
    person: &'a Person,
    sockets: HashMap<usize, Socket>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) refusals: Vec<Value>,
}

impl<'a> Steady<'a> {
    pub(crate) fn new(system: &'a System, person: &'a Person) -> Self {
        Self { system, person, sockets: HashMap::new(), sent: Vec::new(), refusals: Vec::new() }
    }

    /// Says `name` in `room` through the gateway of that number, or the next one that works.
    pub(crate) async fn say(&mut self, gateway: usize, room: &str, name: &str) {
        let end = tokio::time::Instant::now() + SETTLED_WITHIN;
        for attempt in 0.. {
            assert!(tokio::time::Instant::now() < end, "{name} found no taker; refusals: {:?}", self.refusals.last());
            if let Some(message_id) = self.attempt(gateway + attempt, room, name).await {
                return self.sent.push(Sent { name: name.to_owned(), message_id });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn attempt(&mut self, gateway: usize, room: &str, name: &str) -> Option<String> {
        let data = json!({"roomId": room, "content": format!("this is {name}"), "clientMsgId": name});
        let socket = self.socket(gateway).await?;
        let id = socket.send("message.send", data).await;
        let Some(ack) = socket.try_ack(id, Duration::from_secs(5)).await else {
            self.sockets.remove(&gateway);
            return None;
        };
        if ack["status"] == "QUEUED" {
            return Some(ack["messageId"].as_str().unwrap().to_owned());
        }
        assert!(matches!(ack["code"].as_str(), Some("UNAVAILABLE" | "OVERLOADED")), "{name}: {ack}");
        self.refusals.push(ack);
        None
    }

    async fn socket(&mut self, gateway: usize) -> Option<&Socket> {
        if self.sockets.get(&gateway).is_none_or(|socket| !socket.is_open()) {
            let url = self.system.gateway(gateway).url();
            let path = format!("/ws?token={}&deviceId=steady-{gateway}", self.person.token);
            let socket = Socket::try_open(&url, &path, &[]).await.ok()?;
            self.sockets.insert(gateway, socket);
        }
        self.sockets.get(&gateway)
    }
}

/// One group for each of the four shards, so that every processor with a shard has work.
pub(crate) async fn a_room_on_every_shard(owner: &Person, others: &[&Person]) -> Vec<String> {
    let mut rooms: HashMap<u16, String> = HashMap::new();
    while rooms.len() < usize::from(SHARDS) {
        let room = owner.create_group(others).await;
        let id: domain::RoomId = room.parse().unwrap();
        rooms.insert(domain::shard::shard_of(id.0, SHARDS), room);
    }
    rooms.into_values().collect()
}

/// Waits until history holds `count` messages of `room`, then returns all it holds.
pub(crate) async fn settled(person: &Person, room: &str, count: usize) -> Vec<Value> {
    until(SETTLED_WITHIN, || async { last_seq(person, room).await >= count as i64 }).await;
    let items = person.history(room).await;
    let seqs: Vec<i64> = items.iter().map(|item| item["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>(), "seq is 1, 2, 3, … without gap or repeat");
    items
}

async fn last_seq(person: &Person, room: &str) -> i64 {
    let answer = person.rest.get(&format!("/api/v1/conversations/{room}")).await;
    if answer.status == 200 { answer.body["lastSeq"].as_i64().unwrap() } else { -1 }
}

/// Panics unless the history holds exactly what was sent, once each, each under its own id.
pub(crate) fn assert_exactly_once(history: &[Value], sent: &[Sent]) {
    let mut stored: HashMap<&str, &Value> = HashMap::new();
    for item in history {
        let before = stored.insert(item["clientMsgId"].as_str().unwrap(), item);
        assert!(before.is_none(), "stored twice: {item}");
    }
    for message in sent {
        let item = stored.get(message.name.as_str()).unwrap_or_else(|| panic!("acked and lost: {message:?}"));
        assert_eq!(item["messageId"], message.message_id.as_str());
        assert_eq!(item["content"], format!("this is {}", message.name));
    }
    assert_eq!(history.len(), sent.len(), "nothing else was stored");
}

/// Panics unless what one sender has in the history stands in the order in which it was sent.
pub(crate) fn assert_order(history: &[Value], sender: &str, sent: &[Sent]) {
    let stored: Vec<&str> = history
        .iter()
        .filter(|item| item["senderId"] == sender)
        .map(|item| item["clientMsgId"].as_str().unwrap())
        .collect();
    let wanted: Vec<&str> = sent.iter().map(|message| message.name.as_str()).collect();
    assert_eq!(stored, wanted, "the order of {sender}");
}

/// Panics unless a live client saw exactly the history: the same messages, in order, once.
pub(crate) async fn assert_seen_live(socket: &Socket, room: &str, history: &[Value]) {
    let seen = socket.delivered(room, history.len()).await;
    let ids = |items: &[Value]| items.iter().map(|item| item["messageId"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&seen), ids(history), "live order is history's order");
    let revs: Vec<i64> = seen.iter().map(|item| item["rev"].as_i64().unwrap()).collect();
    assert!(revs.windows(2).all(|pair| pair[0] < pair[1]), "rev rises on one connection: {revs:?}");
}

/// All events of a room from its beginning, by `sync`; panics unless `rev` is 1, 2, 3, ….
pub(crate) async fn all_events(socket: &Socket, room: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event["rev"].as_i64().unwrap());
        let answer = socket.request("sync", json!({"rooms": [{"roomId": room, "afterRev": after}]})).await;
        let synced = &answer["rooms"][0];
        events.extend(synced["items"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().cloned());
        if synced["complete"] == true {
            let revs: Vec<i64> = events.iter().map(|event| event["rev"].as_i64().unwrap()).collect();
            assert_eq!(revs, (1..=revs.len() as i64).collect::<Vec<_>>(), "rev has no gap and no repeat");
            assert_eq!(synced["rev"], revs.len() as i64);
            return events;
        }
    }
}

/// How many events the programs have as dead letters, by the broker's own account.
pub(crate) async fn dead_letters(system: &System) -> Vec<Value> {
    system.management().look("chat.events.dlq", 1000).await
}

/// Waits until a program's counter has reached `at_least`.
pub(crate) async fn until_metric(node: &testkit::cluster::Node, name: &str, labels: &[&str], at_least: f64) {
    until(PATIENCE, || async { node.metric(name, labels).await >= at_least }).await;
}
