//! What all connections of a gateway share.
//!
//! Holds parts and no rules of its own. The invariant: it lives as long as the gateway; a connection
//! borrows from it and leaves nothing behind but its count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use auth::Tokens;
use domain::Timestamp;
use handlers::Handlers;
use intake::Intake;
use protocol::{Channel, Refusal, wire};
use realtime::{InboxId, Realtime};
use runtime::{Clock, Shutdown, Tasks};
use store::Store;
use telemetry::{Counter, Gauge};
use transport::engineio::Server;
use uuid::Uuid;

use crate::codec::Dialect;
use crate::door::admission::Admission;
use crate::door::openings::Openings;
use crate::handle::deadlines::Deadlines;
use crate::handle::{Handle, Meters};
use crate::hub::Hub;
use crate::idle::Idle;
use crate::lookups::Lookups;
use crate::presence::Turns;
use crate::session::Renewals;
use crate::typing::Published;
use crate::watch::changes::Doubts;
use crate::wheel::Wheel;

/// How long one look-up in a dependency may take before the client is told to try again.
pub(crate) const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);

/// The parts.
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    /// Socket.IO's sessions, by what carries them.
    pub(crate) engine: Server,
    pub(crate) wheel: Wheel,
    pub(crate) turns: Turns,
    pub(crate) idle: Idle,
    pub(crate) renewals: Renewals,
    pub(crate) lookups: Lookups,
    /// Typing that was published of late.
    pub(crate) published: Published,
    pub(crate) meters: Arc<Meters>,
    pub(crate) openings: Openings,
    pub(crate) admission: Admission,
    pub(crate) doubts: Doubts,
    pub(crate) store: Store,
    pub(crate) realtime: Realtime,
    pub(crate) inbox: InboxId,
    pub(crate) intake: Intake,
    pub(crate) handlers: Handlers,
    pub(crate) tokens: Tokens,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    /// This process, as leases name it.
    pub(crate) gateway: Uuid,
    pub(crate) limits: wire::SessionLimits,
    /// Requested once the service is about to stop.
    pub(crate) draining: Shutdown,
    /// Over how long clients that are sent away are spread.
    pub(crate) return_within_ms: AtomicU64,
    pub(crate) live: AtomicUsize,
    pub(crate) next_key: AtomicU64,
}

/// Counts one connection for as long as it is held. However it ends, a panic included, the hub
/// forgets it with this.
pub(crate) struct Counted {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

impl Shared {
    /// A new connection that has `authenticate_within_ms` to say who it is.
    pub(crate) fn new_handle(&self, dialect: Dialect, authenticate_within_ms: u64) -> Arc<Handle> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let deadlines = Deadlines::new(self.wheel.now_ms(), authenticate_within_ms);
        let handle = Handle::new(key, dialect, deadlines, Arc::clone(&self.meters));
        self.wheel.watch(&handle);
        handle
    }

    /// True once the service is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_requested()
    }

    /// When `at` will be, on the clock that never goes back.
    pub(crate) fn monotonic_ms(&self, at: Timestamp) -> u64 {
        let ahead = at.since(self.clock.now());
        self.wheel.now_ms().saturating_add(u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX))
    }

    /// Waits until the connections that have much waiting were sent some of it.
    pub(crate) async fn breathe(&self) {
        self.meters.pace.breathe(|| self.clock.monotonic_us()).await;
    }

    /// Subscribes, confirmed; rooms among the channels are noted as such.
    pub(crate) async fn subscribe(&self, channels: &[Channel]) -> Result<(), Refusal> {
        if channels.is_empty() {
            return Ok(());
        }
        within(async { self.realtime.subscribe(&self.inbox, channels).await.map_err(|_| Refusal::unavailable()) })
            .await?;
        let rooms: Vec<_> = channels
            .iter()
            .filter_map(|channel| match channel {
                Channel::Room(room) => Some(*room),
                Channel::User(_) => None,
            })
            .collect();
        self.hub.subscribed(&rooms);
        Ok(())
    }
}

impl Counted {
    pub(crate) fn new(shared: Arc<Shared>, handle: Arc<Handle>) -> Self {
        shared.live.fetch_add(1, Ordering::SeqCst);
        Counter::SocketsOpened.inc_with(handle.dialect.as_str());
        Gauge::Sockets.add_with(handle.dialect.as_str(), 1.0);
        Self { shared, handle }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.hub.depart(&self.handle);
        self.shared.live.fetch_sub(1, Ordering::SeqCst);
        Gauge::Sockets.add_with(self.handle.dialect.as_str(), -1.0);
    }
}

/// Bounds a look-up in time. Boxed: the store's futures are large, and a session that looks nothing
/// up must not carry them.
pub(crate) fn within<'a, T: Send + 'a>(
    look_up: impl Future<Output = Result<T, Refusal>> + Send + 'a,
) -> impl Future<Output = Result<T, Refusal>> + Send + 'a {
    let look_up = tokio::time::timeout(LOOK_UP_LIMIT, Box::pin(look_up));
    async move { look_up.await.unwrap_or_else(|_| Err(Refusal::unavailable())) }
}
