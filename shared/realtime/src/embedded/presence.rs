//! Presence in one process, whose gateway lives as long as this does.
//!
//! Reads no clock. The invariant: whoever is offline and unseen for a week is forgotten, and no more
//! than a bounded number of those who are offline are remembered at all.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use domain::presence::Status;
use domain::{Timestamp, UserId};
use uuid::Uuid;

use super::EmbeddedEngine;
use crate::presence::{LIST_DOUBTED_FOR, standing};
use crate::{Arrived, DeviceLease, JANITOR_EVERY, ONLINE_FOR, Presence, Trimmed};

/// Those offline are remembered for so long, and fewer when there are too many people.
const REMEMBERED_FOR: Duration = Duration::from_hours(7 * 24);
/// People above which the janitor forgets everybody who is offline.
const PEOPLE: usize = 500_000;
/// The janitor is due early, so that a call about every [`JANITOR_EVERY`] never comes just too soon.
const DUE_AFTER_MS: u64 = JANITOR_EVERY.as_millis() as u64 / 2;

pub(super) struct People {
    people: DashMap<UserId, Person>,
    /// When the janitor last ran, milliseconds.
    swept_at: AtomicI64,
}

impl Default for People {
    fn default() -> Self {
        Self { people: DashMap::new(), swept_at: AtomicI64::new(i64::MIN) }
    }
}

#[derive(Default)]
struct Person {
    devices: Vec<DeviceLease>,
    wish: Option<Status>,
    online_at: Option<Timestamp>,
    /// By others: not while invisible.
    seen: Option<Timestamp>,
    left: Option<Timestamp>,
}

impl EmbeddedEngine {
    pub(crate) fn arrive(&self, lease: &DeviceLease, now: Timestamp) -> Arrived {
        let mut person = self.people.people.entry(lease.user).or_default();
        let was_online = !person.devices.is_empty() && person.online_at.is_some();
        let holder = person.devices.iter().find(|held| held.device == lease.device);
        if holder.is_some_and(|held| held.gateway == lease.gateway && held.session > lease.session) {
            return Arrived { was_offline: false, replaced: None };
        }
        let replaced = holder.map(|held| held.session).filter(|session| *session != lease.session);
        person.devices.retain(|held| held.device != lease.device);
        person.devices.push(lease.clone());
        person.online_at = person.online_at.max(Some(now));
        Arrived { was_offline: !was_online, replaced }
    }

    pub(crate) fn depart(&self, lease: &DeviceLease, now: Timestamp) -> bool {
        let mut person = self.people.people.entry(lease.user).or_default();
        let taken_over = |held: &DeviceLease| held.device == lease.device && held != lease;
        if person.devices.iter().any(taken_over) {
            return false;
        }
        person.devices.retain(|held| held.device != lease.device);
        if !person.devices.is_empty() {
            return false;
        }
        person.online_at = None;
        person.left = Some(now);
        person.see_off(now);
        true
    }

    pub(crate) fn sessions_of(&self, user: UserId) -> Vec<DeviceLease> {
        self.people.people.get(&user).map(|person| person.devices.clone()).unwrap_or_default()
    }

    pub(crate) fn set_status(&self, user: UserId, status: Status, now: Timestamp) {
        let mut person = self.people.people.entry(user).or_default();
        let hides = status == Status::Invisible && person.wish != Some(Status::Invisible);
        if hides && person.online_at.is_some() {
            person.seen = Some(now);
        }
        person.wish = Some(status);
        if person.online_at.is_some() {
            person.online_at = person.online_at.max(Some(now));
        }
    }

    pub(crate) fn presence(&self, users: &[UserId]) -> Vec<Presence> {
        let look = |user: &UserId| match self.people.people.get(user) {
            Some(person) => standing(*user, person.online_at, person.wish, person.seen),
            None => standing(*user, None, None, None),
        };
        users.iter().map(look).collect()
    }

    pub(crate) fn renew_gateway(&self, _gateway: Uuid, users: &[UserId], now: Timestamp) {
        for user in users {
            let mut person = self.people.people.entry(*user).or_default();
            let departed = person.left.is_some_and(|left| left.plus(LIST_DOUBTED_FOR) >= now);
            if person.online_at.is_some() || !departed {
                person.online_at = person.online_at.max(Some(now));
            }
        }
    }

    pub(crate) fn janitor(&self, now: Timestamp) -> Trimmed {
        let last = self.people.swept_at.load(Ordering::Relaxed);
        if last != i64::MIN && now.0.abs_diff(last) < DUE_AFTER_MS {
            return Trimmed::default();
        }
        self.people.swept_at.store(now.0, Ordering::Relaxed);
        let mut trimmed = Trimmed::default();
        let crowded = self.people.people.len() > PEOPLE;
        self.people.people.retain(|user, person| person.sweep(*user, now, crowded, &mut trimmed));
        trimmed
    }
}

impl Person {
    /// Offline since `at`; nobody sees when the invisible go.
    fn see_off(&mut self, at: Timestamp) {
        if self.wish != Some(Status::Invisible) {
            self.seen = Some(at);
        }
    }

    /// False when this one is to be forgotten.
    fn sweep(&mut self, user: UserId, now: Timestamp, crowded: bool, trimmed: &mut Trimmed) -> bool {
        if let Some(at) = self.online_at.take_if(|at| at.plus(ONLINE_FOR) < now) {
            self.see_off(at);
            trimmed.gone.push(user);
        }
        if self.online_at.is_some() {
            trimmed.extended += u64::from(!self.devices.is_empty());
            return true;
        }
        let long_gone = self.seen.max(self.left).is_none_or(|at| at.plus(REMEMBERED_FOR) < now);
        !(self.devices.is_empty() && (long_gone || crowded))
    }
}
