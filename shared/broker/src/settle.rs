//! What becomes of an event that failed; the same rule on both engines.
//!
//! Pure. The invariant: an event climbs the ladder one step per failure of its own.

use domain::retry::{self, Step};

use crate::{Failure, Incoming};

/// The step of the ladder an event takes that failed; `None`: it is given up.
pub(crate) fn next_step(incoming: &Incoming, failure: &Failure) -> Option<Step> {
    if failure.retry { retry::next_step(incoming.failures.saturating_add(1)) } else { None }
}
