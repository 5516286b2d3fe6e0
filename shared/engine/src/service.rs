//! What the main functions of all services have in common: settings, logs, listeners, an end.
//!
//! Knows no service. The invariant: exit code 2 and lines on standard error before anything
//! listens if the configuration is wrong; 0 after an orderly end; 1 if a task failed.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use config::{Problem, Role, Settings, Variable, variable};
use runtime::{Shutdown, Tasks};
use telemetry::recorder::{self, PrometheusHandle};
use telemetry::{Health, Readiness, admin_router, http, logs};
use tokio::net::{TcpListener, TcpSocket};

use crate::{Engine, OpenError};

/// How long tasks may take to end after the stop.
const END_LIMIT: Duration = Duration::from_secs(10);
/// What cannot be configured that way.
const MISCONFIGURED: u8 = 2;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

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
    sockets: Sockets,
    stop: Shutdown,
    /// The listeners and the requests under way: they end first, while the engine still works.
    http: Tasks,
    health: Health,
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// The main function of a service: command line, environment, ports, then `run_with`.
pub fn run<F>(role: Role, body: F) -> ExitCode
where
    F: AsyncFnOnce(Service) -> Result<(), Failure>,
{
    if let Some(argument) = std::env::args_os().nth(1) {
        return answer(role.as_str(), &argument.to_string_lossy());
    }
    let settings = match Settings::from_env(role) {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems),
    };
    match Sockets::bind(&settings) {
        Ok(sockets) => run_with(settings, sockets, body),
        Err(problem) => refuse(&[problem]),
    }
}

/// A service takes no arguments but those that ask about itself.
#[allow(clippy::print_stdout, reason = "what was asked for")]
fn answer(program: &str, argument: &str) -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    match argument {
        "--version" | "-V" => println!("{program} {version}"),
        "--help" | "-h" => println!(
            "The {program} of ChatChit Realtime {version}. All settings are environment variables (docs/CONFIGURATION.md);\n\
             `chatchit checkconfig --for {program}` checks them.\n\nUsage: {program} [--help | --version]"
        ),
        other => {
            tell(&format!("{program}: takes no arguments, not {other:?}; see {program} --help"));
            return ExitCode::from(MISCONFIGURED);
        }
    }
    ExitCode::SUCCESS
}

/// Starts logs and metrics, opens the engine, runs `body`, then ends all tasks and closes the engine.
pub fn run_with<F>(settings: Settings, sockets: Sockets, body: F) -> ExitCode
where
    F: AsyncFnOnce(Service) -> Result<(), Failure>,
{
    block_on(&settings.clone(), async {
        let service = Box::pin(Service::open(settings, sockets)).await?;
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
    async fn open(settings: Settings, sockets: Sockets) -> Result<Self, Failure> {
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
        Ok(Self { settings: Arc::new(settings), engine, tasks, sockets, stop, http, health, readiness, metrics })
    }

    /// Listens on `PORT`, with the health routes there or on `ADMIN_PORT`. Returns the address for
    /// traffic; both are also logged.
    pub async fn listen(&mut self, router: Router) -> Result<SocketAddr, Failure> {
        let admin = admin_router(self.health.clone(), self.readiness.clone(), self.metrics.clone());
        let (traffic, admin_port) = (self.sockets.traffic.take(), self.sockets.admin.take());
        let listener = traffic.ok_or("this service listens already")?.listen()?;
        let admin_listener = admin_port.map(Reserved::listen).transpose()?;
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

    /// Requested by SIGTERM or SIGINT, before anything else happens.
    pub fn stopping(&self) -> Shutdown {
        self.stop.clone()
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

/// The ports of a service, taken before anything else happens; nobody can connect until it listens.
pub struct Sockets {
    traffic: Option<Reserved>,
    admin: Option<Reserved>,
}

impl Sockets {
    /// Takes `PORT` and `ADMIN_PORT`.
    pub fn bind(settings: &Settings) -> Result<Self, Problem> {
        let http = &settings.http;
        let traffic = Reserved::bind(&variable::PORT, (http.host, http.port).into())?;
        let admin = http.admin_port.map(|port| Reserved::bind(&variable::ADMIN_PORT, (http.host, port).into()));
        Ok(Self { traffic: Some(traffic), admin: admin.transpose()? })
    }
}

/// An address that is ours.
struct Reserved {
    variable: &'static Variable,
    address: SocketAddr,
    socket: TcpSocket,
}

impl Reserved {
    fn bind(variable: &'static Variable, address: SocketAddr) -> Result<Self, Problem> {
        let refused = |error| refused(variable, address, &error);
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(refused)?;
        socket.set_reuseaddr(true).and_then(|()| socket.bind(address)).map_err(refused)?;
        Ok(Self { variable, address, socket })
    }

    fn listen(self) -> Result<TcpListener, OpenError> {
        let Self { variable, address, socket } = self;
        socket.listen(BACKLOG).map_err(|error| refused(variable, address, &error).into())
    }
}

/// An address that this machine does not have is `HOST`'s fault.
fn refused(variable: &'static Variable, address: SocketAddr, error: &io::Error) -> Problem {
    let variable = match error.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => variable,
        _ => &variable::HOST,
    };
    Problem::new(variable.name, format!("cannot listen on {address} ({error})"), variable.example)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(pairs: &[(&str, &str)]) -> Result<Sockets, Problem> {
        Sockets::bind(&Settings::from_pairs(Role::AllInOne, pairs).expect("well-formed"))
    }

    #[test]
    fn what_cannot_be_bound_is_named_by_its_own_variable() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("an address").port().to_string();
        let names = |pairs: &[(&str, &str)]| bound(pairs).err().expect("not to be had").to_string();
        assert!(names(&[("HOST", "127.0.0.1"), ("PORT", &port)]).starts_with("PORT: cannot listen"));
        let admin = names(&[("HOST", "127.0.0.1"), ("PORT", "0"), ("ADMIN_PORT", &port)]);
        assert!(admin.starts_with("ADMIN_PORT: ") && admin.ends_with("ADMIN_PORT=9090"), "{admin}");
        assert!(names(&[("HOST", "203.0.113.7"), ("PORT", "0")]).starts_with("HOST: cannot listen"));
    }

    #[test]
    fn a_port_that_is_taken_does_not_answer_yet() {
        let sockets = bound(&[("HOST", "127.0.0.1"), ("PORT", "0")]).expect("free");
        let address = sockets.traffic.as_ref().expect("taken").socket.local_addr().expect("an address");
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
