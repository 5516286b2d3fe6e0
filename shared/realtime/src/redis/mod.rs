//! The engine on a Redis server, shared by all processes.
//!
//! Commands go through a bounded pool, each with a time-out; subscriptions have a connection of
//! their own per inbox. Scripts read keys that they compute (gateway leases), so this is for one
//! Redis node, not yet for a cluster. The invariant: no round outlasts [`crate::COMMAND_LIMIT`].

mod cache;
mod claim;
mod fanout;
mod janitor;
mod keys;
mod presence;
mod recovery;
mod room_logs;
mod session;
mod subscription;
mod teller;
mod wishes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_redis::{Pool, PoolConfig, Runtime, Timeouts};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Pipeline, RedisResult,
    ScriptInvocation,
};
use runtime::Tasks;

pub(crate) use self::wishes::Wishes;
use crate::inbox::{Address, Inbox, Mailbox};
use crate::{COMMAND_LIMIT, RealtimeError};

/// Connections for commands; each carries one command or slice at a time.
const POOL_CONNECTIONS: usize = 16;
/// How long the server may take to accept a connection, and to answer: both below the limit of a call.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
const ANSWER_LIMIT: Duration = Duration::from_millis(1800);
/// A connection over which nothing can be sent for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);

pub(crate) struct RedisEngine {
    client: Client,
    pool: Pool,
    by_callers_clock: AtomicBool,
}

impl RedisEngine {
    /// Reads the address and makes one attempt to reach the server.
    pub(crate) async fn open(url: &str) -> Result<Self, RealtimeError> {
        // Err means that the process has one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let info = address(url).map_err(|error| unavailable("the address", &error))?;
        let client = Client::open(info.clone()).map_err(|error| unavailable("the address", &error))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT));
        let manager = deadpool_redis::Manager::new_with_config(info, config)
            .map_err(|error| unavailable("the address", &error))?;
        let pool = Pool::builder(manager)
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
        let engine = Self { client, pool, by_callers_clock: AtomicBool::new(false) };
        engine.ping().await?;
        Ok(engine)
    }

    /// As [`crate::Realtime::by_callers_clock`].
    pub(crate) fn go_by_callers_clock(&self) {
        self.by_callers_clock.store(true, Ordering::Relaxed);
    }

    fn is_by_callers_clock(&self) -> bool {
        self.by_callers_clock.load(Ordering::Relaxed)
    }

    pub(crate) async fn ping(&self) -> Result<(), RealtimeError> {
        self.pipeline(redis::pipe().cmd("PING").ignore()).await
    }

    /// A new inbox and the task that fills it.
    pub(crate) fn inbox(self: &Arc<Self>, tasks: &Tasks) -> Inbox {
        let (mailbox, wishes) = (Arc::<Mailbox>::default(), Arc::<Wishes>::default());
        let stop = tasks.shutdown().child();
        let subscription =
            subscription::Subscription::new(Arc::clone(self), Arc::clone(&mailbox), Arc::clone(&wishes), stop.clone());
        tasks.own("realtime inbox", subscription.run(tasks.shutdown().clone()));
        Inbox::new(Address::Redis(wishes), mailbox, stop)
    }

    /// Sends some commands in one go.
    async fn pipeline<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RealtimeError> {
        limited(async {
            let mut connection = self.pool.get().await.map_err(|error| unavailable("no connection", &error))?;
            Ok(commands.query_async(&mut connection).await)
        })
        .await
    }

    /// Runs a script, loading it if the server does not have it (any more).
    async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RealtimeError> {
        limited(async {
            let mut connection = self.pool.get().await.map_err(|error| unavailable("no connection", &error))?;
            Ok(script.invoke_async(&mut connection).await)
        })
        .await
    }
}

/// Gives one round to the server its limit.
async fn limited<T>(command: impl Future<Output = Result<RedisResult<T>, RealtimeError>>) -> Result<T, RealtimeError> {
    match tokio::time::timeout(COMMAND_LIMIT, command).await {
        Ok(Ok(answer)) => answer.map_err(|error| unavailable("refused", &error)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(RealtimeError::Unavailable("no answer in time".into())),
    }
}

/// Reads a URL and adds what makes a dead connection show: keep-alive probes and a send time-out.
fn address(url: &str) -> RedisResult<ConnectionInfo> {
    let keepalive = TcpKeepalive::new().with_time(DEAD_AFTER).with_interval(Duration::from_secs(2)).with_retries(3);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(DEAD_AFTER);
    Ok(url.into_connection_info()?.set_tcp_settings(tcp))
}

fn unavailable(what: &str, error: &dyn std::fmt::Display) -> RealtimeError {
    RealtimeError::Unavailable(format!("{what}: {error}"))
}
