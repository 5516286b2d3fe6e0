//! A new token on a live session.
//!
//! The invariant: a session never changes hands.

use domain::Timestamp;
use protocol::{Refusal, wire};

use super::{Caller, Outcome, later};
use crate::session::authenticate;

/// `auth.refresh`, and `auth` on a session that is open already.
pub(super) fn refresh(caller: &Caller, token: String) -> Outcome {
    let caller = caller.clone();
    later(async move {
        let claims = authenticate(&caller.shared, &token).await.map_err(|failure| failure.refusal)?;
        if claims.user != caller.user {
            return Err(Refusal::unauthenticated("the token is somebody else's"));
        }
        Ok(Outcome::Refreshed(claims))
    })
}

/// What a good token is answered with.
pub(crate) fn refreshed(expires_at: Timestamp) -> wire::Refreshed {
    wire::Refreshed { status: "OK".to_owned(), expires_at: expires_at.to_rfc3339() }
}
