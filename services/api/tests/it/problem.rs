//! Whatever goes wrong is a problem document that names the request.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};

use crate::world::World;

fn login(content_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post("/api/v1/auth/login").header("content-type", content_type).body(body.into()).expect("a request")
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::start().await;
    world.get("/no/such/thing", "").await.refused(404, "NOT_FOUND", "");
    let elsewhere = world.send(Request::get("/no/such/thing").body(Body::empty()).expect("a request")).await;
    elsewhere.refused(404, "NOT_FOUND", "");
    let reply = world.ask(Method::PUT, "/auth/login", "", None).await;
    reply.refused(405, "UNKNOWN_EVENT", "");
    assert_eq!(reply.header("allow"), "POST");
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let world = World::start().await;
    world.send(login("text/plain", "{}")).await.refused(415, "INVALID_PAYLOAD", "");
    world.send(login("application/x-www-form-urlencoded", "email=a")).await.refused(415, "INVALID_PAYLOAD", "");
    let deep = format!("{{\"email\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    for bad in ["", "{", "[]", "null", "7", "{\"email\":\"a\"", deep.as_str()] {
        world.send(login("application/json", bad.to_owned())).await.refused(400, "INVALID_PAYLOAD", "body");
    }
    let invalid_utf8 = b"{\"email\":\"\xff\xfe\"}".to_vec();
    world.send(login("application/json; charset=utf-8", invalid_utf8)).await.refused(400, "INVALID_PAYLOAD", "body");
    world.send(login("application/json", r#"{"email":{}}"#)).await.refused(400, "INVALID_PAYLOAD", "email");
}

#[tokio::test]
async fn large_bodies_are_refused_whether_they_tell_their_length_or_not() {
    let world = World::start().await;
    let large = vec![b' '; 256 * 1024 + 1];
    world.send(login("application/json", large.clone())).await.refused(413, "TOO_LARGE", "");
    let chunks = futures_util::stream::iter(
        large.chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>(),
    );
    world.send(login("application/json", Body::from_stream(chunks))).await.refused(413, "TOO_LARGE", "");
}

#[tokio::test]
async fn a_request_keeps_the_id_its_client_gave_it() {
    let world = World::start().await;
    let with_id =
        |id: &str| Request::get("/api/v1/users/me").header("x-request-id", id).body(Body::empty()).expect("a request");
    let reply = world.send(with_id("trace-42")).await;
    reply.refused(401, "UNAUTHENTICATED", "");
    assert_eq!(reply.body["requestId"], "trace-42");
    let reply = world.send(with_id("<script>")).await;
    reply.refused(401, "UNAUTHENTICATED", "");
    assert_ne!(reply.body["requestId"], "<script>");
}

#[tokio::test]
async fn pages_of_the_named_origins_may_call() {
    let world = World::start().await;
    let preflight = |origin: &str| {
        Request::options("/api/v1/auth/login")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,idempotency-key")
            .body(Body::empty())
            .expect("a request")
    };
    let allowed = world.send(preflight("https://chat.example")).await;
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-origin")),
        (StatusCode::OK, "https://chat.example")
    );
    let other = world.send(preflight("https://evil.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), "");
    let refused = Request::get("/api/v1/users/me").header("origin", "https://chat.example").body(Body::empty());
    let refused = world.send(refused.expect("a request")).await;
    refused.refused(401, "UNAUTHENTICATED", "");
    assert_eq!(refused.header("access-control-allow-origin"), "https://chat.example", "pages can read refusals");
}

#[tokio::test]
async fn without_the_store_the_answer_is_unavailable() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    world.engine.store.close().await;
    let reply = world.get("/users/me", &ann.token).await;
    reply.refused(503, "UNAVAILABLE", "");
    assert!(reply.body["retryAfterMs"].is_u64() && !reply.header("retry-after").is_empty());
}
