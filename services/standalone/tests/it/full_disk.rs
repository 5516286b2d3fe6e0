//! The all-in-one on a disk that is really full.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::{Node, SystemSpec};
use testkit::folder::{SmallDisk, may_mount, small_disk};
use testkit::until;
use tokio::time::Instant;

use crate::scene::{SETTLED_WITHIN, Sent, assert_seen_live, settled};

/// Far more than what must be free, and what is written here.
const DISK_BYTES: u64 = 96 * 1024 * 1024;
/// Less than what must be free, and enough to work on what was taken before.
const LITTLE: u64 = 8 * 1024 * 1024;
/// How long it may take to fill what the files still have to spare, and then to say so.
const NOTICED_WITHIN: Duration = Duration::from_mins(1);
/// Two seconds by the contract, and something for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_millis(2500);
const STAYS_FULL: Duration = Duration::from_secs(8);

/// What was said, and what became of it.
struct Talker {
    room: String,
    names: usize,
    sent: Vec<Sent>,
    refused: Vec<String>,
}

impl Talker {
    /// Says something; whether it was taken.
    async fn say(&mut self, socket: &Socket) -> bool {
        let name = format!("message {}", self.names);
        self.names += 1;
        self.say_as(socket, name).await
    }

    async fn say_as(&mut self, socket: &Socket, name: String) -> bool {
        let asked = Instant::now();
        let ack = socket.say(&self.room, &name, &content(&name)).await;
        if ack["status"] == "QUEUED" {
            self.sent.push(Sent { name, message_id: ack["messageId"].as_str().unwrap().to_owned() });
            return true;
        }
        assert_eq!((&ack["code"], &ack["clientMsgId"]), (&json!("UNAVAILABLE"), &json!(name)), "{ack}");
        assert!(ack["retryAfterMs"].as_i64().is_some_and(|wait| wait > 0), "{ack}");
        assert!(asked.elapsed() < REFUSED_WITHIN, "refused only after {:?}", asked.elapsed());
        self.refused.push(name);
        false
    }

    /// Says what was refused once more, under the same name: it may have been stored all the same.
    async fn say_again(&mut self, socket: &Socket) {
        for name in std::mem::take(&mut self.refused) {
            assert!(self.say_as(socket, name).await, "there is room again");
        }
    }

    /// Panics unless what was acked is there, once, and nothing else.
    fn assert_stored(&self, history: &[Value]) {
        let told = |item: &Value| ["clientMsgId", "messageId", "content"].map(|field| item[field].clone());
        let mut stored: Vec<_> = history.iter().map(|item| told(item).map(|value| value.to_string())).collect();
        let text = |value: &str| json!(value).to_string();
        let wanted = |sent: &Sent| [text(&sent.name), text(&sent.message_id), text(&content(&sent.name))];
        let mut wanted: Vec<_> = self.sent.iter().map(wanted).collect();
        stored.sort();
        wanted.sort();
        assert!(stored == wanted, "{} were acked, {} are stored", wanted.len(), stored.len());
    }
}

/// Long enough to fill what the files have to spare before long.
fn content(name: &str) -> String {
    name.repeat(150)
}

/// Waits until what is in the logs of writes lies in the files, so that the logs begin anew: a full disk has
/// room for as much again where they are.
async fn until_files_have_room_to_spare(disk: &SmallDisk) {
    let size = |name: &str| disk.path().join("data").join(name).metadata().map_or(0, |file| file.len());
    until(NOTICED_WITHIN, || async { size("chat.db") > 100_000 && size("queue.db") > 20_000 }).await;
}

/// Fills the disk but for `spare_bytes`, and talks until nothing is taken any more.
async fn until_full(disk: &SmallDisk, spare_bytes: u64, talker: &mut Talker, socket: &Socket) {
    let end = Instant::now() + NOTICED_WITHIN;
    let mut in_vain = 0;
    while in_vain < 20 {
        assert!(Instant::now() < end, "a full disk takes everything");
        disk.fill(spare_bytes);
        in_vain = if talker.say(socket).await { 0 } else { in_vain + 1 };
    }
}

/// For a while everybody is told, all the time, that it is not ready.
async fn assert_not_ready(node: &Node) {
    until(NOTICED_WITHIN, || async { node.readyz().await == Some(503) }).await;
    let end = Instant::now() + STAYS_FULL;
    while Instant::now() < end {
        assert_eq!(node.readyz().await, Some(503), "it is full still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn assert_reads(bob: &Person, room: &str) {
    bob.rest.get(&format!("/api/v1/conversations/{room}/messages")).await.expect(200);
}

#[rstest]
#[case::without_any_room(0)]
#[case::with_little_room(LITTLE)]
#[tokio::test]
async fn on_a_full_disk_nothing_is_acked_that_is_lost_and_it_goes_on_when_there_is_room(#[case] spare_bytes: u64) {
    let this = "full_disk::on_a_full_disk_nothing_is_acked_that_is_lost_and_it_goes_on_when_there_is_room";
    let case = if spare_bytes == 0 { "case_1_without_any_room" } else { "case_2_with_little_room" };
    if !may_mount(&format!("{this}::{case}")) {
        return;
    }
    let disk = small_disk(DISK_BYTES).unwrap();
    let spec = SystemSpec::all_in_one().env("DATA_DIR", disk.path().join("data").to_str().unwrap());
    let system = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_USER_BURST", "0").start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let node = system.gateway(0);
    let (socket, witness) = (alice.connect(node).await, bob.connect(node).await);
    let mut talker = Talker { room: room.clone(), names: 0, sent: Vec::new(), refused: Vec::new() };
    for _ in 0..50 {
        assert!(talker.say(&socket).await);
    }
    until_files_have_room_to_spare(&disk).await;

    until_full(&disk, spare_bytes, &mut talker, &socket).await;
    assert_not_ready(node).await;
    assert!(!talker.say(&socket).await, "nothing is QUEUED");
    assert_reads(&bob, &room).await;
    if spare_bytes > 0 {
        settled(&bob, &room, talker.sent.len()).await;
    }
    let lines = |words: &str| node.log().matches(words).count();
    assert_eq!(lines("the disk is full"), 2, "an error, and why it is not ready");
    assert!(lines("cannot checkpoint") <= 2 && lines("interrupted") <= 6, "it fills no log besides");
    disk.relieve();
    node.wait_ready().await;
    talker.say_again(&socket).await;
    let history = settled(&bob, &room, talker.sent.len()).await;
    talker.assert_stored(&history);
    assert!(socket.is_open() && witness.is_open(), "open sockets stay");
    assert_seen_live(&witness, &room, &history).await;

    // Again, and this time it dies meanwhile; it comes back, and tells what is so.
    until_full(&disk, spare_bytes, &mut talker, &socket).await;
    node.kill9().await;
    node.spawn_again();
    assert_not_ready(node).await;
    assert_eq!(node.ended(), None);
    node.kill9().await;
    disk.relieve();
    node.start_again().await;
    let socket = alice.connect(node).await;
    talker.say_again(&socket).await;
    talker.assert_stored(&settled(&bob, &room, talker.sent.len()).await);
    let waiting = || async { node.try_metric("chat_queue_depth", &["class=\"high\""]).await };
    until(SETTLED_WITHIN, || async { waiting().await == Some(0.0) }).await;
    system.assert_healthy();
}
