//! How long it is known what was done, and what follows for events that come later.
//!
//! The invariant: an event is applied only while the receipt is kept that it, applied before, left behind.

use std::time::Duration;

use domain::Timestamp;
use protocol::{BadEnvelope, VerifiedEnvelope};

/// Receipts are kept so much longer than events may be old: by so much clocks may differ, and so long may
/// an event take from here to its commit.
const MARGIN: Duration = Duration::from_hours(1);

/// Passes an event whose receipt, if it has one, is still there. `kept`: how long receipts are; `None`: for ever.
pub(crate) fn check(
    event: VerifiedEnvelope,
    now: Timestamp,
    kept: Option<Duration>,
) -> Result<VerifiedEnvelope, BadEnvelope> {
    let is_too_old = kept.is_some_and(|kept| event.accepted_at < before(now, kept));
    if is_too_old { Err(BadEnvelope::TooOld) } else { Ok(event) }
}

/// From before when receipts, and with them the rooms' logs, may go.
pub(crate) fn receipts_until(now: Timestamp, kept: Duration) -> Timestamp {
    before(now, kept.saturating_add(MARGIN))
}

fn before(now: Timestamp, span: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn a_receipt_outlives_the_age_at_which_its_event_is_applied_no_more() {
        let oldest = before(NOW, DAY);
        assert!(receipts_until(NOW, DAY).plus(MARGIN) <= oldest);
        assert!(receipts_until(NOW, Duration::MAX).0 <= 0, "no overflow");
    }
}
