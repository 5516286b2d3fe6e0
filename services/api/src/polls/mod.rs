//! Polls that wait: how many there may be, and what wakes them.
//!
//! Deliveries only wake: what is told is read from the store and the rooms' logs each time. The
//! invariant: a poll is subscribed, confirmed, before it reads for the last time and then waits, so
//! that nothing slips in between; and it leaves nothing behind, however it ends.

mod following;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{RoomId, UserId, limits};
use parking_lot::Mutex;
use protocol::{Channel, EventData, Keyring, OpenedDelivery, Refusal, delivery};
use realtime::{Arrival, Inbox, InboxId, Realtime};
use runtime::Tasks;
use telemetry::{Counter, Gauge};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::following::Following;
pub(crate) use self::following::Waiter;

/// Polls of this process at a time.
const POLLS: usize = 8192;
/// Polls that read at a time: a message in a room of thousands who poll must not take every connection
/// to the store.
const READING: usize = 12;
/// How long a poll waits for its turn to read.
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// How long to stay away when there are too many.
const RETRY_AFTER_MS: u64 = 1000;
/// How often subscriptions that nobody needs any more are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// All polls of this process.
pub(crate) struct Polls {
    realtime: Realtime,
    inbox: InboxId,
    following: Mutex<Following>,
    seats: Mutex<HashMap<UserId, usize>>,
    places: Semaphore,
    turns: Semaphore,
    tasks: Tasks,
}

/// A poll's right to be there; given back when it is dropped.
pub(crate) struct Seat<'a> {
    polls: &'a Polls,
    user: UserId,
    _place: SemaphorePermit<'a>,
}

/// What a poll follows while it waits; nothing any more when it is dropped.
pub(crate) struct Follow<'a> {
    polls: &'a Polls,
    waiter: Arc<Waiter>,
    channels: Vec<Channel>,
    is_confirmed: bool,
}

impl Polls {
    /// Opens the inbox of this process' polls, with the tasks that listen and tidy up.
    pub(crate) fn start(realtime: &Realtime, keys: Keyring, tasks: &Tasks) -> Arc<Self> {
        let inbox = realtime.inbox();
        let polls = Arc::new(Self {
            realtime: realtime.clone(),
            inbox: inbox.id(),
            following: Mutex::default(),
            seats: Mutex::default(),
            places: Semaphore::new(POLLS),
            turns: Semaphore::new(READING),
            tasks: tasks.clone(),
        });
        // It is there before the first one comes.
        Gauge::Polls.add(0.0);
        tasks.own("polls", listen(Arc::clone(&polls), inbox, keys));
        tasks.own("poll sweep", sweep(Arc::clone(&polls)));
        polls
    }

    /// Lets one more poll of the user in, if there is place.
    pub(crate) fn seat(&self, user: UserId) -> Result<Seat<'_>, Refusal> {
        let place = self.places.try_acquire().map_err(|_| Refusal::overloaded(RETRY_AFTER_MS))?;
        let mut seats = self.seats.lock();
        let taken = seats.entry(user).or_default();
        if *taken >= limits::POLLS_PER_USER {
            return Err(Refusal::rate_limited(RETRY_AFTER_MS));
        }
        *taken += 1;
        drop(seats);
        Gauge::Polls.add(1.0);
        Ok(Seat { polls: self, user, _place: place })
    }

    /// Waits for the turn to read.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        match tokio::time::timeout(TURN_LIMIT, self.turns.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::overloaded(RETRY_AFTER_MS)),
        }
    }

    /// Follows the user and the rooms; returns when every subscription is confirmed, or cannot be now: it
    /// is tried on in the background.
    pub(crate) async fn follow(&self, user: UserId, rooms: &[RoomId]) -> Result<Follow<'_>, Refusal> {
        let mut channels: Vec<Channel> = rooms.iter().copied().map(Channel::Room).collect();
        channels.push(Channel::User(user));
        let entered = self.following.lock().enter(&channels);
        let (waiter, missing) = entered.ok_or_else(|| Refusal::overloaded(RETRY_AFTER_MS))?;
        let mut follow = Follow { polls: self, waiter, channels, is_confirmed: missing.is_empty() };
        if !missing.is_empty() && self.realtime.subscribe(&self.inbox, &missing).await.is_ok() {
            self.following.lock().confirm(&missing);
            follow.is_confirmed = true;
        }
        Ok(follow)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut seats = self.polls.seats.lock();
        if let Some(taken) = seats.get_mut(&self.user) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.user);
            }
        }
        drop(seats);
        Gauge::Polls.add(-1.0);
    }
}

impl Follow<'_> {
    /// False: something may come that wakes nobody.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// Returns when something may have come since the last time.
    pub(crate) async fn woken(&self) {
        self.waiter.woken().await;
    }
}

impl Drop for Follow<'_> {
    fn drop(&mut self) {
        self.polls.following.lock().leave(&self.waiter, &self.channels);
    }
}

/// Wakes polls until the service stops.
async fn listen(polls: Arc<Polls>, mut inbox: Inbox, keys: Keyring) {
    let shutdown = polls.tasks.shutdown().clone();
    loop {
        let arrival = tokio::select! {
            arrival = inbox.recv() => arrival,
            () = shutdown.requested() => return,
        };
        match arrival {
            Some(Arrival::Delivery { channel, payload, .. }) => match delivery::open(channel, &payload, &keys) {
                Some(opened) if is_news(&opened) => polls.following.lock().wake(channel),
                Some(_) => {}
                None => Counter::DeliveriesForged.inc(),
            },
            Some(Arrival::Reconnected) => polls.following.lock().wake_all(),
            None => return,
        }
    }
}

/// Whether a poll would find something new, or its token void: typing and presence are not for it.
fn is_news(opened: &OpenedDelivery) -> bool {
    opened.rev.is_some() || matches!(opened.event, EventData::MessageRead(_) | EventData::SessionRevoked(_))
}

/// Ends subscriptions that nobody needed for a while, until the service stops.
async fn sweep(polls: Arc<Polls>) {
    let shutdown = polls.tasks.shutdown().clone();
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        // Under the lock: whoever enters after this subscribes after it.
        polls.following.lock().sweep(|channels| polls.realtime.unsubscribe(&polls.inbox, channels));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use realtime::RealtimeSettings;
    use runtime::Shutdown;

    async fn polls() -> Arc<Polls> {
        let tasks = Tasks::new(Shutdown::new());
        let realtime = Realtime::open(RealtimeSettings::Embedded, &tasks).await.expect("opens");
        let keys = Keyring::parse(&format!("k1:{}", "QUJD".repeat(11))).expect("keys");
        Polls::start(&realtime, keys, &tasks)
    }

    #[tokio::test]
    async fn a_user_has_so_many_polls_at_a_time_and_each_gives_its_seat_back() {
        let polls = polls().await;
        let (ann, ben) = (UserId::generate(), UserId::generate());
        let mut seats: Vec<_> = (0..limits::POLLS_PER_USER).map(|_| polls.seat(ann).expect("a seat")).collect();
        assert_eq!(polls.seat(ann).err().map(|refusal| refusal.code), Some(protocol::Code::RateLimited));
        assert!(polls.seat(ben).is_ok());
        seats.pop();
        seats.push(polls.seat(ann).expect("a seat again"));
        drop(seats);
        assert!(polls.seats.lock().is_empty());
        assert_eq!(polls.places.available_permits(), POLLS);
    }

    #[tokio::test]
    async fn a_process_has_so_many_polls_at_a_time() {
        let polls = polls().await;
        let seats: Vec<_> = (0..POLLS).map(|_| polls.seat(UserId::generate()).expect("a seat")).collect();
        let refused = polls.seat(UserId::generate()).err().expect("refused");
        assert_eq!((refused.code, refused.retry_after_ms), (protocol::Code::Overloaded, Some(RETRY_AFTER_MS)));
        drop(seats);
        assert!(polls.seat(UserId::generate()).is_ok());
    }
}
