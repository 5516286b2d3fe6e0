//! One line on the terminal that says how it goes.
//!
//! The invariant: it is written to standard error, and only where that is a terminal.

use std::io::{IsTerminal as _, stderr};

use tokio::time::Instant;

use crate::book::Counts;

/// The line.
pub(crate) struct Progress {
    what: String,
    is_shown: bool,
    at: Instant,
    sent: u64,
    told: u64,
}

impl Progress {
    pub(crate) fn new(what: &str) -> Self {
        Self { what: what.to_owned(), is_shown: stderr().is_terminal(), at: Instant::now(), sent: 0, told: 0 }
    }

    /// Writes it anew.
    #[allow(clippy::print_stderr, reason = "the terminal is where its user looks")]
    pub(crate) fn show(&mut self, counts: &Counts) {
        if !self.is_shown {
            return;
        }
        let (sent, told) = (Counts::read(&counts.sent), Counts::read(&counts.told));
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let waiting = sent.saturating_sub(Counts::read(&counts.taken) + Counts::read(&counts.refused));
        let owed = Counts::read(&counts.owed).saturating_sub(told);
        eprint!(
            "\r\x1b[K{}: {} open, {:.0}/s sent, {:.0} deliveries/s, {waiting} unanswered, {owed} owed",
            self.what,
            Counts::read(&counts.open),
            rate(sent, self.sent),
            rate(told, self.told)
        );
        (self.at, self.sent, self.told) = (Instant::now(), sent, told);
    }
}
