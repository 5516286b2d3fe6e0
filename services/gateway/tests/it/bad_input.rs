//! Whatever comes in: a coded refusal or the agreed close code, and nobody else notices.

use futures_util::SinkExt as _;
use rstest::rstest;
use serde_json::json;
use testkit::client::Socket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::house::{House, Raw};

fn raw_frame(kind: Data, payload: Vec<u8>) -> Message {
    Message::Frame(Frame::message(payload, OpCode::Data(kind), true))
}

#[rstest]
#[case::not_json(Message::text("hello"), 4400)]
#[case::an_array(Message::text("[1]"), 4400)]
#[case::no_event(Message::text("{}"), 4400)]
#[case::event_not_a_string(Message::text(r#"{"event":7}"#), 4400)]
#[case::too_deep(Message::text(format!(r#"{{"event":"ping","data":{{"a":{}{}}}}}"#, "[".repeat(50), "]".repeat(50))), 4400)]
#[case::binary(Message::binary(vec![1, 2, 3]), 4400)]
#[case::invalid_utf8(raw_frame(Data::Text, vec![b'"', 0xff, 0xfe]), 1007)]
#[case::ten_megabytes(Message::text("x".repeat(10 * 1024 * 1024)), 4413)]
#[case::just_too_large(Message::text("x".repeat(256 * 1024 + 1)), 4413)]
#[tokio::test]
async fn what_is_no_frame_closes_the_connection_with_the_agreed_code(#[case] message: Message, #[case] code: u16) {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (culprit, witness) = (house.connect(ann).await, house.connect(bob).await);
    // The server may close before all of it was sent.
    drop(culprit.raw(message).await);
    assert_eq!(culprit.closed().await.map(|(code, _)| code), Some(code));
    assert_eq!(witness.say(&room, "m1", "still here").await["status"], "QUEUED");
    witness.delivered(&room, 1).await;
}

#[rstest]
#[case::not_protobuf(Message::binary(vec![0xff; 20]), 4400)]
#[case::cut_short(Message::binary(vec![0x0a, 100, 1]), 4400)]
#[case::text(Message::text(r#"{"event":"ping"}"#), 4400)]
#[case::ten_megabytes(Message::binary(vec![0; 10 * 1024 * 1024]), 4413)]
#[case::just_too_large(Message::binary(vec![0; 256 * 1024 + 1]), 4413)]
#[tokio::test]
async fn what_is_no_protobuf_frame_closes_the_connection_with_the_agreed_code(
    #[case] message: Message,
    #[case] code: u16,
) {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let path = format!("/ws?token={}", House::token(ann));
    let subprotocol = [("sec-websocket-protocol", "chatchit.v1.protobuf")];
    let culprit = Socket::try_open(&house.base, &path, &subprotocol).await.expect("upgraded");
    let witness = house.connect(bob).await;
    // The server may close before all of it was sent.
    drop(culprit.raw(message).await);
    assert_eq!(culprit.closed().await.map(|(code, _)| code), Some(code));
    assert_eq!(witness.say(&room, "m1", "still here").await["status"], "QUEUED");
    witness.delivered(&room, 1).await;
}

#[tokio::test]
async fn before_the_first_frame_the_same_codes_hold() {
    let house = House::open().await;
    for (message, code) in [
        (Message::text("hello"), 4400),
        (Message::binary(vec![1]), 4400),
        (raw_frame(Data::Text, vec![0xff]), 1007),
        (Message::text("x".repeat(300_000)), 4413),
        (Message::text(r#"{"event":"ping"}"#), 4401),
        (Message::text(r#"{"event":"auth","data":{"token":"nonsense"}}"#), 4401),
    ] {
        let mut socket = Raw::open(&house.base, "/ws").await;
        drop(futures_util::SinkExt::send(&mut socket.socket, message).await);
        assert_eq!(socket.close_code().await, Some(code));
    }
}

#[tokio::test]
async fn a_first_frame_without_a_token_ends_the_connection_before_its_time_is_up() {
    let house = House::open().await;
    for data in [json!({}), json!({"token": ""})] {
        let mut socket = Raw::open(&house.base, "/ws").await;
        let frame = json!({"id": 1, "event": "auth", "data": data}).to_string();
        futures_util::SinkExt::send(&mut socket.socket, Message::text(frame)).await.expect("open");
        let closed = tokio::time::timeout(std::time::Duration::from_secs(3), socket.close_code()).await;
        assert_eq!(closed.ok().flatten(), Some(4401));
    }
}

#[tokio::test]
async fn bad_data_is_refused_and_the_connection_stays() {
    let house = House::open().await;
    let ann = house.user().await;
    let room = house.room(&[ann]).await.to_string();
    let socket = house.connect(ann).await;
    let cases = [
        ("message.send", json!({"roomId": room, "content": 7, "clientMsgId": "m"}), "INVALID_PAYLOAD", "content"),
        ("message.send", json!({"content": "x", "clientMsgId": "m"}), "INVALID_PAYLOAD", "roomId"),
        ("message.send", json!({"roomId": room, "content": "", "clientMsgId": "m"}), "INVALID_PAYLOAD", "content"),
        (
            "message.send",
            json!({"roomId": room, "content": "a\u{0}b", "clientMsgId": "m"}),
            "INVALID_PAYLOAD",
            "content",
        ),
        (
            "message.send",
            json!({"roomId": room, "content": "x".repeat(20_000), "clientMsgId": "m"}),
            "TOO_LARGE",
            "content",
        ),
        (
            "message.send",
            json!({"roomId": "'; DROP TABLE rooms; --", "content": "x", "clientMsgId": "m"}),
            "INVALID_PAYLOAD",
            "roomId",
        ),
        ("typing", json!([1]), "INVALID_PAYLOAD", "data"),
        ("presence.set", json!({"status": "sleeping"}), "INVALID_PAYLOAD", "status"),
        ("sync", json!({"rooms": "all"}), "INVALID_PAYLOAD", "rooms"),
    ];
    for (event, data, code, field) in cases {
        let refused = socket.request(event, data).await;
        assert_eq!((&refused["status"], &refused["code"]), (&json!("REJECTED"), &json!(code)), "{refused}");
        assert_eq!(refused["field"], field, "{refused}");
    }
    assert_eq!(socket.request("subscribe", json!({"channel": "x"})).await["code"], "UNKNOWN_EVENT");
    socket.tell("no.such", json!({})).await;
    assert_eq!(socket.event("error", |_| true).await["code"], "UNKNOWN_EVENT");
    assert_eq!(socket.say(&room, "m-good", "fine").await["status"], "QUEUED");
}

#[tokio::test]
async fn over_the_rate_one_is_told_how_long_to_wait_and_whoever_goes_on_is_shown_the_door() {
    let limits = [("LIMIT_USER_EVENTS_PER_SEC", "1"), ("LIMIT_USER_BURST", "2")];
    let house = House::with(&limits).await;
    let ann = house.user().await;
    let socket = house.connect(ann).await;
    for _ in 0..2 {
        assert!(socket.request("ping", json!({})).await["serverTime"].is_string());
    }
    let refused = socket.say(&house.room(&[ann]).await.to_string(), "m1", "x").await;
    assert_eq!((&refused["code"], &refused["clientMsgId"]), (&json!("RATE_LIMITED"), &json!("m1")));
    assert!(refused["retryAfterMs"].as_i64().is_some_and(|wait_ms| wait_ms > 0));

    let flood = async {
        while socket.is_open() {
            socket.tell("ping", json!({})).await;
        }
    };
    tokio::time::timeout(testkit::PATIENCE, flood).await.expect("closed at some time");
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(4429));
}

#[tokio::test]
async fn who_does_not_read_is_closed_and_the_others_are_served() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let talker = house.connect(ann).await;
    let mut sleeper = Raw::open(&house.base, &format!("/ws?token={}", House::token(bob))).await;
    assert!(sleeper.text().await.contains("session.ready"));
    let content = "x".repeat(16_000);
    for number in 0..1200 {
        let name = format!("m{number}");
        let id = talker.send("message.send", json!({"roomId": room, "clientMsgId": name, "content": content})).await;
        if number % 50 == 49 {
            assert_eq!(talker.ack(id).await["status"], "QUEUED");
        }
    }
    // Only now does it read what lies in the network's buffers.
    assert_eq!(sleeper.close_code().await, Some(4508));
    assert!(talker.request("ping", json!({})).await["serverTime"].is_string());
}

#[tokio::test]
async fn who_keeps_to_the_hints_gets_everything_through() {
    let house = House::with(&[("LIMIT_USER_EVENTS_PER_SEC", "100"), ("LIMIT_USER_BURST", "10")]).await;
    let socket = house.connect(house.user().await).await;
    let one = async || {
        let mut refused = 0;
        for _ in 0..4 {
            while let Some(wait_ms) = socket.request("ping", json!({})).await["retryAfterMs"].as_u64() {
                refused += 1;
                tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
            }
        }
        refused
    };
    let refused: u32 = futures_util::future::join_all((0..50).map(|_| one())).await.into_iter().sum();
    assert!(socket.is_open() && refused < 3 * 200, "{refused} refusals for 200 commands");
}

#[rstest]
#[case::native("/ws")]
#[case::socketio("/socket.io/?EIO=4&transport=websocket")]
#[tokio::test]
async fn of_a_stranger_no_large_frame_is_taken(#[case] path: &str) {
    let house = House::open().await;
    let mut socket = Raw::open(&house.base, path).await;
    socket.say("x".repeat(16 * 1024 + 1)).await;
    assert_eq!(socket.close_code().await, Some(4413));
}

#[tokio::test]
async fn a_large_frame_right_behind_the_first_one_is_taken_once_the_client_was_let_in() {
    let house = House::open().await;
    let ann = house.user().await;
    let room = house.room(&[ann]).await.to_string();
    let mut socket = Raw::open(&house.base, "/ws").await;
    let auth = json!({"event": "auth", "data": {"token": House::token(ann)}});
    let send = json!({"id": 1, "event": "message.send", "data":
        {"roomId": room, "clientMsgId": "m1", "content": "x".repeat(200_000)}});
    for frame in [auth, send] {
        socket.socket.feed(Message::text(frame.to_string())).await.expect("taken");
    }
    socket.socket.flush().await.expect("sent");
    let ack = loop {
        let said: serde_json::Value = serde_json::from_str(&socket.text().await).expect("JSON");
        if said["id"] == 1 {
            break said;
        }
    };
    assert_eq!(ack["ack"]["code"], "TOO_LARGE", "{ack}");
}
