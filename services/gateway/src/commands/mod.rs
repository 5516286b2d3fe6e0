//! What clients ask for: each command starts at once and either is done or waits for something.
//!
//! Knows no frame and no socket. The invariant: a command that is handed to the broker without a
//! look-up is handed over before the next frame is read, so that frame order is broker order.

pub(crate) mod auth;
mod message;
mod presence;
mod room;
mod sync;

use std::sync::Arc;

use ::auth::token::Claims;
use domain::room::{Role, RoomKind};
use domain::{DeviceId, RoomId, UserId};
use futures_util::future::BoxFuture;
use intake::{Accepted, Actor};
use protocol::{Ack, Command, Refusal, wire};

use crate::entering::Entering;
use crate::handle::Handle;
use crate::shared::{Shared, within};

/// Who asks.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: Arc<Handle>,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
}

/// What came of a command so far.
pub(crate) enum Outcome {
    /// Done.
    Answer(Ack),
    /// Handed to the broker; `QUEUED` once it confirms.
    Accepted(Accepted),
    /// A room is to be opened for this connection, after the answer.
    Joined {
        ack: wire::RoomState,
        entering: Entering,
    },
    /// The session has another token.
    Refreshed(Claims),
    Refused(Refusal),
    /// Something has to be looked up first; the next command waits.
    Later(BoxFuture<'static, Outcome>),
}

/// A member's place in a room, if it is one.
type Standing = Option<(RoomKind, Role)>;

/// Starts a command.
pub(crate) fn start(caller: &Caller, command: Command) -> Outcome {
    match command {
        Command::Auth(auth) => auth::refresh(caller, auth.token),
        Command::AuthRefresh(refresh) => auth::refresh(caller, refresh.token),
        Command::Ping(_) => {
            let server_time = caller.shared.clock.now().to_rfc3339();
            Outcome::Answer(Ack::Pong(wire::Pong { server_time }))
        }
        Command::MessageSend(send) => message::send(caller, send),
        Command::MessageEdit(edit) => message::edit(caller, edit),
        Command::MessageDelete(delete) => message::delete(caller, delete),
        Command::MessageReact(react) => message::react(caller, react),
        Command::MessageRead(read) => message::read(caller, read),
        Command::RoomJoin(join) => room::join(caller, &join),
        Command::RoomLeave(leave) => room::leave(caller, &leave),
        Command::Sync(sync) => sync::sync(caller, sync),
        Command::Typing(typing) => presence::typing(caller, typing),
        Command::PresenceSet(wish) => presence::set(caller, wish),
        Command::PresenceQuery(query) => presence::query(caller, query),
    }
}

impl Caller {
    fn actor(&self) -> Actor {
        Actor { user: self.user, device: self.device.as_str().to_owned(), traceparent: None }
    }

    /// The caller's place in a room, if the room is on for this connection: no look-up needed.
    fn known_standing(&self, room: RoomId) -> Standing {
        self.shared.hub.standing(&self.handle, room)
    }

    /// The caller's place in a room as the store has it.
    async fn stored_standing(&self, room: RoomId) -> Result<Standing, Refusal> {
        let look_up = async { self.shared.store.standing(room, self.user).await.map_err(|error| error.refusal()) };
        let standing = within(look_up).await?;
        Ok(standing.map(|standing| (standing.kind, standing.role)))
    }

    /// The caller's place in a room, from wherever it is known.
    async fn standing(&self, room: RoomId) -> Result<Standing, Refusal> {
        match self.known_standing(room) {
            Some(known) => Ok(Some(known)),
            None => self.stored_standing(room).await,
        }
    }
}

/// An outcome that has to be looked up; a refusal on the way is the outcome.
fn later(look_up: impl Future<Output = Result<Outcome, Refusal>> + Send + 'static) -> Outcome {
    Outcome::Later(Box::pin(async move { within(look_up).await.unwrap_or_else(Outcome::Refused) }))
}

fn accepted_or_refused(result: Result<Accepted, Refusal>) -> Outcome {
    result.map_or_else(Outcome::Refused, Outcome::Accepted)
}

fn done_or_refused(result: Result<wire::Done, Refusal>) -> Outcome {
    result.map_or_else(Outcome::Refused, |done| Outcome::Answer(Ack::Done(done)))
}
