//! The JSON form of catching up: `{rooms:[{roomId, items, lastSeq, rev, reads, complete}]}`.

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use crate::EventData;
use crate::event;
use crate::wire::{RevEvent, SyncResult, SyncedRoom};

impl Serialize for SyncResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("rooms", &self.rooms)?;
        map.end()
    }
}

impl Serialize for SyncedRoom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(code) = &self.code {
            let mut map = serializer.serialize_struct("SyncedRoom", 4)?;
            map.serialize_field("roomId", &self.room_id)?;
            map.serialize_field("code", code)?;
            // Of a room that may not be seen, nothing.
            if self.rev > 0 {
                map.serialize_field("lastSeq", &self.last_seq)?;
                map.serialize_field("rev", &self.rev)?;
            }
            return map.end();
        }
        let mut map = serializer.serialize_struct("SyncedRoom", 6)?;
        map.serialize_field("roomId", &self.room_id)?;
        if self.by_rev {
            map.serialize_field("items", &self.events)?;
        } else {
            map.serialize_field("items", &self.messages)?;
        }
        map.serialize_field("lastSeq", &self.last_seq)?;
        map.serialize_field("rev", &self.rev)?;
        map.serialize_field("reads", &self.reads)?;
        map.serialize_field("complete", &self.complete)?;
        map.end()
    }
}

impl Serialize for RevEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("RevEvent", 3)?;
        if let Some(kind) = self.event.as_ref().and_then(|event| event.kind.as_ref()) {
            map.serialize_field("event", event::name(kind))?;
            map.serialize_field("data", &Data(kind))?;
        }
        // Read marks have no rev.
        if self.rev > 0 {
            map.serialize_field("rev", &self.rev)?;
        } else {
            map.skip_field("rev")?;
        }
        map.end()
    }
}

/// The events that catching up tells: those that consume a rev, and read marks.
macro_rules! synced {
    ($($event:ident $name:literal)*) => {
        /// Their names.
        pub const SYNCED: &[&str] = &[$($name),*];

        /// An event's data as a serde value.
        struct Data<'a>(&'a EventData);

        impl Serialize for Data<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    $(EventData::$event(it) => it.serialize(serializer),)*
                    _ => serializer.serialize_map(Some(0))?.end(),
                }
            }
        }

        #[test]
        fn what_is_synced_has_the_names_it_has_elsewhere() {
            $(assert_eq!(event::name(&EventData::$event(Default::default())), $name);)*
        }
    };
}

synced! {
    MessageDelivered "message.delivered"
    MessageEdited "message.edited"
    MessageDeleted "message.deleted"
    MessageReaction "message.reaction"
    MessageRead "message.read"
    RoomCreated "room.created"
    RoomUpdated "room.updated"
    RoomMemberJoined "room.memberJoined"
    RoomMemberLeft "room.memberLeft"
}

#[cfg(test)]
mod tests {
    use crate::EventData;
    use crate::wire::{MessageDeleted, RevEvent, SyncResult, SyncedRoom};

    #[test]
    fn a_room_whose_changes_are_not_kept_says_where_it_stands() {
        let code = Some("TOO_OLD".into());
        let old = SyncedRoom { room_id: "r".into(), code, last_seq: 3, rev: 7, ..Default::default() };
        let json = serde_json::to_string(&old).expect("plain data");
        assert_eq!(json, r#"{"roomId":"r","code":"TOO_OLD","lastSeq":3,"rev":7}"#);
    }

    #[test]
    fn a_forbidden_room_says_only_its_code() {
        let result = SyncResult {
            rooms: vec![SyncedRoom { room_id: "r".into(), code: Some("NOT_FOUND".into()), ..Default::default() }],
        };
        assert_eq!(
            serde_json::to_string(&result).expect("plain data"),
            r#"{"rooms":[{"roomId":"r","code":"NOT_FOUND"}]}"#
        );
    }

    #[test]
    fn by_rev_the_items_are_events() {
        let deleted = MessageDeleted { room_id: "r".into(), message_id: "m".into(), rev: 3, deleted_at: "t".into() };
        let room = SyncedRoom {
            room_id: "r".into(),
            by_rev: true,
            events: vec![RevEvent { rev: 3, event: Some(EventData::MessageDeleted(deleted).into()) }],
            last_seq: 2,
            rev: 3,
            complete: true,
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&room).expect("plain data"),
            r#"{"roomId":"r","items":[{"event":"message.deleted","data":{"roomId":"r","messageId":"m","rev":3,"deletedAt":"t"},"rev":3}],"lastSeq":2,"rev":3,"reads":[],"complete":true}"#
        );
    }
}
