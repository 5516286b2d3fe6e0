//! Names and declarations of everything that lies on the broker.
//!
//! Knows nothing of events. The invariant: whatever an event can be routed or dead-lettered to
//! exists, is durable and has no length limit, so that nothing vanishes silently.

use domain::Class;
use domain::retry::{LADDER, Step};
use futures_util::future::join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::link::{Link, close_channel, is_contradiction, is_missing, unavailable};
use crate::{ASK_LIMIT, BrokerError, within};

/// Where every event is published.
pub(super) const EXCHANGE: &str = "chat.events";
/// Where dead letters are published.
pub(super) const DEAD_EXCHANGE: &str = "chat.events.dlx";
/// Where dead letters lie.
pub(super) const DEAD_QUEUE: &str = "chat.events.dlq";
/// The highest priority that the queues tell apart.
const MAX_PRIORITY: i32 = 10;

/// The names that follow from the number of shards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topology {
    shards: u16,
    /// False: what is not there is an error.
    makes: bool,
}

/// The exchange and the queue of a step of the ladder, which share a name.
pub(super) fn retry_name(step: Step) -> String {
    format!("{EXCHANGE}.retry.{}", step.name)
}

/// A queue's name from its routing key.
pub(super) fn queue_name(routing_key: &str) -> String {
    format!("{EXCHANGE}.{routing_key}")
}

impl Topology {
    /// At least one shard.
    pub(super) fn new(shards: u16) -> Self {
        Self { shards: shards.max(1), makes: true }
    }

    /// The same for a visitor, who only uses what others have made.
    pub(super) fn of_others(shards: u16) -> Self {
        Self { makes: false, ..Self::new(shards) }
    }

    /// How many queues each class has.
    pub(super) fn shards(self) -> u16 {
        self.shards
    }

    /// The routing key of a class's shard, which is also the end of its queue's name: `high.00`;
    /// with one shard plainly `high`.
    pub(super) fn routing_key(self, class: Class, shard: u16) -> String {
        if self.shards == 1 { class.as_str().to_owned() } else { format!("{class}.{shard:02}") }
    }

    /// All routing keys with their classes and shards.
    pub(super) fn routing_keys(self) -> impl Iterator<Item = (Class, u16, String)> {
        let of_class = move |class| (0..self.shards).map(move |shard| (class, shard, self.routing_key(class, shard)));
        Class::ALL.into_iter().flat_map(of_class)
    }

    /// Declares everything; what is there already stays as it is. A visitor looks whether it is there.
    pub(super) async fn declare(self, link: &Link) -> Result<(), BrokerError> {
        if !self.makes {
            return self.look(link).await;
        }
        let channel = link.channel().await?;
        within(ASK_LIMIT, self.declare_on(&channel)).await?;
        close_channel(&channel).await;
        Ok(())
    }

    /// That the queues of all shards are there, and that nobody works on those of another number of shards:
    /// what is put into a queue that nobody reads stays there.
    async fn look(self, link: &Link) -> Result<(), BrokerError> {
        let shards = self.shards;
        let doubt =
            |what: String| BrokerError::Topology(format!("{what}; is QUEUE_SHARDS={shards} what the services have?"));
        let ours = self.routing_keys().map(|(_, _, key)| queue_name(&key));
        for name in ours.chain([DEAD_QUEUE.to_owned()]) {
            if consumers(link, &name).await?.is_none() {
                return Err(doubt(format!("there is no queue {name}")));
            }
        }
        for name in self.others() {
            if consumers(link, &name).await?.is_some_and(|count| count > 0) {
                return Err(doubt(format!("somebody works on the queue {name}")));
            }
        }
        Ok(())
    }

    /// Queues that a system with another number of shards reads.
    fn others(self) -> impl Iterator<Item = String> {
        let plain = (self.shards > 1).then(|| Class::High.as_str().to_owned());
        let first = (self.shards == 1).then(|| format!("{}.00", Class::High));
        let next = (self.shards > 1).then(|| self.routing_key(Class::High, self.shards));
        [plain, first, next].into_iter().flatten().map(|key| queue_name(&key))
    }

    async fn declare_on(self, channel: &Channel) -> Result<(), BrokerError> {
        let steps: Vec<String> = LADDER.into_iter().map(retry_name).collect();
        let fanouts = steps.iter().map(String::as_str).chain([DEAD_EXCHANGE]).map(|name| (name, ExchangeKind::Fanout));
        let exchanges = fanouts.chain([(EXCHANGE, ExchangeKind::Direct)]);
        together(exchanges.map(|(name, kind)| declare_exchange(channel, name, kind))).await?;

        let keys: Vec<String> = self.routing_keys().map(|(_, _, key)| key).collect();
        let events = keys.iter().map(|key| (queue_name(key), event_arguments()));
        let retries = LADDER.into_iter().map(|step| (retry_name(step), retry_arguments(step)));
        let dead = [(DEAD_QUEUE.to_owned(), FieldTable::default())];
        let queues = events.chain(retries).chain(dead);
        together(queues.map(|(name, arguments)| declare_queue(channel, name, arguments))).await?;

        let events = keys.iter().map(|key| (queue_name(key), EXCHANGE.to_owned(), key.as_str()));
        let retries = steps.iter().map(|name| (name.clone(), name.clone(), ""));
        let dead = [(DEAD_QUEUE.to_owned(), DEAD_EXCHANGE.to_owned(), "")];
        let bindings = events.chain(retries).chain(dead);
        together(bindings.map(|(queue, exchange, key)| bind(channel, queue, exchange, key))).await
    }
}

/// How many consume from a queue; `None`: it is not there.
async fn consumers(link: &Link, queue: &str) -> Result<Option<u32>, BrokerError> {
    // Its own: a question after what is not there closes the channel.
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let asking = channel.queue_declare(queue.into(), options, FieldTable::default());
    let found = within(ASK_LIMIT, async { Ok(asking.await) }).await?;
    match found {
        Ok(found) => {
            close_channel(&channel).await;
            Ok(Some(found.consumer_count()))
        }
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(unavailable(&error)),
    }
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await
}

async fn declare_queue(channel: &Channel, name: String, arguments: FieldTable) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, arguments).await.map(drop)
}

async fn bind(channel: &Channel, queue: String, exchange: String, key: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await
}

fn event_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::LongInt(MAX_PRIORITY));
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    arguments
}

/// No routing key of its own: an event leaves with the one it came with.
fn retry_arguments(step: Step) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(step.delay.as_millis() as i32));
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(EXCHANGE.into()));
    arguments
}

/// Sends all questions before it waits for the answers, which come in the same order.
async fn together(questions: impl Iterator<Item = impl Future<Output = lapin::Result<()>>>) -> Result<(), BrokerError> {
    let failures: Vec<lapin::Error> = join_all(questions).await.into_iter().filter_map(Result::err).collect();
    // The first refusal closes the channel under all the others; it is the one to tell.
    match failures.iter().find(|error| is_contradiction(error)) {
        Some(error) => Err(BrokerError::Topology(error.to_string())),
        None => failures.first().map_or(Ok(()), |error| Err(unavailable(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_knows_the_queues_of_other_numbers_of_shards() {
        let others = |shards| Topology::of_others(shards).others().collect::<Vec<_>>();
        assert_eq!(others(1), ["chat.events.high.00"]);
        assert_eq!(others(4), ["chat.events.high", "chat.events.high.04"]);
    }

    #[test]
    fn one_shard_has_plain_names_and_many_are_numbered() {
        let keys = |shards| Topology::new(shards).routing_keys().map(|(_, _, key)| key).collect::<Vec<_>>();
        assert_eq!(keys(1), ["high", "medium", "low"]);
        assert_eq!(keys(2), ["high.00", "high.01", "medium.00", "medium.01", "low.00", "low.01"]);
        assert_eq!(queue_name(&Topology::new(12).routing_key(Class::Low, 11)), "chat.events.low.11");
        assert_eq!(retry_name(LADDER[2]), "chat.events.retry.25s");
    }
}
