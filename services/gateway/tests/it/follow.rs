//! Which rooms a connection follows, and that nothing of them is missing, doubled or out of order.

use domain::room::RoomKind;
use domain::{Rev, RoomId, UserId};
use protocol::{Channel, EventData, OpenedDelivery, delivery, wire};
use realtime::Outbound;
use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::Socket;

use crate::codec::Codec;
use crate::house::{House, QUIET, until};
use crate::silent;

/// The revs of a room that a client was told, in their order.
pub(crate) fn revs(socket: &Socket, room: &str) -> Vec<i64> {
    let of_room = |data: &Value| data["roomId"] == room;
    socket.everything().iter().filter(|(_, data)| of_room(data)).filter_map(|(_, data)| data["rev"].as_i64()).collect()
}

#[rstest]
#[tokio::test]
async fn a_room_that_is_switched_off_is_silent_until_it_is_switched_on(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (talker, listener) = (house.connect(ann).await, house.connect(bob).await);

    let off = listener.request("room.leave", json!({"roomId": room})).await;
    assert_eq!(off, json!({"status": "OK", "roomId": room, "lastSeq": 0, "rev": 1}));
    talker.say(&room, "m1", "unheard").await;
    talker.delivered(&room, 1).await;

    let on = listener.request("room.join", json!({"roomId": room})).await;
    assert_eq!(on, json!({"status": "OK", "roomId": room, "lastSeq": 1, "rev": 2}));
    talker.say(&room, "m2", "heard").await;
    let heard = listener.delivered(&room, 1).await;
    assert_eq!(heard[0]["content"], "heard");
    // Switched off, one may speak nevertheless.
    listener.request("room.leave", json!({"roomId": room})).await;
    assert_eq!(listener.say(&room, "b1", "from off").await["status"], "QUEUED");
}

#[rstest]
#[tokio::test]
async fn a_new_room_is_told_of_and_followed_at_once(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let (one, other) = (house.connect(ann).await, house.connect(bob).await);
    let made = house.handlers().create_room(ann, RoomKind::Group, Some("New".into()), vec![bob]).await.expect("made");
    let room = made.room.id.to_string();
    for socket in [&one, &other] {
        let told = socket.event("room.created", |_| true).await;
        assert_eq!((&told["roomId"], &told["rev"]), (&json!(room), &json!(1)));
    }
    one.say(&room, "m1", "hello").await;
    other.delivered(&room, 1).await;
    assert_eq!(revs(&other, &room), [1, 2]);
}

#[rstest]
#[tokio::test]
async fn who_is_added_gets_everything_from_then_on_even_while_others_talk(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob, eve) = (house.user().await, house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let name = room.to_string();
    let (talker, added) = (house.connect(ann).await, house.connect(eve).await);
    for number in 0..100 {
        talker.send("message.send", json!({"roomId": name, "clientMsgId": format!("m{number}"), "content": "x"})).await;
        if number == 50 {
            house.add(ann, room, eve).await;
        }
    }
    until(|| revs(&talker, &name).last() == Some(&102)).await;
    until(|| revs(&added, &name).last() == Some(&102)).await;
    let joined = added.event("room.memberJoined", |_| true).await["rev"].as_i64().expect("a rev");
    assert_eq!(revs(&added, &name), (joined..=102).collect::<Vec<_>>());
    assert_eq!(revs(&talker, &name), (2..=102).collect::<Vec<_>>());
}

#[rstest]
#[tokio::test]
async fn who_is_removed_is_told_so_and_nothing_after_it_until_added_again(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let name = room.to_string();
    let (stays, goes) = (house.connect(ann).await, house.connect(bob).await);
    house.remove(ann, room, bob).await;
    stays.event("room.memberLeft", |_| true).await;
    stays.say(&name, "m1", "behind your back").await;
    stays.delivered(&name, 1).await;
    assert_eq!(goes.say(&name, "b1", "am I still there?").await["code"], "NOT_FOUND");
    tokio::time::sleep(QUIET).await;
    assert_eq!(revs(&goes, &name), [2]);

    house.add(ann, room, bob).await;
    stays.say(&name, "m2", "welcome").await;
    goes.delivered(&name, 1).await;
    until(|| revs(&goes, &name).len() == 3).await;
    assert_eq!(revs(&goes, &name), [2, 4, 5]);
}

/// Tells somebody once more that they became a member, as a job does that is received again.
pub(crate) async fn tell_again(house: &House, room: RoomId, who: UserId, rev: Rev) {
    let joined = wire::RoomMemberJoined {
        room_id: room.to_string(),
        rev: rev.0,
        user_id: who.to_string(),
        ..Default::default()
    };
    let event = EventData::RoomMemberJoined(joined);
    let told = OpenedDelivery { rev: Some(rev), epoch: rev, except: None, event };
    let channel = Channel::User(who);
    let payload = delivery::seal(channel, &told, &house.engine.keys);
    house.engine.realtime.publish(&[Outbound { channel, rev: None, payload }]).await.expect("published");
}

#[tokio::test]
async fn an_old_word_of_joining_tells_nothing_twice_to_whoever_left_and_came_back() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann]).await;
    let name = room.to_string();
    let guest = house.connect(bob).await;
    house.add(ann, room, bob).await;
    guest.event("room.memberJoined", |_| true).await;
    house.remove(ann, room, bob).await;
    guest.event("room.memberLeft", |_| true).await;
    // Back by the store, but no word of it came yet: only the old one comes once more.
    Box::pin(silent::add(&house, ann, room, bob)).await;
    tell_again(&house, room, bob, Rev(2)).await;
    guest.event("room.memberJoined", |joined| joined["rev"] == 4).await;
    assert_eq!(revs(&guest, &name), [2, 3, 4]);
}

#[rstest]
#[tokio::test]
async fn who_connects_while_others_talk_gets_everything_after_what_ready_said(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let talker = house.connect(ann).await;
    let mut listeners = Vec::new();
    for number in 0..300 {
        talker.send("message.send", json!({"roomId": room, "clientMsgId": format!("m{number}"), "content": "x"})).await;
        if number % 20 == 0 {
            listeners.push(Socket::open(&house.base, &format!("/ws?token={}", House::token(bob))).await);
        }
    }
    for listener in &listeners {
        let ready = listener.event("session.ready", |_| true).await;
        let start = ready["rooms"][0]["rev"].as_i64().expect("a rev");
        until(|| start == 301 || revs(listener, &room).last() == Some(&301)).await;
        assert_eq!(revs(listener, &room), (start + 1..=301).collect::<Vec<_>>());
    }
}

#[rstest]
#[tokio::test]
async fn what_pub_sub_lost_is_found_before_what_came_after_it_is_told(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let name = room.to_string();
    let (talker, listener) = (house.connect(ann).await, house.connect(bob).await);
    Box::pin(silent::say(&house, room, bob, "lost")).await;
    talker.say(&name, "m1", "after").await;
    let delivered = listener.delivered(&name, 2).await;
    assert_eq!((&delivered[0]["content"], &delivered[1]["content"]), (&json!("unsaid"), &json!("after")));
    assert_eq!(revs(&listener, &name), [2, 3]);
}

#[rstest]
#[tokio::test]
async fn what_was_never_told_is_found_by_comparing_with_the_store(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let listener = house.connect(ann).await;
    Box::pin(silent::say(&house, room, bob, "lost")).await;
    let delivered = listener.delivered(&room.to_string(), 1).await;
    assert_eq!(delivered[0]["content"], "unsaid");
}
