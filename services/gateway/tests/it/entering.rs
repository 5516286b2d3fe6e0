//! What a client says of a room while it is being let into it: the order of what it is told holds, and a
//! room that was switched off stays off.

use domain::room::RoomKind;
use domain::{Rev, RoomId, UserId};
use serde_json::json;
use testkit::client::Socket;

use crate::follow::{revs, tell_again};
use crate::house::{House, QUIET, until};
use crate::silent;

/// What a joining reads last takes about a second from now on.
async fn slow_down(house: &House) {
    house.sql("ALTER TABLE room_departures RENAME TO departed").await;
    house
        .sql(
            "CREATE VIEW room_departures AS SELECT departed.* FROM
                (WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1500000)
                 SELECT COUNT(*) AS n FROM numbers) AS long CROSS JOIN departed WHERE long.n > 0",
        )
        .await;
}

async fn speed_up(house: &House) {
    house.sql("DROP VIEW room_departures").await;
    house.sql("ALTER TABLE departed RENAME TO room_departures").await;
}

/// Somebody's connection on its way into a room, in the middle of it.
async fn half_way(house: &House, owner: UserId, room: RoomId, who: UserId) -> Socket {
    let gains = house.connect(who).await;
    slow_down(house).await;
    silent::add(house, owner, room, who).await;
    until(|| House::gauge("chat_rooms_reconciled_total{change=\"joined\"}") > 0).await;
    gains
}

/// Waits until all that was begun before with a connection is done: one lets it into a room after another.
async fn all_done(house: &House, other: UserId, who: UserId, socket: &Socket) {
    let made = house.handlers().create_room(other, RoomKind::Group, None, vec![who]).await.expect("made");
    let room = made.room.id.to_string();
    socket.event("room.created", |created| created["roomId"] == room).await;
    tokio::time::sleep(QUIET).await;
}

#[tokio::test]
async fn who_switches_a_room_on_before_being_told_of_it_is_told_nothing_older_afterwards() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann]).await;
    let name = room.to_string();
    let gains = half_way(&house, ann, room, bob).await;
    let on = gains.request("room.join", json!({"roomId": name})).await;
    assert_eq!(on, json!({"status": "OK", "roomId": name, "lastSeq": 0, "rev": 2}));
    let talker = house.connect(ann).await;
    talker.say(&name, "m1", "welcome").await;
    gains.delivered(&name, 1).await;
    speed_up(&house).await;
    all_done(&house, ann, bob, &gains).await;
    talker.say(&name, "m2", "and again").await;
    gains.delivered(&name, 2).await;
    assert_eq!(revs(&gains, &name), [3, 4]);
}

#[tokio::test]
async fn of_a_room_that_is_switched_off_on_the_way_into_it_nothing_is_told() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann]).await;
    let name = room.to_string();
    let gains = half_way(&house, ann, room, bob).await;
    let off = gains.request("room.leave", json!({"roomId": name})).await;
    assert_eq!(off["status"], "OK", "{off}");
    speed_up(&house).await;
    house.connect(ann).await.say(&name, "m1", "unheard").await;
    all_done(&house, ann, bob, &gains).await;
    assert_eq!(revs(&gains, &name), Vec::<i64>::new());
    // It is there to be switched on.
    let on = gains.request("room.join", json!({"roomId": name})).await;
    assert_eq!(on, json!({"status": "OK", "roomId": name, "lastSeq": 1, "rev": 3}));
    house.connect(ann).await.say(&name, "m2", "heard").await;
    gains.delivered(&name, 1).await;
    assert_eq!(revs(&gains, &name), [4]);
}

#[tokio::test]
async fn a_room_that_was_switched_off_before_its_word_came_stays_off_until_the_user_comes_back() {
    let house = House::open().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann]).await;
    let name = room.to_string();
    let gains = house.connect(bob).await;
    silent::add(&house, ann, room, bob).await;
    let off = gains.request("room.leave", json!({"roomId": name})).await;
    assert_eq!(off["status"], "OK", "{off}");
    let told = revs(&gains, &name).len();
    tell_again(&house, room, bob, Rev(2)).await;
    let talker = house.connect(ann).await;
    talker.say(&name, "m1", "unheard").await;
    all_done(&house, ann, bob, &gains).await;
    assert_eq!(revs(&gains, &name).len(), told);

    house.remove(ann, room, bob).await;
    talker.event("room.memberLeft", |_| true).await;
    house.add(ann, room, bob).await;
    gains.event("room.memberJoined", |joined| joined["rev"] == 5).await;
    assert_eq!(revs(&gains, &name)[told..], [5]);
}
