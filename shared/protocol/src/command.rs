//! What clients ask for: a frame's id and its command.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::wire::{self, client_frame};
use crate::{Code, Refusal, json};

pub use client_frame::Command;

/// A frame's id, echoed in its ack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameId {
    /// A number.
    Number(i64),
    /// A short text.
    Text(String),
}

/// A frame from a client: well-formed as a frame, its command perhaps refused.
#[derive(Debug)]
pub struct ClientFrame {
    /// The id to echo; without it no ack is sent.
    pub id: Option<FrameId>,
    /// The command, or why its data is no good.
    pub command: Result<Command, Refusal>,
}

/// The name under which a command stands in the protocol and in metrics.
pub fn name(command: &Command) -> &'static str {
    match command {
        Command::Auth(_) => "auth",
        Command::AuthRefresh(_) => "auth.refresh",
        Command::Ping(_) => "ping",
        Command::MessageSend(_) => "message.send",
        Command::MessageEdit(_) => "message.edit",
        Command::MessageDelete(_) => "message.delete",
        Command::MessageReact(_) => "message.react",
        Command::MessageRead(_) => "message.read",
        Command::RoomJoin(_) => "room.join",
        Command::RoomLeave(_) => "room.leave",
        Command::Sync(_) => "sync",
        Command::Typing(_) => "typing",
        Command::PresenceSet(_) => "presence.set",
        Command::PresenceQuery(_) => "presence.query",
    }
}

/// Reads the data of the event `name`; `data` is a JSON text (absent: an empty object).
pub fn from_json(name: &str, data: Option<&str>) -> Result<Command, Refusal> {
    let data = data.unwrap_or("{}");
    Ok(match name {
        "auth" => Command::Auth(json::read(data)?),
        "auth.refresh" => Command::AuthRefresh(json::read(data)?),
        "ping" => Command::Ping(wire::Ping {}),
        "message.send" => Command::MessageSend(json::read(data).map_err(|refusal| named(refusal, data))?),
        "message.edit" => Command::MessageEdit(json::read(data)?),
        "message.delete" => Command::MessageDelete(json::read(data)?),
        "message.react" => Command::MessageReact(json::read(data)?),
        "message.read" => Command::MessageRead(json::read(data)?),
        "room.join" => Command::RoomJoin(json::read(data)?),
        "room.leave" => Command::RoomLeave(json::read(data)?),
        "sync" => {
            let sync: wire::Sync = json::read(data)?;
            check_given(data, "rooms", !sync.rooms.is_empty())?;
            Command::Sync(sync)
        }
        "typing" => {
            let typing: wire::SetTyping = json::read(data)?;
            check_given(data, "isTyping", typing.is_typing)?;
            Command::Typing(typing)
        }
        "presence.set" => Command::PresenceSet(json::read(data)?),
        "presence.query" => {
            let query: wire::PresenceQuery = json::read(data)?;
            check_given(data, "userIds", !query.user_ids.is_empty())?;
            Command::PresenceQuery(query)
        }
        other => return Err(Refusal::unknown_event(other)),
    })
}

/// Refuses data without a field that has no value of its own for "absent". What is not empty is there.
fn check_given(data: &str, field: &'static str, is_there: bool) -> Result<(), Refusal> {
    let is_given = || {
        let fields: Result<HashMap<Cow<'_, str>, &RawValue>, _> = serde_json::from_str(data);
        fields.is_ok_and(|fields| fields.get(field).is_some_and(|value| value.get() != "null"))
    };
    if is_there || is_given() { Ok(()) } else { Err(Refusal::invalid(field, "is required")) }
}

/// Names the refused message, if its own name at least can be read.
fn named(refusal: Refusal, data: &str) -> Refusal {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Name {
        client_msg_id: String,
    }
    match serde_json::from_str::<Name>(data) {
        Ok(name) => refusal.of(&name.client_msg_id),
        Err(_) => refusal,
    }
}

impl ClientFrame {
    /// Reads a frame of the protobuf subprotocol. `Err`: not a frame at all.
    pub fn from_wire(frame: wire::ClientFrame) -> Self {
        let id = frame.id.map(|id| match id {
            client_frame::Id::Number(number) => FrameId::Number(number),
            client_frame::Id::Text(text) => FrameId::Text(text),
        });
        let command =
            frame.command.ok_or_else(|| Refusal::new(Code::UnknownEvent, "the frame holds no command known here"));
        Self { id, command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_events_are_refused_by_name() {
        let refusal = from_json("subscribe", None).expect_err("not yet");
        assert_eq!(refusal.code, Code::UnknownEvent);
    }

    #[test]
    fn wrong_types_name_the_field_and_the_message() {
        let refusal = from_json("message.send", Some(r#"{"roomId":7,"content":"x","clientMsgId":"m1"}"#))
            .expect_err("wrong type");
        assert_eq!(refusal.code, Code::InvalidPayload);
        assert_eq!(refusal.field.as_deref(), Some("roomId"));
        assert_eq!(refusal.client_msg_id.as_deref(), Some("m1"));
    }

    #[test]
    fn unknown_fields_are_ignored_and_null_options_are_absent() {
        let command = from_json(
            "message.send",
            Some(r#"{"content":"x","replyTo":null,"mentions":null,"attachments":null,"roomId":null,"new":{"a":[1]}}"#),
        );
        assert!(matches!(command, Ok(Command::MessageSend(send)) if send.content == "x" && send.reply_to.is_none()));
    }

    #[test]
    fn what_is_required_must_be_given_and_may_be_empty() {
        let refused = [("typing", "isTyping"), ("sync", "rooms"), ("presence.query", "userIds")];
        for (event, field) in refused {
            for data in [r#"{"roomId":"r"}"#.to_owned(), format!(r#"{{"{field}":null}}"#)] {
                let refusal = from_json(event, Some(&data)).expect_err(event);
                assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidPayload, Some(field)), "{data}");
            }
        }
        for (event, data) in
            [("typing", r#"{"isTyping":false}"#), ("sync", r#"{"rooms":[]}"#), ("presence.query", r#"{"userIds":[]}"#)]
        {
            assert!(from_json(event, Some(data)).is_ok(), "{event}");
        }
    }

    #[test]
    fn data_must_be_an_object() {
        for data in ["null", "[]", "7", "\"x\""] {
            let refusal = from_json("typing", Some(data)).expect_err(data);
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidPayload, Some("data")));
        }
    }
}
