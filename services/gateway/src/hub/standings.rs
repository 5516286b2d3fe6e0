//! How people stand, told anew after a loss, beside changes that come meanwhile.
//!
//! Knows no store. The invariant: what was read is told to nobody after a change that came while it was being
//! read, or the older word would stand until the next change.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::UserId;
use parking_lot::{Mutex, MutexGuard};
use protocol::{Channel, EventData, OpenedDelivery};
use realtime::LogNumber;

use super::Hub;

/// Changes that came while it is being read how people stand.
#[derive(Default)]
pub(super) struct Standings {
    is_reading: AtomicBool,
    /// Who was told of whom.
    changed: Mutex<HashSet<(UserId, String)>>,
}

impl Standings {
    /// Notes a change. While the answer is held nothing of what was read is being told.
    pub(super) fn note(&self, user: UserId, event: &EventData) -> Option<MutexGuard<'_, HashSet<(UserId, String)>>> {
        let EventData::PresenceChanged(change) = event else { return None };
        if !self.is_reading.load(Ordering::Acquire) {
            return None;
        }
        let mut changed = self.changed.lock();
        changed.insert((user, change.user_id.clone()));
        Some(changed)
    }
}

impl Hub {
    /// From now on it is being read how people stand, by one task at a time.
    pub(crate) fn begin_standings(&self) {
        self.standings.changed.lock().clear();
        self.standings.is_reading.store(true, Ordering::Release);
    }

    /// Tells what was read, but for what changed since [`Self::begin_standings`].
    pub(crate) fn tell_standings(&self, read: Vec<(UserId, OpenedDelivery)>, now_ms: u64) {
        let mut changed = self.standings.changed.lock();
        for (user, opened) in read {
            let EventData::PresenceChanged(change) = &opened.event else { continue };
            if !changed.contains(&(user, change.user_id.clone())) {
                self.pass_on(Channel::User(user), opened, LogNumber::NONE, now_ms);
            }
        }
        self.standings.is_reading.store(false, Ordering::Release);
        *changed = HashSet::new();
    }
}

#[cfg(test)]
mod tests {
    use protocol::wire::PresenceChanged;
    use uuid::Uuid;

    use super::*;
    use crate::handle::tests::{handle, sent};

    fn is(user: &str, status: &str) -> OpenedDelivery {
        let change = PresenceChanged { user_id: user.into(), status: status.into(), ..Default::default() };
        OpenedDelivery::passing(EventData::PresenceChanged(change))
    }

    #[test]
    fn what_changed_while_it_was_read_how_people_stand_is_the_last_word() {
        let (hub, _requests) = Hub::new(0);
        let (one, two) = (handle(1, 1), handle(2, 2));
        let me = |number| UserId(Uuid::from_u128(number));
        for handle in [&one, &two] {
            hub.users.enter(handle);
            drop(handle.take_early());
        }
        let change = |number, opened| hub.route(Channel::User(me(number)), opened, LogNumber::NONE, 0);
        let told = |handle| -> Vec<String> {
            let frames = sent(handle).into_iter().map(|frame| frame["data"].clone());
            frames.map(|it| format!("{} {}", it["userId"], it["status"]).replace('"', "")).collect()
        };
        change(1, is("ann", "busy"));
        hub.begin_standings();
        change(1, is("ben", "online"));
        assert_eq!(told(&one), ["ann busy", "ben online"]);
        let read = [(1, "ann", "away"), (1, "ben", "offline"), (2, "ben", "offline")];
        hub.tell_standings(read.map(|(number, user, status)| (me(number), is(user, status))).into(), 0);
        assert_eq!((told(&one), told(&two)), (vec!["ann away".into()], vec!["ben offline".into()]));
        hub.begin_standings();
        hub.tell_standings(vec![(me(1), is("ben", "away"))], 0);
        assert_eq!(told(&one), ["ben away"], "what changed before is forgotten");
    }
}
