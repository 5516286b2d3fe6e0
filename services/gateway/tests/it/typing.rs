//! Typing ends by itself, is told no more often than it helps, and survives the loss of its gateway.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::Socket;

use crate::codec::Codec;
use crate::house::{House, QUIET, connect_to, until};

async fn type_in(socket: &Socket, room: &str, is_typing: bool) {
    let done = socket.request("typing", json!({"roomId": room, "isTyping": is_typing})).await;
    assert_eq!(done["status"], "OK");
}

fn words(socket: &Socket) -> Vec<bool> {
    socket.events("typing").iter().map(|typing| typing["isTyping"] == true).collect()
}

#[rstest]
#[tokio::test]
async fn who_goes_silent_stops_typing_after_six_seconds(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (typer, reader) = (house.connect(ann).await, house.connect(bob).await);
    type_in(&typer, &room, true).await;
    reader.event("typing", |typing: &Value| typing["isTyping"] == true).await;
    tokio::time::sleep(QUIET).await;
    house.engine.clock.shift(5_000);
    tokio::time::sleep(2 * QUIET).await;
    assert_eq!(words(&reader), [true]);
    house.engine.clock.shift(1_500);
    until(|| words(&reader) == [true, false]).await;
    assert!(words(&typer).is_empty(), "nobody is told of itself");
}

#[rstest]
#[tokio::test]
async fn typing_outlives_the_typers_gateway_by_six_seconds_only(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (other, base) = house.another_gateway();
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (typer, reader) = (connect_to(&base, ann).await, house.connect(bob).await);
    type_in(&typer, &room, true).await;
    reader.event("typing", |typing: &Value| typing["isTyping"] == true).await;
    // Nobody renews it any more, and nobody says that it is over.
    typer.cut();
    drop(other);
    house.engine.clock.shift(6_500);
    until(|| words(&reader) == [true, false]).await;
}

#[rstest]
#[tokio::test]
async fn what_is_said_again_is_passed_on_now_and_then(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (typer, reader) = (house.connect(ann).await, house.connect(bob).await);
    for _ in 0..20 {
        type_in(&typer, &room, true).await;
    }
    reader.event("typing", |_| true).await;
    for _ in 0..4 {
        // What is told at most every three seconds, told for five and a bit.
        house.engine.clock.shift(1_300);
        tokio::time::sleep(Duration::from_millis(600)).await;
        type_in(&typer, &room, true).await;
    }
    tokio::time::sleep(QUIET).await;
    let told = words(&reader);
    assert!((2..=4).contains(&told.len()) && told.iter().all(|is_typing| *is_typing), "{told:?}");
    type_in(&typer, &room, false).await;
    type_in(&typer, &room, false).await;
    until(|| words(&reader).last() == Some(&false)).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(words(&reader).iter().filter(|is_typing| !**is_typing).count(), 1);
}

#[rstest]
#[tokio::test]
async fn who_has_said_it_or_was_removed_no_longer_types(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let id = house.room(&[ann, bob]).await;
    let room = id.to_string();
    let (reader, typer) = (house.connect(ann).await, house.connect(bob).await);
    type_in(&typer, &room, true).await;
    until(|| words(&reader) == [true]).await;
    typer.say(&room, "m1", "there").await;
    until(|| words(&reader) == [true, false]).await;
    let order: Vec<String> = reader.everything().into_iter().map(|(name, _)| name).skip(1).collect();
    assert_eq!(order, ["typing", "typing", "message.delivered"]);
    // At once again: what was published a moment ago counts no more.
    type_in(&typer, &room, true).await;
    until(|| words(&reader) == [true, false, true]).await;
    house.remove(ann, id, bob).await;
    until(|| words(&reader) == [true, false, true, false]).await;
}
