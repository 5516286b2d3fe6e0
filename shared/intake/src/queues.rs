//! One class of queues as this process sees it: the queue of each shard, and all of them together.
//!
//! Pure, like the lines. The invariant: an event enters where both its shard's queue and all together have
//! room, so that what is too long in one shard, or stands still there, is nothing to the others.

use crate::line::{Line, Sample};

/// The queues of one class.
#[derive(Debug)]
pub(crate) struct Queues {
    /// Of all together no more wait than the operator allows.
    all: Line,
    /// Each has somebody who drains it, and so a limit of its own.
    shards: Vec<Line>,
}

/// An overload has begun or ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// Where; `None`: in all together.
    pub(crate) shard: Option<u16>,
    /// Whether it has begun.
    pub(crate) begins: bool,
    /// Ready at the last sample.
    pub(crate) depth: u64,
    /// Over which nothing more enters.
    pub(crate) limit: u64,
}

impl Queues {
    /// `most`: ready events over which nothing more enters, however fast they are drained; zero: no limit.
    pub(crate) fn new(shards: u16, most: u64) -> Self {
        let shards = shards.max(1);
        // A single queue is all of them.
        let all = Line::fixed(if shards > 1 { most } else { 0 });
        Self { all, shards: (0..shards).map(|_| Line::one_in(shards, most)).collect() }
    }

    /// Lets one more event into a shard's queue, an urgent one always, or says in how many milliseconds it is
    /// worth trying again.
    pub(crate) fn enter(&mut self, shard: u16, now_us: u64, is_urgent: bool) -> Result<(), u64> {
        self.all.admit(now_us, is_urgent)?;
        self.shards[usize::from(shard)].enter(now_us, is_urgent)?;
        self.all.count();
        Ok(())
    }

    /// What entered is in the queue, or will not be.
    pub(crate) fn settle(&mut self, shard: u16) {
        self.all.settle();
        self.shards[usize::from(shard)].settle();
    }

    /// Of each shard how many events are on their way no longer; to be read before a sample is asked for.
    pub(crate) fn settled(&self) -> Vec<u64> {
        self.shards.iter().map(Line::settled).collect()
    }

    /// Takes a sample of each shard.
    pub(crate) fn note(&mut self, samples: &[Sample]) {
        for (line, sample) in self.shards.iter_mut().zip(samples) {
            line.note(*sample);
        }
        if let Some(all) = samples.iter().copied().reduce(Sample::and) {
            self.all.note(all);
        }
    }

    /// There was no sample for too long.
    pub(crate) fn lose_sight(&mut self) {
        self.lines_mut().for_each(Line::lose_sight);
    }

    /// Whether the limit of any may be reached soon.
    pub(crate) fn is_any_near(&self, now_us: u64) -> bool {
        self.lines().any(|line| line.is_near(now_us))
    }

    /// Whether what concerns a shard may be reached soon.
    pub(crate) fn is_near(&self, shard: u16, now_us: u64) -> bool {
        self.all.is_near(now_us) || self.shards[usize::from(shard)].is_near(now_us)
    }

    /// Whether some of what comes is refused.
    pub(crate) fn is_refusing(&self) -> bool {
        self.lines().any(Line::is_refusing)
    }

    /// What is to be told.
    pub(crate) fn news(&mut self, now_us: u64) -> Vec<News> {
        let shards = (0..).zip(&mut self.shards).filter_map(|(shard, line)| news_of(Some(shard), line, now_us));
        news_of(None, &mut self.all, now_us).into_iter().chain(shards).collect()
    }

    /// What is to be told because of one shard, for each event that comes: the others are looked at with the
    /// next sample.
    pub(crate) fn news_of(&mut self, shard: u16, now_us: u64) -> Vec<News> {
        let own = news_of(Some(shard), &mut self.shards[usize::from(shard)], now_us);
        news_of(None, &mut self.all, now_us).into_iter().chain(own).collect()
    }

    /// Whether an overload was told to have begun and not to have ended, somewhere.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.lines().any(Line::is_overloaded)
    }

    /// When an event that could not be handed over is worth trying again, in milliseconds.
    pub(crate) fn hint_ms(&self, shard: u16, now_us: u64) -> u64 {
        self.shards[usize::from(shard)].hint_ms(now_us)
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        std::iter::once(&self.all).chain(&self.shards)
    }

    fn lines_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        std::iter::once(&mut self.all).chain(&mut self.shards)
    }
}

fn news_of(shard: Option<u16>, line: &mut Line, now_us: u64) -> Option<News> {
    let (begins, depth) = line.news(now_us)?;
    Some(News { shard, begins, depth, limit: line.limit() })
}

#[cfg(test)]
impl Queues {
    /// Over so many ready events of a shard nothing more enters it.
    pub(crate) fn limit(&self, shard: u16) -> u64 {
        self.shards[usize::from(shard)].limit()
    }
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
