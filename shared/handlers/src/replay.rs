//! What a gateway missed: from the room's short log while it reaches that far, else from the store.

use domain::{Rev, RoomId};
use protocol::{Channel, OpenedDelivery, delivery};
use telemetry::Counter;

use crate::apply::unavailable;
use crate::{Handlers, Unavailable};

/// Changes read from the store in one go.
const PAGE: usize = 500;

impl Handlers {
    /// The room's deliveries after `after` (up to `up_to` if given), ascending and without a gap.
    pub async fn replay(
        &self,
        room: RoomId,
        after: Rev,
        up_to: Option<Rev>,
    ) -> Result<Vec<OpenedDelivery>, Unavailable> {
        if let Some(from_log) = self.replay_from_log(room, after).await
            && from_log.last().and_then(|last| last.rev) >= up_to
        {
            Counter::GapsFilled.inc_with("log");
            return Ok(from_log);
        }
        let mut deliveries: Vec<OpenedDelivery> = Vec::new();
        let mut position = after;
        loop {
            let page = self.store().after_rev(room, position, PAGE).await.map_err(|error| unavailable(&error))?;
            let is_last = page.len() < PAGE;
            for entry in page {
                position = entry.rev;
                deliveries.push(OpenedDelivery {
                    rev: Some(entry.rev),
                    epoch: entry.epoch,
                    except: None,
                    event: entry.event,
                });
            }
            if is_last || up_to.is_some_and(|up_to| position >= up_to) {
                Counter::GapsFilled.inc_with("store");
                return Ok(deliveries);
            }
        }
    }

    /// The log's part after `after` if it is whole and genuine. Trouble with the log is no trouble:
    /// the store has everything.
    async fn replay_from_log(&self, room: RoomId, after: Rev) -> Option<Vec<OpenedDelivery>> {
        let payloads = self.realtime().room_log(room, after).await.ok()??;
        let mut deliveries = Vec::with_capacity(payloads.len());
        let mut expected = after;
        for payload in payloads {
            let delivery = delivery::open(Channel::Room(room), &payload, &self.parts.keys)?;
            expected = expected.next();
            if delivery.rev != Some(expected) {
                return None;
            }
            deliveries.push(delivery);
        }
        Some(deliveries)
    }
}
