//! The hot paths, each over the code that services run.
//!
//! Knows neither callgrind nor benches. The invariant: a path that did not do what it is for panics,
//! so nobody takes the cost of a refusal for that of a message.

use std::hint::black_box;
use std::time::Duration;

use broker::Incoming;
use broker::rabbitmq::properties;
use bytes::Bytes;
use config::{Role, Settings};
use domain::{Class, Rev, RoomId};
use engine::Engine;
use gateway::Dialect;
use gateway::bench::Bench;
use lapin::BasicProperties;
use lapin::message::Delivery;
use protocol::{Channel, Keyring, OpenedDelivery, SignedEnvelope, delivery};
use realtime::LogNumber;
use runtime::{Shutdown, Tasks};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use transport::WebSocket;

use crate::data::{self, BEGINNING, KEYS, ROOM, SENDER};
use crate::pipe::Pipe;
use crate::work::Work;

/// How long the embedded broker may take to confirm.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
const CHANNEL: Channel = Channel::Room(ROOM);

/// A path, by what happens on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Bytes from a socket: decode, validate, authorise, sign, encode, hand to the broker.
    Send(Dialect),
    /// A confirm becomes the ack on the sender's socket.
    Ack(Dialect),
    /// A signed event gets its AMQP properties.
    Publish,
    /// A processor takes an event from AMQP: properties, signature, body.
    Verify,
    /// A processor encodes and signs what is told.
    Tell,
    /// What came by pub/sub becomes frames on the sockets of so many members, of one dialect.
    Deliver(Dialect),
    /// The same for many members that speak all dialects.
    Fanout(usize),
}

impl Path {
    /// All of them, in the order of a message's way.
    pub const ALL: [Self; 14] = [
        Self::Send(Dialect::Native),
        Self::Send(Dialect::SocketIo),
        Self::Send(Dialect::Protobuf),
        Self::Publish,
        Self::Ack(Dialect::Native),
        Self::Ack(Dialect::SocketIo),
        Self::Ack(Dialect::Protobuf),
        Self::Verify,
        Self::Tell,
        Self::Deliver(Dialect::Native),
        Self::Deliver(Dialect::SocketIo),
        Self::Deliver(Dialect::Protobuf),
        Self::Fanout(100),
        Self::Fanout(1_000),
    ];

    /// The name, as it stands in the baseline.
    pub fn name(self) -> String {
        let of = |verb: &str, dialect| match dialect {
            Dialect::Native => format!("{verb}_json"),
            Dialect::Protobuf => format!("{verb}_protobuf"),
            Dialect::SocketIo => format!("{verb}_socketio"),
        };
        match self {
            Self::Send(dialect) => of("send", dialect),
            Self::Ack(dialect) => of("ack", dialect),
            Self::Publish => "publish".to_owned(),
            Self::Verify => "verify".to_owned(),
            Self::Tell => "tell".to_owned(),
            Self::Deliver(dialect) => of("deliver", dialect),
            Self::Fanout(members) => format!("fanout_{members}"),
        }
    }

    /// The path of that name.
    pub fn parse(name: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|path| path.name() == name);
        found.ok_or_else(|| anyhow::anyhow!("there is no path {name:?}"))
    }

    /// How many get what is told on it.
    pub fn recipients(self) -> usize {
        match self {
            Self::Fanout(members) => members,
            _ => 1,
        }
    }

    /// Everything that going it takes.
    pub fn work(self) -> Box<dyn Work> {
        match self {
            Self::Send(dialect) => Box::new(Sending::new(dialect, false)),
            Self::Ack(dialect) => Box::new(Sending::new(dialect, true)),
            Self::Publish => Box::new(Publishing { number: BEGINNING, envelope: None }),
            Self::Verify => Box::new(Verifying { number: BEGINNING, keys: keys(), received: None }),
            Self::Tell => Box::new(Telling { number: BEGINNING, keys: keys(), told: data::told(BEGINNING) }),
            Self::Deliver(dialect) => Box::new(Delivering::new(&[dialect], 1)),
            Self::Fanout(members) => {
                Box::new(Delivering::new(&[Dialect::Native, Dialect::SocketIo, Dialect::Protobuf], members))
            }
        }
    }
}

pub(crate) fn keys() -> Keyring {
    Keyring::parse(KEYS).expect("a good key")
}

/// Takes the next number.
fn next(number: &mut u64) -> u64 {
    *number += 1;
    *number
}

/// A gateway moved by hand, over an embedded engine in a folder of its own.
pub(crate) struct House {
    runtime: Runtime,
    engine: Engine,
    pub(crate) bench: Bench<WebSocket<Pipe>>,
    pub(crate) pipes: Vec<Pipe>,
    _tasks: Tasks,
    _folder: TempDir,
}

impl House {
    pub(crate) fn new() -> Self {
        telemetry::recorder::install();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("a name in UTF-8");
        let pairs = [
            ("DATA_DIR", path),
            ("HMAC_KEYS", KEYS),
            ("JWT_ACCESS_TOKEN", "a secret that is long enough"),
            ("LIMIT_USER_EVENTS_PER_SEC", "1000000"),
            ("LIMIT_USER_BURST", "1000000"),
        ];
        let settings = Settings::from_pairs(Role::AllInOne, &pairs).expect("good settings");
        let tasks = Tasks::new(Shutdown::new());
        let (engine, bench) = runtime.block_on(async {
            let engine = Box::pin(Engine::open(&settings, &tasks)).await.expect("opens");
            (engine.clone(), Bench::new(&settings, engine, tasks.clone()))
        });
        Self { runtime, engine, bench, pipes: Vec::new(), _tasks: tasks, _folder: folder }
    }

    /// A session of somebody who is a member of these rooms.
    pub(crate) fn enter(&mut self, user: domain::UserId, dialect: Dialect, rooms: &[RoomId]) {
        let pipe = Pipe::default();
        let socket = WebSocket::new(pipe.clone(), Bytes::new(), domain::limits::FRAME_BYTES);
        let link = self.runtime.block_on(socket);
        let _entered = self.runtime.enter();
        self.bench.open(user, rooms, Rev(BEGINNING as i64), dialect, link);
        self.pipes.push(pipe);
    }

    /// Every session does what it has to do.
    pub(crate) fn step_all(&mut self) {
        for session in 0..self.pipes.len() {
            assert!(self.bench.step(session), "a session ended");
        }
    }
}

/// A client sends a message, and is told that it is queued.
struct Sending {
    house: House,
    dialect: Dialect,
    number: u64,
    counts_ack: bool,
}

impl Sending {
    fn new(dialect: Dialect, counts_ack: bool) -> Self {
        let mut house = House::new();
        house.enter(SENDER, dialect, &[ROOM]);
        Self { house, dialect, number: BEGINNING, counts_ack }
    }

    fn say(&mut self) {
        let (is_text, payload) = data::frame(self.dialect, next(&mut self.number));
        self.house.pipes[0].say(is_text, &payload);
    }

    fn confirm(&self) {
        self.house.runtime.block_on(self.house.engine.broker.flush(SETTLED_WITHIN));
    }

    fn step(&mut self) {
        assert!(self.house.bench.step(0), "the session ended");
    }

    /// What came of the message before.
    fn check(&self) {
        let is_first = self.number == BEGINNING;
        assert!(is_first || self.house.pipes[0].got("QUEUED"), "the message was not acked");
    }
}

impl Work for Sending {
    fn prepare(&mut self) {
        if self.counts_ack {
            self.check();
            self.say();
            self.step();
            assert!(!self.house.pipes[0].got("QUEUED"), "it was answered before the confirm");
            self.confirm();
        } else {
            self.confirm();
            self.step();
            self.check();
            self.say();
        }
    }

    fn operate(&mut self) {
        self.step();
    }
}

/// What the task that publishes does with each event.
struct Publishing {
    number: u64,
    envelope: Option<SignedEnvelope>,
}

impl Work for Publishing {
    fn prepare(&mut self) {
        self.envelope = Some(SignedEnvelope::seal(data::event(next(&mut self.number)), &keys()));
    }

    fn operate(&mut self) {
        black_box(self.envelope.as_ref().map(|envelope| properties::of_new(envelope, "gateway")));
    }
}

/// What a processor does with each event before it applies it.
struct Verifying {
    number: u64,
    keys: Keyring,
    received: Option<Delivery>,
}

impl Verifying {
    fn delivery(properties: BasicProperties, body: &Bytes) -> Delivery {
        let mut delivery = Delivery::mock(7, "chat.events".into(), "high.0".into(), false, body.to_vec());
        delivery.properties = properties;
        delivery
    }
}

impl Work for Verifying {
    fn prepare(&mut self) {
        let envelope = SignedEnvelope::seal(data::event(next(&mut self.number)), &self.keys);
        self.received = Some(Self::delivery(properties::of_new(&envelope, "gateway"), &envelope.body));
    }

    fn operate(&mut self) {
        let delivery = self.received.take().expect("prepared");
        let incoming: Incoming = properties::incoming(Class::High, delivery);
        black_box(incoming.envelope.verify(&self.keys).expect("genuine"));
    }
}

/// What a processor does with each delivery.
struct Telling {
    number: u64,
    keys: Keyring,
    told: OpenedDelivery,
}

impl Work for Telling {
    fn prepare(&mut self) {
        self.told = data::told(next(&mut self.number));
    }

    fn operate(&mut self) {
        black_box(delivery::seal(CHANNEL, &self.told, &self.keys));
    }
}

/// What a gateway does with each delivery, up to the sockets.
struct Delivering {
    house: House,
    number: u64,
    keys: Keyring,
    payload: Bytes,
}

impl Delivering {
    fn new(dialects: &[Dialect], members: usize) -> Self {
        let mut house = House::new();
        for (number, dialect) in (0..members).zip(dialects.iter().cycle()) {
            house.enter(data::member(number), *dialect, &[ROOM]);
        }
        Self { house, number: BEGINNING, keys: keys(), payload: Bytes::new() }
    }
}

impl Work for Delivering {
    fn prepare(&mut self) {
        let is_first = self.number == BEGINNING;
        for pipe in &self.house.pipes {
            assert!(is_first || pipe.got(data::OPENING), "a member was not told");
        }
        self.payload = delivery::seal(CHANNEL, &data::told(next(&mut self.number)), &self.keys);
    }

    fn operate(&mut self) {
        self.house.bench.take(CHANNEL, LogNumber(self.number), &self.payload);
        self.house.step_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_name_of_its_own() {
        for path in Path::ALL {
            assert_eq!(Path::parse(&path.name()).expect("known"), path);
        }
        assert!(Path::parse("send").is_err());
    }

    #[test]
    fn every_path_does_what_it_is_for() {
        for path in Path::ALL.into_iter().filter(|path| path.recipients() < 1_000) {
            let mut work = path.work();
            for _ in 0..3 {
                work.prepare();
                work.operate();
            }
            work.prepare();
        }
    }
}
