//! Publishing, and the room's log.
//!
//! Knows nothing of subscribers. The invariant: a room's log is appended before its delivery is
//! published, both by one script, and an entry's id is its rev.

use std::sync::LazyLock;

use bytes::Bytes;
use domain::{Rev, RoomId};
use protocol::Channel;
use redis::{Pipeline, Script};

use super::{RedisEngine, keys};
use crate::{LogNumber, Logged, Outbound, ROOM_LOG_ENTRIES, RealtimeError};

/// Deliveries in one round to the server.
const SLICE: usize = 64;
/// What a numbered delivery begins with; a sealed one never does.
const NUMBERED: u8 = 0;
/// The number after that.
const NUMBER_BYTES: usize = 8;

/// An entry of the log: id, and the two fields with their values.
pub(super) type Entry = (String, (String, String, String, Vec<u8>));

const APPEND_TEXT: &str = include_str!("scripts/append.lua");
static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(APPEND_TEXT));

impl RedisEngine {
    pub(crate) async fn publish(&self, deliveries: &[Outbound]) -> Result<(), RealtimeError> {
        for slice in deliveries.chunks(SLICE) {
            self.pipeline::<()>(&round(slice)).await?;
        }
        Ok(())
    }

    pub(crate) async fn room_log(
        &self,
        room: RoomId,
        after: Rev,
        limit: usize,
    ) -> Result<Option<Vec<Logged>>, RealtimeError> {
        let mut pipe = redis::pipe();
        // One more: the entry of `after` itself, if the log has it.
        pipe.cmd("XRANGE").arg(keys::log(room)).arg(format!("{}-0", after.0.max(0))).arg("+");
        pipe.arg("COUNT").arg(limit.saturating_add(1));
        let (entries,): (Vec<Entry>,) = self.pipeline(&pipe).await?;
        let logged = contiguous(entries, after);
        Ok(logged.map(|logged| logged.into_iter().take(limit).collect()))
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

/// Reads an entry; the payload is `None` where the log begins.
pub(super) fn read(entry: Entry) -> Option<(Rev, LogNumber, Option<Bytes>)> {
    let (id, (_, number, _, payload)) = entry;
    let rev = Rev(id.split_once('-')?.0.parse().ok()?);
    let payload = (!payload.is_empty()).then(|| payload.into());
    Some((rev, LogNumber(number.parse().ok()?), payload))
}

/// What comes after `after`, if the entries (which start at `after` if the log has it) prove that
/// none is missing.
fn contiguous(entries: Vec<Entry>, after: Rev) -> Option<Vec<Logged>> {
    let mut found = Vec::with_capacity(entries.len());
    let mut newest = None;
    for entry in entries {
        let (rev, number, payload) = read(entry)?;
        let fits = match newest {
            None => rev == after || rev == after.next(),
            Some(newest) => rev == Rev::next(newest),
        };
        if !fits {
            return None;
        }
        newest = Some(rev);
        if rev > after {
            found.push(Logged { rev, number, payload: payload? });
        }
    }
    newest.map(|_| found)
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

    fn entry(rev: i64, payload: &[u8]) -> Entry {
        (format!("{rev}-0"), ("n".into(), (rev * 10).to_string(), "p".into(), payload.to_vec()))
    }

    fn log(revs: &[i64]) -> Vec<Entry> {
        revs.iter().map(|rev| entry(*rev, &[*rev as u8])).collect()
    }

    #[test]
    fn only_an_unbroken_log_is_an_answer() {
        let after_three = |entries| {
            contiguous(entries, Rev(3)).map(|found| found.iter().map(|logged| logged.rev.0).collect::<Vec<_>>())
        };
        assert_eq!(after_three(log(&[3, 4, 5])), Some(vec![4, 5]));
        assert_eq!(after_three(log(&[4, 5])), Some(vec![4, 5]));
        assert_eq!(after_three(log(&[3])), Some(vec![]));
        for broken in [&[][..], &[5], &[3, 5], &[4, 6]] {
            assert_eq!(after_three(log(broken)), None);
        }
        assert_eq!(after_three(vec![entry(3, b""), entry(4, b"x")]), Some(vec![4]), "it begins after 3");
        assert_eq!(after_three(vec![entry(4, b""), entry(5, b"x")]), None, "it begins after 4");
    }

    #[test]
    fn messages_carry_their_number_or_none() {
        assert_eq!(unwrap(b"\0\0\0\0\0\0\0\x01\x02sealed"), (LogNumber(258), &b"sealed"[..]));
        assert_eq!(unwrap(b"\x01ksealed"), (LogNumber::NONE, &b"\x01ksealed"[..]));
        assert_eq!(unwrap(b""), (LogNumber::NONE, &b""[..]));
    }
}
