//! What reaches the broker without having passed a gateway, and what operators do with dead letters.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::{Class, JobId, MessageId, RoomId, Timestamp, UserId};
use protocol::envelope::NewEvent;
use protocol::wire::MessageSend;
use protocol::{Change, Keyring, SignedEnvelope};
use serde_json::{Value, json};
use testkit::client::Person;
use testkit::cluster::{System, SystemSpec, hmac_key};
use testkit::until;

use crate::scene::{SHARDS, all_events, dead_letters, settled};

/// Far less than the first step of the ladder and its way would take three times.
const AT_ONCE: Duration = Duration::from_secs(5);

pub(crate) fn keyring(keys: &str) -> Keyring {
    Keyring::parse(keys).unwrap()
}

/// A message as a gateway with these keys would have published it.
pub(crate) fn sealed(keys: &Keyring, sender: &Person, room: &str, name: &str) -> SignedEnvelope {
    sealed_at(runtime::Clock::system().now(), keys, sender, room, name)
}

/// The same, accepted at that time.
pub(crate) fn sealed_at(
    accepted_at: Timestamp,
    keys: &Keyring,
    sender: &Person,
    room: &str,
    name: &str,
) -> SignedEnvelope {
    let (actor, room_id) = (sender.id.parse::<UserId>().unwrap(), room.parse::<RoomId>().unwrap());
    let send = MessageSend {
        room_id: room.to_owned(),
        content: format!("this is {name}"),
        client_msg_id: name.to_owned(),
        ..Default::default()
    };
    let event = NewEvent {
        job_id: JobId::from(MessageId::of(actor, name)),
        room_id,
        actor,
        device_id: "test".to_owned(),
        accepted_at,
        correlation_id: Some(name.to_owned()),
        traceparent: None,
        change: Change::MessageSend(send),
    };
    SignedEnvelope::seal(event, keys)
}

fn routing_key(envelope: &SignedEnvelope) -> String {
    format!("{}.{:02}", Class::High, domain::shard::shard_of(envelope.shard_key, SHARDS))
}

/// Publishes it as somebody with access to the broker can.
pub(crate) async fn publish(system: &System, envelope: &SignedEnvelope) {
    publish_with(system, envelope, 8).await;
}

/// The same under any priority.
pub(crate) async fn publish_with(system: &System, envelope: &SignedEnvelope, priority: u8) {
    let properties = json!({
        "delivery_mode": 2, "message_id": envelope.job_id.to_string(), "type": envelope.kind.as_str(),
        "timestamp": envelope.timestamp_s, "priority": priority, "content_type": protocol::envelope::CONTENT_TYPE,
        "correlation_id": envelope.correlation_id, "app_id": "test",
        "headers": {"x-signature": envelope.signature, "x-key-id": envelope.key_id, "x-attempt": 0},
    });
    let body = STANDARD.encode(&envelope.body);
    let routed = system.management().publish("chat.events", &routing_key(envelope), &properties, &body).await;
    assert!(routed, "the exchange and the queue are there");
}

/// Turns a byte of the content.
pub(crate) fn tampered(mut envelope: SignedEnvelope) -> SignedEnvelope {
    let mut body = envelope.body.to_vec();
    let content = body.windows(7).position(|bytes| bytes == b"this is").unwrap();
    body[content] = b'T';
    envelope.body = body.into();
    envelope
}

/// A key of the same id as ours that is not ours.
fn impostor_keys() -> Keyring {
    keyring(&format!("k1:{}", STANDARD.encode([7; 40])))
}

pub(crate) fn header<'a>(letter: &'a Value, name: &str) -> &'a str {
    letter["properties"]["headers"][name].as_str().unwrap_or_else(|| panic!("no header {name} in {letter}"))
}

pub(crate) async fn letters(system: &System, count: usize) -> Vec<Value> {
    until(AT_ONCE, || async { dead_letters(system).await.len() >= count }).await;
    dead_letters(system).await
}

#[tokio::test]
async fn forged_events_are_dead_letters_at_once_and_are_never_applied() {
    let system = SystemSpec::distributed(1, 2).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let witness = bob.connect(system.gateway(0)).await;
    let ours = keyring(&hmac_key("k1"));

    let another_event =
        SignedEnvelope { body: sealed(&ours, &bob, &room, "other").body, ..sealed(&ours, &alice, &room, "swapped") };
    let forgeries = [
        ("bad_signature", tampered(sealed(&ours, &alice, &room, "tampered"))),
        ("bad_signature", sealed(&impostor_keys(), &alice, &room, "impostor")),
        ("unknown_key", sealed(&keyring(&hmac_key("k9")), &alice, &room, "stranger")),
        ("bad_signature", another_event),
        ("bad_signature", SignedEnvelope { body: "not an event".into(), ..sealed(&ours, &alice, &room, "garbage") }),
    ];
    for (_, forgery) in &forgeries {
        publish(&system, forgery).await;
    }
    let letters = letters(&system, forgeries.len()).await;
    for (cause, forgery) in &forgeries {
        let id = forgery.job_id.to_string();
        let letter = letters.iter().find(|letter| letter["properties"]["message_id"] == id.as_str());
        let letter = letter.unwrap_or_else(|| panic!("{cause} is no dead letter"));
        assert!(!header(letter, "x-error").is_empty());
        assert_eq!((header(letter, "x-cause"), header(letter, "x-kind")), (*cause, "never"));
        assert_eq!(header(letter, "x-original-routing-key"), routing_key(forgery));
        assert_eq!(header(letter, "x-original-queue"), format!("chat.events.{}", routing_key(forgery)));
        assert!(header(letter, "x-first-failed-at").ends_with('Z'));
        assert_eq!(header(letter, "x-signature"), forgery.signature, "as it came");
        assert_eq!(letter["payload"], STANDARD.encode(&forgery.body).as_str(), "as it came");
    }
    let readable = letters.iter().find(|letter| letter["properties"]["correlation_id"] == "impostor").unwrap();
    let words = readable["properties"]["headers"].to_string();
    assert!(words.contains("this is impostor") && words.contains(&alice.id) && words.contains(&room), "{words}");

    for (cause, count) in [("bad_signature", 4.0), ("unknown_key", 1.0)] {
        let mut counted = 0.0;
        for processor in &system.processors {
            counted += processor.metric("chat_dead_letters_total", &[&format!("cause=\"{cause}\"")]).await;
        }
        assert!((counted - count).abs() < 0.5, "{cause} is counted: {counted}");
    }

    // The next genuine one is the first in the room: none of them was applied, none of them is in its way.
    publish(&system, &sealed(&ours, &alice, &room, "genuine")).await;
    let history = settled(&bob, &room, 1).await;
    assert_eq!((history.len(), &history[0]["content"]), (1, &Value::from("this is genuine")));
    witness.event("message.delivered", |message| message["seq"] == 1).await;
    assert_eq!(all_events(&witness, &room).await.len(), 2);
    system.assert_healthy();
}

#[tokio::test]
async fn a_dead_letter_that_is_moved_back_by_hand_is_processed() {
    let mut system = SystemSpec::distributed(1, 1).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let witness = bob.connect(system.gateway(0)).await;

    // Signed with a key that the processors were not given yet.
    let early = [
        sealed(&keyring(&hmac_key("k2")), &alice, &room, "by shovel"),
        sealed(&keyring(&hmac_key("k2")), &alice, &room, "by hand"),
    ];
    for event in &early {
        publish(&system, event).await;
        let name = event.correlation_id.clone().unwrap();
        until(AT_ONCE, || async {
            dead_letters(&system).await.iter().any(|letter| letter["properties"]["correlation_id"] == name.as_str())
        })
        .await;
    }
    system.set_env("HMAC_KEYS", &format!("{},{}", hmac_key("k1"), hmac_key("k2")));
    let processor = &system.processors[0];
    assert!(processor.terminate(Duration::from_secs(20)).await.success());
    processor.start_again().await;

    let letters = dead_letters(&system).await;
    let letter = letters.iter().find(|letter| letter["properties"]["correlation_id"] == "by hand").unwrap();
    let back_to = header(letter, "x-original-routing-key").to_owned();
    let payload = letter["payload"].as_str().unwrap();
    assert!(system.management().publish("chat.events", &back_to, &letter["properties"], payload).await);
    settled(&bob, &room, 1).await;
    // The shovel moves both; the one that was stored already is a duplicate and stays one message.
    system.management().shovel("chat.events.dlq", "chat.events", &back_to).await;
    let history = settled(&bob, &room, 2).await;
    let contents: Vec<&Value> = history.iter().map(|item| &item["content"]).collect();
    assert_eq!(contents, ["this is by hand", "this is by shovel"]);
    for seq in 1..=2 {
        witness.event("message.delivered", |message| message["seq"] == seq).await;
    }
    until(AT_ONCE, || async { dead_letters(&system).await.is_empty() }).await;
    assert_eq!(settled(&bob, &room, 2).await.len(), 2);
    system.assert_healthy();
}

#[tokio::test]
async fn rights_are_judged_again_when_an_event_is_stored() {
    let system = SystemSpec::distributed(1, 1).start().await;
    let [alice, bob, eve] = system.people(["Alice", "Bob", "Eve"]).await;
    let room = alice.create_group(&[&bob]).await;
    let (witness, outsider) = (bob.connect(system.gateway(0)).await, eve.connect(system.gateway(0)).await);
    // As if she had been a member when a gateway accepted it.
    let event = sealed(&keyring(&hmac_key("k1")), &eve, &room, "too late");
    publish(&system, &event).await;
    let failed = outsider.event("message.failed", |_| true).await;
    assert_eq!(failed["messageId"], event.job_id.to_string());
    assert_eq!((&failed["clientMsgId"], &failed["roomId"]), (&Value::from("too late"), &Value::from(room.as_str())));
    assert!(matches!(failed["code"].as_str(), Some("NOT_FOUND" | "FORBIDDEN")), "{failed}");
    assert!(bob.history(&room).await.is_empty());
    assert!(witness.events("message.delivered").is_empty() && witness.events("message.failed").is_empty());
    assert!(dead_letters(&system).await.is_empty(), "a refusal is an outcome, not a failure");
    system.assert_healthy();
}
