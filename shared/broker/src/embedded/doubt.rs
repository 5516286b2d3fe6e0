//! Settlements of which nobody waits any more to hear whether they were written.
//!
//! The consumer is gone, the order is still with the writer. The invariant: what is in doubt is handed out again
//! only once it is known that it was not settled; else a dead letter could be applied after all.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::lanes::Event;

/// A settlement that its consumer waits for.
#[derive(Debug)]
pub(super) struct Pending {
    /// Of the events that it settles.
    pub(super) places: Vec<i64>,
    /// Told once it is on disk; closed once it is known that it will not be.
    pub(super) written: oneshot::Receiver<()>,
}

/// The events in doubt, by place.
#[derive(Debug, Default)]
pub(super) struct Doubt(Mutex<BTreeMap<i64, Event>>);

impl Doubt {
    /// A consumer waits no longer: takes out of what it `held` what it must not give back. Returns what it turns
    /// out to have settled.
    pub(super) fn give_up(&self, mut pending: Pending, held: &mut BTreeMap<i64, Event>) -> Vec<Event> {
        // Held until it is entered here: the writer answers under the same lock.
        let mut in_doubt = self.0.lock();
        let known = pending.written.try_recv();
        if known == Err(TryRecvError::Closed) {
            return Vec::new();
        }
        let events = pending.places.iter().filter_map(|place| held.remove(place));
        if known == Ok(()) {
            return events.collect();
        }
        in_doubt.extend(events.map(|event| (event.place, event)));
        Vec::new()
    }

    /// The writer knows whether settlements were written, and answers who waits. Returns those of their events for
    /// which nobody does.
    pub(super) fn resolve(&self, waiting: Vec<oneshot::Sender<()>>, written: bool, places: &[i64]) -> Vec<Event> {
        let mut in_doubt = self.0.lock();
        for done in waiting.into_iter().filter(|_| written) {
            // Whoever is gone has left its events here.
            let _gone = done.send(());
        }
        if in_doubt.is_empty() {
            return Vec::new();
        }
        places.iter().filter_map(|place| in_doubt.remove(place)).collect()
    }
}
