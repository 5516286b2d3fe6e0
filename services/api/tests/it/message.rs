//! Messages by REST.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use domain::{MessageId, UserId};
use serde_json::{Value, json};

use crate::world::{Person, Reply, World};

async fn send(world: &World, who: &Person, room: &str, body: Value) -> Reply {
    world.post(&format!("/conversations/{room}/messages"), &who.token, body).await
}

fn seqs(page: &Value) -> Vec<i64> {
    page["items"].as_array().expect("items").iter().map(|item| item["seq"].as_i64().expect("a seq")).collect()
}

#[tokio::test]
async fn a_message_is_queued_then_stored_then_seen() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[&bob]).await;
    let reply = send(&world, &ann, &room, json!({ "content": "hello", "clientMsgId": "m1" })).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
    let id = MessageId::of(ann.user, "m1").to_string();
    assert_eq!(reply.body, json!({ "status": "QUEUED", "clientMsgId": "m1", "messageId": id }));
    let page = world.until(&bob, &format!("/conversations/{room}/messages"), |page| page["items"] != json!([])).await;
    let item = &page["items"][0];
    let expected = json!({ "roomId": room, "messageId": id, "seq": 1, "rev": 2, "clientMsgId": "m1",
        "senderId": ann.id, "type": "TEXT", "content": "hello" });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&item[field], value, "{field}");
    }
    assert!(item["sentAt"].is_string() && item["storedAt"].is_string());
    assert_eq!((page.get("prevCursor"), page.get("nextCursor")), (None, None));
}

#[tokio::test]
async fn the_same_name_is_the_same_message() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let room = world.group(&ann, &[]).await;
    let path = format!("/api/v1/conversations/{room}/messages");
    let keyed = |key: &str| {
        Request::post(&path)
            .header("authorization", format!("Bearer {}", ann.token))
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .body(Body::from(r#"{"content":"once"}"#))
            .expect("a request")
    };
    let mut ids = vec![world.send(keyed("k1")).await, world.send(keyed("\"k1\"")).await];
    ids.push(send(&world, &ann, &room, json!({ "content": "once", "clientMsgId": "k1" })).await);
    for reply in &ids {
        assert_eq!((reply.status, &reply.body["clientMsgId"]), (StatusCode::ACCEPTED, &json!("k1")));
        assert_eq!(reply.body["messageId"], ids[0].body["messageId"]);
    }
    world.say(&ann, &room, "after").await;
    let page = world.get(&format!("/conversations/{room}/messages"), &ann.token).await.body;
    assert_eq!(seqs(&page), [1, 2], "one message and the one after it");
}

#[tokio::test]
async fn bad_messages_are_refused_by_field() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let room = world.group(&ann, &[]).await;
    let bad = [
        ("clientMsgId", json!({ "content": "x" })),
        ("clientMsgId", json!({ "content": "x", "clientMsgId": "x".repeat(65) })),
        ("clientMsgId", json!({ "content": "x", "clientMsgId": 7 })),
        ("content", json!({ "clientMsgId": "m" })),
        ("content", json!({ "content": " ", "clientMsgId": "m" })),
        ("content", json!({ "content": "a\u{0}b", "clientMsgId": "m" })),
        ("type", json!({ "content": "x", "clientMsgId": "m", "type": "POEM" })),
        ("replyTo", json!({ "content": "x", "clientMsgId": "m", "replyTo": "x" })),
        ("mentions", json!({ "content": "x", "clientMsgId": "m", "mentions": ["x"] })),
    ];
    for (field, body) in bad {
        send(&world, &ann, &room, body).await.refused(400, "INVALID_PAYLOAD", field);
    }
    let large = json!({ "content": "x".repeat(16 * 1024 + 1), "clientMsgId": "m" });
    let reply = send(&world, &ann, &room, large).await;
    reply.refused(413, "TOO_LARGE", "content");
    assert_eq!(reply.body["clientMsgId"], "m");
    let page = world.get(&format!("/conversations/{room}/messages"), &ann.token).await.body;
    assert_eq!(page, json!({ "items": [] }), "nothing was stored");
}

#[tokio::test]
async fn the_room_is_the_one_in_the_path() {
    let world = World::start().await;
    let (ann, eve) = (world.person("ann").await, world.person("eve").await);
    let (mine, hers) = (world.group(&ann, &[]).await, world.group(&eve, &[]).await);
    let body = json!({ "content": "x", "clientMsgId": "m", "roomId": mine });
    send(&world, &ann, &hers, body.clone()).await.refused(404, "NOT_FOUND", "");
    assert_eq!(
        send(&world, &ann, &mine, json!({ "roomId": hers, "content": "x", "clientMsgId": "m" })).await.status,
        202
    );
    let path = format!("/conversations/{mine}/messages");
    world.until(&ann, &path, |page| page["items"][0]["roomId"] == mine.as_str()).await;
}

#[tokio::test]
async fn two_hundred_and_fifty_messages_are_walked_both_ways_without_a_gap() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[&bob]).await;
    for n in 1..=250 {
        let body = json!({ "content": format!("message {n}"), "clientMsgId": format!("m{n}") });
        assert_eq!(send(&world, &ann, &room, body).await.status, StatusCode::ACCEPTED);
    }
    let path = format!("/conversations/{room}/messages");
    let newest = world.until(&bob, &path, |page| seqs(page).last() == Some(&250)).await;
    assert_eq!(seqs(&newest), (201..=250).collect::<Vec<_>>(), "the newest fifty");
    assert_eq!(newest.get("nextCursor"), None);

    let mut older: Vec<Vec<i64>> = vec![seqs(&newest)];
    let mut page = newest;
    while let Some(cursor) = page["prevCursor"].as_str() {
        page = world.get(&format!("{path}?limit=60&before={cursor}"), &bob.token).await.body;
        assert!(page["nextCursor"].is_string(), "there is a way back");
        older.push(seqs(&page));
    }
    older.reverse();
    assert_eq!(older.concat(), (1..=250).collect::<Vec<_>>());

    let mut newer = Vec::new();
    let mut cursor = Some("0".to_owned());
    while let Some(after) = cursor {
        let page = world.get(&format!("{path}?limit=200&after={after}"), &bob.token).await.body;
        newer.extend(seqs(&page));
        cursor = page["nextCursor"].as_str().map(str::to_owned);
    }
    assert_eq!(newer, (1..=250).collect::<Vec<_>>());

    for (query, seq, prev, next) in [
        ("after=100&limit=1", 101, json!("101"), json!("101")),
        ("after=1&limit=1", 2, json!("2"), json!("2")),
        ("before=2", 1, json!(null), json!("1")),
        ("after=249", 250, json!("250"), json!(null)),
    ] {
        let page = world.get(&format!("{path}?{query}"), &bob.token).await.body;
        assert_eq!((seqs(&page), &page["prevCursor"], &page["nextCursor"]), (vec![seq], &prev, &next), "{query}");
    }
}

#[tokio::test]
async fn bad_cursors_and_limits_are_refused() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let path = format!("/conversations/{}/messages", world.group(&ann, &[]).await);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("before=x", "before"),
        ("after=-1", "after"),
        ("after=1%20OR%201%3D1", "after"),
        ("after=99999999999999999999", "after"),
        ("before=1&after=1", "before"),
        ("limit=1&limit=2", "limit"),
        ("before=1&limit=1&before=2", "before"),
    ] {
        world.get(&format!("{path}?{query}"), &ann.token).await.refused(400, "INVALID_PAYLOAD", field);
    }
    let beyond = world.get(&format!("{path}?after={}", i64::MAX), &ann.token).await;
    assert_eq!((beyond.status, beyond.body), (StatusCode::OK, json!({ "items": [] })));
}

#[tokio::test]
async fn content_comes_back_byte_for_byte() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let room = world.group(&ann, &[]).await;
    let texts = [
        "<script>alert('x')</script>",
        "'; DROP TABLE messages; -- \"\\ %00 $1 {} \u{202E}",
        "  two\nlines\tand\r\nspaces  ",
        "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} \u{05E2}\u{05D1}\u{05E8}\u{05D9}\u{05EA} \u{FFFD}",
    ];
    let name = |n: usize| format!("{n}'; DROP TABLE messages; -- <b>\"\\</b>");
    for (n, text) in texts.iter().enumerate() {
        let body = json!({ "content": text, "clientMsgId": name(n) });
        assert_eq!(send(&world, &ann, &room, body).await.status, StatusCode::ACCEPTED, "{text}");
    }
    let path = format!("/conversations/{room}/messages");
    let page = world.until(&ann, &path, |page| seqs(page).len() == texts.len()).await;
    for (n, item) in page["items"].as_array().expect("items").iter().enumerate() {
        assert_eq!((&item["content"], &item["clientMsgId"]), (&json!(texts[n]), &json!(name(n))));
    }
}

#[tokio::test]
async fn one_s_own_messages_can_be_edited_and_taken_back() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[&bob]).await;
    let (mine, his) = (world.say(&ann, &room, "typo").await, world.say(&bob, &room, "rude").await);
    let path = format!("/conversations/{room}/messages");
    let change = |who: &Person, id: &str, method: Method| {
        let (token, path) = (who.token.clone(), format!("{path}/{id}"));
        let world = &world;
        async move { world.ask(method, &path, &token, Some(json!({ "content": "better" }))).await }
    };
    let edited = change(&ann, &mine, Method::PATCH).await;
    assert_eq!((&edited.body["status"], &edited.body["messageId"]), (&json!("QUEUED"), &json!(mine)));
    assert!(edited.body["jobId"].as_str().is_some_and(|job| job != mine), "the edit has an id of its own");
    let page = world.until(&bob, &path, |page| page["items"][0]["content"] == "better").await;
    assert!(page["items"][0]["editedAt"].is_string());

    change(&bob, &mine, Method::PATCH).await.refused(403, "FORBIDDEN", "");
    change(&ann, &his, Method::PATCH).await.refused(403, "FORBIDDEN", "");
    change(&bob, &mine, Method::DELETE).await.refused(403, "FORBIDDEN", "");
    assert_eq!(change(&ann, &his, Method::DELETE).await.status, StatusCode::ACCEPTED, "the owner may");
    assert_eq!(change(&ann, &mine, Method::DELETE).await.status, StatusCode::ACCEPTED);
    let page = world
        .until(&bob, &path, |page| {
            page["items"].as_array().is_some_and(|items| items.iter().all(|i| i["deletedAt"].is_string()))
        })
        .await;
    for (item, sender) in page["items"].as_array().expect("items").iter().zip([&ann, &bob]) {
        let fields: Vec<&str> = item.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["deletedAt", "messageId", "roomId", "senderId", "sentAt", "seq"]);
        assert_eq!(item["senderId"], sender.id.as_str());
    }
    change(&ann, &mine, Method::PATCH).await.refused(404, "NOT_FOUND", "");
    change(&ann, "x", Method::PATCH).await.refused(400, "INVALID_PAYLOAD", "messageId");
    let elsewhere = world.group(&ann, &[]).await;
    let path = format!("/conversations/{elsewhere}/messages/{his}");
    let unknown = format!(
        "/conversations/{elsewhere}/messages/{}",
        domain::MessageId::of(domain::UserId::generate(), "never said")
    );
    // One of another room looks like one that is nowhere yet.
    let (one, other) = (
        world.ask(Method::DELETE, &path, &ann.token, None).await,
        world.ask(Method::DELETE, &unknown, &ann.token, None).await,
    );
    assert_eq!((one.status, other.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
}

#[tokio::test]
async fn null_is_as_absent_as_nothing() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let room = world.group(&ann, &[]).await;
    let body = json!({ "content": "x", "clientMsgId": "m", "type": null, "replyTo": null, "mentions": null, "attachments": null });
    assert_eq!(send(&world, &ann, &room, body).await.status, StatusCode::ACCEPTED);
    send(&world, &ann, &room, json!({ "content": null, "clientMsgId": "n" })).await.refused(
        400,
        "INVALID_PAYLOAD",
        "content",
    );
}

#[tokio::test]
async fn over_the_rate_one_is_told_how_long_to_wait() {
    let world = World::with(|settings| {
        settings.limits.user_events_per_sec = 1;
        settings.limits.user_burst = 2;
    })
    .await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[&bob]).await;
    let say = |who: &Person| {
        let (token, path) = (who.token.clone(), format!("/conversations/{room}/messages"));
        let body = json!({ "content": "x", "clientMsgId": UserId::generate() });
        let world = &world;
        async move { world.post(&path, &token, body).await }
    };
    assert_eq!(say(&ann).await.status, StatusCode::ACCEPTED, "making the group counted as one");
    let limited = say(&ann).await;
    limited.refused(429, "RATE_LIMITED", "");
    assert!(limited.body["clientMsgId"].is_string(), "the message is named: {limited:?}");
    let wait_ms = limited.body["retryAfterMs"].as_u64().expect("milliseconds");
    assert!((1..=1000).contains(&wait_ms) && limited.header("retry-after") == "1", "{limited:?}");
    assert_eq!(say(&bob).await.status, StatusCode::ACCEPTED, "others are not slowed");
}
