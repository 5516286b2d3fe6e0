//! Members of a conversation. Changes go through the queue, so that they have their place in the
//! room's order.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use domain::{RoomId, UserId};
use protocol::json::null_is_absent;
use protocol::{Refusal, wire};
use serde::Deserialize;
use utoipa::ToSchema;

use super::room::member;
use super::{Queued, queued};
use crate::app::App;
use crate::body::Body;
use crate::caller::Caller;
use crate::openapi;
use crate::page::{self, Page, PageQuery};
use crate::problem::Answer;
use crate::query::Query;

/// Who is to be added.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NewMembers {
    /// Who; whoever is a member already stays what they are.
    #[schema(required = true, value_type = Vec<Uuid>, min_items = 1, max_items = 1000)]
    #[serde(deserialize_with = "null_is_absent")]
    user_ids: Vec<String>,
    /// `member` when absent.
    #[schema(schema_with = openapi::new_role)]
    role: Option<String>,
}

/// The members, a page at a time.
#[utoipa::path(get, path = "/conversations/{id}/members", tag = "members", security(("bearer" = [])),
    params(("id" = Uuid, Path), PageQuery), responses((status = 200, body = Page<wire::Member>)))]
pub(crate) async fn list_members(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<wire::Member>>> {
    let room = RoomId::parse("id", &id)?;
    let limit = page::limit(query.limit.as_deref())?;
    let after = query.after.as_deref().map(|after| UserId::parse("after", after)).transpose()?;
    if app.store.standing(room, caller.user).await?.is_none() {
        return Err(Refusal::not_found("conversation").into());
    }
    let members = app.store.members(room, after, limit + 1).await?;
    let (members, next_cursor) = page::cut(members, limit, |(user, _)| user.to_string());
    Ok(Json(Page { items: members.into_iter().map(member).collect(), next_cursor }))
}

/// Adds people to a group.
#[utoipa::path(post, path = "/conversations/{id}/members", tag = "members", security(("bearer" = [])),
    params(("id" = Uuid, Path)), request_body = NewMembers, responses((status = 202, body = wire::Queued)))]
pub(crate) async fn add_members(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(new): Body<NewMembers>,
) -> Answer<Queued> {
    app.intake.allow(caller.user)?;
    let room = RoomId::parse("id", &id)?;
    queued(app.intake.add_members(&caller.actor, room, new.user_ids, new.role).await?).await
}

/// Removes somebody from a group; with one's own id, leaves it.
#[utoipa::path(delete, path = "/conversations/{id}/members/{userId}", tag = "members", security(("bearer" = [])),
    params(("id" = Uuid, Path), ("userId" = Uuid, Path)), responses((status = 202, body = wire::Queued)))]
pub(crate) async fn remove_member(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, user)): Path<(String, String)>,
) -> Answer<Queued> {
    app.intake.allow(caller.user)?;
    let room = RoomId::parse("id", &id)?;
    let user = UserId::parse("userId", &user)?;
    queued(app.intake.remove_member(&caller.actor, room, user).await?).await
}
