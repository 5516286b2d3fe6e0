//! Publishing, subscribing and the room's log in one process.
//!
//! A channel and its log lie in one shard under one lock. The invariant: whoever publishes holds that
//! lock while it appends and delivers, so log and inboxes agree on the order.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use domain::{Rev, RoomId, UserId};
use parking_lot::{Mutex, MutexGuard};
use protocol::Channel;

use super::EmbeddedEngine;
use crate::inbox::{Arrival, Mailbox};
use crate::recovery::since;
use crate::{LogAsked, LogNumber, Outbound, ROOM_LOG_ENTRIES, Since};

const SHARDS: usize = 32;
/// Payload bytes in the logs of one shard: 64 MiB in all.
const SHARD_LOG_BYTES: usize = 2 * 1024 * 1024;
/// Entries in the logs of one shard.
const SHARD_LOG_ENTRIES: usize = 8192;

pub(super) struct Shards([Mutex<Shard>; SHARDS]);

impl Default for Shards {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Shards {
    fn of(&self, channel: Channel) -> MutexGuard<'_, Shard> {
        let mut hasher = DefaultHasher::new();
        channel.hash(&mut hasher);
        self.0[hasher.finish() as usize % SHARDS].lock()
    }
}

#[derive(Default)]
struct Shard {
    subscribers: HashMap<Channel, Vec<Arc<Mailbox>>>,
    logs: Logs,
}

/// An entry of a room's log.
struct Logged {
    rev: Rev,
    number: LogNumber,
    payload: Bytes,
}

/// The logs of a shard's rooms; when they are too large the oldest entry of any room goes.
#[derive(Default)]
struct Logs {
    rooms: HashMap<RoomId, VecDeque<Logged>>,
    /// The largest number of an entry that is not there any more.
    dropped: LogNumber,
    /// Every append, oldest first; those trimmed by their room meanwhile are stale.
    appends: VecDeque<(RoomId, Rev)>,
    bytes: usize,
}

impl Logs {
    /// Answers the number under which the log has it.
    fn append(&mut self, room: RoomId, rev: Rev, payload: &Bytes, number: LogNumber) -> LogNumber {
        let log = self.rooms.entry(room).or_default();
        if log.back().is_some_and(|newest| newest.rev >= rev) {
            let there = log.binary_search_by_key(&rev, |logged| logged.rev);
            return there.map_or(LogNumber::NONE, |at| log[at].number);
        }
        log.push_back(Logged { rev, number, payload: payload.clone() });
        self.bytes += payload.len();
        self.appends.push_back((room, rev));
        if log.len() > ROOM_LOG_ENTRIES {
            self.drop_front(room);
        }
        while self.bytes > SHARD_LOG_BYTES || self.appends.len() > SHARD_LOG_ENTRIES {
            let Some((room, rev)) = self.appends.pop_front() else { break };
            if self.rooms.get(&room).and_then(VecDeque::front).is_some_and(|oldest| oldest.rev == rev) {
                self.drop_front(room);
            }
        }
        number
    }

    fn drop_front(&mut self, room: RoomId) {
        let Entry::Occupied(mut log) = self.rooms.entry(room) else { return };
        if let Some(logged) = log.get_mut().pop_front() {
            self.bytes -= logged.payload.len();
            self.dropped = self.dropped.max(logged.number);
        }
        if log.get().is_empty() {
            log.remove();
        }
    }

    /// As [`crate::Realtime::room_logs`], for one room.
    fn after(&self, room: RoomId, after: Rev, limit: usize) -> Option<Vec<Bytes>> {
        let log = self.rooms.get(&room)?;
        let start = log.partition_point(|logged| logged.rev < after);
        let mut entries = log.range(start..).peekable();
        let mut expected = match entries.peek() {
            Some(first) if first.rev == after || first.rev == after.next() => first.rev,
            _ => return None,
        };
        let mut found = Vec::with_capacity(limit.min(log.len() - start));
        for logged in entries {
            if found.len() == limit {
                break;
            }
            if logged.rev != expected {
                return None;
            }
            expected = logged.rev.next();
            if logged.rev > after {
                found.push(logged.payload.clone());
            }
        }
        Some(found)
    }

    /// As [`crate::Realtime::since`], for one room.
    fn since(&self, room: RoomId, after: LogNumber, left: &mut usize) -> Since {
        let nothing_dropped = self.dropped <= after;
        let Some(log) = self.rooms.get(&room) else {
            return if nothing_dropped { Since::NoLog } else { Since::Unknown };
        };
        let entries = log.iter().rev().map(|logged| (logged.rev, logged.number, false));
        let before = log.front().filter(|_| nothing_dropped).map(|first| (Rev(first.rev.0 - 1), LogNumber::NONE, true));
        since(entries.chain(before), after, left)
    }
}

impl EmbeddedEngine {
    pub(crate) fn publish(&self, deliveries: &[Outbound]) {
        // Held to the end: inboxes get what is numbered in the order of the numbers.
        let mut last = self.numbered.lock();
        for outbound in deliveries {
            let mut shard = self.shards.of(outbound.channel);
            let mut number = LogNumber::NONE;
            if let (Channel::Room(room), Some(rev)) = (outbound.channel, outbound.rev) {
                let next = LogNumber((self.clock.now().0 as u64 * 1000).max(last.0 + 1));
                number = shard.logs.append(room, rev, &outbound.payload, next);
                *last = number.max(*last);
            }
            let Entry::Occupied(mut subscribers) = shard.subscribers.entry(outbound.channel) else { continue };
            let arrival = Arrival::Delivery { channel: outbound.channel, number, payload: outbound.payload.clone() };
            subscribers.get_mut().retain(|mailbox| mailbox.put([arrival.clone()]));
            if subscribers.get().is_empty() {
                subscribers.remove();
            }
        }
    }

    pub(crate) fn since(&self, rooms: &[RoomId], after: LogNumber, most: usize) -> Vec<Since> {
        let mut left = most;
        let mut one = |room: &RoomId| self.shards.of(Channel::Room(*room)).logs.since(*room, after, &mut left);
        rooms.iter().map(&mut one).collect()
    }

    pub(crate) fn room_logs(&self, asked: &[LogAsked], bytes: usize) -> Vec<Option<Vec<Bytes>>> {
        let mut left = bytes;
        let mut read = |one: &LogAsked| {
            let shard = self.shards.of(Channel::Room(one.room));
            let payloads = shard.logs.after(one.room, one.after, one.limit.max(1)).filter(|_| left > 0)?;
            let weight = payloads.iter().map(Bytes::len).sum();
            let fits = weight <= left;
            left = left.saturating_sub(weight);
            fits.then_some(payloads)
        };
        asked.iter().map(&mut read).collect()
    }

    pub(crate) fn listening(&self, users: &[UserId]) -> Vec<bool> {
        let listens = |user: &UserId| {
            let channel = Channel::User(*user);
            self.shards.of(channel).subscribers.contains_key(&channel)
        };
        users.iter().map(listens).collect()
    }

    pub(crate) fn subscribe(&self, mailbox: &Arc<Mailbox>, channels: &[Channel]) {
        for channel in channels {
            let mut shard = self.shards.of(*channel);
            let subscribers = shard.subscribers.entry(*channel).or_default();
            subscribers.retain(|other| !other.is_closed());
            if !subscribers.iter().any(|other| Arc::ptr_eq(other, mailbox)) {
                subscribers.push(Arc::clone(mailbox));
            }
        }
    }

    pub(crate) fn unsubscribe(&self, mailbox: &Arc<Mailbox>, channels: &[Channel]) {
        for channel in channels {
            let mut shard = self.shards.of(*channel);
            let Entry::Occupied(mut subscribers) = shard.subscribers.entry(*channel) else { continue };
            subscribers.get_mut().retain(|other| !Arc::ptr_eq(other, mailbox));
            if subscribers.get().is_empty() {
                subscribers.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ROOM: RoomId = RoomId(Uuid::nil());

    #[test]
    fn the_logs_of_a_shard_are_bounded_in_bytes_and_entries() {
        let mut logs = Logs::default();
        let payload = Bytes::from(vec![0; 16 * 1024]);
        for number in 0..1000_u128 {
            let number_in_log = LogNumber(number as u64 + 1);
            logs.append(RoomId(Uuid::from_u128(number % 10)), Rev((number / 10) as i64 + 1), &payload, number_in_log);
            assert!(logs.bytes <= SHARD_LOG_BYTES);
        }
        assert_eq!(logs.after(ROOM, Rev(1), 1000), None);
        assert_eq!(logs.after(ROOM, Rev(98), 1000).map(|found| found.len()), Some(2));
        assert_eq!(logs.since(ROOM, LogNumber(500), &mut 9), Since::Unknown);
        assert!(
            matches!(logs.since(ROOM, LogNumber(985), &mut 9), Since::Logged { deliveries, .. } if deliveries.len() == 1)
        );
        for number in 0..2 * SHARD_LOG_ENTRIES {
            logs.append(RoomId(Uuid::from_u128(100 + number as u128)), Rev(1), &Bytes::new(), LogNumber(2000));
        }
        assert!(logs.appends.len() <= SHARD_LOG_ENTRIES && logs.rooms.len() <= SHARD_LOG_ENTRIES);
        assert_eq!(logs.bytes, 0);
    }
}
