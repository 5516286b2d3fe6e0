//! Accounts and sessions.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use domain::UserId;
use serde_json::{Value, json};

use crate::world::{Reply, World};

fn ann() -> Value {
    json!({ "email": "Ann@Example.com", "password": "correct horse", "firstName": "Ann", "lastName": "Example" })
}

async fn register(world: &World) -> Reply {
    let reply = world.post("/auth/register", "", ann()).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{reply:?}");
    reply
}

async fn login(world: &World, password: &str) -> Reply {
    world.post("/auth/login", "", json!({ "email": "ann@example.com", "password": password })).await
}

async fn refresh(world: &World, token: &str) -> Reply {
    world.post("/auth/refresh", "", json!({ "refreshToken": token })).await
}

#[tokio::test]
async fn registering_begins_a_session() {
    let world = World::start().await;
    let reply = register(&world).await;
    let user = &reply.body["user"];
    assert_eq!((&user["email"], &user["firstName"]), (&json!("ann@example.com"), &json!("Ann")));
    assert!(user.get("phone").is_none() && user.get("passwordHash").is_none(), "{user}");
    assert!(reply.text("expiresAt").ends_with('Z'));
    assert_eq!(reply.header("cache-control"), "no-store");
    let me = world.get("/users/me", &reply.text("accessToken")).await;
    assert_eq!((me.status, &me.body), (StatusCode::OK, user));
}

#[tokio::test]
async fn each_bad_field_of_a_registration_is_named() {
    let world = World::start().await;
    let bad = [
        ("email", json!("ann")),
        ("email", json!("")),
        ("email", json!(7)),
        ("email", json!(null)),
        ("password", json!("short")),
        ("password", json!("x".repeat(257))),
        ("firstName", json!(" ")),
        ("firstName", json!("a\u{0}b")),
        ("lastName", json!("x".repeat(101))),
        ("phone", json!("call me")),
    ];
    for (field, value) in bad {
        let mut body = ann();
        body[field] = value;
        world.post("/auth/register", "", body).await.refused(400, "INVALID_PAYLOAD", field);
    }
    for field in ["email", "password", "firstName", "lastName"] {
        let mut body = ann();
        body.as_object_mut().expect("an object").remove(field);
        world.post("/auth/register", "", body).await.refused(400, "INVALID_PAYLOAD", field);
    }
}

#[tokio::test]
async fn an_address_is_taken_once_whatever_its_case() {
    let world = World::start().await;
    register(&world).await;
    let mut again = ann();
    again["email"] = json!("ANN@example.COM");
    world.post("/auth/register", "", again).await.refused(409, "CONFLICT", "email");
}

#[tokio::test]
async fn of_two_who_register_at_once_one_gets_the_address() {
    let world = World::start().await;
    let register = || world.post("/auth/register", "", ann());
    let (one, other) = tokio::join!(register(), register());
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_look_the_same() {
    let world = World::start().await;
    register(&world).await;
    let right = login(&world, "correct horse").await;
    assert_eq!(right.status, StatusCode::OK, "{right:?}");
    let wrong = login(&world, "battery staple").await;
    wrong.refused(401, "UNAUTHENTICATED", "");
    let unknown = world.post("/auth/login", "", json!({ "email": "bob@example.com", "password": "x" })).await;
    unknown.refused(401, "UNAUTHENTICATED", "");
    let without_id = |reply: &Reply| {
        let mut body = reply.body.clone();
        body["requestId"].take();
        body
    };
    assert_eq!(without_id(&wrong), without_id(&unknown));
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_reuse_ends_the_session() {
    let world = World::start().await;
    register(&world).await;
    let first = login(&world, "correct horse").await.text("refreshToken");
    let other_session = login(&world, "correct horse").await.text("refreshToken");
    let second = refresh(&world, &first).await;
    assert_eq!(second.status, StatusCode::OK, "{second:?}");
    assert_eq!(world.get("/users/me", &second.text("accessToken")).await.status, StatusCode::OK);
    let second = second.text("refreshToken");
    assert_ne!(first, second);

    refresh(&world, &first).await.refused(401, "UNAUTHENTICATED", "");
    refresh(&world, &second).await.refused(401, "UNAUTHENTICATED", "");
    assert_eq!(refresh(&world, &other_session).await.status, StatusCode::OK, "another session goes on");
}

#[tokio::test]
async fn refresh_tokens_expire_and_unknown_ones_are_refused() {
    let world = World::start().await;
    let token = register(&world).await.text("refreshToken");
    for bad in ["x", "'; DROP TABLE users; --", &"x".repeat(10_000)] {
        refresh(&world, bad).await.refused(401, "UNAUTHENTICATED", "");
    }
    refresh(&world, "").await.refused(400, "INVALID_PAYLOAD", "refreshToken");
    world.engine.clock.shift(Duration::from_hours(25).as_millis() as i64);
    refresh(&world, &token).await.refused(401, "UNAUTHENTICATED", "");
}

#[tokio::test]
async fn logging_out_ends_that_session_only() {
    let world = World::start().await;
    let session = register(&world).await;
    let other = login(&world, "correct horse").await;
    let body = json!({ "refreshToken": session.text("refreshToken") });
    for _ in 0..2 {
        let out = world.post("/auth/logout", "", body.clone()).await;
        assert_eq!((out.status, out.body.as_str()), (StatusCode::NO_CONTENT, Some("")));
    }
    refresh(&world, &session.text("refreshToken")).await.refused(401, "UNAUTHENTICATED", "");
    assert_eq!(refresh(&world, &other.text("refreshToken")).await.status, StatusCode::OK);
    world.post("/auth/logout", "", json!({})).await.refused(400, "INVALID_PAYLOAD", "refreshToken");
}

#[tokio::test]
async fn signing_out_everywhere_voids_every_token_issued_before() {
    let world = World::start().await;
    let session = register(&world).await;
    let other = login(&world, "correct horse").await;
    let everywhere = json!({ "everywhere": true });
    world.post("/auth/logout", "", everywhere.clone()).await.refused(401, "UNAUTHENTICATED", "");
    let out = world.post("/auth/logout", &session.text("accessToken"), everywhere).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT, "{out:?}");
    for old in [&session, &other] {
        world.get("/users/me", &old.text("accessToken")).await.refused(401, "UNAUTHENTICATED", "");
        refresh(&world, &old.text("refreshToken")).await.refused(401, "UNAUTHENTICATED", "");
    }
    // At once, in the same second.
    let again = login(&world, "correct horse").await;
    assert_eq!(world.get("/users/me", &again.text("accessToken")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_blocked_account_can_do_nothing() {
    let world = World::start().await;
    let session = register(&world).await;
    let id = UserId::parse("id", session.body["user"]["id"].as_str().expect("an id")).expect("a UUID");
    world.engine.store.set_blocked(id, true, world.now()).await.expect("blocked");
    login(&world, "correct horse").await.refused(403, "FORBIDDEN", "");
    login(&world, "battery staple").await.refused(401, "UNAUTHENTICATED", "");
    world.get("/users/me", &session.text("accessToken")).await.refused(403, "FORBIDDEN", "");
    refresh(&world, &session.text("refreshToken")).await.refused(401, "UNAUTHENTICATED", "");
}

#[tokio::test]
async fn a_block_works_within_a_second_for_those_just_seen() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    assert_eq!(world.get("/users/me", &ann.token).await.status, StatusCode::OK);
    world.engine.store.set_blocked(ann.user, true, world.now()).await.expect("blocked");
    world.engine.clock.shift(1000);
    world.get("/users/me", &ann.token).await.refused(403, "FORBIDDEN", "");
}

#[tokio::test]
async fn only_our_own_unexpired_tokens_open_the_door() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let unsigned = {
        let claims = json!({ "sub": ann.id, "exp": 4_102_444_800_i64 }).to_string();
        format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims))
    };
    let foreign = auth::Tokens::new(&config::SecretString::from("another secret"), Duration::from_mins(1));
    let nobody = world.tokens.issue(UserId::generate(), world.now()).0;
    for bad in ["", "x", "a.b.c", &unsigned, &foreign.issue(ann.user, world.now()).0, &nobody] {
        let reply = world.get("/users/me", bad).await;
        reply.refused(401, "UNAUTHENTICATED", "");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    world.engine.clock.shift(Duration::from_hours(1).as_millis() as i64);
    world.get("/users/me", &ann.token).await.refused(401, "UNAUTHENTICATED", "");
}

#[tokio::test]
async fn every_route_but_four_needs_a_token() {
    let world = World::start().await;
    let document = serde_json::to_value(api::document()).expect("a document");
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            // Signing out needs a token only to do it everywhere: the empty alternative says so.
            let may_be_open = |security: &Value| security.as_array().is_some_and(|ways| ways.contains(&json!({})));
            let is_open = operation.get("security").is_none_or(may_be_open);
            assert_eq!(is_open, path.starts_with("/api/v1/auth/"), "{method} {path}");
            if is_open {
                continue;
            }
            let id = UserId::generate().to_string();
            let path = path.replace("/api/v1", "").replace("{id}", &id).replace("{userId}", &id);
            let path = path.replace("{messageId}", &id);
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            world.ask(method, &path, "", Some(json!({}))).await.refused(401, "UNAUTHENTICATED", "");
        }
    }
}

#[tokio::test]
async fn names_come_back_byte_for_byte() {
    let world = World::start().await;
    let nasty = "<img src=x onerror=alert(1)> '; DROP TABLE users; -- \"\\ \u{1F468}\u{200D}\u{1F469} ";
    let body = json!({ "email": "o'brien+tag@example.com", "password": nasty, "firstName": nasty, "lastName": nasty,
        "phone": "+49 (30) 1-2.3" });
    let session = world.post("/auth/register", "", body).await;
    assert_eq!(session.status, StatusCode::CREATED, "{session:?}");
    let user = world.get("/users/me", &session.text("accessToken")).await.body;
    assert_eq!((&user["firstName"], &user["lastName"]), (&json!(nasty), &json!(nasty)));
    assert_eq!((&user["email"], &user["phone"]), (&json!("o'brien+tag@example.com"), &json!("+49 (30) 1-2.3")));
    let login = json!({ "email": "O'BRIEN+tag@example.com", "password": nasty });
    assert_eq!(world.post("/auth/login", "", login).await.status, StatusCode::OK);
}
