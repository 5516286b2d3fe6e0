//! Catching up, directly from the store.

use protocol::{Ack, wire};

use super::{Caller, Outcome, later};

pub(super) fn sync(caller: &Caller, sync: wire::Sync) -> Outcome {
    let caller = caller.clone();
    later(async move {
        let result = caller.shared.handlers.sync(caller.user, sync).await?;
        Ok(Outcome::Answer(Ack::SyncResult(result)))
    })
}
