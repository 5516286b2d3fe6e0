//! Opening: every dependency is tried until it answers or `STARTUP_WAIT` is over.
//!
//! All are tried at once, so that one start tells everything that is unreachable. The invariant: no
//! message holds a URL or a password.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use broker::{Broker, BrokerSettings};
use config::{Engine as Choice, ExposeSecret as _, Problem, Role, SecretString, Settings, Variable, variable};
use protocol::Keyring;
use realtime::{Realtime, RealtimeError, RealtimeSettings};
use runtime::{Backoff, Clock, Tasks};
use store::{Store, StoreSettings};
use tokio::time::{Instant, timeout};

use crate::lock::make_folder;
use crate::{Engine, EngineKind};

/// How long one attempt may take, even if the time to wait is shorter.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// The store of the embedded engine, in `DATA_DIR`.
const STORE_FILE: &str = "chat.db";
/// How long the schema may take to be brought up to date, others' work under the lock included.
const MIGRATION_LIMIT: Duration = Duration::from_mins(10);

/// Why there is no engine: one problem for each dependency.
#[derive(Debug)]
pub struct OpenError(pub Vec<Problem>);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for OpenError {}

impl From<Problem> for OpenError {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl Engine {
    /// Opens the three ports, tries unreachable ones again until `STARTUP_WAIT` is over, and brings
    /// the schema up to date if `MIGRATE` says so. What the ports run in the background belongs to
    /// `tasks`.
    pub async fn open(settings: &Settings, tasks: &Tasks) -> Result<Self, OpenError> {
        let keys = keys(settings)?;
        install_crypto();
        let (store, broker, realtime) = tokio::join!(
            connect_store(settings),
            connect_broker(settings, tasks, Stay::Own),
            connect_realtime(settings, tasks),
        );
        let (store, broker, realtime) = match (store, broker, realtime) {
            (Ok(store), Ok(broker), Ok(realtime)) => (store, broker, realtime),
            (store, broker, realtime) => {
                return Err(OpenError([store.err(), broker.err(), realtime.err()].into_iter().flatten().collect()));
            }
        };
        store.spare_bytes().into_iter().for_each(|spare_bytes| broker.count_in(spare_bytes));
        migrate(settings, &store).await?;
        let kind = if settings.is_distributed() { EngineKind::Distributed } else { EngineKind::Embedded };
        Ok(Self { store, broker, realtime, keys, clock: Clock::system(), kind })
    }
}

/// Opens the store alone, for commands that work beside a running server.
pub async fn open_store(settings: &Settings) -> Result<Store, OpenError> {
    install_crypto();
    let store = connect_store(settings).await?;
    migrate(settings, &store).await?;
    Ok(store)
}

/// Opens the store alone, for commands that operate on what a server keeps; where none has kept anything,
/// they are refused and leave nothing behind.
pub async fn visit_store(settings: &Settings) -> Result<Store, OpenError> {
    must_be_kept(settings)?;
    open_store(settings).await
}

/// Opens the broker alone, for commands that operate on it beside a running server; refused like
/// [`visit_store`].
pub async fn visit_broker(settings: &Settings, tasks: &Tasks) -> Result<Broker, OpenError> {
    must_be_kept(settings)?;
    install_crypto();
    Ok(connect_broker(settings, tasks, Stay::Visit).await?)
}

fn keys(settings: &Settings) -> Result<Keyring, Problem> {
    let refused = |what: String| Problem::new("HMAC_KEYS", what, variable::HMAC_KEYS.example);
    let text = settings.hmac_keys.as_ref().ok_or_else(|| refused("is missing".to_owned()))?;
    Keyring::parse(text.expose_secret()).map_err(|error| refused(error.to_string()))
}

/// One TLS implementation for all clients.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("the TLS provider was installed before");
        }
    });
}

async fn connect_store(settings: &Settings) -> Result<Store, Problem> {
    match &settings.engine {
        Choice::Embedded { data_dir, sync_full } => {
            let store = StoreSettings::Sqlite { path: file(data_dir, STORE_FILE)?, sync_full: *sync_full };
            Store::open(store).await.map_err(|error| unusable(data_dir, &error))
        }
        Choice::Distributed { database_url, .. } => {
            let dependency = Dependency { variable: &variable::DATABASE_URL, url: database_url };
            let connect = || {
                Store::open(StoreSettings::Postgres {
                    url: database_url.expose_secret().to_owned(),
                    max_connections: connections(settings.role, settings.queue_shards),
                })
            };
            dependency.until_open(settings.startup_wait, connect).await
        }
    }
}

/// How the broker is opened.
#[derive(Clone, Copy)]
enum Stay {
    /// To serve.
    Own,
    /// Beside a running server.
    Visit,
}

async fn connect_broker(settings: &Settings, tasks: &Tasks, stay: Stay) -> Result<Broker, Problem> {
    let open = async |broker| match stay {
        Stay::Own => Broker::open(broker, tasks).await,
        Stay::Visit => Broker::visit(broker, tasks).await,
    };
    match &settings.engine {
        Choice::Embedded { data_dir, sync_full } => {
            let broker = BrokerSettings::Embedded { path: file(data_dir, "queue.db")?, sync_full: *sync_full };
            open(broker).await.map_err(|error| unusable(data_dir, &error))
        }
        Choice::Distributed { rabbitmq_url, .. } => {
            let dependency = Dependency { variable: &variable::RABBITMQ_URL, url: rabbitmq_url };
            let connect = || {
                let url = rabbitmq_url.expose_secret().to_owned();
                let app_id = settings.role.as_str().to_owned();
                open(BrokerSettings::RabbitMq { url, shards: settings.queue_shards, app_id })
            };
            dependency.until_open(settings.startup_wait, connect).await
        }
    }
}

async fn connect_realtime(settings: &Settings, tasks: &Tasks) -> Result<Realtime, Problem> {
    let realtime = match &settings.engine {
        Choice::Embedded { data_dir, .. } => {
            Realtime::open(RealtimeSettings::Embedded, tasks).await.map_err(|error| unusable(data_dir, &error))
        }
        Choice::Distributed { redis_url, .. } => {
            let dependency = Dependency { variable: &variable::REDIS_URL, url: redis_url };
            let connect = || async {
                let redis = RealtimeSettings::Redis { url: redis_url.expose_secret().to_owned() };
                match Realtime::open(redis, tasks).await {
                    Err(RealtimeError::Misplaced(what)) => Ok(Err(what)),
                    opened => opened.map(Ok),
                }
            };
            let opened = dependency.until_open(settings.startup_wait, connect).await?;
            opened.map_err(|what| dependency.problem(&what))
        }
    };
    Ok(realtime?.with_grace(settings.presence.grace))
}

async fn migrate(settings: &Settings, store: &Store) -> Result<(), Problem> {
    let what = if settings.migrate {
        match timeout(MIGRATION_LIMIT, store.migrate()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("the schema cannot be brought up to date: {error}"),
            Err(_) => {
                format!("the schema was not brought up to date within {} minutes", MIGRATION_LIMIT.as_secs() / 60)
            }
        }
    } else {
        match timeout(ATTEMPT_LIMIT, store.is_current()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "the schema is of an earlier version: run `chatchit migrate`".to_owned(),
            Ok(Err(_)) | Err(_) => "no schema can be read there: run `chatchit migrate`".to_owned(),
        }
    };
    Err(match &settings.engine {
        Choice::Embedded { data_dir, .. } => unusable(data_dir, &what),
        Choice::Distributed { database_url, .. } => {
            let dependency = Dependency { variable: &variable::DATABASE_URL, url: database_url };
            dependency.problem(&what)
        }
    })
}

/// Connections to Postgres at most. Each shard that is worked on uses one at a time, and a processor
/// may own them all; beside them it probes and tidies up. Capped, so that a handful of services fits
/// into a server's default hundred.
fn connections(role: Role, shards: u16) -> u32 {
    const MOST: u32 = 24;
    let shards = u32::from(shards);
    match role {
        Role::Gateway => 6,
        Role::Processor => (shards + 3).clamp(6, MOST),
        Role::Api => 8,
        Role::AllInOne => (shards + 10).clamp(12, MOST),
    }
}

/// "Nothing is there" must not be said of a folder that is merely the wrong one.
fn must_be_kept(settings: &Settings) -> Result<(), Problem> {
    match &settings.engine {
        Choice::Embedded { data_dir, .. } if !data_dir.join(STORE_FILE).exists() => {
            Err(unusable(data_dir, &"no server has kept its data there"))
        }
        Choice::Embedded { .. } | Choice::Distributed { .. } => Ok(()),
    }
}

fn file(data_dir: &Path, name: &str) -> Result<std::path::PathBuf, Problem> {
    make_folder(data_dir).map_err(|error| unusable(data_dir, &error.kind()))?;
    let path = data_dir.join(name);
    // Whoever else may read the folder has no business in the data; SQLite's other files follow this one.
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&path).map_err(|error| unusable(data_dir, &error.kind()))?;
    Ok(path)
}

fn unusable(data_dir: &Path, error: &dyn fmt::Display) -> Problem {
    Problem::new("DATA_DIR", format!("{} cannot be used: {error}", data_dir.display()), "./data")
}

/// A server somewhere else, and the variable that says where.
struct Dependency<'a> {
    variable: &'static Variable,
    url: &'a SecretString,
}

impl Dependency<'_> {
    /// Tries until it is open or `wait` is over; at least once.
    async fn until_open<T, E, F>(&self, wait: Duration, connect: impl Fn() -> F) -> Result<T, Problem>
    where
        E: fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let deadline = Instant::now() + wait;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let limit = deadline.saturating_duration_since(Instant::now()).max(ATTEMPT_LIMIT);
            let error = match timeout(limit, connect()).await {
                Ok(Ok(open)) => return Ok(open),
                Ok(Err(error)) => self.without_secrets(&error.to_string()),
                Err(_) => "no answer in time".to_owned(),
            };
            let pause = backoff.next_delay();
            if Instant::now() + pause >= deadline {
                return Err(self.problem(&format!("is unreachable ({error}), tried for {wait:?}")));
            }
            tracing::warn!(variable = self.variable.name, error, "not reachable yet, trying again");
            tokio::time::sleep(pause).await;
        }
    }

    fn problem(&self, what: &str) -> Problem {
        Problem::new(self.variable.name, self.without_secrets(what), self.variable.example)
    }

    /// The text without the URL and without its password, should a client have put them there.
    fn without_secrets(&self, text: &str) -> String {
        let url = self.url.expose_secret();
        let user_info = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(info, _)| info);
        let password = user_info.and_then(|info| info.split_once(':')).map(|(_, password)| password);
        let text = text.replace(url, "[url]");
        match password.filter(|password| !password.is_empty()) {
            Some(password) => text.replace(password, "[secret]"),
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    fn dependency(url: &SecretString) -> Dependency<'_> {
        Dependency { variable: &variable::DATABASE_URL, url }
    }

    fn url() -> SecretString {
        SecretString::from("postgres://chat:hush@localhost/chat")
    }

    #[test]
    fn a_processor_has_a_connection_for_each_shard_up_to_a_limit() {
        let of_processor = |shards| connections(Role::Processor, shards);
        assert_eq!([1, 8, 16, 200].map(of_processor), [6, 11, 19, 24]);
        assert_eq!([1, 4, 200].map(|shards| connections(Role::AllInOne, shards)), [12, 14, 24]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_unreachable_is_tried_again_until_it_answers() {
        let attempts = Cell::new(0);
        let connect = || {
            attempts.set(attempts.get() + 1);
            let answer = if attempts.get() < 5 { Err(io::Error::other("refused")) } else { Ok(attempts.get()) };
            async { answer }
        };
        let opened = dependency(&url()).until_open(Duration::from_secs(10), connect).await;
        assert_eq!(opened.expect("at the fifth attempt"), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_wait_the_variable_is_named_and_no_secret_shown() {
        let started = Instant::now();
        let connect = || async { Err::<(), _>(io::Error::other("postgres://chat:hush@localhost/chat: hush refused")) };
        let problem = dependency(&url()).until_open(Duration::from_secs(10), connect).await.expect_err("never open");
        assert!(started.elapsed() <= Duration::from_secs(10), "{:?}", started.elapsed());
        let line = problem.to_string();
        assert!(line.starts_with("DATABASE_URL: is unreachable") && line.contains("refused"), "{line}");
        assert!(!line.contains("hush"), "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_wait_there_is_one_attempt_and_it_may_not_hang() {
        let attempts = Cell::new(0);
        let connect = || {
            attempts.set(attempts.get() + 1);
            std::future::pending::<Result<(), io::Error>>()
        };
        let problem = dependency(&url()).until_open(Duration::ZERO, connect).await.expect_err("hangs");
        assert!(attempts.get() == 1 && problem.what.contains("no answer in time"), "{problem}");
    }
}
