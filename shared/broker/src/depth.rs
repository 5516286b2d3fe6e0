//! What operators ask of the queues: how many events wait.
//!
//! Knows no engine. The invariant: looking changes nothing.

use domain::Class;

/// Events that wait, summed over all shards; those delivered and not yet settled are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depths {
    /// Ready in the queues of class high.
    pub high: u64,
    /// Ready in the queues of class medium.
    pub medium: u64,
    /// Ready in the queues of class low.
    pub low: u64,
    /// Waiting for their next attempt.
    pub retry: u64,
    /// Dead letters.
    pub dead: u64,
}

impl Depths {
    /// Each count with its label in metrics.
    pub(crate) fn labelled(self) -> [(&'static str, u64); 5] {
        [("high", self.high), ("medium", self.medium), ("low", self.low), ("retry", self.retry), ("dead", self.dead)]
    }

    /// The count of a class.
    pub(crate) fn of(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::High => &mut self.high,
            Class::Medium => &mut self.medium,
            Class::Low => &mut self.low,
        }
    }
}
