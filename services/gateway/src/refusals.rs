//! What was QUEUED and refused later, told to a sender who was away at that moment.
//!
//! Knows no transport. The invariant: whoever comes back within a day learns of it; the same
//! refusal may be told more than once, with the same `jobId`.

use std::sync::Arc;
use std::time::Duration;

use domain::{JobId, Timestamp};
use protocol::EventData;
use uuid::Uuid;

use crate::handle::Handle;
use crate::handle::outbox::Kind;
use crate::shared::{LOOK_UP_LIMIT, Shared};

/// What is older was told to those who came back since.
const TOLD_FOR: Duration = Duration::from_hours(24);
/// Read in one go.
const PAGE: usize = 200;
/// Of more only the oldest are told.
const PAGES: usize = 25;

/// How often it is looked whether the client has read what it was told so far, and how many times
/// altogether; then it is told more and shows itself to be slow.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS: usize = 500;

/// Tells a connection what its user was refused of late.
pub(crate) async fn tell(shared: &Shared, handle: &Arc<Handle>) {
    let Some(identity) = handle.identity() else { return };
    let since = Timestamp(shared.clock.now().0 - TOLD_FOR.as_millis() as i64);
    let mut after = (since, JobId(Uuid::nil()));
    let mut looks = LOOKS;
    for _ in 0..PAGES {
        let read = tokio::time::timeout(LOOK_UP_LIMIT, shared.store.refusals_of(identity.user, after, PAGE)).await;
        let Ok(Ok(refusals)) = read else {
            tracing::warn!(user = %identity.user, "whether anything was refused could not be read");
            return;
        };
        let is_last = refusals.len() < PAGE;
        for (place, refusal) in refusals {
            after = place;
            handle.push(handle.dialect.event(&EventData::MessageFailed(refusal)), Kind::Event);
            while handle.is_crowded() && looks > 0 {
                looks -= 1;
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if handle.is_over() {
                return;
            }
        }
        if is_last {
            return;
        }
    }
}
