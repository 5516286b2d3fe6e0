//! Socket.IO over its websocket transport, packet by packet. Stock clients are for the whole system.

use serde_json::{Value, json};
use testkit::client::Rest;
use tokio_tungstenite::tungstenite::Message;

use crate::house::{House, Raw};

const PATH: &str = "/socket.io/?EIO=4&transport=websocket";

async fn open(house: &House, path: &str) -> Raw {
    let mut socket = Raw::open(&house.base, path).await;
    let handshake = socket.json_after("0").await;
    assert_eq!((&handshake["pingInterval"], &handshake["pingTimeout"]), (&json!(25_000), &json!(20_000)));
    assert_eq!(handshake["upgrades"], json!([]));
    assert!(handshake["sid"].is_string());
    socket
}

/// A socket in the namespace, and what it was told first.
async fn connect(house: &House, token: &str, device: &str) -> (Raw, Value) {
    let mut socket = open(house, PATH).await;
    socket.say(format!("40/chat,{}", json!({"token": token, "deviceId": device}))).await;
    let accepted = socket.json_after("40/chat,").await;
    assert!(accepted["sid"].is_string());
    let ready = socket.json_after("42/chat,").await;
    assert_eq!(ready[0], "session.ready");
    (socket, ready[1].clone())
}

#[tokio::test]
async fn events_and_acks_are_those_of_the_native_protocol() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let native = house.connect(bob).await;
    let (mut socket, ready) = connect(&house, &House::token(ann), "phone").await;
    assert_eq!((&ready["userId"], &ready["deviceId"]), (&json!(ann.to_string()), &json!("phone")));

    let data = json!({"roomId": room, "clientMsgId": "m1", "content": "hello"});
    socket.say(format!(r#"42/chat,7["message.send",{data}]"#)).await;
    let (mut ack, mut delivered) = (None, None);
    while ack.is_none() || delivered.is_none() {
        let text = socket.text().await;
        if let Some(rest) = text.strip_prefix("43/chat,7") {
            ack = serde_json::from_str::<Value>(rest).ok();
        } else if let Some(rest) = text.strip_prefix("42/chat,") {
            delivered = serde_json::from_str::<Value>(rest).ok().filter(|event| event[0] == "message.delivered");
        }
    }
    assert_eq!(ack.expect("an ack")[0]["status"], "QUEUED");
    assert_eq!(delivered.expect("a delivery")[1]["content"], "hello");
    assert_eq!(native.delivered(&room, 1).await[0]["content"], "hello");

    socket.say(r#"42/chat,["no.such",{}]"#).await;
    let error = socket.json_after("42/chat,").await;
    assert_eq!((&error[0], &error[1]["code"]), (&json!("error"), &json!("UNKNOWN_EVENT")));
    socket.say(r#"42/chat,8["ping"]"#).await;
    assert!(socket.json_after("43/chat,8").await[0]["serverTime"].is_string());
}

#[tokio::test]
async fn a_refused_client_is_told_the_code_and_may_try_again() {
    let house = House::open().await;
    let ann = house.user().await;
    let mut socket = open(&house, PATH).await;
    for auth in [r#"{"token":"nonsense"}"#, "{}", ""] {
        socket.say(format!("40/chat,{auth}")).await;
        let refused = socket.json_after("44/chat,").await;
        assert_eq!(refused["message"], "UNAUTHENTICATED");
        assert_eq!(
            (&refused["data"]["status"], &refused["data"]["code"]),
            (&json!("REJECTED"), &json!("UNAUTHENTICATED"))
        );
    }
    socket.say(r#"40/chat,{"token":"t","deviceId":"two words"}"#).await;
    assert_eq!(socket.json_after("44/chat,").await["message"], "INVALID_PAYLOAD");
    socket.say(format!(r#"40/chat,{{"token":"{}"}}"#, House::token(ann))).await;
    assert!(socket.json_after("40/chat,").await["sid"].is_string());
}

#[tokio::test]
async fn while_the_store_is_away_the_transport_closes_so_that_the_stock_client_comes_back() {
    let house = House::open().await;
    let ann = house.user().await;
    let mut socket = open(&house, PATH).await;
    house.engine.store.close().await;
    socket.say(format!(r#"40/chat,{{"token":"{}"}}"#, House::token(ann))).await;
    // After `connect_error` it would stay away for good.
    let error = socket.json_after("42/chat,").await;
    assert_eq!(
        (&error[0], &error[1]["code"], &error[1]["closeCode"]),
        (&json!("error"), &json!("UNAVAILABLE"), &json!(4503))
    );
    assert!(error[1]["retryAfterMs"].as_i64().is_some_and(|wait_ms| wait_ms > 0));
    match socket.next().await {
        Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 4503),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_query_may_carry_the_token() {
    let house = House::open().await;
    let ann = house.user().await;
    let mut socket = open(&house, &format!("{PATH}&token={}&deviceId=tablet", House::token(ann))).await;
    socket.say("40/chat,").await;
    socket.json_after("40/chat,").await;
    assert_eq!(socket.json_after("42/chat,").await[1]["deviceId"], "tablet");
}

#[tokio::test]
async fn other_namespaces_are_invalid() {
    let house = House::open().await;
    let mut socket = open(&house, PATH).await;
    socket.say("40").await;
    assert_eq!(socket.text().await, r#"44{"message":"Invalid namespace"}"#);
    socket.say("40/admin,{}").await;
    assert_eq!(socket.text().await, r#"44/admin,{"message":"Invalid namespace"}"#);
}

#[tokio::test]
async fn a_replaced_client_is_told_why_and_sent_out_of_the_namespace() {
    let house = House::open().await;
    let ann = house.user().await;
    let (mut first, _) = connect(&house, &House::token(ann), "phone").await;
    let (_second, _) = connect(&house, &House::token(ann), "phone").await;
    let error = first.json_after("42/chat,").await;
    assert_eq!(
        (&error[0], &error[1]["code"], &error[1]["closeCode"]),
        (&json!("error"), &json!("REPLACED"), &json!(4409))
    );
    assert_eq!(first.text().await, "41/chat,");
}

#[tokio::test]
async fn who_leaves_and_comes_in_again_all_the_time_is_closed() {
    let limits = [("LIMIT_USER_EVENTS_PER_SEC", "1"), ("LIMIT_USER_BURST", "5")];
    let house = House::with(&limits).await;
    let token = House::token(house.user().await);
    let (mut socket, _) = connect(&house, &token, "phone").await;
    let mut returned = 0;
    let error = loop {
        socket.say("41/chat,").await;
        socket.say(format!("40/chat,{}", json!({"token": token}))).await;
        let said = socket.text().await;
        if let Some(error) = said.strip_prefix("42/chat,") {
            break serde_json::from_str::<Value>(error).expect("JSON");
        }
        assert!(said.starts_with("40/chat,"), "{said}");
        socket.json_after("42/chat,").await;
        returned += 1;
    };
    assert_eq!((&error[1]["code"], &error[1]["closeCode"]), (&json!("RATE_LIMITED"), &json!(4429)), "{error}");
    assert!((5..20).contains(&returned), "{returned}");
}

#[tokio::test]
async fn what_is_no_packet_is_told_and_ends_the_transport() {
    let house = House::open().await;
    let ann = house.user().await;
    let deep = format!("42/chat,[\"ping\",{}{}]", "[".repeat(50), "]".repeat(50));
    let bad: Vec<(Message, i64)> = vec![
        (Message::text("hello"), 4400),
        (Message::text("42/chat,{}"), 4400),
        (Message::text("42/chat,[7]"), 4400),
        (Message::text(deep), 4400),
        (Message::binary(vec![1]), 4400),
        (Message::text("x".repeat(300_000)), 4413),
    ];
    for (message, code) in bad {
        let (mut socket, _) = connect(&house, &House::token(ann), "phone").await;
        drop(futures_util::SinkExt::send(&mut socket.socket, message).await);
        let error = socket.json_after("42/chat,").await;
        assert_eq!((&error[0], &error[1]["closeCode"]), (&json!("error"), &json!(code)));
        assert!(matches!(socket.next().await, Some(Message::Close(_)) | None));
    }
}

#[tokio::test]
async fn the_server_pings_and_ends_transports_that_do_not_answer() {
    let house = House::open().await;
    let ann = house.user().await;
    let (mut answers, _) = connect(&house, &House::token(ann), "a").await;
    let (mut silent, _) = connect(&house, &House::token(ann), "b").await;
    house.engine.clock.shift(25_500);
    assert_eq!(answers.text().await, "2");
    answers.say("3").await;
    assert_eq!(silent.text().await, "2");
    // Nothing tells when the pong has been taken but what is answered after it.
    answers.say(r#"42/chat,1["ping"]"#).await;
    answers.json_after("43/chat,1").await;
    house.engine.clock.shift(20_500);
    let error = silent.json_after("42/chat,").await;
    assert_eq!(error[1]["closeCode"], 4408);
    assert!(matches!(silent.next().await, Some(Message::Close(_)) | None));
    answers.say(r#"42/chat,2["ping"]"#).await;
    answers.json_after("43/chat,2").await;
}

#[tokio::test]
async fn what_is_not_spoken_is_refused_in_the_words_of_engine_io() {
    let house = House::open().await;
    let rest = Rest::new(&house.base);
    for (query, code) in [
        ("EIO=4", 0),
        ("EIO=4&transport=webtransport", 0),
        ("EIO=4&transport=polling&sid=x", 1),
        ("EIO=4&transport=websocket", 3),
        ("EIO=3&transport=polling", 5),
        ("", 0),
    ] {
        let answer = rest.get(&format!("/socket.io/?{query}")).await;
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!(code)), "{query}");
    }
}

#[tokio::test]
async fn the_page_is_served_and_a_plain_request_for_a_socket_is_told_to_upgrade() {
    let house = House::open().await;
    let rest = Rest::new(&house.base);
    let page = rest.get("/").await;
    assert_eq!((page.status, page.content_type.as_str()), (200, "text/html"));
    assert_eq!(rest.get("/app.js").await.content_type, "text/javascript");
    assert_eq!(rest.get("/ws").await.status, 426);
}
