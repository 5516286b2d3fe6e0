//! Conversations.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use domain::UserId;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_group_belongs_to_its_maker() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    // The caller and repeats among the others are folded.
    let body = json!({ "type": "group", "title": "Trip", "memberIds": [bob.id, bob.id, ann.id] });
    let reply = world.post("/conversations", &ann.token, body).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{reply:?}");
    let room = &reply.body;
    assert_eq!((&room["type"], &room["title"]), (&json!("group"), &json!("Trip")));
    assert_eq!((&room["lastSeq"], &room["rev"]), (&json!(0), &json!(1)));
    assert!(room["createdAt"].as_str().is_some_and(|at| at.ends_with('Z')));
    let members: BTreeSet<(String, String)> = pairs(&room["members"]);
    let expected = [(ann.id.clone(), "owner".to_owned()), (bob.id.clone(), "member".to_owned())];
    assert_eq!(members, BTreeSet::from(expected));
    let path = format!("/conversations/{}", reply.text("id"));
    for who in [&ann, &bob] {
        let seen = world.get(&path, &who.token).await;
        assert_eq!(seen.status, StatusCode::OK);
        assert_eq!(pairs(&seen.body["members"]), members);
    }
}

fn pairs(members: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    members.as_array().expect("members").iter().map(|m| (text(&m["userId"]), text(&m["role"]))).collect()
}

#[tokio::test]
async fn a_direct_conversation_exists_once_from_either_side() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let with = |id: &str| json!({ "type": "direct", "memberIds": [id] });
    let first = world.post("/conversations", &ann.token, with(&bob.id)).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    for (who, other) in [(&ann, &bob), (&bob, &ann)] {
        let again = world.post("/conversations", &who.token, with(&other.id)).await;
        assert_eq!((again.status, &again.body["id"]), (StatusCode::OK, &first.body["id"]));
        assert_eq!(pairs(&again.body["members"]), pairs(&first.body["members"]));
    }
}

#[tokio::test]
async fn what_is_no_conversation_is_refused_by_field() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let stranger = UserId::generate().to_string();
    let many: Vec<String> = (0..1001).map(|_| UserId::generate().to_string()).collect();
    let bad = [
        ("type", json!({ "memberIds": [bob.id] })),
        ("type", json!({ "type": "channel", "memberIds": [bob.id] })),
        ("type", json!({ "type": 7, "memberIds": [bob.id] })),
        ("memberIds", json!({ "type": "group", "memberIds": [stranger] })),
        ("memberIds", json!({ "type": "group", "memberIds": ["'; DROP TABLE users; --"] })),
        ("memberIds", json!({ "type": "group", "memberIds": many })),
        ("memberIds", json!({ "type": "group", "memberIds": "all" })),
        ("memberIds", json!({ "type": "group" })),
        ("memberIds", json!({ "type": "group", "memberIds": null })),
        ("memberIds", json!({ "type": "direct", "memberIds": [] })),
        ("memberIds", json!({ "type": "direct", "memberIds": [bob.id, stranger] })),
        ("memberIds", json!({ "type": "direct", "memberIds": [ann.id] })),
        ("memberIds", json!({ "type": "direct", "memberIds": [stranger] })),
        ("title", json!({ "type": "group", "title": " ", "memberIds": [] })),
        ("title", json!({ "type": "group", "title": "x".repeat(201), "memberIds": [] })),
        ("title", json!({ "type": "group", "title": "a\nb", "memberIds": [] })),
    ];
    for (field, body) in bad {
        let reply = world.post("/conversations", &ann.token, body).await;
        let named = reply.body["field"].as_str().unwrap_or_default().to_owned();
        assert!(named.starts_with(field), "{field}: {reply:?}");
        reply.refused(400, "INVALID_PAYLOAD", &named);
    }
    let none = world.get("/conversations", &ann.token).await;
    assert_eq!(none.body, json!({ "items": [] }), "nothing was made");
}

#[tokio::test]
async fn one_sees_one_s_own_conversations_page_by_page_and_no_others() {
    let world = World::start().await;
    let (ann, bob, eve) = (world.person("ann").await, world.person("bob").await, world.person("eve").await);
    let mut mine = BTreeSet::new();
    for _ in 0..4 {
        mine.insert(world.group(&ann, &[&bob]).await);
    }
    let body = json!({ "type": "direct", "memberIds": [bob.id] });
    mine.insert(world.post("/conversations", &ann.token, body).await.text("id"));
    world.group(&eve, &[&bob]).await;

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for page in 0..3 {
        let reply = world.get(&format!("/conversations?limit=2&unknown=1{cursor}"), &ann.token).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        seen.extend(reply.body["items"].as_array().expect("items").iter().map(|item| item["id"].to_string()));
        match reply.body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&after={next}"),
            None => assert_eq!(page, 2, "{reply:?}"),
        }
    }
    let distinct: BTreeSet<String> = seen.iter().map(|id| id.trim_matches('"').to_owned()).collect();
    assert_eq!((seen.len(), distinct), (5, mine));
    for bad in ["limit=0", "limit=201", "limit=x", "after=x"] {
        let field = bad.split('=').next().expect("a field");
        world.get(&format!("/conversations?{bad}"), &ann.token).await.refused(400, "INVALID_PAYLOAD", field);
    }
}

#[tokio::test]
async fn a_list_tells_what_is_new() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let body = json!({ "type": "direct", "memberIds": [bob.id] });
    let room = world.post("/conversations", &ann.token, body).await.text("id");
    world.say(&ann, &room, "one").await;
    world.say(&ann, &room, "two").await;
    let item = world.get("/conversations", &bob.token).await.body["items"][0].clone();
    assert_eq!((&item["unread"], &item["lastSeq"]), (&json!(2), &json!(2)));
    assert_eq!(item["lastMessage"]["content"], "two");
    assert_eq!(item["members"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_stranger_cannot_tell_a_conversation_from_nothing() {
    let world = World::start().await;
    let (ann, eve) = (world.person("ann").await, world.person("eve").await);
    let room = world.group(&ann, &[]).await;
    let nothing = UserId::generate().to_string();
    let body = Some(json!({ "title": "x", "content": "x", "clientMsgId": "m", "userIds": [eve.id] }));
    for (method, tail) in [
        (Method::GET, ""),
        (Method::PATCH, ""),
        (Method::GET, "/members"),
        (Method::POST, "/members"),
        (Method::DELETE, &format!("/members/{}", ann.id)),
        (Method::DELETE, &format!("/members/{}", eve.id)),
        (Method::GET, "/messages"),
        (Method::POST, "/messages"),
        (Method::PATCH, &format!("/messages/{nothing}")),
        (Method::DELETE, &format!("/messages/{nothing}")),
    ] {
        let ask = |id: &str| {
            let path = format!("/conversations/{id}{tail}");
            let (world, method, token, body) = (&world, method.clone(), &eve.token, body.clone());
            async move { world.ask(method, &path, token, body).await }
        };
        let (real, unreal) = (ask(&room).await, ask(&nothing).await);
        real.refused(404, "NOT_FOUND", "");
        assert_eq!(real.body["detail"], unreal.body["detail"], "{method} {tail}");
        assert_eq!(unreal.status, StatusCode::NOT_FOUND);
        ask("not-a-uuid").await.refused(400, "INVALID_PAYLOAD", "id");
    }
}

#[tokio::test]
async fn who_leads_a_group_renames_it() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let path = format!("/conversations/{}", world.group(&ann, &[&bob]).await);
    let title = "<b>'; DROP TABLE rooms; --</b>";
    let rename = |who: &crate::world::Person, title: &str| {
        let (token, body) = (who.token.clone(), json!({ "title": title }));
        let (world, path) = (&world, &path);
        async move { world.ask(Method::PATCH, path, &token, Some(body)).await }
    };
    let reply = rename(&ann, title).await;
    assert_eq!((reply.status, &reply.body["status"]), (StatusCode::ACCEPTED, &json!("QUEUED")));
    let room = world.until(&bob, &path, |room| room["title"] == title).await;
    assert_eq!(room["rev"], 2);
    rename(&bob, "mine").await.refused(403, "FORBIDDEN", "");
    rename(&ann, "").await.refused(400, "INVALID_PAYLOAD", "title");
}
