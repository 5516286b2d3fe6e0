//! The running totals of what was settled, in one process.
//!
//! Knows no rate. The invariant: they only grow.

use parking_lot::Mutex;

use super::EmbeddedEngine;

/// By shard, then by class; as many shards as were heard of.
pub(super) type Drained = Mutex<Vec<[u64; 3]>>;

impl EmbeddedEngine {
    pub(crate) fn count_drained(&self, settled: &[(u16, [u64; 3])]) {
        let mut totals = self.drained.lock();
        for (shard, events) in settled {
            let shard = usize::from(*shard);
            let known = totals.len().max(shard + 1);
            totals.resize(known, [0; 3]);
            totals[shard].iter_mut().zip(events).for_each(|(total, events)| *total += events);
        }
    }

    pub(crate) fn drained(&self, shards: u16) -> Vec<[u64; 3]> {
        let mut totals = self.drained.lock().clone();
        totals.resize(shards.into(), [0; 3]);
        totals
    }
}
