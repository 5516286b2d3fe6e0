//! One queue, or all of a class, as this process sees it, and whether more may enter.
//!
//! Pure: the clock and the samples come from outside. The invariant: from the sample that shows, or the
//! events entered since that make, more than the limit until a sample well below it, nothing enters; only what
//! came before there was a limit is no reason to refuse while it becomes less.

use crate::drain::Drain;

/// Refusing ends when a sample shows at most so many tenths of the limit; the distance keeps it from
/// flapping.
const END_TENTHS: u64 = 8;
/// When nothing is seen to be drained, hints are as if a queue of the limit's length took so long: they
/// grow with the depth all the same.
const SLOWEST_S: f64 = 20.0;
/// The bounds of a hint before it is spread to up to its double, milliseconds.
const HINT_LEAST_MS: f64 = 500.0;
const HINT_MOST_MS: f64 = 15_000.0;
/// So long after a sample something is taken off for what should have been drained since; not longer,
/// because the drain may have ended.
const SAMPLE_GOOD_S: f64 = 0.5;
/// What came before there was a limit may become more by such a part of the limit: it goes up and down by batches.
const UNSTEADY_PART: u64 = 5;
/// An overload is over when nothing was refused for so long; until then it may come and go in between.
const OVER_AFTER_US: u64 = 10_000_000;

/// What is seen of a queue at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// How many wait.
    pub(crate) depth: u64,
    /// How many of ours were on their way no longer when it was asked for: the others may lie beside it.
    pub(crate) settled: u64,
    /// How many were drained since it began to be counted, by whichever processor, if that is known.
    pub(crate) drained: Option<u64>,
    /// When it was asked for.
    pub(crate) at_us: u64,
}

impl Sample {
    /// Of two queues together, seen at one moment.
    pub(crate) fn and(self, other: Self) -> Self {
        let drained = self.drained.zip(other.drained).map(|(one, other)| one + other);
        let (depth, settled) = (self.depth + other.depth, self.settled + other.settled);
        Self { depth, settled, drained, at_us: self.at_us }
    }
}

/// What the limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Limit {
    /// As the operator says.
    #[default]
    Fixed,
    /// What follows from how fast it is drained.
    Drained,
}

/// One queue, or all of a class.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Ready events over which nothing more enters, however fast they are drained; zero: no limit.
    most: u64,
    limit: Limit,
    drain: Drain,
    /// The least that has waited since the limit became known, if that was over it all the time.
    backlog: Option<u64>,
    /// Events of this process on their way into the queue.
    entered: u64,
    /// Those of them that are on their way no longer.
    settled: u64,
    sample: Sample,
    /// So many more a second leave the queue than others than this process bring.
    drained_per_s: f64,
    refusing: bool,
    /// When it last refused, and whether it was told that it does.
    refused_us: Option<u64>,
    told: bool,
    /// No sample for too long: nothing is known, nothing is refused.
    blind: bool,
}

impl Line {
    /// Its limit is `most` ready events, however fast they are drained; zero: no limit.
    pub(crate) fn fixed(most: u64) -> Self {
        Self { most, drain: Drain::of_one_in(1), ..Self::default() }
    }

    /// One of so many queues that share what comes; its limit is `most`, or what follows from how fast it is
    /// drained; zero: no limit.
    pub(crate) fn one_in(shards: u16, most: u64) -> Self {
        Self { most, limit: Limit::Drained, drain: Drain::of_one_in(shards), ..Self::default() }
    }

    /// Ready events over which nothing more enters; zero: no limit.
    pub(crate) fn limit(&self) -> u64 {
        match self.limit {
            Limit::Fixed => self.most,
            Limit::Drained => self.drain.limit(self.most),
        }
    }

    /// The same for now: a backlog that becomes less is let be.
    fn bound(&self) -> u64 {
        let limit = self.limit();
        self.backlog.map_or(limit, |least| limit.max(least + limit / UNSTEADY_PART))
    }

    /// Lets one more event in, an urgent one always, or says in how many milliseconds it is worth
    /// trying again.
    pub(crate) fn enter(&mut self, now_us: u64, is_urgent: bool) -> Result<(), u64> {
        self.admit(now_us, is_urgent)?;
        self.count();
        Ok(())
    }

    /// Says what `enter` says.
    pub(crate) fn admit(&mut self, now_us: u64, is_urgent: bool) -> Result<(), u64> {
        let bound = self.bound();
        self.refusing |= bound > 0 && !self.blind && self.estimate(now_us) > bound;
        if self.refusing {
            self.refused_us = Some(now_us);
        }
        if self.refusing && !is_urgent { Err(self.hint_ms(now_us)) } else { Ok(()) }
    }

    /// What was admitted is on its way.
    pub(crate) fn count(&mut self) {
        self.entered += 1;
    }

    /// What entered is in the queue, or will not be.
    pub(crate) fn settle(&mut self) {
        self.settled += 1;
    }

    /// How many events are on their way no longer; to be read before a sample is asked for.
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// Takes a sample.
    pub(crate) fn note(&mut self, sample: Sample) {
        let Sample { depth, settled, drained, at_us } = sample;
        let before = std::mem::replace(&mut self.sample, sample);
        let passed_s = at_us.saturating_sub(before.at_us) as f64 / 1e6;
        if before.at_us > 0 && passed_s > 0.0 && !self.blind {
            let left = (before.depth + settled.saturating_sub(before.settled)).saturating_sub(depth);
            let seen_per_s = left as f64 / passed_s;
            // An empty queue shows what came, not what could have been drained.
            if seen_per_s > self.drained_per_s || depth > 0 {
                self.drained_per_s = f64::midpoint(self.drained_per_s, seen_per_s);
            }
        }
        let was_known = self.drain.per_s().is_some();
        self.drain.note(depth, drained, at_us);
        self.blind = false;
        let limit = self.limit();
        self.follow_backlog(depth, self.limit == Limit::Drained && !was_known && self.drain.per_s().is_some());
        let most = if self.refusing { limit * END_TENTHS / 10 } else { self.bound() };
        self.refusing = limit > 0 && depth > most;
        if self.refusing {
            (self.refused_us, self.backlog) = (Some(at_us), None);
        }
    }

    /// What is over a limit that has just become known was let in rightly: while nothing was drained.
    fn follow_backlog(&mut self, depth: u64, begins: bool) {
        let is_over = depth > self.limit() && !self.refusing;
        let least = if begins { Some(depth) } else { self.backlog.map(|least| least.min(depth)) };
        self.backlog = least.filter(|_| is_over);
    }

    /// There was no sample for too long.
    pub(crate) fn lose_sight(&mut self) {
        (self.blind, self.refusing, self.drained_per_s, self.backlog) = (true, false, 0.0, None);
        self.drain.forget();
    }

    /// Whether the limit may be reached soon, or so much waits that it may become a lower one.
    pub(crate) fn is_near(&self, now_us: u64) -> bool {
        let limit = self.limit();
        limit > 0 && (self.refusing || self.estimate(now_us) > (limit / 4).min(self.drain.enough()))
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// The beginning (true) or the end of an overload that is to be told, and the depth at the last sample.
    pub(crate) fn news(&mut self, now_us: u64) -> Option<(bool, u64)> {
        let lately = |at: u64| self.refusing || now_us.saturating_sub(at) < OVER_AFTER_US;
        let is_overloaded = self.refused_us.is_some_and(lately);
        let is_news = std::mem::replace(&mut self.told, is_overloaded) != is_overloaded;
        is_news.then_some((is_overloaded, self.sample.depth))
    }

    /// Whether it was told that an overload has begun, and not yet that it has ended.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.told
    }

    /// When an event that could not be handed over is worth trying again, in milliseconds.
    pub(crate) fn hint_ms(&self, now_us: u64) -> u64 {
        hint_ms(self.estimate(now_us), self.limit(), self.drain.per_s().unwrap_or(self.drained_per_s))
    }

    /// What the last sample showed and what has come from here since, without what should be drained.
    fn estimate(&self, now_us: u64) -> u64 {
        let passed_s = (now_us.saturating_sub(self.sample.at_us) as f64 / 1e6).min(SAMPLE_GOOD_S);
        let come = self.entered.saturating_sub(self.sample.settled);
        (self.sample.depth + come).saturating_sub((self.drained_per_s * passed_s) as u64)
    }
}

/// How long it takes until the queue is well below its limit, in milliseconds: longer the deeper it is,
/// shorter the faster it is drained.
fn hint_ms(depth: u64, limit: u64, drained_per_s: f64) -> u64 {
    let excess = depth.saturating_sub(limit * END_TENTHS / 10) as f64;
    let per_s = drained_per_s.max(limit as f64 / SLOWEST_S).max(1.0);
    (excess / per_s * 1000.0).clamp(HINT_LEAST_MS, HINT_MOST_MS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_hint_grows_with_the_depth_and_shrinks_with_what_is_drained_within_bounds() {
        for drained in [0.0, 10.0, 1_000.0, 100_000.0] {
            let hints: Vec<u64> = (0..2_000).map(|it| hint_ms(it * 100, 50_000, drained)).collect();
            assert!(hints.is_sorted(), "{drained}");
            assert!(hints.iter().all(|hint| (500..=15_000).contains(hint)), "{drained}");
        }
        assert!(hint_ms(60_000, 50_000, 0.0) > hint_ms(52_000, 50_000, 0.0), "also while nothing is drained");
        assert_eq!(hint_ms(60_000, 50_000, 10_000.0), 2_000);
        assert!(hint_ms(60_000, 50_000, 5_000.0) > hint_ms(60_000, 50_000, 10_000.0));
        assert_eq!((hint_ms(0, 0, 0.0), hint_ms(u64::MAX, 10, 0.0)), (500, 15_000));
    }

    fn seen(depth: u64, at_us: u64) -> Sample {
        Sample { depth, at_us, ..Sample::default() }
    }

    #[test]
    fn refusing_begins_over_the_limit_and_ends_well_below_it() {
        let mut line = Line::fixed(1_000);
        for (depth, refuses) in [(1_000, false), (1_001, true), (801, true), (800, false), (1_000, false)] {
            line.note(seen(depth, SECOND));
            assert_eq!(line.is_refusing(), refuses, "{depth}");
        }
    }

    #[test]
    fn a_queue_that_is_slowly_drained_may_be_as_long_as_six_seconds_of_work_whoever_fills_it() {
        // The first brings most of it, the last nothing: they see the same.
        let mut lines = [(); 3].map(|()| Line::one_in(1, 50_000));
        let (mut depth, mut drained, mut deepest) = (0_u64, 0, 0);
        for tenth in 1..600 {
            let now_us = tenth * SECOND / 10;
            for (line, offered) in lines.iter_mut().zip([600, 300, 0]) {
                for _ in 0..offered {
                    if line.enter(now_us, false).is_ok() {
                        line.settle();
                        depth += 1;
                    }
                }
            }
            (depth, drained) = (depth.saturating_sub(200), drained + depth.min(200));
            deepest = depth.max(deepest);
            if tenth % 2 == 0 {
                for line in &mut lines {
                    line.note(Sample { depth, settled: line.settled(), drained: Some(drained), at_us: now_us });
                }
            }
        }
        assert!(deepest < 20_000, "2,000 a second are drained: {deepest}");
        assert!((9_000..=13_500).contains(&depth), "2,000 a second are drained: {depth}");
        for line in &lines {
            assert!((11_500..=12_500).contains(&line.limit()), "{}", line.limit());
        }
    }

    #[test]
    fn whoever_brings_little_gives_the_same_hints_as_whoever_brings_much() {
        let mut lines = [(); 2].map(|()| Line::one_in(1, 50_000));
        for second in 1..20 {
            let (depth, drained) = (30_000, Some(second * 2_000));
            for (line, settled) in lines.iter_mut().zip([second * 2_000, second]) {
                line.note(Sample { depth, settled, drained, at_us: second * SECOND });
            }
        }
        let hints = lines.map(|line| line.hint_ms(19 * SECOND));
        assert_eq!(hints[0], hints[1]);
        assert!((9_500..=10_500).contains(&hints[0]), "twenty thousand too many: {hints:?}");
    }

    #[test]
    fn an_overload_that_comes_and_goes_is_told_once_and_ended_once() {
        let mut line = Line::fixed(100);
        let mut told = Vec::new();
        for second in 1..60 {
            let depth = if second < 20 && second % 2 == 0 { 200 } else { 10 };
            line.note(seen(depth, second * SECOND));
            told.extend(line.news(second * SECOND).map(|(begins, _)| (second, begins)));
        }
        assert_eq!(told, [(2, true), (28, false)]);
    }

    #[test]
    fn what_entered_since_the_sample_counts_until_a_sample_holds_it() {
        let mut line = Line::fixed(100);
        line.note(seen(90, SECOND));
        let entered = (0..20).filter(|_| line.enter(SECOND, false).is_ok()).count();
        assert_eq!(entered, 11, "one over the limit shows that it is reached");
        assert!(line.is_refusing());
        (0..5).for_each(|_| line.settle());
        // Six are on their way still and may not be in the next sample.
        line.note(Sample { settled: line.settled(), ..seen(70, SECOND) });
        assert_eq!((line.is_refusing(), line.estimate(SECOND)), (false, 76));
    }

    #[test]
    fn what_is_drained_between_samples_makes_room() {
        let mut line = Line::fixed(100);
        line.note(seen(0, SECOND));
        for second in 1..20 {
            // A hundred events each tenth of a second come and go.
            let at = SECOND + second * SECOND / 10;
            (0..90).for_each(|_| {
                assert!(line.enter(at, false).is_ok(), "at {second}");
                line.settle();
            });
            line.note(Sample { settled: line.settled(), ..seen(0, at) });
        }
        assert!((line.drained_per_s - 900.0).abs() < 1.0, "{}", line.drained_per_s);
        let later = line.sample.at_us + SECOND / 10;
        let entered = (0..300).filter(|_| line.enter(later, false).is_ok()).count();
        assert!((185..=191).contains(&entered), "the limit and what a tenth drains: {entered}");
    }

    #[test]
    fn without_a_limit_or_without_sight_nothing_is_refused() {
        let mut unlimited = Line::fixed(0);
        unlimited.note(seen(u64::MAX / 2, SECOND));
        assert!(unlimited.enter(SECOND, false).is_ok() && !unlimited.is_near(SECOND));
        let mut blind = Line::fixed(10);
        blind.note(seen(50, SECOND));
        assert!(blind.enter(SECOND, false).is_err());
        blind.lose_sight();
        assert!((0..100).all(|_| blind.enter(SECOND, false).is_ok()));
        blind.note(seen(0, 2 * SECOND));
        assert!(blind.enter(2 * SECOND, false).is_err(), "a hundred are on their way");
    }
}
