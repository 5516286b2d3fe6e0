//! A client that stops reading while others talk.
//!
//! The invariant: it harms nobody, is told what became of it as soon as it reads on, and makes up
//! for the rest without gap.

use rstest::rstest;
use serde_json::json;
use testkit::cluster::SystemSpec;

use crate::sleeper::{Sleeper, talk_until_too_slow};

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn who_does_not_read_is_closed_as_too_slow_and_catches_up_without_gap(#[case] spec: SystemSpec) {
    let system = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    let room = alice.create_group(&[&bob, &carol]).await;
    let node = system.gateway(0);
    let (sender, listener) = (alice.connect(node).await, carol.connect(node).await);
    let mut slow = Sleeper::open(node, &bob.token).await;
    let said = talk_until_too_slow(node, &sender, &listener, &room).await as i64;
    let mut seqs = Vec::new();
    let code = loop {
        match slow.hear().await {
            Ok(event) => seqs.extend(event["data"]["seq"].as_i64()),
            Err(code) => break code,
        }
    };
    assert_eq!(code, Some(4508));
    let heard = seqs.len() as i64;
    assert!(heard < said, "it was closed before it had all");
    let back = bob.connect(node).await;
    loop {
        let ask = json!({"rooms": [{"roomId": room, "afterSeq": seqs.last().unwrap_or(&0)}]});
        let answer = back.request("sync", ask).await;
        let items = answer["rooms"][0]["items"].as_array().unwrap_or_else(|| panic!("{answer}"));
        seqs.extend(items.iter().map(|item| item["seq"].as_i64().unwrap()));
        if answer["rooms"][0]["complete"] == true {
            break;
        }
    }
    assert_eq!(seqs, (1..=said).collect::<Vec<_>>(), "live up to {heard}, then by sync");
    assert!(sender.is_open() && listener.is_open());
    system.assert_healthy();
}
