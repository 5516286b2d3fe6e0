//! What waits to be sent on one connection: first in, first out, bounded in bytes.
//!
//! Knows no socket. The invariant: what is told without being asked for never exceeds the bound;
//! answers may, because a client whose answers pile up is not read on until they are gone.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes of deliveries that may wait. Over it the client is too slow: it is closed and resumes.
/// Some 8,000 messages of 500 bytes: seconds of a busy room, and more than a processor's largest
/// batch. The texts are shared by all receivers, so that a thousand slow clients of one room do not
/// take a thousand times as much.
pub(crate) const OUTBOX_BYTES: usize = 4 * 1024 * 1024;
/// With so much waiting, typing and presence are not worth their place.
const CROWDED_BYTES: usize = OUTBOX_BYTES / 4;
/// With answers of this size waiting, no further command is taken.
const CONGESTED_BYTES: usize = OUTBOX_BYTES / 2;
/// What an entry costs beyond its text.
const ENTRY_BYTES: usize = 48;

/// What kind of thing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ack or another thing that this connection itself asked for.
    Answer,
    /// An event that matters.
    Event,
    /// Typing and presence: the first to be dropped.
    Fleeting,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits; `was_empty` asks the caller to wake the sender.
    Waits { was_empty: bool },
    /// It was not worth its place.
    Dropped,
    /// The client is too slow: nothing more fits.
    Overflow,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    kind: Kind,
}

impl Entry {
    fn cost(&self) -> usize {
        self.bytes.len() + ENTRY_BYTES
    }
}

/// The queue of one connection. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    event_bytes: usize,
    answer_bytes: usize,
}

impl Outbox {
    /// Adds an entry, if need be in the place of fleeting ones.
    pub(crate) fn push(&mut self, bytes: Bytes, kind: Kind) -> Pushed {
        let entry = Entry { bytes, kind };
        let cost = entry.cost();
        match kind {
            Kind::Answer => self.answer_bytes += cost,
            Kind::Fleeting if self.event_bytes + cost > CROWDED_BYTES => return Pushed::Dropped,
            Kind::Event | Kind::Fleeting => {
                if self.event_bytes + cost > OUTBOX_BYTES {
                    self.drop_fleeting();
                }
                if self.event_bytes + cost > OUTBOX_BYTES {
                    return Pushed::Overflow;
                }
                self.event_bytes += cost;
            }
        }
        let was_empty = self.entries.is_empty();
        self.entries.push_back(entry);
        Pushed::Waits { was_empty }
    }

    /// The next one to send.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let entry = self.entries.pop_front()?;
        let cost = entry.cost();
        match entry.kind {
            Kind::Answer => self.answer_bytes -= cost,
            Kind::Event | Kind::Fleeting => self.event_bytes -= cost,
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        Some(entry.bytes)
    }

    /// Forgets everything that waits.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.event_bytes + self.answer_bytes
    }

    /// True when the client should not be given more to ask for.
    pub(crate) fn is_congested(&self) -> bool {
        self.answer_bytes > CONGESTED_BYTES
    }

    /// True when nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn drop_fleeting(&mut self) {
        let mut freed = 0;
        self.entries.retain(|entry| {
            let keep = entry.kind != Kind::Fleeting;
            if !keep {
                freed += entry.cost();
            }
            keep
        });
        self.event_bytes -= freed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Bytes {
        "x".repeat(len).into()
    }

    fn fill(outbox: &mut Outbox, kind: Kind, len: usize) -> usize {
        (0..100_000).take_while(|_| matches!(outbox.push(text(len), kind), Pushed::Waits { .. })).count()
    }

    #[test]
    fn entries_leave_in_the_order_they_came() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push("a".into(), Kind::Event), Pushed::Waits { was_empty: true });
        assert_eq!(outbox.push("b".into(), Kind::Answer), Pushed::Waits { was_empty: false });
        assert_eq!(outbox.push("c".into(), Kind::Fleeting), Pushed::Waits { was_empty: false });
        let texts: Vec<_> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(texts, ["a", "b", "c"]);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn events_are_bounded_in_bytes() {
        let mut outbox = Outbox::default();
        let count = fill(&mut outbox, Kind::Event, 1000);
        assert!((3900..4100).contains(&count), "{count}");
        assert!(outbox.bytes() <= OUTBOX_BYTES);
        assert_eq!(outbox.push(text(1000), Kind::Event), Pushed::Overflow);
    }

    #[test]
    fn typing_is_dropped_long_before_messages_are() {
        let mut outbox = Outbox::default();
        let fleeting = fill(&mut outbox, Kind::Fleeting, 100);
        assert!(fleeting * 100 < OUTBOX_BYTES / 2);
        assert_eq!(outbox.push(text(100), Kind::Fleeting), Pushed::Dropped);
        assert!(matches!(outbox.push(text(100), Kind::Event), Pushed::Waits { .. }));
    }

    #[test]
    fn messages_take_the_place_of_typing() {
        let mut outbox = Outbox::default();
        fill(&mut outbox, Kind::Fleeting, 1000);
        fill(&mut outbox, Kind::Event, 1000);
        let left: Vec<Kind> = outbox.entries.iter().map(|entry| entry.kind).collect();
        assert!(left.len() > 3900 && left.iter().all(|kind| *kind == Kind::Event));
    }

    #[test]
    fn answers_always_fit_and_say_when_it_is_too_much() {
        let mut outbox = Outbox::default();
        fill(&mut outbox, Kind::Event, 1000);
        assert!(!outbox.is_congested());
        assert!(matches!(outbox.push(text(2 * OUTBOX_BYTES), Kind::Answer), Pushed::Waits { .. }));
        assert!(outbox.is_congested());
    }

    #[test]
    fn an_emptied_queue_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        fill(&mut outbox, Kind::Event, 100);
        while outbox.pop().is_some() {}
        assert!(outbox.is_empty() && outbox.entries.capacity() == 0 && outbox.bytes() == 0);
    }
}
