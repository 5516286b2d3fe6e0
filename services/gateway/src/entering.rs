//! A connection on its way into one room, because of a word or because the client wishes it.
//!
//! Knows no command. The invariant: however it ends, the connection is in the room for good, or as it was
//! before; and whoever lost the right to let it in tells it nothing.

use std::sync::Arc;

use domain::{RoomId, UserId};
use protocol::{Channel, Refusal};
use store::RoomState;

use crate::codec::{Delivered, Place};
use crate::following::{READINGS, known, state_of};
use crate::handle::Handle;
use crate::hub::{Claim, Wakes, Way};
use crate::shared::Shared;

/// A connection that is let into a room; out of it again when this is dropped.
pub(crate) struct Entering {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    room: RoomId,
    claim: Claim,
}

impl Entering {
    /// Begins; from now on what the room releases is held. `None`: the connection is in, or is not to be.
    pub(crate) fn begin(shared: &Arc<Shared>, handle: &Arc<Handle>, room: RoomId, way: Way) -> Option<Self> {
        let claim = shared.hub.claim(handle, room, way)?;
        Some(Self { shared: Arc::clone(shared), handle: Arc::clone(handle), room, claim })
    }

    /// Follows the room, if the user is a member: as the store has it then. All that comes after that is
    /// held.
    pub(crate) async fn follow(&self, user: UserId) -> Result<Option<RoomState>, Refusal> {
        let Self { shared, handle, room, claim } = self;
        if claim.is_missing {
            shared.subscribe(&[Channel::Room(*room)]).await?;
        }
        for _ in 0..READINGS {
            let Some(state) = state_of(shared, user, *room).await? else { return Ok(None) };
            if shared.hub.arm(handle, claim.ticket, &known(std::slice::from_ref(&state))).is_empty() {
                return Ok(Some(state));
            }
        }
        Err(Refusal::unavailable())
    }

    /// Opens the connection, which was told all up to where it follows the room.
    pub(crate) fn open(self) {
        self.shared.hub.open(&self.handle, self.room, self.claim.ticket);
    }

    /// Tells the connection why it is let in and what came since, then opens it; ends as soon as others
    /// let it in, or the client has switched the room off.
    pub(crate) async fn tell(self, told: &Delivered, missed: &[Arc<Delivered>]) {
        let mut goes_on = self.say(|handle| handle.tell(told));
        for delivered in missed {
            if !goes_on {
                return;
            }
            self.shared.breathe().await;
            goes_on = self.say(|handle| handle.deliver(delivered, Place::Void, Wakes::AtOnce));
        }
        self.open();
    }

    fn say(&self, tell: impl FnOnce(&Handle)) -> bool {
        self.shared.hub.tell_entering(&self.handle, self.room, self.claim.ticket, tell)
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        self.shared.hub.abandon(&self.handle, self.room, self.claim.ticket);
    }
}
