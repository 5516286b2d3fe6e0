//! Who rests: devices from which no command came for a while, and those in use again.
//!
//! A command costs two looks at the handle and no more; one task sweeps over all connections and tells
//! changes, in batches. The invariant: what the realtime port holds about a device is what its handle
//! says, or will be after the next command or sweep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use protocol::Command;
use realtime::DeviceLease;
use runtime::Shutdown;
use tokio::sync::mpsc;

use crate::handle::Handle;
use crate::presence;
use crate::shared::Shared;

/// Devices in use again that wait to be told; more than these are told at their next command.
const WAITING: usize = 4096;
/// Devices told in one call.
const SLICE: usize = 500;
/// Between two sweeps, at most and at least.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
const SWEEP_EVERY_LEAST: Duration = Duration::from_millis(200);

/// When one connection was last used.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// By the wheel's clock; zero: its user has not arrived yet.
    last_ms: AtomicU64,
    is_idle: AtomicBool,
}

/// Where connections report that they are in use again.
pub(crate) struct Idle {
    after_ms: u64,
    returns: mpsc::Sender<Arc<Handle>>,
}

impl Activity {
    /// Used now; true if it was idle until now. Ordered against `rest`, so that one of the two sees
    /// the other.
    fn used(&self, now_ms: u64) -> bool {
        self.last_ms.store(now_ms, Ordering::SeqCst);
        self.is_idle.load(Ordering::SeqCst) && self.is_idle.swap(false, Ordering::SeqCst)
    }

    /// True if it becomes idle now.
    fn rest(&self, now_ms: u64, after_ms: u64) -> bool {
        let last_ms = self.last_ms.load(Ordering::SeqCst);
        let is_due = last_ms > 0 && now_ms.saturating_sub(last_ms) >= after_ms;
        if !is_due || self.is_idle.swap(true, Ordering::SeqCst) {
            return false;
        }
        let is_stale = self.last_ms.load(Ordering::SeqCst) != last_ms;
        !(is_stale && self.is_idle.swap(false, Ordering::SeqCst))
    }

    /// The realtime port learnt of the device, which it takes to be in use.
    pub(crate) fn arrived(&self, now_ms: u64) {
        self.set_idle(false);
        let _ = self.last_ms.compare_exchange(0, now_ms.max(1), Ordering::SeqCst, Ordering::SeqCst);
    }

    fn set_idle(&self, is_idle: bool) {
        self.is_idle.store(is_idle, Ordering::SeqCst);
    }
}

impl Idle {
    /// Devices rest after `after` without a command; zero: never.
    pub(crate) fn new(after: Duration) -> (Self, mpsc::Receiver<Arc<Handle>>) {
        let (returns, returned) = mpsc::channel(WAITING);
        (Self { after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX), returns }, returned)
    }

    /// A command came. Questions whether the server is there are no sign of somebody at the device.
    pub(crate) fn used(&self, handle: &Arc<Handle>, command: &Command, now_ms: u64) {
        if !matches!(command, Command::Ping(_))
            && handle.activity.used(now_ms)
            && self.returns.try_send(Arc::clone(handle)).is_err()
        {
            handle.activity.set_idle(true);
        }
    }
}

/// Tells who rests and who is in use again, and once more who left when that could not be told, until
/// the service stops.
pub(crate) async fn run(shared: Arc<Shared>, mut returned: mpsc::Receiver<Arc<Handle>>) {
    let shutdown: Shutdown = shared.tasks.shutdown().clone();
    let after = Duration::from_millis(shared.idle.after_ms);
    let every = if after.is_zero() { SWEEP_EVERY } else { (after / 10).clamp(SWEEP_EVERY_LEAST, SWEEP_EVERY) };
    let mut sweep_due = tokio::time::interval(every);
    sweep_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut back = Vec::new();
    while !shutdown.is_requested() {
        tokio::select! {
            () = shutdown.requested() => return,
            count = returned.recv_many(&mut back, SLICE) => {
                if count == 0 {
                    return;
                }
                tell(&shared, &back, false).await;
                back.clear();
            }
            _ = sweep_due.tick() => {
                if !after.is_zero() {
                    sweep(&shared).await;
                }
                presence::depart_again(&shared).await;
            }
        }
    }
}

async fn sweep(shared: &Shared) {
    let now_ms = shared.wheel.now_ms();
    let mut resting = Vec::new();
    shared.hub.users.each(|handle| {
        if handle.is_ready() && handle.activity.rest(now_ms, shared.idle.after_ms) {
            resting.push(Arc::clone(handle));
        }
    });
    for slice in resting.chunks(SLICE) {
        tell(shared, slice, true).await;
    }
}

/// What could not be told is taken back: the next sweep, or the next command, tells it.
async fn tell(shared: &Shared, handles: &[Arc<Handle>], is_idle: bool) {
    let lease = |handle: &Arc<Handle>| handle.identity().map(|identity| presence::lease(shared, identity));
    let leases: Vec<DeviceLease> = handles.iter().filter_map(lease).collect();
    let telling = shared.realtime.set_idle(&leases, is_idle, shared.clock.now());
    if !matches!(tokio::time::timeout(presence::TELL_LIMIT, telling).await, Ok(Ok(()))) {
        tracing::debug!(devices = leases.len(), is_idle, "idleness was not told");
        for handle in handles {
            handle.activity.set_idle(!is_idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::tests::handle;
    use protocol::wire;

    #[test]
    fn a_device_rests_once_after_the_time_and_is_back_once_with_the_next_command() {
        let handle = handle(1, 1);
        let activity = &handle.activity;
        assert!(!activity.rest(900, 300), "not known yet");
        handle.activity.arrived(1_000);
        assert!(!activity.rest(1_299, 300));
        assert!(activity.rest(1_300, 300));
        assert!(!activity.rest(9_000, 300), "known already");
        assert!(activity.used(9_100));
        assert!(!activity.used(9_200), "known already");
        assert!(!activity.rest(9_499, 300));
        assert!(activity.rest(9_500, 300));
    }

    #[test]
    fn whoever_cannot_be_told_about_is_told_about_at_the_next_command() {
        let (idle, mut returned) = Idle::new(Duration::from_secs(1));
        let handles: Vec<_> = (0..=WAITING as u64).map(|key| handle(key, 1)).collect();
        let query = Command::PresenceQuery(wire::PresenceQuery::default());
        for handle in &handles {
            handle.activity.set_idle(true);
            idle.used(handle, &Command::Ping(wire::Ping::default()), 5);
            assert!(handle.activity.is_idle.load(Ordering::SeqCst), "a ping says nothing");
            idle.used(handle, &query, 5);
        }
        let last = &handles[WAITING];
        assert!(last.activity.is_idle.load(Ordering::SeqCst), "there was no room for it");
        assert!(returned.try_recv().is_ok());
        idle.used(last, &query, 6);
        assert!(!last.activity.is_idle.load(Ordering::SeqCst));
    }
}
