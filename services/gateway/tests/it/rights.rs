//! Rights that end: on every gateway within a second, told or not, also for what is under way.

use std::time::{Duration, Instant};

use domain::{Timestamp, UserId};
use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::Socket;
use testkit::token::{now_s, sign};
use tokio::io::AsyncReadExt as _;

use crate::codec::Codec;
use crate::house::{House, Raw, SECRET, connect_to};
use crate::sleeper::Sleeper;

/// What a change of rights may take to work, and a little for a busy machine.
const SOON: Duration = Duration::from_millis(1_500);
const FORBIDDEN: Option<(u16, &str)> = Some((4403, "FORBIDDEN"));

/// A token that was issued so many seconds ago.
fn issued(user: UserId, seconds_ago: i64) -> String {
    let claims = json!({"sub": user, "iat": now_s() - seconds_ago, "exp": now_s() + 3600});
    sign(SECRET, "HS256", &claims)
}

async fn connect_with(base: &str, token: &str) -> Socket {
    let socket = Socket::open(base, &format!("/ws?token={token}")).await;
    socket.event("session.ready", |_| true).await;
    socket
}

fn seconds_ago(house: &House, seconds: i64) -> Timestamp {
    Timestamp(house.engine.clock.now().0 - seconds * 1000)
}

async fn closed_as(socket: &Socket) -> Option<(u16, String)> {
    tokio::time::timeout(SOON, socket.closed()).await.expect("closed within a second")
}

#[rstest]
#[tokio::test]
async fn the_word_ends_sessions_of_older_tokens_at_once_and_no_others(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let (older, newer) =
        (connect_with(&house.base, &issued(ann, 60)).await, connect_with(&house.base, &issued(ann, 10)).await);
    let other = house.connect(bob).await;
    // The store is not asked: only the word is there.
    house.handlers().announce_revocation(ann, seconds_ago(&house, 30), false).await;
    assert_eq!(closed_as(&older).await.as_ref().map(|(code, why)| (*code, why.as_str())), FORBIDDEN);
    assert!(newer.request("ping", json!({})).await["serverTime"].is_string());
    house.handlers().announce_revocation(ann, seconds_ago(&house, 30), true).await;
    assert_eq!(closed_as(&newer).await.as_ref().map(|(code, why)| (*code, why.as_str())), FORBIDDEN);
    assert!(other.request("ping", json!({})).await["serverTime"].is_string());
}

#[rstest]
#[tokio::test]
async fn what_only_the_store_knows_ends_sessions_on_every_gateway(
    #[values(Codec::Json, Codec::Protobuf)] codec: Codec,
) {
    let house = House::speaking(codec).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let (_second, second_base) = house.another_gateway();
    let (anns, bobs) = (issued(ann, 60), issued(bob, 60));
    let (one, two) = (connect_with(&house.base, &anns).await, connect_with(&second_base, &anns).await);
    let other = connect_with(&second_base, &bobs).await;
    house.engine.store.void_tokens(ann, house.engine.clock.now()).await.expect("voided");
    for socket in [&one, &two] {
        assert_eq!(closed_as(socket).await.as_ref().map(|(code, why)| (*code, why.as_str())), FORBIDDEN);
    }
    house.engine.store.set_blocked(bob, true, seconds_ago(&house, 3_600)).await.expect("blocked");
    assert_eq!(closed_as(&other).await.as_ref().map(|(code, why)| (*code, why.as_str())), FORBIDDEN);
}

#[tokio::test]
async fn a_socketio_client_is_told_and_leaves_the_namespace() {
    let house = House::open().await;
    let ann = house.user().await;
    let mut raw = Raw::open(&house.base, "/socket.io/?EIO=4&transport=websocket").await;
    raw.json_after("0").await;
    raw.say(format!("40/chat,{}", json!({"token": issued(ann, 60)}))).await;
    while !raw.text().await.starts_with("42/chat,[\"session.ready\"") {}
    house.engine.store.void_tokens(ann, house.engine.clock.now()).await.expect("voided");
    loop {
        let text = raw.text().await;
        if let Some(error) = text.strip_prefix("42/chat,") {
            let error: Value = serde_json::from_str(error).expect("JSON");
            assert_eq!(
                (&error[0], &error[1]["code"], &error[1]["closeCode"]),
                (&json!("error"), &json!("FORBIDDEN"), &json!(4403))
            );
        } else if text.starts_with("41/chat") {
            return;
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_session_lives_by_the_token_it_was_refreshed_with(#[values(Codec::Json, Codec::Protobuf)] codec: Codec) {
    let house = House::speaking(codec).await;
    let ann = house.user().await;
    let (kept, fallen) =
        (connect_with(&house.base, &issued(ann, 60)).await, connect_with(&house.base, &issued(ann, 5)).await);
    assert_eq!(kept.request("auth.refresh", json!({"token": issued(ann, 5)})).await["status"], "OK");
    assert_eq!(fallen.request("auth.refresh", json!({"token": issued(ann, 60)})).await["status"], "OK");
    house.engine.store.void_tokens(ann, seconds_ago(&house, 30)).await.expect("voided");
    assert_eq!(closed_as(&fallen).await.map(|(code, _)| code), Some(4403));
    tokio::time::sleep(SOON).await;
    assert!(kept.request("ping", json!({})).await["serverTime"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_or_refreshes_while_blocked_does_not_slip_through() {
    let house = House::open().await;
    let (_second, second_base) = house.another_gateway();
    for round in 0..6_u64 {
        let ann = house.user().await;
        let token = issued(ann, 60);
        let refreshing = connect_with(&house.base, &token).await;
        let comings = (0..8_u64).map(|number| {
            let (base, token) = (if number % 2 == 0 { &house.base } else { &second_base }, &token);
            async move {
                tokio::time::sleep(Duration::from_millis(number * 3)).await;
                Socket::open(base, &format!("/ws?token={token}")).await
            }
        });
        let block = async {
            tokio::time::sleep(Duration::from_millis(round * 4)).await;
            house.engine.store.set_blocked(ann, true, seconds_ago(&house, 600)).await.expect("blocked");
            Instant::now()
        };
        let refresh = async {
            tokio::time::sleep(Duration::from_millis(round * 4)).await;
            refreshing.send("auth.refresh", json!({"token": token})).await;
        };
        let (sockets, blocked_at, ()) = tokio::join!(futures_util::future::join_all(comings), block, refresh);
        for socket in sockets.iter().chain([&refreshing]) {
            let left = SOON.saturating_sub(blocked_at.elapsed());
            let closed = tokio::time::timeout(left, socket.closed()).await;
            assert!(matches!(closed, Ok(Some((4403 | 4401, _)))), "{closed:?} in round {round}");
        }
    }
}

#[tokio::test]
async fn who_may_come_back_comes_back() {
    let house = House::open().await;
    let ann = house.user().await;
    let first = connect_with(&house.base, &issued(ann, 60)).await;
    house.engine.store.set_blocked(ann, true, seconds_ago(&house, 30)).await.expect("blocked");
    closed_as(&first).await;
    house.engine.store.set_blocked(ann, false, seconds_ago(&house, 20)).await.expect("unblocked");
    let again = connect_with(&house.base, &issued(ann, 10)).await;
    tokio::time::sleep(SOON).await;
    assert!(again.is_open());
    assert!(connect_to(&house.base, ann).await.is_open());
}

#[tokio::test]
async fn who_is_signed_out_while_being_drained_is_not_sent_what_waits() {
    let house = House::narrow().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let mut lagging = Sleeper::open(&house.base, bob, true).await;
    let talker = house.connect(ann).await;
    let content = "x".repeat(4_000);
    for number in 0..40 {
        assert_eq!(talker.say(&room, &format!("m{number}"), &content).await["status"], "QUEUED");
    }
    talker.delivered(&room, 40).await;
    testkit::until(testkit::PATIENCE, async || House::gauge("chat_outbox_bytes") > 32 * 1024).await;
    let sign_out = async {
        // Who came first is drained first.
        assert_eq!(talker.closed().await.map(|(code, _)| code), Some(4503));
        house.handlers().announce_revocation(bob, house.engine.clock.now(), true).await;
        let mut rest = Vec::new();
        let read = tokio::time::timeout(testkit::PATIENCE, lagging.stream.read_to_end(&mut rest)).await;
        read.expect("in time").expect("closed in good order");
        rest
    };
    let (rest, ()) = tokio::join!(sign_out, house.gateway.drain());
    let holds = |what: &[u8]| rest.windows(what.len()).any(|window| window == what);
    assert!(!holds(br#""seq":40,"#), "told after the sign-out");
    assert!(holds(b"FORBIDDEN"), "told why");
}
