//! Publishing, and the room's log.
//!
//! Knows nothing of subscribers. The invariant: a room's log is appended before its delivery is
//! published, both by one script, and an entry's id is its rev.

use std::sync::LazyLock;

use domain::{Rev, RoomId};
use protocol::Channel;

use super::RedisEngine;
use super::keys;
use super::round::{Round, Script};
use crate::{LogNumber, Outbound, ROOM_LOG_ENTRIES, RealtimeError};

/// Deliveries in one round to the server.
const SLICE: usize = 256;
/// Deliveries in one call of the script, during which the server does nothing else.
const CALL: usize = 32;
/// What a numbered delivery begins with; a sealed one never does.
const NUMBERED: u8 = 0;
/// The number after that.
const NUMBER_BYTES: usize = 8;

static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/append.lua")));

impl RedisEngine {
    pub(crate) async fn publish(&self, deliveries: &[Outbound]) -> Result<(), RealtimeError> {
        for slice in deliveries.chunks(SLICE) {
            let mut round = Round::with_script(&APPEND);
            // On a cluster each log has its own slot, and so each delivery its own call.
            let most = if self.is_cluster() { 1 } else { CALL };
            let is_logged = |outbound: &Outbound| logged(outbound).is_some();
            for run in slice.chunk_by(|one, next| is_logged(one) == is_logged(next)) {
                run.chunks(most).for_each(|some| self.add(&mut round, some));
            }
            let ahead = self.carry_out(&round).await?.ahead;
            self.tell_where_slots_were(ahead.iter().map(|place| &slice[*place])).await?;
        }
        Ok(())
    }

    /// Adds deliveries that are all logged, or all not.
    fn add(&self, round: &mut Round, some: &[Outbound]) {
        let logs: Vec<(RoomId, Rev)> = some.iter().filter_map(logged).collect();
        if logs.is_empty() {
            return self.add_unlogged(round, some);
        }
        let keys: Vec<String> = logs.iter().map(|(room, _)| self.keys.log(*room)).chain(self.keys.number()).collect();
        round.call(&keys).arg(self.publishes()).arg(ROOM_LOG_ENTRIES).arg(keys::LOG_TTL.as_millis() as u64);
        for (outbound, (_, rev)) in some.iter().zip(logs) {
            round.arg(rev.0).arg(&outbound.payload[..]).arg(self.keys.channel(outbound.channel));
        }
    }

    fn add_unlogged(&self, round: &mut Round, some: &[Outbound]) {
        for outbound in some {
            let channel = self.keys.channel(outbound.channel);
            round.command(&channel, self.publishes()).arg(&channel).arg(&outbound.payload[..]);
        }
    }

    /// While a slot moves, its new node has the logs already, and its old one the subscribers still.
    async fn tell_where_slots_were(&self, ahead: impl Iterator<Item = &Outbound>) -> Result<(), RealtimeError> {
        let mut round = Round::new(None);
        for outbound in ahead {
            self.add_unlogged(&mut round, std::slice::from_ref(outbound));
        }
        self.send(&round).await.map(drop)
    }

    /// The command that publishes.
    fn publishes(&self) -> &'static str {
        if self.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }
}

/// Whose log a delivery enters, and as what.
fn logged(outbound: &Outbound) -> Option<(RoomId, Rev)> {
    match outbound.channel {
        Channel::Room(room) => Some((room, outbound.rev?)),
        Channel::User(_) => None,
    }
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
