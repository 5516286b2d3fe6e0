//! Tokens that must not let anybody in, at every entrance.

use rstest::rstest;
use serde_json::json;
use testkit::client::{Person, Socket, token};
use testkit::cluster::{SECRET, System, SystemSpec};

fn bad_tokens(person: &Person) -> Vec<(&'static str, String)> {
    let good = json!({"sub": person.id, "iat": token::now_s(), "exp": token::now_s() + 3600});
    let genuine = token::mint(SECRET, &person.id, 3600);
    let (body, signature) = genuine.rsplit_once('.').unwrap();
    vec![
        ("no token at all", "nonsense".to_owned()),
        ("expired", token::mint(SECRET, &person.id, -1)),
        ("another secret", token::mint("another secret that is long enough", &person.id, 3600)),
        ("alg none", token::sign(SECRET, "none", &good)),
        ("alg None", token::sign(SECRET, "None", &good)),
        ("another algorithm", token::sign(SECRET, "HS384", &good)),
        ("an algorithm with public keys", token::sign(SECRET, "RS256", &good)),
        ("no signature", format!("{body}.")),
        ("half a signature", format!("{body}.{}", &signature[..20])),
        ("no expiry", token::sign(SECRET, "HS256", &json!({"sub": person.id, "iat": token::now_s()}))),
        ("no subject", token::sign(SECRET, "HS256", &json!({"exp": token::now_s() + 3600}))),
        ("a subject that is no id", token::mint(SECRET, "' OR 1=1 --", 3600)),
        ("a subject that nobody is", token::mint(SECRET, "018f0000-0000-7000-8000-000000000000", 3600)),
        ("ten kilobytes", "x".repeat(10_000)),
    ]
}

async fn assert_kept_out(system: &System, path: &str, what: &str, first_frame: Option<String>) {
    let socket = Socket::open(&system.gateway(0).url(), path).await;
    if let Some(frame) = first_frame {
        socket.text(frame).await.unwrap();
    }
    let closed = socket.closed().await;
    assert_eq!(closed, Some((4401, "UNAUTHENTICATED".to_owned())), "{what}");
    assert!(socket.events("session.ready").is_empty(), "{what}");
}

async fn check_all(system: &System) {
    let [alice] = system.people(["Alice"]).await;
    for (what, token) in bad_tokens(&alice) {
        let frame = json!({"event": "auth", "data": {"token": token}}).to_string();
        assert_kept_out(system, "/ws", what, Some(frame)).await;
        let query = token.replace(' ', "%20").replace('\'', "%27");
        assert_kept_out(system, &format!("/chat?token={query}"), what, None).await;
        let header = format!("Bearer {token}");
        let socket = Socket::try_open(&system.gateway(0).url(), "/ws", &[("authorization", &header)]).await.unwrap();
        assert_eq!(socket.closed().await, Some((4401, "UNAUTHENTICATED".to_owned())), "{what}");
        let answer = alice.rest.with_token(&token).get("/api/v1/users/me").await;
        assert_eq!((answer.status, answer.code()), (401, "UNAUTHENTICATED"), "{what}: {}", answer.text);
        assert_eq!(answer.content_type, "application/problem+json", "{what}");
    }
    // Something else first, or nothing for too long.
    let empty = Some(json!({"event": "auth", "data": {"token": ""}}).to_string());
    let something_else = Some(json!({"event": "ping"}).to_string());
    tokio::join!(
        assert_kept_out(system, "/ws", "an empty token", empty),
        assert_kept_out(system, "/ws", "another first frame", something_else),
        assert_kept_out(system, "/ws", "silence", None),
    );
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn no_bad_token_lets_anybody_in(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    check_all(&system).await;
    system.assert_healthy();
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn a_token_that_expires_ends_its_connection_and_a_refreshed_one_does_not(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice] = system.people(["Alice"]).await;
    let open = async |lifetime_s| {
        let token = token::mint(SECRET, &alice.id, lifetime_s);
        let socket = Socket::open(&system.gateway(0).url(), &format!("/ws?token={token}")).await;
        socket.event("session.ready", |_| true).await;
        socket
    };
    let (short, refreshed) = tokio::join!(open(3), open(3));
    short.event("auth.expiring", |data| data["expiresAt"].is_string()).await;
    let ack = refreshed.request("auth.refresh", json!({"token": alice.token})).await;
    assert_eq!(ack["status"], "OK", "{ack}");
    assert!(ack["expiresAt"].is_string());
    assert_eq!(short.closed().await, Some((4401, "UNAUTHENTICATED".to_owned())));
    assert_eq!(
        refreshed.request("presence.query", json!({"userIds": [alice.id]})).await["users"][0]["userId"],
        alice.id.as_str()
    );
    assert!(refreshed.is_open());
}

#[rstest]
#[case::on_another_gateway(SystemSpec::distributed(2, 1))]
#[case::on_the_same_gateway(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn a_second_connection_of_a_device_replaces_the_first(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice] = system.people(["Alice"]).await;
    let path = format!("/ws?token={}&deviceId=phone", alice.token);
    let first = Socket::open(&system.gateway(0).url(), &path).await;
    assert_eq!(first.event("session.ready", |_| true).await["deviceId"], "phone");
    let tablet = alice.connect(system.gateway(0)).await;
    let second = Socket::open(&system.gateway(1).url(), &path).await;
    second.event("session.ready", |_| true).await;
    assert_eq!(first.closed().await.map(|closed| closed.0), Some(4409));
    for still_there in [&second, &tablet] {
        assert!(still_there.request("ping", json!({})).await["serverTime"].is_string());
    }
    system.assert_healthy();
}
