//! One engine, alone in its world, and short words for what the tests say often.

use std::time::Duration;

use bytes::Bytes;
use domain::id::DeviceId;
use domain::{Rev, RoomId, SessionId, Timestamp, UserId};
use protocol::Channel;
use realtime::{Arrival, DeviceLease, Inbox, Outbound, Realtime, RealtimeSettings};
use runtime::{Shutdown, Tasks};
use testkit::PATIENCE;
use testkit::services::RedisServer;
use uuid::Uuid;

/// The engine under test.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Redis,
    Embedded,
}

/// An engine; its server goes when this goes.
pub(crate) struct World {
    pub(crate) realtime: Realtime,
    pub(crate) tasks: Tasks,
    server: Option<RedisServer>,
}

impl World {
    pub(crate) async fn new(kind: Kind) -> Self {
        let server = match kind {
            Kind::Redis => Some(RedisServer::start().await),
            Kind::Embedded => None,
        };
        let settings = match &server {
            Some(server) => RealtimeSettings::Redis { url: server.url() },
            None => RealtimeSettings::Embedded,
        };
        let tasks = Tasks::new(Shutdown::new());
        let realtime = Realtime::open(settings, &tasks).await.expect("the engine opens").by_callers_clock();
        Self { realtime, tasks, server }
    }

    /// An engine on which nobody notices for so long that somebody left.
    pub(crate) async fn with_grace(kind: Kind, grace: Duration) -> Self {
        let mut world = Self::new(kind).await;
        world.realtime = world.realtime.with_grace(grace);
        world
    }

    pub(crate) fn server(&self) -> &RedisServer {
        self.server.as_ref().expect("this test is about Redis")
    }

    /// The answer of the server to one command.
    pub(crate) async fn ask(&self, command: &str) -> String {
        self.server().command(command).await.expect("redis answers")
    }

    /// A number that the server answers.
    pub(crate) async fn ask_number(&self, command: &str) -> i64 {
        let answer = self.ask(command).await;
        answer.lines().next().and_then(|line| line.strip_prefix(':')?.parse().ok()).expect("a number")
    }

    pub(crate) async fn publish(&self, deliveries: &[Outbound]) {
        self.realtime.publish(deliveries).await.expect("published");
    }

    /// A new inbox, subscribed to `channels`.
    pub(crate) async fn inbox(&self, channels: &[Channel]) -> Inbox {
        let inbox = self.realtime.inbox();
        self.realtime.subscribe(&inbox.id(), channels).await.expect("subscribed");
        inbox
    }
}

pub(crate) fn room() -> Channel {
    Channel::Room(RoomId::generate())
}

pub(crate) fn room_of(channel: Channel) -> RoomId {
    match channel {
        Channel::Room(room) => room,
        Channel::User(_) => panic!("not a room"),
    }
}

/// Something without a rev.
pub(crate) fn passing(channel: Channel, payload: &str) -> Outbound {
    Outbound { channel, rev: None, payload: Bytes::copy_from_slice(payload.as_bytes()) }
}

/// Something durable; its payload says its rev.
pub(crate) fn durable(channel: Channel, rev: i64) -> Outbound {
    Outbound { channel, rev: Some(Rev(rev)), payload: rev.to_string().into() }
}

/// The next arrival.
pub(crate) async fn next(inbox: &mut Inbox) -> Arrival {
    tokio::time::timeout(PATIENCE, inbox.recv()).await.expect("something arrives").expect("the inbox is open")
}

/// The channel and text of the next arrival, which must be a delivery.
pub(crate) async fn next_text(inbox: &mut Inbox) -> (Channel, String) {
    match next(inbox).await {
        Arrival::Delivery { channel, payload, .. } => (channel, String::from_utf8(payload.to_vec()).expect("text")),
        Arrival::Reconnected => panic!("nothing was lost"),
    }
}

/// Waits for the word that something may be lost, and answers how many deliveries came before it.
pub(crate) async fn until_reconnected(inbox: &mut Inbox) -> usize {
    let mut before = 0;
    while next(inbox).await != Arrival::Reconnected {
        before += 1;
    }
    before
}

/// Nothing arrives in a while.
pub(crate) async fn nothing(inbox: &mut Inbox) {
    let arrival = tokio::time::timeout(Duration::from_millis(200), inbox.recv()).await;
    assert!(arrival.is_err(), "nothing may arrive, but: {arrival:?}");
}

pub(crate) fn device(user: UserId, name: &str, gateway: Uuid) -> DeviceLease {
    let device = DeviceId::parse(name).expect("a good name");
    DeviceLease { user, device, session: SessionId::generate(), gateway }
}

/// A moment, in seconds after an arbitrary one.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp(1_800_000_000_000 + seconds * 1000)
}
