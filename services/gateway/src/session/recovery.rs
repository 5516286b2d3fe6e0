//! Connection state recovery of Socket.IO clients: who comes back with what its connection was
//! recognised by gets what it missed, before it is told that it is connected.
//!
//! Any gateway can do it. The invariant: nothing is recovered in part; whoever is not recovered is
//! told so by a new secret and reads the state anew.

use std::sync::Arc;
use std::time::Duration;

use domain::{DeviceId, Membership, UserId};
use handlers::Missed;
use protocol::EventData;
use realtime::{LogNumber, Remembered};
use store::RoomsOf;
use telemetry::Counter;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::unauthenticated::Candidate;
use crate::codec::{Delivered, Place};
use crate::handle::Handle;
use crate::handle::outbox::Kind;
use crate::shared::Shared;
use crate::socketio::{self, Claim};

/// How long recovering may take; without it a client reads the state anew.
const RECOVERY_LIMIT: Duration = Duration::from_secs(2);

/// Connections that wait to be recognised anew; of more than these the rest cannot be recovered.
const RENEWALS: usize = 4_096;
/// Renewed at a time.
const AT_ONCE: usize = 16;

/// Connections that follow other rooms than they were recognised with.
pub(crate) struct Renewals(mpsc::Sender<Renewal>);

type Renewal = (Arc<Handle>, Membership);

impl Renewals {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Renewal>) {
        let (renewals, asked) = mpsc::channel(RENEWALS);
        (Self(renewals), asked)
    }

    /// The connection follows the rooms of that version by now. Whoever says so does not wait: rights are
    /// carried out whether or not Redis answers.
    pub(crate) fn ask(&self, handle: &Arc<Handle>, membership: Membership) {
        if handle.followed.pid().is_some() && self.0.try_send((Arc::clone(handle), membership)).is_err() {
            handle.followed.give_up();
        }
    }
}

/// Renews what connections are recognised by until the service stops.
pub(crate) async fn run(shared: Arc<Shared>, mut asked: mpsc::Receiver<Renewal>) {
    let renewing = async {
        let mut batch = Vec::with_capacity(AT_ONCE);
        while asked.recv_many(&mut batch, AT_ONCE).await > 0 {
            let each = batch.drain(..).map(|(handle, membership)| renew(&shared, handle, membership));
            futures_util::future::join_all(each).await;
        }
    };
    tokio::select! {
        () = shared.tasks.shutdown().requested() => {}
        () = renewing => {}
    }
}

/// A connection that broke off.
pub(crate) struct Recalled {
    claim: Claim,
    remembered: Remembered,
}

/// A connection that goes on.
struct Recovered {
    recalled: Recalled,
    missed: Vec<Missed>,
}

impl Recalled {
    pub(crate) fn device(&self) -> DeviceId {
        self.remembered.device.clone()
    }
}

/// The connection that a candidate wants to go on with, if it is its own.
pub(crate) async fn recall(shared: &Shared, candidate: &Candidate, user: UserId) -> Option<Recalled> {
    let claim = candidate.claim?;
    let remembered = shared.realtime.recall(claim.pid).await.ok().flatten();
    let is_its_own =
        |it: &Remembered| it.user == user && candidate.device.as_ref().is_none_or(|device| *device == it.device);
    let recalled = remembered.filter(is_its_own).map(|remembered| Recalled { claim, remembered });
    if recalled.is_none() {
        Counter::Recoveries.inc_with("unknown");
    }
    recalled
}

/// Tells a client that it is let in: as the connection it was, with all that it missed, or as a new
/// one. Up to where it has followed by that.
pub(crate) async fn welcome(
    shared: &Shared,
    handle: &Arc<Handle>,
    recalled: Option<Recalled>,
    found: &RoomsOf,
    ready: &EventData,
) -> LogNumber {
    if let Some(recalled) = recalled
        && let Some(recovered) = recover(shared, recalled, found).await
    {
        return go_on(handle, recovered, ready);
    }
    let pid = begin(shared, handle, found).await;
    let socket_id = handle.identity().map(|identity| identity.session.to_string()).unwrap_or_default();
    handle.push(socketio::accept(&socket_id, pid), Kind::Answer);
    handle.push(socketio::first_event(ready), Kind::Answer);
    LogNumber::NONE
}

async fn recover(shared: &Shared, recalled: Recalled, found: &RoomsOf) -> Option<Recovered> {
    let Recalled { claim, remembered } = &recalled;
    if remembered.membership != found.account.membership || claim.after <= remembered.since {
        Counter::Recoveries.inc_with("not_sound");
        return None;
    }
    let missed = shared.handlers.missed(&found.rooms, recalled.claim.after);
    let Ok(Ok(Some(missed))) = tokio::time::timeout(RECOVERY_LIMIT, Box::pin(missed)).await else {
        Counter::Recoveries.inc_with("not_whole");
        return None;
    };
    // The stock client keeps what comes before it is connected and does not count it. If the connection
    // breaks in the middle of that, the same offset would bring it all once more: it works once.
    let since = if missed.iter().any(|missed| missed.number.is_some()) { claim.after } else { remembered.since };
    let remembered = Remembered { since, ..remembered.clone() };
    if shared.realtime.remember(claim.pid, &remembered).await.is_err() {
        Counter::Recoveries.inc_with("not_whole");
        return None;
    }
    Counter::Recoveries.inc_with("recovered");
    Some(Recovered { recalled, missed })
}

/// The stock client keeps what comes before it is connected and tells it all at once.
fn go_on(handle: &Handle, recovered: Recovered, ready: &EventData) -> LogNumber {
    let Recovered { recalled: Recalled { claim, remembered }, missed } = recovered;
    handle.followed.recognise(claim.pid);
    handle.push(handle.dialect.event(ready), Kind::Answer);
    let mut last = claim.after;
    for Missed { number, delivery } in missed {
        last = last.max(number);
        handle.push(Delivered::numbered(delivery, number).bytes(handle.dialect, Place::Sound), Kind::Answer);
    }
    handle.push(socketio::accept(&remembered.socket_id, Some(claim.pid)), Kind::Answer);
    last
}

/// Remembers a new connection; without that it cannot be recovered, and where nothing is ordered never.
async fn begin(shared: &Shared, handle: &Handle, found: &RoomsOf) -> Option<Uuid> {
    if !shared.realtime.is_ordered() {
        return None;
    }
    let identity = handle.identity()?;
    let remembered = Remembered {
        user: identity.user,
        device: identity.device.clone(),
        socket_id: identity.session.to_string(),
        membership: found.account.membership,
        since: LogNumber::NONE,
    };
    // Random: whoever knows it may ask for what the connection missed, if the token is its user's.
    let pid = Uuid::new_v4();
    shared.realtime.remember(pid, &remembered).await.ok()?;
    handle.followed.recognise(pid);
    Some(pid)
}

/// What the client was told of the change has no place in the order: only who got a delivery after it
/// can have got that too.
async fn renew(shared: &Shared, handle: Arc<Handle>, membership: Membership) {
    let (Some(pid), Some(identity)) = (handle.followed.pid(), handle.identity()) else { return };
    let Ok(Some(remembered)) = shared.realtime.recall(pid).await else { return };
    if remembered.user == identity.user && !handle.followed.has_given_up() {
        let remembered = Remembered { membership, since: shared.hub.sound.last_number(), ..remembered };
        // Err: then it cannot be recovered.
        let _ = shared.realtime.remember(pid, &remembered).await;
    }
}

/// The client has left for good, or does not follow all of its rooms any more.
pub(crate) async fn forget(shared: &Shared, handle: &Handle) {
    if let Some(pid) = handle.followed.give_up() {
        // Err: it is forgotten by itself after a day.
        let _ = shared.realtime.forget_connection(pid).await;
    }
}
