//! What somebody with access to pub/sub tells gateways without one of our keys.

use domain::{Rev, RoomId};
use protocol::{Channel, EventData, Keyring, OpenedDelivery, delivery, wire};
use realtime::Outbound;
use testkit::services::RedisServer;

use crate::house::{House, QUIET, until};

/// A key of the same id as ours that is not ours, and one of an id that nobody knows.
const IMPOSTOR: &str = "t1:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=";
const STRANGER: &str = "t9:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=";

fn forged() -> usize {
    House::gauge("chat_deliveries_forged_total")
}

/// The room's next message, which nobody sent.
fn lie(room: RoomId) -> OpenedDelivery {
    let told = wire::MessageDelivered {
        room_id: room.to_string(),
        rev: Some(2),
        seq: 1,
        content: Some("a lie".to_owned()),
        ..Default::default()
    };
    OpenedDelivery { rev: Some(Rev(2)), epoch: Rev::ZERO, except: None, event: EventData::MessageDelivered(told) }
}

#[tokio::test]
async fn what_nobody_of_ours_signed_for_its_channel_is_dropped_and_counted_and_the_connections_go_on() {
    let redis = RedisServer::start().await;
    let house = House::over(redis.url()).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let (room, other) = (house.room(&[ann, bob]).await, house.room(&[ann, bob]).await);
    let (talker, witness) = (house.connect(ann).await, house.connect(bob).await);
    let ours = house.engine.keys.clone();
    let [impostor, stranger] = [IMPOSTOR, STRANGER].map(|key| Keyring::parse(key).expect("a key"));
    let (here, to_bob) = (Channel::Room(room), Channel::User(bob));
    let mut tampered = delivery::seal(here, &lie(room), &ours).to_vec();
    *tampered.last_mut().expect("not empty") ^= 1;
    let signed_out = OpenedDelivery::passing(EventData::SessionRevoked(wire::SessionRevoked::default()));
    let forgeries = [
        (here, delivery::seal(here, &lie(room), &impostor)),
        (here, delivery::seal(here, &lie(room), &stranger)),
        (here, tampered.into()),
        // Genuine, of another room.
        (here, delivery::seal(Channel::Room(other), &lie(room), &ours)),
        (to_bob, delivery::seal(to_bob, &signed_out, &impostor)),
    ];
    let before = forged();
    let outbound = forgeries.map(|(channel, payload)| Outbound { channel, rev: None, payload });
    house.engine.realtime.publish(&outbound).await.expect("published");
    // As anybody can who has the server's password.
    let garbage =
        ["", "garbage", "\0\0\0\0\0\0\0\0\u{7f}garbage with a number", "\u{2}t1{\"event\":\"message.delivered\"}"];
    for payload in garbage {
        let heard = redis.query(&["PUBLISH", &format!("chat:room:{room}"), payload]).await.expect("an answer");
        assert_eq!(heard.first().map(String::as_str), Some("1"), "the gateway's own channel");
    }
    let all = outbound.len() + garbage.len();
    until(|| forged() >= before + all).await;

    let name = room.to_string();
    assert_eq!(talker.say(&name, "m1", "the truth").await["status"], "QUEUED");
    witness.delivered(&name, 1).await;
    tokio::time::sleep(QUIET).await;
    let told = witness.events("message.delivered");
    let told: Vec<_> = told.iter().map(|told| (told["rev"].as_i64(), told["content"].as_str())).collect();
    assert_eq!(told, [(Some(2), Some("the truth"))]);
    assert!(talker.is_open() && witness.is_open());
    assert_eq!(forged(), before + all, "and nothing of ours is taken for a forgery");
}
