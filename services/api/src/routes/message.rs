//! Messages: history, and sending, editing and taking back without a socket.
//!
//! The invariant: what is sent here takes the same way as what is sent by socket.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use domain::{Invalid, RoomId, Seq};
use intake::Accepted;
use protocol::json::null_is_absent;
use protocol::{Refusal, wire};
use serde::{Deserialize, Serialize};
use store::message::{MessageRow, Page};
use utoipa::{IntoParams, ToSchema};

use super::{Queued, queued};
use crate::app::App;
use crate::body::Body;
use crate::caller::Caller;
use crate::openapi;
use crate::page;
use crate::problem::Answer;
use crate::query::Query;

/// Which page of the history.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Messages before this `seq` or `prevCursor`.
    before: Option<String>,
    /// Messages after this `seq` or `nextCursor`.
    after: Option<String>,
    /// Messages on the page, 1 to 200; 50 when absent.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Option<String>,
}

/// A page of the history, ascending by `seq`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct History {
    /// Shaped as `message.delivered`; deleted ones stay, without their content.
    items: Vec<wire::MessageDelivered>,
    /// For `before`: older messages follow. Absent at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_cursor: Option<String>,
    /// For `after`: newer messages follow. Absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A new message.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NewMessage {
    /// At most 16384 bytes of UTF-8. Empty or absent only with an attachment.
    #[schema(max_length = 16384)]
    #[serde(deserialize_with = "null_is_absent")]
    content: String,
    /// The sender's own name for the message: the same name is the same message. Required without `Idempotency-Key`.
    #[schema(min_length = 1, max_length = 64)]
    #[serde(deserialize_with = "null_is_absent")]
    client_msg_id: String,
    /// `TEXT` when absent.
    #[schema(schema_with = openapi::message_type)]
    r#type: Option<String>,
    /// The id of a message of the same conversation; it is not checked.
    #[schema(format = Uuid)]
    reply_to: Option<String>,
    /// Ids of users.
    #[schema(value_type = Vec<Uuid>, max_items = 50)]
    #[serde(deserialize_with = "null_is_absent")]
    mentions: Vec<String>,
    #[schema(max_items = 20)]
    #[serde(deserialize_with = "null_is_absent")]
    attachments: Vec<wire::Attachment>,
}

impl NewMessage {
    fn into_wire(self, room: RoomId) -> wire::MessageSend {
        let Self { content, client_msg_id, r#type, reply_to, mentions, attachments } = self;
        wire::MessageSend { room_id: room.to_string(), content, client_msg_id, r#type, reply_to, mentions, attachments }
    }
}

/// New words.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MessageChange {
    /// At most 16384 bytes of UTF-8.
    #[schema(required = true, min_length = 1, max_length = 16384)]
    content: String,
}

/// The history of a conversation: the newest page, or the one before or after a cursor.
#[utoipa::path(get, path = "/conversations/{id}/messages", tag = "messages", security(("bearer" = [])),
    params(("id" = Uuid, Path), HistoryQuery), responses((status = 200, body = History)))]
pub(crate) async fn list_messages(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Answer<Json<History>> {
    let room = RoomId::parse("id", &id)?;
    let limit = page::limit(query.limit.as_deref())?;
    let which = which_page(&query)?;
    if app.store.standing(room, caller.user).await?.is_none() {
        return Err(Refusal::not_found("conversation").into());
    }
    // The end is read first: a message that comes between the two reads is on the page or after it.
    let end = app.store.room(room).await?.map_or(Seq::ZERO, |room| room.last_seq);
    let rows = app.store.history(room, which, limit).await?;
    Ok(Json(history(&rows, which, end)))
}

/// Reads the cursors; at most one may be given.
fn which_page(query: &HistoryQuery) -> Result<Page, Invalid> {
    match (&query.before, &query.after) {
        (None, None) => Ok(Page::Newest),
        (Some(before), None) => Ok(Page::Before(cursor("before", before)?)),
        (None, Some(after)) => Ok(Page::After(cursor("after", after)?)),
        (Some(_), Some(_)) => Err(Invalid::new("before", "cannot stand together with after")),
    }
}

fn cursor(field: &'static str, text: &str) -> Result<Seq, Invalid> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let seq = digits.then(|| text.parse().ok()).flatten();
    seq.map(Seq).ok_or_else(|| Invalid::new(field, "must be a seq or a cursor"))
}

/// The page with its cursors. Messages are numbered without gaps, so the ends are known by number.
fn history(rows: &[MessageRow], which: Page, end: Seq) -> History {
    let (first, last) = match (rows.first(), rows.last(), which) {
        (Some(first), Some(last), _) => (first.seq, last.seq),
        // Nothing there: the page lies between what is before it and what is after it.
        (_, _, Page::After(after)) => (after.min(end).next(), after.min(end)),
        (_, _, Page::Before(before)) => (before.min(end.next()), Seq(before.min(end.next()).0 - 1)),
        (_, _, Page::Newest) => (Seq::ZERO, end),
    };
    History {
        items: rows.iter().map(MessageRow::to_wire).collect(),
        prev_cursor: (first.0 > 1).then(|| first.to_string()),
        next_cursor: (last < end).then(|| last.0.max(0).to_string()),
    }
}

/// Sends a message. QUEUED once the broker has it safely; the same `clientMsgId` is the same message.
#[utoipa::path(post, path = "/conversations/{id}/messages", tag = "messages", security(("bearer" = [])),
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "Serves as `clientMsgId` if the body has none.")),
    request_body = NewMessage, responses((status = 202, body = wire::Queued)))]
pub(crate) async fn send_message(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(mut new): Body<NewMessage>,
) -> Answer<Queued> {
    if new.client_msg_id.is_empty() {
        new.client_msg_id = idempotency_key(&headers).unwrap_or_default();
    }
    let name = new.client_msg_id.clone();
    let accepted = accept(&app, &caller, &id, new).await.map_err(|refusal| refusal.of(&name))?;
    queued(accepted).await
}

async fn accept(app: &App, caller: &Caller, id: &str, new: NewMessage) -> Result<Accepted, Refusal> {
    app.intake.allow(caller.user)?;
    let send = new.into_wire(RoomId::parse("id", id)?);
    let room = intake::message::check(&send)?;
    let standing = app.intake.standing(room, caller.user).await?;
    app.intake.send_message(&caller.actor, send, standing)
}

/// The header's value, whether written as a bare or as a quoted string.
fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    let key = headers.get("idempotency-key")?.to_str().ok()?.trim();
    let bare = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    Some(bare.to_owned())
}

/// Gives one's own message new words.
#[utoipa::path(patch, path = "/conversations/{id}/messages/{messageId}", tag = "messages", security(("bearer" = [])),
    params(("id" = Uuid, Path), ("messageId" = Uuid, Path)), request_body = MessageChange,
    responses((status = 202, body = wire::Queued)))]
pub(crate) async fn edit_message(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, message_id)): Path<(String, String)>,
    Body(change): Body<MessageChange>,
) -> Answer<Queued> {
    app.intake.allow(caller.user)?;
    let room = RoomId::parse("id", &id)?;
    let standing = app.intake.standing(room, caller.user).await?;
    let edit = wire::MessageEdit { room_id: room.to_string(), message_id, content: change.content };
    queued(app.intake.edit_message(&caller.actor, edit, standing).await?).await
}

/// Takes a message back for everyone: one's own, or in a group as an admin anybody's.
#[utoipa::path(delete, path = "/conversations/{id}/messages/{messageId}", tag = "messages", security(("bearer" = [])),
    params(("id" = Uuid, Path), ("messageId" = Uuid, Path)), responses((status = 202, body = wire::Queued)))]
pub(crate) async fn delete_message(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, message_id)): Path<(String, String)>,
) -> Answer<Queued> {
    app.intake.allow(caller.user)?;
    let room = RoomId::parse("id", &id)?;
    let standing = app.intake.standing(room, caller.user).await?;
    let delete = wire::MessageDelete { room_id: room.to_string(), message_id, for_everyone: true };
    queued(app.intake.delete_message(&caller.actor, delete, standing).await?).await
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn cursors(which: Page, end: i64) -> (Option<String>, Option<String>) {
        let page = history(&[], which, Seq(end));
        (page.prev_cursor, page.next_cursor)
    }

    #[test]
    fn an_empty_page_still_leads_back_to_what_is_there() {
        assert_eq!(cursors(Page::Newest, 0), (None, None));
        assert_eq!(cursors(Page::After(Seq(9)), 9), (Some("10".into()), None));
        assert_eq!(cursors(Page::After(Seq(i64::MAX)), 9), (Some("10".into()), None));
        assert_eq!(cursors(Page::Before(Seq(1)), 9), (None, Some("0".into())));
        assert_eq!(cursors(Page::Before(Seq(0)), 9), (None, Some("0".into())));
        assert_eq!(cursors(Page::After(Seq(0)), 0), (None, None));
        assert_eq!(cursors(Page::Before(Seq(7)), 0), (None, None));
    }

    #[test]
    fn cursors_are_numbers_and_stand_alone() {
        assert!(matches!(cursor("after", "0"), Ok(Seq(0))));
        for bad in ["", "-1", "+1", "1.5", "x", "9999999999999999999999", "1 OR 1=1"] {
            assert_eq!(cursor("after", bad).expect_err(bad).field, "after");
        }
        let both = HistoryQuery { before: Some("1".into()), after: Some("1".into()), limit: None };
        assert_eq!(which_page(&both).expect_err("both").field, "before");
    }

    #[test]
    fn an_idempotency_key_may_be_quoted() {
        let key = |value| {
            let name = axum::http::HeaderName::from_static("idempotency-key");
            idempotency_key(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
        };
        assert_eq!((key("k-1"), key("\"k-1\"")), (Some("k-1".into()), Some("k-1".into())));
        assert_eq!(idempotency_key(&HeaderMap::new()), None);
    }
}
