//! What the main functions of all services have in common: settings, logs, listeners, an end.
//!
//! Knows no service. The invariant: exit code 2 and lines on standard error before anything
//! listens if the configuration is wrong; 0 after an orderly end; 1 if a task failed.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use config::{Problem, Role, Settings};
use runtime::{Shutdown, Tasks};
use telemetry::recorder::{self, PrometheusHandle};
use telemetry::{Health, Readiness, admin_router, http, logs};
use tokio::net::TcpListener;

use crate::{Engine, OpenError};

/// How long tasks may take to end after the stop.
const END_LIMIT: Duration = Duration::from_secs(10);
/// What cannot be configured that way.
const MISCONFIGURED: u8 = 2;

/// Any error that ends a service.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A service whose engine is open; its own main adds what is special.
pub struct Service {
    /// Its settings.
    pub settings: Arc<Settings>,
    /// Its engine.
    pub engine: Engine,
    /// Its tasks. They are told to end only after the body of `run` has returned.
    pub tasks: Tasks,
    stop: Shutdown,
    /// The listeners and the requests under way: they end first, while the engine still works.
    http: Tasks,
    health: Health,
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// Reads the environment, then runs the service: see `run_with`.
pub fn run<F>(role: Role, body: F) -> ExitCode
where
    F: AsyncFnOnce(Service) -> Result<(), Failure>,
{
    match Settings::from_env(role) {
        Ok(settings) => run_with(settings, body),
        Err(problems) => refuse(&problems),
    }
}

/// Starts logs and metrics, opens the engine, runs `body`, then ends all tasks and closes the engine.
pub fn run_with<F>(settings: Settings, body: F) -> ExitCode
where
    F: AsyncFnOnce(Service) -> Result<(), Failure>,
{
    block_on(&settings.clone(), async {
        let service = Box::pin(Service::open(settings)).await?;
        let (engine, tasks, http) = (service.engine.clone(), service.tasks.clone(), service.http.clone());
        let outcome = body(service).await;
        http.shutdown().request();
        if !http.drained(http::LAST_ANSWER_LIMIT + Duration::from_secs(1)).await {
            tracing::warn!(requests = http.len(), "some requests did not end in time");
        }
        tasks.shutdown().request();
        engine.close().await;
        if !tasks.drained(END_LIMIT).await {
            tracing::warn!(tasks = tasks.len(), "some tasks did not end in time");
        }
        match outcome {
            Ok(()) if tasks.failed() || http.failed() => Err("a task that had to run ended early".into()),
            outcome => outcome,
        }
    })
}

/// Starts logs and runs anything on a runtime of its own; an error becomes an exit code, and a
/// misconfiguration its lines on standard error.
pub fn block_on(settings: &Settings, body: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    logs::init(&settings.logs);
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = runtime.block_on(body);
    // A task that blocks must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => match failure.downcast_ref::<OpenError>() {
            Some(OpenError(problems)) => refuse(problems),
            None => fail(&*failure),
        },
    }
}

/// Tells what is wrong with the configuration, a line each.
pub fn refuse(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        tell(&problem.to_string());
    }
    ExitCode::from(MISCONFIGURED)
}

fn fail(error: &dyn Error) -> ExitCode {
    tracing::error!(%error, "ended by an error");
    ExitCode::FAILURE
}

#[allow(clippy::print_stderr, reason = "the one line that an operator sees when nothing starts")]
fn tell(line: &str) {
    eprintln!("{line}");
}

impl Service {
    async fn open(settings: Settings) -> Result<Self, Failure> {
        let metrics = recorder::install();
        let tasks = Tasks::new(Shutdown::new());
        let engine = Box::pin(Engine::open(&settings, &tasks)).await?;
        recorder::keep_up(&metrics, &tasks);
        let health = engine.health(&tasks);
        let readiness = Readiness::new(health.clone());
        let stop = Shutdown::new();
        let signals = stop.clone();
        // It waits for a second signal to the very end, so nobody waits for it.
        tasks.detach("signals", {
            let end = tasks.shutdown().clone();
            async move {
                tokio::select! {
                    result = signals.on_signals() => if let Err(error) = result {
                        tracing::error!(%error, "signals cannot be received");
                    },
                    () = end.requested() => {}
                }
            }
        });
        let http = Tasks::new(Shutdown::new());
        Ok(Self { settings: Arc::new(settings), engine, tasks, stop, http, health, readiness, metrics })
    }

    /// Listens on `PORT`, with the health routes there or on `ADMIN_PORT`. Returns the address for
    /// traffic; both are also logged.
    pub async fn listen(&self, router: Router) -> Result<SocketAddr, Failure> {
        let settings = &self.settings.http;
        let admin = admin_router(self.health.clone(), self.readiness.clone(), self.metrics.clone());
        let listener = bind("PORT", (settings.host, settings.port).into()).await?;
        let admin_listener = match settings.admin_port {
            Some(port) => Some(bind("ADMIN_PORT", (settings.host, port).into()).await?),
            None => None,
        };
        self.health.probed().await;
        let address = listener.local_addr()?;
        let router = match admin_listener {
            Some(admin_listener) => {
                tracing::info!(address = %admin_listener.local_addr()?, "listening for health and metrics");
                http::serve(admin_listener, admin, &self.http);
                router
            }
            None => router.merge(admin),
        };
        tracing::info!(%address, role = self.settings.role.as_str(), "listening");
        http::serve(listener, router, &self.http);
        Ok(address)
    }

    /// Waits for SIGTERM, SIGINT or the failure of a task. Afterwards `/readyz` answers 503, while
    /// the listeners still answer, so that the caller can end what is open.
    pub async fn until_stopped(&self) {
        tokio::select! {
            () = self.stop.requested() => {}
            () = self.tasks.shutdown().requested() => {}
            () = self.http.shutdown().requested() => {}
        }
        self.readiness.drain();
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, OpenError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Problem::new(name, format!("cannot listen on {address} ({error})"), "8080").into())
}
