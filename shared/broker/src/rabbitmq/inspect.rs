//! What operators ask: depths, dead letters, whether the broker answers.
//!
//! Uses the consuming connection, on channels of its own. The invariant: looking changes nothing;
//! a dead letter that was looked at goes back to its place when the channel closes.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};

use domain::retry::LADDER;

use super::link::{Link, asked, close_channel};
use super::properties::as_text;
use super::topology::{DEAD_QUEUE, Topology, queue_name, retry_name};
use crate::{BrokerError, DeadLetter, Depths};

/// Asks for a round trip.
pub(super) async fn ping(link: &Link) -> Result<(), BrokerError> {
    close_channel(&link.channel().await?).await;
    if link.is_alive() { Ok(()) } else { Err(BrokerError::Unavailable("the connection was lost".to_owned())) }
}

/// How many messages are ready in each queue.
pub(super) async fn depths(link: &Link, topology: Topology) -> Result<Depths, BrokerError> {
    let channel = link.channel().await?;
    let events: Vec<_> = topology.routing_keys().collect();
    let names = events.iter().map(|(_, key)| queue_name(key));
    let names = names.chain(LADDER.map(retry_name)).chain([DEAD_QUEUE.to_owned()]);
    let counts = asked(try_join_all(names.map(|name| ready(&channel, name)))).await?;
    close_channel(&channel).await;

    let mut depths = Depths::default();
    for ((class, _), count) in events.iter().zip(&counts) {
        *depths.of(*class) += count;
    }
    let (retries, dead) = counts[events.len()..].split_at(LADDER.len());
    Ok(Depths { retry: retries.iter().sum(), dead: dead.iter().sum(), ..depths })
}

async fn ready(channel: &Channel, queue: String) -> lapin::Result<u64> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    Ok(queue.message_count().into())
}

/// The first dead letters.
pub(super) async fn dead_letters(link: &Link, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
    let channel = link.channel().await?;
    let mut letters = Vec::new();
    while letters.len() < limit
        && let Some(message) = asked(channel.basic_get(DEAD_QUEUE.into(), BasicGetOptions::default())).await?
    {
        letters.push(letter(message));
    }
    close_channel(&channel).await;
    Ok(letters)
}

fn letter(message: BasicGetMessage) -> DeadLetter {
    let delivery = message.delivery;
    let properties = delivery.properties;
    let own = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default();
    let headers: BTreeMap<String, String> = properties
        .headers()
        .iter()
        .flat_map(FieldTable::inner)
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), as_text(value)?)))
        .collect();
    DeadLetter {
        job_id: own(properties.message_id()),
        kind: own(properties.kind()),
        headers,
        body: delivery.data.into(),
    }
}
