//! What one worker writes down: latencies, and what became of each message it sent.
//!
//! Knows no connection. The invariant: latencies count from the intended time, and only of what was intended
//! within the measured window.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use runtime::Clock;

/// Longer is counted as that long, microseconds.
const LONGEST_US: u64 = 600_000_000;

/// Microseconds since 1970, so that several generators on one machine agree.
pub(crate) fn now_us() -> u64 {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::system);
    CLOCK.now_us()
}

/// Latencies, microseconds, three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("these bounds are good")
}

/// What goes on, for the progress line and for the end of waiting. Shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections that stand.
    pub(crate) open: AtomicU64,
    /// Connections that became ready.
    pub(crate) opened: AtomicU64,
    /// Attempts that came to nothing.
    pub(crate) failed: AtomicU64,
    /// Connections that ended though nobody here ended them.
    pub(crate) ended: AtomicU64,
    /// Clients that were up to date again after a loss of their connection.
    pub(crate) resumed: AtomicU64,
    /// Commands that were sent.
    pub(crate) sent: AtomicU64,
    /// Commands that were taken.
    pub(crate) taken: AtomicU64,
    /// Commands that were refused, and messages that failed later.
    pub(crate) refused: AtomicU64,
    /// Commands that were due while no connection could send them.
    pub(crate) skipped: AtomicU64,
    /// Deliveries that are owed by what was taken.
    pub(crate) owed: AtomicU64,
    /// Deliveries that came, each counted once.
    pub(crate) told: AtomicU64,
    /// Deliveries that had come before.
    pub(crate) doubled: AtomicU64,
    /// Deliveries that came after a later one of the same sender.
    pub(crate) overtaken: AtomicU64,
}

impl Counts {
    /// One more.
    pub(crate) fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// As it stands.
    pub(crate) fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// True when everything was answered and everything that is owed came.
    pub(crate) fn is_settled(&self) -> bool {
        let answered = Self::read(&self.taken) + Self::read(&self.refused);
        answered >= Self::read(&self.sent) && Self::read(&self.told) >= Self::read(&self.owed)
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No answer yet.
    Waiting,
    /// QUEUED.
    Queued,
    /// Refused, at once or later: nobody may be owed it.
    Refused,
}

/// The measured window of a step, microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Length of a row of the course.
    pub(crate) row: u64,
}

/// One stretch of the course.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) sent: u64,
    pub(crate) told: u64,
    pub(crate) acks: Histogram<u64>,
    pub(crate) tolds: Histogram<u64>,
}

/// One worker's notes of one step.
#[derive(Debug)]
pub(crate) struct Book {
    window: Window,
    /// From the intended time to the ack.
    pub(crate) acks: Histogram<u64>,
    /// From the intended time to each recipient.
    pub(crate) tolds: Histogram<u64>,
    /// From the intended time until a connection was ready.
    pub(crate) openings: Histogram<u64>,
    /// From a loss of the connection until its client was up to date again.
    pub(crate) resumptions: Histogram<u64>,
    /// Of all steps: what became of each stream's messages.
    pub(crate) fates: HashMap<u32, Vec<Fate>>,
    /// By code.
    pub(crate) refusals: HashMap<String, u64>,
    /// The course.
    pub(crate) rows: Vec<Row>,
}

impl Book {
    pub(crate) fn new(window: Window) -> Self {
        let rows = (window.end.saturating_sub(window.start)).div_ceil(window.row.max(1)) as usize;
        let coarse = || Histogram::new_with_bounds(1, LONGEST_US, 2).expect("these bounds are good");
        let row = Row { sent: 0, told: 0, acks: coarse(), tolds: coarse() };
        Self {
            window,
            acks: latencies(),
            tolds: latencies(),
            openings: latencies(),
            resumptions: latencies(),
            fates: HashMap::new(),
            refusals: HashMap::new(),
            rows: vec![row; rows],
        }
    }

    fn row(&mut self, intended: u64) -> Option<&mut Row> {
        let since = intended.checked_sub(self.window.start).filter(|_| intended < self.window.end)?;
        self.rows.get_mut((since / self.window.row.max(1)) as usize)
    }

    /// A command was sent.
    pub(crate) fn sent(&mut self, intended: u64) {
        if let Some(row) = self.row(intended) {
            row.sent += 1;
        }
    }

    /// A stream's next number, which is waited for from now on.
    pub(crate) fn next_number(&mut self, stream: u32) -> u32 {
        let fates = self.fates.entry(stream).or_default();
        fates.push(Fate::Waiting);
        fates.len() as u32
    }

    /// What became of a message; the fate before.
    pub(crate) fn decide(&mut self, stream: u32, number: u32, fate: Fate) -> Option<Fate> {
        let slot = self.fates.get_mut(&stream)?.get_mut(number.checked_sub(1)? as usize)?;
        Some(std::mem::replace(slot, fate))
    }

    /// A command was answered.
    pub(crate) fn acked(&mut self, intended: u64, now: u64) {
        let late = lateness(intended, now);
        if let Some(row) = self.row(intended) {
            row.acks.saturating_record(late);
            self.acks.saturating_record(late);
        }
    }

    /// A recipient was told.
    pub(crate) fn told(&mut self, intended: u64, now: u64) {
        let late = lateness(intended, now);
        if let Some(row) = self.row(intended) {
            row.told += 1;
            row.tolds.saturating_record(late);
            self.tolds.saturating_record(late);
        }
    }

    /// Something was refused.
    pub(crate) fn refused(&mut self, code: String) {
        *self.refusals.entry(code).or_default() += 1;
    }
}

fn lateness(intended: u64, now: u64) -> u64 {
    now.saturating_sub(intended).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_intended_within_the_window_counts() {
        let mut book = Book::new(Window { start: 1_000, end: 3_000, row: 1_000 });
        for intended in [999, 1_000, 2_500, 3_000] {
            book.sent(intended);
            book.acked(intended, intended + 100);
            book.told(intended, intended + 200);
        }
        assert_eq!((book.acks.len(), book.tolds.len()), (2, 2));
        assert_eq!(book.rows.iter().map(|row| (row.sent, row.told)).collect::<Vec<_>>(), [(1, 1), (1, 1)]);
        assert_eq!((book.acks.max(), book.tolds.max()), (100, 200));
    }

    #[test]
    fn a_message_has_one_fate_at_a_time() {
        let mut book = Book::new(Window { start: 0, end: 1, row: 1 });
        assert_eq!((book.next_number(7), book.next_number(7)), (1, 2));
        assert_eq!(book.decide(7, 2, Fate::Queued), Some(Fate::Waiting));
        assert_eq!(book.decide(7, 2, Fate::Refused), Some(Fate::Queued));
        assert_eq!(book.decide(7, 3, Fate::Queued), None);
        assert_eq!(book.decide(8, 0, Fate::Queued), None);
    }
}
