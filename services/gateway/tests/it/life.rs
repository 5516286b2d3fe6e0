//! How connections end: in time, for a reason that is said, without loss of what was accepted.

use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use testkit::client::Socket;
use testkit::token::mint;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::codec::Codec;
use crate::house::{House, QUIET, Raw, SECRET, until};

#[rstest]
#[tokio::test]
async fn who_does_not_say_who_it_is_in_five_seconds_is_closed(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let socket = Socket::open(&house.base, "/ws").await;
    house.engine.clock.shift(4_000);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(socket.is_open());
    house.engine.clock.shift(1_500);
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(4401));
}

#[rstest]
#[tokio::test]
async fn a_second_connection_of_a_device_replaces_the_first(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let ann = house.user().await;
    let path = format!("/ws?token={}&deviceId=phone", House::token(ann));
    let first = Socket::open(&house.base, &path).await;
    first.event("session.ready", |_| true).await;
    let second = Socket::open(&house.base, &path).await;
    second.event("session.ready", |_| true).await;
    assert_eq!(first.closed().await, Some((4409, "REPLACED".to_owned())));
    assert!(second.request("ping", json!({})).await["serverTime"].is_string());
    let lease = house.engine.realtime.sessions_of(ann).await.expect("known");
    assert_eq!(lease.len(), 1, "the second one is there still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_connections_of_one_device_that_come_at_once_one_stays() {
    let house = House::open().await;
    for _ in 0..20 {
        let ann = house.user().await;
        let path = format!("/ws?token={}&deviceId=phone", House::token(ann));
        let sockets = futures_util::future::join_all((0..4).map(|_| Socket::open(&house.base, &path))).await;
        let open = || sockets.iter().filter(|socket| socket.is_open()).count();
        until(|| open() == 1).await;
        // The one that stays is the one that presence knows, and nobody sends it away any more.
        let survivor = sockets.iter().find(|socket| socket.is_open()).expect("one is open");
        let ready = survivor.event("session.ready", |_| true).await;
        until(|| {
            let sessions = futures_util::FutureExt::now_or_never(house.engine.realtime.sessions_of(ann));
            let sessions = sessions.and_then(Result::ok).unwrap_or_default();
            sessions.len() == 1 && sessions[0].session.to_string() == ready["sessionId"]
        })
        .await;
        assert!(survivor.request("ping", json!({})).await["serverTime"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_connections_of_one_device_that_come_at_once_to_two_gateways_one_stays() {
    let house = House::open().await;
    let (_other, base) = house.another_gateway();
    for round in 0..30 {
        let path = format!("/ws?token={}&deviceId=phone", House::token(house.user().await));
        let bases = [&house.base, &base].into_iter().cycle().take(3 + round % 4);
        let sockets = futures_util::future::join_all(bases.map(|base| Socket::open(base, &path))).await;
        let open = || sockets.iter().filter(|socket| socket.is_open()).count();
        until(|| open() <= 1).await;
        tokio::time::sleep(QUIET / 3).await;
        assert_eq!(open(), 1, "round {round}");
    }
}

#[tokio::test]
async fn who_does_not_answer_pings_is_closed_and_who_does_is_not() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let answers = house.connect(ann).await;
    // This one is read only at the end, so that its pongs do not go out before.
    let mut silent = Raw::open(&house.base, &format!("/ws?token={}", House::token(bob))).await;
    assert!(silent.text().await.contains("session.ready"));
    house.engine.clock.shift(25_500);
    tokio::time::sleep(Duration::from_millis(800)).await;
    house.engine.clock.shift(20_500);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(silent.close_code().await, Some(4408));
    assert!(answers.request("ping", json!({})).await["serverTime"].is_string());
}

#[rstest]
#[tokio::test]
async fn expiry_is_told_ahead_and_a_refresh_moves_it(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, eve) = (house.user().await, house.user().await);
    let token = mint(SECRET, &ann.to_string(), 120);
    let refreshed = Socket::open(&house.base, &format!("/ws?token={token}")).await;
    let left_alone = Socket::open(&house.base, &format!("/ws?token={token}")).await;
    for socket in [&refreshed, &left_alone] {
        socket.event("session.ready", |_| true).await;
    }
    house.engine.clock.shift(62_000);
    for socket in [&refreshed, &left_alone] {
        assert!(socket.event("auth.expiring", |_| true).await["expiresAt"].is_string());
    }
    let foreign = refreshed.request("auth.refresh", json!({"token": House::token(eve)})).await;
    assert_eq!(foreign["code"], "UNAUTHENTICATED");
    let ack = refreshed.request("auth.refresh", json!({"token": mint(SECRET, &ann.to_string(), 3600)})).await;
    assert_eq!(ack["status"], "OK");
    house.engine.clock.shift(60_000);
    assert_eq!(left_alone.closed().await.map(|(code, _)| code), Some(4401));
    assert!(refreshed.request("ping", json!({})).await["serverTime"].is_string());
}

#[tokio::test]
async fn presence_lasts_as_long_as_the_connection() {
    let house = House::open().await;
    let ann = house.user().await;
    let socket = house.connect(ann).await;
    let realtime = &house.engine.realtime;
    let is_online = async |expected: bool| {
        testkit::until(testkit::PATIENCE, async || {
            realtime.sessions_of(ann).await.is_ok_and(|sessions| sessions.is_empty() != expected)
        })
        .await;
    };
    is_online(true).await;
    socket.cut();
    is_online(false).await;
}

#[rstest]
#[tokio::test]
async fn a_drain_tells_when_to_come_back_acks_what_was_accepted_and_refuses_newcomers(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let ann = house.user().await;
    let room = house.room(&[ann]).await.to_string();
    let sockets = [house.connect(ann).await, house.connect(ann).await];
    let mut ids = Vec::new();
    for number in 0..50 {
        let data = json!({"roomId": room, "clientMsgId": format!("m{number}"), "content": "x"});
        ids.push(sockets[0].send("message.send", data).await);
    }
    sockets[0].ack(ids[0]).await;
    house.gateway.drain().await;
    for socket in &sockets {
        assert_eq!(socket.closed().await.map(|(code, _)| code), Some(4503));
        let told = socket.event("server.draining", |_| true).await;
        assert!(told["retryAfterMs"].as_i64().is_some_and(|wait_ms| wait_ms > 0));
    }
    let acks = sockets[0].acks();
    assert!(acks.iter().all(|ack| ack["status"] == "QUEUED"), "{acks:?}");
    match Raw::try_open(&house.direct, "/ws").await.map(|_| ()) {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 503),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_goodbye_of_the_clients_is_answered() {
    let house = House::open().await;
    let ann = house.user().await;
    let mut socket = Raw::open(&house.base, &format!("/ws?token={}", House::token(ann))).await;
    assert!(socket.text().await.contains("session.ready"));
    socket.socket.close(None).await.expect("said");
    assert!(matches!(socket.next().await, Some(Message::Close(_))));
    until(|| {
        futures_util::FutureExt::now_or_never(house.engine.realtime.sessions_of(ann))
            .and_then(Result::ok)
            .is_some_and(|sessions| sessions.is_empty())
    })
    .await;
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_refused() {
    let house = House::with(&[("LIMIT_IP_CONNECTIONS", "2")]).await;
    let ann = house.user().await;
    let _held = [house.connect(ann).await, house.connect(ann).await];
    match Raw::try_open(&house.base, "/ws").await.map(|_| ()) {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 429),
        other => panic!("{other:?}"),
    }
}
