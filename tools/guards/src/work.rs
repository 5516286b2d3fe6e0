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

/// What was allocated inside [`counted`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocated {
    /// How often, growing included.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Goes a path `times` times, each of them inside [`counted`].
pub fn repeat(work: &mut dyn Work, times: usize, allocator: &StatsAlloc<System>) -> Allocated {
    let mut allocated = Allocated::default();
    for _ in 0..times {
        work.prepare();
        let before = allocator.stats();
        counted(work);
        let new = allocator.stats() - before;
        allocated.count += (new.allocations + new.reallocations) as u64;
        allocated.bytes += new.bytes_allocated as u64;
    }
    work.prepare();
    allocated
}

/// What is counted: callgrind knows this function by its name.
#[inline(never)]
pub fn counted(work: &mut dyn Work) {
    work.operate();
}
