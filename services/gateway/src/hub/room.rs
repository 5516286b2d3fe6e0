//! One room on this gateway: a pure state machine that puts deliveries into one order.
//!
//! Knows no network and no store; says when it needs something. The invariant: what carries a rev
//! is released in the order of revs, without a gap and without a repeat; whoever stopped being a
//! member gets nothing of a later rev.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::defect::{Defect, is_on};
use domain::room::{Role, RoomKind};
use domain::{Rev, RoomId};
use protocol::CloseCode;

use crate::codec::{Delivered, Place};
use crate::handle::Handle;
use crate::hub::claim::Ticket;
use crate::hub::crowd::{CROWD, Told};
use crate::hub::member::Member;
use crate::hub::rhythm::{Rhythm, Wakes};

/// Deliveries that may wait for an earlier one; what does not fit is read again later. Few, because
/// all of them are released in one go.
const AHEAD: usize = 128;
/// The same in bytes, about; one always fits.
const AHEAD_BYTES: usize = 64 * 1024;

/// What a room needs from outside after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Need {
    Nothing,
    /// Something is missing: ask `gap` what, find it and `accept` it.
    Fill,
}

/// What is missing: everything after the one, at least up to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) after: Rev,
    pub(crate) up_to: Rev,
}

/// What became of arming a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Armed {
    Yes(Need),
    /// The store was read too early: read it again.
    TooEarly,
    /// The connection is not in the room (any more), or let in by somebody else.
    Gone,
}

/// Where a connection stands in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    Absent,
    /// It is being let in; nothing was released yet.
    Entering,
    /// It is there, and everything up to that was released.
    Following(Rev),
}

/// A room with local members.
#[derive(Debug)]
pub(crate) struct Room {
    id: RoomId,
    /// Ordered by key; new connections have larger ones, so they are added at the end.
    members: Vec<Member>,
    kind: RoomKind,
    /// The subscription was confirmed.
    pub(crate) subscribed: bool,
    /// When the last member left, by the sweeper's count; `None` while there are members.
    pub(crate) empty_since: Option<u64>,
    /// Everything up to this was released; `None` until the first member is armed.
    released: Option<Rev>,
    /// The highest rev that was heard of.
    seen: Rev,
    ahead: BTreeMap<Rev, Arc<Delivered>>,
    filling: bool,
    /// The hub counts this room among those with a gap.
    pub(crate) has_gap: bool,
    /// What it was told of late, if it is a crowd.
    pub(super) told: Told,
    pub(super) rhythm: Rhythm,
    /// Where the store has it, as far as it was heard, and the number of that move.
    pub(super) stored: Rev,
    pub(super) moved: u64,
}

impl Room {
    pub(crate) fn new(id: RoomId) -> Self {
        Self {
            id,
            members: Vec::new(),
            kind: RoomKind::Group,
            subscribed: false,
            empty_since: None,
            released: None,
            seen: Rev::ZERO,
            ahead: BTreeMap::new(),
            filling: false,
            has_gap: false,
            told: Told::default(),
            rhythm: Rhythm::default(),
            stored: Rev::ZERO,
            moved: 0,
        }
    }

    // ---- members

    /// Adds a connection for which everything is held, or takes over one that was told nothing yet:
    /// from now on it is let in by whoever has the ticket. False: it is in already, or is over.
    pub(crate) fn claim(&mut self, handle: &Arc<Handle>, ticket: Ticket) -> bool {
        let at = match self.find(handle.key) {
            Ok(at) => return self.members[at].claim(ticket),
            Err(at) => at,
        };
        let is_added = handle.note_room(self.id);
        if is_added {
            self.empty_since = None;
            let floor = self.released.unwrap_or(Rev(-1));
            if self.members.len() == self.members.capacity() {
                self.members.reserve_exact(self.members.len() / 4 + 1);
            }
            self.members.insert(at, Member::holding(Arc::clone(handle), floor, ticket));
        }
        is_added
    }

    /// Says what the store knows about a connection's user in this room.
    pub(crate) fn arm(&mut self, key: u64, ticket: Ticket, rev: Rev, kind: RoomKind, role: Role) -> Armed {
        let Some(at) = self.let_in_by(key, ticket) else { return Armed::Gone };
        if !self.members[at].arm(rev, role) {
            return Armed::TooEarly;
        }
        self.kind = kind;
        self.stored = self.stored.max(rev);
        if self.released.is_none() {
            self.begin(rev);
        }
        // Others may still wait for what this one has read; a delivery on its way is no gap yet.
        Armed::Yes(self.learn(self.seen))
    }

    /// The first position that is known for sure: from here on everything is released in order.
    fn begin(&mut self, rev: Rev) {
        self.released = Some(rev);
        self.members.iter_mut().for_each(|member| member.raise_floor(rev));
        self.ahead = self.ahead.split_off(&rev.next());
        self.release_ahead(Wakes::AtOnce);
    }

    /// Tells a connection something of the room before it is open. False: it is let in by somebody else
    /// meanwhile, or not at all.
    pub(crate) fn tell(&mut self, key: u64, ticket: Ticket, tell: impl FnOnce(&Handle)) -> bool {
        let at = self.let_in_by(key, ticket);
        at.map(|at| self.members[at].tell(tell)).is_some()
    }

    /// Opens a connection in the room: from now on it gets what the room releases. False: it is let in
    /// by somebody else meanwhile, or not at all.
    pub(crate) fn open(&mut self, key: u64, ticket: Ticket) -> bool {
        let Some(at) = self.let_in_by(key, ticket) else { return false };
        if self.members[at].open() {
            self.remove_at(at);
        }
        true
    }

    /// Removes a connection that was not let in after all.
    pub(crate) fn abandon(&mut self, key: u64, ticket: Ticket) {
        if let Some(at) = self.let_in_by(key, ticket) {
            self.remove_at(at);
        }
    }

    /// Removes a connection; after which rev it was let in, if it was there.
    pub(crate) fn leave(&mut self, key: u64) -> Option<Rev> {
        let at = self.find(key).ok()?;
        let after = self.members[at].after;
        self.remove_at(at);
        Some(after)
    }

    /// A connection that is let in by that one.
    fn let_in_by(&self, key: u64, ticket: Ticket) -> Option<usize> {
        self.find(key).ok().filter(|at| self.members[*at].is_let_in_by(ticket))
    }

    fn remove_at(&mut self, at: usize) {
        let member = self.members.remove(at);
        member.handle.forget_room(self.id);
        member.handle.wake_put_off();
    }

    /// The kind of the room and the role of a connection's user, if the store said so.
    pub(crate) fn standing(&self, key: u64) -> Option<(RoomKind, Role)> {
        let at = self.find(key).ok()?;
        self.members[at].role().map(|role| (self.kind, role))
    }

    /// Where a connection stands in the room.
    pub(crate) fn position(&self, key: u64) -> Position {
        match (self.find(key), self.released) {
            (Err(_), _) => Position::Absent,
            (Ok(_), None) => Position::Entering,
            (Ok(_), Some(released)) => Position::Following(released),
        }
    }

    /// True if a connection gets what is released.
    pub(crate) fn is_open(&self, key: u64) -> bool {
        self.find(key).is_ok_and(|at| self.members[at].is_open())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How sessions are woken for what comes now.
    pub(crate) fn wakes(&self) -> Wakes {
        Rhythm::wakes(self.members.len())
    }

    /// Wakes the sessions for which something was put off.
    pub(crate) fn wake_all(&self) {
        for member in &self.members {
            member.handle.wake_put_off();
        }
    }

    /// True if so many are here that not everybody is told of everybody.
    pub(crate) fn is_crowd(&self) -> bool {
        self.members.len() > CROWD
    }

    fn find(&self, key: u64) -> Result<usize, usize> {
        self.members.binary_search_by_key(&key, |member| member.handle.key)
    }

    // ---- deliveries

    /// Takes a delivery from pub/sub, the room's log or the store; `place` is what it is if it is
    /// released at once.
    pub(crate) fn accept(&mut self, delivered: Arc<Delivered>, place: Place, wakes: Wakes) -> Need {
        let Some(rev) = delivered.rev else {
            // What leaves no trace is for whoever is there.
            self.members.iter_mut().for_each(|member| member.offer(&delivered, Place::Void, wakes));
            return Need::Nothing;
        };
        match self.released {
            Some(released) if rev <= released => return Need::Nothing,
            Some(released) if rev == released.next() || is_on(Defect::IgnoreGaps) => {
                self.release(&delivered, place, wakes);
                self.release_ahead(wakes);
            }
            _ => self.set_ahead(rev, delivered),
        }
        self.learn(rev)
    }

    /// Passes something that leaves no trace to one connection only, if it is here.
    pub(crate) fn offer_to(&mut self, key: u64, delivered: &Arc<Delivered>) {
        if let Ok(at) = self.find(key) {
            self.members[at].offer(delivered, Place::Void, Wakes::AtOnce);
        }
    }

    /// Notes that `rev` exists.
    pub(crate) fn learn(&mut self, rev: Rev) -> Need {
        self.seen = self.seen.max(rev);
        if self.filling || self.gap().is_none() {
            return Need::Nothing;
        }
        self.filling = true;
        Need::Fill
    }

    /// What is missing at the moment.
    pub(crate) fn gap(&self) -> Option<Gap> {
        let after = self.released?;
        (after < self.seen).then_some(Gap { after, up_to: self.seen })
    }

    /// The filling is given up or done; the next sign of a gap begins another.
    pub(crate) fn stop_filling(&mut self) {
        self.filling = false;
    }

    /// Sends everybody away and knows no position any more.
    pub(crate) fn begin_anew(&mut self) {
        for member in self.members.drain(..) {
            member.handle.forget_room(self.id);
            member.handle.close(CloseCode::TooSlow);
        }
        (self.released, self.seen, self.filling) = (None, Rev::ZERO, false);
        self.ahead.clear();
    }

    /// Up to where the room was released.
    pub(crate) fn released(&self) -> Option<Rev> {
        self.released
    }

    fn set_ahead(&mut self, rev: Rev, delivered: Arc<Delivered>) {
        self.ahead.entry(rev).or_insert(delivered);
        let bytes: usize = self.ahead.values().map(|delivered| delivered.weight()).sum();
        if self.ahead.len() > AHEAD || (bytes > AHEAD_BYTES && self.ahead.len() > 1) {
            self.ahead.pop_last();
        }
    }

    fn release_ahead(&mut self, wakes: Wakes) {
        while let Some(first) = self.ahead.first_entry() {
            if self.released.is_none_or(|released| *first.key() > released.next()) {
                break;
            }
            let delivered = first.remove();
            if delivered.rev > self.released {
                self.release(&delivered, Place::Void, wakes);
            }
        }
    }

    fn release(&mut self, delivered: &Arc<Delivered>, place: Place, wakes: Wakes) {
        self.released = delivered.rev.or(self.released);
        self.members.iter_mut().for_each(|member| member.offer(delivered, place, wakes));
        if delivered.leaver().is_some() {
            let id = self.id;
            for gone in self.members.extract_if(.., |member| member.leaves_with(delivered)) {
                gone.handle.forget_room(id);
                gone.handle.wake_put_off();
            }
        }
    }
}
