//! The port itself: one handle, two engines.
//!
//! Only passes on. The invariant: a caller cannot
//! tell the engines apart except by what survives the process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::{JobId, RoomId, SessionId, Timestamp, UserId};
use protocol::Channel;
use runtime::Tasks;
use uuid::Uuid;

use crate::embedded::EmbeddedEngine;
use crate::inbox::Address;
use crate::redis::RedisEngine;
use crate::{
    DeviceLease, Due, Inbox, InboxId, LogAsked, LogNumber, Look, Outbound, Presence, RealtimeError, RealtimeSettings,
    Remembered, Since, Trimmed, Wish,
};

/// The realtime engine of this process. Clones share it.
#[derive(Clone)]
pub struct Realtime {
    engine: Engine,
    tasks: Tasks,
    grace_ms: i64,
}

#[derive(Clone)]
enum Engine {
    Redis(Arc<RedisEngine>),
    Embedded(Arc<EmbeddedEngine>),
}

/// Passes a call to the engine in use; the embedded one answers at once.
macro_rules! ask {
    ($self:ident, $engine:ident => $call:expr) => {
        match &$self.engine {
            Engine::Redis($engine) => $call.await,
            Engine::Embedded($engine) => Ok($call),
        }
    };
}

impl Realtime {
    /// Opens the engine. Redis: one attempt to reach it, at most [`crate::COMMAND_LIMIT`]; later
    /// losses are repaired in the background by `tasks`, whose stop also ends the inboxes.
    pub async fn open(settings: RealtimeSettings, tasks: &Tasks) -> Result<Self, RealtimeError> {
        let engine = match settings {
            RealtimeSettings::Redis { url } => Engine::Redis(Arc::new(RedisEngine::open(&url).await?)),
            RealtimeSettings::Embedded => Engine::Embedded(Arc::default()),
        };
        Ok(Self { engine, tasks: tasks.clone(), grace_ms: 0 })
    }

    /// For so long the others do not notice that a user's last device left; zero unless this is said.
    /// The same in all processes.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX / 4);
        self
    }

    /// Presence goes by the times that callers give. Without this Redis goes by its own clock, the one
    /// that all processes share, and only a single process by that of its callers: tests shift clocks.
    #[must_use]
    pub fn by_callers_clock(self) -> Self {
        if let Engine::Redis(engine) = &self.engine {
            engine.go_by_callers_clock();
        }
        self
    }

    /// Asks the engine for a sign of life, at most [`crate::COMMAND_LIMIT`].
    pub async fn ping(&self) -> Result<(), RealtimeError> {
        match &self.engine {
            Engine::Redis(engine) => engine.ping().await,
            Engine::Embedded(_) => Ok(()),
        }
    }

    /// Whether deliveries have numbers. On a Redis cluster they have none: nothing orders what lies on many
    /// nodes. Then [`Realtime::since`] knows of nothing.
    pub fn is_ordered(&self) -> bool {
        match &self.engine {
            Engine::Redis(engine) => engine.is_ordered(),
            Engine::Embedded(_) => true,
        }
    }

    /// Publishes in order, pipelined; a room's delivery with a rev enters the room's log in the same
    /// step. After an error some, all or none went out: publish all of them again.
    pub async fn publish(&self, deliveries: &[Outbound]) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.publish(deliveries))
    }

    /// A new inbox, subscribed to nothing. Made for one per process: each costs a connection.
    pub fn inbox(&self) -> Inbox {
        match &self.engine {
            Engine::Redis(engine) => engine.inbox(&self.tasks),
            Engine::Embedded(_) => EmbeddedEngine::inbox(&self.tasks),
        }
    }

    /// Lets what is published on `channels` from now on arrive at `inbox`; returns when the engine
    /// has confirmed every one of them. After an error the engine goes on trying in the background:
    /// call again, or `unsubscribe` to give up.
    pub async fn subscribe(&self, inbox: &InboxId, channels: &[Channel]) -> Result<(), RealtimeError> {
        match (&self.engine, &inbox.0) {
            (_, Address::Redis(wanted)) => wanted.subscribe(channels).await,
            (Engine::Embedded(engine), Address::Embedded(mailbox)) => {
                engine.subscribe(mailbox, channels);
                Ok(())
            }
            (Engine::Redis(_), Address::Embedded(_)) => {
                Err(RealtimeError::Unavailable("the inbox belongs to another engine".into()))
            }
        }
    }

    /// Ends subscriptions soon; what is under way may still arrive. Unknown channels are no error.
    pub fn unsubscribe(&self, inbox: &InboxId, channels: &[Channel]) {
        match (&self.engine, &inbox.0) {
            (_, Address::Redis(wanted)) => wanted.unsubscribe(channels),
            (Engine::Embedded(engine), Address::Embedded(mailbox)) => engine.unsubscribe(mailbox, channels),
            (Engine::Redis(_), Address::Embedded(_)) => {}
        }
    }

    /// What the logs of these rooms know about what came after a number, in the order asked: the first
    /// `most` deliveries of all rooms together; a room for which there is no place is [`Since::Unknown`].
    pub async fn since(&self, rooms: &[RoomId], after: LogNumber, most: usize) -> Result<Vec<Since>, RealtimeError> {
        ask!(self, engine => engine.since(rooms, after, most))
    }

    /// Remembers for a day what a connection is recognised by when it comes back; `pid` is its secret.
    pub async fn remember(&self, pid: Uuid, remembered: &Remembered) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.remember(pid, remembered))
    }

    /// What is remembered under that secret.
    pub async fn recall(&self, pid: Uuid) -> Result<Option<Remembered>, RealtimeError> {
        ask!(self, engine => engine.recall(pid))
    }

    /// The connection is not to be recovered.
    pub async fn forget_connection(&self, pid: Uuid) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.forget_connection(pid))
    }

    /// What has rev `after` + 1, + 2, … up to the newest in each room's log (none if `after` is the
    /// newest), the first `limit` of them, in one round; `None` when the log cannot vouch for these.
    /// Payloads of more than `bytes` together are not answered: the rooms for which there is no place
    /// are `None`, too.
    pub async fn room_logs(&self, asked: &[LogAsked], bytes: usize) -> Result<Vec<Option<Vec<Bytes>>>, RealtimeError> {
        ask!(self, engine => engine.room_logs(asked, bytes))
    }

    /// Marks the jobs as seen, in one round. `true`: never seen as far as is known, so a look-up of
    /// duplicates may be skipped if the store's unique keys decide in the end. `false`: seen before,
    /// though perhaps by somebody who died with it.
    pub async fn claim(&self, jobs: &[JobId]) -> Result<Vec<bool>, RealtimeError> {
        ask!(self, engine => engine.claim(jobs))
    }

    /// The id of a session that begins now. Whichever gateways ask, ids grow in the order in which they
    /// were asked for.
    pub async fn new_session(&self, now: Timestamp) -> Result<SessionId, RealtimeError> {
        ask!(self, engine => engine.new_session(now))
    }

    /// A device is connected. Answers the other live session of the device, if there is one: of the two
    /// the one with the larger id holds the device, whichever comes first, so that a gateway that hung
    /// takes nothing from those who went elsewhere. It is one step, so that of two that come at once one
    /// learns of the other. Repeating it is harmless.
    pub async fn arrive(&self, lease: &DeviceLease, now: Timestamp) -> Result<Option<SessionId>, RealtimeError> {
        ask!(self, engine => engine.arrive(lease, now))
    }

    /// A device is gone, if this session still holds it. If it was the user's last one, the user was last
    /// seen at `now` and looks offline when the grace is over.
    pub async fn depart(&self, lease: &DeviceLease, now: Timestamp) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.depart(lease, now, self.grace_ms))
    }

    /// Nobody uses these devices, or somebody does again. Devices that other sessions hold by now are
    /// left alone.
    pub async fn set_idle(&self, devices: &[DeviceLease], is_idle: bool, now: Timestamp) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.set_idle(devices, is_idle, now))
    }

    /// The user's connected devices, wherever they are connected.
    pub async fn sessions_of(&self, user: UserId) -> Result<Vec<DeviceLease>, RealtimeError> {
        ask!(self, engine => engine.sessions_of(user))
    }

    /// Sets what the users wish to be seen as while online; kept for a week after the last arrival.
    pub async fn set_wishes(&self, wishes: &[Wish], now: Timestamp) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.set_wishes(wishes, false, now))
    }

    /// Tells what users wished whose wish was not known here; a wish that is known stays.
    pub async fn learn_wishes(&self, wishes: &[Wish], now: Timestamp) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.set_wishes(wishes, true, now))
    }

    /// How the users stand, in the order asked.
    pub async fn presence(&self, users: &[UserId], now: Timestamp) -> Result<Vec<Presence>, RealtimeError> {
        ask!(self, engine => engine.presence(users, now))
    }

    /// Takes up to `limit` users (at most 500) who changed and have to be looked at. Nobody else gets
    /// them until [`Realtime::looked`] says that it is done, or [`crate::LOOK_WITHIN`] is over.
    pub async fn due_presence(&self, limit: usize, now: Timestamp) -> Result<Due, RealtimeError> {
        ask!(self, engine => engine.due_presence(limit, now))
    }

    /// These were looked at, and the others know by now what they are shown of them. What took too
    /// long and was given to somebody else meanwhile is left alone.
    pub async fn looked(&self, looks: &[Look], now: Timestamp) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.looked(looks, now))
    }

    /// Whether anybody listens on the users' own channels, in the order asked: who has a connection
    /// that is ready does.
    pub async fn listening(&self, users: &[UserId]) -> Result<Vec<bool>, RealtimeError> {
        ask!(self, engine => engine.listening(users))
    }

    /// The gateway lives, and `users` are all who are connected to it. Whoever departed in the last
    /// minute stays offline, so that an old list does no harm.
    pub async fn renew_gateway(&self, gateway: Uuid, users: &[UserId], now: Timestamp) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.renew_gateway(gateway, users, now))
    }

    /// The user's rooms as last cached; `None` when not known (or none). Authorises nothing.
    pub async fn cached_rooms(&self, user: UserId) -> Result<Option<Vec<RoomId>>, RealtimeError> {
        ask!(self, engine => engine.cached_rooms(user))
    }

    /// Remembers the user's rooms for 12 hours.
    pub async fn cache_rooms(&self, user: UserId, rooms: &[RoomId]) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.cache_rooms(user, rooms))
    }

    /// Forgets the users' rooms, because they changed.
    pub async fn forget_rooms(&self, users: &[UserId]) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.forget_rooms(users))
    }

    /// The room's members as last cached; `None` when not known. Authorises nothing.
    pub async fn cached_members(&self, room: RoomId) -> Result<Option<Vec<UserId>>, RealtimeError> {
        ask!(self, engine => engine.cached_members(room))
    }

    /// Remembers the room's members for 30 minutes.
    pub async fn cache_members(&self, room: RoomId, members: &[UserId]) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.cache_members(room, members))
    }

    /// Forgets the rooms' members, because they changed.
    pub async fn forget_members(&self, rooms: &[RoomId]) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.forget_members(rooms))
    }

    /// Of these shards so many more events of each class, in the order of [`domain::Class::ALL`], were settled.
    /// After an error that may be counted or not: count it again, rather twice than not at all.
    pub async fn count_drained(&self, settled: &[(u16, [u64; 3])]) -> Result<(), RealtimeError> {
        ask!(self, engine => engine.count_drained(settled))
    }

    /// How many events of each class all processors together have settled since it began to be counted, for
    /// each of the first `shards`. It begins anew at zero when nothing was for ten minutes, or when the engine
    /// lost it.
    pub async fn drained(&self, shards: u16) -> Result<Vec<[u64; 3]>, RealtimeError> {
        ask!(self, engine => engine.drained(shards))
    }

    /// Trims those online to the last 5 minutes and to gateways that live, and extends the sessions of
    /// these, in slices. Every processor calls it every [`crate::JANITOR_EVERY`]; one of them does the work,
    /// the others count nothing.
    pub async fn janitor(&self, now: Timestamp) -> Result<Trimmed, RealtimeError> {
        ask!(self, engine => engine.janitor(now, self.grace_ms))
    }
}
