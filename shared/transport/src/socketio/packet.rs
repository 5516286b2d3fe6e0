//! Socket.IO v5 packets (<https://socket.io/docs/v4/socket-io-protocol/>): type, namespace, ack id, JSON.
//!
//! Knows no session. The invariant: borrows from the text and builds nothing before the nesting of
//! its JSON was checked.

use protocol::nesting;
use serde_json::value::RawValue;

use super::PACKET_ATTACHMENTS;

/// A longer name of a namespace breaks the protocol; a shorter one is refused by name.
const NAMESPACE_BYTES: usize = 1024;

/// A packet from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Asks to be let into a namespace; `auth` is the JSON object of its credentials, if any.
    Connect {
        /// Its name, `/` by default.
        namespace: &'a str,
        /// The JSON object of its credentials, if any.
        auth: Option<&'a str>,
    },
    /// Leaves a namespace.
    Disconnect {
        /// Its name.
        namespace: &'a str,
    },
    /// An event, or an answer to one.
    Message(Message<'a>),
}

/// An event, or an answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// True for an answer.
    pub is_ack: bool,
    /// Asks for an answer under this number, or is one.
    pub id: Option<u64>,
    /// So many binary attachments follow.
    pub attachments: usize,
    /// The JSON array of its arguments; an event's first one is its name. Not yet checked.
    pub args: &'a str,
}

/// Not a packet, or not one a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPacket;

/// Reads a packet; its JSON only as far as the nesting goes.
pub fn parse(text: &str) -> Result<Packet<'_>, BadPacket> {
    if nesting::is_deeper_than(text.as_bytes(), domain::limits::FRAME_NESTING) {
        return Err(BadPacket);
    }
    let (kind, rest) = text.split_at_checked(1).ok_or(BadPacket)?;
    let (attachments, rest) = if matches!(kind, "5" | "6") { split_attachments(rest)? } else { (0, rest) };
    let (namespace, rest) = split_namespace(rest)?;
    let (id, json) = split_id(rest)?;
    let message = |is_ack| Packet::Message(Message { namespace, is_ack, id, attachments, args: json });
    match kind {
        "0" => {
            let auth = (!json.is_empty()).then_some(json);
            let is_object = auth.is_none_or(|json| json.starts_with('{') && is_json(json));
            if is_object && id.is_none() { Ok(Packet::Connect { namespace, auth }) } else { Err(BadPacket) }
        }
        "1" if rest.is_empty() => Ok(Packet::Disconnect { namespace }),
        "2" | "5" => Ok(message(false)),
        "3" | "6" if id.is_some() => Ok(message(true)),
        _ => Err(BadPacket),
    }
}

/// How many binary attachments follow: `2-`.
fn split_attachments(text: &str) -> Result<(usize, &str), BadPacket> {
    let (count, rest) = text.split_once('-').ok_or(BadPacket)?;
    match count.parse() {
        Ok(count) if count <= PACKET_ATTACHMENTS && !rest.is_empty() => Ok((count, rest)),
        _ => Err(BadPacket),
    }
}

/// `/chat,…` or `/chat` alone; without it the namespace is `/`. A query string after the name
/// belongs to older clients and is cut off.
fn split_namespace(text: &str) -> Result<(&str, &str), BadPacket> {
    if !text.starts_with('/') {
        return Ok(("/", text));
    }
    let (namespace, rest) = text.split_once(',').unwrap_or((text, ""));
    let name = namespace.split('?').next().unwrap_or(namespace);
    if name.len() > NAMESPACE_BYTES { Err(BadPacket) } else { Ok((name, rest)) }
}

fn split_id(text: &str) -> Result<(Option<u64>, &str), BadPacket> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (id, rest) = text.split_at(digits);
    if id.is_empty() {
        return Ok((None, rest));
    }
    // Ids are a client's counter; what does not fit an integer that JSON clients can hold is none.
    match id.parse::<u64>() {
        Ok(id) if i64::try_from(id).is_ok() => Ok((Some(id), rest)),
        _ => Err(BadPacket),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// An event's name and its first argument's JSON.
pub fn event(args: &str) -> Result<(String, Option<&RawValue>), BadPacket> {
    let args: Vec<&RawValue> = serde_json::from_str(args).map_err(|_| BadPacket)?;
    let name = args.first().ok_or(BadPacket)?;
    let name: String = serde_json::from_str(name.get()).map_err(|_| BadPacket)?;
    Ok((name, args.get(1).copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn message<'a>(namespace: &'a str, is_ack: bool, id: Option<u64>, attachments: usize, args: &'a str) -> Packet<'a> {
        Packet::Message(Message { namespace, is_ack, id, attachments, args })
    }

    #[rstest]
    #[case("0", Packet::Connect { namespace: "/", auth: None })]
    #[case("0/chat,", Packet::Connect { namespace: "/chat", auth: None })]
    #[case("0/chat", Packet::Connect { namespace: "/chat", auth: None })]
    #[case(r#"0/chat,{"token":"t"}"#, Packet::Connect { namespace: "/chat", auth: Some(r#"{"token":"t"}"#) })]
    #[case(r#"0{"token":"t"}"#, Packet::Connect { namespace: "/", auth: Some(r#"{"token":"t"}"#) })]
    #[case("1/chat,", Packet::Disconnect { namespace: "/chat" })]
    #[case("1", Packet::Disconnect { namespace: "/" })]
    #[case(r#"2/chat,7["ping"]"#, message("/chat", false, Some(7), 0, r#"["ping"]"#))]
    #[case(r#"2["ping"]"#, message("/", false, None, 0, r#"["ping"]"#))]
    #[case("3/chat,1[]", message("/chat", true, Some(1), 0, "[]"))]
    #[case(r#"52-/chat,7["a",{}]"#, message("/chat", false, Some(7), 2, r#"["a",{}]"#))]
    #[case("61-1[{}]", message("/", true, Some(1), 1, "[{}]"))]
    fn packets_are_read(#[case] text: &str, #[case] expected: Packet<'_>) {
        assert_eq!(parse(text), Ok(expected));
    }

    #[rstest]
    #[case("")]
    #[case("x")]
    #[case("4/chat,{}")]
    #[case(r#"5/chat,["a"]"#)]
    #[case("5")]
    #[case("51-")]
    #[case("5x-[]")]
    #[case(r#"511-["a"]"#)]
    #[case("61-[]")]
    #[case("0/chat,[1]")]
    #[case("0/chat,{")]
    #[case("3/chat,[]")]
    #[case("2/chat,99999999999999999999[\"a\"]")]
    fn what_is_no_packet_is_an_error(#[case] text: &str) {
        assert_eq!(parse(text), Err(BadPacket));
    }

    #[test]
    fn deep_nesting_is_an_error_before_anything_is_built() {
        let deep = format!("2/chat,[\"a\",{}{}]", "[".repeat(40), "]".repeat(40));
        assert_eq!(parse(&deep), Err(BadPacket));
    }

    #[rstest]
    #[case(r#"["a",{"b":1},2]"#, Some(("a", Some(r#"{"b":1}"#))))]
    #[case(r#"["a"]"#, Some(("a", None)))]
    #[case("[]", None)]
    #[case("[1]", None)]
    #[case(r#"{"0":"a"}"#, None)]
    #[case("", None)]
    fn events_have_a_name_and_an_argument(#[case] args: &str, #[case] expected: Option<(&str, Option<&str>)>) {
        let read = event(args).ok();
        let read = read.as_ref().map(|(name, data)| (name.as_str(), data.map(RawValue::get)));
        assert_eq!(read, expected);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,120}") {
            if let Ok(Packet::Message(Message { args, .. })) = parse(&text) {
                let _ = event(args);
            }
        }

        #[test]
        fn digits_namespaces_and_json_in_any_mixture_do_not_panic(text in "[0-9/,?{}\\[\\]\"a-c:-]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn an_event_survives_the_wrapping(name in "[a-z.]{1,20}", id in 0u64..1_000_000, value in "\\PC{0,40}") {
            let data = serde_json::json!({ "value": value }).to_string();
            let text = format!("2/chat,{id}[{},{data}]", serde_json::json!(name));
            let Ok(Packet::Message(Message { namespace, id: read_id, args, .. })) = parse(&text) else {
                panic!("an event")
            };
            proptest::prop_assert_eq!((namespace, read_id), ("/chat", Some(id)));
            let (read_name, read_data) = event(args).expect("well-formed");
            proptest::prop_assert_eq!(read_name, name);
            proptest::prop_assert_eq!(read_data.map(RawValue::get), Some(data.as_str()));
        }
    }
}
