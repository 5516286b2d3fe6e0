//! Binary attachments: they follow the packet that names them, one binary message each.
//!
//! The invariant: what waits is bounded in number and bytes, and costs nothing while nothing waits.

use bytes::Bytes;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::packet::{BadPacket, Message};

/// A packet with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The packet's text.
    pub packet: Utf8Bytes,
    /// Its attachments, by the numbers of their placeholders.
    pub attachments: Vec<Bytes>,
}

/// Puts packets and their attachments together.
#[derive(Debug, Default)]
pub struct Assembler {
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    assembled: Assembled,
    count: usize,
    bytes_left: usize,
}

impl Assembler {
    /// True while attachments of a packet are outstanding: no other packet may come.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Waits for the attachments of a packet, together of at most `max_bytes`; `message` is what its
    /// text was read as.
    pub fn begin(&mut self, packet: Utf8Bytes, message: &Message<'_>, max_bytes: usize) -> Result<(), BadPacket> {
        if self.is_waiting() || message.attachments == 0 {
            return Err(BadPacket);
        }
        let args: Value = serde_json::from_str(message.args).map_err(|_| BadPacket)?;
        if !has_placeholders(&args, message.attachments) {
            return Err(BadPacket);
        }
        let assembled = Assembled { packet, attachments: Vec::new() };
        self.waiting = Some(Box::new(Waiting { assembled, count: message.attachments, bytes_left: max_bytes }));
        Ok(())
    }

    /// Takes an attachment; answers the packet when it is whole.
    pub fn add(&mut self, data: Bytes) -> Result<Option<Assembled>, BadPacket> {
        let mut waiting = self.waiting.take().ok_or(BadPacket)?;
        waiting.bytes_left = waiting.bytes_left.checked_sub(data.len()).ok_or(BadPacket)?;
        waiting.assembled.attachments.push(data);
        if waiting.assembled.attachments.len() == waiting.count {
            return Ok(Some(waiting.assembled));
        }
        self.waiting = Some(waiting);
        Ok(None)
    }
}

/// True when every placeholder in `args` names one of `count` attachments, and all are named.
fn has_placeholders(args: &Value, count: usize) -> bool {
    let mut named = vec![false; count];
    is_consistent(args, &mut named) && named.into_iter().all(|named| named)
}

fn is_consistent(value: &Value, named: &mut [bool]) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| is_consistent(item, named)),
        Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = fields.get("num").and_then(Value::as_u64).and_then(|num| usize::try_from(num).ok());
            number.and_then(|num| named.get_mut(num)).is_some_and(|named| {
                *named = true;
                true
            })
        }
        Value::Object(fields) => fields.values().all(|field| is_consistent(field, named)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socketio::{Packet, parse};

    fn begin(assembler: &mut Assembler, text: &'static str) -> Result<(), BadPacket> {
        let Packet::Message(message) = parse(text)? else { return Err(BadPacket) };
        assembler.begin(text.into(), &message, 10)
    }

    const TWO: &str = r#"52-["a",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]"#;

    #[test]
    fn a_packet_is_whole_with_its_last_attachment() {
        let mut assembler = Assembler::default();
        begin(&mut assembler, TWO).expect("begun");
        assert_eq!(assembler.add(Bytes::from_static(b"x")), Ok(None));
        let whole = assembler.add(Bytes::from_static(b"y")).expect("taken").expect("whole");
        assert_eq!((whole.packet.as_str(), whole.attachments), (TWO, vec!["x".into(), "y".into()]));
        assert!(!assembler.is_waiting());
    }

    #[test]
    fn attachments_are_bounded_and_belong_to_a_packet() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.add(Bytes::new()), Err(BadPacket));
        begin(&mut assembler, TWO).expect("begun");
        assert_eq!(begin(&mut assembler, TWO), Err(BadPacket));
        assert_eq!(assembler.add(Bytes::from_static(&[0; 11])), Err(BadPacket));
    }

    #[test]
    fn placeholders_name_all_attachments_and_no_others() {
        for bad in [
            r#"51-["a"]"#,
            r#"51-["a",{"_placeholder":true,"num":1}]"#,
            r#"51-["a",{"_placeholder":true,"num":-1}]"#,
            r#"51-["a",{"_placeholder":true}]"#,
            r#"52-["a",{"_placeholder":true,"num":0}]"#,
            r#"50-["a"]"#,
            "51-[",
        ] {
            assert_eq!(begin(&mut Assembler::default(), bad), Err(BadPacket), "{bad}");
        }
    }
}
