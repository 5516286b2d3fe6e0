//! Everybody comes at once: a bounded number is let in at a time, the others are told when to come
//! back, and all who keep to that get in. Who only ever fails is kept out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::house::{House, Raw, figure};

type Small = WebSocketStream<TcpStream>;

async fn open(base: &str, path: &str) -> Result<Small, Error> {
    let authority = base.trim_start_matches("http://");
    let stream = TcpStream::connect(authority).await.map_err(Error::Io)?;
    let request = format!("ws://{authority}{path}").into_client_request()?;
    let config = WebSocketConfig::default().read_buffer_size(1024);
    client_async_with_config(request, stream, Some(config)).await.map(|(socket, _)| socket)
}

/// What a client learns when it tries.
enum Tried {
    In(Box<Small>),
    ComeBack(u64),
}

fn hint(body: &Value) -> u64 {
    body["retryAfterMs"].as_u64().unwrap_or_else(|| panic!("no hint in {body}"))
}

async fn try_native(base: &str, token: &str) -> Tried {
    let mut socket = match open(base, &format!("/ws?token={token}")).await {
        Ok(socket) => socket,
        Err(Error::Http(answer)) => {
            assert_eq!(answer.status(), 503);
            assert!(answer.headers().contains_key("retry-after"));
            let body = answer.body().as_deref().unwrap_or_default();
            return Tried::ComeBack(hint(&serde_json::from_slice(body).expect("JSON")));
        }
        Err(other) => panic!("{other}"),
    };
    let mut after_ms = None;
    loop {
        match futures_util::StreamExt::next(&mut socket).await {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                if frame["event"] == "session.ready" {
                    return Tried::In(Box::new(socket));
                }
                assert_eq!((&frame["event"], &frame["data"]["closeCode"]), (&json!("error"), &json!(4503)), "{frame}");
                after_ms = Some(hint(&frame["data"]));
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                assert_eq!(u16::from(frame.code), 4503);
                return Tried::ComeBack(after_ms.expect("a hint before the close"));
            }
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_thousand_who_come_at_once_all_get_in_who_keep_to_the_hints() {
    const CLIENTS: usize = 2_000;
    const AT_ONCE: usize = 8;
    let limits = [("LIMIT_OPENINGS", "8"), ("LIMIT_IP_FAILURES_PER_MIN", "1")];
    let house = House::with(&limits).await;
    let mut tokens = Vec::new();
    for _ in 0..200 {
        tokens.push(House::token(house.user().await));
    }
    let (tries, longest) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let client = async |at: usize| {
        for attempt in 1.. {
            tries.fetch_add(1, Ordering::Relaxed);
            longest.fetch_max(attempt, Ordering::Relaxed);
            let token = format!("{}&deviceId=d{at}", tokens[at % tokens.len()]);
            most.fetch_max(House::gauge("chat_openings"), Ordering::Relaxed);
            match try_native(&house.base, &token).await {
                Tried::In(socket) => return socket,
                Tried::ComeBack(after_ms) => {
                    assert!((1..=31_000).contains(&after_ms), "{after_ms}");
                    tokio::time::sleep(Duration::from_millis(after_ms)).await;
                }
            }
        }
        unreachable!("attempts do not end")
    };
    let all = tokio::time::timeout(Duration::from_mins(3), join_all((0..CLIENTS).map(client))).await;
    let sockets = all.expect("all are in");
    let (tries, longest) = (tries.into_inner(), longest.into_inner());
    figure(&format!("{tries} tries, {longest} of one client, {} at a time", most.load(Ordering::Relaxed)));
    assert_eq!(sockets.len(), CLIENTS);
    assert!(most.load(Ordering::Relaxed) <= AT_ONCE);
    assert!(House::limited("openings") > 0, "some were sent away");
    assert!(longest <= 20, "{longest} tries of one client");
}

/// Sockets that are open already wait for a turn when they say who they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_who_it_is_while_too_many_do_is_told_when_to_come_back_and_then_closed() {
    const SOCKETS: usize = 200;
    let house = House::with(&[("LIMIT_OPENINGS", "1")]).await;
    let token = House::token(house.user().await);
    let (mut native, mut socketio) = (Vec::new(), Vec::new());
    for _ in 0..SOCKETS {
        native.push(Raw::open(&house.base, "/ws").await);
        socketio.push(Raw::open(&house.base, "/socket.io/?EIO=4&transport=websocket").await);
    }
    let auth = json!({"event": "auth", "data": {"token": token}}).to_string();
    join_all(native.iter_mut().map(|socket| socket.say(&*auth))).await;
    let auth = format!("40/chat,{}", json!({"token": token}));
    join_all(socketio.iter_mut().map(|socket| socket.say(&*auth))).await;
    let told_native = join_all(native.iter_mut().map(async |socket| first_event(socket, "").await)).await;
    let told_socketio = join_all(socketio.iter_mut().map(async |socket| first_event(socket, "42/chat,").await)).await;
    let mut came_in = 0;
    for (told, sockets) in [(told_native, &mut native), (told_socketio, &mut socketio)] {
        let mut sent_away = 0;
        for ((name, data), socket) in told.iter().zip(sockets) {
            if name == "error" {
                sent_away += 1;
                assert_eq!((&data["code"], &data["closeCode"]), (&json!("OVERLOADED"), &json!(4503)));
                assert!(hint(data) > 0);
                assert_eq!(socket.close_code().await, Some(4503));
            } else {
                assert_eq!(name, "session.ready");
                came_in += 1;
            }
        }
        assert!(sent_away > 0);
    }
    assert!(came_in > 0);
}

/// The name and the data of the first event.
async fn first_event(socket: &mut Raw, start: &str) -> (String, Value) {
    loop {
        let text = socket.text().await;
        let Some(event) = text.strip_prefix(start).and_then(|json| serde_json::from_str::<Value>(json).ok()) else {
            continue;
        };
        let (name, data) = if start.is_empty() { (&event["event"], &event["data"]) } else { (&event[0], &event[1]) };
        return (name.as_str().expect("a name").to_owned(), data.clone());
    }
}

#[tokio::test]
async fn over_the_rate_of_the_whole_gateway_a_handshake_is_answered_with_a_time_to_come_back() {
    let house = House::with(&[("LIMIT_HANDSHAKES_PER_SEC", "5")]).await;
    let rest = testkit::client::Rest::new(&house.base);
    let mut sent_away = Vec::new();
    for _ in 0..10 {
        let answer = rest.get("/socket.io/?EIO=4&transport=polling").await;
        if answer.status == 503 {
            assert_eq!((answer.code(), answer.content_type.as_str()), ("OVERLOADED", "application/problem+json"));
            let after_ms = hint(&answer.body);
            assert_eq!(answer.retry_after_s, Some(after_ms.div_ceil(1000)));
            sent_away.push(after_ms);
        } else {
            assert_eq!(answer.status, 200);
        }
    }
    assert!(sent_away.len() >= 4, "{sent_away:?}");
    assert_eq!(House::limited("handshakes"), sent_away.len());
}

#[tokio::test]
async fn an_address_that_only_fails_is_kept_out_for_a_while() {
    let house = House::with(&[("LIMIT_IP_FAILURES_PER_MIN", "6")]).await;
    let ann = house.user().await;
    for _ in 0..5 {
        let mut socket = Raw::open(&house.base, "/ws?token=nonsense").await;
        assert_eq!(socket.close_code().await, Some(4401));
        house.connect(ann).await;
    }
    let rest = testkit::client::Rest::new(&house.base);
    for _ in 0..4 {
        rest.get("/ws").await;
    }
    let answer = rest.get("/ws").await;
    assert_eq!((answer.status, answer.code()), (429, "RATE_LIMITED"));
    let after_ms = hint(&answer.body);
    assert!((10_000..=15_000).contains(&after_ms) && answer.retry_after_s.is_some(), "{after_ms}");
    assert!(House::limited("ip_failures") > 0);
    house.engine.clock.shift(15_500);
    house.connect(ann).await;
}

#[tokio::test]
async fn a_further_device_takes_the_place_of_the_one_that_connected_first() {
    let house = House::with(&[("LIMIT_USER_DEVICES", "3")]).await;
    let ann = house.user().await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(house.connect(ann).await);
    }
    assert_eq!(sockets[0].closed().await.map(|(code, _)| code), Some(4409));
    assert!(sockets[1..].iter().all(testkit::client::Socket::is_open));
    assert_eq!(House::limited("user_devices"), 1);
}
