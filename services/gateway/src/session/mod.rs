//! The life of one connection: who is it, what does it follow, what does it ask for, goodbye.
//!
//! The phases are types: `Unauthenticated` finds out who it is, `opening` makes it follow its rooms,
//! `Open` serves it. Knows links and dialects, not sockets. The invariant: the first thing a client
//! is told in a session is `session.ready`, and whatever a connection held is given back at its end.

mod connection;
mod goodbye;
mod open;
mod opening;
mod recovery;
mod unauthenticated;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use protocol::{Ack, CloseCode};
use transport::Link;

pub(crate) use connection::{Connection, End};
use open::Open;
pub(crate) use opening::authenticate;
pub(crate) use recovery::{forget, renew};
use unauthenticated::Unauthenticated;

use crate::admission::Admitted;
use crate::codec::Dialect;
use crate::offered::Offered;
use crate::outbox::Kind;
use crate::shared::{Counted, Shared};

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
    if let Some(greeting) = greeting {
        connection.handle.push(greeting, Kind::Answer);
    }
    loop {
        let counted = Counted::new(Arc::clone(&shared), Arc::clone(&connection.handle));
        // Only who may come in a second time needs again what the request brought.
        let brought = if dialect == Dialect::SocketIo { offered.clone() } else { offered.take() };
        // The early and the late phases are boxed: an idle connection does not carry their size.
        let (end, arrival) = match Box::pin(establish(&shared, &mut connection, brought)).await {
            Ok(open) => open.run(&mut connection).await,
            Err(end) => (end, None),
        };
        if end == End::Left {
            Box::pin(goodbye::leave(&shared, &connection.handle, arrival)).await;
            connection = connection.renewed(shared.new_handle(dialect, RETURN_MS));
            drop(counted);
            continue;
        }
        Box::pin(goodbye::say(&shared, connection, end, arrival)).await;
        drop((counted, admitted));
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
) -> Result<Open, End> {
    if shared.is_draining() {
        return Err(End::Close(CloseCode::Draining));
    }
    let mut unauthenticated =
        Unauthenticated::new(connection.handle.dialect, offered.map(|offered| *offered).unwrap_or_default());
    loop {
        let candidate = unauthenticated.candidate(connection).await?;
        let id = candidate.id.clone();
        match opening::open(shared, &connection.handle, candidate).await {
            Ok(open) => {
                if let Some(id) = id {
                    connection.handle.answer(&id, &Ack::Refreshed(open.refreshed()));
                }
                return Ok(open);
            }
            Err(failure) => unauthenticated.refused(shared, connection, id, failure)?,
        }
    }
}
