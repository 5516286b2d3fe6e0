//! Who calls: the bearer of an access token whose account may use it.
//!
//! The invariant: a route that takes a [`Caller`] runs only for an account that exists, is not
//! blocked, and has not signed out everywhere since the token was issued.

use std::sync::Arc;
use std::time::Duration;

use auth::TokenError;
use auth::token::Claims;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use domain::{Timestamp, UserId};
use intake::Actor;
use protocol::{Code, Refusal};
use store::user::Account;

use crate::app::App;
use crate::problem::Problem;

/// The account that calls, as an argument of a route.
pub(crate) struct Caller {
    /// Whose token it is.
    pub(crate) user: UserId,
    /// The same for the intake.
    pub(crate) actor: Actor,
    /// May do what only operators may.
    pub(crate) is_admin: bool,
    /// What the token says.
    claims: Claims,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        Self::identify(&parts.headers, app).await
    }
}

impl Caller {
    /// Who calls, if they may.
    pub(crate) async fn identify(headers: &HeaderMap, app: &App) -> Result<Self, Problem> {
        let token = bearer(headers).ok_or_else(|| Refusal::unauthenticated("a bearer token is required"))?;
        let claims = app.tokens.verify(token, app.clock.now()).map_err(|error| match error {
            TokenError::Expired => Refusal::unauthenticated("the token has expired"),
            TokenError::Invalid => Refusal::unauthenticated("the token is not valid"),
        })?;
        let account = app.accounts.look_up(&app.store, claims.user, app.clock.monotonic_us()).await?;
        let account = account.ok_or_else(|| Refusal::unauthenticated("there is no such account"))?;
        let actor = Actor { user: claims.user, device: String::new(), traceparent: traceparent(headers) };
        let caller = Self { user: claims.user, actor, is_admin: account.is_admin, claims };
        caller.check(&account)?;
        Ok(caller)
    }

    /// Whether the token still lets its account in, unless it has expired.
    pub(crate) fn check(&self, account: &Account) -> Result<(), Refusal> {
        if account.blocked {
            return Err(blocked());
        }
        if self.claims.are_void(account.tokens_valid_after) {
            return Err(Refusal::unauthenticated("the account has signed out everywhere"));
        }
        Ok(())
    }

    /// How long the token is good for from `now` on.
    pub(crate) fn is_good_for(&self, now: Timestamp) -> Duration {
        self.claims.expires_at.since(now)
    }
}

/// What a blocked account is told.
pub(crate) fn blocked() -> Refusal {
    Refusal::new(Code::Forbidden, "the account is blocked")
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The caller's trace context if it is well-formed (W3C Trace Context section 3.2.2, version 00).
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (lengths == [2, 32, 16, 2] && parts[0] == "00" && parts.iter().all(hex)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Bearer abc", Some("abc"))]
    #[case("bearer  abc ", Some("abc"))]
    #[case("Basic abc", None)]
    #[case("Bearer", None)]
    #[case("Bearer ", None)]
    #[case("abc", None)]
    fn a_bearer_token_stands_after_its_scheme(#[case] value: &'static str, #[case] token: Option<&str>) {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
        assert_eq!(bearer(&headers), token);
    }

    #[rstest]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true)]
    #[case("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false)]
    #[case("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false)]
    #[case("x", false)]
    fn only_a_well_formed_trace_is_carried_on(#[case] value: &'static str, #[case] kept: bool) {
        let name = axum::http::HeaderName::from_static("traceparent");
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        assert_eq!(traceparent(&headers).is_some(), kept);
    }
}
