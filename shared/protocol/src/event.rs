//! What the server tells: the names of its events.

use crate::EventData;
use crate::wire::ServerEvent;

/// The name under which an event stands in the protocol.
pub fn name(event: &EventData) -> &'static str {
    match event {
        EventData::SessionReady(_) => "session.ready",
        EventData::AuthExpiring(_) => "auth.expiring",
        EventData::ServerDraining(_) => "server.draining",
        EventData::Error(_) => "error",
        EventData::DeviceTaken(_) => "session.deviceTaken",
        EventData::SessionRevoked(_) => "session.revoked",
        EventData::MessageDelivered(_) => "message.delivered",
        EventData::MessageFailed(_) => "message.failed",
        EventData::MessageEdited(_) => "message.edited",
        EventData::MessageDeleted(_) => "message.deleted",
        EventData::MessageReaction(_) => "message.reaction",
        EventData::MessageRead(_) => "message.read",
        EventData::RoomCreated(_) => "room.created",
        EventData::RoomUpdated(_) => "room.updated",
        EventData::RoomMemberJoined(_) => "room.memberJoined",
        EventData::RoomMemberLeft(_) => "room.memberLeft",
        EventData::RoomsBeacon(_) => "rooms.beacon",
        EventData::Typing(_) => "typing",
        EventData::PresenceChanged(_) => "presence.changed",
    }
}

impl From<EventData> for ServerEvent {
    fn from(kind: EventData) -> Self {
        Self { kind: Some(kind) }
    }
}
