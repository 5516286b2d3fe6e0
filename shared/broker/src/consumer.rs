//! What a processor gets and gives back: events one by one, settled in whole batches.
//!
//! Knows the engines only by their common methods. The invariant: an event is acked only by
//! `settle`, after whatever was made of it is confirmed.

use domain::{Cause, Class, Timestamp};
use lapin::types::ShortString;
use protocol::UnverifiedEnvelope;

use crate::{BrokerError, embedded, rabbitmq};

/// So many messages of each class may be unsettled at any rate, whatever they hold.
pub const UNSETTLED_LEAST: u16 = 16;

/// An event as a processor receives it.
#[derive(Debug)]
pub struct Incoming {
    /// The event; nothing in it may be believed before it is verified.
    pub envelope: UnverifiedEnvelope,
    /// The class of queue it came from.
    pub class: Class,
    /// How often it failed so far, since it was published or replayed.
    pub failures: u32,
    /// When it first failed, whether or not it was replayed since.
    pub first_failed_at: Option<Timestamp>,
    /// True when somebody may have received it before.
    pub redelivered: bool,
    /// What the engine needs to settle it.
    pub(crate) origin: Origin,
}

/// Where an event came from, and what its copies must keep beside the envelope.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// The tag of the message, which other events may share.
    RabbitMq {
        tag: u64,
        priority: Option<u8>,
        content_type: Option<ShortString>,
        app_id: Option<ShortString>,
    },
    Embedded {
        position: i64,
    },
}

/// Where an event came from, to its consumer; it may share the place with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub(crate) class: Class,
    pub(crate) number: u64,
}

impl Incoming {
    /// Where it came from.
    pub fn place(&self) -> Place {
        let number = match &self.origin {
            Origin::RabbitMq { tag, .. } => *tag,
            Origin::Embedded { position } => position.unsigned_abs(),
        };
        Place { class: self.class, number }
    }
}

/// What became of an event.
#[derive(Debug)]
pub enum Settlement {
    /// It is dealt with, for good.
    Done,
    /// Its own processing failed.
    Failed(Failure),
}

/// How an event's own processing failed.
#[derive(Debug)]
pub struct Failure {
    /// Why; its kind decides whether the event is tried again or a dead letter at once.
    pub cause: Cause,
    /// For operators; holds no message text. Cut after 1 KiB.
    pub error: String,
    /// When it failed.
    pub at: Timestamp,
    /// Whether it is counted. What is not waits as long as the last time, and climbs no further.
    pub counts: bool,
    /// What a dead letter of it says.
    pub note: DeadLetterNote,
}

/// What a dead letter says in plain words, for triage without other tools.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterNote {
    /// Who sent it.
    pub sender: Option<String>,
    /// Into which room.
    pub room: Option<String>,
    /// The body as readable JSON. Cut after 64 KiB.
    pub rendering: String,
}

/// Receives the events of one shard; there is at most one that does.
///
/// Dropping it gives everything unsettled back, like `close`, but without waiting for it.
pub struct Consumer {
    shard: u16,
    engine: Engine,
}

pub(crate) enum Engine {
    RabbitMq(Box<rabbitmq::ShardConsumer>),
    Embedded(embedded::ShardConsumer),
}

impl From<rabbitmq::ShardConsumer> for Engine {
    fn from(consumer: rabbitmq::ShardConsumer) -> Self {
        Self::RabbitMq(Box::new(consumer))
    }
}

impl From<embedded::ShardConsumer> for Engine {
    fn from(consumer: embedded::ShardConsumer) -> Self {
        Self::Embedded(consumer)
    }
}

impl Consumer {
    pub(crate) fn of(shard: u16, engine: impl Into<Engine>) -> Self {
        Self { shard, engine: engine.into() }
    }

    /// Whose events it receives.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Waits for at least one event, then takes what is there now, at most `max_events` (20 or more
    /// for every class to get its share): high before medium before low, but each class that waits
    /// gets at least a twentieth. Events that came as one message stay together, so it may be a few more. While
    /// `UNSETTLED_LEAST` messages of a class are not settled, more of that class may be kept back until they are. After
    /// `begin_stop` what was already delivered, then an empty batch. Once this fails the consumer is of no more use.
    /// Cancelling the call loses nothing.
    pub async fn next_batch(&mut self, max_events: usize) -> Result<Vec<Incoming>, BrokerError> {
        match &mut self.engine {
            Engine::RabbitMq(consumer) => consumer.next_batch(max_events).await,
            Engine::Embedded(consumer) => consumer.next_batch(max_events).await,
        }
    }

    /// Settles a batch: confirms the retries and dead letters made of it, then acks all of it. When
    /// this fails, some or all of the batch will be received again by the next consumer. An event that came with
    /// others in one message is settled for good when they are (see `holds`).
    pub async fn settle(&mut self, batch: Vec<(Incoming, Settlement)>) -> Result<(), BrokerError> {
        match &mut self.engine {
            Engine::RabbitMq(consumer) => consumer.settle(batch).await,
            Engine::Embedded(consumer) => consumer.settle(batch).await,
        }
    }

    /// Whether what was settled there would be received again if this ended now: what came with it is not settled.
    pub fn holds(&self, place: Place) -> bool {
        match &self.engine {
            Engine::RabbitMq(consumer) => consumer.holds(place),
            Engine::Embedded(_) => false,
        }
    }

    /// Asks for nothing more. Go on with `next_batch` and `settle` until a batch is empty, then
    /// `close`.
    pub async fn begin_stop(&mut self) -> Result<(), BrokerError> {
        match &mut self.engine {
            Engine::RabbitMq(consumer) => consumer.begin_stop().await,
            Engine::Embedded(consumer) => {
                consumer.begin_stop();
                Ok(())
            }
        }
    }

    /// Ends at once, as if the process had died: for when another may subscribe already. Only the
    /// end of the connection makes the broker give back what is not settled in the right order then,
    /// so it takes the other shards' consumers of this process with it.
    pub fn abandon(self) {
        match self.engine {
            Engine::RabbitMq(consumer) => consumer.abandon(),
            Engine::Embedded(consumer) => drop(consumer),
        }
    }

    /// Gives back what is not settled and ends; the shard may be consumed by another afterwards.
    pub async fn close(self) {
        match self.engine {
            Engine::RabbitMq(consumer) => consumer.close().await,
            Engine::Embedded(consumer) => drop(consumer),
        }
    }
}
