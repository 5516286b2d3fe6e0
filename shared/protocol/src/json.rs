//! The JSON codec: native frames, and the pieces that Socket.IO wraps in its own way.

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::value::RawValue;

use crate::command::{self, ClientFrame, FrameId};
use crate::{Ack, CloseCode, EventData, Refusal, event, nesting};

/// A native frame before its command is read; borrows from the text.
#[derive(serde::Deserialize)]
struct RawFrame<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    event: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Reads a native text frame. `Err`: it is no frame and the connection closes.
pub fn decode(text: &str) -> Result<ClientFrame, CloseCode> {
    if nesting::is_deeper_than(text.as_bytes(), domain::limits::FRAME_NESTING) {
        return Err(CloseCode::BadFrame);
    }
    // A JSON array would also fill the struct's fields by position; a frame is an object.
    if !text.trim_start().starts_with('{') {
        return Err(CloseCode::BadFrame);
    }
    let frame: RawFrame<'_> = serde_json::from_str(text).map_err(|_| CloseCode::BadFrame)?;
    let (id, bad_id) = match frame.id.map(|raw| read_id(raw.get())).transpose() {
        Ok(id) => (id.flatten(), None),
        Err(refusal) => (None, Some(refusal)),
    };
    let command = match bad_id {
        Some(refusal) => Err(refusal),
        None => command::from_json(&frame.event, frame.data.map(RawValue::get)),
    };
    Ok(ClientFrame { id, command })
}

fn read_id(raw: &str) -> Result<Option<FrameId>, Refusal> {
    if raw == "null" {
        return Ok(None);
    }
    if let Ok(number) = raw.parse::<i64>() {
        return Ok(Some(FrameId::Number(number)));
    }
    match serde_json::from_str::<String>(raw) {
        Ok(text) if text.chars().count() <= domain::limits::FRAME_ID_CHARS => Ok(Some(FrameId::Text(text))),
        _ => Err(Refusal::invalid("id", "must be an integer or a string of at most 64 characters")),
    }
}

/// Reads an object into a message; a wrong type names its field.
pub fn read<T: DeserializeOwned>(data: &str) -> Result<T, Refusal> {
    if !data.trim_start().starts_with('{') {
        return Err(Refusal::invalid("data", "must be an object"));
    }
    serde_json::from_str(data).map_err(|_| explain::<T>(data))
}

/// For a field with a default: `null` is as if the field was not there.
pub fn null_is_absent<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(reader: D) -> Result<T, D::Error> {
    Option::deserialize(reader).map(Option::unwrap_or_default)
}

/// Reads again, slowly, to find out which field was wrong.
fn explain<T: DeserializeOwned>(data: &str) -> Refusal {
    let reader = &mut serde_json::Deserializer::from_str(data);
    match serde_path_to_error::deserialize::<_, T>(reader) {
        Ok(_) => Refusal::invalid("data", "is not one JSON object"),
        Err(error) => {
            let path = error.path().to_string();
            let field = if path == "." { "data".to_owned() } else { path };
            Refusal::invalid(field, "has the wrong type or is malformed")
        }
    }
}

/// Appends `{"event":"…","data":{…}}`.
pub fn write_event(data: &EventData, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"");
    out.extend_from_slice(event::name(data).as_bytes());
    out.extend_from_slice(b"\",\"data\":");
    write_event_data(data, out);
    out.push(b'}');
}

/// Appends an event's data alone.
pub fn write_event_data(data: &EventData, out: &mut Vec<u8>) {
    match data {
        EventData::SessionReady(it) => write(it, out),
        EventData::AuthExpiring(it) => write(it, out),
        EventData::ServerDraining(it) => write(it, out),
        EventData::Error(it) => write(it, out),
        EventData::DeviceTaken(it) => write(it, out),
        EventData::SessionRevoked(it) => write(it, out),
        EventData::MessageDelivered(it) => write(it, out),
        EventData::MessageFailed(it) => write(it, out),
        EventData::MessageEdited(it) => write(it, out),
        EventData::MessageDeleted(it) => write(it, out),
        EventData::MessageReaction(it) => write(it, out),
        EventData::MessageRead(it) => write(it, out),
        EventData::RoomCreated(it) => write(it, out),
        EventData::RoomUpdated(it) => write(it, out),
        EventData::RoomMemberJoined(it) => write(it, out),
        EventData::RoomMemberLeft(it) => write(it, out),
        EventData::RoomsBeacon(it) => write(it, out),
        EventData::Typing(it) => write(it, out),
        EventData::PresenceChanged(it) => write(it, out),
    }
}

/// Appends `{"id":…,"ack":{…}}`.
pub fn write_ack(id: &FrameId, ack: &Ack, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    match id {
        FrameId::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        FrameId::Text(text) => write(text, out),
    }
    out.extend_from_slice(b",\"ack\":");
    write_ack_data(ack, out);
    out.push(b'}');
}

/// Appends an ack's object alone.
pub fn write_ack_data(ack: &Ack, out: &mut Vec<u8>) {
    match ack {
        Ack::Queued(it) => write(it, out),
        Ack::Done(it) => write(it, out),
        Ack::RoomState(it) => write(it, out),
        Ack::SyncResult(it) => write(it, out),
        Ack::PresenceList(it) => write(it, out),
        Ack::Pong(it) => write(it, out),
        Ack::Refreshed(it) => write(it, out),
        Ack::Refusal(it) => write(it, out),
    }
}

fn write<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        // Writing plain data to memory fails only for map keys that are no strings; we have none.
        out.truncate(start);
        out.extend_from_slice(b"{}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Code, Command};
    use rstest::rstest;

    #[rstest]
    #[case("")]
    #[case("hello")]
    #[case("7")]
    #[case("[1,\"ping\"]")]
    #[case("{}")]
    #[case(r#"{"event":7}"#)]
    #[case(r#"{"event":null}"#)]
    #[case(r#"{"event":"ping""#)]
    #[case(r#"{"event":"ping"} x"#)]
    fn what_is_no_frame_closes_the_connection(#[case] text: &str) {
        assert_eq!(decode(text).err(), Some(CloseCode::BadFrame));
    }

    #[test]
    fn deep_nesting_closes_the_connection() {
        let at_limit = format!(r#"{{"event":"ping","data":{{"a":{}1{}}}}}"#, "[".repeat(30), "]".repeat(30));
        assert!(decode(&at_limit).is_ok());
        let deeper = format!(r#"{{"event":"ping","data":{{"a":{}1{}}}}}"#, "[".repeat(31), "]".repeat(31));
        assert_eq!(decode(&deeper).err(), Some(CloseCode::BadFrame));
    }

    #[rstest]
    #[case("7", Some(FrameId::Number(7)))]
    #[case("\"a\"", Some(FrameId::Text("a".into())))]
    #[case("null", None)]
    fn ids_are_integers_or_short_strings(#[case] id: &str, #[case] expected: Option<FrameId>) {
        let frame = decode(&format!(r#"{{"id":{id},"event":"ping"}}"#)).expect("a frame");
        assert_eq!(frame.id, expected);
        assert!(matches!(frame.command, Ok(Command::Ping(_))));
    }

    #[rstest]
    #[case("1.5")]
    #[case("true")]
    #[case("{}")]
    fn other_ids_are_refused_and_the_connection_stays(#[case] id: &str) {
        let frame = decode(&format!(r#"{{"id":{id},"event":"ping"}}"#)).expect("a frame");
        let refusal = frame.command.expect_err("refused");
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidPayload, Some("id")));
    }

    #[test]
    fn content_comes_back_byte_for_byte() {
        let content = "\u{2028}</script>\\\"é👍\n";
        let text = serde_json::json!({"event":"message.send","data":{"content":content}}).to_string();
        let Ok(Command::MessageSend(send)) = decode(&text).expect("a frame").command else { panic!("a send") };
        assert_eq!(send.content, content);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in "\\PC{0,200}") {
            let _ = decode(&text);
        }
    }
}
