//! A failed event in words, for whoever triages dead letters without any other tool.

use broker::{DeadLetterNote, Incoming};
use handlers::Job;
use protocol::Change;
use protocol::wire::Event;
use serde_json::{Value, json};
use uuid::Uuid;

/// A rendering longer than this is cut: headers are not for essays.
const RENDERING_BYTES: usize = 4096;

pub(crate) fn of_job(incoming: &Incoming, job: &Job) -> DeadLetterNote {
    DeadLetterNote {
        sender: Some(job.event.actor.to_string()),
        room: (!job.event.room_id.0.is_nil()).then(|| job.event.room_id.to_string()),
        rendering: rendering(incoming.envelope.peek()),
    }
}

/// What an event that is not believed claims to be.
pub(crate) fn of_unverified(incoming: &Incoming) -> DeadLetterNote {
    let event = incoming.envelope.peek();
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).ok().filter(|id| !id.is_nil()).map(|id| id.to_string());
    DeadLetterNote {
        sender: event.as_ref().and_then(|event| id(&event.actor_id)),
        room: event.as_ref().and_then(|event| id(&event.room_id)),
        rendering: rendering(event),
    }
}

/// An event that killed whoever read it is not read once more.
pub(crate) fn of_killer() -> DeadLetterNote {
    DeadLetterNote { rendering: "(not read: it kills who reads it)".to_owned(), ..Default::default() }
}

/// Written in this order, so that what is cut off is the end of a long content.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Rendering {
    job_id: Value,
    room_id: Value,
    actor_id: Value,
    device_id: String,
    accepted_at: String,
    change: Value,
}

fn rendering(event: Option<Event>) -> String {
    let Some(event) = event else { return "(unreadable)".to_owned() };
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).map_or(Value::Null, |id| json!(id.to_string()));
    let rendered = Rendering {
        job_id: id(&event.job_id),
        room_id: id(&event.room_id),
        actor_id: id(&event.actor_id),
        device_id: event.device_id.clone(),
        accepted_at: domain::Timestamp(event.accepted_at_ms).to_rfc3339(),
        change: event.change.as_ref().map_or(Value::Null, change),
    };
    let mut text = serde_json::to_string(&rendered).unwrap_or_default();
    if text.len() > RENDERING_BYTES {
        let end = (0..=RENDERING_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn change(change: &Change) -> Value {
    let (name, data) = match change {
        Change::MessageSend(it) => ("message.send", serde_json::to_value(it)),
        Change::MessageEdit(it) => ("message.edit", serde_json::to_value(it)),
        Change::MessageDelete(it) => ("message.delete", serde_json::to_value(it)),
        Change::MessageReact(it) => ("message.react", serde_json::to_value(it)),
        Change::MemberAdd(it) => ("room.memberAdd", serde_json::to_value(it)),
        Change::MemberRemove(it) => ("room.memberRemove", serde_json::to_value(it)),
        Change::RoomUpdate(it) => ("room.update", serde_json::to_value(it)),
        Change::Typing(it) => ("typing", serde_json::to_value(it)),
        Change::PresenceSet(it) => ("presence.set", serde_json::to_value(it)),
    };
    json!({ "event": name, "data": data.unwrap_or(Value::Null) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::wire::MessageSend;

    #[test]
    fn a_rendering_says_who_what_and_where_and_is_cut_when_long() {
        let send = MessageSend { content: "é".repeat(9000), client_msg_id: "m1".into(), ..Default::default() };
        let room = Uuid::from_u128(7);
        let event =
            Event { room_id: room.as_bytes().to_vec(), change: Some(Change::MessageSend(send)), ..Default::default() };
        let text = rendering(Some(event));
        assert!(text.contains(&room.to_string()) && text.len() < RENDERING_BYTES + 8);
        assert_eq!(rendering(None), "(unreadable)");
    }
}
