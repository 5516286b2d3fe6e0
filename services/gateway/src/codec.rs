//! What the server says, as the text of each dialect: encoded once, shared by all receivers.
//!
//! Knows no session and no room. The invariant: a delivery is encoded at most once per dialect,
//! however many sessions get it.

use std::sync::OnceLock;

use bytes::Bytes;
use domain::{Rev, RoomId, UserId};
use protocol::{Ack, EventData, FrameId, OpenedDelivery, Refusal, json, wire};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::transport::socketio;

/// How a connection wraps names and data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `chatchit.v1.json`: `{"event":…,"data":…}`.
    Native,
    /// Socket.IO packets of the namespace `/chat` inside Engine.IO packets.
    SocketIo,
}

impl Dialect {
    /// The transport's name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "websocket",
            Self::SocketIo => "socketio",
        }
    }

    /// An event as text.
    pub(crate) fn event(self, event: &EventData) -> Utf8Bytes {
        let mut out = Vec::with_capacity(256);
        match self {
            Self::Native => json::write_event(event, &mut out),
            Self::SocketIo => socketio::write_event(event, &mut out),
        }
        text(out)
    }

    /// An ack as text. Socket.IO acks by number; a text id cannot come from there.
    pub(crate) fn ack(self, id: &FrameId, ack: &Ack) -> Utf8Bytes {
        let mut out = Vec::with_capacity(160);
        match self {
            Self::Native => json::write_ack(id, ack, &mut out),
            Self::SocketIo => socketio::write_ack(id, ack, &mut out),
        }
        text(out)
    }

    /// A refusal that nobody asked an ack for.
    pub(crate) fn error(self, refusal: Refusal) -> Utf8Bytes {
        self.event(&EventData::Error(wire::Refusal::from(refusal)))
    }
}

/// Both writers produce JSON from UTF-8 strings; anything else would be a bug and becomes nothing.
pub(crate) fn text(out: Vec<u8>) -> Utf8Bytes {
    Utf8Bytes::try_from(Bytes::from(out)).unwrap_or_default()
}

/// A delivery on its way to sessions.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// The room's rev after the change; `None` for what leaves no trace.
    pub(crate) rev: Option<Rev>,
    /// The rev of the last change of members that must have been released before this.
    pub(crate) epoch: Rev,
    /// Whoever must not get it.
    pub(crate) except: Option<UserId>,
    /// What is told.
    pub(crate) event: EventData,
    native: OnceLock<Utf8Bytes>,
    socketio: OnceLock<Utf8Bytes>,
}

impl Delivered {
    pub(crate) fn new(opened: OpenedDelivery) -> Self {
        let OpenedDelivery { rev, epoch, except, event } = opened;
        Self { rev, epoch, except, event, native: OnceLock::new(), socketio: OnceLock::new() }
    }

    /// The text for `dialect`; encoded by whoever asks first.
    pub(crate) fn text(&self, dialect: Dialect) -> Utf8Bytes {
        let slot = match dialect {
            Dialect::Native => &self.native,
            Dialect::SocketIo => &self.socketio,
        };
        slot.get_or_init(|| dialect.event(&self.event)).clone()
    }

    /// True for what a slow client loses first.
    pub(crate) fn is_fleeting(&self) -> bool {
        matches!(self.event, EventData::Typing(_) | EventData::PresenceChanged(_))
    }

    /// Whoever stops being a member with this.
    pub(crate) fn leaver(&self) -> Option<UserId> {
        match &self.event {
            EventData::RoomMemberLeft(left) => left.user_id.parse().ok(),
            _ => None,
        }
    }

    /// The room that `user` begins to follow with this, and from which rev on.
    pub(crate) fn room_entered_by(&self, user: UserId) -> Option<(RoomId, Rev)> {
        match &self.event {
            EventData::RoomCreated(created) => Some((created.room_id.parse().ok()?, Rev(created.rev))),
            EventData::RoomMemberJoined(joined) if joined.user_id.parse() == Ok(user) => {
                Some((joined.room_id.parse().ok()?, Rev(joined.rev)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typing() -> EventData {
        EventData::Typing(wire::Typing { room_id: "r".into(), user_id: "u".into(), is_typing: true })
    }

    #[test]
    fn an_event_has_one_text_in_each_dialect() {
        let expected = r#"{"roomId":"r","userId":"u","isTyping":true}"#;
        assert_eq!(Dialect::Native.event(&typing()).as_str(), format!(r#"{{"event":"typing","data":{expected}}}"#));
        assert_eq!(Dialect::SocketIo.event(&typing()).as_str(), format!(r#"42/chat,["typing",{expected}]"#));
    }

    #[test]
    fn acks_echo_their_id() {
        let ack = Ack::Done(wire::Done { status: "OK".into() });
        let id = FrameId::Number(7);
        assert_eq!(Dialect::Native.ack(&id, &ack).as_str(), r#"{"id":7,"ack":{"status":"OK"}}"#);
        assert_eq!(Dialect::SocketIo.ack(&id, &ack).as_str(), r#"43/chat,7[{"status":"OK"}]"#);
    }

    #[test]
    fn receivers_share_one_encoding() {
        let delivered = Delivered::new(OpenedDelivery { rev: None, epoch: Rev::ZERO, except: None, event: typing() });
        let (one, other) = (delivered.text(Dialect::Native), delivered.text(Dialect::Native));
        assert_eq!(one.as_str().as_ptr(), other.as_str().as_ptr());
    }
}
