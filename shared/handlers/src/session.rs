//! What gateways tell one another of sessions: whose device was taken, whose tokens are void.
//!
//! Ends no session itself. The invariant: what is told was done before, so it may be told twice.

use domain::{DeviceId, SessionId, Timestamp, UserId};
use protocol::{Channel, EventData, OpenedDelivery, wire};

use crate::Handlers;
use crate::fanout::Planned;

impl Handlers {
    /// Tells the other gateways that another connection took the place of that session of a device.
    pub async fn announce_device(&self, user: UserId, device: &DeviceId, session: SessionId) {
        let taken = wire::DeviceTaken { device_id: device.to_string(), session_id: session.to_string() };
        let delivery = OpenedDelivery::passing(EventData::DeviceTaken(taken));
        if let Err(error) = self.publish(&[Planned { channel: Channel::User(user), delivery }]).await {
            tracing::warn!(%error, "a device's older connection was not told to go");
        }
    }

    /// Tells the gateways that the user's tokens issued before are void. A word that is lost does no
    /// harm: they look into the store all the time.
    pub async fn announce_revocation(&self, user: UserId, valid_after: Timestamp, blocked: bool) {
        let revoked = wire::SessionRevoked { valid_after_ms: valid_after.0, blocked };
        let delivery = OpenedDelivery::passing(EventData::SessionRevoked(revoked));
        if let Err(error) = self.publish(&[Planned { channel: Channel::User(user), delivery }]).await {
            tracing::warn!(%error, "the end of a user's sessions was not announced");
        }
    }
}
