//! The long poll.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use domain::{RoomId, limits};
use futures_util::future::{join, join_all};
use intake::Actor;
use protocol::wire;
use realtime::{Realtime, RealtimeSettings};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{Person, Reply, World};

/// Well below the time that a poll waits here.
const SOON: Duration = Duration::from_secs(1);

/// An answer to a poll.
#[derive(Debug)]
struct Polled {
    items: Vec<Value>,
    cursor: String,
    complete: bool,
}

impl Polled {
    fn names(&self) -> Vec<&str> {
        self.items.iter().map(|item| item["event"].as_str().expect("a name")).collect()
    }

    fn revs(&self) -> Vec<i64> {
        self.items.iter().filter_map(|item| item["rev"].as_i64()).collect()
    }
}

fn polled(reply: &Reply) -> Polled {
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let items = reply.body["items"].as_array().expect("items").clone();
    Polled { items, cursor: reply.text("cursor"), complete: reply.body["complete"].as_bool().expect("complete") }
}

async fn poll(world: &World, who: &Person, cursor: &str, timeout_ms: u64) -> Polled {
    polled(&world.get(&format!("/sync?cursor={cursor}&timeoutMs={timeout_ms}"), &who.token).await)
}

/// A cursor that stands here.
async fn start(world: &World, who: &Person) -> String {
    let reply = polled(&world.get("/sync", &who.token).await);
    assert!(reply.items.is_empty() && reply.complete);
    reply.cursor
}

/// Polls until the items are all there, each time from the cursor before.
async fn gather(world: &World, who: &Person, cursor: &mut String, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut items = Vec::new();
    for _ in 0..100 {
        let answer = poll(world, who, cursor, 5000).await;
        *cursor = answer.cursor;
        items.extend(answer.items);
        if enough(&items) {
            return items;
        }
    }
    panic!("never enough: {items:?}");
}

fn actor(who: &Person) -> Actor {
    Actor { user: who.user, device: String::new(), traceparent: None }
}

async fn react(world: &World, who: &Person, room: &str, message_id: &str) {
    let room_id: RoomId = room.parse().expect("an id");
    let (emoji, message_id) = ("👍".to_owned(), message_id.to_owned());
    let react = wire::MessageReact { room_id: room.to_owned(), message_id, emoji, remove: false };
    let standing = world.intake.standing(room_id, who.user).await.expect("a member");
    let accepted = world.intake.react(&actor(who), react, standing).await.expect("accepted");
    accepted.confirmed().await.expect("queued");
}

async fn read(world: &World, who: &Person, room: &str, seq: i64) {
    let read = wire::MessageRead { room_id: room.to_owned(), seq: Some(seq), message_id: None };
    world.handlers().read(who.user, read).await.expect("read");
}

async fn remove(world: &World, owner: &Person, room: &str, who: &Person) {
    let path = format!("/conversations/{room}/members/{}", who.id);
    let reply = world.ask(Method::DELETE, &path, &owner.token, None).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
}

async fn add(world: &World, owner: &Person, room: &str, who: &Person) {
    let reply =
        world.post(&format!("/conversations/{room}/members"), &owner.token, json!({ "userIds": [who.id] })).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
}

async fn until_members(world: &World, who: &Person, room: &str, count: usize) {
    let all = |room: &Value| room["members"].as_array().is_some_and(|members| members.len() == count);
    world.until(who, &format!("/conversations/{room}"), all).await;
}

/// Sends as many messages as fast as they are taken.
async fn send_many(world: &World, who: &Person, room: &str, count: usize) {
    let room_id: RoomId = room.parse().expect("an id");
    let standing = world.intake.standing(room_id, who.user).await.expect("a member");
    let mut accepted = Vec::with_capacity(count);
    for number in 0..count {
        let send = wire::MessageSend {
            room_id: room.to_owned(),
            content: format!("words {number}"),
            client_msg_id: format!("{number}-{room}")[..20].to_owned(),
            ..wire::MessageSend::default()
        };
        accepted.push(world.intake.send_message(&actor(who), send, standing).expect("accepted").confirmed());
    }
    assert!(join_all(accepted).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_message_ends_the_wait_at_once() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[&bob]).await;
    let mut cursor = start(&world, &bob).await;
    for number in 0..3 {
        let speaking = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let said = Instant::now();
            world.say(&ann, &room, &format!("hello {number}")).await;
            said
        };
        let waiting = async {
            let answer = poll(&world, &bob, &cursor, 25_000).await;
            (answer, Instant::now())
        };
        let (said, (answer, answered)) = join(speaking, waiting).await;
        assert!(answered.duration_since(said) < SOON);
        assert_eq!(
            (answer.names(), answer.revs(), answer.complete),
            (vec!["message.delivered"], vec![2 + number], true)
        );
        assert_eq!(answer.items[0]["data"]["content"], format!("hello {number}"));
        cursor = answer.cursor;
    }
}

#[tokio::test]
async fn edits_deletes_reactions_titles_membership_and_receipts_come_each_once() {
    let world = World::start().await;
    let (ann, bob, eve) = (world.person("ann").await, world.person("bob").await, world.person("eve").await);
    let room = world.group(&ann, &[&bob]).await;
    let ids = [world.say(&ann, &room, "one").await, world.say(&ann, &room, "two").await];
    let mut cursor = start(&world, &bob).await;
    let message = |id: &str| format!("/conversations/{room}/messages/{id}");
    world.ask(Method::PATCH, &message(&ids[0]), &ann.token, Some(json!({ "content": "better" }))).await;
    world.ask(Method::DELETE, &message(&ids[1]), &ann.token, None).await;
    react(&world, &ann, &room, &ids[0]).await;
    world.ask(Method::PATCH, &format!("/conversations/{room}"), &ann.token, Some(json!({ "title": "New" }))).await;
    add(&world, &ann, &room, &eve).await;
    until_members(&world, &ann, &room, 3).await;
    remove(&world, &ann, &room, &eve).await;
    read(&world, &ann, &room, 2).await;
    let expected = [
        "message.edited",
        "message.deleted",
        "message.reaction",
        "room.updated",
        "room.memberJoined",
        "room.memberLeft",
    ];
    let items = gather(&world, &bob, &mut cursor, |items| items.len() > expected.len()).await;
    let (durable, marks): (Vec<&Value>, Vec<&Value>) = items.iter().partition(|item| item["rev"].is_i64());
    let names: Vec<&str> = durable.iter().map(|item| item["event"].as_str().expect("a name")).collect();
    assert_eq!(names, expected, "each once, in the order of rev");
    assert_eq!(
        durable.iter().map(|item| item["rev"].as_i64().expect("a rev")).collect::<Vec<_>>(),
        (4..=9).collect::<Vec<_>>()
    );
    let [mark] = marks[..] else { panic!("one mark: {marks:?}") };
    assert_eq!(
        (&mark["event"], &mark["data"]["userId"], &mark["data"]["seq"]),
        (&json!("message.read"), &json!(ann.id), &json!(2))
    );
    assert!(mark.get("rev").is_none() && mark["data"]["readAt"].is_string());
    let nothing = poll(&world, &bob, &cursor, 0).await;
    assert!(nothing.items.is_empty(), "marks are not repeated: {nothing:?}");
    // A mark that moves while somebody waits.
    let (answer, ()) = join(poll(&world, &bob, &cursor, 25_000), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        read(&world, &bob, &room, 1).await;
    })
    .await;
    assert_eq!((answer.names(), &answer.items[0]["data"]["userId"]), (vec!["message.read"], &json!(bob.id)));
}

#[tokio::test]
async fn a_room_begins_with_joining_it_and_ends_with_leaving_it() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let old = world.group(&ann, &[]).await;
    world.say(&ann, &old, "before bob").await;
    let mut cursor = start(&world, &bob).await;

    let joining = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        add(&world, &ann, &old, &bob).await;
    };
    let asked = Instant::now();
    let (answer, ()) = join(poll(&world, &bob, &cursor, 25_000), joining).await;
    assert!(asked.elapsed() < Duration::from_millis(200) + SOON, "a new room ends the wait");
    assert_eq!(answer.items[0]["event"], "room.memberJoined", "{answer:?}");
    assert_eq!((&answer.items[0]["data"]["roomId"], answer.revs()), (&json!(old), vec![3]));
    world.say(&ann, &old, "to bob").await;
    let made = world.group(&ann, &[&bob]).await;
    cursor = answer.cursor;
    let items = gather(&world, &bob, &mut cursor, |items| items.len() > 1).await;
    let names: Vec<&Value> = items.iter().map(|item| &item["event"]).collect();
    assert!(names.contains(&&json!("message.delivered")) && names.contains(&&json!("room.created")), "{items:?}");

    world.say(&ann, &old, "bob's last").await;
    remove(&world, &ann, &old, &bob).await;
    until_members(&world, &ann, &old, 1).await;
    world.say(&ann, &old, "not to bob").await;
    let answer = poll(&world, &bob, &cursor, 25_000).await;
    assert_eq!(answer.names(), ["room.memberLeft"], "{answer:?}");
    assert_eq!(
        (&answer.items[0]["data"]["userId"], &answer.items[0]["data"]["reason"]),
        (&json!(bob.id), &json!("removed"))
    );
    world.say(&ann, &old, "not to bob either").await;
    world.say(&ann, &made, "to bob again").await;
    let answer = poll(&world, &bob, &answer.cursor, 25_000).await;
    assert_eq!((answer.names(), &answer.items[0]["data"]["roomId"]), (vec!["message.delivered"], &json!(made)));
    // Back again: the whole way is told from the new joining on.
    add(&world, &ann, &old, &bob).await;
    let answer = poll(&world, &bob, &answer.cursor, 25_000).await;
    assert_eq!(answer.names(), ["room.memberJoined"], "{answer:?}");
}

#[tokio::test]
async fn who_was_removed_sees_nothing_that_came_after_however_close() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    for _ in 0..10 {
        let room = world.group(&ann, &[&bob]).await;
        let mut cursor = start(&world, &bob).await;
        let mut items = Vec::new();
        let racing = async {
            send_many(&world, &ann, &room, 30).await;
            remove(&world, &ann, &room, &bob).await;
            send_many(&world, &ann, &world.group(&ann, &[]).await, 1).await;
            for number in 0..10 {
                world.say(&ann, &room, &format!("secret {number}")).await;
            }
        };
        let polling = async {
            while !items.iter().any(|item: &Value| item["event"] == "room.memberLeft") {
                let answer = poll(&world, &bob, &cursor, 5000).await;
                cursor = answer.cursor;
                items.extend(answer.items);
            }
            let after = poll(&world, &bob, &cursor, 300).await;
            assert!(after.items.is_empty(), "{after:?}");
        };
        join(racing, polling).await;
        assert_eq!(items.last().map(|item| &item["event"]), Some(&json!("room.memberLeft")));
        let secret = items.iter().find(|item| item["data"]["content"].as_str().is_some_and(|it| it.contains("secret")));
        assert!(secret.is_none(), "{secret:?}");
    }
}

#[tokio::test]
async fn a_thousand_messages_come_in_pages_without_gap_or_repeat() {
    const MESSAGES: usize = 1000;
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let (busy, quiet) = (world.group(&ann, &[&bob]).await, world.group(&ann, &[&bob]).await);
    let mut cursor = start(&world, &bob).await;
    send_many(&world, &ann, &busy, MESSAGES).await;
    world.say(&ann, &quiet, "a word").await;
    world.say(&ann, &busy, "the last").await;
    let (mut of_busy, mut of_quiet, mut pages) = (Vec::new(), 0, 0);
    loop {
        let answer = poll(&world, &bob, &cursor, 25_000).await;
        assert!(answer.items.len() <= limits::SYNC_ITEMS && !answer.items.is_empty());
        cursor = answer.cursor;
        pages += 1;
        for item in answer.items {
            if item["data"]["roomId"] == busy.as_str() {
                of_busy.push(item["rev"].as_i64().expect("a rev"));
            } else {
                of_quiet += 1;
                assert_eq!(pages, 1, "a busy room keeps no other one waiting");
            }
        }
        if answer.complete {
            break;
        }
    }
    assert_eq!(of_busy, (2..=MESSAGES as i64 + 2).collect::<Vec<_>>());
    assert_eq!(of_quiet, 1);
    assert!(pages > 4, "{pages}");
}

#[tokio::test]
async fn time_ends_the_wait_with_nothing_and_with_what_was_never_announced() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[&bob]).await;
    let cursor = start(&world, &bob).await;
    let asked = Instant::now();
    let answer = poll(&world, &bob, &cursor, 300).await;
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert!(answer.items.is_empty() && answer.complete);
    // Stored by a processor whose deliveries reach nobody here.
    let deaf = Realtime::open(RealtimeSettings::Embedded, &runtime::Tasks::new(runtime::Shutdown::new()))
        .await
        .expect("opens");
    let (store, keys, clock) = (world.engine.store.clone(), world.engine.keys.clone(), world.engine.clock.clone());
    let elsewhere = handlers::Handlers::new(handlers::HandlerParts { store, realtime: deaf, keys, clock });
    let storing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        elsewhere.read(ann.user, wire::MessageRead { room_id: room.clone(), seq: Some(1), message_id: None }).await
    };
    world.say(&ann, &room, "hello").await;
    let answer = poll(&world, &bob, &answer.cursor, 0).await;
    assert_eq!(answer.names(), ["message.delivered"]);
    let (answer, read) = join(poll(&world, &bob, &answer.cursor, 600), storing).await;
    read.expect("read");
    assert_eq!(answer.names(), ["message.read"], "found at the end");
}

#[tokio::test]
async fn bad_polls_are_refused_by_field_and_strangers_altogether() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    world.group(&ann, &[&bob]).await;
    let cursor = start(&world, &ann).await;
    let get = async |path: String, token: &str| world.get(&path, token).await;
    get("/sync".to_owned(), "").await.refused(401, "UNAUTHENTICATED", "");
    get(format!("/sync?cursor={cursor}"), "x").await.refused(401, "UNAUTHENTICATED", "");
    for bad in ["-1", "30001", "x", "1.5", ""] {
        get(format!("/sync?timeoutMs={bad}"), &ann.token).await.refused(400, "INVALID_PAYLOAD", "timeoutMs");
    }
    for bad in ["", "x", "AAAA", "%00", "1", &cursor[1..], &format!("{cursor}A"), &"A".repeat(50_000)] {
        get(format!("/sync?cursor={bad}"), &ann.token).await.refused(400, "INVALID_PAYLOAD", "cursor");
    }
    get(format!("/sync?cursor={cursor}"), &bob.token).await.refused(400, "INVALID_PAYLOAD", "cursor");
    get(format!("/sync?cursor={cursor}&cursor={cursor}"), &ann.token).await.refused(400, "INVALID_PAYLOAD", "cursor");
}

#[tokio::test]
async fn one_user_has_four_polls_and_whoever_goes_makes_room_at_once() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let cursor = start(&world, &ann).await;
    let path = format!("/sync?cursor={cursor}&timeoutMs=20000");
    {
        let polls = join_all((0..limits::POLLS_PER_USER).map(|_| world.get(&path, &ann.token)));
        tokio::pin!(polls);
        let waited = tokio::time::timeout(Duration::from_millis(200), &mut polls).await;
        assert!(waited.is_err(), "they wait");
        let refused = world.get(&path, &ann.token).await;
        refused.refused(429, "RATE_LIMITED", "");
        assert!(!refused.header("retry-after").is_empty());
    }
    // All four clients are gone.
    assert!(poll(&world, &ann, &cursor, 0).await.complete);
}

#[tokio::test]
async fn a_service_that_stops_answers_those_who_wait_and_lets_them_go() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[&bob]).await;
    let cursor = start(&world, &bob).await;
    let request = || {
        let uri = format!("/api/v1/sync?cursor={cursor}");
        Request::get(uri)
            .header("authorization", format!("Bearer {}", bob.token))
            .body(Body::empty())
            .expect("a request")
    };
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.stopping.request();
    };
    let asked = Instant::now();
    let (reply, ()) = join(world.send(request()), stopping).await;
    assert!(asked.elapsed() < Duration::from_millis(200) + SOON);
    assert_eq!(reply.header("connection"), "close");
    let answer = polled(&reply);
    assert!(answer.items.is_empty() && answer.complete);
    world.say(&ann, &room, "still served").await;
    assert_eq!(poll(&world, &bob, &answer.cursor, 25_000).await.names(), ["message.delivered"]);
    let asked = Instant::now();
    polled(&world.send(request()).await);
    assert!(asked.elapsed() < SOON);
}

#[tokio::test]
async fn whoever_is_blocked_while_waiting_is_told_so_and_nothing_else() {
    let world = World::start().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let room = world.group(&ann, &[&bob]).await;
    let cursor = start(&world, &bob).await;
    let blocking = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.engine.store.set_blocked(bob.user, true, world.now()).await.expect("blocked");
        world.say(&ann, &room, "hello").await;
    };
    let path = format!("/sync?cursor={cursor}&timeoutMs=20000");
    let (reply, ()) = join(world.get(&path, &bob.token), blocking).await;
    reply.refused(403, "FORBIDDEN", "");
}

#[tokio::test]
async fn nobody_waits_on_with_a_token_that_is_no_good_any_more() {
    let world = World::with(|settings| settings.access_lifetime = Duration::from_secs(3)).await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let (anns, bobs) = (start(&world, &ann).await, start(&world, &bob).await);
    let signing_out = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let everywhere = json!({ "everywhere": true });
        assert_eq!(world.post("/auth/logout", &bob.token, everywhere).await.status, StatusCode::NO_CONTENT);
    };
    let asked = Instant::now();
    let path = |cursor: &str| format!("/sync?cursor={cursor}&timeoutMs=20000");
    let signed_out = async {
        let path = path(&bobs);
        let (reply, ()) = join(world.get(&path, &bob.token), signing_out).await;
        reply.refused(401, "UNAUTHENTICATED", "");
        assert!(reply.text("detail").contains("signed out"), "{reply:?}");
        assert!(asked.elapsed() < Duration::from_millis(200) + SOON, "{:?}", asked.elapsed());
    };
    let expired = async {
        let reply = world.get(&path(&anns), &ann.token).await;
        reply.refused(401, "UNAUTHENTICATED", "");
        assert!(reply.text("detail").contains("expired"), "{reply:?}");
        assert!(asked.elapsed() < Duration::from_secs(3) + SOON, "{:?}", asked.elapsed());
    };
    join(signed_out, expired).await;
}

#[tokio::test]
async fn who_is_in_too_many_rooms_is_told_to_use_sync() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let room = |_| store::ImportRoom {
        id: RoomId::generate(),
        kind: domain::room::RoomKind::Group,
        title: None,
        members: vec![ann.user],
    };
    let mut import = world.engine.store.begin_import(world.now()).await.expect("begins");
    import.rooms(&(0..limits::POLL_ROOMS).map(room).collect::<Vec<_>>()).await.expect("imported");
    import.commit().await.expect("committed");
    let cursor = start(&world, &ann).await;
    assert!(cursor.len() < 12_000, "{}", cursor.len());
    assert!(poll(&world, &ann, &cursor, 100).await.items.is_empty());
    world.group(&ann, &[]).await;
    let reply = world.get(&format!("/sync?cursor={cursor}"), &ann.token).await;
    reply.refused(413, "TOO_LARGE", "");
    assert!(reply.text("detail").contains("sync"), "{reply:?}");
}
