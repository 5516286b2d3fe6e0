//! The long poll: catching up for clients that cannot hold a socket.
//!
//! The invariant: whatever is answered was read with an account that let the caller's token in, and
//! nobody waits on when it does not any more.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use domain::{Invalid, limits};
use handlers::Polled;
use protocol::{Cursor, Refusal, wire};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::caller::Caller;
use crate::openapi;
use crate::problem::Answer;
use crate::query::Query;

/// What comes within so long after the first is told together.
const GATHER: Duration = Duration::from_millis(20);
/// A poll that may not hear of everything waits no longer than that.
const UNCONFIRMED: Duration = Duration::from_secs(2);

/// Since when, and how long to wait.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SyncQuery {
    /// The `cursor` of the answer before. Without it: start now.
    cursor: Option<String>,
    /// How long to wait for something to tell, milliseconds, 0 to 30000; 25000 when absent. 0: answer at once.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 30000)]
    timeout_ms: Option<String>,
}

/// What came since the cursor.
#[derive(Serialize, ToSchema)]
#[schema(as = SyncAnswer)]
pub(crate) struct SyncAnswer {
    /// Events of all of one's rooms, ascending by `rev` within each; read marks (`message.read`) have no `rev`.
    #[schema(schema_with = openapi::sync_items)]
    items: Vec<wire::RevEvent>,
    /// Where to go on; opaque.
    cursor: String,
    /// `false`: there is more already, ask again at once.
    complete: bool,
}

/// What came in all of one's rooms since a cursor; waits for something if there is nothing yet.
#[utoipa::path(get, path = "/sync", tag = "sync", security(("bearer" = [])), params(SyncQuery),
    responses((status = 200, body = SyncAnswer)))]
pub(crate) async fn poll_sync(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<SyncQuery>,
) -> Answer<Response> {
    let wait = wait(query.timeout_ms.as_deref())?;
    let since = query.cursor.as_deref().map(|text| Cursor::decode(caller.user, text)).transpose()?;
    let _seat = app.polls.seat(caller.user)?;
    let first = read(&app, &caller, since.as_ref()).await?;
    let polled = match since {
        Some(since) if !first.is_news() && !wait.is_zero() => wait_for_news(&app, &caller, &since, first, wait).await?,
        _ => first,
    };
    Ok(answer(&app, &caller, polled))
}

/// Follows what the caller would be told, reads again whenever something came, and ends with news,
/// with the time, with the token, or with the service.
async fn wait_for_news(app: &App, caller: &Caller, since: &Cursor, first: Polled, wait: Duration) -> Answer<Polled> {
    let mut polled = first;
    let until = Instant::now() + wait.min(caller.is_good_for(app.clock.now()));
    let following = app.polls.follow(caller.user, &polled.rooms);
    let follow = tokio::select! {
        follow = tokio::time::timeout_at(until, following) => follow,
        () = app.stopping.requested() => return Ok(polled),
    };
    let Ok(follow) = follow else { return Ok(polled) };
    let follow = follow?;
    let until = if follow.is_confirmed() { until } else { until.min(Instant::now() + UNCONFIRMED) };
    loop {
        polled = read(app, caller, Some(since)).await?;
        if polled.is_news() {
            return Ok(polled);
        }
        tokio::select! {
            () = follow.woken() => tokio::time::sleep(GATHER).await,
            // Should a delivery have been lost, it is found now.
            () = tokio::time::sleep_until(until) => return read(app, caller, Some(since)).await,
            () = app.stopping.requested() => return Ok(polled),
        }
    }
}

/// What there is, for a caller who is let in by the account as it was read with it.
async fn read(app: &App, caller: &Caller, since: Option<&Cursor>) -> Answer<Polled> {
    let _turn = app.polls.turn().await?;
    let polled = app.handlers.poll(caller.user, since).await?;
    if caller.is_good_for(app.clock.now()).is_zero() {
        return Err(Refusal::unauthenticated("the token has expired").into());
    }
    caller.check(&polled.account)?;
    Ok(polled)
}

fn answer(app: &App, caller: &Caller, polled: Polled) -> Response {
    let Polled { items, cursor, complete, .. } = polled;
    let mut response = Json(SyncAnswer { items, cursor: cursor.encode(caller.user), complete }).into_response();
    if app.stopping.is_requested() {
        // The next poll is for somebody who stays.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn wait(text: Option<&str>) -> Result<Duration, Invalid> {
    let Some(text) = text else { return Ok(Duration::from_millis(limits::POLL_WAIT_MS_DEFAULT as u64)) };
    let wanted: Option<usize> = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let wanted = wanted.filter(|wanted| *wanted <= limits::POLL_WAIT_MS);
    let wanted = wanted
        .ok_or_else(|| Invalid::new("timeoutMs", format!("must be a number from 0 to {}", limits::POLL_WAIT_MS)))?;
    Ok(Duration::from_millis(wanted as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_waits_up_to_half_a_minute() {
        assert_eq!(wait(None), Ok(Duration::from_secs(25)));
        assert_eq!((wait(Some("0")), wait(Some("30000"))), (Ok(Duration::ZERO), Ok(Duration::from_secs(30))));
        for bad in ["", "-1", "+1", "30001", "1.5", "x", "99999999999999999999999"] {
            assert_eq!(wait(Some(bad)).expect_err(bad).field, "timeoutMs");
        }
    }
}
