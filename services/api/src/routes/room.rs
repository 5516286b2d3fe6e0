//! Conversations: making them, listing one's own, looking at one, renaming.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::room::{Role, RoomKind};
use domain::{RoomId, UserId, limits};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use protocol::{Refusal, wire};
use serde::{Deserialize, Serialize};
use store::message::Page as HistoryPage;
use store::room::{Room, RoomState};
use utoipa::ToSchema;

use super::{Queued, queued};
use crate::app::App;
use crate::body::Body;
use crate::caller::Caller;
use crate::openapi;
use crate::page::{self, Page, PageQuery};
use crate::problem::Answer;
use crate::query::Query;

/// Members shown with a conversation; the rest is behind `/members`.
const MEMBERS_SHOWN: usize = 1 + limits::MEMBERS_PER_REQUEST;
/// Rooms of one list that are looked up at a time.
const LOOKED_UP_AT_ONCE: usize = 8;

/// A new conversation.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NewConversation {
    /// What it is.
    #[schema(required = true, schema_with = openapi::room_kind)]
    r#type: String,
    /// Of a group; that of a direct conversation is ignored.
    #[schema(max_length = 200)]
    title: Option<String>,
    /// The others; the caller becomes owner. For `direct` exactly one, for a group also none.
    #[schema(required = true, value_type = Vec<Uuid>, max_items = 1000)]
    member_ids: Option<Vec<String>>,
}

/// What changes.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConversationChange {
    /// The new title.
    #[schema(required = true, max_length = 200)]
    title: String,
}

/// A conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = Conversation)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationView {
    #[schema(format = Uuid)]
    id: String,
    /// What it is.
    #[schema(schema_with = openapi::room_kind)]
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// In lists only of direct conversations; at most 1001, the rest is behind `/members`.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<wire::Member>>,
    /// The number of the newest message; 0 before the first.
    last_seq: i64,
    /// The number of the newest durable change.
    rev: i64,
    #[schema(format = Uuid)]
    created_by: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// The caller's role.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// Messages the caller has not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<i64>,
    /// The newest message, in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_message: Option<wire::MessageDelivered>,
}

impl ConversationView {
    fn new(room: Room, members: Option<Vec<(UserId, Role)>>) -> Self {
        Self {
            id: room.id.to_string(),
            r#type: room.kind.as_str(),
            title: room.title,
            members: members.map(|members| members.into_iter().map(member).collect()),
            last_seq: room.last_seq.0,
            rev: room.rev.0,
            created_by: room.created_by.to_string(),
            created_at: room.created_at.to_rfc3339(),
            role: None,
            unread: None,
            last_message: None,
        }
    }

    fn seen_by(mut self, state: Option<&RoomState>) -> Self {
        self.role = state.map(|state| state.role.as_str());
        self.unread = state.map(|state| state.unread);
        self
    }
}

/// A member as the protocol writes it.
pub(crate) fn member((user, role): (UserId, Role)) -> wire::Member {
    wire::Member { user_id: user.to_string(), role: role.as_str().to_owned() }
}

/// Makes a conversation. A direct one exists once for each pair: asked for again, it is the same.
#[utoipa::path(post, path = "/conversations", tag = "conversations", security(("bearer" = [])),
    request_body = NewConversation,
    responses((status = 201, body = ConversationView),
        (status = 200, body = ConversationView, description = "The direct conversation was there already.")))]
pub(crate) async fn create_conversation(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(wanted): Body<NewConversation>,
) -> Answer<(StatusCode, Json<ConversationView>)> {
    app.intake.allow(caller.user)?;
    let kind = RoomKind::parse(&wanted.r#type)?;
    let member_ids = wanted.member_ids.ok_or_else(|| Refusal::invalid("memberIds", "is required"))?;
    if member_ids.len() > limits::MEMBERS_PER_REQUEST {
        let words = format!("must name at most {} users", limits::MEMBERS_PER_REQUEST);
        return Err(Refusal::invalid("memberIds", words).into());
    }
    let others = member_ids.iter().map(|id| UserId::parse("memberIds", id)).collect::<Result<_, _>>()?;
    let created = app.handlers.create_room(caller.user, kind, wanted.title, others).await?;
    let status = if created.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(ConversationView::new(created.room, Some(created.members)))))
}

/// The caller's conversations, a page at a time.
#[utoipa::path(get, path = "/conversations", tag = "conversations", security(("bearer" = [])), params(PageQuery),
    responses((status = 200, body = Page<ConversationView>)))]
pub(crate) async fn list_conversations(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<ConversationView>>> {
    let limit = page::limit(query.limit.as_deref())?;
    let after = query.after.as_deref().map(|after| RoomId::parse("after", after)).transpose()?;
    let rooms = app.store.conversations(caller.user, after, limit + 1).await?;
    let (rooms, next_cursor) = page::cut(rooms, limit, |room| room.id.to_string());
    let ids: Vec<RoomId> = rooms.iter().map(|room| room.id).collect();
    let states = app.store.room_states(caller.user, &ids).await?;
    let items = stream::iter(rooms)
        .map(|room| {
            let state = states.iter().find(|state| state.room_id == room.id);
            list_item(&app, room, state)
        })
        .buffered(LOOKED_UP_AT_ONCE)
        .try_collect()
        .await?;
    Ok(Json(Page { items, next_cursor }))
}

/// A room as a list shows it: with its newest message, and with its people if they are two.
async fn list_item(app: &App, room: Room, state: Option<&RoomState>) -> Answer<ConversationView> {
    let members = match room.kind {
        RoomKind::Direct => Some(app.store.members(room.id, None, 2).await?),
        RoomKind::Group => None,
    };
    let newest = match room.last_seq.0 {
        0 => None,
        _ => app.store.history(room.id, HistoryPage::Newest, 1).await?.pop(),
    };
    let view = ConversationView::new(room, members).seen_by(state);
    Ok(ConversationView { last_message: newest.map(|row| row.to_wire()), ..view })
}

/// One of the caller's conversations.
#[utoipa::path(get, path = "/conversations/{id}", tag = "conversations", security(("bearer" = [])),
    params(("id" = Uuid, Path)), responses((status = 200, body = ConversationView)))]
pub(crate) async fn get_conversation(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<ConversationView>> {
    let id = RoomId::parse("id", &id)?;
    let ids = [id];
    let (states, room, members) = tokio::try_join!(
        app.store.room_states(caller.user, &ids),
        app.store.room(id),
        app.store.members(id, None, MEMBERS_SHOWN),
    )?;
    // Who has no state there is no member and learns nothing.
    let (Some(state), Some(room)) = (states.first(), room) else {
        return Err(Refusal::not_found("conversation").into());
    };
    Ok(Json(ConversationView::new(room, Some(members)).seen_by(Some(state))))
}

/// Renames a group.
#[utoipa::path(patch, path = "/conversations/{id}", tag = "conversations", security(("bearer" = [])),
    params(("id" = Uuid, Path)), request_body = ConversationChange, responses((status = 202, body = wire::Queued)))]
pub(crate) async fn update_conversation(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(change): Body<ConversationChange>,
) -> Answer<Queued> {
    app.intake.allow(caller.user)?;
    let room = RoomId::parse("id", &id)?;
    queued(app.intake.update_room(&caller.actor, room, change.title).await?).await
}
