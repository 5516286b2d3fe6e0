//! What `/healthz`, `/readyz`, `/health` and `/metrics` promise.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::Server;
use runtime::{Shutdown, Tasks};
use telemetry::{Check, Health, Readiness, admin_router, recorder};

struct System {
    server: Server,
    readiness: Readiness,
    broker_up: Arc<AtomicBool>,
}

async fn system() -> System {
    let metrics = recorder::install();
    let broker_up = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&broker_up);
    let broker = Check::new("broker", move || {
        let up = seen.load(Ordering::SeqCst);
        async move { if up { Ok(()) } else { Err("at secret-host: refused".to_owned()) } }
    });
    let tasks = Tasks::new(Shutdown::new());
    let health = Health::new(vec![Check::new("store", async || Ok(())), broker], &tasks);
    health.probed().await;
    let readiness = Readiness::new(health.clone());
    let router = admin_router(health, readiness.clone(), metrics);
    System { server: Server::start_with(router, tasks).await, readiness, broker_up }
}

impl System {
    async fn await_ready(&self, wanted: u16) -> Duration {
        let started = Instant::now();
        while self.server.get("/readyz").await.0 != wanted {
            assert!(started.elapsed() < Duration::from_secs(5), "/readyz should be {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    }
}

#[tokio::test]
async fn a_system_whose_parts_answer_is_healthy_and_ready() {
    let system = system().await;
    assert_eq!(system.server.get("/healthz").await.0, 200);
    assert_eq!(system.server.get("/readyz").await, (200, r#"{"status":"ready"}"#.to_owned()));
    let (status, body) = system.server.get("/health").await;
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["status"]), (200, &"ok".into()));
    assert_eq!(body["checks"]["store"]["status"], "ok");
    assert!(body["checks"]["broker"]["latencyMs"].is_number(), "{body}");
}

#[tokio::test]
async fn a_lost_dependency_is_told_within_five_seconds_and_so_is_its_return() {
    let system = system().await;
    system.broker_up.store(false, Ordering::SeqCst);
    system.await_ready(503).await;
    let (status, body) = system.server.get("/health").await;
    assert_eq!(status, 503);
    assert!(body.contains("degraded") && body.contains(r#""broker":{"latencyMs""#), "{body}");
    assert!(!body.contains("secret-host"), "errors are for the log: {body}");
    assert_eq!(system.server.get("/healthz").await.0, 200, "the process itself is fine");
    system.broker_up.store(true, Ordering::SeqCst);
    system.await_ready(200).await;
}

#[tokio::test]
async fn who_drains_is_not_ready_but_healthy() {
    let system = system().await;
    system.readiness.drain();
    assert_eq!(system.server.get("/readyz").await, (503, r#"{"status":"draining"}"#.to_owned()));
    assert_eq!(system.server.get("/health").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_hangs_counts_as_lost() {
    let tasks = Tasks::new(Shutdown::new());
    let health = Health::new(vec![Check::new("store", pending)], &tasks);
    let started = tokio::time::Instant::now();
    health.probed().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(health.failing(), ["store"]);
    tasks.shutdown().request();
    assert!(tasks.drained(Duration::from_secs(5)).await && !tasks.failed());
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let system = system().await;
    let (status, body) = system.server.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("chat_dependency_up{dependency=\"broker\"} 1"), "{body}");
    let again = system.server.get("/metrics").await.1;
    assert!(again.contains("chat_http_seconds_bucket{route=\"/metrics\""), "requests are measured by route");
    assert!(again.contains("chat_http_requests_total{status=\"2xx\"}"), "and counted by status");
}
