//! Where deliveries arrive in a process: a bounded mailbox that both engines fill.
//!
//! Knows no engine. The invariant: an inbox either hands out everything that was put into it, in
//! order, or says [`Arrival::Reconnected`] where something is missing.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::Channel;
use runtime::Shutdown;
use telemetry::{Counter, Gauge};
use tokio::sync::Notify;

use crate::LogNumber;
use crate::redis::Wanted;

/// Arrivals that may wait in an inbox.
pub(crate) const INBOX_ARRIVALS: usize = 65_536;
/// Payload bytes that may wait in an inbox.
const INBOX_BYTES: usize = 64 * 1024 * 1024;

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A delivery on a subscribed channel; not yet checked to be genuine.
    Delivery {
        /// Where it was published.
        channel: Channel,
        /// Its number, if it entered a room's log.
        number: LogNumber,
        /// The sealed delivery.
        payload: Bytes,
    },
    /// Anything may have been lost before this, deliveries and presence alike: resync.
    Reconnected,
}

/// Names an inbox; cheap to clone.
#[derive(Clone)]
pub struct InboxId(pub(crate) Address);

/// What an engine needs to find an inbox.
#[derive(Clone)]
pub(crate) enum Address {
    Redis(Wanted),
    Embedded(Arc<Mailbox>),
}

impl std::fmt::Debug for InboxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Address::Redis(_) => "InboxId(Redis)",
            Address::Embedded(_) => "InboxId(Embedded)",
        })
    }
}

/// The receiving end. Dropping it ends its subscriptions.
pub struct Inbox {
    id: InboxId,
    mailbox: Arc<Mailbox>,
    taken: VecDeque<Arrival>,
    stop: Shutdown,
}

impl Inbox {
    pub(crate) fn new(address: Address, mailbox: Arc<Mailbox>, stop: Shutdown) -> Self {
        Self { id: InboxId(address), mailbox, taken: VecDeque::new(), stop }
    }

    /// Names this inbox in `subscribe` and `unsubscribe`.
    pub fn id(&self) -> InboxId {
        self.id.clone()
    }

    /// The next arrival; `None` once a stop was requested and nothing waits. May be cancelled
    /// without losing anything.
    pub async fn recv(&mut self) -> Option<Arrival> {
        if let Some(arrival) = self.taken.pop_front() {
            return Some(arrival);
        }
        tokio::select! {
            biased;
            taken = self.mailbox.take() => self.taken = taken,
            () = self.stop.requested() => {}
        }
        self.taken.pop_front()
    }

    /// The next of those that came together with the last one, without waiting.
    pub fn next_at_hand(&mut self) -> Option<Arrival> {
        self.taken.pop_front()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.mailbox.close();
        self.stop.request();
    }
}

/// A bounded queue of arrivals with one reader.
#[derive(Default)]
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    closed: bool,
}

impl Waiting {
    fn push(&mut self, arrival: Arrival) {
        let bytes = match &arrival {
            Arrival::Delivery { payload, .. } => payload.len(),
            Arrival::Reconnected => 0,
        };
        if self.arrivals.len() >= INBOX_ARRIVALS || self.bytes + bytes > INBOX_BYTES {
            tracing::warn!(
                dropped = self.arrivals.len(),
                "the inbox is full: everything in it is dropped for a resync"
            );
            Counter::InboxOverflows.inc();
            self.arrivals.clear();
            self.bytes = 0;
            self.arrivals.push_back(Arrival::Reconnected);
        }
        self.bytes += bytes;
        self.arrivals.push_back(arrival);
    }
}

impl Mailbox {
    /// Puts arrivals in, in order; false when nobody will ever read them.
    pub(crate) fn put(&self, arrivals: impl IntoIterator<Item = Arrival>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return false;
        }
        for arrival in arrivals {
            waiting.push(arrival);
        }
        drop(waiting);
        self.filled.notify_one();
        true
    }

    /// Whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.waiting.lock().closed
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.arrivals = VecDeque::new();
    }

    async fn take(&self) -> VecDeque<Arrival> {
        loop {
            let taken = {
                let mut waiting = self.waiting.lock();
                waiting.bytes = 0;
                std::mem::take(&mut waiting.arrivals)
            };
            if !taken.is_empty() {
                Gauge::InboxWaiting.set(taken.len() as f64);
                return taken;
            }
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::RoomId;
    use uuid::Uuid;

    fn delivery(bytes: usize) -> Arrival {
        Arrival::Delivery {
            channel: Channel::Room(RoomId(Uuid::nil())),
            number: LogNumber::NONE,
            payload: vec![7; bytes].into(),
        }
    }

    fn inbox() -> (Arc<Mailbox>, Inbox) {
        let mailbox = Arc::<Mailbox>::default();
        (Arc::clone(&mailbox), Inbox::new(Address::Embedded(Arc::clone(&mailbox)), mailbox, Shutdown::new()))
    }

    #[tokio::test]
    async fn too_many_arrivals_become_one_resync_and_what_came_after() {
        let (mailbox, mut inbox) = inbox();
        mailbox.put(std::iter::repeat_n(delivery(1), INBOX_ARRIVALS));
        mailbox.put([delivery(2)]);
        assert_eq!(inbox.recv().await, Some(Arrival::Reconnected));
        assert_eq!(inbox.recv().await, Some(delivery(2)));
        assert!(inbox.taken.is_empty() && inbox.mailbox.waiting.lock().arrivals.is_empty());
    }

    #[tokio::test]
    async fn too_many_bytes_become_one_resync() {
        let (mailbox, mut inbox) = inbox();
        mailbox.put(std::iter::repeat_n(delivery(INBOX_BYTES / 4), 4));
        assert_eq!(mailbox.waiting.lock().arrivals.len(), 4);
        mailbox.put([delivery(1)]);
        assert_eq!(inbox.recv().await, Some(Arrival::Reconnected));
        assert_eq!(inbox.recv().await, Some(delivery(1)));
    }

    #[tokio::test]
    async fn a_stop_ends_the_inbox_after_what_was_there() {
        let (mailbox, mut inbox) = inbox();
        mailbox.put([delivery(1)]);
        inbox.stop.request();
        assert_eq!(inbox.recv().await, Some(delivery(1)));
        assert_eq!(inbox.recv().await, None);
    }

    #[tokio::test]
    async fn a_dropped_inbox_keeps_nothing() {
        let (mailbox, inbox) = inbox();
        drop(inbox);
        assert!(!mailbox.put([delivery(1)]) && mailbox.is_closed());
        assert!(mailbox.waiting.lock().arrivals.is_empty());
    }
}
