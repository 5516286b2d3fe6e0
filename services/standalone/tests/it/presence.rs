//! Presence through crashes, wipes and reconnects, between real processes.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::{Person, Socket};
use testkit::cluster::{Node, System, SystemSpec};
use testkit::until;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

pub(crate) async fn direct_room(one: &Person, other: &Person) {
    let form = json!({"type": "direct", "memberIds": [other.id]});
    one.rest.post("/api/v1/conversations", form).await.expect(201);
}

fn changes_of(socket: &Socket, person: &Person) -> Vec<Value> {
    let changes = socket.events("presence.changed").into_iter();
    changes.filter(|it| it["userId"] == person.id.as_str()).map(|it| it["status"].clone()).collect()
}

async fn turns(socket: &Socket, person: &Person, status: &str) -> Value {
    socket.event("presence.changed", |it| it["userId"] == person.id.as_str() && it["status"] == status).await
}

async fn seen(socket: &Socket, person: &Person) -> Value {
    socket.request("presence.query", json!({"userIds": [person.id]})).await["users"][0]["status"].clone()
}

#[tokio::test]
async fn who_was_connected_to_a_gateway_that_died_is_seen_to_have_gone_when_its_lease_ran_out() {
    let system = SystemSpec::distributed(2, 2).env("PRESENCE_GRACE", "1s").start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    direct_room(&alice, &bob).await;
    let one = alice.connect(system.gateway(0)).await;
    let _other = bob.connect(system.gateway(1)).await;
    turns(&one, &bob, "online").await;
    let holder = system.redis().command(&format!("HVALS chat:socket:{}", bob.id)).await.unwrap();
    let gateway = &holder.split('@').nth(1).unwrap()[..36];
    system.gateway(1).kill9().await;
    // Its lease would run out within a minute; nobody has to be told that it did.
    system.redis().command(&format!("PEXPIRE chat:gateway:{gateway} 300")).await.unwrap();
    system.redis().command(&format!("ZADD chat:gateways 1 {gateway}")).await.unwrap();
    let at_most = tokio::time::timeout(Duration::from_secs(15), turns(&one, &bob, "offline"));
    assert!(at_most.await.expect("long before the janitor's turn")["lastSeenAt"].is_string());
    assert_eq!(seen(&one, &bob).await, "offline");
    assert!(one.is_open());
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn a_restart_of_a_gateway_is_noticed_by_nobody_and_nobody_who_hides_shows(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    direct_room(&alice, &bob).await;
    direct_room(&alice, &carol).await;
    let distributed = system.is_distributed();
    let one = alice.connect(system.gateway(0)).await;
    let (bobs, carols) = (bob.connect(system.gateway(1)).await, carol.connect(system.gateway(1)).await);
    turns(&one, &bob, "online").await;
    carols.request("presence.set", json!({"status": "invisible"})).await;
    until(Duration::from_secs(10), || async { seen(&one, &carol).await == "offline" }).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = changes_of(&one, &carol);
    let status = system.gateway(1).terminate(Duration::from_secs(30)).await;
    assert!(status.success(), "{status}");
    if !distributed {
        // All of it forgot everything but the store.
        system.gateway(1).start_again().await;
        let one = alice.connect(system.gateway(0)).await;
        let (_bobs, _carols) = (bob.connect(system.gateway(0)).await, carol.connect(system.gateway(0)).await);
        turns(&one, &bob, "online").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((seen(&one, &carol).await, changes_of(&one, &carol)), (json!("offline"), vec![]));
        return;
    }
    assert!(!bobs.is_open() || bobs.closed().await.is_some());
    let (_bobs, _carols) = (bob.connect(system.gateway(0)).await, carol.connect(system.gateway(0)).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(changes_of(&one, &bob), ["online"], "within the grace");
    assert_eq!(changes_of(&one, &carol), before);
    assert!(one.is_open());
}

#[tokio::test]
async fn after_a_wipe_of_redis_everybody_is_there_again_but_who_hides() {
    let system = SystemSpec::distributed(2, 1).start().await;
    let [alice, bob, carol] = system.people(["Alice", "Bob", "Carol"]).await;
    direct_room(&alice, &bob).await;
    direct_room(&alice, &carol).await;
    let one = alice.connect(system.gateway(0)).await;
    let (bobs, carols) = (bob.connect(system.gateway(1)).await, carol.connect(system.gateway(1)).await);
    turns(&one, &bob, "online").await;
    carols.request("presence.set", json!({"status": "invisible"})).await;
    bobs.request("presence.set", json!({"status": "busy"})).await;
    turns(&one, &bob, "busy").await;
    until(Duration::from_secs(10), || async { seen(&one, &carol).await == "offline" }).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = changes_of(&one, &carol);
    system.redis().command("FLUSHALL").await.unwrap();
    until(Duration::from_secs(30), || async { seen(&one, &bob).await == "busy" }).await;
    let devices = || async { system.redis().command(&format!("HLEN chat:socket:{}", carol.id)).await.unwrap() };
    until(Duration::from_secs(30), || async { devices().await.starts_with(":1") }).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(seen(&one, &carol).await, "offline");
    // A gateway that may have missed something tells how everybody stands, those included who are away.
    let after = changes_of(&one, &carol).split_off(before.len());
    assert!(after.iter().all(|status| status == "offline"), "something shows of who hides: {after:?}");
    until(Duration::from_secs(30), || async { changes_of(&one, &bob).last() == Some(&json!("busy")) }).await;
    system.assert_healthy();
}

/// Where somebody's devices are on several gateways at once.
#[tokio::test]
async fn whoever_is_on_several_gateways_is_there_until_the_last_device_left() {
    let system: System = SystemSpec::distributed(2, 1).env("PRESENCE_GRACE", "0s").start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    direct_room(&alice, &bob).await;
    let one = alice.connect(system.gateway(0)).await;
    for order in [[0, 1], [1, 0]] {
        let heard = changes_of(&one, &bob).len();
        let mut devices = [Some(bob.connect(system.gateway(0)).await), Some(bob.connect(system.gateway(1)).await)];
        until(Duration::from_secs(10), || async { changes_of(&one, &bob).len() == heard + 1 }).await;
        drop(devices[order[0]].take());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(changes_of(&one, &bob)[heard..], ["online"]);
        drop(devices[order[1]].take());
        until(Duration::from_secs(10), || async { changes_of(&one, &bob).len() == heard + 2 }).await;
        assert_eq!(changes_of(&one, &bob)[heard..], ["online", "offline"]);
    }
    system.assert_healthy();
}

#[tokio::test]
async fn a_departure_that_redis_did_not_hear_of_is_told_when_it_listens_again() {
    let system = SystemSpec::distributed(2, 1).env("PRESENCE_GRACE", "0s").start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    direct_room(&alice, &bob).await;
    let one = alice.connect(system.gateway(0)).await;
    let bobs = bob.connect(system.gateway(1)).await;
    turns(&one, &bob, "online").await;
    system.redis().pause();
    drop(bobs);
    // Until the gateway has given up telling.
    tokio::time::sleep(Duration::from_secs(3)).await;
    system.redis().resume();
    let at_most = tokio::time::timeout(Duration::from_secs(25), turns(&one, &bob, "offline"));
    at_most.await.expect("long before anybody is too old to be there");
}

/// Asks for a socket and goes before there was an answer, as clients do whose gateway hangs.
async fn ask_in_vain(gateway: &Node, path: &str) {
    let authority = gateway.url().replace("http://", "");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_hung_takes_no_device_from_those_who_went_elsewhere() {
    const DEVICES: usize = 40;
    let system = SystemSpec::distributed(2, 1).start().await;
    let [alice] = system.people(["Alice"]).await;
    let (hung, sound) = (system.gateway(0), system.gateway(1));
    let path = |device: usize| format!("/ws?token={}&deviceId=device-{device}", alice.token);
    let connect = async |gateway: &Node| {
        let opened = (0..DEVICES).map(|device| {
            let (url, path) = (gateway.url(), path(device));
            async move {
                let socket = Socket::open(&url, &path).await;
                socket.event("session.ready", |_| true).await;
                socket
            }
        });
        futures_util::future::join_all(opened).await
    };
    let before = connect(hung).await;
    hung.pause();
    drop(before);
    for device in 0..DEVICES {
        ask_in_vain(hung, &path(device)).await;
    }
    let after = connect(sound).await;
    hung.resume();
    // Whoever comes last is accepted last.
    let last = alice.connect(hung).await;
    let one_is_left = || async { hung.try_metric("chat_sockets", &[]).await == Some(1.0) };
    until(Duration::from_secs(20), one_is_left).await;
    // Those who connected elsewhere, and the last one.
    let devices = || async { system.redis().command(&format!("HLEN chat:socket:{}", alice.id)).await.unwrap() };
    until(Duration::from_secs(10), || async { devices().await.starts_with(&format!(":{}\r", DEVICES + 1)) }).await;
    for (device, socket) in after.iter().enumerate() {
        assert!(socket.is_open(), "device {device} was sent away: {:?}", socket.closed().await);
    }
    drop(last);
}
