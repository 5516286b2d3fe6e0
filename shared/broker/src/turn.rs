//! One consumer of a shard at a time in this process, and an orderly change between two.
//!
//! Between processes it is the leases' and the broker's business. The invariant: a consumer begins
//! only after its predecessor has given everything back; a subscriber that stood by while another
//! closed was seen to receive later events first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::BrokerError;

/// Whose turn it is, by shard.
#[derive(Debug)]
pub(crate) struct Turns {
    shards: Vec<Arc<Semaphore>>,
}

/// The right to consume a shard, until dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    /// Nobody consumes yet.
    pub(crate) fn new(shards: u16) -> Self {
        Self { shards: (0..shards).map(|_| Arc::new(Semaphore::new(1))).collect() }
    }

    /// Waits for a shard's turn, at most `limit`.
    pub(crate) async fn take(&self, shard: u16, limit: Duration) -> Result<Turn, BrokerError> {
        let unavailable = |why: &str| BrokerError::Unavailable(format!("shard {shard} {why}"));
        let turn = self.shards.get(usize::from(shard)).ok_or_else(|| unavailable("does not exist"))?;
        match tokio::time::timeout(limit, Arc::clone(turn).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
            Ok(Err(_)) => Err(unavailable("is closed")),
            Err(_) => Err(unavailable("still has a consumer in this process")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shard_has_one_turn_at_a_time() {
        let (turns, limit) = (Turns::new(2), Duration::from_millis(20));
        let first = turns.take(0, limit).await.expect("free");
        assert!(turns.take(0, limit).await.is_err());
        assert!(turns.take(1, limit).await.is_ok());
        assert!(turns.take(2, limit).await.is_err(), "there is no shard 2");
        drop(first);
        assert!(turns.take(0, limit).await.is_ok());
    }
}
