//! The last phase: telling the client why, and giving back what the connection held.
//!
//! Knows no command. The invariant: the hub takes the connection out of its rooms before anything is
//! waited for, and every wait here has a limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::{CloseCode, EventData, wire};
use telemetry::Counter;
use transport::Link;

use crate::codec::Dialect;
use crate::door::admission::Admitted;
use crate::drain;
use crate::handle::Handle;
use crate::presence;
use crate::session::connection::{Connection, End};
use crate::session::open::Arrival;
use crate::shared::Shared;
use crate::socketio;

/// How long what waits may take to be sent.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);
/// How much longer for a client that reads too slowly: it is to learn why, once it reads again. Not when
/// the service stops.
const SLOW_LAST_WORDS_LIMIT: Duration = Duration::from_secs(18);
/// How long a Socket.IO client that was sent away may take to close its transport itself.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// When to come back after a connection that was closed for what the client did, milliseconds.
const RETRY_AFTER_MS: i64 = 1000;

/// Ends a connection, which counts as one of its address until its link is closed.
pub(crate) async fn say<L: Link>(
    shared: &Shared,
    connection: Connection<L>,
    admitted: Admitted,
    end: End,
    arrival: Option<Arrival>,
) {
    let handle = Arc::clone(&connection.handle);
    if end == End::Close(CloseCode::Draining) {
        // Found by its user until it was sent what waits: a right that ends meanwhile ends that.
        shared.hub.leave_all(&handle);
    } else {
        shared.hub.depart(&handle);
    }
    let code = match end {
        End::Gone | End::Left => CloseCode::Normal,
        End::Close(code) => {
            Counter::SocketsClosed.inc_with(code.reason());
            match code {
                CloseCode::FrameTooLarge => Counter::Limited.inc_with("frame_bytes"),
                CloseCode::Flooding => Counter::Limited.inc_with("flood"),
                _ => {}
            }
            code
        }
    };
    let departure = async {
        // Whoever took the device's place may go on with the very connection.
        if code.is_final() && code != CloseCode::Replaced {
            super::forget(shared, &handle).await;
        }
        depart(shared, &handle, arrival).await;
    };
    let leave = async {
        take_leave(shared, connection, end, code).await;
        shared.hub.depart(&handle);
        drop(admitted);
    };
    tokio::join!(leave, departure);
}

/// Ends a session whose client stays connected.
pub(crate) async fn leave(shared: &Shared, handle: &Handle, arrival: Option<Arrival>) {
    shared.hub.depart(handle);
    super::forget(shared, handle).await;
    depart(shared, handle, arrival).await;
}

/// Only who was announced as there has left.
async fn depart(shared: &Shared, handle: &Handle, arrival: Option<Arrival>) {
    if let Some(arrival) = arrival {
        arrival.await;
    }
    if handle.is_ready()
        && let Some(identity) = handle.identity()
    {
        presence::depart(shared, identity).await;
    }
}

async fn take_leave<L: Link>(shared: &Shared, mut connection: Connection<L>, end: End, code: CloseCode) {
    let handle = Arc::clone(&connection.handle);
    let code = || if handle.is_forbidden() { CloseCode::Forbidden } else { code };
    if end != End::Gone {
        let last = async {
            connection.sent().await?;
            let code = code();
            let words = last_words(shared, &handle, code);
            let is_sent_away = code.is_final() && !words.is_empty();
            connection.send_last(words).await.map(|()| is_sent_away)
        };
        let patience = async {
            tokio::time::sleep(LAST_WORDS_LIMIT).await;
            if code() == CloseCode::TooSlow {
                tokio::select! {
                    () = tokio::time::sleep(SLOW_LAST_WORDS_LIMIT) => {}
                    () = shared.draining.requested() => {}
                }
            }
        };
        let is_sent_away = tokio::select! {
            told = last => told.unwrap_or(false),
            () = patience => false,
        };
        if is_sent_away {
            let _ = tokio::time::timeout(LEAVE_LIMIT, connection.gone()).await;
        }
    }
    let code = code();
    handle.end();
    connection.link.close(code).await;
}

/// What Socket.IO is told in the place of a close code.
fn last_words(shared: &Shared, handle: &Handle, code: CloseCode) -> Vec<Bytes> {
    if handle.dialect != Dialect::SocketIo || !handle.is_ready() || code == CloseCode::Normal {
        return Vec::new();
    }
    let error = handle.dialect.event(&EventData::Error(error(shared, code, handle.key)));
    if code.is_final() { vec![error, Bytes::from_static(socketio::DISCONNECT.as_bytes())] } else { vec![error] }
}

fn error(shared: &Shared, code: CloseCode, key: u64) -> wire::Refusal {
    let retry_after_ms = match code {
        CloseCode::Draining => Some(drain::retry_after_ms(shared, key)),
        CloseCode::TooSlow | CloseCode::Flooding => Some(RETRY_AFTER_MS),
        _ => None,
    };
    wire::Refusal {
        status: "REJECTED".to_owned(),
        code: code.reason().to_owned(),
        message: "the connection is closed".to_owned(),
        field: None,
        retry_after_ms,
        client_msg_id: None,
        close_code: Some(i32::from(code.number())),
    }
}
