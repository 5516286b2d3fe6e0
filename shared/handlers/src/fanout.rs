//! What was committed, on its way to the gateways.

use protocol::{Channel, OpenedDelivery, delivery};
use realtime::Outbound;
use telemetry::Counter;

use crate::{Handlers, Unavailable};

/// A delivery and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    pub(crate) channel: Channel,
    pub(crate) delivery: OpenedDelivery,
}

impl Handlers {
    /// Signs and publishes, in order, in one pipelined round.
    pub(crate) async fn publish(&self, planned: &[Planned]) -> Result<(), Unavailable> {
        if planned.is_empty() {
            return Ok(());
        }
        let seal = |planned: &Planned| Outbound {
            channel: planned.channel,
            // Only what the room itself is told belongs into the room's log.
            rev: planned.delivery.rev.filter(|_| matches!(planned.channel, Channel::Room(_))),
            payload: delivery::seal(planned.channel, &planned.delivery, &self.parts.keys),
        };
        let outbound: Vec<Outbound> = planned.iter().map(seal).collect();
        self.realtime().publish(&outbound).await?;
        let rooms = outbound.iter().filter(|out| matches!(out.channel, Channel::Room(_))).count() as u64;
        Counter::DeliveriesPublished.add_with("room", rooms);
        Counter::DeliveriesPublished.add_with("user", outbound.len() as u64 - rooms);
        Ok(())
    }
}
