//! What the door lets in, behind a proxy that says whose connection it is.
//!
//! The invariant: addresses are limited apart by what the trusted proxy wrote, nothing that a client
//! wrote counts, and whoever is turned away is told when to come back.

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::Value;
use testkit::client::Socket;
use testkit::cluster::{Node, SystemSpec};

const CONNECTIONS: usize = 4;

/// A handshake as a proxy passes it on; it is over at once.
async fn knock(node: &Node, token: &str, hops: &str) -> reqwest::Response {
    let request = reqwest::Client::new().get(format!("{}/ws?token={token}", node.url()));
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let request = upgrade.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let key = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    key.header("x-forwarded-for", hops).send().await.expect("an answer")
}

async fn enter(node: &Node, token: &str, hops: &str) -> Socket {
    let socket = Socket::try_open(&node.url(), &format!("/ws?token={token}"), &[("x-forwarded-for", hops)]).await;
    let socket = socket.unwrap_or_else(|error| panic!("{hops} is not let in: {error}"));
    socket.event("session.ready", |_| true).await;
    socket
}

/// Panics unless a refusal says when to come back, in both ways.
async fn assert_turned_away(answer: reqwest::Response, status: u16, code: &str) {
    assert_eq!(answer.status().as_u16(), status);
    let after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], code, "{body}");
    let after_ms = body["retryAfterMs"].as_u64().unwrap();
    assert!(after_ms > 0 && after == after_ms.div_ceil(1000), "{after} s and {body}");
}

async fn limited(node: &Node, limit: &str) -> f64 {
    node.metric("chat_limited_total", &[&format!("limit=\"{limit}\"")]).await
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn behind_a_proxy_each_address_has_its_own_limits(#[case] spec: SystemSpec) {
    let spec = spec.env("TRUSTED_PROXIES", "127.0.0.1").env("LIMIT_IP_CONNECTIONS", &CONNECTIONS.to_string());
    let spec = spec.env("LIMIT_IP_HANDSHAKES_PER_SEC", "5").env("LIMIT_HANDSHAKES_PER_SEC", "100");
    let system = spec.env("LIMIT_USER_DEVICES", "6").start().await;
    let [alice, bob, carol, dave] = system.people(["Alice", "Bob", "Carol", "Dave"]).await;
    let node = system.gateway(0);

    // Connections.
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(enter(node, &alice.token, "203.0.113.1").await);
    }
    for hops in ["203.0.113.1", "198.51.100.7, 203.0.113.1"] {
        assert_turned_away(knock(node, &bob.token, hops).await, 429, "RATE_LIMITED").await;
    }
    assert!((limited(node, "ip_connections").await - 2.0).abs() < 0.5);
    let other = enter(node, &bob.token, "203.0.113.1, 203.0.113.2").await;
    drop(held.pop());
    testkit::until(testkit::PATIENCE, || async { knock(node, &bob.token, "203.0.113.1").await.status() == 101 }).await;

    // Handshakes, which are over at once.
    let knocks = join_all((0..30).map(|_| knock(node, &carol.token, "203.0.113.3"))).await;
    let knocked = knocks.iter().filter(|answer| answer.status() == 101).count();
    assert!(knocked < 30, "{knocked} of 30");
    let refused = knocks.into_iter().find(|answer| answer.status() != 101).unwrap();
    assert_turned_away(refused, 429, "RATE_LIMITED").await;
    assert!(limited(node, "ip_handshakes").await > 0.5);
    enter(node, &carol.token, "203.0.113.4").await;

    // Devices: the first one makes room.
    let phones = [enter(node, &dave.token, "203.0.113.5").await, enter(node, &dave.token, "203.0.113.5").await];
    let mut devices = Vec::new();
    for number in 0..6 {
        devices.push(enter(node, &dave.token, &format!("203.0.113.{}", 6 + number / 3)).await);
    }
    for phone in phones {
        assert_eq!(phone.closed().await.map(|closed| closed.0), Some(4409));
    }
    assert!(devices.iter().chain(&held).chain([&other]).all(Socket::is_open), "nobody else is concerned");
    assert!(limited(node, "user_devices").await > 1.5);

    // All addresses together.
    let hops: Vec<String> = (0..250).map(|number| format!("2001:db8:0:{number:x}::1")).collect();
    let knocks = join_all(hops.iter().map(|hops| knock(node, "no token", hops))).await;
    let refused = knocks.into_iter().find(|answer| answer.status() != 101).expect("too many at once");
    assert_turned_away(refused, 503, "OVERLOADED").await;
    system.assert_healthy();
}
