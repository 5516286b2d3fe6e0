//! One clock for all connections: comes by when something is due, so that none needs a timer.
//!
//! Knows deadlines only as milliseconds. The invariant: a connection is in the wheel once; entries
//! that were planned for another time are thrown away when their turn comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{Clock, Shutdown};

use crate::handle::Handle;

/// How fine the wheel turns.
const TICK_MS: u64 = 250;
/// Slots of the wheel: a turn takes 64 seconds, longer than any ping.
const SLOTS: usize = 256;

struct Entry {
    planned_ms: u64,
    handle: Weak<Handle>,
}

/// The wheel.
pub(crate) struct Wheel {
    slots: Box<[Mutex<Vec<Entry>>]>,
    /// The tick that was come to last; changed before its slot is emptied.
    passed: AtomicU64,
    clock: Clock,
}

impl Wheel {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::default()).collect(), passed: AtomicU64::new(0), clock }
    }

    /// Milliseconds on the clock that never goes back.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.monotonic_us() / 1000
    }

    /// Watches a connection from now on, or again because its deadlines have changed.
    pub(crate) fn watch(&self, handle: &Arc<Handle>) {
        self.plan(Arc::downgrade(handle), handle);
    }

    fn plan(&self, entry: Weak<Handle>, handle: &Handle) {
        loop {
            let now_ms = self.now_ms();
            let horizon_ms = now_ms + TICK_MS * (SLOTS as u64 - 2);
            let soonest = (now_ms / TICK_MS).max(self.passed.load(Ordering::SeqCst)) + 1;
            // At the end of its tick, so that what is due is due when the wheel comes.
            let tick_of = |due_ms: u64| due_ms.clamp(now_ms, horizon_ms).div_ceil(TICK_MS).max(soonest);
            let planned_ms = handle.plan_visit(|due_ms| tick_of(due_ms) * TICK_MS);
            let tick = planned_ms / TICK_MS;
            let mut slot = self.slots[tick as usize % SLOTS].lock();
            // The wheel may have come by meanwhile, and the next time is a whole turn away.
            if self.passed.load(Ordering::SeqCst) < tick {
                slot.push(Entry { planned_ms, handle: entry });
                return;
            }
        }
    }

    /// All connections at the moment, whether they said who they are or not.
    pub(crate) fn handles(&self) -> Vec<Arc<Handle>> {
        let of_slot =
            |slot: &Mutex<Vec<Entry>>| slot.lock().iter().map(|entry| entry.handle.clone()).collect::<Vec<_>>();
        let mut handles: Vec<_> = self.slots.iter().flat_map(of_slot).filter_map(|handle| handle.upgrade()).collect();
        handles.sort_unstable_by_key(|handle| handle.key);
        handles.dedup_by_key(|handle| handle.key);
        handles
    }

    /// Turns until the service stops.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let mut last_tick = self.now_ms() / TICK_MS;
        while !shutdown.is_requested() {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(Duration::from_millis(TICK_MS)) => {}
            }
            last_tick = self.turn(last_tick);
        }
    }

    /// Visits everything planned after `last_tick` up to now; answers the tick it came to.
    fn turn(&self, last_tick: u64) -> u64 {
        let now_ms = self.now_ms();
        let tick = now_ms / TICK_MS;
        let first = (last_tick + 1).max(tick.saturating_sub(SLOTS as u64 - 1));
        for passed in first..=tick {
            self.passed.fetch_max(passed, Ordering::SeqCst);
            let entries = std::mem::take(&mut *self.slots[passed as usize % SLOTS].lock());
            for entry in entries {
                self.visit(entry, now_ms);
            }
        }
        tick
    }

    fn visit(&self, entry: Entry, now_ms: u64) {
        let Some(handle) = entry.handle.upgrade() else { return };
        if handle.visit(entry.planned_ms, now_ms) {
            self.plan(entry.handle, &handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Signal;
    use crate::handle::tests::handle;
    use protocol::CloseCode;

    fn wheel() -> (Wheel, Clock) {
        let clock = Clock::system();
        (Wheel::new(clock.clone()), clock)
    }

    fn turn_after(wheel: &Wheel, clock: &Clock, by_ms: i64) {
        let last = wheel.now_ms() / TICK_MS;
        clock.shift(by_ms);
        wheel.turn(last);
    }

    #[test]
    fn a_silent_connection_is_pinged_and_then_closed() {
        let (wheel, clock) = wheel();
        let handle = handle(1, 1);
        handle.authenticated(u64::MAX);
        wheel.watch(&handle);
        turn_after(&wheel, &clock, 24_000);
        assert_eq!(handle.take_signal(), None);
        turn_after(&wheel, &clock, 1_500);
        assert_eq!(handle.take_signal(), Some(Signal::Ping));
        turn_after(&wheel, &clock, 21_000);
        assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::PongTimeout)));
    }

    #[test]
    fn a_deadline_that_moves_nearer_is_kept_and_not_visited_twice() {
        let (wheel, clock) = wheel();
        let handle = handle(1, 1);
        wheel.watch(&handle);
        handle.authenticated(wheel.now_ms() + 2_000);
        wheel.watch(&handle);
        turn_after(&wheel, &clock, 2_500);
        assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::Unauthenticated)));
        let planned: usize = wheel.slots.iter().map(|slot| slot.lock().len()).sum();
        assert!(planned <= 1, "only the stale entry may be left, not {planned}");
    }

    /// Between the wheel's visit and its next plan, or between the two steps of a plan, the deadlines
    /// may move: the entry that counts is by the newer ones, whoever planned first.
    #[test]
    fn a_deadline_that_moves_while_the_wheel_visits_is_kept() {
        let (wheel, clock) = wheel();
        for turn in 0..50 {
            let handle = handle(turn, 1);
            handle.authenticated(u64::MAX);
            let soon_ms = wheel.now_ms() + 2_000;
            std::thread::scope(|scope| {
                let planner = scope.spawn(|| (0..20).for_each(|_| wheel.watch(&handle)));
                handle.authenticated(soon_ms);
                wheel.watch(&handle);
                planner.join().expect("planned");
            });
            turn_after(&wheel, &clock, 2_500);
            assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::Unauthenticated)), "{turn}");
        }
    }

    #[test]
    fn a_plan_for_a_tick_that_has_passed_is_made_anew() {
        let (wheel, clock) = wheel();
        let handle = handle(1, 1);
        handle.authenticated(wheel.now_ms() + 1);
        wheel.passed.store(wheel.now_ms() / TICK_MS + 4, Ordering::SeqCst);
        wheel.watch(&handle);
        turn_after(&wheel, &clock, 1_500);
        assert_eq!(handle.take_signal(), Some(Signal::Close(CloseCode::Unauthenticated)));
    }

    #[test]
    fn deadlines_beyond_a_turn_of_the_wheel_are_kept() {
        let (wheel, clock) = wheel();
        let handle = handle(1, 1);
        handle.authenticated(wheel.now_ms() + 200_000);
        wheel.watch(&handle);
        let mut signals = Vec::new();
        for _ in 0..210 {
            turn_after(&wheel, &clock, 1_000);
            handle.heard();
            signals.extend(std::iter::from_fn(|| handle.take_signal()));
        }
        assert_eq!(signals.iter().filter(|signal| **signal == Signal::Expiring).count(), 1);
        assert!(signals.contains(&Signal::Close(CloseCode::Unauthenticated)), "{signals:?}");
    }
}
