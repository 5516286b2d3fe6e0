//! The message that is counted: 100 bytes of text, fixed ids, one key.
//!
//! The invariant: two messages differ in their numbers, never in their length.

use domain::{JobId, MessageId, Rev, RoomId, Timestamp, UserId};
use gateway::Dialect;
use prost::Message as _;
use protocol::envelope::NewEvent;
use protocol::{Change, Command, EventData, OpenedDelivery, wire};
use uuid::Uuid;

/// The room.
pub const ROOM: RoomId = RoomId(Uuid::from_u128(0x0192_f0c1_7a5e_7cc1_9b6a_0000_0000_0001));
/// The sender.
pub const SENDER: UserId = UserId(Uuid::from_u128(0x0192_f0c1_7a5e_7cc1_9b6a_0000_0000_0002));
/// What came before the first message: so many digits have all that follow.
pub const BEGINNING: u64 = 1_000_000;
/// The key that signs, as `HMAC_KEYS` has it: 33 bytes.
pub const KEYS: &str = "k1:QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD";
/// The beginning of the text, which is the same in all dialects.
pub const OPENING: &str = "The meeting is moved";
const AT: Timestamp = Timestamp(1_790_000_000_123);
const TEXT: &str =
    "The meeting is moved to half past nine; please bring the figures \"as of Monday\" and a coffee for me!";

/// A member of the room that is not the sender.
pub fn member(number: usize) -> UserId {
    UserId(Uuid::from_u128(SENDER.0.as_u128() + 1 + number as u128))
}

/// A sender's own name for a message, as long as a UUID.
fn name(number: u64) -> String {
    format!("b3c0a7e2-95d4-4f6a-8c1b-{number:012}")
}

fn send(number: u64) -> wire::MessageSend {
    wire::MessageSend {
        room_id: ROOM.to_string(),
        content: TEXT.to_owned(),
        client_msg_id: name(number),
        ..Default::default()
    }
}

/// What a client sends to send message `number`: its frame, which is text or not.
pub fn frame(dialect: Dialect, number: u64) -> (bool, Vec<u8>) {
    let data = serde_json::json!({ "roomId": ROOM, "content": TEXT, "clientMsgId": name(number) });
    match dialect {
        Dialect::Native => (true, format!(r#"{{"id":{number},"event":"message.send","data":{data}}}"#).into_bytes()),
        Dialect::SocketIo => (true, format!(r#"42/chat,{number}["message.send",{data}]"#).into_bytes()),
        Dialect::Protobuf => {
            let id = Some(wire::client_frame::Id::Number(number as i64));
            (false, wire::ClientFrame { id, command: Some(Command::MessageSend(send(number))) }.encode_to_vec())
        }
    }
}

/// Message `number` as the way in makes an event of it.
pub fn event(number: u64) -> NewEvent {
    NewEvent {
        job_id: JobId::from(MessageId::of(SENDER, &name(number))),
        room_id: ROOM,
        actor: SENDER,
        device_id: "phone-7f3a".to_owned(),
        accepted_at: AT,
        correlation_id: Some(name(number)),
        traceparent: None,
        change: Change::MessageSend(send(number)),
    }
}

/// Message `number` as it is told.
pub fn told(number: u64) -> OpenedDelivery {
    told_in(ROOM, number)
}

/// Message `number` as another room is told it.
pub fn told_in(room: RoomId, number: u64) -> OpenedDelivery {
    let rev = number as i64;
    let event = wire::MessageDelivered {
        room_id: room.to_string(),
        message_id: MessageId::of(SENDER, &name(number)).to_string(),
        seq: rev,
        rev: Some(rev),
        client_msg_id: Some(name(number)),
        sender_id: SENDER.to_string(),
        r#type: Some("TEXT".to_owned()),
        content: Some(TEXT.to_owned()),
        sent_at: AT.to_rfc3339(),
        stored_at: Some(AT.to_rfc3339()),
        ..Default::default()
    };
    let epoch = Rev(BEGINNING as i64);
    OpenedDelivery { rev: Some(Rev(rev)), epoch, except: None, event: EventData::MessageDelivered(event) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_100_bytes_and_all_messages_are_of_one_length() {
        assert!(TEXT.len() == 100 && TEXT.starts_with(OPENING));
        for dialect in [Dialect::Native, Dialect::SocketIo, Dialect::Protobuf] {
            let len = |number| frame(dialect, number).1.len();
            assert_eq!(len(BEGINNING), len(BEGINNING + 77_777), "{dialect:?}");
        }
    }
}
