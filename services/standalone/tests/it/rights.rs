//! Rights that end, seen from outside: sign-outs, blocks, kicks.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};
use testkit::PATIENCE;
use testkit::client::{Person, Socket};
use testkit::cluster::{System, SystemSpec};

/// A second by the contract, and something for a busy machine.
const SOON: Duration = Duration::from_secs(2);

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

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn after_a_kick_nothing_is_told_while_messages_flow(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    let room = alice.create_group(&[&bob, &carol]).await;
    let talker = alice.connect(system.gateway(0)).await;
    let (bobs, witness) = (everywhere(&bob, &system).await, carol.connect(system.gateway(1)).await);
    let revs = |socket: &Socket| -> Vec<i64> {
        let told = socket.everything();
        let of_room = told.iter().filter(|(_, data)| data["roomId"] == room.as_str());
        of_room.filter_map(|(_, data)| data["rev"].as_i64()).collect()
    };
    for number in 0..120 {
        let data = json!({"roomId": room, "clientMsgId": format!("m{number}"), "content": "x"});
        talker.send("message.send", data).await;
        if number == 40 {
            let path = format!("/api/v1/conversations/{room}/members/{}", bob.id);
            alice.rest.delete(&path).await.expect(202);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    testkit::until(PATIENCE, || async { revs(&witness).last() == Some(&122) }).await;
    let left = witness.event("room.memberLeft", |_| true).await["rev"].as_i64().unwrap();
    tokio::time::sleep(SOON).await;
    for socket in &bobs {
        assert_eq!(revs(socket).last(), Some(&left), "the last thing told is the removal");
        assert!(revs(socket).windows(2).all(|pair| pair[0] + 1 == pair[1]), "{:?}", revs(socket));
    }
    system.assert_healthy();
}
