//! How far a client is in its rooms, as frames say it: `session.ready`, deliveries and answers to `sync`.
//!
//! Read only where clients come back. The invariant: a room whose answer was cut short is not complete, and its
//! position is that of the last message in the answer.

use prost::Message as _;
use protocol::wire::{self, ack_frame, server_event, server_frame};
use serde::Deserialize;
use uuid::Uuid;

use crate::dialect::Dialect;

/// A room and the last message of it that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) room: Uuid,
    pub(crate) seq: i64,
    /// Nothing came after that when it was said.
    pub(crate) is_complete: bool,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(alias = "ack")]
    data: Body,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    room_id: Option<Uuid>,
    seq: Option<i64>,
    rooms: Vec<Room>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Room {
    #[serde(rename = "roomId")]
    id: Uuid,
    #[serde(default)]
    last_seq: i64,
    #[serde(default)]
    items: Vec<Item>,
    complete: Option<bool>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    seq: i64,
}

/// The positions that a frame says; none if it says none.
pub(crate) fn read(dialect: Dialect, frame: &[u8]) -> Vec<Position> {
    match dialect {
        Dialect::Json => serde_json::from_slice::<Frame>(frame).map(|frame| frame.data.positions()),
        Dialect::SocketIo => socketio(frame).map(Body::positions),
        Dialect::Protobuf => return protobuf(frame),
        Dialect::NodeSeed | Dialect::Raw => return Vec::new(),
    }
    .unwrap_or_default()
}

/// `42/chat,["name",{…},"offset"]` or `43/chat,7[{…}]`.
fn socketio(frame: &[u8]) -> serde_json::Result<Body> {
    let start = memchr::memchr(b'[', frame).unwrap_or(frame.len());
    let arguments: Vec<serde_json::Value> = serde_json::from_slice(&frame[start..])?;
    let data = arguments.into_iter().find(serde_json::Value::is_object).unwrap_or_default();
    serde_json::from_value(data)
}

impl Body {
    fn positions(self) -> Vec<Position> {
        let delivered = self.room_id.zip(self.seq).map(|(room, seq)| Position { room, seq, is_complete: true });
        let rooms = self.rooms.into_iter().map(|room| {
            position(room.id, room.items.last().map(|item| item.seq), room.last_seq, room.complete != Some(false))
        });
        delivered.into_iter().chain(rooms).collect()
    }
}

fn position(room: Uuid, last_item: Option<i64>, last_seq: i64, is_complete: bool) -> Position {
    let seq = if is_complete { last_seq } else { last_item.unwrap_or_default() };
    Position { room, seq, is_complete }
}

fn protobuf(frame: &[u8]) -> Vec<Position> {
    let Ok(wire::ServerFrame { frame: Some(frame) }) = wire::ServerFrame::decode(frame) else { return Vec::new() };
    match frame {
        server_frame::Frame::Event(wire::ServerEvent { kind: Some(kind) }) => match kind {
            server_event::Kind::SessionReady(ready) => {
                let rooms = ready.rooms.iter();
                rooms.filter_map(|it| Some(position(it.room_id.parse().ok()?, None, it.last_seq, true))).collect()
            }
            server_event::Kind::MessageDelivered(it) => {
                let room = it.room_id.parse().ok();
                room.map(|room| Position { room, seq: it.seq, is_complete: true }).into_iter().collect()
            }
            _ => Vec::new(),
        },
        server_frame::Frame::Ack(wire::AckFrame { ack: Some(ack_frame::Ack::SyncResult(result)), .. }) => {
            let rooms = result.rooms.iter();
            rooms
                .filter_map(|it| {
                    let last = it.messages.last().map(|message| message.seq);
                    Some(position(it.room_id.parse().ok()?, last, it.last_seq, it.complete || it.code.is_some()))
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Uuid = Uuid::from_u128(7);

    #[test]
    fn positions_are_read_wherever_they_stand() {
        let whole = |seq| vec![Position { room: ROOM, seq, is_complete: true }];
        let ready = format!(
            r#"{{"event":"session.ready","data":{{"userId":"u","rooms":[{{"roomId":"{ROOM}","lastSeq":4}}]}}}}"#
        );
        assert_eq!(read(Dialect::Json, ready.as_bytes()), whole(4));
        let delivered = format!(r#"42/chat,["message.delivered",{{"roomId":"{ROOM}","seq":9}},"1-0"]"#);
        assert_eq!(read(Dialect::SocketIo, delivered.as_bytes()), whole(9));
        let synced = format!(
            r#"43/chat,3[{{"rooms":[{{"roomId":"{ROOM}","items":[{{"seq":5}},{{"seq":6}}],"lastSeq":99,"complete":false}}]}}]"#
        );
        let cut = vec![Position { room: ROOM, seq: 6, is_complete: false }];
        assert_eq!(read(Dialect::SocketIo, synced.as_bytes()), cut);
        let synced = format!(r#"{{"id":3,"ack":{{"rooms":[{{"roomId":"{ROOM}","code":"NOT_FOUND"}}]}}}}"#);
        assert_eq!(read(Dialect::Json, synced.as_bytes()), whole(0));
    }

    #[test]
    fn positions_are_read_from_protobuf() {
        let room = wire::SyncedRoom {
            room_id: ROOM.to_string(),
            messages: vec![wire::MessageDelivered { seq: 8, ..wire::MessageDelivered::default() }],
            last_seq: 20,
            ..wire::SyncedRoom::default()
        };
        let ack = ack_frame::Ack::SyncResult(wire::SyncResult { rooms: vec![room] });
        let frame = server_frame::Frame::Ack(wire::AckFrame { id: None, ack: Some(ack) });
        let bytes = wire::ServerFrame { frame: Some(frame) }.encode_to_vec();
        assert_eq!(read(Dialect::Protobuf, &bytes), [Position { room: ROOM, seq: 8, is_complete: false }]);
    }
}
