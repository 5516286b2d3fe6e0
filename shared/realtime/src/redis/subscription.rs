//! Keeps one inbox subscribed on one server, whatever happens to its connection.
//!
//! It knows what is wanted there and how to begin again; [`super::session`] is one connection's life. The
//! invariant: between two connections the inbox is told [`Arrival::Reconnected`], and only after
//! everything wanted is subscribed again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use protocol::Channel;
use runtime::{Backoff, Shutdown};
use telemetry::Counter;
use tokio::sync::oneshot;

use super::RedisEngine;
use super::node::Node;
use super::session::{Session, Subscribing};
use super::wishes::Wishes;
use crate::inbox::{Arrival, Mailbox};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);

pub(super) struct Subscription {
    pub(super) engine: Arc<RedisEngine>,
    pub(super) node: Arc<Node>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) wishes: Arc<Wishes>,
    stop: Shutdown,
    /// What the server must have confirmed once nobody waits.
    wanted: HashSet<Channel>,
    waiters: Vec<oneshot::Sender<()>>,
    /// Whether a connection worked before this one.
    connected_before: bool,
    /// Whether everything is subscribed on this one.
    connected: bool,
}

impl Subscription {
    pub(super) fn new(
        engine: Arc<RedisEngine>,
        node: Arc<Node>,
        mailbox: Arc<Mailbox>,
        wishes: Arc<Wishes>,
        stop: Shutdown,
    ) -> Self {
        let (wanted, waiters) = (HashSet::new(), Vec::new());
        Self { engine, node, mailbox, wishes, stop, wanted, waiters, connected_before: false, connected: false }
    }

    /// Keeps the inbox subscribed until it is dropped, nothing is wanted here any more, or the service stops.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.requested() => {}
            () = self.keep_connected() => {}
        }
        self.wishes.close();
    }

    /// True when something may be missing before what comes over this connection.
    pub(super) fn is_replaced(&self) -> bool {
        self.connected_before
    }

    async fn keep_connected(&mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        loop {
            self.connected = false;
            let reason = match Session::connect(self).await {
                Ok(mut session) => session.live(self).await,
                Err(reason) => reason,
            };
            if self.connected {
                Counter::ConnectionsLost.inc_with("realtime");
                backoff.reset();
            }
            tracing::warn!(reason, "no subscription connection to Redis");
            self.engine.look_again().await;
            backoff.wait().await;
        }
    }

    /// Takes over what its owner wants by now. `None` if that changes nothing.
    pub(super) fn absorb(&mut self) -> Option<Subscribing> {
        let changes = self.wishes.take()?;
        let mut subscribing = Subscribing::default();
        for (channel, wanted) in changes.channels {
            if wanted {
                self.wanted.insert(channel);
                subscribing.add.push(channel);
            } else if self.wanted.remove(&channel) {
                subscribing.remove.push(channel);
            }
        }
        self.waiters.retain(|waiter| !waiter.is_closed());
        self.waiters.extend(changes.waiters);
        Some(subscribing)
    }

    /// Everything that a new connection must subscribe to.
    pub(super) fn everything(&mut self) -> Subscribing {
        self.absorb();
        Subscribing { add: self.wanted.iter().copied().collect(), remove: Vec::new() }
    }

    /// The server has confirmed all that was taken over.
    pub(super) fn confirmed(&mut self, first_on_connection: bool) {
        if first_on_connection && self.connected_before {
            self.mailbox.put([Arrival::Reconnected]);
        }
        self.connected_before = true;
        self.connected = true;
        for waiter in self.waiters.drain(..) {
            // Err means that the caller has given up waiting.
            let _ = waiter.send(());
        }
    }
}
