//! Queues that are looked at five times a second, and processors that tell four times a second what they did.

use super::*;

const MOST: u64 = 50_000;

struct Scene {
    drain: Drain,
    depth: f64,
    settled: f64,
    /// What the processors have told; `None`: that cannot be read.
    told: Option<u64>,
    unreadable: bool,
    tick: u64,
}

impl Default for Scene {
    fn default() -> Self {
        Self::one_in(1)
    }
}

impl Scene {
    fn one_in(shards: u16) -> Self {
        let drain = Drain::of_one_in(shards);
        Self { drain, depth: 0.0, settled: 0.0, told: None, unreadable: false, tick: 0 }
    }

    /// For some seconds so many come and so many can be drained, a second; what it ends with.
    fn pass(&mut self, seconds: u64, come: f64, drained: f64) -> u64 {
        self.pass_ticks(seconds * 20, come, drained)
    }

    /// The same for so many times 50 ms.
    fn pass_ticks(&mut self, ticks: u64, come: f64, drained: f64) -> u64 {
        for _ in 0..ticks {
            self.tick += 1;
            self.depth += come / 20.0;
            let settled = self.depth.min(drained / 20.0);
            (self.depth, self.settled) = (self.depth - settled, self.settled + settled);
            if self.tick.is_multiple_of(5) {
                self.told = Some(self.settled as u64);
            }
            if self.tick.is_multiple_of(4) {
                let total = self.told.filter(|_| !self.unreadable);
                self.drain.note(self.depth as u64, total, self.tick * 50_000);
            }
        }
        self.drain.limit(MOST)
    }
}

#[test]
fn six_seconds_of_work_may_wait_and_no_more_than_the_operator_allows() {
    for (drained, limit) in [(2_000.0, 12_000), (20_000.0, MOST), (100.0, LEAST)] {
        let found = Scene::default().pass(6, drained * 1.5 + 2_000.0, drained);
        assert!(found.abs_diff(limit) <= limit / 8, "{drained}: {found}");
    }
    assert_eq!(Scene::default().drain.limit(300), 300);
    let mut small = Scene::default();
    small.pass(5, 3_000.0, 10.0);
    assert_eq!(small.drain.limit(300), 300, "the operator's is smaller than the least");
}

#[test]
fn it_is_known_two_seconds_after_events_begin_to_wait() {
    let mut scene = Scene::default();
    assert_eq!(scene.pass(60, 900.0, 1_000.0), MOST, "nothing waits, nothing is known");
    let limit = scene.pass(2, 3_000.0, 1_000.0);
    assert!((5_000..=7_000).contains(&limit), "{limit}");
    assert!(scene.depth < limit as f64, "at three times what is drained before the limit is reached");
}

#[test]
fn a_stall_leaves_the_limit_as_it_was_and_then_lifts_it() {
    let mut scene = Scene::default();
    let before = scene.pass(5, 3_000.0, 1_000.0);
    assert_eq!(scene.pass(4, 500.0, 0.0), before);
    assert_eq!(scene.pass(2, 500.0, 0.0), MOST);
    assert_eq!(scene.pass(60, 500.0, 0.0), MOST);
    let back = scene.pass(5, 800.0, 1_000.0);
    assert!((5_000..=7_000).contains(&back), "{back}");
}

#[test]
fn totals_that_cannot_be_read_leave_the_limit_as_it_was_and_then_lift_it() {
    let mut scene = Scene::default();
    let before = scene.pass(5, 3_000.0, 1_000.0);
    scene.unreadable = true;
    assert_eq!(scene.pass(4, 500.0, 0.0), before);
    assert_eq!(scene.pass(60, 500.0, 0.0), MOST);
}

#[test]
fn an_outage_never_makes_it_smaller_be_it_in_quiet_or_in_busy_times() {
    for come in [500.0, 1_900.0, 20_000.0] {
        // At any moment between two words of the processors and between two looks.
        for ticks in 600..620 {
            let mut scene = Scene::default();
            scene.pass_ticks(ticks, come, 21_000.0);
            for second in 0..90 {
                assert_eq!(scene.pass(1, come, 0.0), MOST, "{come} a second, after {second} s");
            }
        }
    }
}

#[test]
fn what_stood_still_is_no_slow_work() {
    for (begun, stalled) in (8..40).flat_map(|begun| (20..120).step_by(3).map(move |stalled| (begun, stalled))) {
        let mut scene = Scene::default();
        scene.pass_ticks(begun, 40_000.0, 20_000.0);
        scene.pass_ticks(stalled, 1_000.0, 0.0);
        for _ in 0..60 {
            assert_eq!(scene.pass_ticks(1, 21_000.0, 20_000.0), MOST, "{begun} ticks, then {stalled} without work");
        }
    }
}

#[test]
fn where_few_wait_nothing_is_known_of_what_could_be_drained() {
    let mut scene = Scene { depth: 450.0, ..Scene::default() };
    for second in 0..30 {
        assert_eq!(scene.pass(1, 100.0, 100.0), MOST, "after {second} s");
    }
}

#[test]
fn a_short_stall_at_the_beginning_is_no_slow_work_either() {
    for (begun, stalled) in (8..20).flat_map(|begun| (20..79).map(move |stalled| (begun, stalled))) {
        let mut scene = Scene { depth: 1_000.0, ..Scene::default() };
        scene.pass_ticks(begun, 1_000.0, 1_000.0);
        scene.pass_ticks(stalled, 1_000.0, 0.0);
        for _ in 0..60 {
            let limit = scene.pass_ticks(1, 1_000.0, 1_000.0);
            assert!(limit > 4_500, "{begun} ticks, then {stalled} without work: {limit}");
        }
    }
}

#[test]
fn slow_work_in_large_portions_is_known_after_a_while_and_that_of_a_shard_may_be_slower() {
    // A batch of 200 every three seconds.
    let mut scene = Scene { depth: 1_000.0, ..Scene::one_in(4) };
    let limits = (0..10).map(|_| {
        scene.pass_ticks(59, 70.0, 0.0);
        scene.pass_ticks(1, 70.0, 4_000.0)
    });
    let limits: Vec<u64> = limits.collect();
    assert_eq!(limits[..2], [MOST; 2]);
    assert!(limits[5..].iter().all(|limit| limit.abs_diff(400) < 50), "{limits:?}");
    assert_eq!([1, 2, 4, 64].map(|shards| Drain::of_one_in(shards).least), [1_000, 500, 250, 250]);
}

#[test]
fn a_short_stall_makes_it_little_smaller() {
    for ticks in 1..40 {
        let mut scene = Scene::default();
        let before = scene.pass(20, 2_000.0, 1_000.0);
        scene.pass_ticks(ticks, 1_000.0, 0.0);
        let after = scene.pass(2, 1_000.0, 1_000.0);
        assert!(after > before * 8 / 10, "{ticks}: {after} of {before}");
    }
}

#[test]
fn totals_that_were_lost_teach_nothing() {
    let mut scene = Scene::default();
    let before = scene.pass(5, 3_000.0, 1_000.0);
    for _ in 0..5 {
        (scene.settled, scene.told) = (0.0, Some(0));
        let after = scene.pass_ticks(11, 1_000.0, 1_000.0);
        assert!(after.abs_diff(before) <= before / 8, "{after} of {before}");
    }
}

#[test]
fn it_follows_slower_and_faster_consumers_in_time() {
    let mut scene = Scene::default();
    scene.pass(5, 6_000.0, 4_000.0);
    let slower = scene.pass(20, 1_200.0, 1_000.0);
    assert!((6_000..9_000).contains(&slower), "{slower}");
    let faster = scene.pass(5, 3_000.0, 3_000.0);
    assert!((16_000..21_000).contains(&faster), "{faster}");
}

#[test]
fn what_is_settled_in_large_portions_is_followed_too() {
    // A hundred every second, where a thousand wait.
    let mut scene = Scene { depth: 1_000.0, ..Scene::default() };
    for _ in 0..20 {
        scene.pass_ticks(19, 100.0, 0.0);
        scene.pass_ticks(1, 100.0, 2_000.0);
    }
    assert_eq!(scene.drain.limit(MOST), LEAST);
}
