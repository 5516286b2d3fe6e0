//! What happened in a run, as those who took part in it saw it.
//!
//! Knows no judgement. The invariant: every entry was written down by the one who saw it, when it
//! was seen; nothing is taken back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use tokio::time::Instant;

/// A moment of the run, milliseconds since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(transparent)]
pub struct At(pub u64);

impl At {
    /// Milliseconds from `earlier` to this moment; 0 when that is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The clock of a run: monotonic, and where its beginning lies on the wall.
#[derive(Debug, Clone, Copy)]
pub struct RunClock {
    began: Instant,
    began_wall_ms: i64,
}

impl RunClock {
    /// Begins now.
    pub fn start() -> Self {
        Self { began: Instant::now(), began_wall_ms: runtime::Clock::system().now().0 }
    }

    /// This moment.
    pub fn now(&self) -> At {
        At(self.began.elapsed().as_millis() as u64)
    }

    /// A wall time (milliseconds since 1970) as a moment of the run; the beginning if it is earlier.
    pub fn of_wall(&self, wall_ms: i64) -> At {
        At(u64::try_from(wall_ms - self.began_wall_ms).unwrap_or(0))
    }
}

/// One attempt to get something accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// When it was sent.
    pub at: At,
    /// On which connection; each has a number of its own.
    pub connection: u64,
    /// Its place among the frames of that connection.
    pub frame: i64,
}

/// How a request ended for who made it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// None came (yet): it may have been accepted.
    #[default]
    Unknown,
    /// QUEUED.
    Queued {
        /// When the ack came.
        at: At,
        /// The attempt that was accepted, where it was the only one.
        of: Option<Try>,
        /// The id under which it must have an outcome.
        job: String,
    },
    /// Refused at the edge, and nothing else came of it.
    Refused(String),
}

/// A message as its sender remembers it.
#[derive(Debug, Clone)]
pub struct Message {
    /// `clientMsgId`.
    pub name: String,
    /// The room's number.
    pub room: usize,
    /// All attempts, oldest first.
    pub tries: Vec<Try>,
    /// The first decisive answer.
    pub answer: Answer,
}

/// What was asked for that is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A message shall say something else.
    Edit {
        /// Which.
        message: String,
        /// What it shall say.
        content: String,
    },
    /// A message is taken back.
    Delete {
        /// Which.
        message: String,
    },
    /// A reaction comes or goes.
    React {
        /// To which message.
        message: String,
        /// Which.
        emoji: String,
        /// It goes.
        remove: bool,
    },
    /// The room gets a title.
    Rename(String),
    /// The guest is removed.
    Remove,
    /// The guest is added.
    Add,
}

impl Wish {
    /// The message it is about, if any.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Edit { message, .. } | Self::Delete { message } | Self::React { message, .. } => Some(message),
            Self::Rename(_) | Self::Remove | Self::Add => None,
        }
    }

    /// What its event is called.
    pub fn event(&self) -> &'static str {
        match self {
            Self::Edit { .. } => "message.edited",
            Self::Delete { .. } => "message.deleted",
            Self::React { .. } => "message.reaction",
            Self::Rename(_) => "room.updated",
            Self::Remove => "room.memberLeft",
            Self::Add => "room.memberJoined",
        }
    }
}

/// A change that is no message.
#[derive(Debug, Clone)]
pub struct Change {
    /// What was asked.
    pub wish: Wish,
    /// The room's number.
    pub room: usize,
    /// When it was sent.
    pub at: At,
    /// By which frame; `None` for REST.
    pub by: Option<Try>,
    /// What came of it.
    pub answer: Answer,
}

/// A `message.failed`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The id that the ack said.
    pub job: String,
    /// The message that was sent, or that was to be changed.
    pub message: String,
    /// Why.
    pub code: String,
}

/// What one user asked for, from all devices.
#[derive(Debug, Default)]
pub struct Sender {
    /// Messages, in the order of their first attempt.
    pub messages: Vec<Message>,
    /// Everything else that is queued.
    pub changes: Vec<Change>,
    /// `message.failed` as it was told.
    pub failed: BTreeSet<Failure>,
    /// What was refused by REST, or not answered.
    pub troubles: Vec<Trouble>,
    /// By room: how far the user has read, as was acked, and when.
    pub read: BTreeMap<usize, (i64, At)>,
    /// Answers that nobody may be given.
    pub wrongs: Vec<String>,
    /// Messages that were sent and neither acked nor given up.
    pub in_hand: usize,
}

/// A durable change of a room as a device learned of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub rev: i64,
    /// When.
    pub at: At,
    /// Told live, not by `sync`.
    pub live: bool,
}

/// From `session.ready` to the end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// When it was ready.
    pub from: At,
    /// When it ended by itself; `None`: it stood in the end.
    pub to: Option<At>,
    /// It was given up, because what had to come did not.
    pub silent: bool,
    /// The number of its gateway.
    pub gateway: usize,
}

/// The api's number among the gateways'. In the all-in-one it is the gateway.
pub const API: usize = usize::MAX;

/// Something that was refused, or not answered in time, though there was nothing wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The number of the gateway that was asked, or [`API`].
    pub gateway: usize,
    /// When it was asked.
    pub from: At,
    /// When it was refused, or given up.
    pub to: At,
    /// What came of it.
    pub what: String,
}

/// Things that came lately that are remembered.
const LATELY: usize = 200;

/// What one device wrote down.
#[derive(Debug, Default)]
pub struct DeviceLog {
    /// Its connections.
    pub spans: Vec<Span>,
    /// By room: what it saw of durable changes, in the order in which it came.
    pub seen: BTreeMap<usize, Vec<Seen>>,
    /// When a room was named otherwise: by typing, read marks, `session.ready`, beacons, answers to `sync`.
    pub named: Vec<(usize, At)>,
    /// By room: when it had it switched off on its connection, from asking for it until it was on again.
    pub off: BTreeMap<usize, Vec<(At, At)>>,
    /// What was refused or not answered.
    pub troubles: Vec<Trouble>,
    /// What must not happen and did.
    pub wrongs: Vec<String>,
    /// What came before the first of these.
    pub trace: Vec<String>,
    /// What came lately.
    lately: VecDeque<String>,
    /// What is worth counting, by name.
    pub counts: BTreeMap<String, u64>,
}

impl DeviceLog {
    /// Notes what came, for whoever has to find out how something wrong came about.
    pub fn note(&mut self, what: String) {
        if self.lately.len() >= LATELY {
            self.lately.pop_front();
        }
        self.lately.push_back(what);
    }

    /// Something must not happen and did.
    pub fn wrong(&mut self, what: String) {
        if self.wrongs.is_empty() {
            self.trace = self.lately.drain(..).collect();
        }
        self.wrongs.push(what);
    }

    /// A room is off by now, or on.
    pub fn switched(&mut self, room: usize, is_off: bool, at: At) {
        let spans = self.off.entry(room).or_default();
        match spans.last_mut().filter(|(_, to)| *to == At(u64::MAX)) {
            Some((_, to)) if !is_off => *to = at,
            None if is_off => spans.push((at, At(u64::MAX))),
            Some(_) | None => {}
        }
    }

    /// From when on, between these moments, the room was on.
    pub fn on_from(&self, room: usize, from: At, until: At) -> At {
        let off = self.off.get(&room).into_iter().flatten().filter(|(begin, _)| *begin <= until);
        off.fold(from, |from, (_, end)| from.max((*end).min(until)))
    }

    /// The gateway of the connection on which something came.
    pub fn gateway(&self, at: At) -> Option<usize> {
        self.spans.iter().rev().find(|span| span.from <= at).map(|span| span.gateway)
    }

    /// Counts something.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }
}

/// Whose connections something may concern.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reach {
    /// Nobody's.
    #[default]
    Nobody,
    /// Those with a gateway of these numbers.
    Gateways(BTreeSet<usize>),
    /// Everybody's.
    Everybody,
}

impl Reach {
    /// Of one gateway.
    pub fn gateway(number: usize) -> Self {
        Self::Gateways([number].into())
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, reach) | (reach, Self::Nobody) => reach,
            (Self::Gateways(some), Self::Gateways(more)) => Self::Gateways(&some | &more),
            _ => Self::Everybody,
        }
    }

    fn has(&self, gateway: usize) -> bool {
        match self {
            Self::Nobody => false,
            Self::Gateways(some) => some.contains(&gateway),
            Self::Everybody => true,
        }
    }
}

/// A fault, from its beginning until everything was ready again.
#[derive(Debug, Clone, Serialize)]
pub struct Incident {
    /// What was done.
    pub what: String,
    /// To whom deliveries may come late for it, and whose connections may end.
    pub delays: Reach,
    /// Who may not learn in time that a membership ended.
    pub blinds: Reach,
    /// Where requests may be refused, or not be answered.
    pub refuses: Reach,
    /// Whose connections may go silent, and end for that long after.
    pub silences: Reach,
    /// When it began.
    pub from: At,
    /// When it was taken back.
    pub to: At,
    /// When every program said that it was ready; `None`: not in time.
    pub ready: Option<At>,
}

impl Incident {
    /// True when it and the time from `from` to `to` have a moment in common; being made ready again
    /// belongs to it.
    pub fn overlaps(&self, from: At, to: At) -> bool {
        self.from <= to && self.ready.unwrap_or(At(u64::MAX)) >= from
    }

    /// True when it may hold up what a gateway delivers.
    pub fn delays(&self, gateway: usize) -> bool {
        self.delays.has(gateway)
    }

    /// True when a gateway may not learn in time that a membership ended.
    pub fn blinds(&self, gateway: usize) -> bool {
        self.blinds.has(gateway)
    }

    /// True when a gateway may refuse, or not answer.
    pub fn refuses(&self, gateway: usize) -> bool {
        self.refuses.has(gateway)
    }

    /// True when a gateway's connections may go silent.
    pub fn silences(&self, gateway: usize) -> bool {
        self.silences.has(gateway)
    }
}
