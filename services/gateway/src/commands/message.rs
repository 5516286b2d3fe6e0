//! Messages: sent and changed through the intake, read receipts directly.
//!
//! The invariant: with the sender's standing known, a message is with the broker when `send` returns.

use domain::RoomId;
use protocol::{Refusal, wire};

use super::{Caller, Outcome, accepted_or_refused, done_or_refused, later};

pub(super) fn send(caller: &Caller, send: wire::MessageSend) -> Outcome {
    let room = match intake::message::check(&send) {
        Ok(room) => room,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    // What is typed from now on is another message.
    caller.shared.published.forget(room, caller.user);
    if let Some(standing) = caller.known_standing(room) {
        return accepted_or_refused(caller.shared.intake.send_message(&caller.actor(), send, Some(standing)));
    }
    let caller = caller.clone();
    let name = send.client_msg_id.clone();
    later(async move {
        let standing = caller.stored_standing(room).await.map_err(|refusal| refusal.of(&name))?;
        caller.shared.intake.send_message(&caller.actor(), send, standing).map(Outcome::Accepted)
    })
}

pub(super) fn edit(caller: &Caller, edit: wire::MessageEdit) -> Outcome {
    let caller = caller.clone();
    later(async move {
        let standing = caller.standing(room_of(&edit.room_id)?).await?;
        caller.shared.intake.edit_message(&caller.actor(), edit, standing).await.map(Outcome::Accepted)
    })
}

pub(super) fn delete(caller: &Caller, delete: wire::MessageDelete) -> Outcome {
    let caller = caller.clone();
    later(async move {
        let standing = caller.standing(room_of(&delete.room_id)?).await?;
        caller.shared.intake.delete_message(&caller.actor(), delete, standing).await.map(Outcome::Accepted)
    })
}

pub(super) fn react(caller: &Caller, react: wire::MessageReact) -> Outcome {
    let caller = caller.clone();
    later(async move {
        let standing = caller.standing(room_of(&react.room_id)?).await?;
        caller.shared.intake.react(&caller.actor(), react, standing).await.map(Outcome::Accepted)
    })
}

pub(super) fn read(caller: &Caller, read: wire::MessageRead) -> Outcome {
    let caller = caller.clone();
    later(async move { Ok(done_or_refused(caller.shared.handlers.read(caller.user, read).await)) })
}

fn room_of(text: &str) -> Result<RoomId, Refusal> {
    Ok(RoomId::parse("roomId", text)?)
}
