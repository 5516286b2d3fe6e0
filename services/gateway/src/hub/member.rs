//! One connection in one room: from which rev on it gets what the room releases.
//!
//! Knows no other member. The invariant: to a connection that is not open in the room yet nothing
//! is sent but what whoever lets it in tells it; what it will need is held, bounded.

use std::sync::Arc;

use domain::room::Role;
use domain::{Rev, UserId};
use protocol::CloseCode;

use crate::codec::{Delivered, Place};
use crate::handle::Handle;
use crate::hub::claim::Ticket;
use crate::hub::rhythm::Wakes;

/// Memory of what is held for a connection until it is open in the room, if nobody else held it too.
const HELD_BYTES: usize = 1024 * 1024;

/// A connection in a room.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) handle: Arc<Handle>,
    /// Gets only what comes after this. Before it is armed: the least rev it may be armed with.
    pub(crate) after: Rev,
    /// `Some` until the connection is open in the room.
    held: Option<Box<Held>>,
    role: Role,
}

#[derive(Debug, Default)]
struct Held {
    deliveries: Vec<Arc<Delivered>>,
    bytes: usize,
    armed: bool,
    /// Who lets it in.
    ticket: Ticket,
    /// It was told of the room: nobody else lets it in from now on.
    told: bool,
}

impl Member {
    /// A connection for which everything is held; `floor` is what the room has released already.
    pub(crate) fn holding(handle: Arc<Handle>, floor: Rev, ticket: Ticket) -> Self {
        let held = Held { ticket, ..Held::default() };
        Self { handle, after: floor, held: Some(Box::new(held)), role: Role::Member }
    }

    /// Somebody else lets it in from now on. False: it is open, or was told of the room.
    pub(crate) fn claim(&mut self, ticket: Ticket) -> bool {
        let held = self.held.as_mut().filter(|held| !held.told);
        held.map(|held| held.ticket = ticket).is_some()
    }

    /// True while it is let in by that one.
    pub(crate) fn is_let_in_by(&self, ticket: Ticket) -> bool {
        self.held.as_ref().is_some_and(|held| held.ticket == ticket)
    }

    /// Tells it something of the room before it is open.
    pub(crate) fn tell(&mut self, tell: impl FnOnce(&Handle)) {
        if let Some(held) = &mut self.held {
            held.told = true;
        }
        tell(&self.handle);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.held.is_none()
    }

    fn is_armed(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.armed)
    }

    /// The role, once it is known from the store.
    pub(crate) fn role(&self) -> Option<Role> {
        self.is_armed().then_some(self.role)
    }

    /// What the room released without this member's having held it counts as seen by nobody here.
    pub(crate) fn raise_floor(&mut self, released: Rev) {
        if !self.is_armed() {
            self.after = self.after.max(released);
        }
    }

    /// Says what the store knows: member with `role`, everything up to `rev` is there to be read.
    /// False: the store was read too early, something between was neither read nor held.
    pub(crate) fn arm(&mut self, rev: Rev, role: Role) -> bool {
        let Some(held) = &mut self.held else { return true };
        if rev < self.after {
            return false;
        }
        held.armed = true;
        self.after = rev;
        self.role = role;
        true
    }

    /// Opens the connection in the room and sends what was held for it. True: by that it has left.
    pub(crate) fn open(&mut self) -> bool {
        let Some(held) = self.held.take() else { return false };
        let has_left = held.deliveries.iter().any(|delivered| {
            self.pass(delivered, Handle::deliver_held);
            self.leaves_with(delivered)
        });
        // Whoever has not been told of the room yet is not told who types in it.
        self.handle.let_first();
        has_left
    }

    /// Takes a delivery that the room has released.
    pub(crate) fn offer(&mut self, delivered: &Arc<Delivered>, place: Place, wakes: Wakes) {
        if let Some(held) = &mut self.held {
            if held.bytes >= HELD_BYTES {
                self.handle.close(CloseCode::TooSlow);
            } else if !delivered.is_fleeting() {
                held.bytes += delivered.weight();
                held.deliveries.push(Arc::clone(delivered));
            }
            return;
        }
        self.pass(delivered, |handle, delivered| handle.deliver(delivered, place, wakes));
    }

    fn pass(&self, delivered: &Arc<Delivered>, deliver: impl FnOnce(&Handle, &Delivered)) {
        let seen = delivered.rev.is_some_and(|rev| rev <= self.after);
        let excepted = delivered.except.is_some_and(|user| self.handle.is_of(user));
        if !seen && !excepted {
            deliver(&self.handle, delivered);
        }
    }

    /// True when the connection must not get anything of the room after `delivered`.
    pub(crate) fn leaves_with(&self, delivered: &Delivered) -> bool {
        self.is_open() && delivered.rev.is_some_and(|rev| rev > self.after) && self.is_leaver(delivered.leaver())
    }

    fn is_leaver(&self, leaver: Option<UserId>) -> bool {
        leaver.is_some_and(|user| self.handle.is_of(user))
    }
}
