//! Connection state recovery of Socket.IO clients: all that was missed, or a new connection.

use domain::{RoomId, UserId};
use serde_json::{Value, json};
use testkit::client::Socket;
use testkit::services::{RedisCluster, RedisServer};

use crate::house::{House, Raw, connect_to};

const PATH: &str = "/socket.io/?EIO=4&transport=websocket";

/// A connection as the stock client knows it.
struct Connected {
    socket: Raw,
    sid: String,
    /// Empty for a connection that cannot be recovered.
    pid: String,
    /// What came before it was connected.
    before: Vec<Value>,
}

async fn connect(base: &str, auth: &Value) -> Connected {
    let mut socket = Raw::open(base, PATH).await;
    socket.json_after("0").await;
    socket.say(format!("40/chat,{auth}")).await;
    let mut before = Vec::new();
    loop {
        let text = socket.text().await;
        if let Some(event) = text.strip_prefix("42/chat,") {
            before.push(serde_json::from_str(event).expect("JSON"));
        } else if let Some(accepted) = text.strip_prefix("40/chat,") {
            let accepted: Value = serde_json::from_str(accepted).expect("JSON");
            let text = |field: &str| accepted[field].as_str().unwrap_or_default().to_owned();
            return Connected { socket, sid: text("sid"), pid: text("pid"), before };
        }
    }
}

/// The next message, and the offset that comes with it.
async fn message(socket: &mut Raw) -> (String, String) {
    loop {
        let event = socket.json_after("42/chat,").await;
        if event[0] == "message.delivered" {
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            return (text(&event[1]["content"]), text(&event[2]));
        }
    }
}

struct Scene {
    house: House,
    ann: UserId,
    bob: UserId,
    room: RoomId,
    talker: Socket,
    said: usize,
}

impl Scene {
    async fn new() -> Self {
        Self::of(House::open().await).await
    }

    async fn of(house: House) -> Self {
        let (ann, bob) = (house.user().await, house.user().await);
        let room = house.room(&[bob, ann]).await;
        let talker = house.connect(bob).await;
        Self { house, ann, bob, room, talker, said: 0 }
    }

    /// Bob says so much more, and it is stored.
    async fn say(&mut self, count: usize) {
        for _ in 0..count {
            self.said += 1;
            let text = self.said.to_string();
            self.talker.say(&self.room.to_string(), &format!("m{text}"), &text).await;
        }
        self.talker.delivered(&self.room.to_string(), self.said).await;
    }

    fn auth(&self, more: &Value) -> Value {
        let mut auth = json!({"token": House::token(self.ann)});
        auth.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        auth
    }

    /// Ann connects, gets three messages and breaks off after the second, as far as she knows.
    async fn break_off(&mut self) -> (String, String, String) {
        let mut first = connect(&self.house.base, &self.auth(&json!({}))).await;
        assert!(first.before.is_empty(), "a new connection is told that it is one at once");
        self.say(3).await;
        assert_eq!(message(&mut first.socket).await.0, "1");
        let (second, offset) = message(&mut first.socket).await;
        assert_eq!(second, "2");
        (first.sid, first.pid, offset)
    }

    async fn come_back(&self, base: &str, pid: &str, offset: &str) -> Connected {
        connect(base, &self.auth(&json!({"pid": pid, "offset": offset}))).await
    }
}

fn contents(events: &[Value]) -> Vec<String> {
    let messages = events.iter().filter(|event| event[0] == "message.delivered");
    messages.map(|event| event[1]["content"].as_str().expect("a text").to_owned()).collect()
}

#[tokio::test]
async fn who_comes_back_gets_what_it_missed_before_it_is_connected_on_another_gateway_too() {
    let mut scene = Scene::new().await;
    let (sid, pid, offset) = scene.break_off().await;
    scene.say(2).await;
    let (_other, base) = scene.house.another_gateway();
    let mut back = scene.come_back(&base, &pid, &offset).await;
    assert_eq!((&back.sid, &back.pid), (&sid, &pid), "the same connection");
    assert_eq!(back.before[0][0], "session.ready");
    assert_eq!(contents(&back.before), ["3", "4", "5"]);
    let last = back.before.last().expect("an event")[2].as_str().expect("an offset").to_owned();

    scene.say(1).await;
    assert_eq!(message(&mut back.socket).await.0, "6", "and goes on");
    let again = scene.come_back(&scene.house.base, &pid, &last).await;
    assert_eq!((again.pid.as_str(), contents(&again.before)), (pid.as_str(), vec!["6".to_owned()]));
}

#[tokio::test]
async fn what_was_taken_back_meanwhile_has_its_number_too_when_it_is_told() {
    let mut scene = Scene::new().await;
    let (_, pid, offset) = scene.break_off().await;
    let room = scene.room.to_string();
    let third = scene.talker.delivered(&room, 3).await[2].clone();
    let taken = json!({"roomId": room, "messageId": third["messageId"], "forEveryone": true});
    assert_eq!(scene.talker.request("message.delete", taken).await["status"], "QUEUED");
    scene.talker.event("message.deleted", |_| true).await;
    let back = scene.come_back(&scene.house.base, &pid, &offset).await;
    assert_eq!(back.pid, pid);
    let missed: Vec<_> = back.before[1..].iter().map(|event| (event[0].clone(), event[1]["rev"].clone())).collect();
    assert_eq!(missed, [(json!("message.delivered"), json!(4)), (json!("message.deleted"), json!(5))]);
    assert!(back.before[1][1]["deletedAt"].is_string(), "as it now stands: {}", back.before[1]);
}

#[tokio::test]
async fn who_missed_nothing_is_recovered_too_and_rooms_without_a_log_do_not_matter() {
    let mut scene = Scene::new().await;
    let _quiet = scene.house.room(&[scene.ann]).await;
    let room = scene.room.to_string();
    let first = connect(&scene.house.base, &scene.auth(&json!({}))).await;
    let (pid, mut socket) = (first.pid, first.socket);
    scene.say(1).await;
    let (_, offset) = message(&mut socket).await;
    drop(socket);
    assert_eq!(scene.talker.request("message.read", json!({"roomId": room, "seq": 1})).await["status"], "OK");
    let back = scene.come_back(&scene.house.base, &pid, &offset).await;
    assert_eq!((back.pid, contents(&back.before)), (pid, vec![]));
    let read = back.before.iter().find(|event| event[0] == "message.read").expect("a read mark");
    assert_eq!((&read[1]["userId"], &read[1]["seq"]), (&json!(scene.bob.to_string()), &json!(1)));
}

#[tokio::test]
async fn nothing_is_recovered_in_part_or_by_somebody_else() {
    let mut scene = Scene::new().await;
    let (_, pid, offset) = scene.break_off().await;
    let base = scene.house.base.clone();
    let not_recovered = |back: &Connected| back.pid != pid && back.before.is_empty();
    assert!(not_recovered(&scene.come_back(&base, &pid, "-").await), "an unsound offset");
    assert!(not_recovered(&scene.come_back(&base, &pid, "17").await), "an offset of long ago");
    assert!(not_recovered(&scene.come_back(&base, &uuid::Uuid::new_v4().to_string(), &offset).await), "no such secret");
    let other = json!({"token": House::token(scene.bob), "pid": pid, "offset": offset});
    assert!(not_recovered(&connect(&base, &other).await), "another user");
    let device = scene.auth(&json!({"pid": pid, "offset": offset, "deviceId": "another"}));
    assert!(not_recovered(&connect(&base, &device).await), "another device");
    scene.say(600).await;
    assert!(not_recovered(&scene.come_back(&base, &pid, &offset).await), "more than is worth it");
}

#[tokio::test]
async fn who_was_removed_meanwhile_is_not_recovered_and_learns_nothing() {
    let mut scene = Scene::new().await;
    let (_, pid, offset) = scene.break_off().await;
    scene.house.remove(scene.bob, scene.room, scene.ann).await;
    scene.talker.event("room.memberLeft", |_| true).await;
    scene.say(1).await;
    let mut back = scene.come_back(&scene.house.base, &pid, &offset).await;
    assert!(back.pid != pid && back.before.is_empty());
    let ready = back.socket.json_after("42/chat,").await;
    assert_eq!((&ready[0], &ready[1]["rooms"]), (&json!("session.ready"), &json!([])));
}

#[tokio::test]
async fn who_was_added_to_a_room_is_recovered_once_it_got_something_after_that() {
    let mut scene = Scene::new().await;
    let mut first = connect(&scene.house.base, &scene.auth(&json!({}))).await;
    scene.say(1).await;
    let (_, before) = message(&mut first.socket).await;
    let other = scene.house.room(&[scene.bob]).await;
    scene.house.add(scene.bob, other, scene.ann).await;
    while first.socket.json_after("42/chat,").await[0] != "room.memberJoined" {}
    let recovered = async |offset: &str| scene.come_back(&scene.house.base, &first.pid, offset).await.pid == first.pid;
    assert!(!recovered(&before).await, "who knows whether it was told of the room");

    // The gateway finds by itself that the connection follows the right rooms again.
    let mut now = connect(&scene.house.base, &scene.auth(&json!({}))).await;
    scene.house.remove(scene.bob, other, scene.ann).await;
    while now.socket.json_after("42/chat,").await[0] != "room.memberLeft" {}
    let engine = &scene.house.engine;
    let pid = uuid::Uuid::try_parse(&now.pid).expect("a secret");
    testkit::until(testkit::PATIENCE, async || {
        let account = engine.store.account(scene.ann).await.expect("reads").expect("is there");
        let remembered = engine.realtime.recall(pid).await.expect("reads").expect("is there");
        remembered.membership == account.membership
    })
    .await;
    scene.say(1).await;
    let (_, offset) = message(&mut now.socket).await;
    assert_eq!(scene.come_back(&scene.house.base, &now.pid, &offset).await.pid, now.pid);
}

#[tokio::test]
async fn a_new_connection_makes_the_stock_client_forget_the_offset_of_the_one_before() {
    let mut scene = Scene::new().await;
    let (_, pid, mut offset) = scene.break_off().await;
    let _new_room = scene.house.room(&[scene.ann]).await;
    let mut second = scene.come_back(&scene.house.base, &pid, &offset).await;
    assert!(second.pid != pid && second.before.is_empty(), "its rooms are others now; it reads the state anew");
    let ready = second.socket.json_after("42/chat,").await;
    assert_eq!(ready[0], "session.ready");
    // As the stock client does: it keeps the last argument of any event if that is a text.
    if let Some(text) = ready.as_array().and_then(|args| args.last()).and_then(Value::as_str) {
        text.clone_into(&mut offset);
    }
    let third = scene.come_back(&scene.house.base, &second.pid, &offset).await;
    assert_eq!(contents(&third.before), [""; 0], "what was read is not told again");
}

#[tokio::test]
async fn what_was_missed_is_told_once_for_an_offset_because_the_client_may_have_kept_a_part_of_it() {
    let mut scene = Scene::new().await;
    let (_, pid, offset) = scene.break_off().await;
    let first = scene.come_back(&scene.house.base, &pid, &offset).await;
    assert_eq!((first.pid.as_str(), contents(&first.before)), (pid.as_str(), vec!["3".to_owned()]));
    let again = scene.come_back(&scene.house.base, &pid, &offset).await;
    assert!(again.pid != pid && again.before.is_empty());
}

#[tokio::test]
async fn an_offset_ahead_of_the_clock_proves_nothing() {
    let mut scene = Scene::new().await;
    let (_, pid, offset) = scene.break_off().await;
    let ahead = (offset.parse::<u64>().expect("a number") + 3_600_000_000).to_string();
    let back = scene.come_back(&scene.house.base, &pid, &ahead).await;
    assert!(back.pid != pid && back.before.is_empty());
}

#[tokio::test]
async fn a_connection_that_another_gateway_replaced_leaves_its_secret_to_the_one_that_lives_by_it() {
    let mut scene = Scene::new().await;
    let (_other, base) = scene.house.another_gateway();
    let mut old = connect(&scene.house.base, &scene.auth(&json!({}))).await;
    scene.say(1).await;
    let (_, offset) = message(&mut old.socket).await;
    let mut back = scene.come_back(&base, &old.pid, &offset).await;
    assert_eq!(back.pid, old.pid);
    while old.socket.next().await.is_some() {}
    scene.say(1).await;
    let (_, offset) = message(&mut back.socket).await;
    drop(back);
    assert_eq!(scene.come_back(&base, &old.pid, &offset).await.pid, old.pid, "a second time, too");
}

#[tokio::test]
async fn who_left_the_namespace_is_not_recovered_and_may_come_into_it_again() {
    let scene = Scene::new().await;
    let mut first = connect(&scene.house.base, &scene.auth(&json!({}))).await;
    first.socket.say("41/chat,").await;
    first.socket.say(format!("40/chat,{}", scene.auth(&json!({"pid": first.pid, "offset": "1"})))).await;
    let accepted = first.socket.json_after("40/chat,").await;
    assert_ne!(accepted["pid"], json!(first.pid));
    first.socket.say(r#"42/chat,1["ping"]"#).await;
    first.socket.json_after("43/chat,1").await;
    let native = connect_to(&scene.house.base, scene.ann).await;
    native.event("session.ready", |_| true).await;
}

#[tokio::test]
async fn over_one_redis_who_comes_back_is_recovered_and_over_a_cluster_nobody_is() {
    let redis = RedisServer::start().await;
    let mut scene = Scene::of(House::over(redis.url()).await).await;
    let (sid, pid, offset) = scene.break_off().await;
    assert_eq!(scene.come_back(&scene.house.base, &pid, &offset).await.sid, sid);

    let cluster = RedisCluster::start().await;
    let mut scene = Scene::of(House::over(cluster.url()).await).await;
    let (sid, pid, void) = scene.break_off().await;
    assert_eq!((pid.as_str(), void.as_str()), ("", "-"), "it is not even tried");
    let back = scene.come_back(&scene.house.base, &uuid::Uuid::new_v4().simple().to_string(), &offset).await;
    assert_ne!(back.sid, sid);
    assert_eq!((back.pid.as_str(), back.before.len()), ("", 0), "a new connection");
}
