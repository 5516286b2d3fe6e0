//! Who is due to be looked at, in one process.
//!
//! Reads no clock and knows nothing of people. The invariant: a user is in one pair of hands at a time,
//! and comes back when these do not say in time that they are done.

use std::collections::{BTreeSet, HashMap};

use domain::{Timestamp, UserId};

#[derive(Default)]
pub(super) struct DueSet {
    order: BTreeSet<(Timestamp, UserId)>,
    users: HashMap<UserId, Entry>,
}

struct Entry {
    at: Timestamp,
    state: State,
}

enum State {
    Waits,
    /// A look is under way, until the entry's time at most; what came meanwhile is to be looked at then.
    Held {
        again: Option<Timestamp>,
    },
}

impl DueSet {
    /// Notes that a user changed and has to be looked at, not before `at`.
    pub(super) fn note(&mut self, user: UserId, at: Timestamp) {
        match self.users.get_mut(&user) {
            Some(Entry { state: State::Held { again }, .. }) => {
                *again = Some(again.map_or(at, |before| before.min(at)));
            }
            Some(entry) if entry.at <= at => {}
            Some(_) | None => self.put(user, at, State::Waits),
        }
    }

    /// Up to `limit` users who are due at `now`; each is held until `until`. True of whom a look was under
    /// way that never ended.
    pub(super) fn take(&mut self, now: Timestamp, until: Timestamp, limit: usize) -> Vec<(UserId, bool)> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now).take(limit);
        let users: Vec<UserId> = due.map(|(_, user)| *user).collect();
        let hold = |user: UserId| {
            let is_lost = matches!(self.users.get(&user), Some(Entry { state: State::Held { .. }, .. }));
            self.put(user, until, State::Held { again: None });
            (user, is_lost)
        };
        users.into_iter().map(hold).collect()
    }

    /// A look is over that was held until `until`; the next one is not before `apart`, at `next` if
    /// nothing came meanwhile. False if somebody else holds the user by now.
    pub(super) fn looked(&mut self, user: UserId, until: Timestamp, next: Option<Timestamp>, apart: Timestamp) -> bool {
        let Some(Entry { at, state: State::Held { again } }) = self.users.get(&user) else { return false };
        if *at != until {
            return false;
        }
        let next = [*again, next].into_iter().flatten().min();
        self.remove(user);
        if let Some(next) = next {
            self.put(user, next.max(apart), State::Waits);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    pub(super) fn holds(&self, user: UserId) -> bool {
        self.users.contains_key(&user)
    }

    fn put(&mut self, user: UserId, at: Timestamp, state: State) {
        self.remove(user);
        self.order.insert((at, user));
        self.users.insert(user, Entry { at, state });
    }

    fn remove(&mut self, user: UserId) {
        if let Some(entry) = self.users.remove(&user) {
            self.order.remove(&(entry.at, user));
        }
    }
}
