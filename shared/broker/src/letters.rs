//! What operators do with dead letters: look, replay, drop; by id, by cause, or all.
//!
//! Guarantees, the same on both engines:
//! 1. Whatever fails or dies in between, each letter is where it was or where it was to go. It may be
//!    in both places for once: storing an event twice is storing it once.
//! 2. A letter that is not there (any more) is no error; it is not counted.
//! 3. A replayed event goes to the class and shard of its room, as published, its attempts starting
//!    anew; when it first failed stays with it, for it has lost its place in the order. What comes back
//!    while a call is under way is not touched by the same call.
//! 4. Memory is bounded, however many letters there are; so is the time of a call, by its `Reach`.
//!
//! What it costs: embedded, an index finds letters by id and by cause. RabbitMQ has no such thing: a
//! call looks at one letter after another, some thousands a second, from the oldest on; the first
//! fifty cost fifty looks, one by its id a look at everything before it. Meanwhile other calls wait,
//! for letters that somebody looks at are hidden from everybody else.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use domain::{Cause, Class, EventKind};
use protocol::UnverifiedEnvelope;
use uuid::Uuid;

use crate::letter;

/// Letters on one page at most.
pub const PAGE_LETTERS: usize = 1_000;
/// Bytes of letters on one page, about: one that would be larger ends early.
pub(crate) const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Letters that are moved or dropped at once.
pub(crate) const SLICE_LETTERS: usize = 64;
/// Bytes of these at most, about.
pub(crate) const SLICE_BYTES: usize = 4 * 1024 * 1024;

/// An event that was given up, as it lies among the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event's id as it was published, whatever it was.
    pub job_id: String,
    /// The event's kind as it was published, whatever it was.
    pub kind: String,
    /// The readable headers: `x-cause`, `x-error`, `x-sender`, `x-room`, `x-body`, `x-key-id` and the rest.
    pub headers: BTreeMap<String, String>,
    /// The body as it was published.
    pub body: Bytes,
}

impl DeadLetter {
    /// A header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Its size in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len() + self.headers.values().map(String::len).sum::<usize>()
    }
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterCursor {
    /// RabbitMQ: how many letters were looked at. Embedded: the last one's number.
    pub(crate) position: u64,
    /// RabbitMQ: the last one's id. If it is gone by then, the next page begins anew: nothing is
    /// passed over, whatever was taken out (but for letters of the same id, or without one, when some
    /// before them were taken out).
    pub(crate) job_id: String,
}

impl std::fmt::Display for LetterCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.position)?;
        if self.job_id.is_empty() { Ok(()) } else { write!(f, ".{}", self.job_id) }
    }
}

impl FromStr for LetterCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (position, job_id) = text.split_once('.').unwrap_or((text, ""));
        let position = position.parse().ok().filter(|position: &u64| i64::try_from(*position).is_ok()).ok_or(())?;
        Ok(Self { position, job_id: job_id.to_owned() })
    }
}

/// How long dead letters are looked through for one page, or for one of them, unless somebody has more time.
pub const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// Which letters to show.
#[derive(Debug, Clone)]
pub struct LetterQuery {
    /// Only those of this cause.
    pub cause: Option<Cause>,
    /// What follows that page.
    pub after: Option<LetterCursor>,
    /// How many, at most [`PAGE_LETTERS`].
    pub limit: usize,
    /// After this no further letter is looked at: the page ends there.
    pub within: Duration,
}

impl LetterQuery {
    /// The oldest ones.
    pub fn first(limit: usize) -> Self {
        Self { cause: None, after: None, limit, within: LOOK_LIMIT }
    }
}

/// Letters, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterPage {
    /// The letters; they stay where they are.
    pub letters: Vec<DeadLetter>,
    /// Where to go on; `None`: there were no more. A page that ran out of time ends where it was, perhaps
    /// with nothing on it.
    pub next: Option<LetterCursor>,
}

/// Which letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All with one of these ids.
    Ids(Vec<String>),
    /// All of this cause.
    Cause(Cause),
    /// All there are.
    All,
}

impl std::fmt::Display for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ids(ids) => write!(f, "ids {}", ids.join(" ").escape_debug()),
            Self::Cause(cause) => write!(f, "cause {cause}", cause = cause.as_str()),
            Self::All => f.write_str("all"),
        }
    }
}

impl Selection {
    /// Whether a letter of that id and cause is meant.
    pub(crate) fn includes(&self, job_id: &str, cause: Option<&str>) -> bool {
        match self {
            Self::Ids(ids) => ids.iter().any(|id| id == job_id),
            Self::Cause(wanted) => cause == Some(wanted.as_str()),
            Self::All => true,
        }
    }
}

/// What becomes of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They are processed again.
    Replay,
    /// They are gone.
    Drop,
}

impl Fate {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Drop => "drop",
        }
    }
}

/// How far a call goes.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Letters replayed or dropped at most.
    pub letters: usize,
    /// After this no further letter is looked at.
    pub within: Duration,
}

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Letters replayed or dropped.
    pub count: u64,
    /// The call went as far as it might; there may be more.
    pub more: bool,
}

/// Where a replayed event belongs, whatever the number of shards was when it died: its class, and what
/// decides its shard (nothing for what nobody can read, which will not be believed anywhere).
pub(crate) fn destination(envelope: &UnverifiedEnvelope, original_routing_key: Option<&str>) -> (Class, Uuid) {
    let named = original_routing_key.and_then(|key| key.split('.').next());
    let class = EventKind::parse(&envelope.kind)
        .map(EventKind::class)
        .or_else(|| Class::ALL.into_iter().find(|class| Some(class.as_str()) == named))
        .unwrap_or(Class::Low);
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).ok().filter(|id| !id.is_nil());
    let key = envelope.peek().and_then(|event| id(&event.room_id).or_else(|| id(&event.actor_id)));
    (class, key.unwrap_or_default())
}

/// The cause that a letter's headers name.
pub(crate) fn cause_of(headers: &BTreeMap<String, String>) -> Option<&str> {
    headers.get(letter::CAUSE).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_said() {
        for (position, job_id) in [(0, ""), (7, "0198-x"), (9, "a.b")] {
            let cursor = LetterCursor { position, job_id: job_id.to_owned() };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "x", "x.y", "-1.a", "18446744073709551615.a"] {
            assert_eq!(bad.parse::<LetterCursor>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn what_nobody_can_read_goes_back_to_its_class() {
        let strange = UnverifiedEnvelope { body: vec![0xff; 9].into(), ..Default::default() };
        assert_eq!(destination(&strange, Some("medium.03")), (Class::Medium, Uuid::nil()));
        assert_eq!(destination(&strange, None), (Class::Low, Uuid::nil()));
        let named = UnverifiedEnvelope { kind: "message.send".into(), ..strange };
        assert_eq!(destination(&named, Some("low")).0, Class::High, "the kind is signed, the header is not");
    }
}
