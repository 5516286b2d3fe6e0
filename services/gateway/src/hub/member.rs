//! One connection in one room: from which rev on it gets what the room releases.
//!
//! Knows no other member. The invariant: to a connection that is not open in the room yet nothing
//! is sent; what it will need is held, bounded.

use std::sync::Arc;

use domain::room::Role;
use domain::{Rev, UserId};
use protocol::CloseCode;

use crate::codec::{Delivered, Place};
use crate::handle::Handle;

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
}

impl Member {
    /// A connection for which everything is held; `floor` is what the room has released already.
    pub(crate) fn holding(handle: Arc<Handle>, floor: Rev) -> Self {
        Self { handle, after: floor, held: Some(Box::default()), role: Role::Member }
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
        held.deliveries.iter().any(|delivered| {
            self.pass(delivered, Handle::deliver_held);
            self.leaves_with(delivered)
        })
    }

    /// Takes a delivery that the room has released.
    pub(crate) fn offer(&mut self, delivered: &Arc<Delivered>, place: Place) {
        if let Some(held) = &mut self.held {
            if held.bytes >= HELD_BYTES {
                self.handle.close(CloseCode::TooSlow);
            } else if !delivered.is_fleeting() {
                held.bytes += delivered.weight();
                held.deliveries.push(Arc::clone(delivered));
            }
            return;
        }
        self.pass(delivered, |handle, delivered| handle.deliver(delivered, place));
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
