//! Switching a room on and off for one connection. Membership itself is not changed here.
//!
//! The invariant: a stranger learns nothing, not even that the room exists.

use domain::RoomId;
use protocol::{Ack, Refusal, wire};
use store::RoomState;

use super::{Caller, Outcome, later};
use crate::entering::Entering;
use crate::hub::Way;
use crate::{following, session};

pub(super) fn join(caller: &Caller, join: &wire::RoomJoin) -> Outcome {
    let (caller, room) = match parse(caller, &join.room_id) {
        Ok(parsed) => parsed,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    later(async move {
        // Asked before anything is subscribed, so that strangers cost no more than this.
        let state = member_state(&caller, room).await?;
        let Some(entering) = Entering::begin(&caller.shared, &caller.handle, room, Way::Wish) else {
            return Ok(Outcome::Answer(Ack::RoomState(ack(&state))));
        };
        let state = entering.follow(caller.user).await?.ok_or_else(|| Refusal::not_found("room"))?;
        Ok(Outcome::Joined { ack: ack(&state), entering })
    })
}

pub(super) fn leave(caller: &Caller, leave: &wire::RoomLeave) -> Outcome {
    let (caller, room) = match parse(caller, &leave.room_id) {
        Ok(parsed) => parsed,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    later(async move {
        let state = member_state(&caller, room).await?;
        session::forget(&caller.shared, &caller.handle).await;
        caller.shared.hub.switch_off(&caller.handle, room, state.rev);
        Ok(Outcome::Answer(Ack::RoomState(ack(&state))))
    })
}

fn parse(caller: &Caller, room: &str) -> Result<(Caller, RoomId), Refusal> {
    Ok((caller.clone(), RoomId::parse("roomId", room)?))
}

async fn member_state(caller: &Caller, room: RoomId) -> Result<RoomState, Refusal> {
    let state = following::state_of(&caller.shared, caller.user, room).await?;
    state.ok_or_else(|| Refusal::not_found("room"))
}

fn ack(state: &RoomState) -> wire::RoomState {
    wire::RoomState {
        status: "OK".to_owned(),
        room_id: state.room_id.to_string(),
        last_seq: state.last_seq.0,
        rev: state.rev.0,
    }
}
