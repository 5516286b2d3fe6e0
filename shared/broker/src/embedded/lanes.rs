//! The order of waiting events, and how many of them lie in memory.
//!
//! Pure: no file, no clock. An event's place is one number: its lane (class, then priority) in the
//! upper byte, its number in the lower seven, so that ascending places are the order of delivery.
//! The invariant: of each lane the oldest events are in memory and the rest is only on disk; memory
//! is bounded, the queues are not.

use std::collections::{BTreeMap, VecDeque};

use domain::{Class, Timestamp};
use protocol::UnverifiedEnvelope;

use crate::share::shares;

const NUMBER_BITS: u32 = 56;
/// Events of one lane in memory, at most.
const LOADED_LIMIT: usize = 8_192;
/// Bytes of bodies of one lane in memory, at most (about; one batch more while it is loaded).
const LOADED_LIMIT_BYTES: usize = 8 * 1024 * 1024;
/// A lane with fewer in memory is loaded again from disk.
const LOW_WATER: usize = 1_024;

/// Events of one class and priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane(u8);

impl Lane {
    /// The lane of a class and a priority, 0 to 10.
    pub(super) fn of(class: Class, priority: u8) -> Self {
        Self((class.index() as u8) << 4 | (15 - priority.min(15)))
    }

    /// The lane with that code; `None` when no event can have it.
    pub(super) fn from_code(code: i64) -> Option<Self> {
        let lane = Self(u8::try_from(code).ok()?);
        (usize::from(lane.0 >> 4) < Class::ALL.len()).then_some(lane)
    }

    /// As it stands in the file.
    pub(super) fn code(self) -> i64 {
        self.0.into()
    }

    pub(super) fn class(self) -> Class {
        Class::ALL[usize::from(self.0 >> 4)]
    }

    /// The place of the event with that number.
    pub(super) fn place(self, number: i64) -> i64 {
        self.code() << NUMBER_BITS | number
    }

    /// The number of a place.
    pub(super) fn number(place: i64) -> i64 {
        place & ((1 << NUMBER_BITS) - 1)
    }

    /// The lane of a place.
    pub(super) fn at(place: i64) -> Option<Self> {
        Self::from_code(place >> NUMBER_BITS)
    }
}

/// An event that waits.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) place: i64,
    pub(super) envelope: UnverifiedEnvelope,
    pub(super) failures: u32,
    pub(super) first_failed_at: Option<Timestamp>,
    pub(super) redelivered: bool,
}

#[derive(Debug)]
struct Waiting {
    loaded: VecDeque<Event>,
    loaded_bytes: usize,
    /// How many more lie on disk, all behind `last`.
    on_disk: u64,
    /// The last place that was ever loaded.
    last: i64,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.loaded.len() >= LOADED_LIMIT || self.loaded_bytes >= LOADED_LIMIT_BYTES
    }

    fn push(&mut self, event: Event) {
        self.last = event.place;
        self.loaded_bytes += event.envelope.body.len();
        self.loaded.push_back(event);
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.loaded.pop_front()?;
        self.loaded_bytes -= event.envelope.body.len();
        Some(event)
    }
}

/// What to load next: a lane's events behind a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) lane: Lane,
    pub(super) behind: i64,
}

/// All events that wait, in order of delivery.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<Lane, Waiting>,
}

impl Lanes {
    fn lane(&mut self, lane: Lane) -> &mut Waiting {
        let empty = || Waiting { loaded: VecDeque::new(), loaded_bytes: 0, on_disk: 0, last: lane.place(0) };
        self.lanes.entry(lane).or_insert_with(empty)
    }

    /// Says that so many events of a lane lie on disk; at the start.
    pub(super) fn found(&mut self, lane: Lane, count: u64) {
        self.lane(lane).on_disk += count;
    }

    /// Adds an event that is on disk now, behind all others of its lane.
    pub(super) fn append(&mut self, event: Event) {
        let Some(lane) = Lane::at(event.place) else { return };
        let waiting = self.lane(lane);
        if waiting.on_disk > 0 || waiting.is_full() {
            waiting.on_disk += 1;
        } else {
            waiting.push(event);
        }
    }

    /// The most urgent lane that should be loaded.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let mut lanes = self.lanes.iter();
        let (lane, waiting) = lanes.find(|(_, w)| w.on_disk > 0 && w.loaded.len() < LOW_WATER && !w.is_full())?;
        Some(Wanted { lane: *lane, behind: waiting.last })
    }

    /// Adds what was wanted. Fewer events than asked for means that there are no more.
    pub(super) fn load(&mut self, wanted: Wanted, events: Vec<Event>, asked: usize) {
        let waiting = self.lane(wanted.lane);
        let count = events.len();
        waiting.on_disk = if count < asked { 0 } else { waiting.on_disk.saturating_sub(count as u64) };
        for event in events {
            waiting.push(event);
        }
    }

    /// The lanes of a class whose turn it is: up to the first that has to be loaded, for nothing
    /// less urgent may overtake what lies on disk.
    fn ready(&mut self, class: Class) -> impl Iterator<Item = &mut Waiting> {
        let mut open = true;
        let of_class = self.lanes.iter_mut().filter(move |(lane, _)| lane.class() == class);
        of_class.map_while(move |(_, waiting)| {
            let now = open;
            open &= waiting.on_disk == 0;
            now.then_some(waiting)
        })
    }

    /// Takes the next events, at most `max`, shared between the classes.
    pub(super) fn take(&mut self, max: usize) -> Vec<Event> {
        let waiting = Class::ALL.map(|class| self.ready(class).map(|waiting| waiting.loaded.len()).sum());
        let counts = shares(waiting, max);
        let mut taken = Vec::with_capacity(counts.iter().sum());
        for (class, count) in Class::ALL.into_iter().zip(counts) {
            let upto = taken.len() + count;
            for waiting in self.ready(class) {
                while taken.len() < upto
                    && let Some(event) = waiting.pop()
                {
                    taken.push(event);
                }
            }
        }
        taken
    }

    /// Puts events back that were taken and not settled, in front of everything newer.
    pub(super) fn give_back(&mut self, mut events: Vec<Event>) {
        events.sort_unstable_by_key(|event| event.place);
        for event in events.into_iter().rev() {
            let Some(lane) = Lane::at(event.place) else { continue };
            let waiting = self.lane(lane);
            waiting.loaded_bytes += event.envelope.body.len();
            waiting.loaded.push_front(Event { redelivered: true, ..event });
        }
        // What was in doubt may come after what was behind it.
        for waiting in self.lanes.values_mut() {
            waiting.loaded.make_contiguous().sort_by_key(|event| event.place);
        }
    }

    /// How many events of a class wait.
    pub(super) fn depth(&self, class: Class) -> u64 {
        let of_class = self.lanes.iter().filter(|(lane, _)| lane.class() == class);
        of_class.map(|(_, waiting)| waiting.loaded.len() as u64 + waiting.on_disk).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(class: Class, priority: u8, number: i64) -> Event {
        let place = Lane::of(class, priority).place(number);
        Event { place, envelope: UnverifiedEnvelope::default(), failures: 0, first_failed_at: None, redelivered: false }
    }

    fn number(place: i64) -> i64 {
        place & ((1 << NUMBER_BITS) - 1)
    }

    fn numbers(events: &[Event]) -> Vec<i64> {
        events.iter().map(|event| number(event.place)).collect()
    }

    #[test]
    fn places_order_by_class_then_priority_then_number() {
        let place = |class, priority, number| Lane::of(class, priority).place(number);
        let mut places = [
            place(Class::Low, 1, 1),
            place(Class::Low, 3, 9),
            place(Class::Medium, 5, 2),
            place(Class::High, 8, 4),
            place(Class::High, 8, 3),
            place(Class::High, 10, 7),
        ];
        places.sort_unstable();
        assert_eq!(places.iter().map(|place| number(*place)).collect::<Vec<_>>(), [7, 3, 4, 2, 9, 1]);
        assert!(places.iter().all(|place| *place > 0 && Lane::at(*place).is_some()));
        assert_eq!(Lane::from_code(0x30), None);
    }

    #[test]
    fn urgent_events_overtake_and_equals_keep_their_order() {
        let mut lanes = Lanes::default();
        for (class, priority, number) in
            [(Class::Low, 1, 1), (Class::High, 8, 2), (Class::High, 8, 3), (Class::High, 10, 4), (Class::Medium, 5, 5)]
        {
            lanes.append(event(class, priority, number));
        }
        assert_eq!(numbers(&lanes.take(100)), [4, 2, 3, 5, 1]);
        assert_eq!(lanes.depth(Class::High), 0);
    }

    #[test]
    fn what_is_given_back_comes_first_in_its_order() {
        let mut lanes = Lanes::default();
        (1..=4).for_each(|number| lanes.append(event(Class::High, 8, number)));
        let mut taken = lanes.take(3);
        taken.swap(0, 2);
        lanes.append(event(Class::High, 8, 5));
        lanes.give_back(taken);
        let again = lanes.take(100);
        assert_eq!(numbers(&again), [1, 2, 3, 4, 5]);
        assert_eq!(again.iter().map(|event| event.redelivered).collect::<Vec<_>>(), [true, true, true, false, false]);
    }

    #[test]
    fn what_is_given_back_late_comes_in_its_place_too() {
        let mut lanes = Lanes::default();
        (1..=4).for_each(|number| lanes.append(event(Class::High, 8, number)));
        let mut taken = lanes.take(3);
        let late = taken.remove(1);
        lanes.give_back(taken);
        lanes.give_back(vec![late]);
        assert_eq!(numbers(&lanes.take(100)), [1, 2, 3, 4]);
    }

    #[test]
    fn a_long_lane_stays_on_disk_and_is_loaded_in_order() {
        let mut lanes = Lanes::default();
        let total = LOADED_LIMIT as i64 + 10;
        (1..=total).for_each(|number| lanes.append(event(Class::High, 8, number)));
        lanes.append(event(Class::High, 3, total + 1));
        assert_eq!(lanes.depth(Class::High), total as u64 + 1);
        assert_eq!(lanes.wanted(), None, "enough is in memory");
        assert_eq!(lanes.take(LOADED_LIMIT * 2).len(), LOADED_LIMIT, "the less urgent lane waits for the disk");
        let lane = Lane::of(Class::High, 8);
        let wanted = lanes.wanted().expect("the rest");
        assert_eq!(wanted, Wanted { lane, behind: lane.place(LOADED_LIMIT as i64) });
        let rest = (LOADED_LIMIT as i64 + 1..=total).map(|number| event(Class::High, 8, number)).collect();
        lanes.load(wanted, rest, 100);
        assert_eq!(lanes.wanted(), None);
        let last: Vec<i64> = (LOADED_LIMIT as i64 + 1..=total + 1).collect();
        assert_eq!(numbers(&lanes.take(LOADED_LIMIT)), last);
    }

    #[test]
    fn bodies_in_memory_are_bounded_by_their_bytes() {
        let mut lanes = Lanes::default();
        for number in 1..=20 {
            let mut event = event(Class::High, 8, number);
            event.envelope.body = vec![0; LOADED_LIMIT_BYTES / 10].into();
            lanes.append(event);
        }
        assert!(lanes.take(100).len() < 20);
        assert!(lanes.wanted().is_some());
    }
}
