//! Publishing, and the room's log.
//!
//! Knows nothing of subscribers. The invariant: a room's log is appended before its delivery is
//! published, both by one script, and an entry's id is its rev.

use std::sync::LazyLock;

use protocol::Channel;
use redis::{Pipeline, Script};

use super::{RedisEngine, keys};
use crate::{LogNumber, Outbound, ROOM_LOG_ENTRIES, RealtimeError};

/// Deliveries in one round to the server.
const SLICE: usize = 64;
/// What a numbered delivery begins with; a sealed one never does.
const NUMBERED: u8 = 0;
/// The number after that.
const NUMBER_BYTES: usize = 8;

const APPEND_TEXT: &str = include_str!("scripts/append.lua");
static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(APPEND_TEXT));

impl RedisEngine {
    pub(crate) async fn publish(&self, deliveries: &[Outbound]) -> Result<(), RealtimeError> {
        for slice in deliveries.chunks(SLICE) {
            self.pipeline::<()>(&round(slice)).await?;
        }
        Ok(())
    }
}

/// One round: the script is loaded along with its calls, so that a server that has lost it (restart,
/// fail-over) cannot carry out half of the round and so change the order.
fn round(slice: &[Outbound]) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.cmd("SCRIPT").arg("LOAD").arg(APPEND_TEXT).ignore();
    for outbound in slice {
        let channel = keys::channel(outbound.channel);
        match (outbound.channel, outbound.rev) {
            (Channel::Room(room), Some(rev)) => pipe
                .cmd("EVALSHA")
                .arg(APPEND.get_hash())
                .arg(2)
                .arg(keys::log(room))
                .arg(keys::NUMBER)
                .arg(rev.0)
                .arg(&outbound.payload[..])
                .arg(channel)
                .arg(ROOM_LOG_ENTRIES)
                .arg(keys::LOG_TTL.as_millis() as u64)
                .ignore(),
            _ => pipe.cmd("PUBLISH").arg(channel).arg(&outbound.payload[..]).ignore(),
        };
    }
    pipe
}

/// Takes a message of pub/sub apart.
pub(super) fn unwrap(message: &[u8]) -> (LogNumber, &[u8]) {
    match message.split_first() {
        Some((&NUMBERED, rest)) if rest.len() >= NUMBER_BYTES => {
            let (number, payload) = rest.split_at(NUMBER_BYTES);
            let number = number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            (LogNumber(number), payload)
        }
        _ => (LogNumber::NONE, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_carry_their_number_or_none() {
        assert_eq!(unwrap(b"\0\0\0\0\0\0\0\x01\x02sealed"), (LogNumber(258), &b"sealed"[..]));
        assert_eq!(unwrap(b"\x01ksealed"), (LogNumber::NONE, &b"\x01ksealed"[..]));
        assert_eq!(unwrap(b""), (LogNumber::NONE, &b""[..]));
    }
}
