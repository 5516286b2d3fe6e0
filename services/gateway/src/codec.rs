//! What the server says, as each dialect writes it: encoded once, shared by all receivers.
//!
//! Knows no session and no room. The invariant: a delivery is encoded at most once per dialect,
//! however many sessions get it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::OnceLock;

use bytes::Bytes;
use domain::{Rev, RoomId, UserId};
use protocol::{Ack, ClientFrame, CloseCode, EventData, FrameId, OpenedDelivery, Refusal, binary, json, wire};
use realtime::LogNumber;
use transport::{Frame, Received};

use crate::handle::outbox::Topic;
use crate::socketio;

/// How a connection wraps names and data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `chatchit.v1.json`: `{"event":…,"data":…}`.
    Native,
    /// `chatchit.v1.protobuf`: the frames of `proto/chat/v1/frame.proto`.
    Protobuf,
    /// Socket.IO packets of the namespace `/chat` inside Engine.IO packets.
    SocketIo,
}

impl Dialect {
    /// The subprotocols of the native socket, the first one by default.
    pub(crate) const SUBPROTOCOLS: [&'static str; 2] = ["chatchit.v1.json", "chatchit.v1.protobuf"];

    /// What is spoken under a subprotocol.
    pub(crate) fn of_subprotocol(name: Option<&str>) -> Self {
        if name == Some(Self::SUBPROTOCOLS[1]) { Self::Protobuf } else { Self::Native }
    }

    /// The transport's name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Native | Self::Protobuf => "websocket",
            Self::SocketIo => "socketio",
        }
    }

    /// True for the native socket, whatever its subprotocol.
    pub(crate) const fn is_native(self) -> bool {
        !matches!(self, Self::SocketIo)
    }

    /// An event as bytes.
    pub(crate) fn event(self, event: &EventData) -> Bytes {
        let mut out = Vec::with_capacity(256);
        match self {
            Self::Native => json::write_event(event, &mut out),
            Self::Protobuf => binary::write_event(event, &mut out),
            Self::SocketIo => socketio::write_event(event, None, &mut out),
        }
        shrunk(out)
    }

    /// An ack as bytes. Socket.IO acks by number; a text id cannot come from there.
    pub(crate) fn ack(self, id: &FrameId, ack: &Ack) -> Bytes {
        let mut out = Vec::with_capacity(160);
        match self {
            Self::Native => json::write_ack(id, ack, &mut out),
            Self::Protobuf => binary::write_ack(id, ack, &mut out),
            Self::SocketIo => socketio::write_ack(id, ack, &mut out),
        }
        shrunk(out)
    }

    /// A refusal that nobody asked an ack for.
    pub(crate) fn error(self, refusal: Refusal) -> Bytes {
        self.event(&EventData::Error(wire::Refusal::from(refusal)))
    }

    /// Bytes of this dialect as a frame.
    pub(crate) fn frame(self, bytes: Bytes) -> Frame {
        match self {
            Self::Native | Self::SocketIo => Frame::Text(bytes),
            Self::Protobuf => Frame::Binary(bytes),
        }
    }

    /// Reads what came over a native socket. `Err`: it is no frame and the connection closes.
    pub(crate) fn decode(self, received: &Received) -> Result<ClientFrame, CloseCode> {
        match (self, received) {
            (Self::Native, Received::Text(text)) => json::decode(text),
            (Self::Protobuf, Received::Binary(data)) => binary::decode(data),
            _ => Err(CloseCode::BadFrame),
        }
    }
}

/// What waits for slow readers takes no more room than it needs.
fn shrunk(mut out: Vec<u8>) -> Bytes {
    out.shrink_to_fit();
    out.into()
}

/// A delivery on its way to sessions.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// The room's rev after the change; `None` for what leaves no trace.
    pub(crate) rev: Option<Rev>,
    /// Whoever must not get it.
    pub(crate) except: Option<UserId>,
    /// What it is about, if it is fleeting: what a slow client loses first.
    pub(crate) topic: Option<Topic>,
    /// What is told.
    pub(crate) event: EventData,
    native: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
    socketio: OnceLock<Bytes>,
    socketio_void: OnceLock<Bytes>,
    /// Its place in the order of all rooms, if it has one.
    pub(crate) number: LogNumber,
}

/// What a delivery tells a Socket.IO client about its place, for the recovery of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Whoever has it has everything with a smaller number too.
    Sound,
    /// Whoever had it last cannot say what it has.
    Void,
}

impl Delivered {
    pub(crate) fn new(opened: OpenedDelivery) -> Self {
        let OpenedDelivery { rev, epoch: _, except, event } = opened;
        Self {
            rev,
            except,
            topic: topic(&event),
            event,
            native: OnceLock::new(),
            protobuf: OnceLock::new(),
            socketio: OnceLock::new(),
            socketio_void: OnceLock::new(),
            number: LogNumber::NONE,
        }
    }

    /// With its place in the order of all rooms.
    pub(crate) fn numbered(opened: OpenedDelivery, number: LogNumber) -> Self {
        Self { number, ..Self::new(opened) }
    }

    /// The bytes for `dialect`; encoded by whoever asks first.
    pub(crate) fn bytes(&self, dialect: Dialect, place: Place) -> Bytes {
        let encoded = match (dialect, place) {
            (Dialect::Native, _) => self.native.get_or_init(|| dialect.event(&self.event)),
            (Dialect::Protobuf, _) => self.protobuf.get_or_init(|| dialect.event(&self.event)),
            (Dialect::SocketIo, Place::Sound) => self.socketio.get_or_init(|| {
                let offset = self.number.is_some().then(|| self.number.0.to_string());
                self.socketio_event(offset.as_deref())
            }),
            (Dialect::SocketIo, Place::Void) => {
                self.socketio_void.get_or_init(|| self.socketio_event(Some(socketio::VOID)))
            }
        };
        encoded.clone()
    }

    fn socketio_event(&self, offset: Option<&str>) -> Bytes {
        let mut out = Vec::with_capacity(256);
        socketio::write_event(&self.event, offset, &mut out);
        shrunk(out)
    }

    /// True for what a slow client loses first.
    pub(crate) fn is_fleeting(&self) -> bool {
        self.topic.is_some()
    }

    /// About how much memory it takes while it is held back.
    pub(crate) fn weight(&self) -> usize {
        match &self.event {
            EventData::MessageDelivered(message) => {
                1024 + message.content.as_ref().map_or(0, String::len) + 1024 * message.attachments.len()
            }
            EventData::MessageEdited(edited) => 1024 + edited.content.len(),
            _ => 1024,
        }
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

/// What a fleeting event is about.
fn topic(event: &EventData) -> Option<Topic> {
    let mut hasher = DefaultHasher::new();
    match event {
        EventData::Typing(typing) => (&typing.room_id, &typing.user_id).hash(&mut hasher),
        EventData::PresenceChanged(changed) => changed.user_id.hash(&mut hasher),
        _ => return None,
    }
    Some(Topic(hasher.finish()))
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
        assert_eq!(Dialect::Native.event(&typing()), format!(r#"{{"event":"typing","data":{expected}}}"#));
        assert_eq!(Dialect::SocketIo.event(&typing()), format!(r#"42/chat,["typing",{expected}]"#));
    }

    #[test]
    fn acks_echo_their_id() {
        let ack = Ack::Done(wire::Done { status: "OK".into() });
        let id = FrameId::Number(7);
        assert_eq!(Dialect::Native.ack(&id, &ack), r#"{"id":7,"ack":{"status":"OK"}}"#);
        assert_eq!(Dialect::SocketIo.ack(&id, &ack), r#"43/chat,7[{"status":"OK"}]"#);
    }

    #[test]
    fn receivers_share_one_encoding() {
        let delivered = Delivered::new(OpenedDelivery::passing(typing()));
        for dialect in [Dialect::Native, Dialect::Protobuf, Dialect::SocketIo] {
            let (one, other) = (delivered.bytes(dialect, Place::Sound), delivered.bytes(dialect, Place::Sound));
            assert_eq!(one.as_ptr(), other.as_ptr());
        }
    }

    #[test]
    fn socketio_clients_are_told_the_place_of_what_has_one() {
        let opened = || OpenedDelivery { rev: Some(Rev(1)), epoch: Rev::ZERO, except: None, event: typing() };
        let of = |delivered: &Delivered, place| {
            String::from_utf8_lossy(&delivered.bytes(Dialect::SocketIo, place)).into_owned()
        };
        let numbered = Delivered::numbered(opened(), LogNumber(17));
        assert!(of(&numbered, Place::Sound).ends_with(r#","isTyping":true},"17"]"#));
        assert!(of(&numbered, Place::Void).ends_with(r#","isTyping":true},"-"]"#));
        assert!(of(&Delivered::new(opened()), Place::Sound).ends_with(r#","isTyping":true}]"#));
    }

    #[test]
    fn each_subprotocol_takes_its_own_kind_of_frame() {
        let (text, data) = (Received::Text(r#"{"event":"ping"}"#.into()), Received::Binary(Bytes::new()));
        assert!(Dialect::Native.decode(&text).is_ok() && Dialect::Protobuf.decode(&data).is_ok());
        assert_eq!(Dialect::Native.decode(&data).err(), Some(CloseCode::BadFrame));
        assert_eq!(Dialect::Protobuf.decode(&text).err(), Some(CloseCode::BadFrame));
        assert_eq!(Dialect::of_subprotocol(Some("chatchit.v1.protobuf")), Dialect::Protobuf);
        assert_eq!(Dialect::of_subprotocol(None), Dialect::Native);
    }
}
