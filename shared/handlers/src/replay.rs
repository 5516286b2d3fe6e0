//! What a gateway missed: from the room's short log while it reaches that far, else from the store.

use domain::{Rev, RoomId};
use protocol::OpenedDelivery;
use realtime::LogAsked;
use store::StoreError;
use telemetry::Counter;

use crate::apply::unavailable;
use crate::{Handlers, Unavailable};

/// Entries of the log read in one go, and how much they may weigh.
const LOG_PAGE: usize = 32;
const LOG_BYTES: usize = 8 * 1024 * 1024;
/// Changes read from the store in one go, and how much they may weigh.
const PAGE: usize = 500;
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Pages in one answer.
const PAGES: usize = 4;

impl Handlers {
    /// The room's deliveries after `after`, ascending and without a gap: as many as fit into a few
    /// MiB, at least one if there are any. Who wants all up to `up_to` asks again from the last one;
    /// it may go further than that. `None`: what follows `after` is not kept any more.
    pub async fn replay(
        &self,
        room: RoomId,
        after: Rev,
        up_to: Rev,
    ) -> Result<Option<Vec<OpenedDelivery>>, Unavailable> {
        if let Some(from_log) = self.replay_from_log(room, after).await
            && !from_log.is_empty()
        {
            Counter::GapsFilled.inc_with("log");
            return Ok(Some(from_log));
        }
        let mut deliveries: Vec<OpenedDelivery> = Vec::new();
        let mut position = after;
        for _ in 0..PAGES {
            let page = match self.store().after_rev_within(room, position, PAGE, PAGE_BYTES).await {
                Err(StoreError::TooOld) => return Ok(None),
                page => page.map_err(|error| unavailable(&error))?,
            };
            let is_last = page.is_empty();
            for entry in page {
                position = entry.rev;
                deliveries.push(OpenedDelivery {
                    rev: Some(entry.rev),
                    epoch: entry.epoch,
                    except: None,
                    event: entry.event,
                });
            }
            if is_last || position >= up_to {
                break;
            }
        }
        Counter::GapsFilled.inc_with("store");
        Ok(Some(deliveries))
    }

    /// The log's first part after `after` if it is whole and genuine. Trouble with the log is no
    /// trouble: the store has everything.
    async fn replay_from_log(&self, room: RoomId, after: Rev) -> Option<Vec<OpenedDelivery>> {
        let asked = LogAsked { room, after, limit: LOG_PAGE };
        let payloads = self.realtime().room_logs(&[asked], LOG_BYTES).await.ok()?.pop()??;
        self.open_all(room, after, &payloads)
    }
}
