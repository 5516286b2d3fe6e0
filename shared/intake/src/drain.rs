//! How much of a queue is drained, and how long a queue that allows: what waits is to be worked off within
//! seconds.
//!
//! Pure: the samples come from outside. The invariants: no estimate makes the limit smaller than
//! `LEAST` or larger than what the operator allows; and where nothing is drained at all, because a
//! dependency is away, it ends, so that an outage is bridged as far as the operator allows.

/// A queue may be so many seconds of work long.
const WORK_S: f64 = 6.0;
/// The limit is never below this, or an idle system would refuse what comes at once.
pub(crate) const LEAST: u64 = 1_000;
/// What is drained shows only while so many wait all the time; else it shows what came.
const ENOUGH: u64 = LEAST / 2;
/// Long enough for what consumers take and give back in portions to even out.
const WINDOW_US: u64 = 1_000_000;
/// Over so much time without a look nothing is measured.
const GAP_US: u64 = 5 * WINDOW_US;
/// So long after something was seen to be drained last, it is forgotten.
const KNOWN_US: u64 = 10 * WINDOW_US;
/// Less than this part of what is known looks like a dependency that is away, and teaches nothing.
const STALLED: f64 = 0.05;
/// What is believed of a window that is slower than what is known: a process sees only its own events
/// come, so that others' hide some of what is drained while they are let in.
const SLOWER: f64 = 0.125;

/// How many events of this process had come into the queue when it was looked at: that is known within
/// bounds, because some are on their way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Come {
    /// Confirmed before the look.
    pub(crate) least: u64,
    /// On their way or confirmed after it.
    pub(crate) most: u64,
}

/// Where a window begins.
#[derive(Debug, Clone, Copy)]
struct Begin {
    depth: u64,
    /// At most so many had come.
    come: u64,
    at_us: u64,
    /// Nothing has been let in since: nor has it elsewhere, where the same is seen.
    refused: bool,
}

/// What is known of a queue's consumers.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    window: Option<Begin>,
    per_s: Option<f64>,
    seen_us: u64,
}

impl Drain {
    /// Takes a sample: how many wait, and how many of ours had come. What is drained is rather believed to
    /// be less: of what is on its way nobody knows on which side of a look it came. `refused`: none has been
    /// let in since the last sample.
    pub(crate) fn note(&mut self, depth: u64, come: Come, at_us: u64, refused: bool) {
        let here = (depth >= ENOUGH).then_some(Begin { depth, come: come.most, at_us, refused: true });
        if let Some(begin) = &mut self.window {
            begin.refused &= refused;
        }
        let passed_us = self.window.map_or(0, |begin| at_us.saturating_sub(begin.at_us));
        if passed_us > GAP_US || here.is_none() || self.window.is_none() {
            self.window = here;
        } else if passed_us >= WINDOW_US
            && let Some(begin) = std::mem::replace(&mut self.window, here)
        {
            let come = come.least.saturating_sub(begin.come);
            let drained = (begin.depth + come).saturating_sub(depth);
            // Whoever brings little sees how the others' events come and go, not how fast they go.
            if begin.refused || come * 2 >= drained {
                self.learn(drained as f64 / (passed_us as f64 / 1e6), at_us);
            }
        }
        if at_us.saturating_sub(self.seen_us) > KNOWN_US {
            self.per_s = None;
        }
    }

    fn learn(&mut self, per_s: f64, at_us: u64) {
        let known = self.per_s.unwrap_or(0.0);
        if per_s < 1.0 || per_s < known * STALLED {
            return;
        }
        self.seen_us = at_us;
        self.per_s = Some(match self.per_s {
            None => per_s,
            Some(known) if per_s > known => f64::midpoint(known, per_s),
            Some(known) => known + (per_s - known) * SLOWER,
        });
    }

    /// How many may wait; `most`: as the operator says.
    pub(crate) fn limit(&self, most: u64) -> u64 {
        self.per_s.map_or(most, |per_s| ((per_s * WORK_S) as u64).max(LEAST).min(most))
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 50_000;

    /// A queue that is looked at five times a second.
    #[derive(Default)]
    struct Scene {
        drain: Drain,
        depth: f64,
        settled: u64,
        others: f64,
        refused: bool,
        at_us: u64,
    }

    impl Scene {
        /// For some seconds so many come from here and so many are drained, a second; what it ends with.
        fn pass(&mut self, seconds: u64, come: f64, drained: f64) -> u64 {
            for _ in 0..seconds * 5 {
                self.at_us += 200_000;
                self.settled += (come / 5.0) as u64;
                self.depth = (self.depth + (come + self.others - drained) / 5.0).max(0.0);
                let come = Come { least: self.settled, most: self.settled };
                self.drain.note(self.depth as u64, come, self.at_us, self.refused);
            }
            self.drain.limit(MOST)
        }
    }

    #[test]
    fn six_seconds_of_work_may_wait_and_no_more_than_the_operator_allows() {
        for (drained, limit) in [(2_000.0, 12_000), (20_000.0, MOST), (100.0, LEAST)] {
            let found = Scene::default().pass(5, drained * 1.5 + 2_000.0, drained);
            assert!(found.abs_diff(limit) <= limit / 50, "{drained}: {found}");
        }
        assert_eq!(Scene::default().drain.limit(300), 300);
        let mut small = Scene::default();
        small.pass(5, 3_000.0, 10.0);
        assert_eq!(small.drain.limit(300), 300, "the operator's is smaller than the least");
    }

    #[test]
    fn it_is_known_a_second_after_events_begin_to_wait() {
        let mut scene = Scene::default();
        assert_eq!(scene.pass(60, 900.0, 1_000.0), MOST, "nothing waits, nothing is known");
        let limit = scene.pass(2, 3_000.0, 1_000.0);
        assert!((5_900..=6_100).contains(&limit), "{limit}");
        assert!(scene.depth < limit as f64);
    }

    #[test]
    fn a_stall_leaves_the_limit_as_it_was_and_then_lifts_it() {
        let mut scene = Scene::default();
        let before = scene.pass(5, 3_000.0, 1_000.0);
        let stalled = scene.pass(5, 500.0, 0.0);
        assert!((before * 9 / 10..=before).contains(&stalled), "{stalled}");
        assert_eq!(scene.pass(10, 500.0, 0.0), MOST);
        assert_eq!(scene.pass(60, 500.0, 0.0), MOST);
        let back = scene.pass(5, 800.0, 1_000.0);
        assert!((5_000..=6_100).contains(&back), "{back}");
    }

    #[test]
    fn an_outage_in_quiet_times_never_makes_it_smaller() {
        let mut scene = Scene::default();
        scene.pass(30, 500.0, 2_000.0);
        for second in 0..90 {
            assert_eq!(scene.pass(1, 500.0, 0.0), MOST, "after {second} s");
        }
    }

    #[test]
    fn it_follows_slower_consumers_in_time() {
        let mut scene = Scene::default();
        scene.pass(5, 6_000.0, 4_000.0);
        let slower = scene.pass(20, 1_200.0, 1_000.0);
        assert!((6_000..9_000).contains(&slower), "{slower}");
    }

    #[test]
    fn what_others_bring_hides_some_of_it_until_all_refuse() {
        let mut scene = Scene { others: 600.0, ..Scene::default() };
        let hidden = scene.pass(5, 3_000.0, 1_000.0);
        assert!((LEAST..3_000).contains(&hidden), "{hidden}");
        (scene.others, scene.refused) = (0.0, true);
        let seen = scene.pass(5, 0.0, 1_000.0);
        assert!((5_000..=6_100).contains(&seen), "{seen}");
    }

    #[test]
    fn who_brings_little_learns_nothing_of_those_who_bring_much() {
        let mut scene = Scene { others: 900.0, depth: 5_000.0, ..Scene::default() };
        for second in 0..30 {
            assert_eq!(scene.pass(1, 20.0, 1_000.0), MOST, "after {second} s");
        }
    }

    #[test]
    fn what_is_on_its_way_at_a_look_does_not_look_like_work() {
        let mut drain = Drain::default();
        for look in 1..50 {
            let least = look * 200;
            // Of three hundred that were on their way some were there already, now more, now less.
            let depth = least + look * 137 % 300;
            drain.note(depth, Come { least, most: least + 300 }, look * 200_000, false);
        }
        assert_eq!(drain.limit(MOST), MOST, "nothing was drained");
    }
}
