//! WebSocket frames (RFC 6455) as a client reads and writes them, without a copy where that is possible.
//!
//! A library would cost more than the servers that are measured with it: a generator that hears a million
//! deliveries a second may not allocate for each. Knows no dialect. The invariant: what `Reader` yields are
//! whole messages, however the bytes were cut.

/// A longer message ends the connection: no answer of a chat server is that long.
const LONGEST: usize = 64 * 1024 * 1024;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A text or a binary message.
    Data(&'a [u8]),
    /// To be answered with the same bytes.
    Ping(&'a [u8]),
    /// The end, with its code if there was one.
    Close(Option<u16>),
}

/// These bytes are no frames that a server may send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// What is left over between two reads, and the fragments of a message.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    rest: Vec<u8>,
    fragments: Vec<u8>,
}

#[derive(Debug)]
struct Head {
    is_final: bool,
    opcode: u8,
    start: usize,
    end: usize,
}

impl Reader {
    /// Tells `take` every whole message in `bytes` and what was left over before.
    pub(crate) fn read(&mut self, bytes: &[u8], take: &mut impl FnMut(Message<'_>)) -> Result<(), Broken> {
        if self.rest.is_empty() {
            let used = frames(&mut self.fragments, bytes, take)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let used = frames(&mut self.fragments, &all, take)?;
        // Idle connections keep no buffer.
        self.rest = if used == all.len() { Vec::new() } else { all.split_off(used) };
        Ok(())
    }
}

/// How many bytes were whole frames.
fn frames(fragments: &mut Vec<u8>, bytes: &[u8], take: &mut impl FnMut(Message<'_>)) -> Result<usize, Broken> {
    let mut at = 0;
    while let Some(head) = head(&bytes[at..])? {
        let payload = &bytes[at + head.start..at + head.end];
        at += head.end;
        match head.opcode {
            0..=2 if !head.is_final => {
                if fragments.len() + payload.len() > LONGEST {
                    return Err(Broken);
                }
                fragments.extend_from_slice(payload);
            }
            0 => {
                fragments.extend_from_slice(payload);
                take(Message::Data(&std::mem::take(fragments)));
            }
            1 | 2 => take(Message::Data(payload)),
            8 => take(Message::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code)))),
            9 => take(Message::Ping(payload)),
            10 => {}
            _ => return Err(Broken),
        }
    }
    Ok(at)
}

/// The frame that begins here, if all of it is here.
fn head(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(Broken);
    }
    let (start, length) = match second {
        126 => match bytes.get(2..4) {
            Some(length) => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| length.first_chunk()) {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        length => (2, u64::from(length)),
    };
    let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST).ok_or(Broken)?;
    let end = start + length;
    let head = Head { is_final: first & 0x80 != 0, opcode: first & 0x0f, start, end };
    Ok((bytes.len() >= end).then_some(head))
}

/// Opcodes that clients send.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opcode {
    /// UTF-8.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end.
    Close = 8,
    /// The answer to a ping.
    Pong = 10,
}

/// Appends one masked frame.
pub(crate) fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: u32) {
    out.push(0x80 | opcode as u8);
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..65_536 => {
            out.push(0x80 | 0x7e);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let key = mask.to_ne_bytes();
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    let mut chunks = out[start..].chunks_exact_mut(4);
    for chunk in &mut chunks {
        let masked = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) ^ mask;
        chunk.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..126 => frame.push(length as u8),
            length @ ..65_536 => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    fn said(message: &Message<'_>) -> String {
        match message {
            Message::Data(payload) => format!("data {}", payload.len()),
            Message::Ping(payload) => format!("ping {}", payload.len()),
            Message::Close(code) => format!("close {code:?}"),
        }
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_are_cut() {
        let mut bytes = server_frame(0x81, b"hello");
        bytes.extend(server_frame(0x89, b"p"));
        bytes.extend(server_frame(0x01, &[b'a'; 300]));
        bytes.extend(server_frame(0x8a, b""));
        bytes.extend(server_frame(0x80, &vec![b'b'; 70_000]));
        bytes.extend(server_frame(0x88, &4503_u16.to_be_bytes()));
        let expected = ["data 5", "ping 1", "data 70300", "close Some(4503)"];
        for size in [1, 2, 3, 7, 301, bytes.len()] {
            let (mut reader, mut heard) = (Reader::default(), Vec::new());
            for chunk in bytes.chunks(size) {
                reader.read(chunk, &mut |message| heard.push(said(&message))).expect("these are frames");
            }
            assert_eq!(heard, expected, "cut into {size}");
            assert!(reader.rest.is_empty());
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_broken() {
        for bytes in [&[0x81, 0x80, 0, 0, 0, 0][..], &[0xc1, 0][..], &[0x83, 0][..]] {
            assert_eq!(Reader::default().read(bytes, &mut |_| {}), Err(Broken), "{bytes:?}");
        }
        let long = [&[0x82, 127][..], &u64::MAX.to_be_bytes()].concat();
        assert_eq!(Reader::default().read(&long, &mut |_| {}), Err(Broken));
    }

    #[test]
    fn what_is_written_is_masked_with_its_key() {
        for length in [0, 1, 3, 4, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut out = Vec::new();
            write(&mut out, Opcode::Binary, &payload, 0xdead_beef);
            assert_eq!(out[0], 0x82);
            let (key, masked) = out[out.len() - length - 4..].split_at(4);
            let plain: Vec<u8> = masked.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            assert_eq!(plain, payload);
        }
    }
}
