//! Typing and presence: acked when they are passed on, worth no confirm.

use domain::RoomId;
use protocol::{Ack, wire};
use telemetry::Counter;

use super::{Caller, Outcome, Standing, done_or_refused, later};

pub(super) fn typing(caller: &Caller, typing: wire::SetTyping) -> Outcome {
    let room = match RoomId::parse("roomId", &typing.room_id) {
        Ok(room) => room,
        Err(invalid) => return Outcome::Refused(invalid.into()),
    };
    if let Some(standing) = caller.known_standing(room) {
        return say(caller, room, typing, Some(standing));
    }
    let caller = caller.clone();
    later(async move {
        let standing = caller.stored_standing(room).await?;
        Ok(say(&caller, room, typing, standing))
    })
}

/// Of what a member says again and again only one word in a second is passed on, and in a crowd no beginning of
/// which nobody here would be told.
fn say(caller: &Caller, room: RoomId, typing: wire::SetTyping, standing: Standing) -> Outcome {
    let (published, now_ms, is_typing) = (&caller.shared.published, caller.shared.wheel.now_ms(), typing.is_typing);
    let is_spared = || is_typing && !caller.shared.hub.takes_typing(room, caller.user);
    if standing.is_some() && (published.has(room, caller.user, is_typing, now_ms) || is_spared()) {
        Counter::TypingCoalesced.inc();
        return Outcome::Answer(Ack::Done(wire::Done { status: "OK".to_owned() }));
    }
    let said = caller.shared.intake.typing(&caller.actor(), typing, standing);
    if said.is_ok() {
        published.note(room, caller.user, is_typing, now_ms);
    }
    done_or_refused(said)
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
