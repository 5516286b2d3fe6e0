//! How often a password may be guessed.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use serde_json::json;

use crate::world::{Reply, World};

const LIMIT: u32 = 3;

async fn world() -> World {
    let world = World::with(|settings| settings.limits.logins_per_min = LIMIT).await;
    for name in ["ann", "bob"] {
        let body = json!({ "email": format!("{name}@example.com"), "password": "correct horse",
            "firstName": name, "lastName": "Example" });
        assert_eq!(world.post("/auth/register", "", body).await.status, StatusCode::CREATED);
    }
    world
}

async fn login(world: &World, peer: &str, forwarded: Option<&str>, name: &str, password: &str) -> Reply {
    let mut request = Request::post("/api/v1/auth/login").header("content-type", "application/json");
    if let Some(forwarded) = forwarded {
        request = request.header("x-forwarded-for", forwarded);
    }
    let body = json!({ "email": format!("{name}@example.com"), "password": password }).to_string();
    let mut request = request.body(Body::from(body)).expect("a request");
    let peer: SocketAddr = format!("{peer}:4711").parse().expect("an address");
    request.extensions_mut().insert(ConnectInfo(peer));
    world.send(request).await
}

#[tokio::test]
async fn after_some_wrong_passwords_one_has_to_wait() {
    let world = world().await;
    for _ in 0..LIMIT {
        login(&world, "192.0.2.1", None, "ann", "wrong").await.refused(401, "UNAUTHENTICATED", "");
    }
    let limited = login(&world, "192.0.2.1", None, "ann", "correct horse").await;
    limited.refused(429, "RATE_LIMITED", "");
    let wait_ms = limited.body["retryAfterMs"].as_u64().expect("milliseconds");
    assert!((1..=20_000).contains(&wait_ms), "{wait_ms}");
    assert_eq!(limited.header("retry-after"), wait_ms.div_ceil(1000).to_string());
    assert_eq!(login(&world, "192.0.2.1", None, "bob", "correct horse").await.status, StatusCode::OK);
    assert_eq!(login(&world, "192.0.2.2", None, "ann", "correct horse").await.status, StatusCode::OK);
    world.engine.clock.shift(wait_ms as i64 + 1);
    assert_eq!(login(&world, "192.0.2.1", None, "ann", "correct horse").await.status, StatusCode::OK);
}

#[tokio::test]
async fn right_passwords_are_not_counted() {
    let world = world().await;
    for _ in 0..LIMIT * 3 {
        assert_eq!(login(&world, "192.0.2.1", None, "ann", "correct horse").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn behind_our_proxies_the_real_address_counts() {
    let world = world().await;
    for _ in 0..LIMIT {
        // What stands left of the real address is the client's own invention.
        let forged = format!("198.51.100.{LIMIT}, 203.0.113.7");
        login(&world, "10.0.0.1", Some(&forged), "ann", "wrong").await.refused(401, "UNAUTHENTICATED", "");
    }
    login(&world, "10.0.0.2", Some("198.51.100.9, 203.0.113.7"), "ann", "correct horse").await.refused(
        429,
        "RATE_LIMITED",
        "",
    );
    let elsewhere = login(&world, "10.0.0.1", Some("203.0.113.8"), "ann", "correct horse").await;
    assert_eq!(elsewhere.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stranger_s_forwarded_for_changes_nothing() {
    let world = world().await;
    for n in 0..LIMIT {
        let forged = format!("198.51.100.{n}");
        login(&world, "192.0.2.1", Some(&forged), "ann", "wrong").await.refused(401, "UNAUTHENTICATED", "");
    }
    login(&world, "192.0.2.1", Some("198.51.100.99"), "ann", "wrong").await.refused(429, "RATE_LIMITED", "");
}
