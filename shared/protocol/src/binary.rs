//! The protobuf codec of the native subprotocol `chatchit.v1.protobuf`: `ClientFrame`, `ServerFrame`.
//!
//! The same events, names and rules as in JSON. The invariant: nothing is copied to be written.

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::command::{ClientFrame, FrameId};
use crate::wire::{self, ack_frame};
use crate::{Ack, CloseCode, EventData, Refusal};

/// The field of `ServerFrame` that holds an event.
const EVENT: u32 = 1;
/// The field of `ServerFrame` that holds an ack.
const ACK: u32 = 2;

/// Reads a frame. `Err`: it is none and the connection closes.
pub fn decode(data: &[u8]) -> Result<ClientFrame, CloseCode> {
    let frame = wire::ClientFrame::decode(data).map_err(|_| CloseCode::BadFrame)?;
    let frame = ClientFrame::from_wire(frame);
    match &frame.id {
        Some(FrameId::Text(text)) if text.chars().count() > domain::limits::FRAME_ID_CHARS => {
            let refusal = Refusal::invalid("id", "must be an integer or a string of at most 64 characters");
            Ok(ClientFrame { id: None, command: Err(refusal) })
        }
        _ => Ok(frame),
    }
}

/// Appends an event as a whole frame.
pub fn write_event(event: &EventData, out: &mut Vec<u8>) {
    begin(EVENT, event.encoded_len(), out);
    event.encode(out);
}

/// Appends an ack as a whole frame.
pub fn write_ack(id: &FrameId, ack: &Ack, out: &mut Vec<u8>) {
    let id = match id {
        FrameId::Number(number) => ack_frame::Id::Number(*number),
        FrameId::Text(text) => ack_frame::Id::Text(text.clone()),
    };
    begin(ACK, id.encoded_len() + ack.encoded_len(), out);
    id.encode(out);
    ack.encode(out);
}

fn begin(field: u32, len: usize, out: &mut Vec<u8>) {
    out.reserve(1 + encoded_len_varint(len as u64) + len);
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::server_frame::Frame;
    use crate::{Code, Command};

    fn read(bytes: &[u8]) -> Frame {
        wire::ServerFrame::decode(bytes).expect("a frame").frame.expect("not empty")
    }

    #[test]
    fn what_is_written_is_a_server_frame() {
        let typing = wire::Typing { room_id: "r".into(), user_id: "u".into(), is_typing: true };
        let mut out = Vec::new();
        write_event(&EventData::Typing(typing.clone()), &mut out);
        let Frame::Event(event) = read(&out) else { panic!("an event") };
        assert_eq!(event.kind, Some(EventData::Typing(typing)));

        for id in [FrameId::Number(-7), FrameId::Text("x".into())] {
            let mut out = Vec::new();
            write_ack(&id, &Ack::Done(wire::Done { status: "OK".into() }), &mut out);
            let Frame::Ack(ack) = read(&out) else { panic!("an ack") };
            let expected = match id {
                FrameId::Number(number) => ack_frame::Id::Number(number),
                FrameId::Text(text) => ack_frame::Id::Text(text),
            };
            assert_eq!(ack.id, Some(expected));
            assert!(matches!(ack.ack, Some(Ack::Done(_))));
        }
    }

    #[test]
    fn frames_are_read_and_what_is_none_closes() {
        let ping = wire::ClientFrame {
            id: Some(wire::client_frame::Id::Number(3)),
            command: Some(Command::Ping(wire::Ping {})),
        };
        let frame = decode(&ping.encode_to_vec()).expect("a frame");
        assert_eq!(frame.id, Some(FrameId::Number(3)));
        assert!(matches!(frame.command, Ok(Command::Ping(_))));
        assert_eq!(decode(&[0xff]).err(), Some(CloseCode::BadFrame));
        let empty = decode(&[]).expect("a frame").command.expect_err("no command");
        assert_eq!(empty.code, Code::UnknownEvent);
        let long = wire::ClientFrame { id: Some(wire::client_frame::Id::Text("x".repeat(65))), command: None };
        let refused = decode(&long.encode_to_vec()).expect("a frame").command.expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("id"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = decode(&data);
        }
    }
}
