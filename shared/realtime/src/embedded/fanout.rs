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
use crate::{Outbound, ROOM_LOG_ENTRIES};

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

/// The logs of a shard's rooms; when they are too large the oldest entry of any room goes.
#[derive(Default)]
struct Logs {
    rooms: HashMap<RoomId, VecDeque<(Rev, Bytes)>>,
    /// Every append, oldest first; those trimmed by their room meanwhile are stale.
    appends: VecDeque<(RoomId, Rev)>,
    bytes: usize,
}

impl Logs {
    fn append(&mut self, room: RoomId, rev: Rev, payload: &Bytes) {
        let log = self.rooms.entry(room).or_default();
        if log.back().is_some_and(|(newest, _)| *newest >= rev) {
            return;
        }
        log.push_back((rev, payload.clone()));
        self.bytes += payload.len();
        self.appends.push_back((room, rev));
        if log.len() > ROOM_LOG_ENTRIES {
            self.drop_front(room);
        }
        while self.bytes > SHARD_LOG_BYTES || self.appends.len() > SHARD_LOG_ENTRIES {
            let Some((room, rev)) = self.appends.pop_front() else { return };
            if self.rooms.get(&room).and_then(VecDeque::front).is_some_and(|(oldest, _)| *oldest == rev) {
                self.drop_front(room);
            }
        }
    }

    fn drop_front(&mut self, room: RoomId) {
        let Entry::Occupied(mut log) = self.rooms.entry(room) else { return };
        if let Some((_, payload)) = log.get_mut().pop_front() {
            self.bytes -= payload.len();
        }
        if log.get().is_empty() {
            log.remove();
        }
    }

    /// As [`crate::Realtime::room_log`].
    fn after(&self, room: RoomId, after: Rev, limit: usize) -> Option<Vec<Bytes>> {
        let log = self.rooms.get(&room)?;
        let start = log.partition_point(|(rev, _)| *rev < after);
        let mut entries = log.range(start..).peekable();
        let mut expected = match entries.peek() {
            Some((first, _)) if *first == after || *first == after.next() => *first,
            _ => return None,
        };
        let mut payloads = Vec::with_capacity(limit.min(log.len() - start));
        for (rev, payload) in entries {
            if payloads.len() == limit {
                break;
            }
            if *rev != expected {
                return None;
            }
            expected = rev.next();
            if *rev > after {
                payloads.push(payload.clone());
            }
        }
        Some(payloads)
    }
}

impl EmbeddedEngine {
    pub(crate) fn publish(&self, deliveries: &[Outbound]) {
        for outbound in deliveries {
            let mut shard = self.shards.of(outbound.channel);
            if let (Channel::Room(room), Some(rev)) = (outbound.channel, outbound.rev) {
                shard.logs.append(room, rev, &outbound.payload);
            }
            let Entry::Occupied(mut subscribers) = shard.subscribers.entry(outbound.channel) else { continue };
            let arrival = Arrival::Delivery { channel: outbound.channel, payload: outbound.payload.clone() };
            subscribers.get_mut().retain(|mailbox| mailbox.put([arrival.clone()]));
            if subscribers.get().is_empty() {
                subscribers.remove();
            }
        }
    }

    pub(crate) fn room_log(&self, room: RoomId, after: Rev, limit: usize) -> Option<Vec<Bytes>> {
        self.shards.of(Channel::Room(room)).logs.after(room, after, limit)
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
            logs.append(RoomId(Uuid::from_u128(number % 10)), Rev((number / 10) as i64 + 1), &payload);
            assert!(logs.bytes <= SHARD_LOG_BYTES);
        }
        assert_eq!(logs.after(ROOM, Rev(1), 1000), None);
        assert_eq!(logs.after(ROOM, Rev(98), 1000).map(|payloads| payloads.len()), Some(2));
        for number in 0..2 * SHARD_LOG_ENTRIES {
            logs.append(RoomId(Uuid::from_u128(100 + number as u128)), Rev(1), &Bytes::new());
        }
        assert!(logs.appends.len() <= SHARD_LOG_ENTRIES && logs.rooms.len() <= SHARD_LOG_ENTRIES);
        assert_eq!(logs.bytes, 0);
    }
}
