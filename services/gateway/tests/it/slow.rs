//! Clients that do not read cost little and harm nobody; clients that do read are never called slow.

use std::time::Duration;

use domain::{Rev, UserId};
use futures_util::future::join_all;
use protocol::{Channel, EventData, Keyring, OpenedDelivery, delivery, wire};
use realtime::Outbound;
use rstest::rstest;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::house::{House, Raw, figure};
use crate::poller::Poller;
use crate::sleeper::{Sleeper, people, read_until, resident_bytes, sleepers};

/// Something of 8 KiB that nobody else is told.
fn told(house: &House, user: UserId, number: usize) -> Outbound {
    let keys = Keyring::clone(&house.engine.keys);
    let content = format!("{number:08}").repeat(1024);
    let message = wire::MessageDelivered { content: Some(content), sender_id: user.to_string(), ..Default::default() };
    let event = EventData::MessageDelivered(message);
    let delivered = OpenedDelivery { rev: None, epoch: Rev::ZERO, except: None, event };
    let channel = Channel::User(user);
    Outbound { channel, rev: None, payload: delivery::seal(channel, &delivered, &keys) }
}

/// The worst there is: what each of them is told nobody else holds, and all are nearly over the
/// bound at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_that_stop_reading_cost_a_quarter_of_a_mib_each_and_harm_nobody() {
    const SLEEPERS: usize = 1000;
    let house = House::narrow().await;
    let users = people(&house, SLEEPERS).await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let (talker, listener) = (house.connect(ann).await, house.connect(bob).await);
    let sleepers = sleepers(&house, &users).await;
    let before = resident_bytes();
    let (mut peak, mut said) = (before, 0);
    for number in 0.. {
        for some in users.chunks(100) {
            let outbound: Vec<Outbound> = some.iter().map(|user| told(&house, *user, number)).collect();
            house.engine.realtime.publish(&outbound).await.expect("published");
            peak = peak.max(resident_bytes());
        }
        // Behind all of that in the same inbox.
        assert_eq!(talker.say(&room, &format!("m{number}"), "meanwhile").await["status"], "QUEUED");
        said += 1;
        listener.delivered(&room, said).await;
        peak = peak.max(resident_bytes());
        let closed = House::limited("outbox");
        if closed == SLEEPERS {
            break;
        }
        assert!(number < 2_000, "{closed} were closed");
    }
    let each = (peak - before) / SLEEPERS;
    figure(&format!("resident memory for each client that does not read: {} KiB at most", each / 1024));
    assert!(each <= 256 * 1024, "{each} bytes each");
    assert!(each > 64 * 1024, "{each} bytes each: they were closed before they cost anything");
    drop(sleepers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_for_pages_and_not_reading_them_costs_no_more() {
    const SLEEPERS: usize = 200;
    let house = House::narrow().await;
    let users = people(&house, SLEEPERS).await;
    let room = house.room(&users).await.to_string();
    let talker = house.connect(users[0]).await;
    let content = "x".repeat(4_000);
    for number in 0..100 {
        assert_eq!(talker.say(&room, &format!("m{number}"), &content).await["status"], "QUEUED");
    }
    talker.delivered(&room, 100).await;
    drop(talker);
    let mut sleepers = sleepers(&house, &users).await;
    let before = resident_bytes();
    let ask = json!({"rooms": [{"roomId": room, "afterSeq": 0}]});
    for number in 0..60 {
        let native = json!({"id": number, "event": "sync", "data": ask}).to_string();
        let socketio = format!(r#"42/chat,{number}["sync",{ask}]"#);
        for (at, sleeper) in sleepers.iter_mut().enumerate() {
            sleeper.tell(if at % 50 % 2 == 0 { &native } else { &socketio }).await;
        }
    }
    let mut peak = 0;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        peak = peak.max(resident_bytes());
    }
    let each = peak.saturating_sub(before) / SLEEPERS;
    figure(&format!("resident memory for each client that asks and does not read: {} KiB at most", each / 1024));
    assert!(each <= 256 * 1024, "{each} bytes each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_makes_no_client_look_slow_that_reads() {
    burst(&House::open().await, 100).await;
}

/// The network holds little of it, so that whoever delivers has to wait for the readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_a_narrow_network_is_delivered_no_faster_than_it_is_read() {
    burst(&House::narrow().await, 20).await;
}

async fn burst(house: &House, members: usize) {
    const MESSAGES: usize = 5_000;
    let users = people(house, members).await;
    let id = house.room(&users).await;
    let room = id.to_string();
    let mut readers = Vec::new();
    for user in &users {
        let path = format!("/ws?token={}", House::token(*user));
        readers.push(Raw::open(&house.base, &path).await);
    }
    for reader in &mut readers {
        assert!(reader.text().await.contains("session.ready"));
    }
    let counting = join_all(readers.iter_mut().map(async |reader| {
        for expected in 1..=MESSAGES {
            match reader.next().await {
                Some(Message::Text(text)) => {
                    assert!(text.contains(&format!(r#""seq":{expected},"#)), "{text}");
                }
                other => panic!("after {expected} messages: {other:?}"),
            }
        }
    }));
    let keys = Keyring::clone(&house.engine.keys);
    let message = |number: usize| {
        let message = wire::MessageDelivered {
            room_id: room.clone(),
            message_id: users[0].to_string(),
            sender_id: users[0].to_string(),
            client_msg_id: Some(number.to_string()),
            content: Some("x".repeat(300)),
            seq: number as i64,
            rev: Some(1 + number as i64),
            ..Default::default()
        };
        let rev = Some(Rev(1 + number as i64));
        let event = EventData::MessageDelivered(message);
        let delivered = OpenedDelivery { rev, epoch: Rev::ZERO, except: None, event };
        let channel = Channel::Room(id);
        Outbound { channel, rev, payload: delivery::seal(channel, &delivered, &keys) }
    };
    let outbound: Vec<Outbound> = (1..=MESSAGES).map(message).collect();
    house.engine.realtime.publish(&outbound).await.expect("published");
    tokio::time::timeout(Duration::from_mins(3), counting).await.expect("all of it");
    assert_eq!(House::limited("outbox"), 0);
}

/// A client that reads when it likes, native or not.
struct Reader {
    socket: Raw,
    is_native: bool,
}

impl Reader {
    async fn open(house: &House, user: UserId, is_native: bool) -> Self {
        let token = House::token(user);
        let socket = if is_native {
            Raw::open(&house.base, &format!("/ws?token={token}")).await
        } else {
            let mut socket = Raw::open(&house.base, "/socket.io/?EIO=4&transport=websocket").await;
            socket.say(format!("40/chat,{}", json!({"token": token}))).await;
            socket
        };
        let mut reader = Self { socket, is_native };
        while reader.next().await.is_none_or(|(name, _)| name != "session.ready") {}
        reader
    }

    /// The next thing that is an event, an ack without a name, or a close.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let text = match self.socket.next().await? {
                Message::Close(frame) if self.is_native => {
                    return Some(("error".to_owned(), json!({"closeCode": frame.map(|frame| u16::from(frame.code))})));
                }
                message => message.into_text().unwrap_or_default(),
            };
            let (start, name, data) = if self.is_native { ("", "/event", "/data") } else { ("42/chat,", "/0", "/1") };
            let packet = text.strip_prefix(start).and_then(|text| serde_json::from_str::<Value>(text).ok());
            if let Some(name) = packet.as_ref().and_then(|packet| packet.pointer(name)?.as_str()) {
                let data = packet.as_ref().and_then(|packet| packet.pointer(data)).cloned();
                return Some((name.to_owned(), data.unwrap_or_default()));
            }
        }
    }

    /// A page of what came in a room after that.
    async fn sync(&mut self, room: &str, after: i64) -> Value {
        let ask = json!({"rooms": [{"roomId": room, "afterSeq": after}]});
        let (said, ack, page) = if self.is_native {
            (json!({"id": after, "event": "sync", "data": ask}).to_string(), "", "/ack/rooms/0")
        } else {
            (format!(r#"42/chat,{after}["sync",{ask}]"#), &*format!("43/chat,{after}"), "/0/rooms/0")
        };
        self.socket.say(said).await;
        loop {
            if let Some(page) = self.socket.json_after(ack).await.pointer(page) {
                return page.clone();
            }
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_is_told_why_frees_its_memory_at_once_and_catches_up(#[values(true, false)] is_native: bool) {
    let house = House::narrow().await;
    let (ann, bob) = (house.user().await, house.user().await);
    let room = house.room(&[ann, bob]).await.to_string();
    let talker = house.connect(ann).await;
    let mut slow = Reader::open(&house, bob, is_native).await;
    let content = "x".repeat(16_000);
    let mut said: i64 = 0;
    while House::limited("outbox") == 0 {
        assert!(said < 2_000, "never too slow");
        let ids = [0, 1, 2, 3].map(|number| format!("m{}", said + number));
        for id in &ids {
            assert_eq!(talker.say(&room, id, &content).await["status"], "QUEUED");
        }
        said += 4;
        talker.delivered(&room, usize::try_from(said).expect("positive")).await;
    }
    testkit::until(testkit::PATIENCE, async || House::gauge("chat_outbox_bytes") == 0).await;
    // Only now it reads on.
    let (mut last, mut error) = (0, Value::Null);
    while let Some((name, data)) = slow.next().await {
        if name == "message.delivered" {
            let seq = data["seq"].as_i64().expect("a seq");
            assert_eq!(seq, last + 1, "in order until the end");
            last = seq;
        } else if name == "error" {
            error = data;
        }
    }
    assert_eq!(error["closeCode"], 4508, "{error}");
    assert!(is_native || error["code"] == "TOO_SLOW", "{error}");
    assert!(last < said);
    // The next attempt makes up for the rest, page by page.
    let mut again = Reader::open(&house, bob, is_native).await;
    loop {
        let page = again.sync(&room, last).await;
        for item in page["items"].as_array().expect("items") {
            last += 1;
            assert_eq!(item["seq"], last);
        }
        if page["complete"] == true {
            break;
        }
    }
    assert_eq!(last, said);
}

#[tokio::test]
async fn what_is_fleeting_does_not_wait_behind_messages() {
    let house = House::narrow().await;
    let (ann, bob, eve) = (house.user().await, house.user().await, house.user().await);
    let room = house.room(&[ann, bob, eve]).await.to_string();
    let (talker, witness) = (house.connect(ann).await, house.connect(eve).await);
    let mut lagging = Sleeper::open(&house.base, bob, true).await;
    let content = "x".repeat(4_000);
    for number in 0..40 {
        assert_eq!(talker.say(&room, &format!("m{number}"), &content).await["status"], "QUEUED");
    }
    witness.delivered(&room, 40).await;
    testkit::until(testkit::PATIENCE, async || House::gauge("chat_outbox_bytes") > 32 * 1024).await;
    talker.request("typing", json!({"roomId": room, "isTyping": true})).await;
    witness.event("typing", |typing| typing["isTyping"] == true).await;
    // Only now it reads on.
    let seen = read_until(&mut lagging.stream, r#""seq":40,"#).await;
    let typing = seen.windows(8).position(|window| window == br#""typing""#);
    assert!(typing.is_some(), "behind the last message");
}

/// Tells somebody a quarter of a MiB, which is too much.
async fn overwhelm(house: &House, user: UserId) {
    let outbound: Vec<Outbound> = (0..64).map(|number| told(house, user, number)).collect();
    house.engine.realtime.publish(&outbound).await.expect("published");
    testkit::until(testkit::PATIENCE, async || House::limited("outbox") == 1).await;
}

async fn assert_told_why(poller: &mut Poller) {
    let error = poller.json_after("42/chat,[\"error\",").await;
    assert_eq!((&error["code"], &error["closeCode"]), (&json!("TOO_SLOW"), &json!(4508)));
    assert_eq!(poller.next().await, "1");
}

#[tokio::test]
async fn who_stops_polling_is_bounded_like_who_stops_reading() {
    let house = House::open().await;
    let ann = house.user().await;
    let mut poller = Poller::enter(&house, ann).await;
    overwhelm(&house, ann).await;
    assert_told_why(&mut poller).await;
}

#[tokio::test]
async fn who_posts_and_does_not_poll_is_not_heard_before_the_answers_are_fetched() {
    let house = House::open().await;
    let ann = house.user().await;
    let mut poller = Poller::enter(&house, ann).await;
    let (poster, mut taken) = (poller.clone(), 0);
    let post = || poster.post([r#"42/chat,1["ping"]"#; 10].join("\u{1e}"));
    let mut held = Box::pin(post());
    while let Ok(answer) = tokio::time::timeout(Duration::from_secs(3), &mut held).await {
        assert_eq!(answer.text, "ok");
        taken += 1;
        assert!(taken < 100, "{taken} bodies were taken");
        held = Box::pin(post());
    }
    // What it is told meanwhile is bounded as ever.
    overwhelm(&house, ann).await;
    assert_told_why(&mut poller).await;
    assert_eq!(held.await.code(), Some(3));
}
