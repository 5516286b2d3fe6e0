//! How people stand, as those who say so meant it and as their partners were told.
//!
//! Shared by all workers. The invariant: a change is counted once, when its partner is told of it for the first
//! time.

use std::sync::atomic::{AtomicU64, Ordering};

/// The statuses that are set in turn; none of them is left out by the server.
pub(crate) const STATUSES: [&str; 3] = ["online", "busy", "away"];

/// A word: when it was meant to be said (microseconds since 1970), and which status it was.
#[derive(Debug, Default)]
struct Word(AtomicU64);

/// Of pairs of users (0 with 1, 2 with 3 …) how each stands.
#[derive(Debug)]
pub(crate) struct Standings {
    said: Vec<Word>,
    told: Vec<Word>,
}

impl Word {
    fn put(&self, intended: u64, status: usize) {
        self.0.store(intended << 2 | status as u64, Ordering::Release);
    }

    fn get(&self) -> (u64, usize) {
        let word = self.0.load(Ordering::Acquire);
        (word >> 2, (word & 3) as usize)
    }
}

impl Standings {
    pub(crate) fn new(people: u32) -> Self {
        let words = || (0..people).map(|_| Word::default()).collect();
        Self { said: words(), told: words() }
    }

    /// Who is told of a client.
    pub(crate) fn partner(&self, client: u32) -> Option<u32> {
        Some(client ^ 1).filter(|partner| (*partner as usize) < self.said.len())
    }

    /// Whether a client has not said anything yet.
    pub(crate) fn is_new(&self, client: u32) -> bool {
        self.said[client as usize].get().0 == 0
    }

    /// The next status of a client, which it says now; none while its last one has not been told: of several
    /// the server tells only the last.
    pub(crate) fn say(&self, client: u32, intended: u64) -> Option<&'static str> {
        let said = &self.said[client as usize];
        let (before, status) = said.get();
        if before != self.told[client as usize].get().0 {
            return None;
        }
        let status = (status + 1) % STATUSES.len();
        said.put(intended, status);
        Some(STATUSES[status])
    }

    /// A client heard how its partner stands: when that was meant to be said, if it is news.
    pub(crate) fn told(&self, listener: u32, status: &str) -> Option<u64> {
        let partner = self.partner(listener)? as usize;
        let (intended, said) = self.said[partner].get();
        let is_news = intended != 0 && STATUSES[said] == status && self.told[partner].get().0 != intended;
        is_news.then(|| {
            self.told[partner].put(intended, said);
            intended
        })
    }

    /// How many stand otherwise than their partners were told.
    pub(crate) fn apart(&self) -> u64 {
        let pairs = self.said.iter().zip(&self.told);
        pairs.filter(|(said, told)| said.get().0 != 0 && said.get() != told.get()).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_whoever_was_told_something_else_is_apart() {
        let standings = Standings::new(3);
        let status = standings.say(0, 10).expect("nothing waits");
        assert_eq!(standings.say(0, 20), None);
        assert_eq!(standings.apart(), 1);
        assert_eq!(standings.told(1, "nonsense"), None);
        assert_eq!(standings.told(1, status), Some(10));
        assert_eq!(standings.told(1, status), None);
        assert_eq!(standings.apart(), 0);
        assert_ne!(standings.say(0, 30), Some(status));
        assert_eq!(standings.apart(), 1);
        assert_eq!(standings.partner(2), None);
    }
}
