//! Whole systems under a harness: behind proxies, with clocks that move, with processors that come and go.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use testkit::client::{Person, Rest, Socket};
use testkit::cluster::{Node, Removal, Service, System, SystemSpec};
use testkit::proxy::Weather;
use testkit::services::fresh_postgres;
use testkit::{PATIENCE, until};

fn labels(system: &System) -> BTreeSet<String> {
    system.proxies().map(|(label, service, _)| format!("{label} {service}")).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// How far ahead of ours a gateway's clock runs, in whole seconds.
async fn clock_ahead_s(socket: &Socket) -> i64 {
    let time = socket.request("ping", json!({})).await["serverTime"].as_str().unwrap().to_owned();
    let time: sqlx::types::chrono::DateTime<sqlx::types::chrono::Utc> = time.parse().unwrap();
    time.timestamp() - testkit::token::now_s()
}

async fn until_ahead(socket: &Socket, seconds: i64) {
    until(PATIENCE, || async { (clock_ahead_s(socket).await - seconds).abs() <= 1 }).await;
}

async fn delivers(system: &System, alice: &Person, name: &str) -> bool {
    let room = alice.create_group(&[]).await;
    let socket = alice.connect(system.gateway(0)).await;
    let ack = socket.say(&room, name, "hello").await;
    ack["status"] == "QUEUED" && socket.delivered(&room, 1).await.len() == 1
}

#[tokio::test]
async fn every_program_has_proxies_of_its_own_and_keeps_them() {
    // Also for an address that the test gives.
    let spec = SystemSpec::distributed(2, 1).env("DATABASE_URL", &fresh_postgres().await);
    let mut system = spec.proxied().start().await;
    let of = |label: &str| ["clients", "postgres", "rabbitmq", "redis"].map(|service| format!("{label} {service}"));
    let mut all: BTreeSet<String> =
        ["api-0", "gateway-0", "gateway-1", "processor-0"].iter().flat_map(|l| of(l)).collect();
    all.remove("processor-0 clients");
    assert_eq!(labels(&system), all);
    let [alice] = system.people(["Alice"]).await;
    assert!(delivers(&system, &alice, "one").await);
    for (label, service, proxy) in system.proxies() {
        let untouched = ["api-0", "gateway-1"].contains(&label) && service == Service::Clients;
        assert_eq!(proxy.traffic().towards_server_bytes > 0, !untouched, "{label} {service}");
    }
    let ports = |system: &System| system.proxies().map(|(_, _, proxy)| proxy.port()).collect::<Vec<_>>();
    let before = ports(&system);

    // Clients are cut off, the program is not.
    system.gateway_proxy(0).set(Weather::Cut);
    let gateway = system.gateway(0);
    assert!(Socket::try_open(&gateway.clients_url(), "/ws", &[]).await.is_err());
    assert_eq!(gateway.readyz().await, Some(200));
    system.gateway_proxy(0).set(Weather::Fine);

    let processor = &system.processors[0];
    let database = processor.proxy(Service::Postgres).unwrap();
    database.set(Weather::Cut);
    processor.kill9().await;
    // What is set later is behind the proxy as well.
    processor.set_env("DATABASE_URL", system.env("DATABASE_URL"));
    let opened = database.traffic().opened;
    processor.spawn_again();
    until(PATIENCE, || async { database.traffic().opened > opened }).await;
    assert!(!processor.try_wait_ready(Duration::from_millis(100)).await, "it is ready without its database");
    database.set(Weather::Fine);
    assert!(processor.try_wait_ready(2 * PATIENCE).await);
    assert_eq!(ports(&system), before);
    let rest = Rest::new(&system.api().clients_url()).with_token(&alice.token);
    assert_eq!(rest.get("/api/v1/conversations").await.status, 200);

    // One that comes has proxies too, and one that goes takes them with it.
    system.add_processor().await;
    let with_two = set(&["processor-1 postgres", "processor-1 rabbitmq", "processor-1 redis"]);
    assert_eq!(labels(&system), &all | &with_two);
    let ended = system.remove_processor(0, Removal::Terminate(PATIENCE)).await;
    assert!(ended.unwrap().success());
    assert_eq!(system.processors[0].label(), "processor-1");
    assert!(delivers(&system, &alice, "two").await);
    assert!(system.remove_processor(0, Removal::Kill9).await.is_some_and(|ended| !ended.success()));
    assert!(system.processors.is_empty());
}

#[tokio::test]
async fn a_paused_or_ended_program_is_never_waited_for_and_clocks_move_while_programs_run() {
    let spec = SystemSpec::distributed(2, 1).movable_clocks().clocks_ahead(&[0, -3]);
    let mut system = spec.start().await;
    let [alice] = system.people(["Alice"]).await;
    let (one, other) = (alice.connect(system.gateway(0)).await, alice.connect(system.gateway(1)).await);
    until_ahead(&one, 0).await;
    until_ahead(&other, -3).await;
    for seconds in [5, -5, 0, 30] {
        system.gateway(0).set_clock_ahead(seconds);
        until_ahead(&one, seconds).await;
    }
    until_ahead(&other, -3).await;
    restart(system.gateway(0)).await;
    until_ahead(&alice.connect(system.gateway(0)).await, 30).await;

    let processor = &system.processors[0];
    processor.pause();
    assert!(processor.is_paused());
    assert!(!processor.try_wait_ready(2 * PATIENCE).await);
    assert_eq!(system.not_ready(PATIENCE).await, Vec::<String>::new());
    assert_eq!(processor.try_metric("chat_shards_owned", &[]).await, None, "it does not answer");
    // SIGTERM reaches it all the same.
    let ended = system.remove_processor(0, Removal::Terminate(PATIENCE)).await;
    assert!(ended.is_some_and(|ended| ended.success()));
    system.gateway(1).kill9().await;
    assert!(!system.gateway(1).try_wait_ready(2 * PATIENCE).await);
    assert_eq!(system.not_ready(PATIENCE).await, ["gateway-1"]);
}

async fn restart(node: &Node) {
    node.terminate(PATIENCE).await;
    node.start_again().await;
}

#[tokio::test]
async fn the_all_in_one_meets_a_limit_for_its_files_and_lives_on_when_it_is_lifted() {
    let system = SystemSpec::all_in_one().limitable_files().proxied().start().await;
    assert_eq!(labels(&system), set(&["chatchit-0 clients"]));
    let [alice] = system.people(["Alice"]).await;
    let node = system.gateway(0);
    let form = json!({"type": "group", "title": "A room", "memberIds": []});
    let create = || async { alice.rest.post("/api/v1/conversations", form.clone()).await.status };
    assert_eq!(create().await, 201);
    assert_eq!(node.try_metric("chat_shards_owned", &[]).await, Some(1.0));
    assert_eq!(node.try_metric("chat_shards_owned_by_nobody", &[]).await, None, "nobody counts that");
    assert_eq!(node.try_metric("chat_dependency_up", &["dependency=\"weather\""]).await, None, "nor that");
    node.limit_file_size(Some(0));
    assert!(create().await >= 500);
    node.limit_file_size(None);
    until(PATIENCE, || async { create().await == 201 }).await;
    assert!(delivers(&system, &alice, "after").await);
    node.limit_file_size(Some(0));
    restart(node).await;
    until(PATIENCE, || async { create().await == 201 }).await;
}
