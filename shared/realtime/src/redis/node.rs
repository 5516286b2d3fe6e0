//! One Redis server: a bounded pool of connections for commands, and what subscriptions connect with.
//!
//! Knows no key and no cluster. The invariant: no round to it outlasts [`crate::COMMAND_LIMIT`].

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, PoolConfig, RecycleResult, Timeouts};
use deadpool_redis::Runtime;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, Pipeline, ProtocolVersion, PushInfo, RedisError,
    RedisResult, Value,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout, timeout_at};

use super::unavailable;
use crate::{COMMAND_LIMIT, RealtimeError};

/// Connections for commands; each carries one command or slice at a time.
const POOL_CONNECTIONS: usize = 16;
/// How long the server may take to accept a connection, and to answer: both below the limit of a call.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
const ANSWER_LIMIT: Duration = Duration::from_millis(1800);
/// A connection over which nothing can be sent for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);

/// Whoever answered so lately is not asked whether it is there: that would be a round for every round.
const FRESH: Duration = Duration::from_millis(500);

/// Makes connections for the pool.
struct Manager {
    inner: deadpool_redis::Manager,
    failed: Arc<Failed>,
}

/// When a round failed last: whoever answered before that is asked again whether it is there.
#[derive(Default)]
struct Failed(Mutex<Option<Instant>>);

impl managed::Manager for Manager {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        self.inner.create().await
    }

    async fn recycle(&self, connection: &mut MultiplexedConnection, metrics: &Metrics) -> RecycleResult<RedisError> {
        let unused = metrics.last_used();
        let has_failed_since = self.failed.0.lock().is_some_and(|failed| failed.elapsed() <= unused);
        if unused < FRESH && !has_failed_since {
            return Ok(());
        }
        self.inner.recycle(connection, metrics).await
    }
}

pub(super) struct Node {
    /// `host:port`, as the cluster names it.
    name: String,
    info: ConnectionInfo,
    pool: managed::Pool<Manager>,
    failed: Arc<Failed>,
}

/// What is asked of a server about itself, one answer for each command.
pub(super) type Answers = Vec<RedisResult<Value>>;

impl Node {
    /// Connects to nothing yet.
    pub(super) fn new(info: ConnectionInfo) -> Result<Self, RealtimeError> {
        let info = with_probes(info);
        let manager = deadpool_redis::Manager::new_with_config(info.clone(), config())
            .map_err(|error| unavailable("the address", &error))?;
        let failed = Arc::<Failed>::default();
        let pool = managed::Pool::builder(Manager { inner: manager, failed: Arc::clone(&failed) })
            .config(PoolConfig {
                max_size: POOL_CONNECTIONS,
                timeouts: Timeouts {
                    wait: Some(COMMAND_LIMIT),
                    create: Some(CONNECT_LIMIT),
                    recycle: Some(ANSWER_LIMIT),
                },
                ..PoolConfig::default()
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| unavailable("the pool", &error))?;
        Ok(Self { name: name_of(info.addr()), info, pool, failed })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The same way to another server.
    pub(super) fn info_at(&self, host: &str, port: u16) -> ConnectionInfo {
        at(&self.info, host, port)
    }

    /// Sends some commands in one go. The commands' own errors are among the answers. Boxed, or the futures
    /// of callers would nest deeper than the compiler looks.
    pub(super) fn run<'a>(&'a self, commands: &'a mut Pipeline) -> BoxFuture<'a, Result<Answers, RealtimeError>> {
        self.run_in_time(commands).boxed()
    }

    async fn run_in_time(&self, commands: &mut Pipeline) -> Result<Answers, RealtimeError> {
        let deadline = Instant::now() + COMMAND_LIMIT;
        let late = |_| RealtimeError::Unavailable("no answer in time".into());
        let connection = timeout_at(deadline, self.pool.get()).await.map_err(late)?;
        let mut connection = connection.map_err(|error| unavailable("no connection", &error))?;
        let answers = timeout_at(deadline, commands.ignore_errors().query_async(&mut *connection)).await;
        let answers =
            answers.map_err(late).and_then(|it| it.map_err(|error: RedisError| unavailable("refused", &error)));
        if answers.is_err() {
            // Not back into the pool: the next one would have no more luck with it.
            *self.failed.0.lock() = Some(Instant::now());
            drop(Object::take(connection));
        }
        answers
    }

    /// A connection for subscriptions of a server that is no cluster's.
    pub(super) async fn subscriber(&self) -> Result<PubSub, String> {
        in_time(Client::open(self.info.clone()).map_err(|error| error.to_string())?.get_async_pubsub()).await
    }

    /// A connection for sharded subscriptions; what comes over it goes to `heard`.
    pub(super) async fn sharded_subscriber(
        &self,
        heard: UnboundedSender<PushInfo>,
    ) -> Result<MultiplexedConnection, String> {
        let redis = self.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(self.info.clone().set_redis_settings(redis)).map_err(|error| error.to_string())?;
        let config = config().set_push_sender(heard);
        in_time(client.get_multiplexed_async_connection_with_config(&config)).await
    }
}

async fn in_time<T>(connecting: impl Future<Output = RedisResult<T>>) -> Result<T, String> {
    match timeout(CONNECT_LIMIT, connecting).await {
        Ok(connected) => connected.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_LIMIT)).set_response_timeout(Some(ANSWER_LIMIT))
}

/// Adds what makes a dead connection show: keep-alive probes and a send time-out.
fn with_probes(info: ConnectionInfo) -> ConnectionInfo {
    let keepalive = TcpKeepalive::new().with_time(DEAD_AFTER).with_interval(Duration::from_secs(2)).with_retries(3);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(DEAD_AFTER);
    info.set_tcp_settings(tcp)
}

/// The same user and transport at another address.
fn at(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let mut addr = info.addr().clone();
    match &mut addr {
        ConnectionAddr::Tcp(its_host, its_port) => (*its_host, *its_port) = (host.to_owned(), port),
        ConnectionAddr::TcpTls { host: its_host, port: its_port, .. } => {
            (*its_host, *its_port) = (host.to_owned(), port);
        }
        _ => {}
    }
    info.clone().set_addr(addr)
}

fn name_of(addr: &ConnectionAddr) -> String {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
        _ => String::new(),
    }
}
