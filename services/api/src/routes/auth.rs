//! Signing up, in, on and out.
//!
//! The invariant: a wrong password and an unknown e-mail address cannot be told apart, neither by
//! the answer nor by the time it takes.

use std::sync::Arc;

use auth::{password, refresh};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::user::{check_name, check_password, check_phone, normalise_email};
use domain::{Timestamp, UserId};
use protocol::json::null_is_absent;
use protocol::{Code, Refusal};
use serde::{Deserialize, Serialize};
use store::token::{NewRefresh, NextRefresh, Rotation};
use store::user::{NewUser, User};
use telemetry::Counter;
use utoipa::ToSchema;
use uuid::Uuid;

use super::user::UserView;
use crate::app::App;
use crate::body::Body;
use crate::caller::{self, Caller};
use crate::client_address::ClientAddress;
use crate::problem::{Answer, Problem};

/// A new account.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Registration {
    /// Compared without regard to case.
    #[schema(required = true, format = Email, max_length = 254)]
    email: String,
    /// 8 to 256 characters, in UTF-8 at most 1024 bytes.
    #[schema(required = true, format = Password, min_length = 8, max_length = 256)]
    password: String,
    #[schema(required = true, min_length = 1, max_length = 100)]
    first_name: String,
    #[schema(required = true, min_length = 1, max_length = 100)]
    last_name: String,
    /// Digits, spaces and `+-().`
    #[schema(min_length = 3, max_length = 32)]
    phone: Option<String>,
}

/// Somebody who comes back.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Login {
    #[schema(required = true, format = Email, max_length = 254)]
    email: String,
    #[schema(required = true, format = Password)]
    password: String,
}

/// A session that goes on.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Refresh {
    /// The newest refresh token of the session; each works once.
    #[schema(required = true)]
    refresh_token: String,
}

/// What ends.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Logout {
    /// The session's refresh token: that session ends.
    refresh_token: Option<String>,
    /// Every session of the bearer ends, and every access token issued before is void. Needs an access token.
    #[serde(deserialize_with = "null_is_absent")]
    everywhere: bool,
}

/// A session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// For `/auth/refresh`, once.
    refresh_token: String,
    /// When the access token expires.
    #[schema(format = DateTime)]
    expires_at: String,
    user: UserView,
}

/// Makes an account and begins its first session.
#[utoipa::path(post, path = "/auth/register", tag = "auth", request_body = Registration,
    responses((status = 201, body = Session), (status = 409, description = "The e-mail address is taken.")))]
pub(crate) async fn register(
    State(app): State<Arc<App>>,
    ClientAddress(address): ClientAddress,
    Body(wanted): Body<Registration>,
) -> Answer<(StatusCode, Json<Session>)> {
    let email = normalise_email(&wanted.email)?;
    check_password(&wanted.password)?;
    check_name("firstName", &wanted.first_name)?;
    check_name("lastName", &wanted.last_name)?;
    wanted.phone.as_deref().map_or(Ok(()), check_phone)?;
    let now_us = app.clock.monotonic_us();
    app.logins.check(address, &email, now_us).map_err(too_often)?;
    // Saves the hash; two who ask at once are told apart by the store.
    if app.store.credentials(&email).await?.is_some() {
        app.logins.failed(address, &email, now_us);
        let taken = Refusal::new(Code::Conflict, "email is taken already");
        return Err(Refusal { field: Some("email".to_owned()), ..taken }.into());
    }
    let place = app.logins.place(address).ok_or_else(|| Refusal::overloaded(500))?;
    let new = NewUser {
        id: UserId::generate(),
        email,
        password_hash: password::hash(wanted.password).await?,
        first_name: wanted.first_name,
        last_name: wanted.last_name,
        phone: wanted.phone,
        created_at: app.clock.now(),
    };
    drop(place);
    let user = app.store.create_user(&new).await?;
    Ok((StatusCode::CREATED, Json(begin(&app, user).await?)))
}

/// Begins a session.
#[utoipa::path(post, path = "/auth/login", tag = "auth", request_body = Login,
    responses((status = 200, body = Session), (status = 401, description = "The address or the password is wrong.")))]
pub(crate) async fn login(
    State(app): State<Arc<App>>,
    ClientAddress(address): ClientAddress,
    Body(wanted): Body<Login>,
) -> Answer<Json<Session>> {
    let email = normalise_email(&wanted.email)?;
    if wanted.password.is_empty() {
        return Err(Refusal::invalid("password", "is required").into());
    }
    let now_us = app.clock.monotonic_us();
    app.logins.check(address, &email, now_us).map_err(too_often)?;
    let known = app.store.credentials(&email).await?;
    let stored = known.as_ref().and_then(|known| known.password_hash.clone());
    let place = app.logins.place(address).ok_or_else(|| Refusal::overloaded(500))?;
    let is_right = password::verify(wanted.password, stored).await?;
    drop(place);
    match known {
        Some(known) if is_right && known.blocked => Err(caller::blocked().into()),
        Some(known) if is_right => Ok(Json(begin(&app, known.user).await?)),
        _ => {
            app.logins.failed(address, &email, now_us);
            Err(Refusal::unauthenticated("the e-mail address or the password is wrong").into())
        }
    }
}

/// Goes on with a session: the old refresh token is used up. Used twice, it ends the session.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", request_body = Refresh,
    responses((status = 200, body = Session), (status = 401, description = "Unknown, expired or used up.")))]
pub(crate) async fn refresh(State(app): State<Arc<App>>, Body(shown): Body<Refresh>) -> Answer<Json<Session>> {
    if shown.refresh_token.is_empty() {
        return Err(Refusal::invalid("refreshToken", "is required").into());
    }
    let now = app.clock.now();
    let void = || Refusal::unauthenticated("the refresh token is not valid");
    // All that is read is read before: a failure after the rotation would make the client come back
    // with a token that is used up, and that ends its session.
    let hash = refresh::hash(&shown.refresh_token);
    let owner = app.store.refresh_owner(&hash).await?.ok_or_else(void)?;
    let (account, user) = tokio::try_join!(app.store.account(owner), app.store.user(owner))?;
    let (Some(account), Some(user)) = (account, user) else { return Err(void().into()) };
    if account.blocked {
        return Err(caller::blocked().into());
    }
    let (token, next) = refresh::generate();
    let next = NextRefresh { hash: next, expires_at: now.plus(app.settings.refresh_lifetime) };
    match app.store.rotate(&hash, &next, now).await? {
        Rotation::Rotated { .. } => Ok(Json(session(&app, user, token, now))),
        Rotation::Reused { user } => {
            tracing::warn!(%user, "a refresh token was used twice; its session ended");
            Err(void().into())
        }
        Rotation::Unknown => Err(void().into()),
    }
}

/// Ends one session, or all of the bearer's.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", request_body = Logout, security((), ("bearer" = [])),
    responses((status = 204, description = "Ended, or there was nothing to end.")))]
pub(crate) async fn logout(
    State(app): State<Arc<App>>,
    // Only signing out everywhere needs to know who asks: a refresh token speaks for its own session.
    caller: Result<Caller, Problem>,
    Body(wanted): Body<Logout>,
) -> Answer<StatusCode> {
    let Logout { refresh_token, everywhere } = wanted;
    let now = app.clock.now();
    if everywhere {
        let user = caller?.user;
        app.store.void_tokens(user, now).await?;
        app.accounts.forget(user);
        app.handlers.announce_revocation(user, now, false).await;
    } else {
        let token = refresh_token.filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Refusal::invalid("refreshToken", "is required, or everywhere"))?;
        app.store.end_family(&refresh::hash(&token), now).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Begins a session of `user`.
async fn begin(app: &App, user: User) -> Answer<Session> {
    let now = app.clock.now();
    let (token, hash) = refresh::generate();
    let expires_at = now.plus(app.settings.refresh_lifetime);
    let family = Uuid::now_v7();
    app.store.start_family(&NewRefresh { hash, family, user: user.id, expires_at, created_at: now }).await?;
    Ok(session(app, user, token, now))
}

fn session(app: &App, user: User, refresh_token: String, now: Timestamp) -> Session {
    let (access_token, expires_at) = app.tokens.issue(user.id, now);
    Session { access_token, refresh_token, expires_at: expires_at.to_rfc3339(), user: user.into() }
}

fn too_often(wait_ms: u64) -> Refusal {
    Counter::Limited.inc_with("logins");
    Refusal::rate_limited(wait_ms)
}
