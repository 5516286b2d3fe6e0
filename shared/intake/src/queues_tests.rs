//! Queues that are looked at five times a second, and processors that tell four times a second what they did.

use super::*;

const MOST: u64 = 50_000;

/// The queue of one shard, what comes into it and what can be drained of it, a second.
#[derive(Debug, Clone, Copy, Default)]
struct Shard {
    come: f64,
    could: f64,
    due: f64,
    depth: f64,
    settled: f64,
    told: u64,
    refused: u64,
}

struct Scene {
    queues: Queues,
    shards: Vec<Shard>,
    tick: u64,
    /// The last hint that was given.
    hint_ms: u64,
}

impl Scene {
    /// So much comes into each shard, and so much can be drained of it, a second.
    fn new(shards: &[(f64, f64)]) -> Self {
        let queues = Queues::new(shards.len() as u16, MOST);
        let shards = shards.iter().map(|(come, could)| Shard { come: *come, could: *could, ..Shard::default() });
        Self { queues, shards: shards.collect(), tick: 0, hint_ms: 0 }
    }

    /// So many times 50 ms pass.
    fn pass_ticks(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.tick += 1;
            let now_us = self.tick * 50_000;
            for (number, shard) in (0..).zip(&mut self.shards) {
                shard.due += shard.come / 20.0;
                while shard.due >= 1.0 {
                    shard.due -= 1.0;
                    match self.queues.enter(number, now_us, false) {
                        Ok(()) => {
                            self.queues.settle(number);
                            shard.depth += 1.0;
                        }
                        Err(hint_ms) => (self.hint_ms, shard.refused) = (hint_ms, shard.refused + 1),
                    }
                }
                let settled = shard.depth.min(shard.could / 20.0);
                (shard.depth, shard.settled) = (shard.depth - settled, shard.settled + settled);
                if self.tick.is_multiple_of(5) {
                    shard.told = shard.settled as u64;
                }
            }
            if self.tick.is_multiple_of(4) {
                self.look(now_us);
            }
        }
    }

    fn look(&mut self, at_us: u64) {
        let settled = self.queues.settled();
        let sample = |(shard, settled): (&Shard, u64)| {
            let (depth, drained) = (shard.depth as u64, Some(shard.told));
            Sample { depth, settled, drained, at_us }
        };
        let samples: Vec<Sample> = self.shards.iter().zip(settled).map(sample).collect();
        self.queues.note(&samples);
    }

    fn pass(&mut self, seconds: u64) {
        self.pass_ticks(20 * seconds);
    }

    /// For some seconds nothing is drained of the first shards.
    fn hang(&mut self, shards: usize, seconds: u64) {
        let could: Vec<f64> = self.shards.iter().map(|shard| shard.could).collect();
        self.shards[..shards].iter_mut().for_each(|shard| shard.could = 0.0);
        self.pass(seconds);
        self.shards.iter_mut().zip(could).for_each(|(shard, could)| shard.could = could);
    }

    fn refused(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.refused).collect()
    }

    fn depth(&self) -> f64 {
        self.shards.iter().map(|shard| shard.depth).sum()
    }
}

#[test]
fn while_a_processor_hangs_nobody_is_refused_nor_afterwards_whatever_the_load() {
    // Of a fifth to nine tenths of what can be done; the last is worked off for minutes.
    for part in [0.2, 0.5, 0.7, 0.9] {
        for (hanging, seconds) in [(1, 12), (2, 12), (4, 12), (1, 30), (2, 4), (2, 3)] {
            for begun in 200..208 {
                let mut scene = Scene::new(&[(500.0 * part, 500.0); 4]);
                scene.pass_ticks(begun);
                scene.hang(hanging, seconds);
                scene.pass(2 * seconds + 5);
                assert_eq!(scene.refused(), [0; 4], "{part} of the capacity, {hanging} shards for {seconds} s");
            }
        }
    }
}

#[test]
fn a_processor_that_hangs_again_and_again_makes_nobody_be_refused() {
    let mut scene = Scene::new(&[(250.0, 1_000.0); 4]);
    for _ in 0..10 {
        scene.pass(10);
        scene.hang(2, 12);
    }
    assert_eq!(scene.refused(), [0; 4]);
}

#[test]
fn a_hang_where_the_limit_is_known_lifts_it_before_it_is_reached() {
    let mut scene = Scene::new(&[(450.0, 500.0); 2]);
    scene.shards.iter_mut().for_each(|shard| shard.depth = 450.0);
    scene.pass(4);
    assert_eq!(scene.queues.limit(0), 3_000);
    scene.hang(1, 12);
    assert_eq!((scene.queues.limit(0), scene.refused()), (MOST, vec![0, 0]));
}

#[test]
fn over_capacity_six_seconds_of_work_wait_in_each_shard_and_hints_follow_the_depth() {
    for part in [1.3, 3.0] {
        let mut scene = Scene::new(&[(500.0 * part, 500.0); 4]);
        scene.pass(60);
        assert!(scene.refused().iter().all(|refused| *refused > 1_000), "{:?}", scene.refused());
        assert!((9_000.0..=13_500.0).contains(&scene.depth()), "2,000 a second are drained: {}", scene.depth());
        let near = scene.hint_ms;
        assert!((500..2_500).contains(&near), "well below the limit before long: {near}");
        // It becomes less, and the load ends: nobody is refused soon.
        scene.shards.iter_mut().for_each(|shard| shard.come = 100.0);
        scene.pass(3);
        let before = scene.refused();
        scene.pass(20);
        assert_eq!(scene.refused(), before);
        assert!(scene.depth() < 100.0);
    }
}

#[test]
fn a_hang_during_an_overload_bridges_and_then_it_is_limited_again() {
    let mut scene = Scene::new(&[(1_500.0, 500.0); 2]);
    scene.pass(20);
    scene.hang(1, 12);
    assert_eq!(scene.queues.limit(0), MOST);
    assert!((2_500..3_500).contains(&scene.queues.limit(1)), "{}", scene.queues.limit(1));
    let before = scene.refused();
    scene.pass(5);
    let since: Vec<u64> = scene.refused().iter().zip(before).map(|(now, before)| now - before).collect();
    assert!(since.iter().all(|refused| *refused > 1_000), "{since:?}");
}

#[test]
fn one_shard_that_gets_too_much_is_limited_by_itself() {
    let mut scene = Scene::new(&[(2_000.0, 500.0), (400.0, 500.0), (400.0, 500.0), (400.0, 500.0)]);
    scene.pass(30);
    assert!(scene.refused()[0] > 10_000);
    assert_eq!(scene.refused()[1..], [0; 3], "the rooms of the others");
    assert!((2_000.0..=3_500.0).contains(&scene.shards[0].depth), "six seconds of its own: {:?}", scene.shards[0]);
}

#[test]
fn all_together_have_no_more_than_the_operator_allows() {
    let mut scene = Scene::new(&[(5_000.0, 0.0); 4]);
    scene.pass(10);
    assert!((MOST as f64..MOST as f64 + 4.0).contains(&scene.depth()), "{}", scene.depth());
    let deep = scene.hint_ms;
    assert!(scene.queues.is_refusing() && scene.refused().iter().all(|refused| *refused > 30_000), "everywhere");
    // It is drained, and the hint becomes smaller.
    scene.shards.iter_mut().for_each(|shard| (shard.come, shard.could) = (100.0, 500.0));
    scene.pass(4);
    assert!(scene.hint_ms < deep, "{} of {deep}", scene.hint_ms);
    let mut unlimited = Queues::new(4, 0);
    unlimited.note(&[Sample { depth: 1_000_000, at_us: 1, ..Sample::default() }; 4]);
    assert!(unlimited.enter(3, 2, false).is_ok());
}

#[test]
fn a_single_shard_is_told_of_once() {
    let mut queues = Queues::new(1, 1_000);
    queues.note(&[Sample { depth: 1_001, at_us: 1, ..Sample::default() }]);
    let news = queues.news(1);
    assert_eq!(news, [News { shard: Some(0), begins: true, depth: 1_001, limit: 1_000 }]);
    assert!(queues.is_overloaded() && queues.news(2).is_empty());
}
