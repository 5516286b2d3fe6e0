//! `rooms.beacon`, and the tail of the store: what tells a quiet client and a gateway where rooms stand.

use std::time::{Duration, Instant};

use domain::RoomId;
use domain::room::RoomKind;
use rstest::rstest;
use serde_json::{Value, json};
use store::ImportRoom;
use testkit::client::Socket;

use crate::codec::Codec;
use crate::house::{House, until};
use crate::silent;

fn beacons(socket: &Socket) -> Vec<Value> {
    socket.events("rooms.beacon")
}

#[rstest]
#[tokio::test]
async fn a_quiet_connection_is_told_which_version_of_its_rooms_is_the_newest(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking_with(codec, &[("BEACON_EVERY", "600ms")]).await;
    let (ann, bob) = (house.user().await, house.user().await);
    house.handlers().create_room(ann, RoomKind::Group, None, vec![bob]).await.expect("made");
    let socket = Socket::open(&house.base, &format!("/ws?token={}", House::token(bob))).await;
    let ready = socket.event("session.ready", |_| true).await;
    assert_eq!(ready["membership"], 1);
    until(|| beacons(&socket).len() >= 2).await;
    assert_eq!(beacons(&socket)[0], json!({"rooms": [], "membership": 1}), "nothing has moved");
    house.handlers().create_room(ann, RoomKind::Group, None, vec![bob]).await.expect("made");
    until(|| beacons(&socket).iter().any(|beacon| beacon["membership"] == 2)).await;
}

#[rstest]
#[tokio::test]
async fn it_says_where_the_store_has_what_moved_and_says_it_once(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking_with(codec, &[("BEACON_EVERY", "1s")]).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let (moves, _still) = (house.room(&[ann, bob]).await, house.room(&[ann, bob]).await);
    let socket = house.connect(bob).await;
    silent::say(&house, moves, ann, "one").await;
    silent::say(&house, moves, ann, "two").await;
    let told = |beacon: &Value| beacon["rooms"] == json!([{"roomId": moves.to_string(), "rev": 3}]);
    until(|| beacons(&socket).iter().any(told)).await;
    let count = beacons(&socket).len();
    until(|| beacons(&socket).len() >= count + 2).await;
    assert_eq!(beacons(&socket).iter().filter(|beacon| told(beacon)).count(), 1);
}

#[tokio::test]
async fn whoever_has_news_needs_no_beacon() {
    let house = House::with(&[("BEACON_EVERY", "2s")]).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (talker, listener) = (house.connect(ann).await, house.connect(bob).await);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        talker.say(&room, &format!("{:?}", started.elapsed()), "news").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(beacons(&listener), Vec::<Value>::new());
}

#[tokio::test]
async fn no_beacons_are_sent_when_they_are_switched_off() {
    let house = House::with(&[("BEACON_EVERY", "0s")]).await;
    let ann = house.user().await;
    let socket = house.connect(ann).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(beacons(&socket), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_message_is_found_soon_among_thousands_of_rooms() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = |_| ImportRoom { id: RoomId::generate(), kind: RoomKind::Group, title: None, members: vec![ann, bob] };
    let rooms: Vec<ImportRoom> = (0..6_000).map(room).collect();
    let mut import = house.engine.store.begin_import(house.engine.clock.now()).await.expect("an import");
    import.rooms(&rooms).await.expect("rooms");
    import.commit().await.expect("a commit");
    let socket = house.connect(bob).await;
    // By comparison with the store, 500 rooms a second, one of these takes many seconds.
    for room in [&rooms[5], &rooms[3_000], &rooms[5_990]] {
        let said = Instant::now();
        silent::say(&house, room.id, ann, &room.id.to_string()).await;
        socket.delivered(&room.id.to_string(), 1).await;
        assert!(said.elapsed() < Duration::from_millis(3_500), "{:?}", said.elapsed());
    }
}
