//! The second phase: is the token good, and what does its user follow.
//!
//! Knows no dialect. The invariant: `session.ready` lies in the outbox before anything else of the
//! session, and nothing that happened after what it says is missing behind it.

use std::sync::Arc;
use std::time::Duration;

use auth::token::Claims;
use domain::DeviceId;
use protocol::{CloseCode, Refusal};
use realtime::LogNumber;
use store::Account;

use super::open::Open;
use super::recovery::{self, Recalled};
use super::unauthenticated::{Candidate, Failure};
use crate::codec::Dialect;
use crate::following;
use crate::handle::outbox::Kind;
use crate::handle::{Handle, Identity};
use crate::hub::Ticket;
use crate::shared::{Shared, within};

/// How long opening a session may take altogether.
const OPENING_LIMIT: Duration = Duration::from_secs(8);

impl From<Refusal> for Failure {
    /// What is no fault of the client's: it may come back later.
    fn from(refusal: Refusal) -> Self {
        Self { refusal, close: CloseCode::Draining }
    }
}

/// Lets a candidate in.
pub(crate) async fn open(shared: &Arc<Shared>, handle: &Arc<Handle>, candidate: Candidate) -> Result<Open, Failure> {
    match tokio::time::timeout(OPENING_LIMIT, try_open(shared, handle, candidate)).await {
        Ok(opened) => opened,
        Err(_) => Err(Refusal::unavailable().into()),
    }
}

async fn try_open(shared: &Arc<Shared>, handle: &Arc<Handle>, candidate: Candidate) -> Result<Open, Failure> {
    let claims = authenticate(shared, &candidate.token).await?;
    let session = Box::pin(shared.realtime.new_session(shared.clock.now())).await;
    let session = session.map_err(|_| Refusal::unavailable())?;
    let recalled = recovery::recall(shared, &candidate, claims.user).await;
    let device = candidate.device.or_else(|| recalled.as_ref().map(Recalled::device));
    let device = device.unwrap_or_else(DeviceId::generate);
    let identity = Identity { user: claims.user, session, device };
    // Before anybody can find the session by its user.
    let _new = handle.rights.live_by(claims.issued_at);
    handle.quiet.knows(shared.hub.moves());
    handle.identify(identity.clone());
    handle.authenticated(shared.monotonic_ms(claims.expires_at));
    shared.wheel.watch(handle);
    // The same device on another gateway is told when this session arrives (see `presence`).
    if let Some(replaced) = shared.hub.users.enter(handle) {
        replaced.close(CloseCode::Replaced);
    }
    let found = following::follow_all(shared, handle, claims.user).await?;
    // Once more: what changed before the session could be found and told is seen here, what changes
    // from now on finds it.
    judge(&claims, Some(&found.account))?;
    handle.rights.follows(found.account.membership);

    let ready = following::session_ready(shared, &identity, &found.rooms, found.account.membership);
    let followed = if handle.dialect == Dialect::SocketIo {
        recovery::welcome(shared, handle, recalled, &found, &ready).await
    } else {
        handle.push(handle.dialect.event(&ready), Kind::Answer);
        LogNumber::NONE
    };
    let rooms: Vec<_> = found.rooms.iter().map(|state| state.room_id).collect();
    for room in &rooms {
        shared.hub.open(handle, *room, Ticket::OPENING);
    }
    handle.followed.begin(followed);
    for early in handle.take_early() {
        shared.hub.tell(claims.user, handle, &early);
    }
    Ok(Open::new(Arc::clone(shared), Arc::clone(handle), identity, claims.expires_at, rooms))
}

/// Whose token it is, if it is good and its account may come in.
pub(crate) async fn authenticate(shared: &Shared, token: &str) -> Result<Claims, Failure> {
    let claims = shared.tokens.verify(token, shared.clock.now()).map_err(|error| not_let_in(&error.to_string()))?;
    judge(&claims, within(shared.lookups.account(claims.user)).await?.as_ref())?;
    Ok(claims)
}

/// Whether the account lets its token in.
fn judge(claims: &Claims, account: Option<&Account>) -> Result<(), Failure> {
    let Some(account) = account else { return Err(not_let_in("the token is not valid")) };
    if account.blocked {
        let refusal = Refusal::new(protocol::Code::Forbidden, "the account is blocked");
        return Err(Failure { refusal, close: CloseCode::Forbidden });
    }
    if claims.are_void(account.tokens_valid_after) {
        return Err(not_let_in("the token is void"));
    }
    Ok(())
}

fn not_let_in(why: &str) -> Failure {
    Failure { refusal: Refusal::unauthenticated(why), close: CloseCode::Unauthenticated }
}
