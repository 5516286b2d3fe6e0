//! One path, ready to be gone again and again.
//!
//! Knows nothing of how it is counted. The invariant: only what `operate` does is the path's.

use std::alloc::System;

use serde::{Deserialize, Serialize};
use stats_alloc::StatsAlloc;

/// A path of the product.
pub trait Work {
    /// Makes ready what the next time needs, and checks that the last time did what it is for.
    fn prepare(&mut self);

    /// Goes the path once.
    fn operate(&mut self);
}

/// So often a path is gone before it is counted: tables grow, symbols are bound, caches fill.
const WARM_UP: usize = 64;

/// Goes a path until nothing is done for the first time any more.
pub fn warm_up(work: &mut dyn Work) {
    for _ in 0..WARM_UP {
        work.prepare();
        work.operate();
    }
}

/// What one time allocates inside [`counted`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocated {
    /// How often, growing included.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Goes a path `times` times, each of them inside [`counted`]. What is allocated is that of most times:
/// now and then a table grows, or another thread allocates just then.
pub fn repeat(work: &mut dyn Work, times: usize, allocator: &StatsAlloc<System>) -> Allocated {
    let (mut counts, mut bytes) = (Vec::with_capacity(times), Vec::with_capacity(times));
    for _ in 0..times {
        work.prepare();
        let before = allocator.stats();
        counted(work);
        let new = allocator.stats() - before;
        counts.push((new.allocations + new.reallocations) as u64);
        bytes.push(new.bytes_allocated as u64);
    }
    work.prepare();
    Allocated { count: median(counts), bytes: median(bytes) }
}

fn median(mut figures: Vec<u64>) -> u64 {
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// What is counted: callgrind knows this function by its name.
#[inline(never)]
pub fn counted(work: &mut dyn Work) {
    work.operate();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_now_and_then_is_not_what_one_time_takes() {
        assert_eq!(median(vec![9, 25, 25, 31, 25]), 25);
        assert_eq!(median(Vec::new()), 0);
    }
}
