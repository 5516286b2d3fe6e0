//! Dead letters, for admins: looking at them, processing them again, dropping them.
//!
//! The invariant: whatever changes something is logged with who did it, what, and how many it was.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use broker::{BrokerError, Fate, LOOK_LIMIT, LetterCursor, LetterQuery, Reach, Selection};
use domain::{Cause, Invalid};
use protocol::json::null_is_absent;
use protocol::{Code, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::admin::Admin;
use crate::app::App;
use crate::body::Body;
use crate::letter::Letter;
use crate::openapi;
use crate::page::{self, Page};
use crate::problem::{Answer, Problem};
use crate::query::Query;

/// Ids in one request at most.
const IDS: usize = 100;
/// Bytes of an id: an AMQP short string.
const ID_BYTES: usize = 255;
/// How far one request goes.
const REACH: Reach = Reach { letters: 1_000, within: LOOK_LIMIT };

/// What is said when a request's time does not reach that far.
const TOO_MANY: &str = "there are too many dead letters to look through in the time of a request: `chatchit deadletters` \
    has more time";

/// Which letters to show.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LettersQuery {
    /// Only those of this cause.
    #[param(schema_with = openapi::cause)]
    cause: Option<String>,
    /// Letters on the page, 1 to 200; 50 when absent.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Which letters are meant: exactly one of these.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct LetterSelection {
    /// Those with one of these ids.
    #[schema(min_items = 1, max_items = 100)]
    ids: Option<Vec<String>>,
    /// All of this cause.
    #[schema(schema_with = openapi::cause)]
    cause: Option<String>,
    /// All there are.
    #[serde(deserialize_with = "null_is_absent")]
    all: bool,
}

/// What was done.
#[derive(Serialize, ToSchema)]
pub(crate) struct LettersDone {
    /// How many letters that were.
    count: u64,
    /// There may be more: a request goes through 1,000 letters, or 15 s. Ask again. (A request that found none
    /// of those meant in its time is `UNAVAILABLE`: there are too many before them, which the command line
    /// has the time for.)
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

/// Dead letters, the oldest first. A page whose time was over has fewer items than it may, or none, and a
/// `nextCursor`; what 15 s do not reach is `UNAVAILABLE`.
#[utoipa::path(get, path = "/admin/dead-letters", tag = "admin", security(("bearer" = [])),
    params(LettersQuery), responses((status = 200, body = Page<Letter>)))]
pub(crate) async fn list_dead_letters(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Query(query): Query<LettersQuery>,
) -> Answer<Json<Page<Letter>>> {
    let after = query.cursor.as_deref().map(cursor).transpose()?;
    let cause = query.cause.as_deref().map(cause).transpose()?;
    let query = LetterQuery { cause, after, ..LetterQuery::first(page::limit(query.limit.as_deref())?) };
    let found = app.broker.dead_letters(&query).await.map_err(|error| out_of_reach(&error))?;
    let items = found.letters.iter().map(Letter::brief).collect();
    Ok(Json(Page { items, next_cursor: found.next.map(|next| next.to_string()) }))
}

/// One dead letter, with its body.
#[utoipa::path(get, path = "/admin/dead-letters/{id}", tag = "admin", security(("bearer" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Letter)))]
pub(crate) async fn get_dead_letter(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Path(id): Path<String>,
) -> Answer<Json<Letter>> {
    let found = app.broker.dead_letter(&id, LOOK_LIMIT).await.map_err(|error| out_of_reach(&error))?;
    let letter = found.ok_or_else(|| Refusal::not_found("dead letter"))?;
    Ok(Json(Letter::whole(&letter)))
}

/// Processes dead letters again, their attempts starting anew. What is not there any more is not counted.
#[utoipa::path(post, path = "/admin/dead-letters/replay", tag = "admin", security(("bearer" = [])),
    request_body = LetterSelection, responses((status = 200, body = LettersDone)))]
pub(crate) async fn replay_dead_letters(
    State(app): State<Arc<App>>,
    admin: Admin,
    Body(wanted): Body<LetterSelection>,
) -> Answer<Json<LettersDone>> {
    sweep(&app, &admin, wanted, Fate::Replay).await
}

/// Drops dead letters for good. What is not there any more is not counted.
#[utoipa::path(post, path = "/admin/dead-letters/drop", tag = "admin", security(("bearer" = [])),
    request_body = LetterSelection, responses((status = 200, body = LettersDone)))]
pub(crate) async fn drop_dead_letters(
    State(app): State<Arc<App>>,
    admin: Admin,
    Body(wanted): Body<LetterSelection>,
) -> Answer<Json<LettersDone>> {
    sweep(&app, &admin, wanted, Fate::Drop).await
}

async fn sweep(app: &App, admin: &Admin, wanted: LetterSelection, fate: Fate) -> Answer<Json<LettersDone>> {
    let selection = wanted.read()?;
    let swept = app.broker.sweep(&selection, fate, REACH).await;
    let (count, error) = match &swept {
        Ok(swept) => (Some(swept.count), None),
        // Some may be done all the same.
        Err(error) => (None, Some(error.to_string())),
    };
    let action = fate.as_str();
    tracing::info!(admin = %admin.user, action, %selection, count, error, "an admin worked on dead letters");
    let swept = swept.map_err(|error| out_of_reach(&error))?;
    if swept.count == 0 && swept.more {
        // Asking again would find no more.
        return Err(out_of_reach(&BrokerError::TooMany));
    }
    Ok(Json(LettersDone { count: swept.count, more: swept.more }))
}

impl LetterSelection {
    fn read(self) -> Result<Selection, Invalid> {
        match (self.ids, self.cause, self.all) {
            (Some(ids), None, false) => {
                if !(1..=IDS).contains(&ids.len()) || ids.iter().any(|id| id.len() > ID_BYTES) {
                    return Err(Invalid::new("ids", format!("must be 1 to {IDS} ids")));
                }
                Ok(Selection::Ids(ids))
            }
            (None, Some(label), false) => Ok(Selection::Cause(cause(&label)?)),
            (None, None, true) => Ok(Selection::All),
            _ => Err(Invalid::new("ids", "or `cause` or `all` must be there, one of the three")),
        }
    }
}

fn cause(label: &str) -> Result<Cause, Invalid> {
    Cause::parse(label).ok_or_else(|| Invalid::new("cause", "is none that is known"))
}

fn cursor(text: &str) -> Result<LetterCursor, Invalid> {
    text.parse().map_err(|()| Invalid::new("cursor", "is not one of ours"))
}

fn out_of_reach(error: &BrokerError) -> Problem {
    tracing::warn!(%error, "the dead letters are out of reach");
    match error {
        BrokerError::TooMany => Refusal::new(Code::Unavailable, TOO_MANY).into(),
        _ => Refusal::unavailable().into(),
    }
}
