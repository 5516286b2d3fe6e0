//! Who may do what only operators may: an account that the store calls an admin.
//!
//! The invariant: a route that takes an [`Admin`] runs only for such an account, as it stood a second
//! ago at most.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use domain::UserId;
use protocol::{Code, Refusal};

use crate::app::App;
use crate::caller::Caller;
use crate::problem::Problem;

/// The admin that calls, as an argument of a route. Each request counts against the user's rate.
pub(crate) struct Admin {
    /// Who.
    pub(crate) user: UserId,
}

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = Caller::identify(&parts.headers, app).await?;
        if !caller.is_admin {
            return Err(Refusal::new(Code::Forbidden, "only an admin may do this").into());
        }
        app.intake.allow(caller.user)?;
        Ok(Self { user: caller.user })
    }
}
