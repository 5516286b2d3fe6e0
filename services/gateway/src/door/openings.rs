//! How many sessions are opened at a time, and when everybody else is to come back.
//!
//! After a deploy all clients come at once, and each costs the store some look-ups before it is of
//! use. Knows no client. The invariant: no more than so many are being opened; of those who wait the
//! first is the next; and each who is sent away is given a time of its own, so that all who keep to
//! theirs come at the pace at which sessions are opened.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use config::Limits;
use domain::rate::{ArrivalUs, Rate};
use parking_lot::Mutex;
use telemetry::{Counter, Gauge};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a client may wait for its turn before it is sent away after all.
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// For each session that is being opened so many clients may wait.
const WAITING: usize = 2;
/// What opening a session takes, until it was measured, microseconds.
const OPENING_US: u64 = 20_000;
/// Hints are not shorter and not longer, milliseconds.
const SOONEST_MS: u64 = 250;
const LATEST_MS: u64 = 30_000;

/// Come back after that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ComeBack {
    pub(crate) after_ms: u64,
}

/// The door behind the door.
pub(crate) struct Openings {
    turns: Semaphore,
    limit: usize,
    waiting: AtomicUsize,
    handshakes: Rate,
    handshaken: Mutex<ArrivalUs>,
    /// Times given away up to here, microseconds.
    promised_us: AtomicU64,
    /// Clients sent away so far.
    sent_away: AtomicU64,
    /// What opening takes on average, microseconds.
    takes_us: AtomicU64,
}

/// A session that is being opened.
pub(crate) struct Turn<'a> {
    openings: &'a Openings,
    begun_us: u64,
    _permit: Option<SemaphorePermit<'a>>,
}

/// A client that waits for its turn.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Gauge::OpeningsWaiting.add(1.0);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        Gauge::OpeningsWaiting.add(-1.0);
    }
}

impl Openings {
    pub(crate) fn new(limits: &Limits) -> Self {
        // They are there before the first one comes.
        Gauge::Openings.add(0.0);
        Gauge::OpeningsWaiting.add(0.0);
        let limit = limits.openings as usize;
        let per_second = limits.handshakes_per_sec;
        Self {
            turns: Semaphore::new(limit),
            limit,
            waiting: AtomicUsize::new(0),
            handshakes: Rate { per_second, burst: per_second },
            handshaken: Mutex::new(0),
            promised_us: AtomicU64::new(0),
            sent_away: AtomicU64::new(0),
            takes_us: AtomicU64::new(OPENING_US),
        }
    }

    /// Whether one more socket may be made at all.
    pub(crate) fn handshake(&self, now_us: u64) -> Result<(), ComeBack> {
        if self.is_full() {
            return Err(self.send_away("openings", now_us));
        }
        let mut handshaken = self.handshaken.lock();
        match self.handshakes.take(*handshaken, now_us) {
            Ok(next) => {
                *handshaken = next;
                Ok(())
            }
            Err(_) => Err(self.send_away("handshakes", now_us)),
        }
    }

    fn is_full(&self) -> bool {
        self.limit > 0 && self.waiting.load(Ordering::SeqCst) >= self.limit * WAITING
    }

    /// Waits for the turn to be opened; `now_us` is a clock that never goes back.
    pub(crate) async fn turn(&self, now_us: impl Fn() -> u64) -> Result<Turn<'_>, ComeBack> {
        if self.limit == 0 {
            return Ok(self.begin(now_us(), None));
        }
        if let Ok(permit) = self.turns.try_acquire() {
            return Ok(self.begin(now_us(), Some(permit)));
        }
        if self.is_full() {
            return Err(self.send_away("openings", now_us()));
        }
        let waiting = Waiting::new(&self.waiting);
        let turn = tokio::time::timeout(TURN_LIMIT, self.turns.acquire()).await;
        drop(waiting);
        match turn {
            Ok(Ok(permit)) => Ok(self.begin(now_us(), Some(permit))),
            Ok(Err(_)) | Err(_) => Err(self.send_away("openings", now_us())),
        }
    }

    fn begin<'a>(&'a self, begun_us: u64, permit: Option<SemaphorePermit<'a>>) -> Turn<'a> {
        Gauge::Openings.add(1.0);
        Turn { openings: self, begun_us, _permit: permit }
    }

    /// The next free time, a little spread.
    fn send_away(&self, limit: &'static str, now_us: u64) -> ComeBack {
        Counter::Limited.inc_with(limit);
        let pace_us = self.pace_us();
        let queued_us = self.waiting.load(Ordering::SeqCst) as u64 * pace_us;
        let next = |promised: u64| Some((promised.max(now_us + queued_us) + pace_us).min(now_us + LATEST_MS * 1000));
        let promised = self.promised_us.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        let (Ok(promised_us) | Err(promised_us)) = promised;
        let ahead_ms = promised_us.max(now_us + queued_us).saturating_sub(now_us) / 1000;
        // Fibonacci hashing: who is sent away at the same time comes at another one.
        let number = self.sent_away.fetch_add(1, Ordering::Relaxed);
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let jitter_ms = ((SOONEST_MS + ahead_ms / 8) * spread) >> 16;
        ComeBack { after_ms: (SOONEST_MS + ahead_ms + jitter_ms).min(LATEST_MS) }
    }

    /// After how long the next session can be opened when all places are taken.
    fn pace_us(&self) -> u64 {
        let by_openings = self.takes_us.load(Ordering::Relaxed) / (self.limit as u64).max(1);
        let by_handshakes = 1_000_000 / u64::from(self.handshakes.per_second).max(1);
        match (self.limit, self.handshakes.per_second) {
            (_, 0) => by_openings.max(1),
            (0, _) => by_handshakes,
            (_, _) => by_openings.max(by_handshakes),
        }
    }
}

impl Turn<'_> {
    /// The session is open, or will not be.
    pub(crate) fn done(self, now_us: u64) {
        let took_us = now_us.saturating_sub(self.begun_us);
        let average = |takes_us: u64| Some((takes_us * 15 + took_us) / 16);
        let _ = self.openings.takes_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, average);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        Gauge::Openings.add(-1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn openings(openings: u32, handshakes_per_sec: u32) -> Openings {
        Openings::new(&Limits { openings, handshakes_per_sec, ..Limits::default() })
    }

    #[tokio::test]
    async fn so_many_are_opened_so_many_wait_in_turn_and_the_others_are_told_when_to_come_back() {
        let openings = openings(2, 0);
        let (first, _second) = (openings.turn(|| 0).await.ok(), openings.turn(|| 0).await.ok());
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(openings.turn(|| 0))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        assert!(openings.turn(|| 0).await.is_err() && openings.handshake(0).is_err());
        drop(first);
        let next = (&mut waiting[0]).now_or_never();
        assert!(matches!(next, Some(Ok(_))), "the first is the next");
        assert!((&mut waiting[1]).now_or_never().is_none());
        assert!(openings.handshake(0).is_ok());
    }

    #[test]
    fn each_who_is_sent_away_is_given_another_time_and_the_more_the_later() {
        let openings = openings(0, 100);
        while openings.handshake(1_000_000).is_ok() {}
        let hints: Vec<u64> =
            (0..1000).filter_map(|_| openings.handshake(1_000_000).err()).map(|back| back.after_ms).collect();
        let within = |from_ms: u64, to_ms: u64| hints.iter().filter(|hint| (from_ms..to_ms).contains(hint)).count();
        assert_eq!(hints.len(), 1000);
        assert!((35..65).contains(&within(5_000, 5_500)), "{}", within(5_000, 5_500));
        assert!(hints[0] < 1_000 && (9_000..12_000).contains(&hints[999]), "{} {}", hints[0], hints[999]);
    }

    #[test]
    fn zero_switches_both_off() {
        let openings = openings(0, 0);
        assert!((0..10_000).all(|_| openings.handshake(0).is_ok()));
        let turns: Vec<_> = (0..1000).map(|_| openings.turn(|| 0).now_or_never()).collect();
        assert!(turns.iter().all(|turn| matches!(turn, Some(Ok(_)))));
    }
}
