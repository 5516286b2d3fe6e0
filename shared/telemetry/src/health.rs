//! Whether this process works and should get traffic: `/healthz`, `/readyz`, `/health`, `/metrics`.
//!
//! Dependencies are probed in the background, each on its own and once a second, so that asking
//! costs nothing and a dependency that hangs cannot hang the answer. The invariant: an answer is
//! never older than an interval and a time-out together, which is less than five seconds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderName, StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use runtime::{Shutdown, Tasks};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::Gauge;

const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBE_LIMIT: Duration = Duration::from_secs(2);

type Probe = dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// A dependency and how to ask it.
pub struct Check {
    name: &'static str,
    probe: Box<Probe>,
}

impl Check {
    /// A check called `name` (also its label in metrics); the error of `probe` goes to the log only.
    pub fn new<F, Fut>(name: &'static str, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, probe: Box::new(move || Box::pin(probe())) }
    }
}

/// What the last probe of a dependency said.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Outcome {
    up: bool,
    latency: Duration,
}

/// A dependency's name and the outcome of its last probe; `None` before the first.
type Watched = (&'static str, watch::Receiver<Option<Outcome>>);

/// The newest outcome of every check; clones share it.
#[derive(Clone)]
pub struct Health {
    outcomes: Arc<[Watched]>,
}

impl Health {
    /// Probes every check from now on, once a second.
    pub fn new(checks: Vec<Check>, tasks: &Tasks) -> Self {
        let watched = checks.into_iter().map(|check| {
            let (sender, receiver) = watch::channel(None);
            let name = check.name;
            tasks.own("health", keep_probing(check, sender, tasks.shutdown().clone()));
            (name, receiver)
        });
        Self { outcomes: watched.collect() }
    }

    /// Waits until every check was probed once.
    pub async fn probed(&self) {
        for (_, outcome) in self.outcomes.iter() {
            // An error means that the service is stopping; then there is nothing to wait for.
            let _ = outcome.clone().wait_for(Option::is_some).await;
        }
    }

    /// The names of the checks that do not pass now.
    pub fn failing(&self) -> Vec<&'static str> {
        let up = |outcome: Option<Outcome>| outcome.is_some_and(|outcome| outcome.up);
        self.outcomes.iter().filter(|(_, outcome)| !up(*outcome.borrow())).map(|(name, _)| *name).collect()
    }

    /// `{status, checks: {name: {status, latencyMs}}}`
    fn report(&self) -> Value {
        let check = |outcome: Option<Outcome>| {
            let up = outcome.is_some_and(|outcome| outcome.up);
            let latency_ms = outcome.map_or(0.0, |outcome| outcome.latency.as_secs_f64() * 1000.0);
            json!({ "status": if up { "ok" } else { "down" }, "latencyMs": (latency_ms * 100.0).round() / 100.0 })
        };
        let checks: Map<String, Value> =
            self.outcomes.iter().map(|(name, outcome)| ((*name).to_owned(), check(*outcome.borrow()))).collect();
        json!({ "status": if self.failing().is_empty() { "ok" } else { "degraded" }, "checks": checks })
    }
}

async fn keep_probing(check: Check, outcomes: watch::Sender<Option<Outcome>>, shutdown: Shutdown) {
    loop {
        let started = Instant::now();
        let answer = tokio::select! {
            answer = tokio::time::timeout(PROBE_LIMIT, (check.probe)()) => answer,
            () = shutdown.requested() => return,
        };
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let outcome = Outcome { up: answer.is_ok(), latency: started.elapsed() };
        let before = outcomes.send_replace(Some(outcome));
        log_change(check.name, before, answer);
        Gauge::DependencyUp.set_with(check.name, if outcome.up { 1.0 } else { 0.0 });
        tokio::select! {
            () = tokio::time::sleep(PROBE_EVERY) => {}
            () = shutdown.requested() => return,
        }
    }
}

fn log_change(dependency: &'static str, before: Option<Outcome>, answer: Result<(), String>) {
    let was_up = before.is_none_or(|outcome| outcome.up);
    match answer {
        Err(error) if was_up => tracing::warn!(dependency, error, "dependency lost"),
        Ok(()) if !was_up => tracing::info!(dependency, "dependency is back"),
        _ => {}
    }
}

/// Whether traffic should come here; clones share it.
#[derive(Clone)]
pub struct Readiness {
    health: Health,
    draining: Arc<AtomicBool>,
}

impl Readiness {
    /// Ready while every check of `health` passes and until `drain`.
    pub fn new(health: Health) -> Self {
        Self { health, draining: Arc::default() }
    }

    /// Never ready again: new traffic goes elsewhere while what is open ends well.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// True if traffic should come here.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.health.failing().is_empty()
    }

    fn report(&self) -> Value {
        if self.draining.load(Ordering::Relaxed) {
            return json!({ "status": "draining" });
        }
        match self.health.failing() {
            failing if failing.is_empty() => json!({ "status": "ready" }),
            failing => json!({ "status": "waiting", "failing": failing }),
        }
    }
}

#[derive(Clone)]
struct Admin {
    health: Health,
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// `/healthz` (the process answers), `/readyz` (send traffic), `/health` (why not), `/metrics`.
pub fn admin_router(health: Health, readiness: Readiness, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(async || answer(true, &json!({ "status": "ok" }))))
        .route(
            "/readyz",
            get(async |State(admin): State<Admin>| answer(admin.readiness.is_ready(), &admin.readiness.report())),
        )
        .route(
            "/health",
            get(async |State(admin): State<Admin>| answer(admin.health.failing().is_empty(), &admin.health.report())),
        )
        .route(
            "/metrics",
            get(async |State(admin): State<Admin>| {
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render())
            }),
        )
        .with_state(Admin { health, readiness, metrics })
}

fn answer(fine: bool, body: &Value) -> Response {
    let status = if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}
