//! What the others see of what one does: edits, deletes, reactions, typing, presence, receipts, kicks.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::{System, SystemSpec};
use testkit::{PATIENCE, until};

use crate::scene::all_events;

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn changes_of_messages_are_seen_by_the_others_in_order(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let (one, other) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(1)).await);
    let mut ids = Vec::new();
    for number in 1..=3 {
        ids.push(one.say(&room, &format!("{number}"), &format!("words {number}")).await["messageId"].clone());
    }
    other.delivered(&room, 3).await;

    // Without waiting for anything: an edit may overtake nothing.
    let edit =
        one.request("message.edit", json!({"roomId": room, "messageId": ids[0], "content": "better words"})).await;
    assert_eq!((&edit["status"], &edit["messageId"]), (&json!("QUEUED"), &ids[0]), "{edit}");
    let edited = other.event("message.edited", |_| true).await;
    assert_eq!((&edited["messageId"], &edited["content"]), (&ids[0], &json!("better words")));
    assert!(edited["editedAt"].is_string());

    let react =
        |emoji: &str, remove: bool| json!({"roomId": room, "messageId": ids[1], "emoji": emoji, "remove": remove});
    assert_eq!(other.request("message.react", react("👍", false)).await["status"], "QUEUED");
    let reaction = one.event("message.reaction", |_| true).await;
    assert_eq!(
        (&reaction["userId"], &reaction["emoji"], &reaction["removed"]),
        (&json!(bob.id), &json!("👍"), &json!(false))
    );
    assert_eq!(other.request("message.react", react("👍", true)).await["status"], "QUEUED");
    one.event("message.reaction", |reaction| reaction["removed"] == true).await;

    let delete = json!({"roomId": room, "messageId": ids[2], "forEveryone": true});
    assert_eq!(one.request("message.delete", delete).await["status"], "QUEUED");
    assert_eq!(other.event("message.deleted", |_| true).await["messageId"], ids[2]);

    // Not one's own: a member may not.
    let foreign = other.request("message.edit", json!({"roomId": room, "messageId": ids[0], "content": "mine"})).await;
    assert_eq!((&foreign["status"], &foreign["code"]), (&json!("REJECTED"), &json!("FORBIDDEN")), "{foreign}");

    let history = bob.history(&room).await;
    assert_eq!(history[0]["content"], "better words");
    assert!(history[0]["editedAt"].is_string());
    let mut tombstone: Vec<&String> = history[2].as_object().unwrap().keys().collect();
    tombstone.sort();
    assert_eq!(tombstone, ["deletedAt", "messageId", "roomId", "senderId", "sentAt", "seq"]);

    let names =
        |events: &[Value]| events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let all = all_events(&other, &room).await;
    let tail = ["message.edited", "message.reaction", "message.reaction", "message.deleted"];
    assert_eq!(names(&all[1..]), [["message.delivered"; 3].as_slice(), tail.as_slice()].concat());
    let live: Vec<i64> = other.everything().iter().filter_map(|(_, data)| data["rev"].as_i64()).collect();
    assert_eq!(live, (2..=8).collect::<Vec<_>>(), "live, rev by rev");
    system.assert_healthy();
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 1).env("PRESENCE_GRACE", "1s"))]
#[case::all_in_one(SystemSpec::all_in_one().env("PRESENCE_GRACE", "1s"))]
#[tokio::test]
async fn typing_presence_and_receipts_reach_those_they_concern(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob, eve] = system.people(["Alice", "Bob", "Eve"]).await;
    let form = json!({"type": "direct", "memberIds": [bob.id]});
    let room = alice.rest.post("/api/v1/conversations", form).await.expect(201)["id"].as_str().unwrap().to_owned();
    let stranger = eve.connect(system.gateway(0)).await;
    let one = alice.connect(system.gateway(0)).await;
    let other = bob.connect(system.gateway(1)).await;
    one.event("presence.changed", |it| it["userId"] == bob.id.as_str() && it["status"] == "online").await;

    assert_eq!(one.request("typing", json!({"roomId": room, "isTyping": true})).await, json!({"status": "OK"}));
    let typing = other.event("typing", |_| true).await;
    assert_eq!(typing, json!({"roomId": room, "userId": alice.id, "isTyping": true}));
    one.request("typing", json!({"roomId": room, "isTyping": false})).await;
    other.event("typing", |it| it["isTyping"] == false).await;
    assert!(one.events("typing").is_empty(), "who types knows");

    for status in ["busy", "away"] {
        assert_eq!(other.request("presence.set", json!({"status": status})).await, json!({"status": "OK"}));
        one.event("presence.changed", |it| it["userId"] == bob.id.as_str() && it["status"] == status).await;
    }
    other.request("presence.set", json!({"status": "invisible"})).await;
    one.event("presence.changed", |it| it["userId"] == bob.id.as_str() && it["status"] == "offline").await;
    let seen = one.request("presence.query", json!({"userIds": [bob.id, alice.id]})).await;
    assert_eq!(
        (&seen["users"][0]["userId"], &seen["users"][0]["status"]),
        (&json!(bob.id), &json!("offline")),
        "{seen}"
    );
    assert_eq!(seen["users"][1]["status"], "online");

    for name in ["1", "2", "3"] {
        one.say(&room, name, name).await;
    }
    other.delivered(&room, 3).await;
    assert_eq!(unread(&bob, &system).await, 3);
    assert_eq!(other.request("message.read", json!({"roomId": room, "seq": 2})).await, json!({"status": "OK"}));
    let read = one.event("message.read", |_| true).await;
    assert_eq!((&read["userId"], &read["seq"], &read["roomId"]), (&json!(bob.id), &json!(2), &json!(room)));
    assert!(read["readAt"].is_string());
    // It only moves forward.
    assert_eq!(other.request("message.read", json!({"roomId": room, "seq": 1})).await, json!({"status": "OK"}));
    assert_eq!(unread(&bob, &system).await, 1);
    let synced = one.request("sync", json!({"rooms": [{"roomId": room, "afterSeq": 3}]})).await;
    assert!(synced["rooms"][0]["reads"].as_array().unwrap().contains(&json!({"userId": bob.id, "seq": 2})), "{synced}");

    let hidden = stranger.request("presence.query", json!({"userIds": [alice.id, bob.id]})).await;
    for user in hidden["users"].as_array().unwrap() {
        assert_eq!(
            (&user["status"], user.get("lastSeenAt")),
            (&json!("offline"), None),
            "strangers learn nothing: {hidden}"
        );
    }
    drop(one);
    other.event("presence.changed", |it| it["userId"] == alice.id.as_str() && it["status"] == "offline").await;
    let none_of_her_business =
        stranger.everything().into_iter().filter(|(name, _)| name != "session.ready" && name != "rooms.beacon");
    assert_eq!(none_of_her_business.count(), 0, "{:?}", stranger.everything());
    system.assert_healthy();
}

/// What `session.ready` says about the one room.
async fn unread(person: &Person, system: &System) -> i64 {
    let socket = Socket::open(&system.gateway(0).url(), &format!("/ws?token={}&deviceId=unread", person.token)).await;
    socket.event("session.ready", |_| true).await["rooms"][0]["unread"].as_i64().unwrap()
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn membership_decides_who_hears_what_from_its_place_in_the_order_on(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    let carols = carol.connect(system.gateway(1)).await;
    let (one, two) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(1)).await);
    // Connected before the room is made: it is on as soon as it exists.
    let room = alice.create_group(&[&bob]).await;
    for socket in [&one, &two] {
        let created = socket.event("room.created", |it| it["roomId"] == room.as_str()).await;
        assert_eq!(created["rev"], 1);
    }
    assert_eq!(two.say(&room, "first", "before Carol").await["status"], "QUEUED");
    one.delivered(&room, 1).await;

    let members = format!("/api/v1/conversations/{room}/members");
    alice.rest.post(&members, json!({"userIds": [carol.id]})).await.expect(202);
    let joined = two.event("room.memberJoined", |_| true).await;
    assert_eq!((&joined["userId"], &joined["by"]), (&json!(carol.id), &json!(alice.id)));
    until(PATIENCE, || async { knows(&carols, &room) }).await;
    two.say(&room, "second", "with Carol").await;
    carols.event("message.delivered", |it| it["clientMsgId"] == "second").await;
    assert_eq!(carols.say(&room, "third", "from Carol").await["status"], "QUEUED");

    alice.rest.delete(&format!("{members}/{}", carol.id)).await.expect(202);
    let left = one.event("room.memberLeft", |_| true).await;
    assert_eq!((&left["userId"], &left["by"]), (&json!(carol.id), &json!(alice.id)));
    carols.event("room.memberLeft", |it| it["userId"] == carol.id.as_str()).await;
    for number in 0..20 {
        two.say(&room, &format!("private {number}"), "not for Carol").await;
    }
    one.event("message.delivered", |it| it["clientMsgId"] == "private 19").await;
    let refused = carols.say(&room, "fourth", "may I?").await;
    assert_eq!((&refused["status"], &refused["code"]), (&json!("REJECTED"), &json!("NOT_FOUND")), "{refused}");
    for request in [json!({"roomId": room, "afterSeq": 0}), json!({"roomId": room, "afterRev": 0})] {
        let synced = carols.request("sync", json!({"rooms": [request]})).await;
        assert_eq!(synced["rooms"], json!([{"roomId": room, "code": "NOT_FOUND"}]));
    }
    assert_eq!(carol.rest.get(&format!("/api/v1/conversations/{room}/messages")).await.status, 404);
    // Whatever was under way has arrived by now at the others, one second included.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let overheard = carols.events("message.delivered").into_iter().filter(|it| it["content"] == "not for Carol");
    assert_eq!(overheard.count(), 0, "nothing after the kick");
    let names: Vec<String> =
        all_events(&one, &room).await.iter().map(|it| it["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        names[..6],
        [
            "room.created",
            "message.delivered",
            "room.memberJoined",
            "message.delivered",
            "message.delivered",
            "room.memberLeft"
        ]
    );
    system.assert_healthy();
}

/// True once the new member was told of the room in one way or another.
fn knows(socket: &Socket, room: &str) -> bool {
    socket.everything().iter().any(|(name, data)| name.starts_with("room.") && data["roomId"] == room)
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn a_stopped_gateway_says_goodbye_and_loses_nothing(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let (one, two) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(0)).await);
    let mut ids = Vec::new();
    for number in 0..50 {
        let data = json!({"roomId": room, "content": "x", "clientMsgId": format!("{number}")});
        ids.push(one.send("message.send", data).await);
    }
    one.ack(ids[0]).await;
    let status = system.gateway(0).terminate(Duration::from_secs(30)).await;
    assert!(status.success(), "{status}");
    for socket in [&one, &two] {
        assert!(socket.event("server.draining", |_| true).await["retryAfterMs"].is_number());
        assert_eq!(socket.closed().await.map(|closed| closed.0), Some(4503));
    }
    let mut queued = 0;
    for id in ids {
        queued += i64::from(one.try_ack(id, PATIENCE).await.is_some_and(|ack| ack["status"] == "QUEUED"));
    }
    system.gateway(0).start_again().await;
    let back = bob.connect(system.gateway(0)).await;
    let stored = async || {
        back.request("sync", json!({"rooms": [{"roomId": room, "afterSeq": 0}]})).await["rooms"][0]["lastSeq"].as_i64()
    };
    until(PATIENCE, || async { stored().await >= Some(queued) }).await;
    assert!(queued > 0);
    system.assert_healthy();
}
