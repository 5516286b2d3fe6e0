//! The users with a connection on this gateway, by shard.
//!
//! Knows no room. The invariant: a user has at most one connection per device here.

use std::collections::HashMap;
use std::sync::Arc;

use domain::UserId;
use parking_lot::Mutex;
use telemetry::Counter;

use crate::handle::Handle;

pub(crate) const SHARDS: usize = 64;

/// A user's connections.
#[derive(Debug, Default)]
pub(crate) struct Present {
    handles: Vec<Arc<Handle>>,
    /// When the last connection left, by the sweeper's count.
    empty_since: Option<u64>,
}

impl Present {
    /// The connection that has to make room for a new device: the oldest. A client that makes up a
    /// new name each time it connects is thus let in, and what it left behind goes.
    fn one_too_many(&self, devices: usize) -> Option<usize> {
        if devices == 0 || self.handles.len() < devices {
            return None;
        }
        Counter::Limited.inc_with("user_devices");
        let session = |at: &usize| self.handles[*at].identity().map(|identity| identity.session);
        (0..self.handles.len()).min_by_key(session)
    }
}

/// All users with connections.
pub(crate) struct Users {
    shards: Box<[Mutex<HashMap<UserId, Present>>]>,
    /// Devices of one user; zero: any number.
    devices: usize,
}

impl Users {
    pub(crate) fn new(devices: u32) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), devices: devices as usize }
    }

    fn shard(&self, user: UserId) -> &Mutex<HashMap<UserId, Present>> {
        &self.shards[shard_of(user.as_bytes(), SHARDS)]
    }

    /// Adds an identified connection; answers the one of the same device that has to go: the older
    /// session, which is the new connection itself if two that came at once overtook one another.
    /// Presence goes by the same order.
    pub(crate) fn enter(&self, handle: &Arc<Handle>) -> Option<Arc<Handle>> {
        let identity = handle.identity()?;
        let mut shard = self.shard(identity.user).lock();
        let present = shard.entry(identity.user).or_default();
        present.empty_since = None;
        let same_device = |other: &Arc<Handle>| other.identity().is_some_and(|it| it.device == identity.device);
        let at = present.handles.iter().position(same_device);
        if at.and_then(|at| present.handles[at].identity()).is_some_and(|other| other.session > identity.session) {
            return Some(Arc::clone(handle));
        }
        let at = at.or_else(|| present.one_too_many(self.devices));
        let replaced = at.map(|at| present.handles.swap_remove(at));
        present.handles.push(Arc::clone(handle));
        replaced
    }

    /// Removes a connection.
    pub(crate) fn leave(&self, handle: &Handle) {
        let Some(identity) = handle.identity() else { return };
        if let Some(present) = self.shard(identity.user).lock().get_mut(&identity.user) {
            present.handles.retain(|other| other.key != handle.key);
        }
    }

    /// Does something with each of a user's connections.
    pub(crate) fn each_of(&self, user: UserId, mut visit: impl FnMut(&Arc<Handle>)) {
        if let Some(present) = self.shard(user).lock().get(&user) {
            present.handles.iter().for_each(&mut visit);
        }
    }

    /// A user's connections at the moment.
    pub(crate) fn handles_of(&self, user: UserId) -> Vec<Arc<Handle>> {
        self.shard(user).lock().get(&user).map(|present| present.handles.clone()).unwrap_or_default()
    }

    /// The connections of the users in one of the shards.
    pub(crate) fn handles_in(&self, shard: usize) -> Vec<Arc<Handle>> {
        self.shards[shard].lock().values().flat_map(|present| present.handles.iter().cloned()).collect()
    }

    /// Does something with every connection of an identified user.
    pub(crate) fn each(&self, mut visit: impl FnMut(&Arc<Handle>)) {
        for shard in &self.shards {
            shard.lock().values().flat_map(|present| &present.handles).for_each(&mut visit);
        }
    }

    /// All connections of identified users at the moment.
    pub(crate) fn handles(&self) -> Vec<Arc<Handle>> {
        (0..SHARDS).flat_map(|shard| self.handles_in(shard)).collect()
    }

    /// All users with a connection at the moment.
    pub(crate) fn ids(&self) -> Vec<UserId> {
        let of_shard = |shard: &Mutex<HashMap<UserId, Present>>| {
            let shard = shard.lock();
            let there = shard.iter().filter(|(_, present)| !present.handles.is_empty());
            there.map(|(user, _)| *user).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    /// Removes users who have been away for `patience` counts; `gone` is called under the lock, so
    /// that whatever it undoes cannot overtake a new connection's doing it again.
    pub(crate) fn sweep(&self, count: u64, patience: u64, gone: impl Fn(&[UserId])) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut away = Vec::new();
            for (user, present) in shard.iter_mut().filter(|(_, present)| present.handles.is_empty()) {
                if count >= *present.empty_since.get_or_insert(count) + patience {
                    away.push(*user);
                }
            }
            if !away.is_empty() {
                for user in &away {
                    shard.remove(user);
                }
                gone(&away);
            }
        }
    }
}

/// Ids of ours end in random bits, whatever their version.
pub(crate) fn shard_of(id: &[u8; 16], shards: usize) -> usize {
    usize::from(id[15] ^ id[8]) % shards
}
