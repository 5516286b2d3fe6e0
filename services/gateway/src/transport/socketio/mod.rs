//! Socket.IO v5 over Engine.IO v4: how a session's events and acks look on that wire.
//!
//! The packets themselves are `engine` and `packet`; how a client is let in is for `session` to
//! decide. The invariant: everything is said in the namespace `/chat`; to any other a client is told
//! `Invalid namespace`.

pub(crate) mod engine;
pub(crate) mod packet;

use protocol::{Ack, ClientFrame, EventData, FrameId, Refusal, command, event, json, wire};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use packet::BadPacket;

/// The one namespace.
pub(crate) const NAMESPACE: &str = "/chat";
/// Ends the client's stay in the namespace.
pub(crate) const DISCONNECT: &str = "41/chat,";

/// What a client in the namespace says.
#[derive(Debug)]
pub(crate) enum Said {
    Frame(ClientFrame),
    /// It leaves the namespace or the whole transport.
    Leave,
    /// It asks to be let into a namespace.
    Connect(Connect),
    /// Nothing that needs an answer.
    Nothing,
}

/// A request to be let into a namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) namespace: String,
    pub(crate) auth: Result<Auth, Refusal>,
}

/// The credentials in such a request.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Auth {
    pub(crate) token: Option<String>,
    pub(crate) device_id: Option<String>,
}

/// Reads a text packet.
pub(crate) fn read(text: &str) -> Result<Said, BadPacket> {
    let message = match engine::parse(text).map_err(|_| BadPacket)? {
        engine::Packet::Close => return Ok(Said::Leave),
        engine::Packet::Pong | engine::Packet::Noop => return Ok(Said::Nothing),
        engine::Packet::Message(message) => message,
    };
    match packet::parse(message)? {
        packet::Packet::Connect { namespace, auth } => {
            let auth = auth.map_or_else(|| Ok(Auth::default()), json::read).map_err(|refusal| match &refusal.field {
                // What is no token is a bad one.
                Some(field) if field.starts_with("token") => Refusal::unauthenticated("the token is not valid"),
                _ => refusal,
            });
            Ok(Said::Connect(Connect { namespace: namespace.to_owned(), auth }))
        }
        packet::Packet::Disconnect { namespace } if namespace == NAMESPACE => Ok(Said::Leave),
        packet::Packet::Event { namespace, id, args } if namespace == NAMESPACE => {
            let (name, data) = packet::event(args)?;
            let command = command::from_json(&name, data.map(serde_json::value::RawValue::get));
            Ok(Said::Frame(ClientFrame { id: id.map(|id| FrameId::Number(id as i64)), command }))
        }
        packet::Packet::Event { .. } => Err(BadPacket),
        packet::Packet::Disconnect { .. } | packet::Packet::Ack { .. } => Ok(Said::Nothing),
    }
}

/// Lets a client into the namespace.
pub(crate) fn accept(session: &str) -> Utf8Bytes {
    format!(r#"40{NAMESPACE},{{"sid":"{session}"}}"#).into()
}

/// Refuses a client: `message` is the code, `data` the refusal.
pub(crate) fn refuse(refusal: &Refusal) -> Utf8Bytes {
    let data = wire::Refusal::from(refusal.clone());
    let body = serde_json::json!({ "message": refusal.code.as_str(), "data": data });
    format!("44{NAMESPACE},{body}").into()
}

/// Refuses a namespace that is not there.
pub(crate) fn refuse_namespace(namespace: &str) -> Utf8Bytes {
    let body = r#"{"message":"Invalid namespace"}"#;
    if namespace == "/" { format!("44{body}").into() } else { format!("44{namespace},{body}").into() }
}

/// Appends an event packet.
pub(crate) fn write_event(data: &EventData, out: &mut Vec<u8>) {
    out.extend_from_slice(b"42/chat,[\"");
    out.extend_from_slice(event::name(data).as_bytes());
    out.extend_from_slice(b"\",");
    json::write_event_data(data, out);
    out.push(b']');
}

/// Appends an ack packet.
pub(crate) fn write_ack(id: &FrameId, ack: &Ack, out: &mut Vec<u8>) {
    out.extend_from_slice(b"43/chat,");
    match id {
        FrameId::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        FrameId::Text(_) => {}
    }
    out.push(b'[');
    json::write_ack_data(ack, out);
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Code, Command};

    #[test]
    fn an_event_with_an_id_is_a_command_to_be_acked() {
        let Ok(Said::Frame(frame)) = read(r#"42/chat,3["typing",{"roomId":"r","isTyping":true}]"#) else {
            panic!("a frame")
        };
        assert_eq!(frame.id, Some(FrameId::Number(3)));
        assert!(matches!(frame.command, Ok(Command::Typing(typing)) if typing.is_typing));
    }

    #[test]
    fn bad_data_refuses_the_event_and_bad_packets_the_client() {
        let Ok(Said::Frame(frame)) = read(r#"42/chat,3["typing","x"]"#) else { panic!("a frame") };
        assert_eq!(frame.command.expect_err("refused").code, Code::InvalidPayload);
        for bad in ["", "hello", "42/chat,[7]", "42/chat,{}", "42[\"ping\"]", "451-/chat,[\"a\"]", "9"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn credentials_are_read_where_they_are() {
        let connect = |text| match read(text) {
            Ok(Said::Connect(connect)) => connect,
            other => panic!("{other:?}"),
        };
        let auth = connect(r#"40/chat,{"token":"t","deviceId":"d","more":1}"#).auth.expect("read");
        assert_eq!((auth.token.as_deref(), auth.device_id.as_deref()), (Some("t"), Some("d")));
        let refusal = connect(r#"40/chat,{"token":"t","deviceId":5}"#).auth.expect_err("refused");
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidPayload, Some("deviceId")));
        assert_eq!(connect("40").namespace, "/");
    }

    #[test]
    fn refusals_carry_code_and_refusal() {
        let text = refuse(&Refusal::unauthenticated("no"));
        let json: serde_json::Value =
            serde_json::from_str(text.strip_prefix("44/chat,").expect("prefix")).expect("JSON");
        assert_eq!(json["message"], "UNAUTHENTICATED");
        assert_eq!(json["data"]["status"], "REJECTED");
        assert_eq!(refuse_namespace("/").as_str(), r#"44{"message":"Invalid namespace"}"#);
        assert_eq!(refuse_namespace("/x").as_str(), r#"44/x,{"message":"Invalid namespace"}"#);
    }
}
