//! Presence in one process, whose gateway lives as long as this does.
//!
//! Reads no clock. The invariant: whoever is offline and unseen for a week is forgotten, and no more
//! than a bounded number of those who are offline are remembered at all.

use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::one::RefMut;
use domain::presence::Status;
use domain::{SessionId, Timestamp, UserId};
use parking_lot::Mutex;
use uuid::Uuid;

use super::EmbeddedEngine;
use super::due::DueSet;
use crate::presence::{LIST_DOUBTED_FOR, LOOK_AGAIN_AFTER};
use crate::{
    DeviceLease, Due, JANITOR_DUE_AFTER, LOOK_WITHIN, Look, ONLINE_FOR, PRESENCE_KEPT, Presence, Shown, Trimmed, Wish,
};

/// People above which the janitor forgets everybody who is offline.
const PEOPLE: usize = 500_000;

/// Whoever needs both locks takes the person first.
pub(super) struct People {
    known: DashMap<UserId, Person>,
    due: Mutex<DueSet>,
    /// The number of the last session.
    last_session: Mutex<u64>,
    /// When the janitor last ran, milliseconds.
    swept_at: AtomicI64,
}

impl Default for People {
    fn default() -> Self {
        Self {
            known: DashMap::new(),
            due: Mutex::default(),
            last_session: Mutex::default(),
            swept_at: AtomicI64::new(i64::MIN),
        }
    }
}

struct Held {
    lease: DeviceLease,
    is_idle: bool,
}

#[derive(Default)]
struct Person {
    devices: Vec<Held>,
    is_idle: bool,
    wish: Option<Status>,
    online_at: Option<Timestamp>,
    /// By others: not while invisible.
    seen: Option<Timestamp>,
    left: Option<Timestamp>,
    /// When the grace ends after the last device left.
    gone: Option<Timestamp>,
    told: Option<Shown>,
    looked: Option<Timestamp>,
    changes: u64,
}

impl EmbeddedEngine {
    pub(crate) fn new_session(&self, now: Timestamp) -> SessionId {
        let now_us = u64::try_from(now.0).unwrap_or_default() * 1000;
        let mut last = self.people.last_session.lock();
        *last = now_us.max(*last + 1);
        SessionId::numbered(*last)
    }

    pub(crate) fn arrive(&self, lease: &DeviceLease, now: Timestamp) -> Option<SessionId> {
        let mut person = self.people.of(lease.user);
        let was_online = !person.devices.is_empty() && person.online_at.is_some();
        let holder = person.devices.iter().find(|held| held.lease.device == lease.device);
        let other = holder.map(|held| held.lease.session).filter(|session| *session != lease.session);
        if other > Some(lease.session) {
            return other;
        }
        person.devices.retain(|held| held.lease.device != lease.device);
        person.devices.push(Held { lease: lease.clone(), is_idle: false });
        person.online_at = person.online_at.max(Some(now));
        person.gone = None;
        // Nobody was told that the user is there; whoever departs without this was there before a wipe.
        person.told.get_or_insert(Shown { status: Status::Offline, last_seen: None });
        if person.settle_idle() || !was_online {
            self.people.note(&mut person, lease.user, now);
        }
        other
    }

    pub(crate) fn depart(&self, lease: &DeviceLease, now: Timestamp, grace_ms: i64) {
        let mut person = self.people.of(lease.user);
        let taken_over = |held: &Held| held.lease.device == lease.device && held.lease != *lease;
        if person.devices.iter().any(taken_over) {
            return;
        }
        person.devices.retain(|held| held.lease.device != lease.device);
        if !person.devices.is_empty() {
            if person.settle_idle() {
                self.people.note(&mut person, lease.user, now);
            }
            return;
        }
        person.left = Some(now);
        let gone = Timestamp(now.0.saturating_add(grace_ms));
        person.see_off(now, gone);
        self.people.note(&mut person, lease.user, gone);
    }

    pub(crate) fn set_idle(&self, devices: &[DeviceLease], is_idle: bool, now: Timestamp) {
        for lease in devices {
            let Some(mut person) = self.people.known.get_mut(&lease.user) else { continue };
            let Some(held) = person.devices.iter_mut().find(|held| held.lease == *lease) else { continue };
            held.is_idle = is_idle;
            if person.settle_idle() {
                self.people.note(&mut person, lease.user, now);
            }
        }
    }

    pub(crate) fn sessions_of(&self, user: UserId) -> Vec<DeviceLease> {
        let leases = |person: &Person| person.devices.iter().map(|held| held.lease.clone()).collect();
        self.people.known.get(&user).map(|person| leases(&person)).unwrap_or_default()
    }

    pub(crate) fn set_wishes(&self, wishes: &[Wish], only_new: bool, now: Timestamp) {
        for wish in wishes {
            let mut person = self.people.of(wish.user);
            if only_new && person.wish.is_some() {
                continue;
            }
            let is_other = person.take_wish(wish, now);
            if is_other && !only_new {
                self.people.note(&mut person, wish.user, now);
            }
        }
    }

    pub(crate) fn presence(&self, users: &[UserId], now: Timestamp) -> Vec<Presence> {
        let look = |user: &UserId| match self.people.known.get(user) {
            Some(person) => person.stands(*user, now),
            None => Person::default().stands(*user, now),
        };
        users.iter().map(look).collect()
    }

    pub(crate) fn due_presence(&self, limit: usize, now: Timestamp) -> Due {
        let held_until = now.plus(LOOK_WITHIN);
        let (users, waiting) = {
            let mut due = self.people.due.lock();
            (due.take(now, held_until, limit), due.len() as u64)
        };
        let look = |(user, is_unsure): (UserId, bool)| {
            let mut person = self.people.of(user);
            Look {
                presence: person.stands(user, now),
                told: person.told,
                changes: std::mem::take(&mut person.changes),
                is_unsure,
                held_until,
                grace_ends: person.gone.filter(|gone| person.online_at.is_none() && *gone > now),
            }
        };
        Due { looks: users.into_iter().map(look).collect(), waiting, gateway_died: false }
    }

    pub(crate) fn looked(&self, looks: &[Look], now: Timestamp) {
        for look in looks {
            let user = look.presence.user;
            let mut person = self.people.of(user);
            let apart = now.plus(LOOK_AGAIN_AFTER);
            if self.people.due.lock().looked(user, look.held_until, look.grace_ends, apart) {
                person.told = Some(look.presence.shown());
                person.looked = Some(now);
            }
        }
    }

    pub(crate) fn renew_gateway(&self, _gateway: Uuid, users: &[UserId], now: Timestamp) {
        for user in users {
            let mut person = self.people.of(*user);
            if person.online_at.is_some() {
                person.online_at = person.online_at.max(Some(now));
            } else if person.left.is_none_or(|left| left.plus(LIST_DOUBTED_FOR) < now) {
                person.online_at = Some(now);
                person.gone = None;
                self.people.note(&mut person, *user, now);
            }
        }
    }

    pub(crate) fn janitor(&self, now: Timestamp, _grace_ms: i64) -> Trimmed {
        let last = self.people.swept_at.load(Ordering::Relaxed);
        if last != i64::MIN && now.0.abs_diff(last) < JANITOR_DUE_AFTER.as_millis() as u64 {
            return Trimmed::default();
        }
        self.people.swept_at.store(now.0, Ordering::Relaxed);
        let mut trimmed = Trimmed::default();
        let crowded = self.people.known.len() > PEOPLE;
        self.people.known.retain(|user, person| {
            if let Some(at) = person.online_at.filter(|at| at.plus(ONLINE_FOR) < now) {
                person.see_off(at, now);
                self.people.note(person, *user, now);
                trimmed.gone += 1;
            }
            trimmed.extended += u64::from(person.online_at.is_some() && !person.devices.is_empty());
            !person.is_forgettable(now, crowded) || self.people.due.lock().holds(*user)
        });
        trimmed
    }
}

impl People {
    fn of(&self, user: UserId) -> RefMut<'_, UserId, Person> {
        self.known.entry(user).or_default()
    }

    /// Notes that a user changed and has to be looked at, not before `at` nor too soon after the last look.
    fn note(&self, person: &mut Person, user: UserId, at: Timestamp) {
        person.changes += 1;
        let apart = person.looked.map_or(at, |looked| looked.plus(LOOK_AGAIN_AFTER));
        self.due.lock().note(user, at.max(apart));
    }
}

impl Person {
    fn stands(&self, user: UserId, now: Timestamp) -> Presence {
        Presence {
            user,
            is_there: self.online_at.is_some() || self.gone.is_some_and(|gone| gone > now),
            is_idle: self.is_idle,
            wish: self.wish,
            seen: self.seen,
            left: self.left,
        }
    }

    /// Whether all devices are idle; true if that is new.
    fn settle_idle(&mut self) -> bool {
        let is_idle = !self.devices.is_empty() && self.devices.iter().all(|held| held.is_idle);
        std::mem::replace(&mut self.is_idle, is_idle) != is_idle
    }

    /// The last device has gone, last seen at `at`; for the others it is there until `gone`. Nobody sees
    /// when the hidden go. Of whom the wish is not known it shows when that is learnt.
    fn see_off(&mut self, at: Timestamp, gone: Timestamp) {
        self.online_at = None;
        if self.wish == Some(Status::Invisible) {
            self.gone = None;
            return;
        }
        if self.wish.is_some() {
            self.seen = Some(at);
        }
        self.gone = Some(gone);
        self.told.get_or_insert(Shown { status: Status::Online, last_seen: None });
    }

    /// True if the wish is another one than before. Whoever hides was last seen at that moment; nothing
    /// after that may show, and there is no grace.
    fn take_wish(&mut self, wish: &Wish, now: Timestamp) -> bool {
        let before = self.wish.replace(wish.status);
        if wish.status == Status::Invisible {
            let was_seen = before.is_some_and(|before| before != Status::Invisible);
            if was_seen && self.online_at.is_some() {
                self.seen = Some(now);
            }
            self.gone = None;
        } else if before.is_none() {
            self.seen = self.seen.or(self.left);
        }
        if self.online_at.is_some() {
            self.online_at = self.online_at.max(Some(now));
        }
        before != Some(wish.status)
    }

    fn is_forgettable(&self, now: Timestamp, crowded: bool) -> bool {
        let long_gone = self.seen.max(self.left).is_none_or(|at| at.plus(PRESENCE_KEPT) < now);
        let is_told = self.told.is_none_or(|told| told.status == Status::Offline);
        self.online_at.is_none() && self.devices.is_empty() && is_told && (long_gone || crowded)
    }
}
