//! What becomes of an event that failed; the same rule on both engines.
//!
//! Pure. The invariant: an event climbs the ladder one step per failure of its own, and only by failures that
//! may pass and count.

use domain::FailureKind;
use domain::retry::{self, Step};

use crate::{Failure, Incoming};

/// How often an event failed that failed once more.
pub(crate) fn failures(incoming: &Incoming, failure: &Failure) -> u32 {
    incoming.failures.saturating_add(u32::from(failure.counts))
}

/// The step of the ladder an event takes that failed; `None`: it is given up.
pub(crate) fn next_step(incoming: &Incoming, failure: &Failure) -> Option<Step> {
    match failure.cause.kind() {
        FailureKind::Retry => retry::next_step(failures(incoming, failure).max(1)),
        FailureKind::Never | FailureKind::Bug => None,
    }
}
