//! What connections that broke off are recognised by, in one process.
//!
//! The invariant: bounded in number; those put in first go first.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::EmbeddedEngine;
use crate::{REMEMBERED_FOR, Remembered};

/// Connections remembered, some 200 bytes each.
const CONNECTIONS: usize = 100_000;

/// The connections.
#[derive(Default)]
pub(super) struct Connections {
    by_pid: HashMap<Uuid, (u64, Remembered)>,
    /// Every put, oldest first; those put again or forgotten meanwhile are stale.
    puts: VecDeque<(Uuid, u64)>,
}

impl Connections {
    fn put(&mut self, pid: Uuid, remembered: Remembered, until_us: u64, now_us: u64) {
        self.by_pid.insert(pid, (until_us, remembered));
        self.puts.push_back((pid, until_us));
        while let Some((oldest, until)) = self.puts.front() {
            let is_stale = self.by_pid.get(oldest).is_none_or(|(valid, _)| valid != until);
            if !is_stale && *until > now_us && self.puts.len() <= CONNECTIONS {
                return;
            }
            if !is_stale {
                self.by_pid.remove(oldest);
            }
            self.puts.pop_front();
        }
    }
}

impl EmbeddedEngine {
    pub(crate) fn remember(&self, pid: Uuid, remembered: &Remembered) {
        let now_us = self.clock.monotonic_us();
        let until_us = now_us + REMEMBERED_FOR.as_micros() as u64;
        self.connections.lock().put(pid, remembered.clone(), until_us, now_us);
    }

    pub(crate) fn recall(&self, pid: Uuid) -> Option<Remembered> {
        let connections = self.connections.lock();
        let (until_us, remembered) = connections.by_pid.get(&pid)?;
        (*until_us > self.clock.monotonic_us()).then(|| remembered.clone())
    }

    pub(crate) fn forget_connection(&self, pid: Uuid) {
        self.connections.lock().by_pid.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{DeviceId, Membership, UserId};

    #[test]
    fn the_oldest_connections_make_room() {
        let mut connections = Connections::default();
        let remembered = Remembered {
            user: UserId(Uuid::nil()),
            device: DeviceId::parse("d").expect("well-formed"),
            socket_id: "s".into(),
            membership: Membership(0),
            since: crate::LogNumber::NONE,
        };
        for number in 0..=CONNECTIONS as u64 {
            connections.put(Uuid::from_u128(u128::from(number)), remembered.clone(), number + 10, 0);
        }
        assert_eq!((connections.by_pid.len(), connections.puts.len()), (CONNECTIONS, CONNECTIONS));
        assert!(!connections.by_pid.contains_key(&Uuid::nil()));
        connections.put(Uuid::max(), remembered, u64::MAX, CONNECTIONS as u64 + 10);
        assert_eq!(connections.by_pid.len(), 1, "the others are over");
    }
}
