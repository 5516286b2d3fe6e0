//! When the logs of the embedded engine's files (`*-wal`) are folded into them.
//!
//! Folding makes the disk stand still for whoever commits meanwhile, and a page that was written a hundred times
//! is folded once: so it is done as seldom as the log's length allows. The invariant: what comes at the pace of
//! the last time fills no more than half a log before the next.

use std::time::Duration;

/// Pages in a log (of 4 KiB, so 256 MiB) after which whoever writes folds it himself, as a pragma's value: for
/// when nobody does it beside him in time.
pub const WRITER_PAGES: &str = "65536";
/// To so many bytes a log is cut when it begins anew, as a pragma's value: as many.
pub const LOG_LIMIT: &str = "268435456";
/// Pages that a log should have when it is folded.
const WANTED_PAGES: f64 = 32_768.0;

/// How long to wait until the log is folded again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: Self::LEAST }
    }
}

impl Pace {
    /// The disk is looked at as often, too.
    pub const LEAST: Duration = Duration::from_secs(1);
    /// So that a quiet file has a short log, and is quickly opened.
    pub const MOST: Duration = Duration::from_secs(10);

    /// How long to wait.
    pub fn pause(self) -> Duration {
        self.pause
    }

    /// Learns how many pages the log had when it was folded after that pause. It waits longer by steps, and
    /// less at once.
    pub fn learn(&mut self, pages: u32) {
        let fitting = self.pause.mul_f64(WANTED_PAGES / f64::from(pages.max(1)));
        self.pause = fitting.min(self.pause * 2).clamp(Self::LEAST, Self::MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_log_is_folded_seldom_and_one_that_grows_as_soon_as_it_must() {
        let mut pace = Pace::default();
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(pace.pause(), Duration::from_secs(seconds));
            pace.learn(0);
        }
        pace.learn(327_680);
        assert_eq!(pace.pause(), Pace::LEAST);
        pace.learn(8192);
        pace.learn(16_384);
        assert_eq!(pace.pause(), Duration::from_secs(4));
        pace.learn(32_768);
        assert_eq!(pace.pause(), Duration::from_secs(4));
        pace.learn(u32::MAX);
        assert_eq!(pace.pause(), Pace::LEAST);
    }
}
