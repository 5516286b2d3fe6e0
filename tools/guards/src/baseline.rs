//! What paths cost when somebody last agreed to it, and how what they cost now compares.
//!
//! Knows nothing of how it is counted. The invariant: what is dearer is never let through silently.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::callgrind::Cost;

/// By so many per cent a path may differ.
const TOLERANCE: f64 = 2.0;
/// The same for instructions that another compiler wrote: it shows only what is grossly wrong.
const TOLERANCE_ELSEWHERE: f64 = 15.0;

/// What instructions depend on beside the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// As `rustc --version` says it.
    pub compiler: String,
    /// The processor, as programs see it that choose their code by it.
    pub processor: String,
}

/// What each path costs, and where it was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Where.
    pub counted_with: Surroundings,
    /// What.
    pub paths: BTreeMap<String, Cost>,
}

/// How something differs from the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As before.
    Same,
    /// More than is tolerated.
    Dearer,
    /// So much less that the baseline guards nothing any more.
    Cheaper,
    /// It is not in the baseline.
    New,
}

/// One path, before and now.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    name: String,
    figures: Vec<Figure>,
    /// What is to be done about it.
    pub verdict: Verdict,
}

/// One thing of a path that was counted.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    what: &'static str,
    before: Option<f64>,
    now: f64,
    /// How much it may differ.
    within: f64,
}

impl Baseline {
    /// By how many per cent instructions may differ there.
    pub fn tolerance(&self, there: &Surroundings) -> f64 {
        if self.counted_with == *there { TOLERANCE } else { TOLERANCE_ELSEWHERE }
    }

    /// Compares what was counted now.
    pub fn compare(&self, now: &Self) -> Vec<Comparison> {
        let tolerance = self.tolerance(&now.counted_with);
        let compared = now.paths.iter().map(|(name, now)| compare(name, self.paths.get(name), now, tolerance));
        compared.collect()
    }

    /// True when a path is in the baseline alone.
    pub fn has_more_than(&self, now: &Self) -> bool {
        self.paths.keys().any(|name| !now.paths.contains_key(name))
    }
}

fn compare(name: &str, before: Option<&Cost>, now: &Cost, tolerance: f64) -> Comparison {
    let figure = |what, of: fn(&Cost) -> f64, tolerance: f64| {
        let before = before.map(of);
        Figure { what, before, now: of(now), within: before.unwrap_or_default() * tolerance / 100.0 }
    };
    let figures = vec![
        figure("instructions", |cost| cost.instructions as f64, tolerance),
        figure("hashing", |cost| cost.hashing as f64, tolerance),
        figure("allocations", |cost| cost.allocations as f64, 0.0),
        figure("bytes", |cost| cost.bytes as f64, TOLERANCE),
    ];
    let is = |verdict| figures.iter().any(|figure| figure.verdict() == verdict);
    let all = [Verdict::New, Verdict::Dearer, Verdict::Cheaper];
    let verdict = all.into_iter().find(|verdict| is(*verdict)).unwrap_or(Verdict::Same);
    Comparison { name: name.to_owned(), figures, verdict }
}

impl Figure {
    fn verdict(&self) -> Verdict {
        let Some(before) = self.before else { return Verdict::New };
        match self.now - before {
            more if more > self.within => Verdict::Dearer,
            more if more < -self.within => Verdict::Cheaper,
            _ => Verdict::Same,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<17}", self.name)?;
        self.figures.iter().try_for_each(|figure| write!(f, " {figure}"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, now, .. } = self;
        let before = self.before.unwrap_or_default();
        let percent = if before == 0.0 { 0.0 } else { (now / before - 1.0) * 100.0 };
        match self.verdict() {
            Verdict::Same => write!(f, "{now:>9} {what} ({percent:+.1} %)"),
            Verdict::New => write!(f, "{now:>9} {what} (new)"),
            Verdict::Dearer => write!(f, "MORE {what}: {before} -> {now} ({percent:+.1} %)"),
            Verdict::Cheaper => write!(f, "less {what}: {before} -> {now} ({percent:+.1} %)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { instructions: 10_000, hashing: 5_000, allocations: 10, bytes: 1_000 };

    fn baseline(compiler: &str, name: &str, cost: Cost) -> Baseline {
        let counted_with = Surroundings { compiler: compiler.to_owned(), processor: "p".to_owned() };
        Baseline { counted_with, paths: BTreeMap::from([(name.to_owned(), cost)]) }
    }

    fn compared(now: Cost) -> Comparison {
        baseline("r", "send_json", COST).compare(&baseline("r", "send_json", now)).remove(0)
    }

    #[test]
    fn a_little_more_or_less_is_the_same() {
        for now in [
            COST,
            Cost { instructions: 10_200, ..COST },
            Cost { instructions: 9_800, hashing: 5_100, ..COST },
            Cost { bytes: 1_020, ..COST },
            Cost { bytes: 980, ..COST },
        ] {
            assert_eq!(compared(now).verdict, Verdict::Same, "{now:?}");
        }
    }

    #[test]
    fn more_of_one_thing_is_dearer_however_much_less_the_others_are() {
        for now in [
            Cost { instructions: 10_201, ..COST },
            Cost { hashing: 5_101, ..COST },
            Cost { instructions: 5_000, allocations: 11, ..COST },
            Cost { allocations: 1, bytes: 1_021, ..COST },
        ] {
            assert_eq!(compared(now).verdict, Verdict::Dearer, "{now:?}");
        }
    }

    #[test]
    fn much_less_is_told() {
        for now in [Cost { instructions: 9_799, ..COST }, Cost { allocations: 9, ..COST }, Cost { bytes: 0, ..COST }] {
            assert_eq!(compared(now).verdict, Verdict::Cheaper, "{now:?}");
        }
    }

    #[test]
    fn what_another_compiler_wrote_may_differ_more_but_allocates_as_much() {
        let verdict = |now| baseline("r1", "a", COST).compare(&baseline("r2", "a", now))[0].verdict;
        assert_eq!(verdict(Cost { instructions: 11_400, hashing: 4_300, ..COST }), Verdict::Same);
        assert_eq!(verdict(Cost { instructions: 11_600, ..COST }), Verdict::Dearer);
        assert_eq!(verdict(Cost { allocations: 11, ..COST }), Verdict::Dearer);
    }

    #[test]
    fn paths_that_come_and_go_are_seen() {
        let (before, now) = (baseline("r", "a", COST), baseline("r", "b", COST));
        assert_eq!(before.compare(&now)[0].verdict, Verdict::New);
        assert!(before.has_more_than(&now) && !before.has_more_than(&before));
    }

    #[test]
    fn what_is_dearer_is_told_with_its_name_before_now_and_per_cent() {
        let text = compared(Cost { instructions: 11_000, allocations: 12, ..COST }).to_string();
        for part in
            ["send_json", "MORE instructions: 10000 -> 11000 (+10.0 %)", "MORE allocations: 10 -> 12", "5000 hashing"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
