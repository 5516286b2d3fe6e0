//! How a session's events and acks look as Socket.IO packets.
//!
//! The packets themselves are read by `transport`; how a client is let in is for `session` to decide.
//! The invariant: everything is said in the namespace `/chat`; to any other a client is told `Invalid
//! namespace`.

use bytes::Bytes;
use domain::limits::FRAME_BYTES;
use protocol::{Ack, ClientFrame, EventData, FrameId, Refusal, command, event, json, wire};
use realtime::LogNumber;
use serde_json::Value;
use transport::engineio::packet as engine;
use transport::socketio::{Assembled, Assembler, BadPacket, Message, Packet, event as read_event, parse};
use uuid::Uuid;

/// The one namespace.
pub(crate) const NAMESPACE: &str = "/chat";
/// Ends the client's stay in the namespace.
pub(crate) const DISCONNECT: &str = "41/chat,";
/// The offset of an event after which a connection cannot be recovered.
pub(crate) const VOID: &str = "-";

/// What a client says.
#[derive(Debug)]
pub(crate) enum Said {
    Frame(ClientFrame),
    /// It leaves the namespace.
    Leave,
    /// It leaves altogether.
    Close,
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
    /// What the stock client adds when it comes back; other values are its application's own.
    pid: Option<Value>,
    offset: Option<Value>,
}

/// Asks for the recovery of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The connection's secret.
    pub(crate) pid: Uuid,
    /// The last thing it got.
    pub(crate) after: LogNumber,
}

impl Auth {
    /// What is to be recovered, if that is asked for and can be.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let pid = Uuid::try_parse(self.pid.as_ref()?.as_str()?).ok()?;
        let after = LogNumber(self.offset.as_ref()?.as_str()?.parse().ok()?);
        after.is_some().then_some(Claim { pid, after })
    }
}

/// Reads a text packet; one with attachments is left with `assembler`.
pub(crate) fn read(text: &str, assembler: &mut Assembler) -> Result<Said, BadPacket> {
    let message = match engine::parse(text).map_err(|_| BadPacket)? {
        engine::Packet::Close => return Ok(Said::Close),
        engine::Packet::Pong | engine::Packet::Noop => return Ok(Said::Nothing),
        engine::Packet::Message(_) if assembler.is_waiting() => return Err(BadPacket),
        engine::Packet::Message(message) => message,
    };
    match parse(message)? {
        Packet::Connect { namespace, auth } => Ok(Said::Connect(connect(namespace, auth))),
        Packet::Disconnect { namespace } if namespace == NAMESPACE => Ok(Said::Leave),
        Packet::Disconnect { .. } => Ok(Said::Nothing),
        Packet::Message(parsed) if parsed.attachments > 0 => {
            assembler.begin(message.into(), &parsed, FRAME_BYTES)?;
            Ok(Said::Nothing)
        }
        Packet::Message(message) => said(&message),
    }
}

/// Takes an attachment. No event here has binary data: where a placeholder stands, a field of the
/// wrong type is refused like any other.
pub(crate) fn attach(data: Bytes, assembler: &mut Assembler) -> Result<Said, BadPacket> {
    let Some(Assembled { packet, .. }) = assembler.add(data)? else { return Ok(Said::Nothing) };
    match parse(&packet)? {
        Packet::Message(message) => said(&message),
        Packet::Connect { .. } | Packet::Disconnect { .. } => Err(BadPacket),
    }
}

fn connect(namespace: &str, auth: Option<&str>) -> Connect {
    let auth = auth.map_or_else(|| Ok(Auth::default()), json::read).map_err(|refusal| match &refusal.field {
        // What is no token is a bad one.
        Some(field) if field.starts_with("token") => Refusal::unauthenticated("the token is not valid"),
        _ => refusal,
    });
    Connect { namespace: namespace.to_owned(), auth }
}

fn said(message: &Message<'_>) -> Result<Said, BadPacket> {
    if message.is_ack {
        // We ask for none.
        return Ok(Said::Nothing);
    }
    if message.namespace != NAMESPACE {
        return Err(BadPacket);
    }
    let (name, data) = read_event(message.args)?;
    let command = command::from_json(&name, data.map(serde_json::value::RawValue::get));
    Ok(Said::Frame(ClientFrame { id: message.id.map(|id| FrameId::Number(id as i64)), command }))
}

/// Lets a client into the namespace; with `pid` it can be recovered.
pub(crate) fn accept(socket_id: &str, pid: Option<Uuid>) -> Bytes {
    match pid {
        Some(pid) => format!(r#"40{NAMESPACE},{{"sid":"{socket_id}","pid":"{}"}}"#, pid.simple()).into(),
        None => format!(r#"40{NAMESPACE},{{"sid":"{socket_id}"}}"#).into(),
    }
}

/// Refuses a client: `message` is the code, `data` the refusal.
pub(crate) fn refuse(refusal: &Refusal) -> Bytes {
    let data = wire::Refusal::from(refusal.clone());
    let body = serde_json::json!({ "message": refusal.code.as_str(), "data": data });
    format!("44{NAMESPACE},{body}").into()
}

/// Refuses a namespace that is not there.
pub(crate) fn refuse_namespace(namespace: &str) -> Bytes {
    let body = r#"{"message":"Invalid namespace"}"#;
    if namespace == "/" { format!("44{body}").into() } else { format!("44{namespace},{body}").into() }
}

/// Appends an event packet; `offset` comes last, where the stock client looks for it.
pub(crate) fn write_event(data: &EventData, offset: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"42/chat,[\"");
    out.extend_from_slice(event::name(data).as_bytes());
    out.extend_from_slice(b"\",");
    json::write_event_data(data, out);
    if let Some(offset) = offset {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(offset.as_bytes());
        out.push(b'"');
    }
    out.push(b']');
}

/// The first event of a new connection. The stock client keeps the offset of an earlier one, which
/// says nothing about this one: it is made void.
pub(crate) fn first_event(data: &EventData) -> Bytes {
    let mut out = Vec::with_capacity(256);
    write_event(data, Some(VOID), &mut out);
    out.into()
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

    fn read_one(text: &str) -> Result<Said, BadPacket> {
        read(text, &mut Assembler::default())
    }

    #[test]
    fn an_event_with_an_id_is_a_command_to_be_acked() {
        let Ok(Said::Frame(frame)) = read_one(r#"42/chat,3["typing",{"roomId":"r","isTyping":true}]"#) else {
            panic!("a frame")
        };
        assert_eq!(frame.id, Some(FrameId::Number(3)));
        assert!(matches!(frame.command, Ok(Command::Typing(typing)) if typing.is_typing));
    }

    #[test]
    fn bad_data_refuses_the_event_and_bad_packets_the_client() {
        let Ok(Said::Frame(frame)) = read_one(r#"42/chat,3["typing","x"]"#) else { panic!("a frame") };
        assert_eq!(frame.command.expect_err("refused").code, Code::InvalidPayload);
        for bad in ["", "hello", "42/chat,[7]", "42/chat,{}", "42[\"ping\"]", "451-/chat,[\"a\"]", "9"] {
            assert!(read_one(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn binary_data_is_waited_for_and_then_refused_like_any_wrong_type() {
        let mut assembler = Assembler::default();
        let text = r#"451-/chat,3["typing",{"roomId":{"_placeholder":true,"num":0},"isTyping":true}]"#;
        assert!(matches!(read(text, &mut assembler), Ok(Said::Nothing)));
        assert!(read(r#"42/chat,["ping"]"#, &mut assembler).is_err(), "a packet between");
        let Ok(Said::Frame(frame)) = attach(Bytes::from_static(b"x"), &mut assembler) else { panic!("a frame") };
        assert_eq!(frame.id, Some(FrameId::Number(3)));
        let refusal = frame.command.expect_err("refused");
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidPayload, Some("roomId")));
        assert!(attach(Bytes::new(), &mut assembler).is_err(), "nothing to attach it to");
    }

    #[test]
    fn leaving_the_namespace_is_not_leaving_altogether() {
        assert!(matches!(read_one("41/chat,"), Ok(Said::Leave)));
        assert!(matches!(read_one("41/other,"), Ok(Said::Nothing)));
        assert!(matches!(read_one("1"), Ok(Said::Close)));
    }

    #[test]
    fn credentials_are_read_where_they_are() {
        let connect = |text| match read_one(text) {
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
    fn a_recovery_is_asked_for_with_a_secret_and_an_offset() {
        let claim = |auth: &str| serde_json::from_str::<Auth>(auth).expect("read").claim();
        let pid = "0123456789abcdef0123456789abcdef";
        let asked = claim(&format!(r#"{{"pid":"{pid}","offset":"17"}}"#)).expect("asked for");
        assert_eq!((asked.pid.simple().to_string().as_str(), asked.after), (pid, LogNumber(17)));
        for other in [r#""offset":"-""#, r#""offset":17"#, r#""x":1"#, r#""offset":"0""#] {
            assert_eq!(claim(&format!(r#"{{"pid":"{pid}",{other}}}"#)), None, "{other}");
        }
        assert_eq!(claim(r#"{"pid":7,"offset":"17"}"#), None);
    }

    #[test]
    fn refusals_carry_code_and_refusal() {
        let text = refuse(&Refusal::unauthenticated("no"));
        let json = text.strip_prefix(b"44/chat,").expect("prefix");
        let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(json["message"], "UNAUTHENTICATED");
        assert_eq!(json["data"]["status"], "REJECTED");
        assert_eq!(refuse_namespace("/"), r#"44{"message":"Invalid namespace"}"#);
        assert_eq!(refuse_namespace("/x"), r#"44/x,{"message":"Invalid namespace"}"#);
    }
}
