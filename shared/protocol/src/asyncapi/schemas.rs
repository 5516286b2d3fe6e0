//! The JSON schemas of all messages, with what a field's type alone does not say: formats, limits, values.
//!
//! The invariant: whatever is said here about a field is said about one that exists (tests below).

use std::collections::BTreeMap;

use domain::limits;
use serde_json::{Value, json};

use crate::catalogue::{self, Payload};
use crate::{CloseCode, Code};

/// Values that a text may have.
const VALUES: [(&str, &str, &[&str]); 13] = [
    ("MessageSend", "type", MESSAGE_TYPES),
    ("MessageDelivered", "type", MESSAGE_TYPES),
    ("PresenceSet", "status", &["online", "away", "busy", "invisible"]),
    ("PresenceChanged", "status", &["online", "away", "busy", "offline"]),
    ("RoomCreated", "type", &["group", "direct"]),
    ("Member", "role", &["owner", "admin", "member"]),
    ("RoomMemberJoined", "role", &["owner", "admin", "member"]),
    ("RoomMemberLeft", "reason", &["left", "removed"]),
    ("Queued", "status", &["QUEUED"]),
    ("Done", "status", &["OK"]),
    ("RoomState", "status", &["OK"]),
    ("Refreshed", "status", &["OK"]),
    ("Refusal", "status", &["REJECTED"]),
];

const MESSAGE_TYPES: &[&str] = &["TEXT", "IMAGE", "FILE", "VIDEO", "AUDIO"];

/// Limits of what clients send, by keyword.
const LIMITS: [(&str, &str, &str, usize); 12] = [
    ("Auth", "deviceId", "maxLength", limits::DEVICE_ID_CHARS),
    ("MessageSend", "content", "maxLength", limits::CONTENT_BYTES),
    ("MessageSend", "clientMsgId", "minLength", 1),
    ("MessageSend", "clientMsgId", "maxLength", limits::CLIENT_MSG_ID_CHARS),
    ("MessageSend", "mentions", "maxItems", limits::MENTIONS),
    ("MessageSend", "attachments", "maxItems", limits::ATTACHMENTS),
    ("MessageEdit", "content", "maxLength", limits::CONTENT_BYTES),
    ("MessageReact", "emoji", "maxLength", limits::EMOJI_BYTES),
    ("Attachment", "url", "maxLength", limits::ATTACHMENT_URL_CHARS),
    ("Attachment", "name", "maxLength", limits::ATTACHMENT_NAME_CHARS),
    ("Attachment", "mimeType", "maxLength", limits::ATTACHMENT_NAME_CHARS),
    ("Sync", "rooms", "maxItems", limits::SYNC_ROOMS),
];

/// Fields that hold an id, alone or in a list, in whatever message.
const IDS: [&str; 10] =
    ["roomId", "messageId", "userId", "senderId", "sessionId", "replyTo", "createdBy", "by", "mentions", "userIds"];

/// What is always written where the default alone does not tell.
const REQUIRED: [(&str, &[&str]); 2] = [("SyncedRoom", &["roomId"]), ("RevEvent", &["event", "data", "rev"])];

/// All schemas by name.
pub(super) fn all() -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for event in catalogue::client_events() {
        let required = event.required.iter().map(|field| (*field).to_owned()).collect();
        schemas.insert(event.data.name.clone(), finish(&event.data, required));
    }
    let events = catalogue::server_events().into_iter().map(|event| event.data);
    for payload in events.chain(catalogue::acks()).chain(catalogue::parts()) {
        let required = REQUIRED.iter().find(|(name, _)| *name == payload.name);
        let required = match required {
            Some((_, fields)) => fields.iter().map(|field| (*field).to_owned()).collect(),
            None => payload.always.clone(),
        };
        let schema = finish(&payload, required);
        schemas.insert(payload.name, schema);
    }
    schemas.insert("FrameId".to_owned(), frame_id());
    schemas
}

fn frame_id() -> Value {
    json!({
        "description": "Echoed in exactly one ack; without it no ack is sent.",
        "oneOf": [
            { "type": "integer", "format": "int64" },
            { "type": "string", "maxLength": limits::FRAME_ID_CHARS },
        ],
    })
}

/// A payload's schema as documents show it.
fn finish(payload: &Payload, required: Vec<String>) -> Value {
    let mut schema = payload.schema.clone();
    without_defaults(&mut schema);
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, field) in fields {
            refine(&payload.name, name, field);
        }
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// Takes away `null`, which is only another way to be absent, and the defaults that the code fills in.
fn without_defaults(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("default");
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|it| it != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".to_owned(), only);
                }
            }
            members.values_mut().for_each(without_defaults);
            if let Some(Value::Array(choices)) = members.get_mut("oneOf") {
                choices.retain(|it| it.get("type") != Some(&Value::from("null")));
                if let [only] = choices.as_slice() {
                    *value = only.clone();
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_defaults),
        _ => {}
    }
}

fn refine(payload: &str, name: &str, field: &mut Value) {
    let is_list = field["type"] == "array";
    if IDS.contains(&name) {
        let place = if is_list { &mut field["items"] } else { &mut *field };
        place["format"] = "uuid".into();
    } else if field["type"] == "string" && (name.ends_with("At") || name == "serverTime") {
        field["format"] = "date-time".into();
    }
    if let Some((_, _, values)) = VALUES.iter().find(|(of, field, _)| (*of, *field) == (payload, name)) {
        field["enum"] = json!(values);
    }
    for (_, _, keyword, limit) in LIMITS.iter().filter(|(of, field, _, _)| (*of, *field) == (payload, name)) {
        field[*keyword] = json!(limit);
    }
    match (payload, name) {
        ("Refusal", "code") => field["enum"] = json!(refusal_codes()),
        ("MessageFailed" | "SyncedRoom", "code") => field["enum"] = json!(Code::ALL.map(Code::as_str)),
        ("PresenceQuery", "userIds") => field["maxItems"] = json!(limits::PRESENCE_USERS),
        _ => {}
    }
}

/// The codes of refusals, and on Socket.IO the reasons of closes, which come in the same field.
fn refusal_codes() -> Vec<&'static str> {
    let mut codes: Vec<_> = Code::ALL.map(Code::as_str).to_vec();
    for reason in CloseCode::ALL.map(CloseCode::reason) {
        if !codes.contains(&reason) {
            codes.push(reason);
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use domain::message::MessageType;
    use domain::presence::Status;
    use domain::room::{Role, RoomKind};

    use super::*;

    #[test]
    fn whatever_is_said_about_a_field_is_about_one_that_exists() {
        let schemas = all();
        let there = |schema: &str, field: &str| schemas[schema]["properties"].get(field).is_some();
        assert!(VALUES.iter().all(|(schema, field, _)| there(schema, field)));
        assert!(LIMITS.iter().all(|(schema, field, _, _)| there(schema, field)));
        for id in IDS {
            assert!(schemas.keys().any(|schema| there(schema, id)), "{id}");
        }
        for (name, schema) in &schemas {
            for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                assert!(there(name, field), "{name}.{field}");
            }
        }
    }

    #[test]
    fn values_are_those_that_the_code_knows() {
        for (schema, field, values) in VALUES {
            for value in values {
                let known = match (schema, field) {
                    ("MessageSend" | "MessageDelivered", _) => MessageType::parse(Some(value)).is_ok(),
                    ("PresenceSet", _) => Status::parse(value).is_some(),
                    ("RoomCreated", _) => RoomKind::parse(value).is_ok(),
                    (_, "role") => Role::parse(value).is_some(),
                    _ => true,
                };
                assert!(known, "{schema}.{field}: {value}");
            }
        }
    }

    #[test]
    fn null_and_defaults_are_not_shown() {
        let text = serde_json::to_string(&all()).expect("JSON");
        assert!(!text.contains("\"null\"") && !text.contains("\"default\""));
    }
}
