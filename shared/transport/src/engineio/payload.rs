//! Several packets in one body: text as it is, binary as `b` and base64, `\x1e` between them.
//!
//! The invariant: a body is read whole or not at all.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{Frame, Received};

/// Between two packets.
const SEPARATOR: u8 = 0x1e;
/// Packets in one body; a client that has more to say says it in the next.
const PACKETS: usize = 4096;

/// Not a body of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPayload;

/// Reads a body.
pub(crate) fn decode(body: Bytes) -> Result<Vec<Received>, BadPayload> {
    let body = Utf8Bytes::try_from(body).map_err(|_| BadPayload)?;
    let mut packets = Vec::new();
    for part in body.as_str().split(char::from(SEPARATOR)) {
        if packets.len() == PACKETS {
            return Err(BadPayload);
        }
        packets.push(packet(part)?);
    }
    Ok(packets)
}

fn packet(text: &str) -> Result<Received, BadPayload> {
    match text.as_bytes().first() {
        Some(b'b') => {
            let data = &text.as_bytes()[1..];
            let data = STANDARD.decode(data).or_else(|_| STANDARD_NO_PAD.decode(data)).map_err(|_| BadPayload)?;
            Ok(Received::Binary(data.into()))
        }
        Some(b'1' | b'3' | b'4' | b'6') => Ok(Received::Text(text.into())),
        _ => Err(BadPayload),
    }
}

/// Appends a packet to a body.
pub(crate) fn encode(frame: Frame, body: &mut Vec<u8>) {
    if !body.is_empty() {
        body.push(SEPARATOR);
    }
    match frame {
        Frame::Text(text) => body.extend_from_slice(&text),
        Frame::Binary(data) => {
            body.push(b'b');
            body.extend_from_slice(STANDARD.encode(&data).as_bytes());
        }
        Frame::Ping => body.extend_from_slice(super::packet::PING.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_are_separated_and_binary_is_base64() {
        let body = Bytes::from_static(b"4hello\x1ebAQIDBA==\x1e3");
        let expected = [
            Received::Text("4hello".into()),
            Received::Binary(Bytes::from_static(&[1, 2, 3, 4])),
            Received::Text("3".into()),
        ];
        assert_eq!(decode(body), Ok(expected.to_vec()));
    }

    #[test]
    fn what_is_no_packet_spoils_the_body() {
        for bad in ["", "abc", "4a\x1e", "4a\x1ex", "0", "2probe", "5", "b*"] {
            assert_eq!(decode(bad.into()), Err(BadPayload), "{bad:?}");
        }
        assert_eq!(decode(Bytes::from_static(&[b'4', 0xff])), Err(BadPayload));
        assert_eq!(decode(vec!["3"; PACKETS + 1].join("\x1e").into()), Err(BadPayload));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 1..20)) {
            let (mut body, mut expected) = (Vec::new(), Vec::new());
            for (is_text, data) in parts {
                if is_text {
                    let text = format!("4{}", String::from_utf8_lossy(&data).replace('\x1e', " "));
                    expected.push(Received::Text(text.as_str().into()));
                    encode(Frame::Text(text.into()), &mut body);
                } else {
                    expected.push(Received::Binary(data.clone().into()));
                    encode(Frame::Binary(data.into()), &mut body);
                }
            }
            prop_assert_eq!(decode(body.into()), Ok(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(body.into());
        }
    }
}
