//! What waits to be sent on one connection, by class, bounded in bytes.
//!
//! Knows no socket. Messages, calls and answers leave in the order they came. What is fleeting
//! (typing, presence) lies apart: of each thing only the newest, and it leaves first. The invariants:
//! nothing fleeting leaves behind what came after it; what a client that does not read is told without
//! asking never exceeds the bound; answers are bounded by the client's not being read on meanwhile.

use std::collections::VecDeque;

use bytes::Bytes;

/// What may wait for one client, its transport's part included, as memory, not as text. Over it the
/// client is too slow: it is closed and resumes. Some 200 messages of 500 bytes; [`crate::handle::pace`]
/// sees to it that a client that does read never has so much waiting.
pub(crate) const OUTBOX_BYTES: usize = 192 * 1024;
/// What was held back while the session was being opened may be more, once.
const OPENING_BYTES: usize = 1024 * 1024;
/// With so much waiting, whoever delivers waits for a client that reads.
const CROWDED_BYTES: usize = OUTBOX_BYTES / 2;
/// With less than that it goes on.
const RELIEVED_BYTES: usize = OUTBOX_BYTES / 4;
/// With answers of this size waiting, no further command is taken.
pub(crate) const CONGESTED_BYTES: usize = 16 * 1024;
/// As much of the answers counts against the bound: one answer may be larger (`session.ready` of
/// somebody with a thousand rooms) and is no reason to call a client slow.
const ANSWERS_COUNTED: usize = 96 * 1024;
/// What an entry costs beyond its text: its place in a queue that grows by doubling, and the count
/// of who shares the text.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + 48;
/// Fleeting things that may wait; of more the oldest are dropped.
const FLEETING: usize = 32;

/// What a fleeting event is about: a newer one about the same replaces it. A hash of who and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topic(pub(crate) u64);

/// What kind of thing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ack or another thing that this connection itself asked for.
    Answer,
    /// An event that matters.
    Event,
    /// The same, from the time before the session was open.
    Held,
    /// Typing and presence: replaced by newer, or dropped.
    Fleeting(Topic),
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits; `was_empty` asks the caller to wake the sender.
    Waits { was_empty: bool },
    /// It waits, and something fleeting was dropped for it.
    Replaced,
    /// The client is too slow: nothing more fits.
    Overflow,
}

/// The next thing to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Popped {
    pub(crate) bytes: Bytes,
    pub(crate) is_answer: bool,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    is_answer: bool,
}

#[derive(Debug)]
struct Fleeting {
    topic: Topic,
    bytes: Bytes,
    /// So many entries have to have left before.
    after: u64,
}

/// What a text costs that waits.
fn cost(bytes: &Bytes) -> usize {
    // The allocator rounds up to an eighth.
    bytes.len() + bytes.len() / 8 + ENTRY_BYTES
}

/// The queue of one connection. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    /// In the order in which they may leave.
    fleeting: Vec<Fleeting>,
    /// So many entries have left.
    left: u64,
    /// So many entries have to have left before anything fleeting that comes now.
    first: u64,
    event_bytes: usize,
    answer_bytes: usize,
    fleeting_bytes: usize,
    /// What left the queue and not yet the process.
    transport_bytes: usize,
    /// Whoever sends was not told yet that something waits.
    is_put_off: bool,
}

impl Outbox {
    /// Adds an entry.
    pub(crate) fn push(&mut self, bytes: Bytes, kind: Kind) -> Pushed {
        let cost = cost(&bytes);
        let was_empty = self.is_empty();
        match kind {
            Kind::Fleeting(topic) => {
                let is_replaced = self.push_fleeting(topic, bytes, cost);
                return if is_replaced { Pushed::Replaced } else { Pushed::Waits { was_empty } };
            }
            Kind::Answer => self.answer_bytes += cost,
            Kind::Event if !self.fits(cost, OUTBOX_BYTES) => return Pushed::Overflow,
            Kind::Held if !self.fits(cost, OPENING_BYTES) => return Pushed::Overflow,
            Kind::Event | Kind::Held => self.event_bytes += cost,
        }
        self.entries.push_back(Entry { bytes, is_answer: kind == Kind::Answer });
        Pushed::Waits { was_empty }
    }

    /// One event always fits, whatever its size.
    fn fits(&self, cost: usize, limit: usize) -> bool {
        self.event_bytes == 0 || self.weight() + cost <= limit
    }

    fn push_fleeting(&mut self, topic: Topic, bytes: Bytes, cost: usize) -> bool {
        self.fleeting_bytes += cost;
        let same = self.fleeting.iter().position(|fleeting| fleeting.topic == topic);
        let dropped = same.or_else(|| (self.fleeting.len() == FLEETING).then_some(0));
        if let Some(at) = dropped {
            let dropped = self.fleeting.remove(at);
            self.fleeting_bytes -= self::cost(&dropped.bytes);
        }
        // At the end: it may have to wait for more than the older one.
        self.fleeting.push(Fleeting { topic, bytes, after: self.first });
        dropped.is_some()
    }

    /// What waits now has to leave before anything fleeting that is yet to come.
    pub(crate) fn let_first(&mut self) {
        self.first = self.left + self.entries.len() as u64;
    }

    /// Whoever sends is told later that something waits.
    pub(crate) fn put_off(&mut self) {
        self.is_put_off = true;
    }

    /// True if whoever sends was to be told later, and is now.
    pub(crate) fn take_put_off(&mut self) -> bool {
        std::mem::take(&mut self.is_put_off)
    }

    /// The next one to send.
    pub(crate) fn pop(&mut self) -> Option<Popped> {
        self.is_put_off = false;
        if self.fleeting.first().is_some_and(|fleeting| fleeting.after <= self.left) {
            let Fleeting { bytes, .. } = self.fleeting.remove(0);
            self.fleeting_bytes -= cost(&bytes);
            if self.fleeting.is_empty() {
                self.fleeting = Vec::new();
            }
            return Some(Popped { bytes, is_answer: false });
        }
        let Entry { bytes, is_answer } = self.entries.pop_front()?;
        self.left += 1;
        let cost = cost(&bytes);
        if is_answer {
            self.answer_bytes -= cost;
        } else {
            self.event_bytes -= cost;
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        Some(Popped { bytes, is_answer })
    }

    /// Notes how much of what left the queue has not left the process.
    pub(crate) fn note_transport(&mut self, bytes: usize) {
        self.transport_bytes = bytes;
    }

    /// Forgets everything that waits.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Bytes that wait here.
    pub(crate) fn bytes(&self) -> usize {
        self.event_bytes + self.answer_bytes + self.fleeting_bytes
    }

    /// Bytes of answers that wait.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// What counts against the bound.
    fn weight(&self) -> usize {
        self.event_bytes + self.answer_bytes.min(ANSWERS_COUNTED) + self.fleeting_bytes + self.transport_bytes
    }

    /// True when whoever delivers should wait for this client.
    pub(crate) fn is_crowded(&self) -> bool {
        self.event_bytes > 0 && self.weight() > CROWDED_BYTES
    }

    /// True when there is room again.
    pub(crate) fn is_relieved(&self) -> bool {
        self.event_bytes == 0 || self.weight() < RELIEVED_BYTES
    }

    /// True when nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.fleeting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMETHING: Kind = Kind::Fleeting(Topic(1));

    fn text(len: usize) -> Bytes {
        "x".repeat(len).into()
    }

    fn fill(outbox: &mut Outbox, kind: Kind, len: usize) -> usize {
        (0..100_000).take_while(|_| outbox.push(text(len), kind) != Pushed::Overflow).count()
    }

    fn texts(outbox: &mut Outbox) -> Vec<Bytes> {
        std::iter::from_fn(|| outbox.pop()).map(|popped| popped.bytes).collect()
    }

    #[test]
    fn what_matters_leaves_in_the_order_it_came_and_what_is_fleeting_first() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push("a".into(), Kind::Event), Pushed::Waits { was_empty: true });
        assert_eq!(outbox.push("b".into(), Kind::Answer), Pushed::Waits { was_empty: false });
        assert_eq!(outbox.push("c".into(), SOMETHING), Pushed::Waits { was_empty: false });
        assert_eq!(texts(&mut outbox), ["c", "a", "b"]);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn nothing_fleeting_comes_before_the_beginning_of_a_session() {
        let mut outbox = Outbox::default();
        outbox.push("ready".into(), Kind::Answer);
        outbox.let_first();
        outbox.push("message".into(), Kind::Event);
        outbox.push("typing".into(), SOMETHING);
        assert_eq!(texts(&mut outbox), ["ready", "typing", "message"]);
    }

    #[test]
    fn what_is_fleeting_and_waits_already_is_not_held_back_behind_what_came_after_it() {
        let mut outbox = Outbox::default();
        let typing = |topic| Kind::Fleeting(Topic(topic));
        outbox.push("typing in R".into(), typing(1));
        outbox.push("left R".into(), Kind::Event);
        outbox.push("joined S".into(), Kind::Event);
        outbox.let_first();
        outbox.push("typing in S".into(), typing(2));
        outbox.push("left S".into(), Kind::Event);
        outbox.push("joined T".into(), Kind::Event);
        outbox.let_first();
        outbox.push("typing in T".into(), typing(3));
        let expected = ["typing in R", "left R", "joined S", "typing in S", "left S", "joined T", "typing in T"];
        assert_eq!(texts(&mut outbox), expected);
        assert!(outbox.is_empty() && outbox.bytes() == 0);
    }

    #[test]
    fn a_newer_word_of_the_same_thing_waits_for_what_it_has_to() {
        let mut outbox = Outbox::default();
        outbox.push("typing in R".into(), SOMETHING);
        outbox.push("joined R".into(), Kind::Event);
        outbox.let_first();
        assert_eq!(outbox.push("typing in R again".into(), SOMETHING), Pushed::Replaced);
        assert_eq!(texts(&mut outbox), ["joined R", "typing in R again"]);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn events_are_bounded_in_memory() {
        let mut outbox = Outbox::default();
        let count = fill(&mut outbox, Kind::Event, 1000);
        assert!((140..170).contains(&count), "{count}");
        assert!(outbox.bytes() <= OUTBOX_BYTES && outbox.is_crowded());
        let mut tiny = Outbox::default();
        assert!(fill(&mut tiny, Kind::Event, 1) * size_of::<Entry>() < OUTBOX_BYTES / 2, "places count, too");
    }

    #[test]
    fn what_the_transport_holds_counts() {
        let mut outbox = Outbox::default();
        outbox.note_transport(OUTBOX_BYTES / 2);
        assert!((70..85).contains(&fill(&mut outbox, Kind::Event, 1000)));
    }

    #[test]
    fn one_event_fits_whatever_its_size() {
        let mut outbox = Outbox::default();
        assert_ne!(outbox.push(text(2 * OUTBOX_BYTES), Kind::Event), Pushed::Overflow);
        assert_eq!(outbox.push(text(1), Kind::Event), Pushed::Overflow);
    }

    #[test]
    fn what_was_held_at_the_beginning_may_be_more() {
        let mut outbox = Outbox::default();
        assert!(fill(&mut outbox, Kind::Held, 1000) > 800);
        assert_eq!(outbox.push(text(1), Kind::Event), Pushed::Overflow);
    }

    #[test]
    fn of_one_topic_the_newest_waits_and_of_many_the_newest() {
        let mut outbox = Outbox::default();
        outbox.push("old".into(), SOMETHING);
        assert_eq!(outbox.push("new".into(), SOMETHING), Pushed::Replaced);
        assert_eq!(texts(&mut outbox), ["new"]);
        for topic in 0..10_000 {
            outbox.push(text(100), Kind::Fleeting(Topic(topic)));
        }
        assert!(outbox.bytes() < 10_000 && outbox.fleeting[FLEETING - 1].topic == Topic(9_999));
        assert_eq!(texts(&mut outbox).len(), FLEETING);
        assert!(outbox.is_empty() && outbox.fleeting.capacity() == 0 && outbox.bytes() == 0);
    }

    #[test]
    fn answers_always_fit_and_a_large_one_does_not_make_a_client_slow() {
        let mut outbox = Outbox::default();
        assert_ne!(outbox.push(text(4 * OUTBOX_BYTES), Kind::Answer), Pushed::Overflow);
        assert!(outbox.answer_bytes() > CONGESTED_BYTES && !outbox.is_crowded());
        assert!(fill(&mut outbox, Kind::Event, 1000) > 50);
    }

    #[test]
    fn an_emptied_queue_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        fill(&mut outbox, Kind::Event, 100);
        while outbox.pop().is_some() {}
        assert!(outbox.is_empty() && outbox.entries.capacity() == 0 && outbox.bytes() == 0);
        assert!(outbox.is_relieved());
    }
}
