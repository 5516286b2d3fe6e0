//! The private services are real, separate from one another, and gone with their owner.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::folder::small_disk;
use testkit::management::Management;
use testkit::services::{PrivatePostgres, PrivateRabbit, RedisServer, fresh_postgres, fresh_rabbitmq, management_url};
use testkit::{PATIENCE, until};

#[tokio::test]
async fn every_fresh_database_is_another_one() {
    use sqlx::{Connection as _, Executor as _};
    let (one, other) = (fresh_postgres().await, fresh_postgres().await);
    let mut one = sqlx::PgConnection::connect(&one).await.unwrap();
    let mut other = sqlx::PgConnection::connect(&other).await.unwrap();
    one.execute("create table t (n bigint)").await.unwrap();
    other.execute("create table t (n bigint)").await.unwrap();
}

#[tokio::test]
async fn a_fresh_virtual_host_is_empty_and_usable() {
    let url = fresh_rabbitmq().await;
    let vhost = url.rsplit_once('/').unwrap().1;
    let management = Management::new(&management_url().await, vhost);
    assert!(management.queues().await.is_empty());
}

#[tokio::test]
async fn redis_comes_back_empty_on_the_same_address() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    redis.command("SET a 1").await.unwrap();
    redis.stop().await;
    assert!(redis.command("PING").await.is_err());
    redis.start_again().await;
    assert_eq!(redis.url(), url);
    assert!(redis.command("GET a").await.unwrap().starts_with("$-1"));
    redis.kill9().await;
    redis.start_again().await;
}

#[tokio::test]
async fn private_nodes_keep_their_data_over_a_kill() {
    use sqlx::{Connection as _, Executor as _};
    let (postgres, rabbit) = tokio::join!(PrivatePostgres::start(), PrivateRabbit::start());
    let mut connection = sqlx::PgConnection::connect(&postgres.url()).await.unwrap();
    connection.execute("create table t (n bigint)").await.unwrap();
    tokio::join!(postgres.kill9(), rabbit.kill9());
    assert!(sqlx::PgConnection::connect(&postgres.url()).await.is_err());
    tokio::join!(postgres.start_again(), rabbit.start_again());
    let mut connection = sqlx::PgConnection::connect(&postgres.url()).await.unwrap();
    connection.execute("insert into t values (1)").await.unwrap();
    postgres.pause().await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), connection.ping()).await;
    assert!(waiting.is_err(), "a paused server answers nothing");
    postgres.resume().await;
    until(PATIENCE, || async { sqlx::PgConnection::connect(&postgres.url()).await.is_ok() }).await;
    assert!(rabbit.management().queues().await.is_empty());
}

const URL_FILE: &str = "TESTKIT_URL_FILE";

/// The victim of the next test, which runs it in a process of its own; by itself it does nothing.
#[tokio::test]
async fn a_process_that_will_be_killed() {
    let Ok(file) = std::env::var(URL_FILE) else { return };
    let redis = RedisServer::start().await;
    // May be none, where nobody may mount.
    let disk = small_disk(1024 * 1024);
    let mounted = disk.as_ref().map(|disk| disk.path().display().to_string()).unwrap_or_default();
    std::fs::write(file, format!("{}\n{mounted}\n", redis.url())).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn what_a_killed_test_started_is_ended() {
    let folder = testkit::folder::Folder::new();
    let file = folder.path().join("url");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_will_be_killed"])
        .env(URL_FILE, &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until(PATIENCE, || async { std::fs::read_to_string(&file).is_ok_and(|lines| lines.ends_with('\n')) }).await;
    let lines = std::fs::read_to_string(&file).unwrap();
    let (url, mounted) = lines.trim_end_matches('\n').split_once('\n').unwrap_or((lines.trim_end(), ""));
    let address = url.trim_start_matches("redis://").trim_end_matches("/0").to_owned();
    assert!(std::net::TcpStream::connect(&address).is_ok());
    victim.kill().unwrap();
    victim.wait().unwrap();
    until(PATIENCE, || async { std::net::TcpStream::connect(&address).is_err() }).await;
    if !mounted.is_empty() {
        let mounts = || std::fs::read_to_string("/proc/mounts").unwrap();
        until(PATIENCE, || async { !mounts().contains(mounted) && !Path::new(mounted).exists() }).await;
    }
}
