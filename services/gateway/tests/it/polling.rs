//! The rules of polling: one poll and one body at a time, whole or not at all; going over to a
//! WebSocket; what is refused, in the words of Engine.IO; whose pages may poll.

use reqwest::Method;
use reqwest::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::house::{House, Raw};
use crate::poller::{Answer, OVER, PATH, Poller, ask};

const SOCKET_PATH: &str = "/socket.io/?EIO=4&transport=websocket";

async fn entered(house: &House) -> Poller {
    Poller::enter(house, house.user().await).await
}

async fn probe(house: &House, poller: &Poller) -> Raw {
    Raw::open(&house.base, &format!("{SOCKET_PATH}&sid={}", poller.sid)).await
}

/// A poller that has gone over, and its WebSocket.
async fn upgraded(house: &House) -> (Poller, Raw) {
    let poller = entered(house).await;
    let mut socket = probe(house, &poller).await;
    socket.say("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    socket.say("5").await;
    serves(&mut socket).await;
    (poller, socket)
}

async fn serves(socket: &mut Raw) {
    socket.say(r#"42/chat,1["ping"]"#).await;
    assert!(socket.json_after("43/chat,1").await[0]["serverTime"].is_string());
}

fn is_last_word(answer: &Answer) -> bool {
    (answer.status, answer.text.as_str()) == (200, "1")
}

#[tokio::test]
async fn a_second_poll_is_refused_and_ends_the_session() {
    let house = House::open().await;
    let poller = entered(&house).await;
    let (one, other) = tokio::join!(poller.poll(), poller.poll());
    let (refused, last) = if one.status == 400 { (one, other) } else { (other, one) };
    assert_eq!(refused.code(), Some(3));
    assert!(is_last_word(&last), "{last:?}");
    assert_eq!(poller.poll().await.code(), Some(OVER));
}

#[tokio::test]
async fn a_poll_that_is_broken_off_ends_the_session() {
    let house = House::open().await;
    let poller = entered(&house).await;
    drop(poller.begin("GET", "").await);
    poller.over().await;
}

#[tokio::test]
async fn a_second_body_is_refused_and_ends_the_session() {
    let house = House::open().await;
    let poller = entered(&house).await;
    let mut first = poller.begin("POST", "42/chat,[").await;
    // Until the first has come, the second is the only one.
    let refused = loop {
        let answer = poller.post("3").await;
        if answer.text != "ok" {
            break answer;
        }
    };
    assert_eq!(refused.code(), Some(3));
    assert!(poller.is_over().await);
    first.write_all("x".repeat(100).as_bytes()).await.expect("sent");
    let mut status = [0; 12];
    first.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 400");
}

#[tokio::test]
async fn a_body_that_is_broken_off_ends_the_session() {
    let house = House::open().await;
    let poller = entered(&house).await;
    let (last, ()) = tokio::join!(poller.poll(), async { drop(poller.begin("POST", "42/chat,[").await) });
    assert!(is_last_word(&last) || last.code() == Some(OVER), "{last:?}");
    assert!(poller.is_over().await);
}

#[rstest]
#[case::over_long("x".repeat(256 * 1024 + 1), 413, "TOO_LARGE", 4413)]
#[case::no_packets("hello".to_owned(), 400, "BAD_FRAME", 4400)]
#[case::no_packets_among_them("42/chat,[\"ping\"]\u{1e}".to_owned(), 400, "BAD_FRAME", 4400)]
#[tokio::test]
async fn a_body_that_breaks_the_rules_is_refused_once_the_client_was_told_why(
    #[case] body: String,
    #[case] status: u16,
    #[case] code: &str,
    #[case] close_code: i64,
) {
    let house = House::open().await;
    let mut poller = entered(&house).await;
    let poster = poller.clone();
    let mut refused = Box::pin(poster.post(body));
    let error = tokio::select! {
        biased;
        error = poller.json_after("42/chat,[\"error\",") => error,
        early = &mut refused => panic!("{early:?} before it was told"),
    };
    assert_eq!((&error["code"], &error["closeCode"]), (&json!(code), &json!(close_code)));
    assert_eq!(poller.next().await, "1");
    assert_eq!(refused.await.status, status);
    assert_eq!(poller.poll().await.code(), Some(OVER));
}

#[rstest]
#[case::over_long("x".repeat(256 * 1024 + 1), 413)]
#[case::no_packets("abc".to_owned(), 400)]
#[tokio::test]
async fn who_does_not_poll_is_refused_soon_and_the_session_is_over_by_then(#[case] body: String, #[case] status: u16) {
    let house = House::open().await;
    let poller = entered(&house).await;
    assert_eq!(poller.post(body).await.status, status);
    assert_eq!(poller.poll().await.code(), Some(OVER));
}

#[tokio::test]
async fn what_is_no_packet_of_socketio_is_told_before_the_end() {
    let house = House::open().await;
    let mut poller = entered(&house).await;
    poller.say("4hello").await;
    assert_eq!(poller.json_after("42/chat,[\"error\",").await["closeCode"], 4400);
    assert_eq!(poller.next().await, "1");
}

#[tokio::test]
async fn a_body_as_long_as_it_may_be_is_taken() {
    let house = House::open().await;
    let mut poller = entered(&house).await;
    let start = r#"42/chat,5["ping",""#;
    poller.say(&format!(r#"{start}{}"]"#, "x".repeat(256 * 1024 - start.len() - 2))).await;
    assert!(poller.json_after("43/chat,5").await[0]["serverTime"].is_string());
}

#[rstest]
#[case::that_says_something_else(Some("2hello"), false)]
#[case::that_goes_over_unasked(Some("5"), false)]
#[case::that_breaks_off(None, false)]
#[case::that_breaks_off_after_the_answer(Some("2probe"), true)]
#[tokio::test]
async fn after_a_probe_that_fails_polling_goes_on(#[case] said: Option<&str>, #[case] is_answered: bool) {
    let house = House::open().await;
    let mut poller = entered(&house).await;
    let mut socket = probe(&house, &poller).await;
    if let Some(said) = said {
        socket.say(said).await;
    }
    if is_answered {
        assert_eq!(socket.text().await, "3probe");
    } else if said.is_some() {
        assert!(matches!(socket.next().await, Some(Message::Close(_)) | None));
    }
    drop(socket);
    poller.assert_serves().await;
    // What was tried once may be tried again.
    let mut again = probe(&house, &poller).await;
    loop {
        again.say("2probe").await;
        match again.next().await {
            Some(Message::Text(text)) => break assert_eq!(text, "3probe"),
            // It had not been noticed yet that the first one was gone.
            _ => again = probe(&house, &poller).await,
        }
    }
}

#[tokio::test]
async fn the_poll_that_waits_is_released_so_that_the_client_can_go_over() {
    let house = House::open().await;
    let poller = entered(&house).await;
    let (released, mut socket) = tokio::join!(poller.poll(), async {
        let mut socket = probe(&house, &poller).await;
        socket.say("2probe").await;
        assert_eq!(socket.text().await, "3probe");
        socket
    });
    assert_eq!((released.status, released.text.as_str()), (200, "6"));
    socket.say("5").await;
    serves(&mut socket).await;
}

/// Whoever goes over takes nothing by polling any more, and is to be read all the same.
#[tokio::test]
async fn much_that_is_asked_for_while_going_over_arrives_there() {
    let house = House::open().await;
    let ann = house.user().await;
    let room = house.room(&[ann]).await.to_string();
    let native = house.connect(ann).await;
    for number in 0..60 {
        assert_eq!(native.say(&room, &format!("m{number}"), &"x".repeat(500)).await["status"], "QUEUED");
    }
    native.delivered(&room, 60).await;
    let poller = Poller::enter(&house, ann).await;
    let mut socket = probe(&house, &poller).await;
    socket.say("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    let sync = |id: i64| format!("42/chat,{id}[\"sync\",{}]", json!({"rooms": [{"roomId": room, "afterSeq": 0}]}));
    for id in 1..=2 {
        poller.say(&sync(id)).await;
    }
    socket.say("5").await;
    for id in 1..=2 {
        let answer = socket.json_after(&format!("43/chat,{id}")).await;
        assert_eq!(answer[0]["rooms"][0]["items"].as_array().map(Vec::len), Some(60));
    }
}

#[tokio::test]
async fn a_second_websocket_is_closed_and_the_first_goes_on() {
    let house = House::open().await;
    let poller = entered(&house).await;
    let mut socket = probe(&house, &poller).await;
    socket.say("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    let mut second = probe(&house, &poller).await;
    assert!(matches!(second.next().await, Some(Message::Close(_)) | None));
    socket.say("5").await;
    serves(&mut socket).await;

    let mut stray = probe(&house, &poller).await;
    assert!(matches!(stray.next().await, Some(Message::Close(_)) | None));
    serves(&mut socket).await;
}

#[tokio::test]
async fn whoever_has_gone_over_polls_no_more() {
    let house = House::open().await;
    let (poller, mut socket) = upgraded(&house).await;
    assert_eq!(poller.poll().await.code(), Some(3));
    assert_eq!(poller.post(r#"42/chat,["ping"]"#).await.code(), Some(3));
    serves(&mut socket).await;
}

#[tokio::test]
async fn what_is_no_request_of_the_protocol_is_refused_with_its_code_and_harms_no_session() {
    let house = House::open().await;
    let mut poller = entered(&house).await;
    let sid = poller.sid.clone();
    for (method, query, code) in [
        (Method::POST, "EIO=4&transport=polling".to_owned(), 2),
        (Method::POST, "EIO=4&transport=websocket".to_owned(), 2),
        (Method::PUT, "EIO=4&transport=polling".to_owned(), 2),
        (Method::POST, "EIO=4".to_owned(), 0),
        (Method::POST, "EIO=4&transport=polling&sid=x".to_owned(), 1),
        (Method::POST, format!("EIO=3&transport=polling&sid={sid}"), 5),
        (Method::POST, format!("transport=polling&sid={sid}"), 5),
        (Method::GET, format!("EIO=4&transport=polling&sid={sid}&sid={sid}"), 3),
        (Method::GET, "EIO=4&transport=polling&deviceId=two%20words".to_owned(), 3),
        (Method::GET, format!("EIO=4&transport=websocket&sid={sid}"), 3),
        (Method::DELETE, format!("EIO=4&transport=polling&sid={sid}"), 2),
    ] {
        let answer = ask(method.clone(), &format!("{}/socket.io/?{query}", house.base), &[], "3").await;
        assert_eq!(answer.code(), Some(code), "{method} {query}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    for (query, code) in [
        ("EIO=3&transport=websocket".to_owned(), 5),
        ("EIO=4&transport=websocket&sid=x".to_owned(), 1),
        (format!("EIO=4&transport=polling&sid={sid}"), 3),
        ("EIO=4&transport=smoke".to_owned(), 0),
    ] {
        match Raw::try_open(&house.base, &format!("/socket.io/?{query}")).await {
            Err(Error::Http(answer)) => {
                let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap_or_default()).expect("JSON");
                assert_eq!((answer.status().as_u16(), &body["code"]), (400, &json!(code)), "{query}");
            }
            other => panic!("{query}: {:?}", other.err()),
        }
    }
    poller.assert_serves().await;
}

const OURS: &str = "https://chat.example.com";
const ELSEWHERE: &str = "https://elsewhere.example.com";

#[rstest]
#[case::named(OURS, OURS, Some(OURS))]
#[case::one_of_several("https://b.example.com,https://chat.example.com", OURS, Some(OURS))]
#[case::another(OURS, ELSEWHERE, None)]
#[case::any("*", ELSEWHERE, Some("*"))]
#[case::nobody("", OURS, None)]
#[tokio::test]
async fn pages_of_the_named_origins_may_poll_and_no_others(
    #[case] named: &str,
    #[case] origin: &str,
    #[case] allowed: Option<&str>,
) {
    let house = House::with(&[("CORS_ORIGINS", named)]).await;
    let poller = Poller::open(&house).await;
    let headers = [("origin", origin), ("access-control-request-method", "POST")];
    let preflight = ask(Method::OPTIONS, &poller.url(), &headers, "").await;
    assert!(allowed.is_none() || (200..300).contains(&preflight.status), "{preflight:?}");
    let handshake = ask(Method::GET, &format!("{}{PATH}", house.base), &headers[..1], "").await;
    assert_eq!(handshake.status, 200);
    let taken = ask(Method::POST, &poller.url(), &headers[..1], "3").await;
    assert_eq!(taken.text, "ok");
    let refused = ask(Method::GET, &format!("{}{PATH}&sid=x", house.base), &headers[..1], "").await;
    assert_eq!(refused.code(), Some(OVER));
    for answer in [preflight, handshake, taken, refused] {
        let told = answer.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|origin| origin.to_str().expect("text"));
        assert_eq!(told, allowed, "{answer:?}");
    }
}
