//! What an inbox wants to be subscribed to, spread over the servers that have it.
//!
//! Each server has a [`Subscription`] of its own, all in one task; what it wants is its [`Wishes`]. When slots
//! move, what lies in them goes over to the Subscription of another node. The invariant: whatever is wanted
//! is wanted of the node that the last map names, and when it has gone over, the inbox is told that something
//! may be missing, once the new node has confirmed all of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use protocol::Channel;
use runtime::{Shutdown, Tasks};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::node::Node;
use super::slots::{Map, Slot};
use super::subscription::Subscription;
use super::wishes::{self, Wishes};
use super::{RedisEngine, Servers, keys, unavailable};
use crate::RealtimeError;
use crate::inbox::{Arrival, Mailbox};

/// Between two attempts to subscribe to what has moved.
const RETRY: Duration = Duration::from_millis(100);

/// What an inbox wants.
#[derive(Clone)]
pub(crate) enum Wanted {
    /// Of the one server.
    One(Arc<Wishes>),
    /// Of the nodes of a cluster.
    Spread(Arc<Spread>),
}

impl Wanted {
    /// Returns when the servers have confirmed all channels.
    pub(crate) async fn subscribe(&self, channels: &[Channel]) -> Result<(), RealtimeError> {
        match self {
            Self::One(wishes) => wishes.subscribe(channels).await,
            Self::Spread(spread) => spread.subscribe(channels).await,
        }
    }

    pub(crate) fn unsubscribe(&self, channels: &[Channel]) {
        match self {
            Self::One(wishes) => wishes.unsubscribe(channels),
            Self::Spread(spread) => spread.unsubscribe(channels),
        }
    }
}

/// Subscriptions that run, each until its node has no slots any more.
type Running = FuturesUnordered<BoxFuture<'static, ()>>;

/// Begins the task that fills `mailbox`. It returns when the service stops, since a task that is owned may not
/// end before.
pub(super) fn begin(engine: &Arc<RedisEngine>, mailbox: &Arc<Mailbox>, stop: &Shutdown, tasks: &Tasks) -> Wanted {
    let service = tasks.shutdown().clone();
    let spread = Spread {
        engine: Arc::clone(engine),
        mailbox: Arc::clone(mailbox),
        stop: stop.clone(),
        lines: Mutex::default(),
    };
    match &engine.servers {
        Servers::One(map) => {
            let running = Running::new();
            let line = map.nodes().map(|node| spread.begin_line(node, &running)).next();
            let wishes = line.map(|line| line.wishes).unwrap_or_default();
            tasks.own("realtime inbox", async move {
                running.collect::<()>().await;
                service.requested().await;
            });
            Wanted::One(wishes)
        }
        Servers::Cluster(cluster) => {
            let (spread, maps, running) = (Arc::new(spread), cluster.changes(), Running::new());
            spread.arrange(cluster.current(), &running);
            let task = Arc::clone(&spread);
            tasks.own("realtime inbox", async move {
                task.keep_arranged(maps, running).await;
                service.requested().await;
            });
            Wanted::Spread(spread)
        }
    }
}

pub(crate) struct Spread {
    engine: Arc<RedisEngine>,
    mailbox: Arc<Mailbox>,
    stop: Shutdown,
    lines: Mutex<Lines>,
}

/// Who is asked for what.
#[derive(Default)]
struct Lines {
    map: Arc<Map>,
    wanted: HashSet<Channel>,
    /// By the node's name.
    of_nodes: HashMap<String, SubscriptionLine>,
}

struct SubscriptionLine {
    wishes: Arc<Wishes>,
    stop: Shutdown,
}

/// Channels, and whose wishes they are.
type Parts = HashMap<String, (Arc<Wishes>, Vec<Channel>)>;

impl Lines {
    /// Splits channels by the nodes that have them; `Err`: some are nowhere.
    fn split(&self, channels: impl Iterator<Item = Channel>, names: keys::Keys) -> Result<Parts, RealtimeError> {
        let mut parts = Parts::new();
        for channel in channels {
            let owner = self.map.owner(Slot::of(&names.channel(channel)));
            let line = owner.and_then(|node| Some((node.name(), self.of_nodes.get(node.name())?)));
            let (name, line) = line.ok_or_else(|| unavailable("the cluster", &"nobody has the slot"))?;
            let new = || (Arc::clone(&line.wishes), Vec::new());
            parts.entry(name.to_owned()).or_insert_with(new).1.push(channel);
        }
        Ok(parts)
    }
}

impl Spread {
    async fn subscribe(&self, channels: &[Channel]) -> Result<(), RealtimeError> {
        self.lines.lock().wanted.extend(channels);
        match timeout(wishes::limit(channels.len()), self.confirm(channels)).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(RealtimeError::Unavailable("subscriptions were not confirmed in time".into())),
        }
    }

    /// Returns when those of the channels that are still wanted are confirmed where they lie by then.
    async fn confirm(&self, channels: &[Channel]) -> Result<(), RealtimeError> {
        loop {
            let (map, parts) = {
                let lines = self.lines.lock();
                let wanted = channels.iter().copied().filter(|channel| lines.wanted.contains(channel));
                (Arc::clone(&lines.map), lines.split(wanted, self.engine.keys)?)
            };
            try_join_all(parts.values().map(|(wishes, channels)| wishes.subscribe(channels))).await?;
            if Arc::ptr_eq(&map, &self.lines.lock().map) {
                return Ok(());
            }
        }
    }

    fn unsubscribe(&self, channels: &[Channel]) {
        let mut lines = self.lines.lock();
        for channel in channels {
            lines.wanted.remove(channel);
            // Err: what lies nowhere is subscribed nowhere.
            for (wishes, channels) in
                lines.split(std::iter::once(*channel), self.engine.keys).iter().flat_map(Parts::values)
            {
                wishes.unsubscribe(channels);
            }
        }
    }

    /// Follows the slots until a stop is requested.
    async fn keep_arranged(&self, mut maps: watch::Receiver<Arc<Map>>, mut running: Running) {
        let mut moved = Vec::new();
        loop {
            let map = Arc::clone(&maps.borrow_and_update());
            moved.extend(self.arrange(map, &running));
            tokio::select! {
                () = self.stop.requested() => break,
                // Err: the engine is gone, and nothing changes any more.
                Ok(()) = maps.changed() => {}
                Some(()) = running.next() => {}
                () = self.settle(&moved) => {
                    moved.clear();
                    self.mailbox.put([Arrival::Reconnected]);
                }
            }
        }
        // Each of them has been told to stop, too.
        running.collect::<()>().await;
    }

    /// Returns when everything that moved is confirmed; never if nothing did.
    async fn settle(&self, moved: &[Channel]) {
        if moved.is_empty() {
            std::future::pending::<()>().await;
        }
        while self.confirm(moved).await.is_err() {
            sleep(RETRY).await;
        }
    }

    /// Takes over a map; answers what is to be confirmed by another node from now on.
    fn arrange(&self, map: Arc<Map>, running: &Running) -> Vec<Channel> {
        let mut lines = self.lines.lock();
        if Arc::ptr_eq(&lines.map, &map) {
            return Vec::new();
        }
        for node in map.nodes() {
            if !lines.of_nodes.contains_key(node.name()) {
                lines.of_nodes.insert(node.name().to_owned(), self.begin_line(node, running));
            }
        }
        let mut moved = Vec::new();
        for channel in &lines.wanted {
            let slot = Slot::of(&self.engine.keys.channel(*channel));
            let (before, after) = (lines.map.owner(slot), map.owner(slot));
            if before.map(|node| node.name()) != after.map(|node| node.name()) {
                if let Some(line) = before.and_then(|node| lines.of_nodes.get(node.name())) {
                    line.wishes.unsubscribe(&[*channel]);
                }
                moved.push(*channel);
            }
        }
        lines.of_nodes.retain(|name, line| {
            let stays = map.node(name).is_some();
            if !stays {
                line.stop.request();
            }
            stays
        });
        lines.map = map;
        moved
    }

    fn begin_line(&self, node: &Arc<Node>, running: &Running) -> SubscriptionLine {
        let (wishes, stop) = (Arc::<Wishes>::default(), self.stop.child());
        let (engine, mailbox) = (Arc::clone(&self.engine), Arc::clone(&self.mailbox));
        let subscription = Subscription::new(engine, Arc::clone(node), mailbox, Arc::clone(&wishes), stop.clone());
        running.push(subscription.run().boxed());
        SubscriptionLine { wishes, stop }
    }
}
