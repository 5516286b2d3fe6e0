//! The routes, one file per noun. Each is registered together with its description, so that the
//! document cannot lack one.

mod auth;
mod dead_letter;
mod member;
mod message;
mod room;
mod sync;
mod user;

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use intake::Accepted;
use protocol::wire;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::openapi::Head;
use crate::problem::Answer;

/// Every route below `/api/v1`, and the document that describes them.
pub(crate) fn all() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(auth::register))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(user::me))
        .routes(routes!(room::list_conversations, room::create_conversation))
        .routes(routes!(room::get_conversation, room::update_conversation))
        .routes(routes!(member::list_members, member::add_members))
        .routes(routes!(member::remove_member))
        .routes(routes!(message::list_messages, message::send_message))
        .routes(routes!(message::edit_message, message::delete_message))
        .routes(routes!(sync::poll_sync))
        .routes(routes!(dead_letter::list_dead_letters))
        .routes(routes!(dead_letter::get_dead_letter))
        .routes(routes!(dead_letter::replay_dead_letters))
        .routes(routes!(dead_letter::drop_dead_letters))
}

/// The answer to what the broker has safely.
type Queued = (StatusCode, Json<wire::Queued>);

/// Waits for the broker; only then is it QUEUED.
async fn queued(accepted: Accepted) -> Answer<Queued> {
    Ok((StatusCode::ACCEPTED, Json(accepted.confirmed().await?)))
}
