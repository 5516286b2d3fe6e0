//! Bad frames and bad data on sockets: a coded refusal or the agreed close code, and nobody else notices.

use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::{System, SystemSpec};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

const KIB: usize = 1024;
const HOSTILE: [&str; 4] = [
    "'; DROP TABLE messages; --",
    "\" OR 1=1 --",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "{{7*7}} ${jndi:ldap://x} %s%n ../../etc/passwd",
];

/// A system with a room and somebody in it whose connection must outlive everything.
struct Scene {
    system: System,
    alice: Person,
    mallory: Person,
    room: String,
    bystander: Socket,
}

impl Scene {
    async fn new(spec: SystemSpec) -> Self {
        let system = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_USER_BURST", "0").start().await;
        let [alice, mallory] = system.people(["Alice", "Mallory"]).await;
        let room = alice.create_group(&[&mallory]).await;
        let bystander = alice.connect(system.gateway(0)).await;
        Self { system, alice, mallory, room, bystander }
    }

    async fn attacker(&self) -> Socket {
        self.mallory.connect(self.system.gateway(0)).await
    }

    /// The bystander's connection works as before and nothing panicked.
    async fn assert_unharmed(&self) {
        let pong = self.bystander.request("ping", json!({})).await;
        assert!(pong["serverTime"].is_string(), "{pong}");
        assert!(self.bystander.events("error").is_empty());
        self.system.assert_healthy();
    }
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn bad_frames_close_their_own_connection_with_the_agreed_code(#[case] spec: SystemSpec) {
    let scene = Scene::new(spec).await;
    let nested = |depth: usize| format!(r#"{{"event":"ping","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let cases: Vec<(u16, &str, Message)> = vec![
        (4400, "not JSON", Message::text("hello")),
        (4400, "nothing", Message::text("")),
        (4400, "half an object", Message::text(r#"{"event":"ping""#)),
        (4400, "two objects", Message::text(r#"{"event":"ping"}{"event":"ping"}"#)),
        (4400, "an array", Message::text(r#"["ping"]"#)),
        (4400, "no event", Message::text(r#"{"id":1,"data":{}}"#)),
        (4400, "an event that is no text", Message::text(r#"{"id":1,"event":7}"#)),
        (4400, "deep nesting", Message::text(nested(40))),
        (4400, "very deep nesting", Message::text(nested(100_000))),
        (4400, "a binary frame", Message::binary(b"{}".to_vec())),
        (
            4413,
            "a frame just over the limit",
            Message::text(format!(r#"{{"event":"ping","data":{{"x":"{}"}}}}"#, "x".repeat(256 * KIB))),
        ),
        (4413, "ten megabytes", Message::text("x".repeat(10 * KIB * KIB))),
        (1007, "invalid UTF-8", invalid_utf8()),
    ];
    for (code, what, message) in cases {
        let attacker = scene.attacker().await;
        // The server may close before all of it is written.
        drop(attacker.raw(message).await);
        let closed = attacker.closed().await;
        assert_eq!(closed.map(|closed| closed.0), Some(code), "{what}");
        scene.assert_unharmed().await;
    }
}

fn invalid_utf8() -> Message {
    let header = FrameHeader {
        is_final: true,
        opcode: OpCode::Data(Data::Text),
        mask: Some([1, 2, 3, 4]),
        ..FrameHeader::default()
    };
    Message::Frame(Frame::from_payload(header, vec![0xc3, 0x28, 0xff].into()))
}

/// Asks and returns the refusal; panics when it is none or of another code.
async fn refused(socket: &Socket, event: &str, data: Value, code: &str) -> Value {
    let shown: String = data.to_string().chars().take(200).collect();
    let ack = socket.request(event, data).await;
    assert_eq!((&ack["status"], &ack["code"]), (&json!("REJECTED"), &json!(code)), "{event} {shown}: {ack}");
    assert!(ack["message"].as_str().is_some_and(|message| !message.is_empty() && !message.contains(".rs:")), "{ack}");
    ack
}

/// A message to `room` with some of its fields changed.
fn message(room: &str, changes: &Value) -> Value {
    let mut data = json!({"roomId": room, "content": "words", "clientMsgId": "m"});
    data.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    data
}

/// Each field wrong in its own ways: the refusal names it.
async fn wrong_fields(socket: &Socket, room: &str) {
    for (field, value) in [
        ("roomId", json!(7)),
        ("roomId", json!("")),
        ("roomId", json!("not an id")),
        ("roomId", json!({"a": 1})),
        ("content", json!("")),
        ("content", json!(" \n ")),
        ("content", json!(["x"])),
        ("content", json!("nul \u{0} here")),
        ("clientMsgId", json!("")),
        ("clientMsgId", json!("x".repeat(65))),
        ("clientMsgId", json!(1)),
        ("clientMsgId", json!("a\nb")),
        ("type", json!("text")),
        ("type", json!(5)),
        ("replyTo", json!("nothing")),
        ("mentions", json!("everybody")),
        ("mentions", json!(["x"])),
        ("attachments", json!([{}])),
        ("attachments", json!("x")),
    ] {
        let refusal = refused(socket, "message.send", message(room, &json!({field: value})), "INVALID_PAYLOAD").await;
        let named = refusal["field"].as_str().unwrap_or_default();
        assert!(named.starts_with(field), "{field} is named in {refusal}");
    }
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn bad_data_is_refused_with_its_code_and_the_connection_stays(#[case] spec: SystemSpec) {
    let scene = Scene::new(spec).await;
    let socket = scene.attacker().await;
    let room = scene.room.as_str();
    wrong_fields(&socket, room).await;
    refused(&socket, "message.send", json!({}), "INVALID_PAYLOAD").await;
    for data in [json!(null), json!([]), json!("text"), json!(7)] {
        refused(&socket, "message.send", data, "INVALID_PAYLOAD").await;
    }
    for content in ["x".repeat(16 * KIB + 1), "x".repeat(200 * KIB)] {
        let refusal = refused(&socket, "message.send", message(room, &json!({"content": content})), "TOO_LARGE").await;
        assert_eq!(refusal["clientMsgId"], "m");
    }
    for event in ["no.such", "session.ready", "message.delivered", "subscribe", "", "__proto__", "room.memberAdd"] {
        refused(&socket, event, json!({}), "UNKNOWN_EVENT").await;
    }
    for (event, data) in [
        ("message.edit", json!({"roomId": room, "messageId": "x", "content": "y"})),
        ("message.delete", json!({"roomId": room})),
        ("message.react", json!({"roomId": room, "messageId": room, "emoji": "two words"})),
        ("message.read", json!({"roomId": room, "seq": "one"})),
        ("message.read", json!({"roomId": room, "seq": -1})),
        ("typing", json!({"roomId": room, "isTyping": "yes"})),
        ("presence.set", json!({"status": "dancing"})),
        ("presence.query", json!({"userIds": ["x"]})),
        ("presence.query", json!({"userIds": vec![room; 501]})),
        ("room.join", json!({})),
        ("sync", json!({"rooms": "all"})),
        ("sync", json!({"rooms": [{"roomId": room, "afterSeq": -1}]})),
        ("sync", json!({"rooms": [{"roomId": room, "afterSeq": 1, "afterRev": 1}]})),
        ("sync", json!({"rooms": vec![json!({"roomId": room, "afterSeq": 0}); 501]})),
    ] {
        refused(&socket, event, data, "INVALID_PAYLOAD").await;
    }
    refused(&socket, "auth.refresh", json!({"token": "nonsense"}), "UNAUTHENTICATED").await;
    // Without an id there is no ack; the refusal comes as an event.
    socket.tell("no.such", json!({})).await;
    let error = socket.event("error", |_| true).await;
    assert_eq!((&error["status"], &error["code"]), (&json!("REJECTED"), &json!("UNKNOWN_EVENT")));
    let ack = socket.say(room, "after all that", "still here").await;
    assert_eq!(ack["status"], "QUEUED", "{ack}");
    scene.bystander.event("message.delivered", |message| message["seq"] == 1).await;
    scene.assert_unharmed().await;
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn hostile_text_is_only_text_and_strangers_ids_are_unknown(#[case] spec: SystemSpec) {
    let scene = Scene::new(spec).await;
    let (socket, room) = (scene.attacker().await, scene.room.as_str());
    for (number, text) in HOSTILE.into_iter().enumerate() {
        let name: String = text.chars().take(30).collect();
        let ack = socket.say(room, &name, text).await;
        assert_eq!(ack["status"], "QUEUED", "{ack}");
        let delivered = scene.bystander.event("message.delivered", |message| message["seq"] == number as i64 + 1).await;
        assert_eq!((&delivered["content"], &delivered["clientMsgId"]), (&json!(text), &json!(name)));
        for event in ["message.send", "room.join", "typing", "message.read", "room.leave"] {
            let data = json!({"roomId": text, "content": "x", "clientMsgId": "x", "isTyping": true, "seq": 1});
            refused(&socket, event, data, "INVALID_PAYLOAD").await;
        }
        refused(&socket, text, json!({}), "UNKNOWN_EVENT").await;
    }
    let stored = scene.alice.history(room).await;
    let contents: Vec<&str> = stored.iter().map(|item| item["content"].as_str().unwrap()).collect();
    assert_eq!(contents, HOSTILE, "byte for byte");

    // A room of others, one that does not exist, a message of another room: all the same answer.
    let [carol, dave] = scene.system.people(["Carol", "Dave"]).await;
    let foreign = carol.create_group(&[&dave]).await;
    let carols = carol.connect(scene.system.gateway(0)).await;
    let secret = carols.say(&foreign, "secret", "a secret").await["messageId"].clone();
    carols.event("message.delivered", |_| true).await;
    let nowhere = "018f0000-0000-7000-8000-000000000000";
    for place in [foreign.as_str(), nowhere] {
        for (event, data) in [
            ("message.send", json!({"roomId": place, "content": "x", "clientMsgId": "x"})),
            ("message.edit", json!({"roomId": place, "messageId": secret, "content": "x"})),
            ("message.delete", json!({"roomId": place, "messageId": secret, "forEveryone": true})),
            ("message.react", json!({"roomId": place, "messageId": secret, "emoji": "👍"})),
            ("message.read", json!({"roomId": place, "seq": 1})),
            ("room.join", json!({"roomId": place})),
            ("typing", json!({"roomId": place, "isTyping": true})),
        ] {
            refused(&socket, event, data, "NOT_FOUND").await;
        }
        let synced = socket.request("sync", json!({"rooms": [{"roomId": place, "afterSeq": 0}]})).await;
        assert_eq!(synced, json!({"rooms": [{"roomId": place, "code": "NOT_FOUND"}]}));
    }
    // Under one's own room another room's message is as one that is nowhere yet: nobody can find out
    // by a guessed id that it exists. Nothing comes of it.
    for id in [secret.clone(), json!(domain::MessageId::of(domain::UserId::generate(), "never said").to_string())] {
        let edit = json!({"roomId": room, "messageId": id, "content": "mine now"});
        let ack = socket.request("message.edit", edit).await;
        assert_eq!((&ack["status"], &ack["messageId"]), (&json!("QUEUED"), &id));
    }
    assert_eq!(carol.history(&foreign).await[0]["content"], "a secret");
    assert_eq!(carols.everything().iter().filter(|(name, _)| name == "typing").count(), 0);
    scene.assert_unharmed().await;
}

#[tokio::test]
async fn a_flood_is_refused_and_the_others_keep_their_pace() {
    let spec = SystemSpec::distributed(1, 1).env("LIMIT_USER_EVENTS_PER_SEC", "20").env("LIMIT_USER_BURST", "20");
    let system = spec.start().await;
    let [alice, mallory] = system.people(["Alice", "Mallory"]).await;
    let room = alice.create_group(&[&mallory]).await;
    let (calm, flooder) = (alice.connect(system.gateway(0)).await, mallory.connect(system.gateway(0)).await);
    let mut ids = Vec::new();
    for number in 0..60 {
        let data = json!({"roomId": room, "content": "spam", "clientMsgId": format!("{number}")});
        ids.push(flooder.send("message.send", data).await);
    }
    let mut limited = 0;
    for id in ids {
        let ack = flooder.ack(id).await;
        if ack["code"] == "RATE_LIMITED" {
            assert!(ack["retryAfterMs"].as_i64().is_some_and(|wait| wait > 0), "{ack}");
            limited += 1;
        }
    }
    assert!((20..=40).contains(&limited), "{limited} of 60 were refused");
    assert_eq!(calm.say(&room, "calm", "hello").await["status"], "QUEUED");
    system.assert_healthy();
}

#[tokio::test]
async fn in_one_process_sockets_and_rest_share_a_users_rate() {
    const BURST: usize = 20;
    let spec = SystemSpec::all_in_one().env("LIMIT_USER_EVENTS_PER_SEC", "1").env("LIMIT_USER_BURST", "20");
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let socket = bob.connect(system.gateway(0)).await;
    for number in 0..BURST {
        socket.say(&room, &format!("socket {number}"), "hello").await;
    }
    let path = format!("/api/v1/conversations/{room}/messages");
    let mut limited = 0;
    for number in 0..BURST {
        let body = json!({"content": "hello", "clientMsgId": format!("rest {number}")});
        limited += usize::from(bob.rest.post(&path, body).await.status == 429);
    }
    assert!(limited >= BURST / 2, "{limited} of {BURST} were refused by REST after a burst by socket");
    system.assert_healthy();
}
