//! What operators ask: depths, whether the broker answers.
//!
//! Uses the consuming connection, on channels of its own. The invariant: looking changes nothing.

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use domain::retry::LADDER;

use super::link::{Link, asked, close_channel};
use super::topology::{DEAD_QUEUE, Topology, queue_name, retry_name};
use super::weights::Weights;
use crate::{BrokerError, Depths};

/// Asks for a round trip.
pub(super) async fn ping(link: &Link) -> Result<(), BrokerError> {
    close_channel(&link.channel().await?).await;
    if link.is_alive() { Ok(()) } else { Err(BrokerError::Unavailable("the connection was lost".to_owned())) }
}

/// How many events are ready in each queue, about: the broker counts messages.
pub(super) async fn depths(link: &Link, topology: Topology, weights: &Weights) -> Result<Depths, BrokerError> {
    let channel = link.channel().await?;
    let events: Vec<_> = topology.routing_keys().collect();
    let names = events.iter().map(|(_, _, key)| queue_name(key));
    let names = names.chain(LADDER.map(retry_name)).chain([DEAD_QUEUE.to_owned()]);
    let counts = asked(try_join_all(names.map(|name| ready(&channel, name)))).await?;
    close_channel(&channel).await;

    let (counts, failed) = counts.split_at(events.len());
    let mut shards = vec![[0; 3]; topology.shards().into()];
    for ((class, shard, _), count) in events.iter().zip(counts) {
        shards[usize::from(*shard)][class.index()] = weights.events(*class, *shard, *count);
    }
    let (retries, dead) = failed.split_at(LADDER.len());
    Ok(Depths { retry: retries.iter().sum(), dead: dead.iter().sum(), ..Depths::ready(shards) })
}

async fn ready(channel: &Channel, queue: String) -> lapin::Result<u64> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    Ok(queue.message_count().into())
}
