//! How fast deliveries are handed out: no faster than clients that read can be sent them.
//!
//! Knows connections only as numbers. Outboxes are small, bursts are not. So whoever delivers waits
//! while an outbox is crowded: as long as its own task has not had its turn, and a moment more for a
//! client whose network is full. The invariant: slow clients together hold up the others for at most
//! a fifth of the time, half a second in a row; whoever still has no room then is waited for no more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How long the tasks of connections may take to have their turn; a busy machine needs some of it.
const TURN_LIMIT: Duration = Duration::from_secs(2);
/// What all waiting for clients' networks may take in a row, microseconds.
const SPARE_US: u64 = 500_000;
/// That part of the time may be spent so.
const SHARE: u64 = 5;

/// The round in which a connection was crowded.
pub(crate) type Round = u32;

#[derive(Debug, Default)]
struct Crowd {
    /// Connections of earlier rounds are waited for no more.
    round: Round,
    waited: usize,
    /// Those among them whose network is full.
    blocked: usize,
    spare_us: u64,
    seen_us: u64,
}

/// The crowded connections of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    crowd: Mutex<Crowd>,
    waited: AtomicUsize,
    relieved: Notify,
}

impl Pace {
    /// A connection has become crowded.
    pub(crate) fn enter(&self, is_blocked: bool) -> Round {
        let mut crowd = self.crowd.lock();
        crowd.waited += 1;
        crowd.blocked += usize::from(is_blocked);
        self.waited.store(crowd.waited, Ordering::Relaxed);
        crowd.round
    }

    /// The network of a crowded connection has filled up, or takes something again.
    pub(crate) fn block(&self, round: Round, is_blocked: bool) {
        let mut crowd = self.crowd.lock();
        if crowd.round != round {
            return;
        }
        if is_blocked {
            crowd.blocked += 1;
            if crowd.blocked == crowd.waited {
                self.relieved.notify_waiters();
            }
        } else {
            crowd.blocked -= 1;
        }
    }

    /// True while a connection of that round is waited for.
    pub(crate) fn is_waited_for(&self, round: Round) -> bool {
        self.crowd.lock().round == round
    }

    /// A connection is no longer crowded.
    pub(crate) fn leave(&self, round: Round, is_blocked: bool) {
        let mut crowd = self.crowd.lock();
        if crowd.round != round {
            return;
        }
        crowd.waited -= 1;
        crowd.blocked -= usize::from(is_blocked);
        self.waited.store(crowd.waited, Ordering::Relaxed);
        if crowd.blocked == crowd.waited {
            self.relieved.notify_waiters();
        }
    }

    /// True when nobody is waited for.
    pub(crate) fn is_free(&self) -> bool {
        self.waited.load(Ordering::Relaxed) == 0
    }

    /// Waits until every connection that is worth it has room; `now_us` is a clock that never goes back.
    pub(crate) async fn breathe(&self, now_us: impl Fn() -> u64) {
        if self.is_free() {
            return;
        }
        let have_had_their_turn = self.reached(|crowd| crowd.waited == crowd.blocked);
        let _ = tokio::time::timeout(TURN_LIMIT, have_had_their_turn).await;
        if self.is_free() {
            return;
        }
        let begun_us = now_us();
        let spare_us = self.crowd.lock().refill(begun_us);
        let have_room = self.reached(|crowd| crowd.waited == 0);
        let _ = tokio::time::timeout(Duration::from_micros(spare_us), have_room).await;
        let mut crowd = self.crowd.lock();
        crowd.spare_us = crowd.spare_us.saturating_sub(now_us().saturating_sub(begun_us));
        if crowd.waited > 0 {
            crowd.round = crowd.round.wrapping_add(1);
            (crowd.waited, crowd.blocked) = (0, 0);
            self.waited.store(0, Ordering::Relaxed);
        }
    }

    async fn reached(&self, condition: impl Fn(&Crowd) -> bool) {
        loop {
            let relieved = self.relieved.notified();
            tokio::pin!(relieved);
            relieved.as_mut().enable();
            if condition(&self.crowd.lock()) {
                return;
            }
            relieved.await;
        }
    }
}

impl Crowd {
    fn refill(&mut self, now_us: u64) -> u64 {
        let earned_us = now_us.saturating_sub(std::mem::replace(&mut self.seen_us, now_us)) / SHARE;
        self.spare_us = self.spare_us.saturating_add(earned_us).min(SPARE_US);
        self.spare_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_connection_that_has_not_had_its_turn_is_waited_for() {
        let pace = Pace::default();
        let round = pace.enter(false);
        let mut breath = Box::pin(pace.breathe(|| 10_000_000));
        assert!((&mut breath).now_or_never().is_none());
        pace.leave(round, false);
        assert!((&mut breath).now_or_never().is_some());
    }

    #[tokio::test]
    async fn full_networks_are_waited_for_half_a_second_in_a_row_and_then_no_more() {
        let pace = Pace::default();
        let begun = tokio::time::Instant::now();
        let now_us = || 10_000_000 + begun.elapsed().as_micros() as u64;
        let round = pace.enter(false);
        pace.block(round, true);
        pace.breathe(now_us).await;
        let first = begun.elapsed();
        assert!(first.as_millis() >= 490, "{first:?}");
        assert!(pace.is_free() && !pace.is_waited_for(round));
        pace.leave(round, true);
        assert!(pace.is_free());
        for _ in 0..10 {
            pace.enter(true);
            pace.breathe(now_us).await;
        }
        let rest = begun.elapsed().saturating_sub(first);
        assert!(rest < Duration::from_millis(250) + begun.elapsed() / 2, "{rest:?}");
    }
}
