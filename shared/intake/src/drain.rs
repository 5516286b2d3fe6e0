//! How fast a queue is drained, and how long a queue that allows: what waits is to be worked off within
//! seconds.
//!
//! Pure: the looks come from outside. The invariants: the limit is never below the least nor above what the
//! operator allows; and where nothing is seen to be drained, because whoever did it or what it needs is away,
//! that teaches nothing, and what was known ends before a queue that was not too long reaches its limit: an
//! outage is bridged as far as the operator allows.

/// A queue may be so many seconds of work long.
const WORK_S: f64 = 6.0;
/// The limits of all shards together are never below this, or an idle system would refuse what comes at once.
const LEAST: u64 = 1_000;
/// Nor is that of one: more than a batch.
const LEAST_OF_SHARD: u64 = 250;
/// Long enough for the portions in which processors settle and tell it to even out.
const WINDOW_US: u64 = 1_000_000;
/// What has stood still for so long is no slow work but none.
const STILL_US: u64 = 4 * WINDOW_US;
/// So long after something was seen to be drained last, it is forgotten: less than `WORK_S`, in which no more
/// comes than may wait, unless it is too much anyway.
const KNOWN_US: u64 = 5 * WINDOW_US;
/// What is believed of a window that is slower than what is known: a short stall may be in it.
const SLOWER: f64 = 0.125;

/// How much was drained at a moment, since it began to be counted.
#[derive(Debug, Clone, Copy)]
struct Mark {
    total: u64,
    at_us: u64,
}

impl Mark {
    fn passed_us(self, begin: Self) -> u64 {
        self.at_us.saturating_sub(begin.at_us)
    }
}

/// What is known of a queue's consumer.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// The limit is never below this.
    least: u64,
    /// When the total was seen to rise, or was seen at all, last.
    last: Option<Mark>,
    /// Where the window began: at a rise, for what stood still before is not part of it.
    begin: Option<Mark>,
    per_s: Option<f64>,
    /// Of a first window that ended in a standstill of its length: slow work, or a short stall.
    doubted: Option<f64>,
    seen_us: u64,
}

impl Drain {
    /// Of one of so many queues that share what comes.
    pub(crate) fn of_one_in(shards: u16) -> Self {
        let least = (LEAST / u64::from(shards.max(1))).max(LEAST_OF_SHARD);
        Self { least, ..Self::default() }
    }

    /// What is drained shows what could be only while so many wait all the time; else it shows what came.
    pub(crate) fn enough(&self) -> u64 {
        self.least / 2
    }

    /// Takes a look at how many wait and how many were drained in all; `None`: not known this time.
    pub(crate) fn note(&mut self, depth: u64, total: Option<u64>, at_us: u64) {
        if depth < self.enough() {
            (self.last, self.begin, self.doubted) = (None, None, None);
        } else if let Some(total) = total {
            self.follow(Mark { total, at_us });
        }
        if at_us.saturating_sub(self.seen_us) > KNOWN_US {
            self.per_s = None;
        }
    }

    fn follow(&mut self, here: Mark) {
        let going_on = |last: &Mark| here.total >= last.total && here.passed_us(*last) <= STILL_US;
        let Some(last) = self.last.filter(going_on) else {
            // It begins, stands still, or began anew.
            (self.last, self.begin, self.doubted) = (Some(here), None, None);
            return;
        };
        if here.total == last.total {
            return;
        }
        self.last = Some(here);
        let begin = *self.begin.get_or_insert(here);
        let passed_us = here.passed_us(begin);
        if passed_us < WINDOW_US {
            return;
        }
        self.begin = Some(here);
        let per_s = (here.total - begin.total) as f64 / (passed_us as f64 / 1e6);
        let stood_still = here.passed_us(last) >= WINDOW_US;
        match self.doubted.take() {
            None if stood_still && self.per_s.is_none() => self.doubted = Some(per_s),
            doubted => self.learn(per_s.max(doubted.unwrap_or_default()), here.at_us),
        }
    }

    fn learn(&mut self, per_s: f64, at_us: u64) {
        self.seen_us = at_us;
        self.per_s = Some(match self.per_s {
            None => per_s,
            Some(known) if per_s > known => f64::midpoint(known, per_s),
            Some(known) => known + (per_s - known) * SLOWER,
        });
    }

    /// Events a second, as far as is known.
    pub(crate) fn per_s(&self) -> Option<f64> {
        self.per_s
    }

    /// How many may wait; `most`: as the operator says.
    pub(crate) fn limit(&self, most: u64) -> u64 {
        self.per_s.map_or(most, |per_s| ((per_s * WORK_S) as u64).max(self.least).min(most))
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&mut self) {
        *self = Self { least: self.least, ..Self::default() };
    }
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
