//! What the others see of who comes, goes and rests.

use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::Socket;

use crate::codec::Codec;
use crate::house::{House, QUIET, connect_to, until};

/// The next change of presence to `status`.
async fn turns(socket: &Socket, status: &str) -> Value {
    socket.event("presence.changed", |changed| changed["status"] == status).await
}

fn changes(socket: &Socket) -> Vec<Value> {
    socket.events("presence.changed").into_iter().map(|changed| changed["status"].clone()).collect()
}

#[rstest]
#[tokio::test]
async fn whoever_sends_nothing_for_a_while_is_away_and_back_with_the_next_command(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking_with(codec, &[("PRESENCE_IDLE", "3s"), ("PRESENCE_GRACE", "0s")]).await;
    let (ann, ben) = (house.user().await, house.user().await);
    house.direct_room(ann, ben).await;
    let bens = house.connect(ben).await;
    let (anns, other) = (house.connect(ann).await, house.connect(ann).await);
    turns(&bens, "online").await;
    // One of two devices rests: nothing to tell. Whoever is asked whether the server is there is not in use.
    for _ in 0..14 {
        other.request("presence.query", json!({"userIds": []})).await;
        anns.request("ping", json!({})).await;
        tokio::time::sleep(QUIET).await;
    }
    assert_eq!(changes(&bens), ["online"]);
    turns(&bens, "away").await;
    assert_eq!(anns.request("presence.set", json!({"status": "online"})).await["status"], "OK");
    until(|| changes(&bens).starts_with(&["online", "away", "online"].map(Value::from))).await;
    other.cut();
    anns.cut();
    assert!(turns(&bens, "offline").await["lastSeenAt"].is_string());
}

#[rstest]
#[tokio::test]
async fn a_reconnect_within_the_grace_is_not_noticed(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking_with(codec, &[("PRESENCE_GRACE", "60s")]).await;
    let (ann, ben) = (house.user().await, house.user().await);
    house.direct_room(ann, ben).await;
    let (_second, elsewhere) = house.another_gateway();
    let bens = house.connect(ben).await;
    let first = house.connect(ann).await;
    turns(&bens, "online").await;
    let gone = async || {
        testkit::until(testkit::PATIENCE, async || {
            house.engine.realtime.sessions_of(ann).await.is_ok_and(|sessions| sessions.is_empty())
        })
        .await;
    };
    first.cut();
    gone().await;
    let seen = bens.request("presence.query", json!({"userIds": [ann.to_string()]})).await;
    assert_eq!(seen["users"][0]["status"], "online", "{seen}");
    let again = connect_to(&elsewhere, ann).await;
    house.engine.clock.shift(20_000);
    tokio::time::sleep(3 * QUIET).await;
    assert_eq!(changes(&bens), ["online"]);
    again.cut();
    gone().await;
    let left = house.engine.clock.now();
    house.engine.clock.shift(20_000);
    house.engine.clock.shift(20_000);
    house.engine.clock.shift(20_100);
    let last_seen = turns(&bens, "offline").await["lastSeenAt"].as_str().expect("a time").to_owned();
    assert!(last_seen <= left.to_rfc3339(), "when the device left, not when the grace ended");
}

#[rstest]
#[tokio::test]
async fn who_hides_goes_at_once_and_comes_unseen(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, ben) = (house.user().await, house.user().await);
    house.direct_room(ann, ben).await;
    let bens = house.connect(ben).await;
    let anns = house.connect(ann).await;
    turns(&bens, "online").await;
    anns.request("presence.set", json!({"status": "invisible"})).await;
    turns(&bens, "offline").await;
    anns.cut();
    let again = house.connect(ann).await;
    let seen = bens.request("presence.query", json!({"userIds": [ann.to_string()]})).await;
    assert_eq!(seen["users"][0]["status"], "offline");
    house.engine.clock.shift(5_000);
    tokio::time::sleep(3 * QUIET).await;
    assert_eq!(changes(&bens), ["online", "offline"]);
    again.request("presence.set", json!({"status": "busy"})).await;
    turns(&bens, "busy").await;
}
