//! Causes of dead letters, each produced by what makes it: what operators are told of the event, that its
//! neighbours go on, and that replaying it helps once the cause is gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use domain::Cause;
use prost::Message as _;
use protocol::wire::Event;
use protocol::{Keyring, SignedEnvelope};
use rstest::rstest;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testkit::client::Socket;
use testkit::cluster::{System, SystemSpec, hmac_key};

use crate::dead_letters::{keyring, sealed};
use crate::scene::settled;
use crate::triage::{SOON, change_store, inject, letters, told, until_letters};

/// Four convictions of three attempts of 2.5 s each, and the ladder between them; twice that.
const TIMED_OUT_WITHIN: Duration = Duration::from_mins(2);

/// The system's own count of dead letters of a cause; panics when it does not have one.
async fn counted(system: &System, cause: Cause) -> f64 {
    let label = format!("cause=\"{cause}\"");
    let count = system.applier().try_metric("chat_dead_letters_total", &[&label]).await;
    count.unwrap_or_else(|| panic!("no count of {cause}"))
}

/// Waits until there are so many dead letters; panics unless all have that cause, its kind and its count.
async fn given_up(system: &System, cause: Cause, count: usize, limit: Duration) -> Vec<Value> {
    let all = until_letters(system, count, limit).await;
    for letter in &all {
        assert_eq!((&letter["cause"], &letter["kind"]), (&json!(cause.as_str()), &json!(cause.kind().as_str())));
        assert!(!letter["error"].as_str().unwrap().is_empty(), "{letter}");
    }
    let counted = counted(system, cause).await;
    assert!((counted - count as f64).abs() < 0.5, "{cause} is counted {counted} times");
    all
}

async fn say(socket: &Socket, room: &str, name: &str) -> String {
    let ack = socket.say(room, name, &format!("this is {name}")).await;
    assert_eq!(ack["status"], "QUEUED", "{ack}");
    ack["messageId"].as_str().unwrap().to_owned()
}

fn names(history: &[Value]) -> Vec<&str> {
    history.iter().map(|item| item["clientMsgId"].as_str().unwrap()).collect()
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn every_cause_is_counted_from_zero_so_that_alerts_see_the_first_one(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    for cause in Cause::ALL {
        assert!(counted(&system, cause).await < 0.5, "{cause}");
    }
}

/// The event with another body, under a signature that holds.
fn with_body(keys: &Keyring, event: SignedEnvelope, body: Vec<u8>) -> SignedEnvelope {
    let (job, time) = (event.job_id.to_string(), event.timestamp_s.to_be_bytes());
    let kind = event.kind.as_str().as_bytes();
    let parts: [&[u8]; 6] = [b"chat.v1.event", event.key_id.as_bytes(), job.as_bytes(), kind, &time, &body];
    let hex: Vec<String> = keys.sign(&parts).iter().map(|byte| format!("{byte:02x}")).collect();
    SignedEnvelope { signature: hex.concat(), body: body.into(), ..event }
}

/// The body of an event whose change this version has no field for.
fn of_a_newer_version(event: &SignedEnvelope) -> Vec<u8> {
    let mut body = Event { change: None, ..Event::decode(event.body.clone()).unwrap() }.encode_to_vec();
    // Field 99, three bytes.
    body.extend_from_slice(&[0x9a, 0x06, 3, b'n', b'e', b'w']);
    body
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn what_is_signed_and_cannot_be_read_is_given_up_at_once_and_its_neighbours_go_on(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let (room, other) = (alice.create_group(&[&bob]).await, alice.create_group(&[&bob]).await);
    let (socket, witness) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(0)).await);
    let keys = keyring(&hmac_key("k1"));
    let [newer, garbage] = ["newer", "garbage"].map(|name| sealed(&keys, &alice, &room, name));
    let unreadable = [
        with_body(&keys, newer.clone(), of_a_newer_version(&newer)),
        with_body(&keys, garbage, b"not an event".to_vec()),
    ];
    say(&socket, &room, "before").await;
    for event in &unreadable {
        inject(&system, event.clone()).await;
        say(&socket, &room, &format!("after {}", event.correlation_id.as_deref().unwrap())).await;
    }
    say(&socket, &other, "elsewhere").await;

    let all = given_up(&system, Cause::Undecodable, 2, SOON).await;
    for event in &unreadable {
        let id = event.job_id.to_string();
        let letter = all.iter().find(|letter| letter["id"] == id.as_str());
        assert_eq!(letter.unwrap_or_else(|| panic!("{id} in {all:?}"))["attempts"], 1, "never tried again");
    }
    let history = settled(&bob, &room, 3).await;
    assert_eq!(names(&history), ["before", "after newer", "after garbage"]);
    settled(&bob, &other, 1).await;
    assert_eq!(witness.delivered(&room, 3).await.len(), 3);
    assert!(witness.events("message.failed").is_empty() && socket.events("message.failed").is_empty());
    system.assert_healthy();
}

/// Sets the number of the room's last message, past all rules.
async fn number_messages_from(system: &System, room: &str, last_seq: i64) {
    let set = format!("UPDATE room_counters SET last_seq = {last_seq} WHERE room_id =");
    let hex = room.replace('-', "");
    change_store(system, &format!("{set} '{room}'"), &format!("{set} x'{hex}'")).await;
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1).env("QUEUE_SHARDS", "1"))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn an_event_whose_processing_panics_is_given_up_as_a_bug_and_its_neighbours_go_on(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let (room, other) = (alice.create_group(&[&bob]).await, alice.create_group(&[&bob]).await);
    let (socket, witness) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(0)).await);
    let first = say(&socket, &room, "first").await;
    settled(&bob, &room, 1).await;

    // Of no message can be said which number it has; everything else in the room is as it was.
    number_messages_from(&system, &room, i64::MAX).await;
    say(&socket, &other, "before").await;
    for name in ["doomed 1", "doomed 2"] {
        say(&socket, &room, name).await;
    }
    let edit = json!({"roomId": room, "messageId": first, "content": "edited meanwhile"});
    assert_eq!(socket.request("message.edit", edit).await["status"], "QUEUED");
    say(&socket, &other, "after").await;

    let all = given_up(&system, Cause::Panic, 2, SOON).await;
    assert!(all.iter().all(|letter| letter["attempts"] == 1 && letter["roomId"] == room.as_str()), "{all:?}");
    assert_eq!(names(&settled(&bob, &other, 2).await), ["before", "after"]);
    witness.event("message.edited", |edited| edited["content"] == "edited meanwhile").await;
    let log = system.applier().log();
    assert!(log.contains("an event became a dead letter by a bug"), "it should wake somebody");
    let judged = catch_unwind(AssertUnwindSafe(|| system.assert_healthy()));
    assert!(judged.is_err(), "a panic that was caught is one that a test must see");
    assert!(system.all().all(|node| node.ended().is_none()));

    number_messages_from(&system, &room, 1).await;
    told(&system, &["replay", "--cause", "panic"], "2 dead letters replayed").await;
    let history = settled(&bob, &room, 3).await;
    assert_eq!((names(&history)[0], history[0]["content"].as_str()), ("first", Some("edited meanwhile")));
    assert!(letters(&system, &[]).await.is_empty());
    witness.delivered(&room, 3).await;
}

#[tokio::test]
async fn an_event_that_never_ends_in_time_is_given_up_after_the_ladder_and_its_neighbours_go_on() {
    let system = SystemSpec::distributed(1, 1).env("QUEUE_SHARDS", "1").start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let (room, other) = (alice.create_group(&[&bob]).await, alice.create_group(&[&bob]).await);
    let (socket, witness) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(0)).await);
    let held = say(&socket, &room, "held").await;
    settled(&bob, &room, 1).await;
    // Somebody holds one message, and whoever would change it waits.
    let mut db = PgConnection::connect(&system.spec("api", 0).env["DATABASE_URL"]).await.unwrap();
    let lock = format!("BEGIN; SELECT 1 FROM messages WHERE message_id = '{held}' FOR UPDATE");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut db).await.unwrap();
    let edit = json!({"roomId": room, "messageId": held, "content": "edited late"});
    assert_eq!(socket.request("message.edit", edit).await["status"], "QUEUED");
    let mut said = 0;
    let talk = async {
        loop {
            for (place, where_to) in [(&room, "here"), (&other, "elsewhere")] {
                say(&socket, place, &format!("{where_to} {said}")).await;
            }
            said += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let all = tokio::select! {
        all = given_up(&system, Cause::TimedOut, 1, TIMED_OUT_WITHIN) => all,
        () = talk => unreachable!("it goes on and on"),
    };
    assert_eq!((&all[0]["event"], &all[0]["attempts"]), (&json!("message.edit"), &json!(4)), "{all:?}");
    assert!(all[0]["firstFailedAt"].as_str() < all[0]["lastFailedAt"].as_str(), "{all:?}");
    assert!(said > 20, "its neighbours were asked all the time: {said}");
    assert!(settled(&bob, &room, said).await.len() > said, "of its room");
    settled(&bob, &other, said).await;
    assert!(witness.events("message.edited").is_empty());

    sqlx::raw_sql("COMMIT").execute(&mut db).await.unwrap();
    told(&system, &["replay", "--all"], "1 dead letter replayed").await;
    witness.event("message.edited", |edited| edited["content"] == "edited late").await;
    assert!(letters(&system, &[]).await.is_empty());
    system.assert_healthy();
}
