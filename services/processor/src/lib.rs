//! The processor: applies accepted events, one shard at a time, in batches.
//!
//! Owns shards by leases, consumes only what it owns, and settles only what was committed and told.
//! Knows no client. The invariant: one processor at a time works on a room.

mod age;
mod batch;
#[cfg(test)]
mod bench;
mod caution;
mod deaths;
mod frontier;
mod janitor;
mod joint;
mod note;
mod ownership;
mod pruning;
mod suspects;
mod tally;
mod teller;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use broker::Broker;
use domain::Cause;
use engine::Engine;
use handlers::{HandlerParts, Handlers};
use protocol::Keyring;
use realtime::Realtime;
use runtime::{Clock, Shutdown, Tasks};
use store::Store;
use telemetry::Counter;

/// How long a stop may take before the process gives back what it holds and goes.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running processor.
pub struct Processor {
    shutdown: Shutdown,
    tasks: Tasks,
}

/// What all parts of a processor work with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) realtime: Realtime,
    pub(crate) handlers: Handlers,
    pub(crate) joint: joint::Joint,
    pub(crate) keys: Keyring,
    pub(crate) clock: Clock,
    /// How long the rooms' logs and all receipts are kept; `None`: for ever.
    pub(crate) room_log_kept: Option<Duration>,
    pub(crate) duty: pruning::Duty,
    pub(crate) turn: deaths::Turn,
    pub(crate) tally: Arc<tally::Tally>,
}

impl Processor {
    /// Starts to take shards and work on them. `tasks` is stopped if any part of it ends early.
    /// `room_log_kept`: how long the rooms' logs and all receipts are; `None`: for ever.
    pub fn start(engine: &Engine, room_log_kept: Option<Duration>, tasks: &Tasks) -> Self {
        let handlers = Handlers::new(HandlerParts {
            store: engine.store.clone(),
            realtime: engine.realtime.clone(),
            keys: engine.keys.clone(),
            clock: engine.clock.clone(),
        });
        // Alerts on an increase need the zero that it begins with.
        for cause in Cause::ALL {
            Counter::DeadLetters.add_with(cause.as_str(), 0);
        }
        for outcome in batch::OUTCOMES {
            Counter::EventsProcessed.add_with(outcome, 0);
        }
        let (joint, joiner) = joint::Joint::new(handlers.clone());
        let parts = Parts {
            store: engine.store.clone(),
            broker: engine.broker.clone(),
            realtime: engine.realtime.clone(),
            handlers,
            joint,
            keys: engine.keys.clone(),
            clock: engine.clock.clone(),
            room_log_kept,
            duty: pruning::Duty::default(),
            turn: deaths::Turn::default(),
            tally: Arc::default(),
        };
        // Its own request and its own tasks: a stop of the service first ends the processor in good
        // order, then what it stands on.
        let shutdown = Shutdown::new();
        let own = Tasks::new(shutdown.clone());
        own.own("joiner", joiner.run());
        own.own("shard ownership", ownership::run(parts.clone(), own.clone()));
        own.own("janitor", janitor::run(parts.clone(), shutdown.clone()));
        own.own("pruning", pruning::run(parts.clone(), shutdown.clone()));
        own.own("room logs", pruning::walk(parts.clone(), shutdown.clone()));
        own.own("tally", tally::run(parts.clone(), shutdown.clone()));
        own.own("presence", teller::run(parts, shutdown.clone()));
        let (watched, service) = (own.clone(), tasks.shutdown().clone());
        tasks.own("processor", async move {
            tokio::select! {
                () = service.requested() => {}
                () = watched.shutdown().requested() => {
                    if watched.failed() {
                        service.request();
                    }
                    service.requested().await;
                }
            }
        });
        Self { shutdown, tasks: own }
    }

    /// Finishes the batches under way, gives up the shards and ends. True when all went in time.
    pub async fn stop(self) -> bool {
        self.shutdown.request();
        self.tasks.drained(STOP_LIMIT).await
    }

    /// True when a part of the processor ended early.
    pub fn failed(&self) -> bool {
        self.tasks.failed()
    }
}
