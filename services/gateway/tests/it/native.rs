//! The native WebSocket: who gets in, what a session can do.

use rstest::rstest;
use serde_json::json;
use testkit::client::Socket;
use testkit::token::{mint, sign};
use tokio_tungstenite::tungstenite::Error;

use crate::codec::Codec;
use crate::house::{House, QUIET, SECRET, until};

#[rstest]
#[tokio::test]
async fn a_message_is_queued_and_then_delivered_to_every_device_of_every_member(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let (first, second, other) = (house.connect(ann).await, house.connect(ann).await, house.connect(bob).await);

    let content = "<b>\u{2028}\"hé\" 👍\n";
    let ack = first.say(&room.to_string(), "m1", content).await;
    assert_eq!(ack["status"], "QUEUED");
    assert_eq!(ack["clientMsgId"], "m1");
    for socket in [&first, &second, &other] {
        let delivered = socket.delivered(&room.to_string(), 1).await.remove(0);
        assert_eq!(delivered["content"], content);
        assert_eq!(delivered["messageId"], ack["messageId"]);
        assert_eq!((&delivered["seq"], &delivered["rev"]), (&json!(1), &json!(2)));
        assert_eq!(delivered["senderId"], ann.to_string());
    }
}

#[rstest]
#[tokio::test]
async fn session_ready_comes_first_and_says_where_all_rooms_stand(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let rooms = [house.room(&[ann, bob]).await, house.room(&[bob, ann]).await];
    let talker = house.connect(bob).await;
    talker.say(&rooms[0].to_string(), "m1", "one").await;
    talker.delivered(&rooms[0].to_string(), 1).await;

    let path = format!("/ws?token={}&deviceId=phone-1", House::token(ann));
    let socket = Socket::open(&house.base, &path).await;
    let ready = socket.event("session.ready", |_| true).await;
    assert_eq!(socket.everything()[0].0, "session.ready");
    assert_eq!((&ready["userId"], &ready["deviceId"]), (&json!(ann.to_string()), &json!("phone-1")));
    assert_eq!(ready["limits"]["frameBytes"], 262_144);
    let state = |room: &domain::RoomId| {
        let all = ready["rooms"].as_array().expect("a list");
        all.iter().find(|it| it["roomId"] == room.to_string()).expect("the room").clone()
    };
    assert_eq!(state(&rooms[0]), json!({"roomId": rooms[0].to_string(), "lastSeq": 1, "rev": 2, "unread": 1}));
    assert_eq!(state(&rooms[1]), json!({"roomId": rooms[1].to_string(), "lastSeq": 0, "rev": 1, "unread": 0}));
}

#[rstest]
#[tokio::test]
async fn a_token_is_taken_from_the_header_the_query_or_the_first_frame(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let ann = house.user().await;
    let bearer = format!("Bearer {}", House::token(ann));
    let by_header =
        Socket::try_open(&house.base, "/ws?token=bad", &[("authorization", &bearer)]).await.expect("upgraded");
    by_header.event("session.ready", |_| true).await;
    let by_alias = Socket::open(&house.base, &format!("/chat?token={}", House::token(ann))).await;
    by_alias.event("session.ready", |_| true).await;

    let by_frame = Socket::open(&house.base, "/ws").await;
    let ack = by_frame.request("auth", json!({"token": House::token(ann), "deviceId": "d-7"})).await;
    assert_eq!(ack["status"], "OK");
    assert_eq!(by_frame.event("session.ready", |_| true).await["deviceId"], "d-7");
    assert_eq!(by_frame.everything()[0].0, "session.ready");
}

#[rstest]
#[tokio::test]
async fn a_bad_token_is_upgraded_and_then_closed_with_4401(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let ann = house.user().await;
    let claims = json!({"sub": ann.to_string(), "exp": testkit::token::now_s() + 60});
    let voided = mint(SECRET, &ann.to_string(), 3600);
    let bad = [
        "nonsense".to_owned(),
        mint(SECRET, &ann.to_string(), -10),
        mint("another secret that is long enough", &ann.to_string(), 60),
        sign(SECRET, "none", &claims),
        mint(SECRET, "not-a-uuid", 60),
        mint(SECRET, &domain::UserId::generate().to_string(), 60),
        voided,
    ];
    // Signing out everywhere voids what was issued before.
    house
        .engine
        .store
        .void_tokens(ann, house.engine.clock.now().plus(std::time::Duration::from_secs(5)))
        .await
        .expect("voided");
    for token in bad {
        let socket = Socket::open(&house.base, &format!("/ws?token={token}")).await;
        assert_eq!(socket.closed().await, Some((4401, "UNAUTHENTICATED".to_owned())), "{token}");
        assert!(socket.everything().is_empty());
    }
}

#[rstest]
#[tokio::test]
async fn a_blocked_account_is_closed_with_4403(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let ann = house.user().await;
    house.engine.store.set_blocked(ann, true, house.engine.clock.now()).await.expect("blocked");
    let socket = Socket::open(&house.base, &format!("/ws?token={}", House::token(ann))).await;
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(4403));
}

#[rstest]
#[tokio::test]
async fn what_was_said_on_one_connection_is_stored_in_the_order_of_its_frames(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (talker, listener) = (house.connect(ann).await, house.connect(bob).await);
    let mut ids = Vec::new();
    for number in 0..600 {
        let data = json!({"roomId": room, "clientMsgId": format!("m{number}"), "content": number.to_string()});
        ids.push(talker.send("message.send", data).await);
    }
    let delivered = listener.delivered(&room, 600).await;
    for (number, message) in delivered.iter().enumerate() {
        assert_eq!((&message["content"], &message["seq"]), (&json!(number.to_string()), &json!(number + 1)));
    }
    for id in ids {
        assert_eq!(talker.ack(id).await["status"], "QUEUED");
    }
}

#[rstest]
#[tokio::test]
async fn direct_commands_answer_and_tell_the_others(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (one, other) = (house.connect(ann).await, house.connect(bob).await);
    let pong = one.request("ping", json!({})).await;
    assert!(pong["serverTime"].as_str().is_some_and(|time| time.ends_with('Z')));

    one.say(&room, "m1", "hello").await;
    other.delivered(&room, 1).await;
    assert_eq!(other.request("message.read", json!({"roomId": room, "seq": 1})).await, json!({"status": "OK"}));
    let read = one.event("message.read", |_| true).await;
    assert_eq!((&read["userId"], &read["seq"]), (&json!(bob.to_string()), &json!(1)));

    assert_eq!(one.request("typing", json!({"roomId": room, "isTyping": true})).await, json!({"status": "OK"}));
    let typing = other.event("typing", |_| true).await;
    assert_eq!(typing["userId"], ann.to_string());
    assert!(one.events("typing").is_empty(), "not told to who types");

    let seen = other.request("presence.query", json!({"userIds": [ann.to_string()]})).await;
    assert_eq!(seen["users"][0]["status"], "online");
    assert_eq!(one.request("presence.set", json!({"status": "busy"})).await, json!({"status": "OK"}));

    let synced = other.request("sync", json!({"rooms": [{"roomId": room, "afterSeq": 0}]})).await;
    assert_eq!(synced["rooms"][0]["items"][0]["content"], "hello");
    assert_eq!(synced["rooms"][0]["complete"], true);
}

#[rstest]
#[tokio::test]
async fn a_stranger_learns_nothing(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, eve) = (house.user().await, house.user().await);
    let room = house.room(&[ann]).await.to_string();
    let (member, stranger) = (house.connect(ann).await, house.connect(eve).await);
    let refused = stranger.say(&room, "x1", "let me in").await;
    assert_eq!((&refused["code"], &refused["clientMsgId"]), (&json!("NOT_FOUND"), &json!("x1")));
    for (event, data) in [
        ("room.join", json!({"roomId": room})),
        ("room.leave", json!({"roomId": room})),
        ("typing", json!({"roomId": room, "isTyping": true})),
        ("message.read", json!({"roomId": room, "seq": 1})),
    ] {
        assert_eq!(stranger.request(event, data).await["code"], "NOT_FOUND", "{event}");
    }
    let synced = stranger.request("sync", json!({"rooms": [{"roomId": room, "afterSeq": 0}]})).await;
    assert_eq!(synced["rooms"], json!([{"roomId": room, "code": "NOT_FOUND"}]));
    member.say(&room, "m1", "secret").await;
    member.delivered(&room, 1).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(stranger.everything().len(), 1, "session.ready and nothing else");
}

#[tokio::test]
async fn only_known_subprotocols_are_spoken() {
    let house = House::open().await;
    let path = format!("/ws?token={}", House::token(house.user().await));
    let offer = async |name: &str| Socket::try_open(&house.base, &path, &[("sec-websocket-protocol", name)]).await;
    let spoken = offer("chatchit.v1.json").await.expect("upgraded");
    spoken.event("session.ready", |_| true).await;
    for unknown in ["chatchit.v2.json", "mqtt"] {
        match offer(unknown).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 400, "{unknown}"),
            other => panic!("{unknown}: {:?}", other.err()),
        }
    }
}

#[rstest]
#[tokio::test]
async fn two_gateways_serve_one_room(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (_other, base) = house.another_gateway();
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (one, other) = (house.connect(ann).await, crate::house::connect_to(&base, bob).await);
    for number in 0..20 {
        let talker = if number % 2 == 0 { &one } else { &other };
        assert_eq!(talker.say(&room, &format!("m{number}"), "x").await["status"], "QUEUED");
    }
    let seqs = |messages: Vec<serde_json::Value>| -> Vec<i64> {
        messages.iter().map(|message| message["seq"].as_i64().expect("a seq")).collect()
    };
    let expected: Vec<i64> = (1..=20).collect();
    assert_eq!(seqs(one.delivered(&room, 20).await), expected);
    assert_eq!(seqs(other.delivered(&room, 20).await), expected);
    until(|| one.events("message.delivered").len() == 20).await;
}
