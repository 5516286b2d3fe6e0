//! The JSON schemas of what `sync` answers, whose JSON form is written by hand in `sync.rs`.
//!
//! Knows shapes only. The invariant: the fields here are the fields that `sync.rs` writes (its tests below).

use std::borrow::Cow;

use serde_json::json;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::wire::{RevEvent, SyncResult, SyncedRoom};

fn schema(json: serde_json::Value) -> RefOr<Schema> {
    serde_json::from_value(json).expect("a schema written below as a literal")
}

impl PartialSchema for SyncResult {
    fn schema() -> RefOr<Schema> {
        schema(json!({
            "type": "object",
            "description": "sync's answer: the rooms asked for, each once.",
            "properties": { "rooms": { "type": "array", "items": { "$ref": "#/components/schemas/SyncedRoom" } } },
        }))
    }
}

impl PartialSchema for SyncedRoom {
    fn schema() -> RefOr<Schema> {
        schema(json!({
            "type": "object",
            "description": "A room caught up with, or `code` and no items when that cannot be.",
            "properties": {
                "roomId": { "type": "string" },
                "code": { "type": "string", "description": "NOT_FOUND, and then nothing else; or TOO_OLD with `lastSeq` and `rev`: what came since is not kept any more." },
                "items": {
                    "type": "array",
                    "description": "By seq the messages as they now stand, ascending by seq; by rev the events, ascending by rev.",
                    "items": { "oneOf": [
                        { "$ref": "#/components/schemas/MessageDelivered" },
                        { "$ref": "#/components/schemas/RevEvent" },
                    ] },
                },
                "lastSeq": { "type": "integer", "format": "int64" },
                "rev": { "type": "integer", "format": "int64" },
                "reads": { "type": "array", "items": { "$ref": "#/components/schemas/ReadMark" } },
                "complete": { "type": "boolean", "description": "False: ask again from the last item." },
            },
        }))
    }
}

impl PartialSchema for RevEvent {
    fn schema() -> RefOr<Schema> {
        schema(json!({
            "type": "object",
            "description": "An event as it was told live, with the rev that it consumed.",
            "properties": {
                "event": { "type": "string" },
                "data": { "type": "object" },
                "rev": { "type": "integer", "format": "int64" },
            },
        }))
    }
}

macro_rules! named {
    ($($message:ident)*) => {
        $(impl ToSchema for $message {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($message))
            }
        })*
    };
}

named! { SyncResult SyncedRoom RevEvent }

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::EventData;

    fn fields<T: PartialSchema>() -> BTreeSet<String> {
        let RefOr::T(Schema::Object(object)) = T::schema() else { panic!("an object") };
        object.properties.keys().cloned().collect()
    }

    fn written(value: &impl serde::Serialize) -> BTreeSet<String> {
        let value = serde_json::to_value(value).expect("plain data");
        value.as_object().expect("an object").keys().cloned().collect()
    }

    #[test]
    fn the_schemas_have_the_fields_that_are_written() {
        let event =
            RevEvent { rev: 1, event: Some(EventData::MessageDeleted(crate::wire::MessageDeleted::default()).into()) };
        assert_eq!(fields::<RevEvent>(), written(&event));
        assert_eq!(fields::<SyncResult>(), written(&SyncResult::default()));
        let hidden = SyncedRoom { code: Some("NOT_FOUND".to_owned()), ..Default::default() };
        let whole: BTreeSet<_> = written(&SyncedRoom::default()).union(&written(&hidden)).cloned().collect();
        assert_eq!(fields::<SyncedRoom>(), whole);
    }
}
