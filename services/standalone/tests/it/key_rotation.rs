//! Changing the signing keys of a running system.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::cluster::{System, SystemSpec, hmac_key};

use crate::scene::{Steady, assert_exactly_once, assert_order, dead_letters, settled};

const STOPS_WITHIN: Duration = Duration::from_secs(20);

/// Restarts every program that holds keys, one after another, with new ones.
async fn roll(system: &System, keys: &str) {
    let api = std::iter::once(system.api());
    let gateways = (0..2).map(|number| system.gateway(number));
    for node in api.chain(gateways).chain(&system.processors) {
        node.set_env("HMAC_KEYS", keys);
        let status = node.terminate(STOPS_WITHIN).await;
        assert!(status.success(), "{status}\n{}", node.log_tail());
        node.start_again().await;
    }
}

#[tokio::test]
async fn keys_are_rotated_under_load_and_nothing_is_lost() {
    let system = SystemSpec::distributed(2, 2).env("HMAC_KEYS", &hmac_key("old")).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let rotated = AtomicBool::new(false);
    let mut steady = Steady::new(&system, &alice);
    let talk = async {
        for number in 0.. {
            steady.say(number % 2, &room, &format!("message {number}")).await;
            if rotated.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let rotate = async {
        let (old, new) = (hmac_key("old"), hmac_key("new"));
        roll(&system, &format!("{old},{new}")).await; // all know the new one
        roll(&system, &format!("{new},{old}")).await; // all sign with it
        settled(&bob, &room, 1).await;
        roll(&system, &new).await; // the old one is gone
        rotated.store(true, Ordering::Relaxed);
    };
    tokio::join!(talk, rotate);
    let history = settled(&bob, &room, steady.sent.len()).await;
    assert_exactly_once(&history, &steady.sent);
    assert_order(&history, &alice.id, &steady.sent);
    assert!(dead_letters(&system).await.is_empty());

    let witness = bob.connect(system.gateway(1)).await;
    steady.say(0, &room, "with the new key").await;
    witness.event("message.delivered", |message| message["clientMsgId"] == "with the new key").await;
    for node in system.all() {
        let forged = node.try_metric("chat_deliveries_forged_total", &[]).await;
        assert_eq!(forged, Some(0.0), "{} takes no delivery for a forgery", node.label());
    }
    system.assert_healthy();
}
