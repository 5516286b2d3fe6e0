//! A database that goes away: transient errors in time, and recovery without help.

use std::time::{Duration, Instant};

use domain::UserId;
use store::{Store, StoreError, StoreSettings};
use testkit::services::PrivatePostgres;
use testkit::{PATIENCE, until};
use uuid::Uuid;

use crate::bench::{Bench, begin, new_group, new_user};

/// What a caller may have to wait for an answer while the database is away.
const ANSWER_LIMIT: Duration = Duration::from_millis(3500);

async fn open(server: &PrivatePostgres) -> Store {
    let store = Store::open(StoreSettings::Postgres { url: server.url(), max_connections: 4 }).await.expect("opens");
    store.migrate().await.expect("migrates");
    store
}

async fn expect_unavailable(store: &Store, user: UserId) {
    for _ in 0..6 {
        let began = Instant::now();
        let error = store.user(user).await.expect_err("nobody answers");
        assert!(error.is_transient(), "{error}");
        assert!(began.elapsed() < ANSWER_LIMIT, "{:?}", began.elapsed());
    }
    let began = Instant::now();
    assert!(store.ping().await.expect_err("nobody answers").is_transient());
    assert!(began.elapsed() < ANSWER_LIMIT, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_postgres_is_unavailable_in_time_and_recovers_by_itself() {
    let server = PrivatePostgres::start().await;
    let store = open(&server).await;
    let ann = UserId::generate();
    store.create_user(&new_user(ann, "ann@example.com")).await.expect("made");
    let room = new_group(domain::RoomId::generate(), &[ann]);
    store.create_room(&room).await.expect("made");
    let mut leases = store.shard_leases(Uuid::now_v7(), 1).await.expect("a session");
    let batch = begin(&store, room.id, &[ann]).await.expect("begins");

    server.stop().await;
    let lost = batch
        .commit(store::Writes { titles: vec![(room.id, "x".into(), domain::Timestamp(1))], ..Default::default() })
        .await;
    assert!(lost.expect_err("its connection is gone").is_transient());
    assert!(leases.tick().await.expect_err("its session is gone").is_transient());
    expect_unavailable(&store, ann).await;
    let refused = Store::open(StoreSettings::Postgres { url: server.url(), max_connections: 2 }).await;
    assert!(refused.expect_err("nobody listens").is_transient());

    server.start_again().await;
    until(PATIENCE, || async { store.ping().await.is_ok() }).await;
    assert!(store.user(ann).await.expect("answers").is_some());
    assert_eq!(store.room(room.id).await.expect("answers").expect("is there").title.as_deref(), Some("Weekend"));
    store.shard_leases(Uuid::now_v7(), 1).await.expect("a new session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_hangs_is_unavailable_in_time_and_recovers_by_itself() {
    let server = PrivatePostgres::start().await;
    let store = open(&server).await;
    let ann = UserId::generate();
    store.create_user(&new_user(ann, "ann@example.com")).await.expect("made");
    let mut leases = store.shard_leases(Uuid::now_v7(), 1).await.expect("a session");

    server.pause().await;
    let began = Instant::now();
    assert!(leases.tick().await.expect_err("no answer").is_transient());
    assert!(began.elapsed() < Duration::from_secs(2), "before the server could give the lease to another");
    expect_unavailable(&store, ann).await;

    server.resume().await;
    until(PATIENCE, || async { store.user(ann).await.is_ok_and(|user| user.is_some()) }).await;
    for _ in 0..8 {
        store.user(ann).await.expect("all connections work again");
    }
}

#[tokio::test]
async fn a_session_that_the_server_ends_is_a_transient_error_and_is_replaced() {
    let bench = Bench::postgres().await;
    let ann = bench.user().await;
    let StoreSettings::Postgres { url, .. } = &bench.settings else { unreachable!("a Postgres bench") };
    let end_all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'chatchit'";
    let mut conn = <sqlx::PgConnection as sqlx::Connection>::connect(url).await.expect("connects");
    let ended: i64 = sqlx::query_scalar(end_all).fetch_one(&mut conn).await.expect("ends them");
    assert!(ended > 0);
    until(PATIENCE, || async {
        match bench.store.user(ann).await {
            Ok(user) => user.is_some(),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                false
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_malformed_address_is_no_outage_and_its_password_is_not_told() {
    let url = "postgres://user:hunter2@host:notaport/db".to_owned();
    let error = Store::open(StoreSettings::Postgres { url, max_connections: 2 }).await.expect_err("malformed");
    assert!(matches!(&error, StoreError::Rejected(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_file_that_another_process_writes_is_waited_for_and_then_unavailable() {
    let bench = Bench::sqlite().await;
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let other = bench.second().await;
    let held = begin(&other, room, &[]).await.expect("begins");
    let began = Instant::now();
    let error = begin(&bench.store, room, &[]).await.expect_err("the file is locked");
    assert!(error.is_transient(), "{error}");
    assert!(began.elapsed() < ANSWER_LIMIT, "{:?}", began.elapsed());
    assert!(bench.store.user(ann).await.expect("readers do not wait").is_some());
    drop(held);
    bench.say(room, ann, &["goes on"]).await;
}

#[tokio::test]
async fn what_was_committed_is_moved_into_the_file_beside_the_writer() {
    let bench = Bench::sqlite().await;
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let StoreSettings::Sqlite { path, .. } = &bench.settings else { unreachable!("a SQLite bench") };
    let size = || std::fs::metadata(path).expect("the file is there").len();
    let before = size();
    // Less than a writer would checkpoint by itself.
    let text = "x".repeat(10_000);
    bench.say(room, ann, &vec![text.as_str(); 50]).await;
    until(PATIENCE, || async { size() > before + 400_000 }).await;
}
