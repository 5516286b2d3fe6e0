//! A Redis cluster of one's own: three masters, which begin to serve two seconds after their start.
//!
//! They keep nothing on disk but who has which slots. The invariant: each node keeps its ports, so it can be
//! stopped and come back.

use std::io;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::redis::RedisServer;
use crate::{PATIENCE, until};

/// Masters, each with an equal part of the slots.
const MASTERS: usize = 3;
/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// How long the new node of a slot is busy ([`RedisCluster::end_move_busy`]).
pub const BUSY: Duration = Duration::from_secs(1);

/// A private cluster.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts a new, empty one and waits until it serves.
    pub async fn start() -> Self {
        let nodes = join_all((0..MASTERS).map(|_| RedisServer::start_for_cluster())).await;
        let cluster = Self { nodes };
        for (number, node) in cluster.nodes.iter().enumerate() {
            let (first, last) = (SLOTS * number / MASTERS, SLOTS * (number + 1) / MASTERS - 1);
            node.must(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
            node.must(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
            cluster.nodes[0].meet(node).await;
        }
        cluster.whole(MASTERS).await;
        cluster
    }

    /// Its URL: two of its nodes, which know the third.
    pub fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port(), self.nodes[1].port())
    }

    /// Its nodes. The URL of one is no good to the product.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// Adds a node that follows a master and may take its place; waits until it has the master's data.
    pub async fn add_replica_of(&mut self, master: usize) -> usize {
        let replica = RedisServer::start_for_cluster().await;
        self.nodes[0].meet(&replica).await;
        let id = self.nodes[master].id().await;
        // Until it has heard of the master it knows no such node.
        let replicate = format!("CLUSTER REPLICATE {id}");
        until(PATIENCE, || async { replica.command(&replicate).await.is_ok_and(|it| it.starts_with("+OK")) }).await;
        until(PATIENCE, || async { replica.says("INFO replication", "master_link_status:up").await }).await;
        self.nodes.push(replica);
        self.whole(self.nodes.len()).await;
        self.nodes.len() - 1
    }

    /// Moves a slot to another master, with its keys. Both know it at once, the others soon.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to).await;
        self.move_keys(slot, from, to).await;
        self.end_move(slot, from, to).await;
    }

    /// Moves the keys of a slot that is being moved.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let found = self.nodes[from].must(&format!("CLUSTER GETKEYSINSLOT {slot} 1000")).await;
        // Every other line is a key; the last one answers QUIT.
        let keys: Vec<&str> = found.lines().filter(|line| line.starts_with("chat:")).collect();
        if !keys.is_empty() {
            let port = self.nodes[to].port();
            let migrate = format!("MIGRATE 127.0.0.1 {port} \"\" 0 5000 KEYS {}", keys.join(" "));
            self.nodes[from].must(&migrate).await;
        }
    }

    /// From now on new keys of the slot enter the node to which it moves.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (source, target) = (self.nodes[from].id().await, self.nodes[to].id().await);
        self.nodes[to].must(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await;
        self.nodes[from].must(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).await;
    }

    /// The slot has moved.
    pub async fn end_move(&self, slot: u16, from: usize, to: usize) {
        let target = self.nodes[to].id().await;
        for node in [to, from] {
            self.nodes[node].must(&format!("CLUSTER SETSLOT {slot} NODE {target}")).await;
        }
    }

    /// The slot has moved, and its new node is busy for [`BUSY`] after that; then it carries out a command
    /// before it heeds anybody else.
    pub async fn end_move_busy(&self, slot: u16, from: usize, to: usize, then: &str) {
        let own = format!("CLUSTER SETSLOT {slot} NODE {}", self.nodes[to].id().await);
        let on_target = format!("{own}\r\nDEBUG SLEEP {}\r\n{then}", BUSY.as_secs());
        let started = Instant::now();
        let busy = async {
            self.nodes[to].must(&on_target).await;
            assert!(started.elapsed() >= BUSY, "it was not busy");
        };
        tokio::join!(busy, async {
            // By then it is busy, and tells nobody.
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.nodes[from].must(&own).await
        });
    }

    /// The slot of a key.
    pub async fn slot_of(&self, key: &str) -> u16 {
        let answer = self.nodes[0].must(&format!("CLUSTER KEYSLOT {key}")).await;
        answer.lines().next().and_then(|line| line.strip_prefix(':')?.parse().ok()).expect("a slot")
    }

    /// The master that has a key.
    pub async fn owner_of(&self, key: &str) -> usize {
        for (number, node) in self.nodes.iter().enumerate() {
            let is_elsewhere = async || node.says(&format!("EXISTS {key}"), "-MOVED").await;
            if !node.says("ROLE", "slave").await && !is_elsewhere().await {
                return number;
            }
        }
        panic!("nobody has {key}");
    }

    /// The answer of the node that has the command's keys, as the protocol's text.
    pub async fn command(&self, line: &str) -> io::Result<String> {
        let mut answer = self.nodes[0].command(line).await;
        for node in &self.nodes[1..] {
            if !answer.as_ref().is_ok_and(|text| text.starts_with("-MOVED")) {
                break;
            }
            answer = node.command(line).await;
        }
        answer
    }

    /// Waits until all nodes serve and know so many.
    pub async fn whole(&self, nodes: usize) {
        let known = format!("cluster_known_nodes:{nodes}\r");
        until(PATIENCE, || async {
            let answers = join_all(self.nodes.iter().map(|node| node.command("CLUSTER INFO"))).await;
            let is_whole = |text: &String| text.contains("cluster_state:ok") && text.contains(&known);
            answers.iter().all(|answer| answer.as_ref().is_ok_and(is_whole))
        })
        .await;
    }
}

impl RedisServer {
    /// The answer to a command that must succeed.
    async fn must(&self, line: &str) -> String {
        let answer = self.command(line).await.expect("redis answers");
        assert!(!answer.starts_with('-'), "{line}: {answer}");
        answer
    }

    async fn says(&self, line: &str, what: &str) -> bool {
        self.command(line).await.is_ok_and(|answer| answer.contains(what))
    }

    async fn meet(&self, other: &Self) {
        if self.port() != other.port() {
            self.must(&format!("CLUSTER MEET 127.0.0.1 {} {}", other.port(), other.bus_port())).await;
        }
    }

    /// Its name in the cluster.
    async fn id(&self) -> String {
        self.must("CLUSTER MYID").await.lines().nth(1).expect("an id").to_owned()
    }
}
