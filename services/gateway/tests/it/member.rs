//! Whoever loses a room loses it everywhere within a second, and whoever gains one gains it: told or
//! not, and whatever is under way.

use std::time::{Duration, Instant};

use domain::room::RoomKind;
use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::Socket;

use crate::codec::Codec;
use crate::house::{House, connect_to, until};
use crate::silent;

/// What a change of membership may take to work, and a little for a busy machine.
const SOON: Duration = Duration::from_millis(1_500);

/// What a client was told of a room: the events' revs, receipts and typing aside.
fn revs(socket: &Socket, room: &str) -> Vec<i64> {
    let of_room = |data: &Value| data["roomId"] == room;
    socket.everything().iter().filter(|(_, data)| of_room(data)).filter_map(|(_, data)| data["rev"].as_i64()).collect()
}

fn left_at(socket: &Socket, room: &str) -> Option<i64> {
    socket.events("room.memberLeft").iter().find(|left| left["roomId"] == room).and_then(|left| left["rev"].as_i64())
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kick_without_a_word_works_within_a_second_while_messages_flow(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (_second, second_base) = house.another_gateway();
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let name = room.to_string();
    let talker = house.connect(ann).await;
    let kicked = [house.connect(bob).await, connect_to(&second_base, bob).await];
    let mut removed_at = None;
    for number in 0..150 {
        talker.send("message.send", json!({"roomId": name, "clientMsgId": format!("m{number}"), "content": "x"})).await;
        if number == 50 {
            silent::remove(&house, ann, room, bob).await;
            removed_at = Some(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let removed_at = removed_at.expect("removed");
    for socket in &kicked {
        until(|| left_at(socket, &name).is_some()).await;
    }
    assert!(removed_at.elapsed() < SOON + Duration::from_secs(1), "{:?}", removed_at.elapsed());
    until(|| revs(&talker, &name).last() == Some(&152)).await;
    for socket in &kicked {
        let left = left_at(socket, &name).expect("told");
        assert_eq!(revs(socket, &name), (2..=left).collect::<Vec<_>>(), "all up to the removal and nothing after it");
    }
    // The one who stays misses nothing.
    assert_eq!(revs(&talker, &name), (2..=152).collect::<Vec<_>>());
}

#[rstest]
#[tokio::test]
async fn a_kick_that_nobody_is_told_of_is_noticed_in_a_silent_room(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let name = room.to_string();
    let kicked = house.connect(bob).await;
    silent::say(&house, room, ann, "before").await;
    silent::remove(&house, ann, room, bob).await;
    let told = tokio::time::timeout(SOON, kicked.event("room.memberLeft", |_| true)).await.expect("within a second");
    assert_eq!((&told["roomId"], &told["rev"]), (&json!(name), &json!(3)));
    assert_eq!(revs(&kicked, &name), [2, 3]);
    house.connect(ann).await.say(&name, "m1", "behind your back").await;
    tokio::time::sleep(SOON).await;
    assert_eq!(revs(&kicked, &name), [2, 3]);
}

#[rstest]
#[tokio::test]
async fn a_room_lost_by_a_change_without_a_trace_is_left_none_the_less(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let name = room.to_string();
    let (talker, lost) = (house.connect(ann).await, house.connect(bob).await);
    let scope = store::Scope { rooms: vec![room], ..store::Scope::default() };
    let batch = house.engine.store.begin(&scope).await.expect("begins");
    batch.commit(store::Writes { left: vec![(room, bob)], ..store::Writes::default() }).await.expect("commits");
    tokio::time::sleep(SOON).await;
    talker.say(&name, "m1", "behind your back").await;
    talker.delivered(&name, 1).await;
    tokio::time::sleep(crate::house::QUIET).await;
    assert_eq!(revs(&lost, &name), Vec::<i64>::new());
    // There is no change that could be told: it comes back and sees where it stands.
    assert_eq!(lost.closed().await.map(|closed| closed.0), Some(4503));
}

/// What came in answer to requests holds nothing of the room after its removal.
fn assert_nothing_synced_after(socket: &Socket, room: &str, left: i64) {
    for ack in socket.acks() {
        let Some(synced) = ack["rooms"].as_array().and_then(|rooms| rooms.first()) else { continue };
        let items = synced["items"].as_array().cloned().unwrap_or_default();
        assert!(items.iter().all(|item| item["rev"].as_i64() <= Some(left)), "{room} after {left}: {ack}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_told_after_a_kick_to_whoever_joins_connects_or_syncs_just_then() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    for round in 0..8_u64 {
        let room = house.room(&[ann, bob]).await;
        let name = room.to_string();
        let talker = house.connect(ann).await;
        let busy = house.connect(bob).await;
        busy.request("room.leave", json!({"roomId": name})).await;
        let talk = async {
            for number in 0..40 {
                talker
                    .send(
                        "message.send",
                        json!({"roomId": name, "clientMsgId": format!("{round}-{number}"), "content": "x"}),
                    )
                    .await;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let kick = async {
            tokio::time::sleep(Duration::from_millis(10 + round * 7)).await;
            if round % 2 == 0 {
                house.remove(ann, room, bob).await;
            } else {
                silent::remove(&house, ann, room, bob).await;
            }
        };
        let requests = async {
            for _ in 0..15 {
                busy.send("room.join", json!({"roomId": name})).await;
                busy.send("sync", json!({"rooms": [{"roomId": name, "afterRev": 1}]})).await;
                tokio::time::sleep(Duration::from_millis(6)).await;
            }
        };
        let comings = (0..6_u64).map(|number| {
            let house = &house;
            async move {
                tokio::time::sleep(Duration::from_millis(number * 12)).await;
                Socket::open(&house.base, &format!("/ws?token={}", House::token(bob))).await
            }
        });
        let (came, ..) = tokio::join!(futures_util::future::join_all(comings), talk, kick, requests);
        until(|| revs(&talker, &name).last() == Some(&42)).await;
        let removal = left_at(&talker, &name).expect("the others are told");
        tokio::time::sleep(SOON).await;
        talker.say(&name, &format!("last {round}"), "who hears this?").await;
        until(|| revs(&talker, &name).last() == Some(&43)).await;
        tokio::time::sleep(crate::house::QUIET).await;
        for socket in came.iter().chain([&busy]) {
            let heard = revs(socket, &name);
            assert!(heard.iter().all(|rev| *rev <= removal), "{heard:?} after {removal} in round {round}");
            assert!(heard.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{heard:?} in order");
            assert_nothing_synced_after(socket, &name, removal);
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_room_gained_without_a_word_is_joined_and_nobody_is_closed(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann]).await;
    let name = room.to_string();
    let gains = house.connect(bob).await;
    silent::say(&house, room, ann, "before").await;
    silent::add(&house, ann, room, bob).await;
    silent::say(&house, room, ann, "after").await;
    let joined = gains.event("room.memberJoined", |_| true).await;
    assert_eq!((&joined["roomId"], &joined["rev"]), (&json!(name), &json!(3)));
    house.connect(ann).await.say(&name, "m1", "welcome").await;
    gains.delivered(&name, 2).await;
    assert_eq!(revs(&gains, &name), [3, 4, 5]);
    assert!(gains.is_open());
}

#[tokio::test]
async fn a_room_that_could_not_be_joined_half_way_is_joined_when_that_is_possible() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann]).await;
    let gains = house.connect(bob).await;
    silent::add(&house, ann, room, bob).await;
    // What comes last in joining fails from now on.
    house.sql("ALTER TABLE room_departures RENAME TO away").await;
    until(|| House::gauge("chat_rooms_reconciled_total{change=\"joined\"}") > 1).await;
    house.sql("ALTER TABLE away RENAME TO room_departures").await;
    gains.event("room.memberJoined", |_| true).await;
    house.connect(ann).await.say(&room.to_string(), "m1", "welcome").await;
    gains.delivered(&room.to_string(), 1).await;
    assert_eq!(revs(&gains, &room.to_string()), [2, 3]);
    assert!(gains.is_open());
}

#[rstest]
#[tokio::test]
async fn a_new_room_whose_word_was_lost_is_told_of(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let gains = house.connect(bob).await;
    // An import tells nobody.
    let room = house.room(&[ann, bob]).await;
    let created = gains.event("room.created", |_| true).await;
    assert_eq!((&created["roomId"], &created["rev"]), (&json!(room), &json!(1)));
}

#[tokio::test]
async fn a_new_room_whose_word_was_lost_is_told_of_to_whoever_switched_another_one_off() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let (on, off) = (house.room(&[ann, bob]).await.to_string(), house.room(&[ann, bob]).await.to_string());
    let gains = house.connect(bob).await;
    for (command, room) in [("room.leave", &on), ("room.join", &on), ("room.leave", &off)] {
        assert_eq!(gains.request(command, json!({"roomId": room})).await["status"], "OK");
    }
    let new = house.room(&[ann, bob]).await;
    let created = gains.event("room.created", |_| true).await;
    assert_eq!((&created["roomId"], &created["rev"]), (&json!(new), &json!(1)));
    let talker = house.connect(ann).await;
    for room in [&off, &on] {
        talker.say(room, room, "to both").await;
    }
    gains.delivered(&on, 1).await;
    assert_eq!(revs(&gains, &off), Vec::<i64>::new());
}

#[tokio::test]
async fn a_room_that_was_switched_off_is_on_when_its_user_comes_back_and_nobody_is_told() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await;
    let listener = house.connect(bob).await;
    listener.request("room.leave", json!({"roomId": room})).await;
    silent::remove(&house, ann, room, bob).await;
    silent::add(&house, ann, room, bob).await;
    let joined = listener.event("room.memberJoined", |_| true).await;
    assert_eq!((&joined["roomId"], &joined["rev"]), (&json!(room), &json!(3)));
    house.connect(ann).await.say(&room.to_string(), "m1", "welcome").await;
    listener.delivered(&room.to_string(), 1).await;
    assert_eq!(revs(&listener, &room.to_string()), [3, 4]);
}

#[rstest]
#[tokio::test]
async fn a_room_that_was_switched_off_is_not_switched_on_by_a_change_elsewhere(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let listener = house.connect(bob).await;
    listener.request("room.leave", json!({"roomId": room})).await;
    house.handlers().create_room(ann, RoomKind::Group, None, vec![bob]).await.expect("made");
    listener.event("room.created", |_| true).await;
    tokio::time::sleep(SOON).await;
    house.connect(ann).await.say(&room, "m1", "unheard").await;
    tokio::time::sleep(crate::house::QUIET).await;
    assert_eq!(revs(&listener, &room), Vec::<i64>::new());
}
