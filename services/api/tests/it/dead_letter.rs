//! Dead letters by REST: for admins, and for nobody else.

use axum::http::{Method, StatusCode};
use domain::{Cause, JobId};
use serde_json::{Value, json};

use crate::world::{Person, Reply, World};

const LIST: &str = "/admin/dead-letters";

async fn admin(world: &World) -> Person {
    let ann = world.person("ann").await;
    world.engine.store.set_admin(ann.user, true).await.expect("granted");
    ann
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

/// Has the world's worker give up messages for these causes; their ids.
async fn give_up(world: &World, who: &Person, room: &str, causes: &[Cause]) -> Vec<String> {
    let mut dead = Vec::new();
    for cause in causes {
        let body = json!({ "content": format!("give up: {cause}"), "clientMsgId": JobId::generate().to_string() });
        let reply = world.post(&format!("/conversations/{room}/messages"), &who.token, body).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
        dead.push(reply.text("messageId"));
        world.until(who, LIST, |page| ids(page).len() == dead.len()).await;
    }
    dead
}

async fn replay(world: &World, who: &Person, which: Value) -> Reply {
    world.post("/admin/dead-letters/replay", &who.token, which).await
}

async fn discard(world: &World, who: &Person, which: Value) -> Reply {
    world.post("/admin/dead-letters/drop", &who.token, which).await
}

#[tokio::test]
async fn only_admins_see_that_there_are_dead_letters_and_only_as_long_as_they_are() {
    let world = World::start().await;
    let (ann, bob) = (admin(&world).await, world.person("bob").await);
    let routes = [
        (Method::GET, LIST, None),
        (Method::GET, "/admin/dead-letters/x", None),
        (Method::POST, "/admin/dead-letters/replay", Some(json!({ "all": true }))),
        (Method::POST, "/admin/dead-letters/drop", Some(json!({ "all": true }))),
    ];
    for (method, path, body) in routes {
        world.ask(method.clone(), path, "", body.clone()).await.refused(401, "UNAUTHENTICATED", "");
        world.ask(method.clone(), path, &bob.token, body.clone()).await.refused(403, "FORBIDDEN", "");
        let status = world.ask(method, path, &ann.token, body).await.status;
        assert!([200, 404].contains(&status.as_u16()), "{path}: {status}");
    }
    world.engine.store.set_admin(ann.user, false).await.expect("revoked");
    world.until(&ann, LIST, |answer| answer["code"] == "FORBIDDEN").await;
    // No more than the second for which an account is believed.
    world.engine.store.set_admin(bob.user, true).await.expect("granted");
    world.until(&bob, LIST, |page| page["items"].is_array()).await;
}

#[tokio::test]
async fn letters_are_listed_shown_replayed_and_dropped() {
    let world = World::start().await;
    let ann = admin(&world).await;
    let room = world.group(&ann, &[]).await;
    let causes = [Cause::StoreRejected, Cause::Panic, Cause::Panic, Cause::StoreRejected];
    let dead = give_up(&world, &ann, &room, &causes).await;

    let page = world.get("/admin/dead-letters?limit=3", &ann.token).await;
    assert_eq!(ids(&page.body), dead[..3]);
    let next = page.text("nextCursor");
    let page = world.get(&format!("{LIST}?limit=3&cursor={next}"), &ann.token).await;
    assert_eq!((ids(&page.body), page.body.get("nextCursor")), (vec![dead[3].clone()], None));
    let page = world.get("/admin/dead-letters?cause=panic", &ann.token).await;
    assert_eq!(ids(&page.body), dead[1..3]);

    let one = world.get(&format!("{LIST}/{}", dead[1]), &ann.token).await.body;
    assert_eq!((&one["event"], &one["cause"], &one["kind"]), (&json!("message.send"), &json!("panic"), &json!("bug")));
    assert_eq!((&one["senderId"], &one["roomId"]), (&json!(ann.id), &json!(room)));
    assert_eq!((&one["attempts"], &one["queue"]), (&json!(4), &json!("chat.events.high")));
    assert!(one["error"].is_string() && one["body"].is_string() && one["firstFailedAt"].is_string(), "{one}");
    assert!(page.body["items"][0].get("body").is_none(), "a list is brief");
    let gone = JobId::generate();
    world.get(&format!("{LIST}/{gone}"), &ann.token).await.refused(404, "NOT_FOUND", "");

    world.heal();
    let by_id = replay(&world, &ann, json!({ "ids": [dead[0], gone] })).await;
    assert_eq!((by_id.status, &by_id.body), (StatusCode::OK, &json!({ "count": 1 })));
    assert_eq!(replay(&world, &ann, json!({ "ids": [dead[0]] })).await.body, json!({ "count": 0 }), "the second time");
    assert_eq!(discard(&world, &ann, json!({ "cause": "store_rejected" })).await.body, json!({ "count": 1 }));
    assert_eq!(replay(&world, &ann, json!({ "all": true })).await.body, json!({ "count": 2 }));
    let history = format!("/conversations/{room}/messages");
    let stored = world.until(&ann, &history, |page| page["items"].as_array().is_some_and(|it| it.len() == 3)).await;
    let stored: Vec<&str> =
        stored["items"].as_array().expect("items").iter().filter_map(|item| item["messageId"].as_str()).collect();
    assert_eq!(stored, [dead[0].as_str(), &dead[1], &dead[2]], "what was dropped is not there");
    assert!(ids(&world.get(LIST, &ann.token).await.body).is_empty());
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_by_field_and_changes_nothing() {
    let world = World::start().await;
    let ann = admin(&world).await;
    let room = world.group(&ann, &[]).await;
    give_up(&world, &ann, &room, &[Cause::Panic]).await;
    for (query, field) in
        [("limit=0", "limit"), ("limit=201", "limit"), ("cause=dance", "cause"), ("cursor=x", "cursor")]
    {
        world.get(&format!("{LIST}?{query}"), &ann.token).await.refused(400, "INVALID_PAYLOAD", field);
    }
    let many = vec!["x"; 101];
    for (body, field) in [
        (json!({}), "ids"),
        (json!({ "all": false }), "ids"),
        (json!({ "ids": [] }), "ids"),
        (json!({ "ids": many }), "ids"),
        (json!({ "ids": ["x".repeat(256)] }), "ids"),
        (json!({ "ids": ["x"], "all": true }), "ids"),
        (json!({ "cause": "panic", "all": true }), "ids"),
        (json!({ "cause": "dance" }), "cause"),
        (json!({ "ids": [7] }), "ids[0]"),
        (json!({ "all": "yes" }), "all"),
    ] {
        discard(&world, &ann, body).await.refused(400, "INVALID_PAYLOAD", field);
    }
    assert_eq!(ids(&world.get(LIST, &ann.token).await.body).len(), 1);
}

#[tokio::test]
async fn a_broker_that_is_out_of_reach_is_unavailable() {
    let world = World::start().await;
    let ann = admin(&world).await;
    assert_eq!(world.get(LIST, &ann.token).await.status, StatusCode::OK);
    world.lose_the_queues();
    world.get(LIST, &ann.token).await.refused(503, "UNAVAILABLE", "");
    replay(&world, &ann, json!({ "all": true })).await.refused(503, "UNAVAILABLE", "");
}
