//! An event on its way to the broker: an honest QUEUED waits for the confirm.

use broker::{Confirm, PublishError};
use config::defect::{Defect, is_on};
use domain::EventKind;
use protocol::{Refusal, wire};
use runtime::Clock;
use telemetry::{Counter, Histogram};

use crate::load::Entered;

/// An event handed to the broker and not yet confirmed.
#[must_use = "QUEUED may be said only after the confirm"]
pub struct Accepted {
    /// What to answer once the broker has it.
    pub ack: wire::Queued,
    kind: EventKind,
    clock: Clock,
    submitted_us: u64,
    confirm: Confirm,
    entered: Entered,
}

impl Accepted {
    pub(crate) fn new(ack: wire::Queued, kind: EventKind, clock: Clock, confirm: Confirm, entered: Entered) -> Self {
        let submitted_us = clock.monotonic_us();
        Self { ack, kind, clock, submitted_us, confirm, entered }
    }

    /// Waits for the broker, two seconds at most. `UNAVAILABLE` may still have been stored.
    pub async fn confirmed(self) -> Result<wire::Queued, Refusal> {
        if is_on(Defect::AckBeforeConfirm) {
            return Ok(self.ack);
        }
        let outcome = self.confirm.await;
        let refusal = match outcome {
            Ok(()) => {
                let waited_us = self.clock.monotonic_us().saturating_sub(self.submitted_us);
                Histogram::ConfirmSeconds.record(waited_us as f64 / 1e6);
                Counter::EventsAccepted.inc_with(self.kind.as_str());
                return Ok(self.ack);
            }
            Err(PublishError::Unavailable) => Refusal::unavailable(),
            Err(PublishError::Overloaded) => self.entered.overloaded(),
        };
        Err(match &self.ack.client_msg_id {
            Some(name) => refusal.of(name),
            None => refusal,
        })
    }
}
