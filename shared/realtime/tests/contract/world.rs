//! One engine, alone in its world, and short words for what the tests say often.

use std::time::Duration;

use bytes::Bytes;
use domain::id::DeviceId;
use domain::{Rev, RoomId, SessionId, Timestamp, UserId};
use futures_util::future::join_all;
use protocol::Channel;
use realtime::{Arrival, DeviceLease, Inbox, Outbound, Realtime, RealtimeError, RealtimeSettings};
use runtime::{Shutdown, Tasks};
use testkit::services::{RedisCluster, RedisServer};
use testkit::{PATIENCE, until};
use uuid::Uuid;

/// The engine under test.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Redis,
    Cluster,
    Embedded,
}

/// What an engine stands on.
enum Servers {
    None,
    One(RedisServer),
    Cluster(RedisCluster),
}

/// An engine; its servers go when this goes.
pub(crate) struct World {
    pub(crate) realtime: Realtime,
    pub(crate) tasks: Tasks,
    servers: Servers,
}

impl World {
    pub(crate) async fn new(kind: Kind) -> Self {
        let servers = match kind {
            Kind::Redis => Servers::One(RedisServer::start().await),
            Kind::Cluster => Servers::Cluster(RedisCluster::start().await),
            Kind::Embedded => Servers::None,
        };
        Self::over(servers).await
    }

    /// On a cluster of which the test keeps nothing to itself.
    pub(crate) async fn on(cluster: RedisCluster) -> Self {
        Self::over(Servers::Cluster(cluster)).await
    }

    async fn over(servers: Servers) -> Self {
        let tasks = Tasks::new(Shutdown::new());
        let realtime = Realtime::open(settings(&servers), &tasks).await.expect("the engine opens").by_callers_clock();
        Self { realtime, tasks, servers }
    }

    /// Where the engine is.
    pub(crate) fn settings(&self) -> RealtimeSettings {
        settings(&self.servers)
    }

    /// An engine on which nobody notices for so long that somebody left.
    pub(crate) async fn with_grace(kind: Kind, grace: Duration) -> Self {
        let mut world = Self::new(kind).await;
        world.realtime = world.realtime.with_grace(grace);
        world
    }

    pub(crate) fn cluster(&self) -> &RedisCluster {
        match &self.servers {
            Servers::Cluster(cluster) => cluster,
            Servers::None | Servers::One(_) => panic!("this test is about a cluster"),
        }
    }

    /// The server, or the nodes of the cluster.
    pub(crate) fn nodes(&self) -> &[RedisServer] {
        match &self.servers {
            Servers::None => panic!("this test is about Redis"),
            Servers::One(server) => std::slice::from_ref(server),
            Servers::Cluster(cluster) => cluster.nodes(),
        }
    }

    /// Does something to every server at once.
    pub(crate) async fn each<'a, F: Future<Output = ()>>(&'a self, done: impl Fn(&'a RedisServer) -> F) {
        join_all(self.nodes().iter().map(done)).await;
    }

    /// The server that has a channel.
    pub(crate) async fn node_of(&self, channel: Channel) -> &RedisServer {
        match &self.servers {
            Servers::Cluster(cluster) => &cluster.nodes()[cluster.owner_of(&self.log(channel)).await],
            Servers::None | Servers::One(_) => &self.nodes()[0],
        }
    }

    /// The name of a key about people.
    pub(crate) fn about_people(&self, name: &str) -> String {
        let tag = if matches!(self.servers, Servers::Cluster(_)) { "{presence}:" } else { "" };
        format!("chat:{tag}{name}")
    }

    /// The name of a room's log.
    pub(crate) fn log(&self, room: Channel) -> String {
        let room = room_of(room);
        if matches!(self.servers, Servers::Cluster(_)) {
            format!("chat:log:{{{room}}}")
        } else {
            format!("chat:log:{room}")
        }
    }

    /// The answer of the server that is concerned to one command.
    pub(crate) async fn ask(&self, command: &str) -> String {
        let answer = match &self.servers {
            Servers::Cluster(cluster) => cluster.command(command).await,
            Servers::None | Servers::One(_) => self.nodes()[0].command(command).await,
        };
        answer.expect("redis answers")
    }

    /// Has every server carry out a command.
    pub(crate) async fn ask_all(&self, command: &str) {
        for node in self.nodes() {
            let answer = node.command(command).await.expect("redis answers");
            assert!(!answer.starts_with('-'), "{answer}");
        }
    }

    /// A number that the server answers.
    pub(crate) async fn ask_number(&self, command: &str) -> i64 {
        number(&self.ask(command).await)
    }

    /// Whether a probe of every server is over.
    pub(crate) async fn is_marked(&self) -> bool {
        let marks = join_all(self.nodes().iter().map(|node| node.command("KEYS chat:mark*"))).await;
        marks.iter().all(|marks| marks.as_ref().is_ok_and(|marks| marks.starts_with("*1")))
    }

    /// Waits until nothing is announced as lost any more, after the nodes of a cluster came back one by one.
    pub(crate) async fn until_whole(&self, inbox: &mut Inbox, channels: &[Channel]) {
        until(PATIENCE, || async { self.realtime.ping().await.is_ok() }).await;
        until(PATIENCE, || async { self.realtime.subscribe(&inbox.id(), channels).await.is_ok() }).await;
        while let Ok(arrival) = tokio::time::timeout(Duration::from_millis(100), inbox.recv()).await {
            assert_eq!(arrival, Some(Arrival::Reconnected));
        }
    }

    pub(crate) async fn publish(&self, deliveries: &[Outbound]) {
        self.realtime.publish(deliveries).await.expect("published");
    }

    /// A new inbox, subscribed to `channels`. A busy machine may need longer for thousands than one call takes.
    pub(crate) async fn inbox(&self, channels: &[Channel]) -> Inbox {
        let inbox = self.realtime.inbox();
        until(PATIENCE, || async {
            match self.realtime.subscribe(&inbox.id(), channels).await {
                Err(RealtimeError::Unavailable(_)) => false,
                subscribed => subscribed.map(|()| true).expect("subscribed"),
            }
        })
        .await;
        inbox
    }
}

fn settings(servers: &Servers) -> RealtimeSettings {
    match servers {
        Servers::None => RealtimeSettings::Embedded,
        Servers::One(server) => RealtimeSettings::Redis { url: server.url() },
        Servers::Cluster(cluster) => RealtimeSettings::Redis { url: cluster.url() },
    }
}

/// The number that an answer begins with.
pub(crate) fn number(answer: &str) -> i64 {
    answer.lines().next().and_then(|line| line.strip_prefix(':')?.parse().ok()).expect("a number")
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

/// The channel and text of the next delivery after something may have been lost on `world`: each node's connection of
/// a cluster says so for itself, a busy one late. One server says it once.
pub(crate) async fn next_text_after_loss(world: &World, inbox: &mut Inbox) -> (Channel, String) {
    loop {
        match next(inbox).await {
            Arrival::Reconnected => assert!(world.nodes().len() > 1, "it was said before"),
            Arrival::Delivery { channel, payload, .. } => {
                return (channel, String::from_utf8(payload.to_vec()).expect("text"));
            }
        }
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
