//! Dead letters as an operator works on them, from the command line and by REST, while everything
//! runs; the same on both engines.

use std::time::Duration;

use futures_util::future::join_all;
use protocol::SignedEnvelope;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testkit::client::Person;
use testkit::cluster::{System, SystemSpec, hmac_key};
use testkit::until;

use crate::dead_letters::{keyring, publish, sealed, tampered};
use crate::scene::settled;

/// The ladder takes 31 s.
pub(crate) const GIVEN_UP_WITHIN: Duration = Duration::from_secs(90);
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What `chatchit deadletters …` printed, line by line, and its summary. Panics unless it went well.
async fn deadletters(system: &System, arguments: &[&str]) -> (Vec<Value>, String) {
    let arguments = [&["deadletters"], arguments].concat();
    let (status, out, err) = system.spec("chatchit", 0).run(&arguments).await;
    assert!(status.success(), "{arguments:?}: {err}");
    let lines = out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")));
    (lines.collect(), err)
}

pub(crate) async fn letters(system: &System, arguments: &[&str]) -> Vec<Value> {
    deadletters(system, &[&["list"], arguments].concat()).await.0
}

/// Panics unless the command's summary says so.
pub(crate) async fn told(system: &System, arguments: &[&str], words: &str) {
    let (_, summary) = deadletters(system, arguments).await;
    assert!(summary.contains(words), "{arguments:?}: {summary}");
}

fn id(letter: &Value) -> String {
    letter["id"].as_str().unwrap().to_owned()
}

/// A file of the all-in-one's folder.
async fn file(system: &System, name: &str) -> Option<SqliteConnection> {
    let folder = system.spec("chatchit", 0).env.get("DATA_DIR").cloned()?;
    let options = SqliteConnectOptions::new().filename(format!("{folder}/{name}")).busy_timeout(SOON);
    Some(SqliteConnection::connect_with(&options).await.unwrap())
}

/// Runs the statements of whichever database the system has.
pub(crate) async fn change_store(system: &System, postgres: &str, sqlite: &str) {
    if let Some(mut db) = file(system, "chat.db").await {
        sqlx::raw_sql(AssertSqlSafe(sqlite)).execute(&mut db).await.unwrap();
    } else {
        let url = system.spec("api", 0).env["DATABASE_URL"].clone();
        let mut db = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(postgres)).execute(&mut db).await.unwrap();
    }
}

/// From now on the database refuses messages with that word.
async fn curse(system: &System) {
    let postgres = "CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.content LIKE '%cursed%' THEN RAISE EXCEPTION 'no such words here'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER curse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION curse()";
    let sqlite = "CREATE TRIGGER curse BEFORE INSERT ON messages WHEN NEW.content LIKE '%cursed%'
        BEGIN SELECT RAISE(ABORT, 'no such words here'); END";
    change_store(system, postgres, sqlite).await;
}

async fn lift_the_curse(system: &System) {
    change_store(system, "DROP TRIGGER curse ON messages", "DROP TRIGGER curse").await;
}

/// An event that somebody else put into the broker.
async fn forge(system: &System, sender: &Person, room: &str, name: &str) {
    let event = tampered(sealed(&keyring(&hmac_key("k1")), sender, room, name));
    inject(system, event).await;
}

/// Puts an event into the broker past all gateways.
pub(crate) async fn inject(system: &System, event: SignedEnvelope) {
    let Some(mut db) = file(system, "queue.db").await else { return publish(system, &event).await };
    // The lane of messages: class high, priority 8.
    let sql = "INSERT INTO waiting (ready_at, lane, failures, job_id, kind, timestamp_s, key_id, signature, body)
        VALUES (0, 7, 0, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(sql).bind(event.job_id.to_string()).bind(event.kind.as_str());
    let query = query.bind(event.timestamp_s as i64).bind(event.key_id).bind(event.signature).bind(event.body.to_vec());
    query.execute(&mut db).await.unwrap();
}

pub(crate) async fn until_letters(system: &System, count: usize, limit: Duration) -> Vec<Value> {
    until(limit, || async { letters(system, &[]).await.len() == count }).await;
    letters(system, &[]).await
}

#[tokio::test]
async fn dead_letters_of_the_all_in_one_are_listed_shown_replayed_and_dropped_while_it_runs() {
    let system = SystemSpec::all_in_one().start().await;
    triage(&system).await;
}

#[tokio::test]
async fn dead_letters_of_separate_services_are_listed_shown_replayed_and_dropped_while_they_run() {
    let system = SystemSpec::distributed(1, 2).start().await;
    triage(&system).await;
}

async fn triage(system: &System) {
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let (socket, witness) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(0)).await);
    curse(system).await;
    for name in ["cursed 1", "cursed 2"] {
        assert_eq!(socket.say(&room, name, &format!("this is {name}")).await["status"], "QUEUED");
    }
    for name in ["forged 1", "forged 2"] {
        forge(system, &alice, &room, name).await;
    }
    let all = until_letters(system, 4, GIVEN_UP_WITHIN).await;
    let of = |cause: &str| all.iter().filter(|letter| letter["cause"] == cause).map(id).collect::<Vec<_>>();
    let (forged, cursed) = (of("bad_signature"), of("store_rejected"));
    assert_eq!((forged.len(), cursed.len()), (2, 2), "{all:?}");
    look(system, &alice, &room, &cursed).await;
    administrate(system, &alice, &bob, &all).await;

    lift_the_curse(system).await;
    told(system, &["replay", &cursed[0], "nonsense"], "1 dead letter replayed").await;
    settled(&bob, &room, 1).await;
    told(system, &["replay", &cursed[0]], "0 dead letters replayed").await;
    let replay = |which: Value| alice.rest.post("/api/v1/admin/dead-letters/replay", which);
    assert_eq!(replay(json!({"cause": "store_rejected"})).await.expect(200), json!({"count": 1}));
    let history = settled(&bob, &room, 2).await;
    assert_eq!(replay(json!({"cause": "store_rejected"})).await.expect(200), json!({"count": 0}));
    let names: Vec<&Value> = history.iter().map(|item| &item["clientMsgId"]).collect();
    assert!(names.contains(&&json!("cursed 1")) && names.contains(&&json!("cursed 2")), "{names:?}");
    assert_eq!(witness.delivered(&room, 2).await.len(), 2);

    // What nobody signed is given up each time it is tried, and nothing else comes of it.
    told(system, &["replay", "--cause", "bad_signature"], "2 dead letters replayed").await;
    until_letters(system, 2, SOON).await;
    assert_eq!(replay(json!({"all": true})).await.expect(200), json!({"count": 2}));
    until_letters(system, 2, SOON).await;
    told(system, &["replay", "--all"], "2 dead letters replayed").await;
    until_letters(system, 2, SOON).await;
    told(system, &["drop", &forged[0]], "1 dead letter dropped").await;
    told(system, &["drop", &forged[0]], "0 dead letters dropped").await;
    assert_eq!(letters(system, &[]).await.iter().map(id).collect::<Vec<_>>(), forged[1..]);
    let drop = |which: Value| alice.rest.post("/api/v1/admin/dead-letters/drop", which);
    assert_eq!(drop(json!({"ids": [forged[1], forged[0]]})).await.expect(200), json!({"count": 1}));
    assert_eq!(drop(json!({"all": true})).await.expect(200), json!({"count": 0}));
    assert!(letters(system, &[]).await.is_empty());
    assert_eq!(settled(&bob, &room, 2).await.len(), 2);
    system.assert_healthy();
}

/// What the command line shows of a message that the store rejected.
async fn look(system: &System, alice: &Person, room: &str, cursed: &[String]) {
    let shown = letters(system, &["--cause", "store_rejected", "--limit", "1", "--json"]).await;
    assert_eq!(shown.len(), 1);
    let letter = &shown[0];
    for (field, value) in [
        ("event", json!("message.send")),
        ("senderId", json!(alice.id)),
        ("roomId", json!(room)),
        ("cause", json!("store_rejected")),
        ("kind", json!("retry")),
        ("attempts", json!(4)),
        ("keyId", json!("k1")),
        ("body", Value::Null),
    ] {
        assert_eq!(letter[field], value, "{field} in {letter}");
    }
    assert!(letter["error"].as_str().unwrap().contains("no such words here"), "{letter}");
    assert!(letter["queue"].as_str().unwrap().starts_with("chat.events.high"), "{letter}");
    assert!(letter["firstFailedAt"].as_str() < letter["lastFailedAt"].as_str(), "{letter}");
    assert!(cursed.contains(&id(letter)));
    let (one, _) = deadletters(system, &["show", &cursed[1]]).await;
    assert!(one[0]["body"].as_str().unwrap().contains("this is cursed"), "{one:?}");
    let (status, out, err) = system.spec("chatchit", 0).run(&["deadletters", "show", "nonsense"]).await;
    assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{err}");
    assert!(err.contains("there is no dead letter nonsense"), "{err}");
}

/// What REST shows, and to whom.
async fn administrate(system: &System, alice: &Person, bob: &Person, all: &[Value]) {
    const LIST: &str = "/api/v1/admin/dead-letters";
    assert_eq!(system.rest().get(LIST).await.status, 401);
    assert_eq!(alice.rest.get(LIST).await.code(), "FORBIDDEN");
    let (status, out, err) = system.spec("chatchit", 0).run(&["admin", "grant", &alice.email]).await;
    assert!(status.success() && out.contains("\"role\":\"admin\""), "{out} {err}");
    until(SOON, || async { alice.rest.get(LIST).await.status == 200 }).await;
    let page = alice.rest.get(LIST).await.expect(200);
    assert_eq!(page["items"], json!(all), "the same as from the command line");
    let one = alice.rest.get(&format!("{LIST}/{}", id(&all[0]))).await.expect(200);
    assert!(one["body"].is_string(), "{one}");
    assert_eq!(bob.rest.get(LIST).await.code(), "FORBIDDEN", "everybody else");
}

#[tokio::test]
async fn an_all_in_one_that_was_stopped_processes_what_was_replayed_meanwhile() {
    let system = SystemSpec::all_in_one().start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    inject(&system, sealed(&keyring(&hmac_key("k2")), &alice, &room, "early")).await;
    until_letters(&system, 1, SOON).await;
    let node = system.gateway(0);
    assert!(node.terminate(Duration::from_secs(30)).await.success());
    told(&system, &["replay", "--cause", "unknown_key"], "1 dead letter replayed").await;
    told(&system, &["replay", "--cause", "unknown_key"], "0 dead letters replayed").await;
    node.set_env("HMAC_KEYS", &format!("{},{}", hmac_key("k1"), hmac_key("k2")));
    node.start_again().await;
    let history = settled(&bob, &room, 1).await;
    assert_eq!(history[0]["content"], "this is early");
}

#[tokio::test]
async fn a_request_drops_a_thousand_letters_and_says_whether_there_are_more() {
    /// One request drops or replays so many.
    const REACH: u64 = 1_000;
    let system = SystemSpec::distributed(1, 1).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let (status, _, err) = system.spec("chatchit", 0).run(&["admin", "grant", &alice.email]).await;
    assert!(status.success(), "{err}");
    let numbers: Vec<u64> = (0..=REACH).collect();
    for some in numbers.chunks(32) {
        let names: Vec<String> = some.iter().map(ToString::to_string).collect();
        join_all(names.iter().map(|name| forge(&system, &alice, &room, name))).await;
    }
    let management = system.management();
    let dead = async || management.queue_depths().await["chat.events.dlq"].messages_ready;
    until(GIVEN_UP_WITHIN, || async { dead().await == REACH + 1 }).await;
    inject(&system, sealed(&keyring(&hmac_key("k2")), &alice, &room, "behind them")).await;
    until(SOON, || async { dead().await == REACH + 2 }).await;

    let drop = |which: Value| alice.rest.post("/api/v1/admin/dead-letters/drop", which);
    assert_eq!(drop(json!({"cause": "unknown_key"})).await.expect(200), json!({"count": 1}), "behind all others");
    assert_eq!(drop(json!({"all": true})).await.expect(200), json!({"count": REACH, "more": true}));
    assert_eq!(drop(json!({"all": true})).await.expect(200), json!({"count": 1}));
    assert!(letters(&system, &[]).await.is_empty());
}
