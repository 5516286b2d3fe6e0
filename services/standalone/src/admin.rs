//! `admin`: what an operator may do to an account, also while the system runs.
//!
//! Changes rows of the store and tells nobody: the gateways look for such changes all the time. The
//! invariant: either the account was changed and one JSON line says how it stands now, or nothing was.

use std::process::ExitCode;

use clap::Subcommand;
use config::Settings;
use domain::UserId;
use domain::user::normalise_email;
use engine::service::block_on;
use runtime::Clock;
use serde_json::{Value, json};
use store::{Store, StoreError, User};

use crate::say::{print, refuse};

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Block an account: its sessions end within a second, and nobody can log in to it.
    Block(Whom),
    /// Let a blocked account log in again; tokens from before stay void.
    Unblock(Whom),
    /// Sign an account out everywhere: its sessions end within a second, all its tokens are void.
    Signout(Whom),
    /// Let an account do by REST what only operators may.
    Grant(Whom),
    /// Let it do so no more; works within a second.
    Revoke(Whom),
}

#[derive(clap::Args)]
pub(crate) struct Whom {
    /// The account: its id or its e-mail address.
    user: String,
}

/// Changes the account and prints how it stands; exit code 2 if there is none.
pub(crate) fn run(settings: &Settings, action: &Action) -> ExitCode {
    let mut code = None;
    let ended = block_on(settings, async {
        let store = engine::visit_store(settings).await?;
        let changed = change(&store, action).await;
        store.close().await;
        match changed? {
            Some(line) => print(&line.to_string())?,
            None => code = Some(refuse(&format!("there is no user {}", action.user()))),
        }
        Ok(())
    });
    code.unwrap_or(ended)
}

async fn change(store: &Store, action: &Action) -> Result<Option<Value>, StoreError> {
    let Some(user) = find(store, action.user()).await? else { return Ok(None) };
    let now = Clock::system().now();
    match action {
        Action::Block(_) => store.set_blocked(user.id, true, now).await?,
        Action::Unblock(_) => store.set_blocked(user.id, false, now).await?,
        Action::Signout(_) => store.void_tokens(user.id, now).await?,
        Action::Grant(_) => store.set_admin(user.id, true).await?,
        Action::Revoke(_) => store.set_admin(user.id, false).await?,
    }
    let Some(account) = store.account(user.id).await? else { return Ok(None) };
    Ok(Some(json!({
        "userId": user.id,
        "email": user.email,
        "blocked": account.blocked,
        "role": if account.is_admin { "admin" } else { "user" },
        "tokensValidAfter": account.tokens_valid_after.to_rfc3339(),
    })))
}

async fn find(store: &Store, name: &str) -> Result<Option<User>, StoreError> {
    if let Ok(id) = UserId::parse("user", name) {
        return store.user(id).await;
    }
    let Ok(email) = normalise_email(name) else { return Ok(None) };
    Ok(store.credentials(&email).await?.map(|known| known.user))
}

impl Action {
    fn user(&self) -> &str {
        let (Self::Block(whom) | Self::Unblock(whom) | Self::Signout(whom) | Self::Grant(whom) | Self::Revoke(whom)) =
            self;
        &whom.user
    }
}
