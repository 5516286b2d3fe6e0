//! An event on its way to the broker: an honest QUEUED waits for the confirm.

use broker::{Confirm, PublishError};
use config::defect::{Defect, is_on};
use domain::EventKind;
use protocol::{Refusal, wire};
use telemetry::Counter;

use crate::load::Entered;

/// An event handed to the broker and not yet confirmed.
#[must_use = "QUEUED may be said only after the confirm"]
pub struct Accepted {
    /// What to answer once the broker has it.
    pub ack: wire::Queued,
    kind: EventKind,
    confirm: Confirm,
    entered: Entered,
}

impl Accepted {
    pub(crate) fn new(ack: wire::Queued, kind: EventKind, confirm: Confirm, entered: Entered) -> Self {
        Self { ack, kind, confirm, entered }
    }

    /// Waits for the broker, two seconds at most. `UNAVAILABLE` may still have been stored.
    pub async fn confirmed(self) -> Result<wire::Queued, Refusal> {
        if is_on(Defect::AckBeforeConfirm) {
            return Ok(self.ack);
        }
        let outcome = self.confirm.await;
        let refusal = match outcome {
            Ok(()) => {
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
