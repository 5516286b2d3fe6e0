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
use crate::{Outbound, ROOM_LOG_ENTRIES, RealtimeError};

/// Deliveries in one round to the server.
const SLICE: usize = 64;

/// An entry of the log: id, and the one field with its value.
type Entry = (String, (String, Vec<u8>));

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
    ) -> Result<Option<Vec<Bytes>>, RealtimeError> {
        let mut pipe = redis::pipe();
        // One more: the entry of `after` itself, if the log has it.
        pipe.cmd("XRANGE").arg(keys::log(room)).arg(format!("{}-0", after.0.max(0))).arg("+");
        pipe.arg("COUNT").arg(limit.saturating_add(1));
        let (entries,): (Vec<Entry>,) = self.pipeline(&pipe).await?;
        let payloads = contiguous(entries, after);
        Ok(payloads.map(|payloads| payloads.into_iter().take(limit).collect()))
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
                .arg(1)
                .arg(keys::log(room))
                .arg(format!("{rev}-0"))
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

/// The payloads after `after`, if the entries (which start at `after` if the log has it) prove that
/// none is missing.
fn contiguous(entries: Vec<Entry>, after: Rev) -> Option<Vec<Bytes>> {
    let mut payloads = Vec::with_capacity(entries.len());
    let mut newest = None;
    for (id, (_, payload)) in entries {
        let rev = Rev(id.split_once('-')?.0.parse().ok()?);
        let fits = match newest {
            None => rev == after || rev == after.next(),
            Some(newest) => rev == Rev::next(newest),
        };
        if !fits {
            return None;
        }
        newest = Some(rev);
        if rev > after {
            payloads.push(payload.into());
        }
    }
    newest.map(|_| payloads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(revs: &[i64]) -> Vec<Entry> {
        revs.iter().map(|rev| (format!("{rev}-0"), ("p".into(), vec![*rev as u8]))).collect()
    }

    #[test]
    fn only_an_unbroken_log_is_an_answer() {
        let after_three = |revs: &[i64]| contiguous(log(revs), Rev(3)).map(|payloads| payloads.concat());
        assert_eq!(after_three(&[3, 4, 5]), Some(vec![4, 5]));
        assert_eq!(after_three(&[4, 5]), Some(vec![4, 5]));
        assert_eq!(after_three(&[3]), Some(vec![]));
        for broken in [&[][..], &[5], &[3, 5], &[4, 6]] {
            assert_eq!(after_three(broken), None);
        }
    }
}
