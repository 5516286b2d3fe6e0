//! How each kind of client says and hears things: the server's three dialects, and the two peers it is
//! compared with.
//!
//! Knows no connection and no schedule. The invariant: what a frame is, is told from its first bytes; only acks
//! and what comes seldom is parsed.

use prost::Message as _;
use protocol::wire::{self, ack_frame, client_frame, server_event, server_frame};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

/// What a client speaks, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `chatchit.v1.json` over a WebSocket.
    Json,
    /// `chatchit.v1.protobuf` over a WebSocket.
    Protobuf,
    /// Socket.IO over a WebSocket.
    SocketIo,
    /// Socket.IO as the peer `node-seed` speaks it: nothing comes after CONNECT.
    NodeSeed,
    /// The peer `raw`: rooms are paths, nobody logs in.
    Raw,
}

/// Who comes in.
pub(crate) struct Pass<'a> {
    pub(crate) token: &'a str,
    pub(crate) device: &'a str,
    pub(crate) room: Option<Uuid>,
    /// Socket.IO: where a connection before this one ended.
    pub(crate) recovery: Option<(&'a str, &'a str)>,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command<'a> {
    /// `message.send`.
    Send { room: Uuid, name: Uuid, text: &'a str },
    /// `presence.set`.
    SetPresence { status: &'a str },
    /// `sync` of rooms by `seq`.
    Sync { rooms: &'a [(Uuid, i64)] },
}

/// What a client hears.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard<'a> {
    /// Engine.IO is open: say CONNECT.
    Opened,
    /// The namespace is open.
    Connected { pid: Option<String> },
    /// `session.ready`, with its offset on Socket.IO.
    Ready { offset: Option<&'a str> },
    /// The answer to a command; what else it holds is in the frame.
    Ack { id: u32, refused: Option<String> },
    /// A message, whose mark is in the frame; with its offset on Socket.IO.
    Delivered { offset: Option<&'a str> },
    /// What was queued has become impossible.
    Failed { name: Option<Uuid> },
    /// How somebody stands.
    Presence { user: Uuid, status: String },
    /// Engine.IO asks whether we are there.
    Ping,
    /// Refused or sent away, with the hint when to come back, milliseconds.
    Refused { code: String, retry_after: Option<u64> },
    /// What the generator does not need.
    Other,
}

const DELIVERED: &str = "message.delivered";
const READY: &str = "session.ready";

#[derive(Deserialize)]
struct JsonAck {
    id: u32,
    ack: Answer,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    code: Option<String>,
    retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Standing {
    user_id: Uuid,
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    client_msg_id: Option<Uuid>,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

impl Dialect {
    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json | Self::Raw => "json",
            Self::Protobuf => "protobuf",
            Self::SocketIo | Self::NodeSeed => "socketio",
        }
    }

    /// What is asked for by HTTP.
    pub(crate) fn path(self, pass: &Pass<'_>) -> String {
        match self {
            Self::Json | Self::Protobuf => format!("/ws?token={}&deviceId={}", pass.token, pass.device),
            Self::SocketIo | Self::NodeSeed => "/socket.io/?EIO=4&transport=websocket".to_owned(),
            Self::Raw => format!("/{}", pass.room.unwrap_or_default()),
        }
    }

    /// `Sec-WebSocket-Protocol`.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("chatchit.v1.json"),
            Self::Protobuf => Some("chatchit.v1.protobuf"),
            _ => None,
        }
    }

    /// True if its frames are binary.
    pub(crate) fn is_binary(self) -> bool {
        self == Self::Protobuf
    }

    /// True if CONNECT has to be answered before the connection is one.
    pub(crate) fn needs_connect(self) -> bool {
        matches!(self, Self::SocketIo | Self::NodeSeed)
    }

    /// True if what was missed can be asked for.
    pub(crate) fn can_sync(self) -> bool {
        matches!(self, Self::Json | Self::Protobuf | Self::SocketIo)
    }

    /// Socket.IO's CONNECT.
    pub(crate) fn connect(pass: &Pass<'_>) -> String {
        let auth = match pass.recovery {
            Some((pid, offset)) => {
                json!({"token": pass.token, "deviceId": pass.device, "pid": pid, "offset": offset})
            }
            None => json!({"token": pass.token, "deviceId": pass.device}),
        };
        format!("40/chat,{auth}")
    }

    /// One command as a frame's payload.
    pub(crate) fn say(self, id: u32, command: Command<'_>) -> Vec<u8> {
        match self {
            // `raw` looks for the id at this very place.
            Self::Json | Self::Raw => {
                format!("{{\"id\":{id},\"event\":\"{}\",\"data\":{}}}", command.event(), command.data()).into_bytes()
            }
            Self::SocketIo | Self::NodeSeed => {
                format!("42/chat,{id}[\"{}\",{}]", command.event(), command.data()).into_bytes()
            }
            Self::Protobuf => command.frame(id).encode_to_vec(),
        }
    }

    /// What came.
    pub(crate) fn hear(self, frame: &[u8]) -> Heard<'_> {
        match self {
            Self::Json | Self::Raw => hear_json(frame),
            Self::SocketIo | Self::NodeSeed => hear_socketio(frame),
            Self::Protobuf => hear_protobuf(frame),
        }
    }
}

impl Command<'_> {
    fn event(self) -> &'static str {
        match self {
            Self::Send { .. } => "message.send",
            Self::SetPresence { .. } => "presence.set",
            Self::Sync { .. } => "sync",
        }
    }

    fn data(self) -> String {
        match self {
            // Texts of the generator need no escape.
            Self::Send { room, name, text } => {
                format!("{{\"roomId\":\"{room}\",\"clientMsgId\":\"{name}\",\"content\":\"{text}\"}}")
            }
            Self::SetPresence { status } => format!("{{\"status\":\"{status}\"}}"),
            Self::Sync { rooms } => {
                let room = |(id, seq): &(Uuid, i64)| format!("{{\"roomId\":\"{id}\",\"afterSeq\":{seq}}}");
                format!("{{\"rooms\":[{}]}}", rooms.iter().map(room).collect::<Vec<_>>().join(","))
            }
        }
    }

    fn frame(self, id: u32) -> wire::ClientFrame {
        let command = match self {
            Self::Send { room, name, text } => client_frame::Command::MessageSend(wire::MessageSend {
                room_id: room.to_string(),
                content: text.to_owned(),
                client_msg_id: name.to_string(),
                ..wire::MessageSend::default()
            }),
            Self::SetPresence { status } => {
                client_frame::Command::PresenceSet(wire::PresenceSet { status: status.to_owned() })
            }
            Self::Sync { rooms } => {
                let room = |(id, seq): &(Uuid, i64)| wire::SyncRoom {
                    room_id: id.to_string(),
                    after_seq: Some(*seq),
                    after_rev: None,
                };
                client_frame::Command::Sync(wire::Sync { rooms: rooms.iter().map(room).collect() })
            }
        };
        wire::ClientFrame { id: Some(client_frame::Id::Number(id.into())), command: Some(command) }
    }
}

fn hear_json(frame: &[u8]) -> Heard<'_> {
    if frame.starts_with(b"{\"id\":") {
        let Ok(JsonAck { id, ack }) = serde_json::from_slice(frame) else { return Heard::Other };
        return Heard::Ack { id, refused: ack.code };
    }
    let Some(name) = text(frame.strip_prefix(b"{\"event\":\"").unwrap_or_default()) else { return Heard::Other };
    if name == DELIVERED {
        return Heard::Delivered { offset: None };
    }
    named(name, || frame)
}

/// An event but `message.delivered`; `whole` is `{"data": …}` and whatever else.
fn named<'a>(name: &str, whole: impl FnOnce() -> &'a [u8]) -> Heard<'static> {
    match name {
        READY => Heard::Ready { offset: None },
        "presence.changed" => match serde_json::from_slice::<Data<Standing>>(whole()) {
            Ok(Data { data }) => Heard::Presence { user: data.user_id, status: data.status },
            Err(_) => Heard::Other,
        },
        "message.failed" => match serde_json::from_slice::<Data<Failure>>(whole()) {
            Ok(Data { data }) => Heard::Failed { name: data.client_msg_id },
            Err(_) => Heard::Failed { name: None },
        },
        "error" => match serde_json::from_slice::<Data<Answer>>(whole()) {
            Ok(Data { data }) => {
                Heard::Refused { code: data.code.unwrap_or_default(), retry_after: data.retry_after_ms }
            }
            Err(_) => Heard::Other,
        },
        _ => Heard::Other,
    }
}

/// A JSON string without escapes, as names of events are, up to its end.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = memchr::memchr(b'"', bytes)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

fn hear_socketio(frame: &[u8]) -> Heard<'_> {
    match frame {
        [b'0', ..] => Heard::Opened,
        [b'2'] => Heard::Ping,
        [b'4', b'2', ..] => {
            let start = memchr::memchr(b'[', frame).map_or(frame.len(), |at| at + 1);
            let Some(name) = frame.get(start + 1..).and_then(text) else { return Heard::Other };
            if name == DELIVERED {
                return Heard::Delivered { offset: offset(frame) };
            }
            if name == READY {
                return Heard::Ready { offset: offset(frame) };
            }
            let name = name.to_owned();
            let data = socketio_data(frame, start + name.len() + 3);
            named(&name, || &data)
        }
        [b'4', b'3', ..] => socketio_ack(frame).unwrap_or(Heard::Other),
        [b'4', b'0', ..] => Heard::Connected { pid: pid(frame) },
        [b'4', b'4', ..] => Heard::Refused { code: "CONNECT_ERROR".to_owned(), retry_after: None },
        _ => Heard::Other,
    }
}

/// `{"data": …}` of an event's first argument, which begins at `start`.
fn socketio_data(frame: &[u8], start: usize) -> Vec<u8> {
    let arguments = frame.get(start..).unwrap_or_default();
    let mut values = serde_json::Deserializer::from_slice(arguments).into_iter::<serde_json::Value>();
    match values.next() {
        Some(Ok(data)) => json!({ "data": data }).to_string().into_bytes(),
        _ => Vec::new(),
    }
}

fn socketio_ack(frame: &[u8]) -> Option<Heard<'static>> {
    let start = memchr::memchr(b'[', frame)?;
    let id = frame[..start].iter().rposition(|byte| !byte.is_ascii_digit())? + 1;
    let id = std::str::from_utf8(&frame[id..start]).ok()?.parse().ok()?;
    let [answer] = serde_json::from_slice::<[Answer; 1]>(&frame[start..]).ok()?;
    Some(Heard::Ack { id, refused: answer.code })
}

fn pid(frame: &[u8]) -> Option<String> {
    let start = memchr::memchr(b'{', frame)?;
    let data: serde_json::Value = serde_json::from_slice(&frame[start..]).ok()?;
    Some(data.get("pid")?.as_str()?.to_owned())
}

/// The last argument if it is a text: `…},"OFFSET"]`.
fn offset(frame: &[u8]) -> Option<&str> {
    let frame = frame.strip_suffix(b"\"]")?;
    let start = memchr::memrchr(b'"', frame)? + 1;
    std::str::from_utf8(&frame[start..]).ok()
}

fn hear_protobuf(frame: &[u8]) -> Heard<'static> {
    if is_protobuf_delivery(frame) {
        return Heard::Delivered { offset: None };
    }
    match wire::ServerFrame::decode(frame).ok().and_then(|frame| frame.frame) {
        Some(server_frame::Frame::Ack(ack)) => {
            let Some(ack_frame::Id::Number(id)) = ack.id else { return Heard::Other };
            let refused = match ack.ack {
                Some(ack_frame::Ack::Refusal(refusal)) => Some(refusal.code),
                _ => None,
            };
            Heard::Ack { id: id as u32, refused }
        }
        Some(server_frame::Frame::Event(wire::ServerEvent { kind: Some(kind) })) => match kind {
            server_event::Kind::SessionReady(_) => Heard::Ready { offset: None },
            server_event::Kind::PresenceChanged(it) => match it.user_id.parse() {
                Ok(user) => Heard::Presence { user, status: it.status },
                Err(_) => Heard::Other,
            },
            server_event::Kind::MessageFailed(it) => {
                Heard::Failed { name: it.client_msg_id.and_then(|name| name.parse().ok()) }
            }
            server_event::Kind::Error(it) => {
                Heard::Refused { code: it.code, retry_after: it.retry_after_ms.and_then(|ms| u64::try_from(ms).ok()) }
            }
            _ => Heard::Other,
        },
        _ => Heard::Other,
    }
}

/// `ServerFrame.event` (field 1), whose kind is `message_delivered` (field 20), by its tags alone.
fn is_protobuf_delivery(frame: &[u8]) -> bool {
    let Some((0x0a, rest)) = frame.split_first() else { return false };
    let Some(length) = rest.iter().position(|byte| byte & 0x80 == 0) else { return false };
    rest[length + 1..].starts_with(&[0xa2, 0x01])
}
