//! Services and processes that run into their limits, and what tests see of them meanwhile.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use testkit::folder::{Folder, may_mount, small_disk};
use testkit::management::{Management, QueueDepth};
use testkit::process::Process;
use testkit::services::{
    PrivateRabbit, RedisServer, cut_sessions, cut_transactions, free_port, fresh_postgres, fresh_rabbitmq,
    management_url,
};
use testkit::{PATIENCE, until};

#[tokio::test]
async fn a_full_disk_of_the_broker_is_an_alarm_until_it_ends() {
    let rabbit = PrivateRabbit::start().await;
    let management = rabbit.management();
    rabbit.raise_disk_alarm().await;
    assert_eq!(management.alarms().await.unwrap().into_iter().collect::<Vec<_>>(), ["disk space"]);
    let is_flagged = || async { management.try_nodes().await.unwrap()[0]["disk_free_alarm"] == true };
    until(PATIENCE, is_flagged).await;
    rabbit.end_disk_alarm().await;
    assert!(management.alarms().await.unwrap().is_empty());
    rabbit.kill9().await;
    assert!(management.alarms().await.is_err());
    assert!(management.try_queue_depths().await.is_err());
    assert!(management.try_look("q", 1).await.is_err());
}

#[tokio::test]
async fn the_depth_of_a_queue_is_known_at_once() {
    let url = fresh_rabbitmq().await;
    let vhost = url.rsplit_once('/').unwrap().1;
    let management = Management::new(&management_url().await, vhost);
    assert!(management.queue_depths().await.is_empty());
    management.create_queue("one").await;
    management.create_queue("other").await;
    for count in 1..=40 {
        assert!(management.publish("amq.default", "one", &json!({}), "").await);
        let expected = QueueDepth { messages_ready: count, ..QueueDepth::default() };
        assert_eq!(management.queue_depths().await["one"], expected);
    }
    assert_eq!(management.queue_depths().await["other"], QueueDepth::default());
    assert_eq!(management.take("one", 30).await.len(), 30);
    assert_eq!(management.queue_depths().await["one"].messages_ready, 10);
}

#[tokio::test]
async fn without_a_broker_the_management_api_is_an_error() {
    let management = Management::new(&format!("http://127.0.0.1:{}", free_port()), "/");
    assert!(management.try_queue_depths().await.is_err());
}

async fn session(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

/// How many sessions of the database wait in `pg_sleep` now.
async fn sleepers(url: &str) -> i64 {
    let count = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    sqlx::query_scalar(count).fetch_one(&mut session(url).await).await.unwrap()
}

#[tokio::test]
async fn sessions_in_a_transaction_are_cut_and_idle_ones_and_other_databases_are_not() {
    let (url, other_url) = (fresh_postgres().await, fresh_postgres().await);
    let (mut idle, mut waiting, mut busy) = (session(&url).await, session(&url).await, session(&url).await);
    let mut other = session(&other_url).await;
    for connection in [&mut waiting, &mut other] {
        connection.execute("begin").await.unwrap();
        connection.execute("create table t (n bigint)").await.unwrap();
    }
    let at_work = async { busy.execute("select pg_sleep(20)").await.is_err() };
    let cut = async {
        until(PATIENCE, || async { sleepers(&url).await == 1 }).await;
        cut_transactions(&url, Duration::from_millis(200)).await
    };
    let (was_cut, count) = tokio::join!(at_work, cut);
    assert!(was_cut);
    assert_eq!(count.unwrap(), 2);
    assert!(waiting.execute("commit").await.is_err());
    other.execute("commit").await.unwrap();
    idle.ping().await.unwrap();
    // What was cut was not committed.
    idle.execute("create table t (n bigint)").await.unwrap();
}

#[tokio::test]
async fn all_sessions_of_a_database_are_cut_at_once() {
    let (url, other_url) = (fresh_postgres().await, fresh_postgres().await);
    let (mut idle, mut other) = (session(&url).await, session(&other_url).await);
    assert_eq!(cut_sessions(&url).await.unwrap(), 1);
    assert!(idle.ping().await.is_err());
    other.ping().await.unwrap();
    assert!(cut_sessions(&format!("postgres://nobody@127.0.0.1:{}/x", free_port())).await.is_err());
}

#[tokio::test]
async fn redis_answers_with_values() {
    let redis = RedisServer::start().await;
    let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    assert_eq!(redis.query(&["SET", "a key", "two\r\nlines"]).await.unwrap(), ["OK"]);
    assert_eq!(redis.query(&["GET", "a key"]).await.unwrap(), ["two\r\nlines"]);
    assert_eq!(redis.query(&["GET", "none"]).await.unwrap(), strings(&[]));
    assert_eq!(redis.query(&["ZADD", "z", "1", "one", "2", "two"]).await.unwrap(), ["2"]);
    assert_eq!(redis.query(&["ZRANGE", "z", "0", "-1", "WITHSCORES"]).await.unwrap(), ["one", "1", "two", "2"]);
    let mut keys = redis.query(&["KEYS", "*"]).await.unwrap();
    keys.sort();
    assert_eq!(keys, ["a key", "z"]);
    assert_eq!(redis.query(&["SCAN", "0", "MATCH", "z*"]).await.unwrap(), ["0", "z"]);
    assert_eq!(redis.query(&["PUBSUB", "CHANNELS"]).await.unwrap(), strings(&[]));
    assert!(redis.query(&["ZCARD", "a key"]).await.unwrap_err().to_string().starts_with("WRONGTYPE"));
    redis.kill9().await;
    assert!(redis.query(&["PING"]).await.is_err());
}

/// Appends a line to `data` every 10 ms and says how that went, until it is ended.
const WRITER: &str =
    "trap '' XFSZ; while :; do if echo 0123456789 >> data; then echo good; else echo bad; fi; sleep 0.01; done";

fn writer(folder: &Path, piped: bool) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", WRITER]).current_dir(folder);
    let log = folder.join("log");
    if piped { Process::spawn_with_piped_log("writer", command, &log) } else { Process::spawn("writer", command, &log) }
}

fn count(log: &str, word: &str) -> usize {
    log.lines().filter(|line| *line == word).count()
}

async fn until_one_more(process: &Process, word: &str) {
    let before = count(&process.log(), word);
    until(PATIENCE, || async { count(&process.log(), word) > before }).await;
}

#[tokio::test]
async fn writes_beyond_the_limit_fail_until_it_is_lifted_and_the_log_goes_on() {
    let folder = Folder::new();
    let process = writer(folder.path(), true);
    until_one_more(&process, "good").await;
    process.limit_file_size(Some(0));
    until_one_more(&process, "bad").await;
    let size = || folder.path().join("data").metadata().unwrap().len();
    let full = size();
    until_one_more(&process, "bad").await;
    assert_eq!(size(), full);
    process.limit_file_size(None);
    until_one_more(&process, "good").await;
    assert!(size() > full);
    process.limit_file_size(Some(size() + 30));
    until_one_more(&process, "bad").await;
    process.kill9().await;
    process.limit_file_size(None);
}

#[test]
fn a_piped_log_is_whole_when_the_process_has_ended() {
    let folder = Folder::new();
    for round in 1..=20 {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1000; echo last >&2"]);
        let process = Process::spawn_with_piped_log("talker", command, &folder.path().join("log"));
        while process.ended().is_none() {
            std::thread::yield_now();
        }
        let log = process.log();
        assert_eq!(log.lines().count(), 1001 * round);
        assert_eq!(log.lines().last(), Some("last"));
    }
}

#[tokio::test]
async fn a_small_disk_fills_up_and_has_room_again_and_goes_away() {
    if !may_mount("a_small_disk_fills_up_and_has_room_again_and_goes_away") {
        return;
    }
    let disk = small_disk(1024 * 1024).unwrap();
    let path = disk.path().to_owned();
    let process = writer(&path, false);
    until_one_more(&process, "good").await;
    assert!(disk.fill(8192) > 500_000);
    // A little room was left.
    std::fs::write(path.join("small"), [1; 4096]).unwrap();
    disk.fill(0);
    let error = std::fs::write(path.join("one more"), [1; 8192]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.relieve();
    std::fs::write(path.join("one more"), [1; 8192]).unwrap();
    let before = path.join("data").metadata().unwrap().len();
    until(PATIENCE, || async { path.join("data").metadata().unwrap().len() > before }).await;
    // In use still, but not in the way.
    drop(disk);
    assert!(!path.exists());
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains(path.to_str().unwrap()));
}
