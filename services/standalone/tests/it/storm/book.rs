//! What all clients of a storm note down together: waits, counts, what was sent, what went wrong.
//!
//! Knows no connection. The invariant: nothing that went wrong is forgotten, only cut short.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use crate::scene::Sent;

/// Of more only the number is shown.
const SHOWN: usize = 20;

/// One client's way from a close to its next `session.ready`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) waited: Duration,
    /// When it was told to come back; `None`: it was not told.
    pub(crate) hint: Option<Duration>,
}

impl Wait {
    /// How much longer than it was told.
    pub(crate) fn excess(&self) -> Duration {
        self.waited.saturating_sub(self.hint.unwrap_or_default())
    }
}

#[derive(Default)]
struct Notes {
    phase: &'static str,
    waits: Vec<(&'static str, Wait)>,
    counts: BTreeMap<(&'static str, String), usize>,
    wrongs: Vec<String>,
    sent: HashMap<String, Vec<Sent>>,
}

/// The book.
#[derive(Default)]
pub(crate) struct Book {
    /// Clients that are ready and have all there was when they became so.
    pub(crate) up: AtomicUsize,
    /// Talkers go on.
    pub(crate) is_talking: AtomicBool,
    /// Messages that were sent and not acked.
    pub(crate) in_hand: AtomicUsize,
    notes: Mutex<Notes>,
}

impl Book {
    fn with<T>(&self, f: impl FnOnce(&mut Notes) -> T) -> T {
        f(&mut self.notes.lock().unwrap())
    }

    /// From now on everything counts for that part of the storm.
    pub(crate) fn begin(&self, phase: &'static str) {
        self.with(|notes| notes.phase = phase);
    }

    /// The part of the storm that goes on now.
    pub(crate) fn phase(&self) -> &'static str {
        self.with(|notes| notes.phase)
    }

    /// Something worth counting happened.
    pub(crate) fn count(&self, what: impl Into<String>) {
        self.with(|notes| *notes.counts.entry((notes.phase, what.into())).or_default() += 1);
    }

    /// How often something happened in one part of the storm.
    pub(crate) fn counted(&self, phase: &'static str, what: &str) -> usize {
        self.with(|notes| notes.counts.get(&(phase, what.to_owned())).copied().unwrap_or_default())
    }

    /// Somebody came back who had lost its connection in `phase`.
    pub(crate) fn came_back(&self, phase: &'static str, wait: Wait) {
        self.with(|notes| notes.waits.push((phase, wait)));
    }

    /// A promise was broken.
    pub(crate) fn wrong(&self, what: &str) {
        self.with(|notes| notes.wrongs.push(format!("{}: {what}", notes.phase)));
    }

    /// A message was acked QUEUED.
    pub(crate) fn sent(&self, room: &str, sent: Sent) {
        self.with(|notes| notes.sent.entry(room.to_owned()).or_default().push(sent));
    }

    /// All that was acked in a room.
    pub(crate) fn sent_to(&self, room: &str) -> Vec<Sent> {
        self.with(|notes| notes.sent.get(room).cloned().unwrap_or_default())
    }

    /// How many were acked altogether.
    pub(crate) fn sent_count(&self) -> usize {
        self.with(|notes| notes.sent.values().map(Vec::len).sum())
    }

    /// The waits of one part of the storm.
    pub(crate) fn waits(&self, phase: &str) -> Vec<Wait> {
        self.with(|notes| notes.waits.iter().filter(|wait| wait.0 == phase).map(|wait| wait.1).collect())
    }

    /// Panics when a promise was broken.
    pub(crate) fn assert_right(&self) {
        let wrongs = self.with(|notes| notes.wrongs.clone());
        let shown = &wrongs[..wrongs.len().min(SHOWN)];
        assert!(wrongs.is_empty(), "{} promises were broken:\n{}", wrongs.len(), shown.join("\n"));
    }

    /// Prints figures: waits by part of the storm, counts.
    #[allow(clippy::print_stderr, reason = "figures of a long run are its result")]
    pub(crate) fn print(&self, phases: &[&str]) {
        for phase in phases {
            let waits = self.waits(phase);
            let hinted = waits.iter().filter(|wait| wait.hint.is_some()).count();
            eprintln!(
                "{phase}: {} came back ({hinted} with a hint); ms over the hint: {}; ms altogether: {}",
                waits.len(),
                spread(waits.iter().map(Wait::excess).collect()),
                spread(waits.iter().map(|wait| wait.waited).collect()),
            );
        }
        self.with(|notes| {
            for ((phase, what), count) in &notes.counts {
                eprintln!("{phase}: {count} × {what}");
            }
            for wrong in notes.wrongs.iter().take(SHOWN) {
                eprintln!("BROKEN {wrong}");
            }
        });
    }
}

fn spread(mut times: Vec<Duration>) -> String {
    if times.is_empty() {
        return "-".to_owned();
    }
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000].as_millis();
    format!("p50 {}, p90 {}, p99 {}, p99.9 {}, max {}", at(500), at(900), at(990), at(999), at(1000))
}
