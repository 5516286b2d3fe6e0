//! The life of one connection: who is it, what does it follow, what does it ask for, goodbye.
//!
//! The phases are types: `Unauthenticated` finds out who it is, `opening` makes it follow its rooms,
//! `Open` serves it. Knows links and dialects, not sockets. The invariant: the first thing a client
//! is told in a session is `session.ready`, and whatever a connection held is given back at its end.

mod connection;
mod goodbye;
mod open;
mod opening;
pub(crate) mod recovery;
mod unauthenticated;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use protocol::{Ack, CloseCode, Code, EventData, Refusal, wire};
use transport::Link;

pub(crate) use connection::{Connection, End};
pub(crate) use open::Open;
pub(crate) use opening::authenticate;
pub(crate) use recovery::{Renewals, forget};
use unauthenticated::{Candidate, Failure, Unauthenticated};

use crate::codec::Dialect;
use crate::door::admission::Admitted;
use crate::door::offered::Offered;
use crate::door::openings::ComeBack;
use crate::drain;
use crate::handle::Handle;
use crate::handle::outbox::Kind;
use crate::shared::{Counted, Shared};

/// A message, or a body of polling, of a client that has not said who it is: no more is held for strangers.
const FIRST_FRAME_BYTES: usize = 16 * 1024;
/// How long a native client has to say who it is.
const NATIVE_AUTH_MS: u64 = 5_000;
/// How long a Socket.IO client has; its library waits for nothing else, its network may.
const SOCKETIO_AUTH_MS: u64 = 20_000;

/// A Socket.IO client that left the namespace may come into it again for so long.
const RETURN_MS: u64 = 60_000;

/// Serves a client from its first packet to its last.
pub(crate) async fn serve<L: Link>(
    shared: Arc<Shared>,
    link: L,
    dialect: Dialect,
    mut offered: Option<Box<Offered>>,
    admitted: Admitted,
) {
    let greeting = link.greeting();
    let mut connection = Connection::new(link, shared.new_handle(dialect, auth_within_ms(dialect)));
    connection.link.bound(Some(FIRST_FRAME_BYTES));
    if let Some(greeting) = greeting {
        connection.handle.push(greeting, Kind::Answer);
    }
    loop {
        let counted = Counted::new(Arc::clone(&shared), Arc::clone(&connection.handle));
        // Only who may come in a second time needs again what the request brought.
        let brought = if dialect == Dialect::SocketIo { offered.clone() } else { offered.take() };
        // The early and the late phases are boxed: an idle connection does not carry their size.
        let (end, arrival) = match Box::pin(establish(&shared, &mut connection, brought, &admitted)).await {
            Ok(open) => {
                connection.link.bound(None);
                open.run(&mut connection).await
            }
            Err(end) => {
                if end.is_failure() {
                    admitted.failed(shared.clock.monotonic_us());
                }
                (end, None)
            }
        };
        if end == End::Left {
            Box::pin(goodbye::leave(&shared, &connection.handle, arrival)).await;
            connection = connection.renewed(shared.new_handle(dialect, RETURN_MS));
            drop(counted);
            continue;
        }
        Box::pin(goodbye::say(&shared, connection, admitted, end, arrival)).await;
        drop(counted);
        return;
    }
}

fn auth_within_ms(dialect: Dialect) -> u64 {
    match dialect {
        Dialect::Native | Dialect::Protobuf => NATIVE_AUTH_MS,
        Dialect::SocketIo => SOCKETIO_AUTH_MS,
    }
}

/// From the first packet to `session.ready`.
async fn establish<L: Link>(
    shared: &Arc<Shared>,
    connection: &mut Connection<L>,
    offered: Option<Box<Offered>>,
    admitted: &Admitted,
) -> Result<Open, End> {
    if shared.is_draining() {
        return Err(End::Close(CloseCode::Draining));
    }
    let mut unauthenticated =
        Unauthenticated::new(connection.handle.dialect, offered.map(|offered| *offered).unwrap_or_default());
    loop {
        let candidate = unauthenticated.candidate(connection).await?;
        let id = candidate.id.clone();
        match in_turn(shared, &connection.handle, candidate).await {
            Ok(open) => {
                if let Some(id) = id {
                    connection.handle.answer(&id, &Ack::Refreshed(open.refreshed()));
                }
                return Ok(open);
            }
            Err(failure) => {
                let failure = spread(shared, &connection.handle, failure);
                if failure.close == CloseCode::Draining && id.is_none() {
                    tell_when_to_come_back(&connection.handle, &failure);
                }
                let may_go_on = unauthenticated.refused(shared, connection, id, failure);
                if may_go_on.is_ok() {
                    admitted.failed(shared.clock.monotonic_us());
                }
                may_go_on?;
            }
        }
    }
}

/// Opens a session when it is its turn; a client that would have to wait too long is told when to
/// come back.
async fn in_turn(shared: &Arc<Shared>, handle: &Arc<Handle>, candidate: Candidate) -> Result<Open, Failure> {
    let now_us = || shared.clock.monotonic_us();
    handle.await_authentication(u64::MAX);
    match shared.openings.turn(now_us).await {
        Ok(turn) => {
            let opened = opening::open(shared, handle, candidate).await;
            turn.done(now_us());
            opened
        }
        Err(ComeBack { after_ms }) => Err(Refusal::overloaded(after_ms).into()),
    }
}

/// Whatever is out of order, not all are to come at once when it is mended.
fn spread(shared: &Shared, handle: &Handle, failure: Failure) -> Failure {
    if failure.close != CloseCode::Draining || failure.refusal.code == Code::Overloaded {
        return failure;
    }
    let spread_ms = drain::retry_after_ms(shared, handle.key) as u64;
    let after_ms = failure.refusal.retry_after_ms.unwrap_or_default() + spread_ms;
    Failure { refusal: failure.refusal.after(after_ms), ..failure }
}

/// Tells a client when to come back that is sent away for no fault of its own. On Socket.IO by an event,
/// too: after `connect_error` the stock client stays away for good.
fn tell_when_to_come_back(handle: &Handle, failure: &Failure) {
    let close_code = Some(i32::from(CloseCode::Draining.number()));
    let error = wire::Refusal { close_code, ..failure.refusal.clone().into() };
    handle.push(handle.dialect.event(&EventData::Error(error)), Kind::Answer);
}
