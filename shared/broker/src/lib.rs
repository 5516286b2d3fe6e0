//! The broker port: accepted events, kept safely until a processor has settled them.
//!
//! Guarantees, the same on both engines (`tests/contract.rs` shows them):
//! 1. A `Confirm` that resolves to `Ok` means the event is on disk (embedded: unless
//!    `EMBEDDED_SYNC=normal`) and will reach a consumer of its shard until it is settled.
//! 2. Events of one shard and class with the same priority are received in the order in which
//!    `publish` was called (by one publisher), or in which they were confirmed before the next was
//!    published (by several). Higher priority overtakes.
//! 3. One consumer at a time receives a shard's events. What a consumer did not settle is received
//!    again by its successor, in the original order, before anything newer.
//! 4. `settle` acks an event only after the retry or dead letter made of it is confirmed. Events that came as one
//!    message are acked together, and nothing is made of any of them before all are settled.
//! 5. After a lost connection the engine reconnects by itself and declares its topology anew.
//!    Publishes meanwhile fail at once with `Unavailable`; open consumers end with an error.
//!
//! The caller's duty: settle everything received, in whole batches, in order. The port knows nothing
//! of what events mean.

pub mod consumer;
pub mod depth;
mod embedded;
mod letter;
pub mod letters;
pub mod publish;
pub mod rabbitmq;
mod settle;
mod share;
mod turn;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use protocol::SignedEnvelope;
use runtime::Tasks;
use telemetry::Gauge;

pub use consumer::{Consumer, DeadLetterNote, Failure, Incoming, Place, Settlement, UNSETTLED_LEAST};
pub use depth::Depths;
pub use letters::{DeadLetter, Fate, LOOK_LIMIT, LetterCursor, LetterPage, LetterQuery, Reach, Selection, Swept};
pub use publish::{Confirm, PublishError};

/// How to reach and lay out the broker.
#[derive(Clone)]
pub enum BrokerSettings {
    /// RabbitMQ at an AMQP URL.
    RabbitMq {
        /// `amqp://` or `amqps://`; secret, it holds the password.
        url: String,
        /// How many queues each class is split into; at least 1.
        shards: u16,
        /// Who publishes: the broker's `app_id` and the connection's name.
        app_id: String,
    },
    /// Queues in a file of this process.
    Embedded {
        /// The SQLite file; made if it is not there.
        path: PathBuf,
        /// True: a confirm means fsynced. False: it survives the process, perhaps not the machine.
        sync_full: bool,
    },
}

impl fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RabbitMq { shards, app_id, .. } => {
                f.debug_struct("RabbitMq").field("shards", shards).field("app_id", app_id).finish_non_exhaustive()
            }
            Self::Embedded { path, sync_full } => {
                f.debug_struct("Embedded").field("path", path).field("sync_full", sync_full).finish()
            }
        }
    }
}

/// How long a confirm is awaited.
pub const CONFIRM_LIMIT: Duration = Duration::from_secs(2);

/// How long any other question to the broker may take.
pub(crate) const ASK_LIMIT: Duration = Duration::from_secs(5);

/// How long a look at dead letters may take beside the looking: its turn, the connection, putting all back.
const AROUND_LOOK: Duration = Duration::from_secs(10);

/// How long `ping` may take.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// Why the broker could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Not connected, or the connection was lost meanwhile.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
    /// The topology on the broker contradicts ours (another version's arguments).
    #[error("the broker's queues are declared differently: {0}")]
    Topology(String),
    /// The broker delivered a message that the library cannot read, and the connection is lost for it.
    #[error("the broker delivered a message that cannot be read, and the connection is lost for it: {0}")]
    Unreadable(String),
    /// There are more dead letters than can be looked through in the time that was given.
    #[error("there are too many dead letters to look through in time")]
    TooMany,
}

/// The broker. Clones share its connections, which end with the last clone or with `close`.
#[derive(Clone)]
pub struct Broker {
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    RabbitMq(Arc<rabbitmq::RabbitMq>),
    Embedded(Arc<embedded::Embedded>),
}

/// Calls the same method of whichever engine it is.
macro_rules! on {
    ($broker:expr, $engine:ident => $call:expr) => {
        match &$broker.engine {
            Engine::RabbitMq($engine) => $call,
            Engine::Embedded($engine) => $call,
        }
    };
}

impl Broker {
    /// Makes one attempt to connect and to declare the topology; afterwards the engine reconnects
    /// by itself. Its background tasks belong to `tasks`.
    pub async fn open(settings: BrokerSettings, tasks: &Tasks) -> Result<Self, BrokerError> {
        let engine = match settings {
            BrokerSettings::RabbitMq { url, shards, app_id } => {
                Engine::RabbitMq(Arc::new(rabbitmq::RabbitMq::open(&url, shards, app_id, tasks).await?))
            }
            BrokerSettings::Embedded { path, sync_full } => {
                Engine::Embedded(Arc::new(embedded::Embedded::open(path, sync_full, tasks).await?))
            }
        };
        Ok(Self { engine })
    }

    /// Opens it beside a running server, for operators: on the embedded engine without taking the file
    /// over, so that nothing can be published or consumed; on RabbitMQ without making any queue, and
    /// only if those that are there are of the same number of shards.
    pub async fn visit(settings: BrokerSettings, tasks: &Tasks) -> Result<Self, BrokerError> {
        match settings {
            BrokerSettings::RabbitMq { url, shards, app_id } => {
                let engine = rabbitmq::RabbitMq::visit(&url, shards, app_id, tasks).await?;
                Ok(Self { engine: Engine::RabbitMq(Arc::new(engine)) })
            }
            BrokerSettings::Embedded { path, sync_full } => {
                let engine = embedded::Embedded::visit(path, sync_full).await?;
                Ok(Self { engine: Engine::Embedded(Arc::new(engine)) })
            }
        }
    }

    /// Where events are stored there is so much to write over, bytes, beside what the disk has free. Only the
    /// embedded engine looks at its disk.
    pub fn count_in(&self, spare_bytes: Arc<AtomicU64>) {
        match &self.engine {
            Engine::RabbitMq(_) => {}
            Engine::Embedded(engine) => engine.count_in(spare_bytes),
        }
    }

    /// How many shards each class has; the embedded engine has one.
    pub fn shards(&self) -> u16 {
        match &self.engine {
            Engine::RabbitMq(engine) => engine.shards(),
            Engine::Embedded(_) => 1,
        }
    }

    /// Hands an event to the broker. The order of events is the order of these calls, whether or
    /// not earlier ones are confirmed yet.
    pub fn publish(&self, envelope: SignedEnvelope) -> Confirm {
        on!(self, engine => engine.publish(envelope))
    }

    /// Begins to receive the events of a shard. Waits for an earlier consumer of this process to be
    /// gone, at most 5 s.
    pub async fn consume(&self, shard: u16) -> Result<Consumer, BrokerError> {
        match &self.engine {
            Engine::RabbitMq(engine) => Ok(Consumer::of(shard, engine.consume(shard).await?)),
            Engine::Embedded(engine) => Ok(Consumer::of(shard, engine.consume(shard).await?)),
        }
    }

    /// How many events wait, by class; also shown as metrics.
    pub async fn depths(&self) -> Result<Depths, BrokerError> {
        let depths = on!(self, engine => within(ASK_LIMIT, engine.depths()).await)?;
        for (label, count) in depths.labelled() {
            Gauge::QueueDepth.set_with(label, count as f64);
        }
        Ok(depths)
    }

    /// A page of dead letters, oldest first; they stay where they are. `TooMany`: the time was over before
    /// anything new was looked at. At most 10 s longer than the query says.
    pub async fn dead_letters(&self, query: &LetterQuery) -> Result<LetterPage, BrokerError> {
        on!(self, engine => within(query.within.saturating_add(AROUND_LOOK), engine.dead_letters(query)).await)
    }

    /// The oldest dead letter with that id, if it is found in `time`, else `TooMany`. At most 10 s longer.
    pub async fn dead_letter(&self, job_id: &str, time: Duration) -> Result<Option<DeadLetter>, BrokerError> {
        on!(self, engine => within(time.saturating_add(AROUND_LOOK), engine.dead_letter(job_id, time)).await)
    }

    /// Replays or drops the dead letters that are meant, as far as `reach` goes. After an error some
    /// may be done: repeating it does the rest.
    pub async fn sweep(&self, selection: &Selection, fate: Fate, reach: Reach) -> Result<Swept, BrokerError> {
        on!(self, engine => engine.sweep(selection, fate, reach).await)
    }

    /// Asks the broker whether it can take events; answers within 2 s.
    pub async fn ping(&self) -> Result<(), BrokerError> {
        on!(self, engine => within(PING_LIMIT, engine.ping()).await)
    }

    /// Whether a publish would be attempted right now.
    pub fn is_connected(&self) -> bool {
        on!(self, engine => engine.is_connected())
    }

    /// True if what was received can be settled now, as far as is known. On a disk that is nearly full it
    /// can while nothing new is taken.
    pub fn can_settle(&self) -> bool {
        on!(self, engine => engine.can_settle())
    }

    /// Waits until no confirm is outstanding, at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        on!(self, engine => engine.flush(limit).await);
    }

    /// Waits for outstanding confirms, then ends the engine's connections and background tasks.
    /// Later publishes are refused. Close consumers first.
    pub async fn close(&self) {
        on!(self, engine => engine.close().await);
    }
}

/// Gives a question a limit.
pub(crate) async fn within<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let late = |_| BrokerError::Unavailable(format!("no answer within {} ms", limit.as_millis()));
    tokio::time::timeout(limit, question).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_do_not_show_the_password() {
        let url = "amqp://app:secret@host/".to_owned();
        let shown = format!("{:?}", BrokerSettings::RabbitMq { url, shards: 4, app_id: "gateway".into() });
        assert!(shown.contains("gateway") && !shown.contains("secret"), "{shown}");
    }
}
