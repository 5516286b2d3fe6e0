//! The engine on Redis, one server or a cluster, shared by all processes.
//!
//! Commands go out in rounds, over bounded pools, each with a time-out; subscriptions have connections of
//! their own for each inbox. What differs on a cluster is in `cluster`, `slots` and `spread`, and in the names
//! (`keys`). The invariant: no round outlasts [`crate::COMMAND_LIMIT`].

mod address;
mod cache;
mod claim;
mod cluster;
mod drained;
mod fanout;
mod janitor;
mod keys;
mod line;
mod node;
mod presence;
mod recovery;
mod room_logs;
mod round;
mod session;
mod slots;
mod spread;
mod subscription;
mod teller;
mod wishes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use runtime::Tasks;

use self::address::Address;
use self::cluster::Cluster;
use self::keys::Keys;
use self::node::Node;
use self::session::Mark;
use self::slots::{Map, Range, Slot};
pub(crate) use self::spread::Wanted;
use crate::RealtimeError;
use crate::inbox::{self, Inbox, Mailbox};

pub(crate) struct RedisEngine {
    servers: Servers,
    keys: Keys,
    by_callers_clock: AtomicBool,
}

/// Where commands go.
enum Servers {
    /// To one that has everything.
    One(Arc<Map>),
    Cluster(Cluster),
}

impl RedisEngine {
    /// Reads the address and makes one attempt to reach the server.
    pub(crate) async fn open(url: &str) -> Result<Self, RealtimeError> {
        // Err means that the process has one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (servers, keys) = match Address::parse(url)? {
            Address::One(info) => {
                let node = Arc::new(Node::new(*info)?);
                refuse_cluster(&node).await?;
                let everything = Range { first: Slot::FIRST, last: Slot::LAST, node };
                (Servers::One(Arc::new(Map::new(vec![everything]))), Keys::One)
            }
            Address::Cluster(seeds) => {
                let cluster = Cluster::open(seeds).await?;
                refuse_old(&cluster).await?;
                (Servers::Cluster(cluster), Keys::Cluster)
            }
        };
        let engine = Self { servers, keys, by_callers_clock: AtomicBool::new(false) };
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

    /// As [`crate::Realtime::is_ordered`].
    pub(crate) fn is_ordered(&self) -> bool {
        !self.is_cluster()
    }

    fn is_cluster(&self) -> bool {
        self.keys == Keys::Cluster
    }

    /// All servers take what is written, and as a cluster they are whole.
    pub(crate) async fn ping(&self) -> Result<(), RealtimeError> {
        let map = self.map().await?;
        let pings = map.nodes().map(|node| self.probe(node, map.tag_on(node)));
        join_all(pings).await.into_iter().collect::<Result<(), _>>().inspect_err(|_| self.doubt())
    }

    /// Writes something: who answers may be full, or somebody's replica. `tag`: what lies on that node of a
    /// cluster.
    async fn probe(&self, node: &Node, tag: Option<&str>) -> Result<(), RealtimeError> {
        let mut commands = redis::pipe();
        if self.is_cluster() {
            commands.cmd("CLUSTER").arg("INFO");
        }
        let key = if self.is_cluster() { tag.map(|tag| keys::probe(Some(tag))) } else { Some(keys::probe(None)) };
        if let Some(key) = key {
            commands.cmd("SET").arg(key).arg("").arg("PX").arg(keys::PROBE_TTL.as_millis() as u64);
        }
        for answer in node.run(&mut commands).await? {
            let said: String = match answer {
                Ok(value) => round::read(value)?,
                // It takes what is written, only by now not that.
                Err(error) if self.is_cluster() && is_elsewhere(&error) => {
                    self.doubt();
                    continue;
                }
                Err(error) => return Err(unavailable("it takes nothing", &error)),
            };
            if said.contains("cluster_state:fail") {
                return Err(RealtimeError::Unavailable("the cluster is down".into()));
            }
        }
        Ok(())
    }

    /// A new inbox and the task that fills it.
    pub(crate) fn inbox(self: &Arc<Self>, tasks: &Tasks) -> Inbox {
        let mailbox = Arc::<Mailbox>::default();
        let stop = tasks.shutdown().child();
        let wanted = spread::begin(self, &mailbox, &stop, tasks);
        Inbox::new(inbox::Address::Redis(wanted), mailbox, stop)
    }

    /// Who has what, as far as is known.
    async fn map(&self) -> Result<Arc<Map>, RealtimeError> {
        match &self.servers {
            Servers::One(map) => Ok(Arc::clone(map)),
            Servers::Cluster(cluster) => cluster.map().await,
        }
    }

    /// A server did not answer, or has not got what it should have.
    fn doubt(&self) {
        if let Servers::Cluster(cluster) = &self.servers {
            cluster.doubt();
        }
    }
}

impl RedisEngine {
    /// A node that a cluster named; `None` for the one server, which has everything.
    fn node(&self, name: &str) -> Result<Option<Arc<Node>>, RealtimeError> {
        match &self.servers {
            Servers::One(_) => Ok(None),
            Servers::Cluster(cluster) => cluster.node(name).map(Some),
        }
    }

    /// A subscription was lost: perhaps another node has its channels by now.
    async fn look_again(&self) {
        self.doubt();
        // Err: whoever needs the map next tries it again.
        let _ = self.map().await;
    }

    /// The random value that whoever came first left on the server; `None` when it does not answer.
    /// `Err`: it answers that it is no part of the cluster any more, or not of one that works.
    async fn mark_of(&self, node: &Node) -> Result<Option<Mark>, String> {
        let key = match &self.servers {
            Servers::One(_) => keys::mark(None),
            Servers::Cluster(cluster) => match cluster.current().tag_on(node) {
                Some(tag) => keys::mark(Some(tag)),
                None => return Ok(None),
            },
        };
        let mut commands = redis::pipe();
        commands.cmd("SET").arg(&key).arg(uuid::Uuid::now_v7().to_string()).arg("NX").ignore().get(&key);
        match node.run(&mut commands).await.ok().and_then(|mut answers| answers.pop()) {
            Some(Err(error)) if error.is_cluster_error() => Err(error.to_string()),
            Some(Ok(value)) => Ok(round::read(value).ok().map(|value: String| (key, value))),
            Some(Err(_)) | None => Ok(None),
        }
    }
}

/// The names of keys on a cluster differ: whoever used one without knowing it would be refused half of them.
async fn refuse_cluster(node: &Node) -> Result<(), RealtimeError> {
    let info: String = answer_of(node, redis::pipe().cmd("INFO").arg("cluster")).await?;
    if info.contains("cluster_enabled:1") {
        let what = "it is part of a cluster: say redis+cluster:// or rediss+cluster://";
        return Err(RealtimeError::Misplaced(what.into()));
    }
    Ok(())
}

/// Sharded channels came with Redis 7.0.
async fn refuse_old(cluster: &Cluster) -> Result<(), RealtimeError> {
    let map = cluster.current();
    let Some(node) = map.nodes().next() else { return Ok(()) };
    let answers = node.run(redis::pipe().cmd("PUBSUB").arg("SHARDNUMSUB")).await?;
    if answers
        .iter()
        .any(|answer| answer.as_ref().is_err_and(|error| error.to_string().to_lowercase().contains("unknown")))
    {
        return Err(RealtimeError::Misplaced("it knows no sharded channels: Redis 7.0 or newer is needed".into()));
    }
    Ok(())
}

/// The key has been moved to another node, or is being moved.
fn is_elsewhere(error: &redis::RedisError) -> bool {
    use redis::{ErrorKind, ServerErrorKind};
    let moved = [ServerErrorKind::Moved, ServerErrorKind::Ask, ServerErrorKind::TryAgain];
    matches!(error.kind(), ErrorKind::Server(kind) if moved.contains(&kind))
}

/// The answer of one server to one command.
async fn answer_of<T: redis::FromRedisValue>(node: &Node, command: &mut redis::Pipeline) -> Result<T, RealtimeError> {
    let answer = node.run(command).await?.pop().unwrap_or(Ok(redis::Value::Nil));
    round::read(answer.map_err(|error| unavailable("refused", &error))?)
}

fn unavailable(what: &str, error: &dyn std::fmt::Display) -> RealtimeError {
    RealtimeError::Unavailable(format!("{what}: {error}"))
}
