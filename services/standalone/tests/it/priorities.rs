//! What is urgent overtakes what waits.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::cluster::{SystemSpec, hmac_key};
use tokio::time::Instant;

use crate::dead_letters::{keyring, publish_with, sealed};
use crate::scene::{SLACK, dead_letters, settled};

/// Messages that wait in the one queue of their room.
const WAITING: usize = 10_000;
/// By the contract, with optimised programs.
const OUT_WITHIN: Duration = Duration::from_millis(100);

#[tokio::test]
async fn an_event_of_priority_ten_overtakes_ten_thousand_messages_that_wait() {
    let mut system = SystemSpec::distributed(1, 0).env("LIMIT_USER_EVENTS_PER_SEC", "0").start().await;
    let [ann, ben] = system.people(["Ann", "Ben"]).await;
    let room = ann.create_group(&[&ben]).await;
    let (socket, witness) = (ann.connect(system.gateway(0)).await, ben.connect(system.gateway(0)).await);
    for first in (0..WAITING).step_by(200) {
        let says = (first..first + 200).map(|number| {
            let (socket, room) = (&socket, &room);
            async move { socket.say(room, &format!("m{number}"), "waits").await }
        });
        let acks = join_all(says).await;
        assert!(acks.iter().all(|ack| ack["status"] == "QUEUED"), "{:?}", acks.last());
    }
    system.add_processor().await;
    witness.event("message.delivered", |_| true).await;

    // The start of a call will have this priority; until then a message shows it.
    let mut times = Vec::new();
    // Fewer than a second of them: the ten thousand are worked off meanwhile.
    for number in 0..3 {
        let name = format!("urgent {number}");
        let event = sealed(&keyring(&hmac_key("k1")), &ann, &room, &name);
        let published = Instant::now();
        publish_with(&system, &event, 10).await;
        let told = witness.event("message.delivered", |it| it["clientMsgId"] == name.as_str()).await;
        times.push(published.elapsed());
        assert!(told["seq"].as_u64().unwrap() < WAITING as u64, "it overtook nothing: {told}");
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < OUT_WITHIN + SLACK, "out after {times:?}");
    let history = settled(&ben, &room, WAITING + times.len()).await;
    let waited: Vec<&str> =
        history.iter().filter_map(|item| item["clientMsgId"].as_str()).filter(|name| name.starts_with('m')).collect();
    let sent: Vec<String> = (0..WAITING).map(|number| format!("m{number}")).collect();
    assert_eq!(waited, sent, "the others keep their order");
    assert!(dead_letters(&system).await.is_empty());
    system.assert_healthy();
}
