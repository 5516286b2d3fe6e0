//! Typing and presence: acked when they are passed on, worth no confirm.

use domain::RoomId;
use protocol::{Ack, wire};

use super::{Caller, Outcome, done_or_refused, later};

pub(super) fn typing(caller: &Caller, typing: wire::SetTyping) -> Outcome {
    let room = match RoomId::parse("roomId", &typing.room_id) {
        Ok(room) => room,
        Err(invalid) => return Outcome::Refused(invalid.into()),
    };
    if let Some(standing) = caller.known_standing(room) {
        return done_or_refused(caller.shared.intake.typing(&caller.actor(), typing, Some(standing)));
    }
    let caller = caller.clone();
    later(async move {
        let standing = caller.stored_standing(room).await?;
        Ok(done_or_refused(caller.shared.intake.typing(&caller.actor(), typing, standing)))
    })
}

pub(super) fn set(caller: &Caller, wish: wire::PresenceSet) -> Outcome {
    done_or_refused(caller.shared.intake.set_presence(&caller.actor(), wish))
}

pub(super) fn query(caller: &Caller, query: wire::PresenceQuery) -> Outcome {
    let caller = caller.clone();
    later(async move {
        let list = caller.shared.handlers.presence_query(caller.user, query).await?;
        Ok(Outcome::Answer(Ack::PresenceList(list)))
    })
}
