//! The nodes of a cluster, and which of them has what.
//!
//! Nothing here runs by itself: whoever finds that the map is wrong doubts it, and whoever needs it next reads
//! it anew. The invariant: a map comes from one node, of all that answer the one that knows most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{ConnectionInfo, Value};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::node::Node;
use super::slots::{Map, Range, Slot};
use super::unavailable;
use crate::RealtimeError;

/// How long a node may take to say what it knows: others know it, too.
const READ_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct Cluster {
    /// Those that the settings name.
    seeds: Vec<Arc<Node>>,
    map: watch::Sender<Arc<Map>>,
    doubted: AtomicBool,
    reading: Mutex<()>,
}

/// What a node knows: whether it is part of a cluster that works, how new that is, and who has what.
struct Known {
    is_whole: bool,
    epoch: u64,
    map: Map,
}

impl Cluster {
    /// Reads the map once.
    pub(super) async fn open(seeds: Vec<ConnectionInfo>) -> Result<Self, RealtimeError> {
        let seeds = seeds.into_iter().map(|info| Node::new(info).map(Arc::new)).collect::<Result<_, _>>()?;
        let (map, doubted) = (watch::Sender::new(Arc::default()), AtomicBool::new(true));
        let cluster = Self { seeds, map, doubted, reading: Mutex::new(()) };
        cluster.map().await?;
        Ok(cluster)
    }

    /// The map as it is known, read anew if it was doubted.
    pub(super) async fn map(&self) -> Result<Arc<Map>, RealtimeError> {
        if self.doubted.load(Ordering::Acquire) {
            let _one_at_a_time = self.reading.lock().await;
            if self.doubted.load(Ordering::Acquire) {
                // Before it is read: who doubts meanwhile has it read once more.
                self.doubted.store(false, Ordering::Release);
                if let Err(error) = self.read().await {
                    self.doubt();
                    return Err(error);
                }
            }
        }
        Ok(self.current())
    }

    /// The map as it is known.
    pub(super) fn current(&self) -> Arc<Map> {
        Arc::clone(&self.map.borrow())
    }

    /// Told of every other map.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Map>> {
        self.map.subscribe()
    }

    /// Something was not where the map says, or did not answer.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
    }

    /// Any node by its name, a master or not.
    pub(super) fn node(&self, name: &str) -> Result<Arc<Node>, RealtimeError> {
        if let Some(node) = self.current().node(name) {
            return Ok(Arc::clone(node));
        }
        let place = name.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = place.ok_or_else(|| unavailable("the cluster names no address", &name))?;
        Node::new(self.seeds[0].info_at(host, port)).map(Arc::new)
    }

    async fn read(&self) -> Result<(), RealtimeError> {
        let before = self.current();
        let unknown = self.seeds.iter().filter(|seed| before.node(seed.name()).is_none());
        let answers = join_all(before.nodes().chain(unknown).map(|node| self.ask(node))).await;
        let mut why = unavailable("the cluster", &"no node answers");
        let mut best: Option<Known> = None;
        for answer in answers {
            match answer {
                Ok(known) => {
                    let rank = |known: &Known| (known.is_whole, known.epoch);
                    if best.as_ref().is_none_or(|best| rank(best) < rank(&known)) {
                        best = Some(known);
                    }
                }
                Err(error) => why = error,
            }
        }
        let map = best.ok_or(why)?.map;
        if !map.is_like(&before) {
            tracing::info!(masters = map.nodes().count(), "the slots of the Redis cluster lie otherwise than before");
            self.map.send_replace(Arc::new(map));
        }
        Ok(())
    }

    async fn ask(&self, node: &Node) -> Result<Known, RealtimeError> {
        let mut commands = redis::pipe();
        commands.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
        let answers = match timeout(READ_LIMIT, node.run(&mut commands)).await {
            Ok(answers) => answers?,
            Err(_) => return Err(unavailable("the cluster", &"no answer in time")),
        };
        let [Ok(info), Ok(slots)] = &answers[..] else {
            let error = answers.into_iter().find_map(Result::err);
            return Err(match error {
                Some(error) if error.to_string().contains("cluster support disabled") => {
                    RealtimeError::Misplaced("it is not part of a cluster: say redis:// or rediss://".into())
                }
                Some(error) => unavailable("refused", &error),
                None => unavailable("the cluster", &"a short answer"),
            });
        };
        let info: String = read(info)?;
        let number = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let is_whole = info.contains("cluster_state:ok");
        Ok(Known { is_whole, epoch: number("cluster_current_epoch:").unwrap_or(0), map: self.read_map(node, slots)? })
    }

    /// Reads the answer to `CLUSTER SLOTS`: first and last slot, then the master and its replicas.
    fn read_map(&self, asked: &Node, slots: &Value) -> Result<Map, RealtimeError> {
        let mut ranges = Vec::new();
        for range in read::<Vec<Vec<Value>>>(slots)? {
            let [first, last, master, ..] = &range[..] else { continue };
            let (first, last) = (Slot(read(first)?), Slot(read(last)?));
            if let Some(name) = name_of(asked, &read::<Vec<Value>>(master)?)? {
                ranges.push(Range { first, last, node: self.known(&ranges, &name)? });
            }
        }
        if ranges.is_empty() {
            return Err(unavailable("the cluster", &"no node has slots"));
        }
        Ok(Map::new(ranges))
    }

    /// Each node once, with its connections.
    fn known(&self, ranges: &[Range], name: &str) -> Result<Arc<Node>, RealtimeError> {
        let seen = ranges.iter().map(|range| &range.node).chain(&self.seeds).find(|node| node.name() == name);
        match self.current().node(name).or(seen) {
            Some(node) => Ok(Arc::clone(node)),
            None => self.node(name),
        }
    }
}

/// `host:port` of a node; `None` if the cluster does not know it itself.
fn name_of(asked: &Node, node: &[Value]) -> Result<Option<String>, RealtimeError> {
    let [host, port, ..] = node else { return Ok(None) };
    let (host, port): (Option<String>, u16) = (read(host)?, read(port)?);
    // A node that was never told its own address is where it was asked.
    let here = || asked.name().rsplit_once(':').map_or(String::new(), |(host, _)| host.to_owned());
    let host = host.filter(|host| !host.is_empty()).unwrap_or_else(here);
    Ok((host != "?").then(|| format!("{host}:{port}")))
}

fn read<T: redis::FromRedisValue>(value: &Value) -> Result<T, RealtimeError> {
    redis::from_redis_value_ref(value).map_err(|error| unavailable("the cluster", &error))
}
