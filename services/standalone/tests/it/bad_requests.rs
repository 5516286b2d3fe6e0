//! Bad requests by HTTP: problems with a code, no detail of ours, and the server goes on.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::{Answer, Person, Socket};
use testkit::cluster::{System, SystemSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NOWHERE: &str = "018f0000-0000-7000-8000-000000000000";
const MIB: usize = 1024 * 1024;

/// Panics unless it is a problem document (RFC 9457) of that status and code.
fn assert_problem(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{what}: {}", answer.text);
    assert_eq!(answer.content_type, "application/problem+json", "{what}");
    assert_eq!(answer.body["status"], status, "{what}");
    for leak in ["panicked", ".rs:", "sqlx", "SELECT", "stack backtrace"] {
        assert!(!answer.text.contains(leak), "{what} shows {leak}: {}", answer.text);
    }
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn bad_requests_are_answered_with_a_problem_and_its_code(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob, eve] = system.people(["Alice", "Bob", "Eve"]).await;
    let room = alice.create_group(&[&bob]).await;
    bad_bodies(&alice).await;
    bad_fields(&alice, &bob, &room).await;
    bad_places(&alice, &eve, &room).await;
    bad_accounts(&system, &alice).await;
    bad_http(&system).await;
    assert!(upload(&system, &alice, 10 * MIB).await.starts_with("HTTP/1.1 413"), "ten megabytes");
    hostile_words(&system, &bob).await;
    assert_eq!(alice.history(&room).await, Vec::<Value>::new(), "nothing of all that was stored");
    system.assert_healthy();
}

async fn bad_bodies(alice: &Person) {
    let path = "/api/v1/conversations";
    for body in ["", "{", "hello", "[]", "null", "7", "{\"type\":", "\u{0}"] {
        let answer = alice.rest.call(Method::POST, path, Some(body.to_owned())).await;
        assert_problem(&answer, 400, "INVALID_PAYLOAD", body);
    }
    let deep = format!("{{\"type\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    assert_problem(&alice.rest.call(Method::POST, path, Some(deep)).await, 400, "INVALID_PAYLOAD", "deep nesting");
}

async fn bad_fields(alice: &Person, bob: &Person, room: &str) {
    for (field, form) in [
        ("type", json!({"memberIds": [bob.id]})),
        ("type", json!({"type": "crowd", "memberIds": [bob.id]})),
        ("memberIds", json!({"type": "group", "memberIds": "bob"})),
        ("memberIds", json!({"type": "group", "memberIds": ["bob"]})),
        ("memberIds", json!({"type": "direct", "memberIds": []})),
        ("memberIds", json!({"type": "direct", "memberIds": [bob.id, alice.id]})),
        ("memberIds", json!({"type": "group", "memberIds": vec![NOWHERE; 1001]})),
        ("title", json!({"type": "group", "title": "x".repeat(201), "memberIds": [bob.id]})),
        ("title", json!({"type": "group", "title": 7, "memberIds": [bob.id]})),
    ] {
        let shown: String = form.to_string().chars().take(120).collect();
        let answer = alice.rest.post("/api/v1/conversations", form).await;
        assert_problem(&answer, 400, "INVALID_PAYLOAD", &shown);
        assert!(answer.body["field"].as_str().is_some_and(|named| named.starts_with(field)), "{}", answer.text);
    }
    let messages = format!("/api/v1/conversations/{room}/messages");
    for form in [json!({}), json!({"content": ""}), json!({"content": 7, "clientMsgId": "x"}), json!({"content": "x"})]
    {
        assert_problem(&alice.rest.post(&messages, form.clone()).await, 400, "INVALID_PAYLOAD", &form.to_string());
    }
    for content in ["x".repeat(16 * 1024 + 1), "x".repeat(MIB)] {
        let answer = alice.rest.post(&messages, json!({"content": content, "clientMsgId": "big"})).await;
        assert_problem(&answer, 413, "TOO_LARGE", "large content");
    }
    for query in ["limit=0", "limit=201", "limit=x", "limit=-1", "before=x", "after=1%20OR%201=1", "before=1&after=1"] {
        let answer = alice.rest.get(&format!("{messages}?{query}")).await;
        assert_problem(&answer, 400, "INVALID_PAYLOAD", query);
    }
}

async fn bad_places(alice: &Person, eve: &Person, room: &str) {
    for place in [room, NOWHERE] {
        let base = format!("/api/v1/conversations/{place}");
        let message = json!({"content": "x", "clientMsgId": "x"});
        let add = json!({"userIds": [eve.id]});
        for (what, answer) in [
            ("look", eve.rest.get(&base).await),
            ("history", eve.rest.get(&format!("{base}/messages")).await),
            ("send", eve.rest.post(&format!("{base}/messages"), message).await),
            ("members", eve.rest.get(&format!("{base}/members")).await),
            ("join", eve.rest.post(&format!("{base}/members"), add).await),
            ("kick", eve.rest.delete(&format!("{base}/members/{}", alice.id)).await),
        ] {
            assert_problem(&answer, 404, "NOT_FOUND", what);
        }
    }
    for id in ["x", "%27%20OR%201=1%20--", "..%2f..%2fetc%2fpasswd", "00000000000000000000000000000001"] {
        let answer = alice.rest.get(&format!("/api/v1/conversations/{id}")).await;
        assert_problem(&answer, 400, "INVALID_PAYLOAD", id);
    }
    assert_eq!(alice.rest.get("/api/v1/no/such/thing").await.status, 404);
    assert_eq!(alice.rest.delete("/api/v1/users/me").await.status, 405);
    assert!(eve.rest.get("/api/v1/conversations").await.expect(200)["items"].as_array().unwrap().is_empty());
}

async fn bad_accounts(system: &System, alice: &Person) {
    let nobody = system.rest();
    let good = json!({"email": "new@example.org", "password": Person::PASSWORD, "firstName": "New", "lastName": "One"});
    for (field, value) in [
        ("email", json!("")),
        ("email", json!("x")),
        ("email", json!("a@b")),
        ("email", json!(7)),
        ("email", json!("a b@c.de")),
        ("password", json!("short")),
        ("password", json!("x".repeat(257))),
        ("password", json!(null)),
        ("firstName", json!("")),
        ("firstName", json!("x".repeat(101))),
        ("lastName", json!("a\nb")),
        ("lastName", json!([])),
    ] {
        let mut form = good.clone();
        form[field] = value.clone();
        let answer = nobody.post("/api/v1/auth/register", form).await;
        assert_problem(&answer, 400, "INVALID_PAYLOAD", &format!("{field} {value}"));
        assert_eq!(answer.body["field"], field);
    }
    let taken =
        json!({"email": alice.email.to_uppercase(), "password": Person::PASSWORD, "firstName": "A", "lastName": "B"});
    assert_problem(&nobody.post("/api/v1/auth/register", taken).await, 409, "CONFLICT", "a taken address");
    for (email, password) in
        [(alice.email.as_str(), "wrong password"), ("nobody@example.org", Person::PASSWORD), ("' OR 1=1 --", "x")]
    {
        let answer = nobody.post("/api/v1/auth/login", json!({"email": email, "password": password})).await;
        assert!(matches!(answer.status, 400 | 401), "{email}: {}", answer.text);
    }
    // A refresh token is good once; used again, it ends its whole family.
    let refresh = async |token: &str| nobody.post("/api/v1/auth/refresh", json!({"refreshToken": token})).await;
    let next = refresh(&alice.refresh_token).await.expect(200)["refreshToken"].as_str().unwrap().to_owned();
    assert_problem(&refresh(&alice.refresh_token).await, 401, "UNAUTHENTICATED", "a reused refresh token");
    assert_problem(&refresh(&next).await, 401, "UNAUTHENTICATED", "its successor");
    assert_problem(&refresh("nonsense").await, 401, "UNAUTHENTICATED", "no refresh token");
}

/// Sends a body of that size and reads meanwhile: who refuses it need not take it all first.
async fn upload(system: &System, person: &Person, bytes: usize) -> String {
    let stream = TcpStream::connect(("127.0.0.1", system.api().port())).await.unwrap();
    let (mut source, mut sink) = stream.into_split();
    let head = format!(
        "POST /api/v1/conversations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n",
        person.token
    );
    let send = async {
        sink.write_all(head.as_bytes()).await?;
        sink.write_all(&vec![b'x'; bytes]).await
    };
    let mut answer = Vec::new();
    let (written, received) = tokio::join!(send, source.read_to_end(&mut answer));
    // Either may end early: the refusal comes before the end of the body.
    drop((written, received));
    String::from_utf8_lossy(&answer).into_owned()
}

/// SQL and HTML are words like others: they come back byte for byte.
async fn hostile_words(system: &System, bob: &Person) {
    for words in ["'; DROP TABLE users; --", "<script>alert(1)</script>", "\" OR \"\"=\"", "%s%n{{7*7}}"] {
        let mallory = Person::register(&system.rest(), "Mallory").await;
        let form = json!({"type": "group", "title": words, "memberIds": [bob.id]});
        let room = mallory.rest.post("/api/v1/conversations", form).await.expect(201);
        assert_eq!(room["title"], words);
        let path = format!("/api/v1/conversations/{}", room["id"].as_str().unwrap());
        assert_eq!(mallory.rest.get(&path).await.expect(200)["title"], words);
        let email = format!("{}@example.org", domain::UserId::generate());
        let form = json!({"email": email, "password": words, "firstName": words, "lastName": words});
        let user = system.rest().post("/api/v1/auth/register", form).await.expect(201);
        let me =
            system.rest().with_token(user["accessToken"].as_str().unwrap()).get("/api/v1/users/me").await.expect(200);
        assert_eq!((&me["firstName"], &me["lastName"]), (&json!(words), &json!(words)));
        system.rest().post("/api/v1/auth/login", json!({"email": email, "password": words})).await.expect(200);
    }
}

/// Bytes that are no HTTP, and upgrades to what is not there.
async fn bad_http(system: &System) {
    for node in [system.gateway(0), system.api()] {
        for bytes in
            [&b"\0\0\0\0\xff\xff\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]
        {
            let mut stream = TcpStream::connect(("127.0.0.1", node.port())).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
                "{answer}"
            );
        }
    }
    let gateway = system.gateway(0).url();
    let unknown = [("sec-websocket-protocol", "chatchit.v9.xml")];
    let error = Socket::try_open(&gateway, "/ws", &unknown).await.expect_err("an unknown subprotocol");
    assert!(error.to_string().contains("400"), "{error}");
    assert_eq!(testkit::client::Rest::new(&gateway).get("/ws").await.status / 100, 4, "no upgrade asked for");
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let system = SystemSpec::all_in_one().env("LIMIT_LOGINS_PER_MIN", "5").start().await;
    let [alice] = system.people(["Alice"]).await;
    let mut refused = None;
    for _ in 0..12 {
        let form = json!({"email": alice.email, "password": "a guess"});
        let answer = system.rest().post("/api/v1/auth/login", form).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_problem(&answer, 401, "UNAUTHENTICATED", "a guess");
    }
    let refused = refused.expect("twelve guesses are too many");
    assert_problem(&refused, 429, "RATE_LIMITED", "too many guesses");
    assert!(refused.retry_after_s.is_some() && refused.body["retryAfterMs"].is_number(), "{}", refused.text);
}
