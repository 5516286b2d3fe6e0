//! How many events the messages of a queue hold, by what this process published there lately.
//!
//! The broker counts messages, and everybody else events. What waits in a queue came last, so as many messages as
//! wait are weighed by as many that were published last: exactly while nobody else publishes, else about, for
//! others are under the same load. The invariant: a message counts as at least one event.

use std::collections::VecDeque;

use domain::Class;
use parking_lot::Mutex;

/// Messages of a queue that are remembered; what is beyond them is as they are on average.
const KNOWN: usize = 1_024;

/// What was published last, by queue.
#[derive(Debug)]
pub(super) struct Weights(Vec<[Mutex<Lately>; 3]>);

/// The last messages of a queue, the newest last.
#[derive(Debug, Default)]
struct Lately {
    events: VecDeque<u8>,
    sum: u64,
}

impl Weights {
    pub(super) fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| Default::default()).collect())
    }

    /// A message with so many events was published.
    pub(super) fn note(&self, class: Class, shard: u16, events: usize) {
        if let Some(queues) = self.0.get(usize::from(shard)) {
            queues[class.index()].lock().note(u8::try_from(events).unwrap_or(u8::MAX));
        }
    }

    /// How many events so many messages hold that wait.
    pub(super) fn events(&self, class: Class, shard: u16, messages: u64) -> u64 {
        let queues = self.0.get(usize::from(shard));
        queues.map_or(messages, |queues| queues[class.index()].lock().weigh(messages))
    }
}

impl Lately {
    fn note(&mut self, events: u8) {
        if self.events.len() == KNOWN {
            self.sum -= self.events.pop_front().map_or(0, u64::from);
        }
        self.events.push_back(events);
        self.sum += u64::from(events);
    }

    fn weigh(&self, messages: u64) -> u64 {
        let known = self.events.len() as u64;
        if messages >= known {
            let average = if known == 0 { 1.0 } else { self.sum as f64 / known as f64 };
            return self.sum + ((messages - known) as f64 * average).round() as u64;
        }
        self.events.iter().rev().take(messages as usize).copied().map(u64::from).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(events: impl IntoIterator<Item = usize>) -> Weights {
        let weights = Weights::new(2);
        events.into_iter().for_each(|events| weights.note(Class::High, 1, events));
        weights
    }

    #[test]
    fn what_waits_weighs_what_was_published_last() {
        let weights = weights([32, 32, 5, 1, 1]);
        let seen = |messages| weights.events(Class::High, 1, messages);
        assert_eq!([0, 1, 2, 3, 4, 5].map(seen), [0, 1, 2, 7, 39, 71]);
        assert_eq!(seen(10), 142, "others' are like these");
        assert_eq!((weights.events(Class::High, 0, 9), weights.events(Class::Low, 1, 9)), (9, 9), "of others nothing");
    }

    #[test]
    fn no_more_than_some_are_remembered() {
        let weights = weights((0..KNOWN).map(|_| 9).chain((0..KNOWN).map(|_| 2)));
        assert_eq!(weights.events(Class::High, 1, 3 * KNOWN as u64), 6 * KNOWN as u64);
    }
}
