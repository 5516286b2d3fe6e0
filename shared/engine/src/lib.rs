//! Opens the three ports from settings, and runs the services that stand on them.
//!
//! Knows which adapter belongs to which setting and nothing about chat. The invariant: an engine
//! that was opened has answered on all three ports, and no other engine ever takes its place.

mod lock;
mod open;
pub mod service;

use broker::Broker;
use protocol::Keyring;
use realtime::Realtime;
use runtime::{Clock, Tasks};
use store::Store;
use telemetry::{Check, Health};

pub use lock::DataLock;
pub use open::{OpenError, open_store, visit_broker, visit_store};
pub use service::Service;

/// Which adapters are behind the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// SQLite and memory of this process.
    Embedded,
    /// Postgres, Redis and RabbitMQ.
    Distributed,
}

/// The three ports, open; clones share them.
#[derive(Clone)]
pub struct Engine {
    /// Who and what is kept.
    pub store: Store,
    /// What is to be done.
    pub broker: Broker,
    /// Who is here, and the way to them.
    pub realtime: Realtime,
    /// What signs everything inside.
    pub keys: Keyring,
    /// What time it is.
    pub clock: Clock,
    /// Which adapters these are.
    pub kind: EngineKind,
}

impl Engine {
    /// Probes the three ports from now on, under the names `store`, `broker` and `realtime`.
    pub fn health(&self, tasks: &Tasks) -> Health {
        let (store, broker, realtime) = (self.store.clone(), self.broker.clone(), self.realtime.clone());
        let checks = vec![
            Check::new("store", move || {
                let store = store.clone();
                async move { store.ping().await.map_err(|error| error.to_string()) }
            }),
            Check::new("broker", move || {
                let broker = broker.clone();
                async move { broker.ping().await.map_err(|error| error.to_string()) }
            }),
            Check::new("realtime", move || {
                let realtime = realtime.clone();
                async move { realtime.ping().await.map_err(|error| error.to_string()) }
            }),
        ];
        Health::new(checks, tasks)
    }

    /// Finishes what the broker still has to confirm and ends all connections.
    pub async fn close(&self) {
        self.broker.close().await;
        self.store.close().await;
    }
}
