//! A hundred days later: what is not kept any more is said to be missing, and what comes that late is not
//! applied.

use std::time::Duration;

use domain::Timestamp;
use serde_json::{Value, json};
use testkit::client::Socket;
use testkit::cluster::{SystemSpec, hmac_key};
use testkit::{PATIENCE, until};

use crate::dead_letters::{header, keyring, letters, publish_with, sealed_at};
use crate::scene::{all_events, dead_letters, settled, until_metric};

const DAY_S: i64 = 86_400;

async fn by_rev(socket: &Socket, room: &str, after: i64) -> Value {
    let answer = socket.request("sync", json!({"rooms": [{"roomId": room, "afterRev": after}]})).await;
    answer["rooms"][0].clone()
}

#[tokio::test]
async fn what_happened_a_hundred_days_ago_is_removed_and_whoever_asks_for_it_is_told_so() {
    let system = SystemSpec::distributed(1, 1).start().await;
    let [ann, ben] = system.people(["Ann", "Ben"]).await;
    let room = ann.create_group(&[&ben]).await;
    let socket = ann.connect(system.gateway(0)).await;
    let cursor = ann.rest.get("/api/v1/sync").await.expect(200)["cursor"].as_str().unwrap().to_owned();
    for number in 0..5 {
        assert_eq!(socket.say(&room, &format!("m{number}"), "hello").await["status"], "QUEUED");
    }
    settled(&ben, &room, 5).await;
    assert_eq!(all_events(&socket, &room).await.len(), 6);

    // For the next processor a hundred days have passed. What the logs of Redis hold ends after minutes.
    assert!(system.processors[0].terminate(Duration::from_secs(20)).await.success());
    let later = system.spec("processor", 100 * DAY_S).start().await;
    until_metric(&later, "chat_pruned_total", &["what=\"room_events\""], 5.0).await;
    system.redis().command("FLUSHALL").await.unwrap();
    let old = json!({"roomId": room, "code": "TOO_OLD", "lastSeq": 5, "rev": 6});
    assert_eq!(by_rev(&socket, &room, 0).await, old);
    assert_eq!(by_rev(&socket, &room, 4).await, old);
    let newest = by_rev(&socket, &room, 5).await;
    assert_eq!((newest["items"].as_array().map(Vec::len), &newest["complete"]), (Some(1), &json!(true)), "{newest}");
    let answer = socket.request("sync", json!({"rooms": [{"roomId": room, "afterSeq": 0}]})).await;
    assert_eq!(answer["rooms"][0]["items"].as_array().map(Vec::len), Some(5), "messages are kept");
    let polled = ann.rest.get(&format!("/api/v1/sync?timeoutMs=0&cursor={cursor}")).await;
    assert_eq!((polled.status, polled.code()), (410, "TOO_OLD"), "{}", polled.text);

    // For it what a gateway accepts now is a hundred days old, too.
    assert_eq!(socket.say(&room, "late", "hello").await["status"], "QUEUED");
    until(PATIENCE, || async { !dead_letters(&system).await.is_empty() }).await;
    let letter = dead_letters(&system).await.remove(0);
    assert_eq!(header(&letter, "x-cause"), "too_old");
    until_metric(&later, "chat_dead_letters_total", &["cause=\"too_old\""], 1.0).await;
    assert_eq!(ben.history(&room).await.len(), 5, "it was not applied");

    // One that lives in our days applies it when it is moved back.
    assert!(later.terminate(Duration::from_secs(20)).await.success());
    system.processors[0].start_again().await;
    system.management().shovel("chat.events.dlq", "chat.events", header(&letter, "x-original-routing-key")).await;
    assert_eq!(settled(&ben, &room, 6).await[5]["clientMsgId"], "late");
    system.assert_healthy();
}

#[tokio::test]
async fn an_event_older_than_receipts_are_kept_is_never_applied_however_often_it_is_moved_back() {
    let system = SystemSpec::distributed(1, 1).start().await;
    let [ann, ben] = system.people(["Ann", "Ben"]).await;
    let room = ann.create_group(&[&ben]).await;
    let (keys, now) = (keyring(&hmac_key("k1")), runtime::Clock::system().now());
    let days_ago = |days: i64| Timestamp(now.0 - days * DAY_S * 1000);
    publish_with(&system, &sealed_at(days_ago(91), &keys, &ann, &room, "too old"), 8).await;
    let letter = letters(&system, 1).await.remove(0);
    assert_eq!(header(&letter, "x-cause"), "too_old");
    assert_eq!(letter["properties"]["correlation_id"], "too old");
    publish_with(&system, &sealed_at(days_ago(89), &keys, &ann, &room, "old"), 8).await;
    settled(&ben, &room, 1).await;

    system.management().shovel("chat.events.dlq", "chat.events", header(&letter, "x-original-routing-key")).await;
    until_metric(&system.processors[0], "chat_dead_letters_total", &["cause=\"too_old\""], 2.0).await;
    assert_eq!(letters(&system, 1).await.len(), 1);
    let history = settled(&ben, &room, 1).await;
    assert_eq!((history.len(), &history[0]["clientMsgId"]), (1, &json!("old")));
    system.assert_healthy();
}
