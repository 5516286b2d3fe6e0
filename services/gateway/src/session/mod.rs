//! The life of one connection: who is it, what does it follow, what does it ask for, goodbye.
//!
//! The phases are types: `Unauthenticated` finds out who it is, `opening` makes it follow its rooms,
//! `Open` serves it. Knows links and dialects, not sockets. The invariant: the first thing a client
//! is told in a session is `session.ready`, and whatever a connection held is given back at its end.

mod connection;
mod goodbye;
mod open;
mod opening;
mod unauthenticated;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use protocol::{Ack, CloseCode};

pub(crate) use connection::{Connection, End};
use open::Open;
pub(crate) use opening::authenticate;
use unauthenticated::Unauthenticated;

use crate::admission::Admitted;
use crate::codec::Dialect;
use crate::shared::{Counted, Shared};
use crate::transport::{Link, Offered};

/// How long a native client has to say who it is.
const NATIVE_AUTH_MS: u64 = 5_000;
/// How long a Socket.IO client has; its library waits for nothing else, its network may.
const SOCKETIO_AUTH_MS: u64 = 20_000;

/// Serves a client from its first packet to its last.
pub(crate) async fn serve<L: Link>(
    shared: Arc<Shared>,
    link: L,
    dialect: Dialect,
    offered: Offered,
    admitted: Admitted,
) {
    let handle = shared.new_handle(dialect, auth_within_ms(dialect));
    let counted = Counted::new(Arc::clone(&shared), Arc::clone(&handle));
    let mut connection = Connection::new(link, handle);
    // The early and the late phases are boxed: an idle connection does not carry their size.
    let (end, arrival) = match Box::pin(establish(&shared, &mut connection, offered)).await {
        Ok(open) => open.run(&mut connection).await,
        Err(end) => (end, None),
    };
    Box::pin(goodbye::say(&shared, connection, end, arrival)).await;
    drop((counted, admitted));
}

fn auth_within_ms(dialect: Dialect) -> u64 {
    match dialect {
        Dialect::Native => NATIVE_AUTH_MS,
        Dialect::SocketIo => SOCKETIO_AUTH_MS,
    }
}

/// From the first packet to `session.ready`.
async fn establish<L: Link>(
    shared: &Arc<Shared>,
    connection: &mut Connection<L>,
    offered: Offered,
) -> Result<Open, End> {
    if shared.is_draining() {
        return Err(End::Close(CloseCode::Draining));
    }
    let mut unauthenticated = Unauthenticated::new(connection.handle.dialect, offered);
    unauthenticated.greet(connection);
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
