//! Opening engines from settings.

use std::time::{Duration, Instant};

use config::{Role, Settings};
use engine::{Engine, EngineKind};
use runtime::{Shutdown, Tasks};

const KEYS: &str = "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_opens_in_an_empty_folder_and_answers_on_all_ports() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let pairs = [("DATA_DIR", data_dir.to_str().expect("UTF-8")), ("HMAC_KEYS", KEYS)];
    let settings = Settings::from_pairs(Role::AllInOne, &pairs).expect("fine");
    let tasks = Tasks::new(Shutdown::new());
    let engine = Box::pin(Engine::open(&settings, &tasks)).await.expect("opened");
    assert_eq!((engine.kind, engine.broker.shards()), (EngineKind::Embedded, 1));
    let health = engine.health(&tasks);
    health.probed().await;
    assert!(health.failing().is_empty(), "{:?}", health.failing());
    assert!(data_dir.join("chat.db").exists() && data_dir.join("queue.db").exists());
    tasks.shutdown().request();
    engine.close().await;
    assert!(tasks.drained(Duration::from_secs(10)).await && !tasks.failed());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unreachable_dependency_is_named_at_once_and_no_password_shown() {
    // Nobody listens on port 1.
    let pairs = [
        ("DATABASE_URL", "postgres://chat:hush@127.0.0.1:1/chat"),
        ("REDIS_URL", "redis://:hush@127.0.0.1:1/0"),
        ("RABBITMQ_URL", "amqp://chat:hush@127.0.0.1:1/%2F"),
        ("HMAC_KEYS", KEYS),
        ("STARTUP_WAIT", "1s"),
    ];
    let settings = Settings::from_pairs(Role::AllInOne, &pairs).expect("well-formed");
    let started = Instant::now();
    let error = Box::pin(Engine::open(&settings, &Tasks::new(Shutdown::new()))).await.err().expect("nobody is there");
    let names: Vec<&str> = error.0.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["DATABASE_URL", "RABBITMQ_URL", "REDIS_URL"]);
    let text = error.to_string();
    assert!(text.lines().count() == 3 && !text.contains("hush"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
