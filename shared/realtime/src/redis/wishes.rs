//! What an inbox wants to be subscribed to, between its owner and its subscription task.
//!
//! Knows no connection. The invariant: bounded by the number of distinct channels, because the last
//! word about a channel replaces the one before.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::Channel;
use tokio::sync::{Notify, oneshot};

use crate::{COMMAND_LIMIT, RealtimeError};

/// Waiting callers above which those that gave up are swept out.
const SWEEP_ABOVE: usize = 1024;
/// Channels that the server confirms within a second even while busy.
const CHANNELS_PER_SEC: u32 = 20_000;

/// Changes of subscriptions that are not yet carried out.
#[derive(Default)]
pub(crate) struct Wishes {
    open: Mutex<Changes>,
    changed: Notify,
}

const CLOSED: &str = "the inbox is closed";

/// Changes to carry out together, and who waits for them.
#[derive(Default)]
pub(super) struct Changes {
    /// True: subscribe; false: unsubscribe.
    pub(super) channels: HashMap<Channel, bool>,
    pub(super) waiters: Vec<oneshot::Sender<()>>,
    closed: bool,
}

/// How long the server may take to confirm so many channels.
pub(super) fn limit(channels: usize) -> Duration {
    COMMAND_LIMIT + Duration::from_secs(1) * (channels as u32 / CHANNELS_PER_SEC)
}

impl Wishes {
    /// Returns when the server has confirmed all channels.
    pub(crate) async fn subscribe(&self, channels: &[Channel]) -> Result<(), RealtimeError> {
        if channels.is_empty() {
            return Ok(());
        }
        let (done, confirmed) = oneshot::channel();
        {
            let mut open = self.open.lock();
            if open.closed {
                return Err(RealtimeError::Unavailable(CLOSED.into()));
            }
            open.channels.extend(channels.iter().map(|channel| (*channel, true)));
            if open.waiters.len() >= SWEEP_ABOVE {
                open.waiters.retain(|waiter| !waiter.is_closed());
            }
            open.waiters.push(done);
        }
        self.changed.notify_one();
        match tokio::time::timeout(limit(channels.len()), confirmed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(RealtimeError::Unavailable(CLOSED.into())),
            Err(_) => Err(RealtimeError::Unavailable("subscriptions were not confirmed in time".into())),
        }
    }

    pub(crate) fn unsubscribe(&self, channels: &[Channel]) {
        if channels.is_empty() {
            return;
        }
        let mut open = self.open.lock();
        if !open.closed {
            open.channels.extend(channels.iter().map(|channel| (*channel, false)));
            self.changed.notify_one();
        }
    }

    /// Everything that is to be done now; `None` if nothing is.
    pub(super) fn take(&self) -> Option<Changes> {
        let mut open = self.open.lock();
        if open.channels.is_empty() && open.waiters.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut *open))
    }

    /// Nothing will be carried out any more; whoever waits is told so.
    pub(super) fn close(&self) {
        *self.open.lock() = Changes { closed: true, ..Changes::default() };
    }

    /// Waits until there may be something to do.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
