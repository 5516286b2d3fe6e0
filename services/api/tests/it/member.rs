//! Members of a conversation.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use domain::UserId;
use serde_json::{Value, json};

use crate::world::{Person, World};

fn count(page: &Value) -> usize {
    page["items"].as_array().map_or(0, Vec::len)
}

async fn add(world: &World, who: &Person, room: &str, body: Value) -> crate::world::Reply {
    world.post(&format!("/conversations/{room}/members"), &who.token, body).await
}

async fn remove(world: &World, who: &Person, room: &str, user: &str) -> crate::world::Reply {
    world.ask(Method::DELETE, &format!("/conversations/{room}/members/{user}"), &who.token, None).await
}

#[tokio::test]
async fn members_come_and_go_in_the_room_s_order() {
    let world = World::start().await;
    let (ann, bob, eve) = (world.person("ann").await, world.person("bob").await, world.person("eve").await);
    let room = world.group(&ann, &[&bob]).await;
    let path = format!("/conversations/{room}/members");
    let reply = add(&world, &ann, &room, json!({ "userIds": [eve.id] })).await;
    assert_eq!((reply.status, &reply.body["status"]), (StatusCode::ACCEPTED, &json!("QUEUED")));
    world.until(&ann, &path, |page| count(page) == 3).await;
    assert_eq!(world.get(&path, &eve.token).await.status, StatusCode::OK, "now she sees it");

    assert_eq!(remove(&world, &ann, &room, &bob.id).await.status, StatusCode::ACCEPTED);
    world.until(&ann, &path, |page| count(page) == 2).await;
    world.get(&path, &bob.token).await.refused(404, "NOT_FOUND", "");

    assert_eq!(remove(&world, &eve, &room, &eve.id).await.status, StatusCode::ACCEPTED, "leaving");
    world.until(&ann, &path, |page| count(page) == 1).await;
}

#[tokio::test]
async fn only_who_leads_changes_the_members() {
    let world = World::start().await;
    let (ann, bob, eve) = (world.person("ann").await, world.person("bob").await, world.person("eve").await);
    let room = world.group(&ann, &[&bob]).await;
    add(&world, &bob, &room, json!({ "userIds": [eve.id] })).await.refused(403, "FORBIDDEN", "");
    remove(&world, &bob, &room, &ann.id).await.refused(403, "FORBIDDEN", "");
    remove(&world, &ann, &room, &eve.id).await.refused(404, "NOT_FOUND", "");
    let direct = world.post("/conversations", &ann.token, json!({ "type": "direct", "memberIds": [bob.id] })).await;
    let direct = direct.text("id");
    add(&world, &ann, &direct, json!({ "userIds": [eve.id] })).await.refused(403, "FORBIDDEN", "");
    remove(&world, &ann, &direct, &ann.id).await.refused(403, "FORBIDDEN", "");
}

#[tokio::test]
async fn bad_additions_are_refused_by_field() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[]).await;
    let many: Vec<&str> = vec![bob.id.as_str(); 1001];
    for body in [
        json!({}),
        json!({ "userIds": [] }),
        json!({ "userIds": ["x"] }),
        json!({ "userIds": [UserId::generate()] }),
        json!({ "userIds": many }),
    ] {
        add(&world, &ann, &room, body).await.refused(400, "INVALID_PAYLOAD", "userIds");
    }
    let king = json!({ "userIds": [bob.id], "role": "king" });
    add(&world, &ann, &room, king).await.refused(400, "INVALID_PAYLOAD", "role");
    remove(&world, &ann, &room, "x").await.refused(400, "INVALID_PAYLOAD", "userId");
}

#[tokio::test]
async fn members_are_listed_page_by_page() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let mut all = BTreeSet::from([ann.id.clone()]);
    let mut others = Vec::new();
    for n in 0..6 {
        others.push(world.person(&format!("p{n}")).await);
    }
    all.extend(others.iter().map(|other| other.id.clone()));
    let room = world.group(&ann, &others.iter().collect::<Vec<_>>()).await;
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let reply = world.get(&format!("/conversations/{room}/members?limit=3{cursor}"), &ann.token).await;
        pages += 1;
        let items = reply.body["items"].as_array().expect("items");
        seen.extend(items.iter().map(|item| item["userId"].as_str().expect("an id").to_owned()));
        match reply.body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((pages, seen.len(), seen.into_iter().collect()), (3, 7, all));
}
