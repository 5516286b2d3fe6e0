//! Typing that nobody ends, between real processes and by the clock on the wall.
//!
//! The invariant: whoever was told that somebody types is told once that it is over, in time,
//! whatever became of the typer's gateway.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::SystemSpec;
use tokio::time::Instant;

use crate::scene::SLACK;

/// From the last word on.
const ENDS_AFTER: Duration = Duration::from_secs(6);
/// The sweep and the way there.
const AT_MOST: Duration = Duration::from_millis(7_500);

async fn type_in(socket: &Socket, room: &str) {
    assert_eq!(socket.request("typing", json!({"roomId": room, "isTyping": true})).await["status"], "OK");
}

fn words(reader: &Socket, person: &Person) -> Vec<Value> {
    let words = reader.events("typing").into_iter();
    words.filter(|it| it["userId"] == person.id.as_str()).map(|it| it["isTyping"].clone()).collect()
}

/// How long after the last word it was said to be over.
async fn ended_after(reader: &Socket, person: &Person, last_word: Instant) -> Duration {
    reader.event("typing", |it| it["userId"] == person.id.as_str() && it["isTyping"] == false).await;
    last_word.elapsed()
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn typing_ends_once_and_in_time_also_when_the_typers_gateway_is_killed(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    let room = alice.create_group(&[&bob, &carol]).await;
    let reader = bob.connect(system.gateway(0)).await;
    let (here, there) = (alice.connect(system.gateway(0)).await, carol.connect(system.gateway(1)).await);
    type_in(&here, &room).await;
    type_in(&there, &room).await;
    for person in [&alice, &carol] {
        reader.event("typing", |it| it["userId"] == person.id.as_str()).await;
    }
    // Whoever goes on is not stopped by the first word's age.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let last_word = Instant::now();
    type_in(&here, &room).await;
    type_in(&there, &room).await;
    if system.is_distributed() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        system.gateway(1).kill9().await;
    }
    let (one, two) = tokio::join!(ended_after(&reader, &alice, last_word), ended_after(&reader, &carol, last_word));
    for took in [one, two] {
        assert!(took >= ENDS_AFTER && took < AT_MOST + SLACK, "{took:?}");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for person in [&alice, &carol] {
        let words = words(&reader, person);
        assert_eq!(words.iter().filter(|word| **word == false).count(), 1, "{words:?}");
        assert_eq!(words.last(), Some(&json!(false)));
    }
    if system.is_distributed() {
        system.gateway(1).start_again().await;
    }
    system.assert_healthy();
}
