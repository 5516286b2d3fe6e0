//! Accounts as their owners see them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::Refusal;
use serde::Serialize;
use store::user::User;
use utoipa::ToSchema;

use crate::app::App;
use crate::caller::Caller;
use crate::problem::Answer;

/// An account.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserView {
    #[schema(format = Uuid)]
    id: String,
    /// Absent for imported accounts that cannot log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    first_name: String,
    last_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            email: user.email,
            first_name: user.first_name,
            last_name: user.last_name,
            phone: user.phone,
            created_at: user.created_at.to_rfc3339(),
        }
    }
}

/// The bearer's own account.
#[utoipa::path(get, path = "/users/me", tag = "users", security(("bearer" = [])),
    responses((status = 200, body = UserView)))]
pub(crate) async fn me(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<UserView>> {
    let user = app.store.user(caller.user).await?;
    let user = user.ok_or_else(|| Refusal::unauthenticated("there is no such account"))?;
    Ok(Json(user.into()))
}
