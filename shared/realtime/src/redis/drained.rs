//! The running totals of what processors have settled.
//!
//! One hash, in which every processor adds what it did, a field for each shard of a class. The invariant: it
//! grows, or it is gone as a whole.

use domain::Class;

use super::RedisEngine;
use super::keys::{DRAINED, DRAINED_TTL, drained_field};
use super::round::Round;
use crate::RealtimeError;

impl RedisEngine {
    pub(crate) async fn count_drained(&self, settled: &[(u16, [u64; 3])]) -> Result<(), RealtimeError> {
        let mut round = Round::new(None);
        for (shard, events) in settled {
            for (class, events) in Class::ALL.into_iter().zip(events).filter(|(_, events)| **events > 0) {
                round.command(DRAINED, "HINCRBY").arg(DRAINED).arg(drained_field(class, *shard)).arg(*events);
            }
        }
        round.command(DRAINED, "PEXPIRE").arg(DRAINED).arg(DRAINED_TTL.as_millis() as u64);
        self.send(&round).await.map(drop)
    }

    pub(crate) async fn drained(&self, shards: u16) -> Result<Vec<[u64; 3]>, RealtimeError> {
        let mut round = Round::of(DRAINED, "HMGET");
        let fields = (0..shards).flat_map(|shard| Class::ALL.map(|class| drained_field(class, shard)));
        round.arg(DRAINED).arg(fields.collect::<Vec<_>>());
        let totals: Vec<Option<u64>> = self.answer(&round).await?;
        let (totals, _) = totals.as_chunks::<3>();
        Ok(totals.iter().map(|of_shard| of_shard.map(Option::unwrap_or_default)).collect())
    }
}
