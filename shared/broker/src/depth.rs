//! What operators ask of the queues: how many events wait.
//!
//! Knows no engine. The invariant: looking changes nothing.

use domain::Class;

/// Events that wait, those of classes summed over all shards; those delivered and not yet settled are not counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Depths {
    /// Ready in the queues of class high.
    pub high: u64,
    /// Ready in the queues of class medium.
    pub medium: u64,
    /// Ready in the queues of class low.
    pub low: u64,
    /// Waiting for their next attempt.
    pub retry: u64,
    /// Dead letters.
    pub dead: u64,
    /// What is ready in each shard, in the order of [`Class::ALL`].
    pub shards: Vec<[u64; 3]>,
}

impl Depths {
    /// What is ready, by shard and class; nothing else.
    pub fn ready(shards: Vec<[u64; 3]>) -> Self {
        let [high, medium, low] = Class::ALL.map(|class| shards.iter().map(|ready| ready[class.index()]).sum());
        Self { high, medium, low, shards, ..Self::default() }
    }

    /// Each count with its label in metrics.
    pub(crate) fn labelled(&self) -> [(&'static str, u64); 5] {
        [("high", self.high), ("medium", self.medium), ("low", self.low), ("retry", self.retry), ("dead", self.dead)]
    }
}
