//! Rights that end, seen from outside: sign-outs, blocks, kicks.

use std::time::{Duration, Instant};

use rstest::rstest;
use runtime::Shutdown;
use serde_json::{Value, json};
use testkit::PATIENCE;
use testkit::client::{Person, Socket};
use testkit::cluster::{System, SystemSpec};

use crate::scene::SLACK;

/// A second by the contract.
const SOON: Duration = Duration::from_secs(1).saturating_add(SLACK);

/// Runs `chatchit admin` beside the running system.
async fn admin(system: &System, what: &str, whom: &str) -> (Option<i32>, String, String) {
    let (status, stdout, stderr) = system.spec("chatchit", 0).run(&["admin", what, whom]).await;
    (status.code(), stdout, stderr)
}

async fn assert_closed_soon(sockets: &[Socket]) {
    let since = Instant::now();
    for socket in sockets {
        let left = SOON.saturating_sub(since.elapsed());
        let closed = tokio::time::timeout(left, socket.closed()).await.expect("closed within a second");
        assert_eq!(closed, Some((4403, "FORBIDDEN".to_owned())));
    }
}

async fn everywhere(person: &Person, system: &System) -> [Socket; 2] {
    [person.connect(system.gateway(0)).await, person.connect(system.gateway(1)).await]
}

async fn log_in(system: &System, person: &Person) -> Value {
    let form = json!({"email": person.email, "password": Person::PASSWORD});
    system.rest().post("/api/v1/auth/login", form).await.body
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn signing_out_everywhere_ends_open_sessions_on_every_gateway(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let (alices, bobs) = (everywhere(&alice, &system).await, bob.connect(system.gateway(1)).await);
    alice.rest.post("/api/v1/auth/logout", json!({"everywhere": true})).await.expect(204);
    assert_closed_soon(&alices).await;
    let again = log_in(&system, &alice).await;
    let path = format!("/ws?token={}", again["accessToken"].as_str().unwrap());
    let back = Socket::open(&system.gateway(0).url(), &path).await;
    back.event("session.ready", |_| true).await;
    tokio::time::sleep(SOON).await;
    assert!(back.is_open() && bobs.is_open(), "nobody else is concerned");
    system.assert_healthy();
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn an_operator_blocks_unblocks_and_signs_out_while_the_system_runs(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let (alices, bobs) = (everywhere(&alice, &system).await, everywhere(&bob, &system).await);
    if system.is_distributed() {
        // Nobody can be told: the gateways find out by themselves.
        system.redis().stop().await;
    }
    let (code, line, told) = admin(&system, "block", &alice.email).await;
    assert_closed_soon(&alices).await;
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}{told}"));
    assert_eq!((code, &line["userId"], &line["blocked"]), (Some(0), &json!(alice.id), &json!(true)));
    assert!(bobs.iter().all(Socket::is_open));
    if system.is_distributed() {
        system.redis().start_again().await;
        system.wait_ready().await;
    }
    let refused = Socket::open(&system.gateway(0).url(), &format!("/ws?token={}", alice.token)).await;
    assert_eq!(refused.closed().await.map(|(code, _)| code), Some(4403));
    assert_eq!(log_in(&system, &alice).await["code"], "FORBIDDEN");

    let (code, line, _) = admin(&system, "unblock", &alice.id).await;
    assert_eq!((code, line.contains("\"blocked\":false")), (Some(0), true), "{line}");
    assert!(log_in(&system, &alice).await["accessToken"].is_string());
    let (code, ..) = admin(&system, "signout", &bob.id).await;
    assert_eq!(code, Some(0));
    assert_closed_soon(&bobs).await;
    let (code, _, told) = admin(&system, "block", "nobody@example.com").await;
    assert_eq!((code, told.contains("there is no user nobody@example.com")), (Some(2), true), "{told}");
    system.assert_healthy();
}

/// What a client was told of a room, by `rev`.
fn revs(socket: &Socket, room: &str) -> Vec<i64> {
    let told = socket.everything();
    let of_room = told.iter().filter(|(_, data)| data["roomId"] == room);
    of_room.filter_map(|(_, data)| data["rev"].as_i64()).collect()
}

/// Goes on joining and asking for a room, until the end.
async fn press(socket: &Socket, room: &str, over: &Shutdown) {
    while !over.is_requested() {
        socket.send("room.join", json!({"roomId": room})).await;
        socket.send("sync", json!({"rooms": [{"roomId": room, "afterRev": 1}]})).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Goes on connecting to both gateways, until the end.
async fn come(system: &System, person: &Person, over: &Shutdown) -> Vec<Socket> {
    let mut came = Vec::new();
    for number in 0.. {
        if over.is_requested() {
            break;
        }
        let path = format!("/ws?token={}", person.token);
        came.push(Socket::open(&system.gateway(number).url(), &path).await);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    came
}

/// Panics unless no answer to a `sync` holds anything of the room that came after `rev`.
fn assert_nothing_synced_after(socket: &Socket, rev: i64) {
    let acks = socket.acks();
    let items = acks.iter().filter_map(|ack| ack["rooms"][0]["items"].as_array()).flatten();
    let late: Vec<&Value> = items.filter(|item| item["rev"].as_i64() > Some(rev)).collect();
    assert!(late.is_empty(), "{late:?} after {rev}");
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kick_nothing_is_told_to_who_listens_joins_syncs_or_connects(#[case] spec: SystemSpec) {
    let system = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    let room = alice.create_group(&[&bob, &carol]).await;
    let talker = alice.connect(system.gateway(0)).await;
    let (bobs, witness) = (everywhere(&bob, &system).await, carol.connect(system.gateway(1)).await);
    let pressing = everywhere(&bob, &system).await;
    let (over, kicked) = (Shutdown::new(), Shutdown::new());
    let talk = async {
        for number in 0.. {
            if over.is_requested() {
                return number + 2;
            }
            let data = json!({"roomId": room, "clientMsgId": format!("m{number}"), "content": "x"});
            talker.send("message.send", data).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable!("it ends")
    };
    let kick = async {
        bobs[0].delivered(&room, 30).await;
        let path = format!("/api/v1/conversations/{room}/members/{}", bob.id);
        alice.rest.delete(&path).await.expect(202);
        let answered = Instant::now();
        kicked.request();
        tokio::time::sleep(SOON.saturating_sub(answered.elapsed())).await;
        let in_time: Vec<_> = bobs.iter().chain(&pressing).map(|socket| revs(socket, &room)).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        over.request();
        in_time
    };
    let [first, second] = [&pressing[0], &pressing[1]].map(|socket| press(socket, &room, &over));
    let (last, in_time, came, ..) = tokio::join!(talk, kick, come(&system, &bob, &kicked), first, second);
    testkit::until(PATIENCE, || async { revs(&witness, &room).last() == Some(&last) }).await;
    assert_eq!(revs(&witness, &room), (2..=last).collect::<Vec<_>>(), "who stays misses nothing");
    let left = witness.event("room.memberLeft", |_| true).await["rev"].as_i64().unwrap();
    assert!(left < last, "messages flowed on");
    for (socket, in_time) in bobs.iter().chain(&pressing).zip(&in_time) {
        assert_eq!(revs(socket, &room), *in_time, "nothing after a second");
    }
    // Whoever asks at the moment of the removal may learn of it by the answer alone.
    let listened = &in_time[..bobs.len()];
    assert!(listened.iter().all(|told| *told == (2..=left).collect::<Vec<_>>()), "not {left} but {listened:?}");
    assert!(!came.is_empty());
    for socket in came.iter().chain(&pressing) {
        let told = revs(socket, &room);
        assert!(told.iter().all(|rev| *rev <= left), "{told:?} after {left}");
        assert!(told.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{told:?} in order");
        assert_nothing_synced_after(socket, left);
    }
    system.assert_healthy();
}

/// Goes on refreshing its token, until the end.
async fn refresh(socket: &Socket, token: &str, over: &Shutdown) {
    while !over.is_requested() {
        socket.send("auth.refresh", json!({"token": token})).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All connections of somebody are over within a second of the answer, those that came or were
/// refreshed meanwhile, too.
async fn assert_none_slips_through(system: &System, person: &Person, end: impl Future<Output = ()>) {
    let over = Shutdown::new();
    let refreshing = everywhere(person, system).await;
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        end.await;
        let answered = Instant::now();
        over.request();
        answered
    };
    let [one, two] = [&refreshing[0], &refreshing[1]].map(|socket| refresh(socket, &person.token, &over));
    let (mut sockets, answered, ..) = tokio::join!(come(system, person, &over), ending, one, two);
    assert!(!sockets.is_empty());
    sockets.extend(refreshing);
    for socket in &sockets {
        let left = SOON.saturating_sub(answered.elapsed());
        let closed = tokio::time::timeout(left, socket.closed()).await;
        assert!(matches!(closed, Ok(Some((4403 | 4401, _)))), "{closed:?}");
    }
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_connects_or_refreshes_while_blocked_or_signed_out_does_not_slip_through(#[case] spec: SystemSpec) {
    let system = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    let others = everywhere(&carol, &system).await;
    let block = async {
        assert_eq!(admin(&system, "block", &alice.email).await.0, Some(0));
    };
    assert_none_slips_through(&system, &alice, block).await;
    let sign_out = async {
        bob.rest.post("/api/v1/auth/logout", json!({"everywhere": true})).await.expect(204);
    };
    assert_none_slips_through(&system, &bob, sign_out).await;
    assert!(others.iter().all(Socket::is_open), "nobody else is concerned");
    system.assert_healthy();
}
