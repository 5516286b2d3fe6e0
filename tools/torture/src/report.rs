//! What a run comes to: a few lines for people, everything else as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::check::{Lateness, Violation};
use crate::device::Notes;
use crate::history::{Answer, Incident, Sender};
use crate::stage::Shape;
use crate::truth::{DeadLetter, Truth};
use crate::world::Scale;

/// Of more only the number is printed; the JSON has them all.
pub(crate) const SHOWN: usize = 20;

/// How much there was of what.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Messages that were sent, however often each.
    pub messages: usize,
    /// Attempts to send them.
    pub attempts: usize,
    /// Messages that were acked QUEUED.
    pub messages_queued: usize,
    /// Edits, deletions, reactions, changes of members and titles that were acked QUEUED.
    pub changes_queued: usize,
    /// Of those changes nobody knows whether they were accepted.
    pub changes_unknown: usize,
    /// Messages in the store.
    pub stored: usize,
    /// Durable changes in the store, messages included.
    pub events: usize,
    /// Jobs that were refused.
    pub refused: usize,
    /// What was given up.
    pub dead: Vec<DeadLetter>,
    /// Durable changes that devices saw live, and by `sync`.
    pub seen_live: usize,
    /// The others.
    pub seen_by_sync: usize,
    /// Connections.
    pub connections: usize,
    /// What devices counted.
    pub noted: BTreeMap<String, u64>,
}

impl Counts {
    pub(crate) fn of(
        senders: &[Sender],
        devices: &[(usize, Notes)],
        truth: &Truth,
        noted: BTreeMap<String, u64>,
    ) -> Self {
        let messages = || senders.iter().flat_map(|sender| &sender.messages);
        let changes = || senders.iter().flat_map(|sender| &sender.changes);
        let is_queued = |answer: &Answer| matches!(answer, Answer::Queued { .. });
        let seen = || devices.iter().flat_map(|(_, notes)| notes.log.seen.values().flatten());
        Self {
            messages: messages().count(),
            attempts: messages().map(|message| message.tries.len()).sum(),
            messages_queued: messages().filter(|message| is_queued(&message.answer)).count(),
            changes_queued: changes().filter(|change| is_queued(&change.answer)).count(),
            changes_unknown: changes().filter(|change| change.answer == Answer::Unknown).count(),
            stored: truth.messages.len(),
            events: truth.events.len(),
            refused: truth.refused.values().filter(|code| !code.is_empty()).count(),
            dead: truth.dead.clone(),
            seen_live: seen().filter(|seen| seen.live).count(),
            seen_by_sync: seen().filter(|seen| !seen.live).count(),
            connections: devices.iter().map(|(_, notes)| notes.log.spans.len()).sum(),
            noted,
        }
    }
}

/// A run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// It reproduces people and faults.
    pub seed: u64,
    /// How the system was built.
    pub shape: Shape,
    /// How many people and rooms.
    pub scale: Scale,
    /// How long faults struck at least.
    pub faults_ms: u64,
    /// A defect that was switched on.
    pub defect: Option<String>,
    /// From the beginning to the end, the time of quiet included.
    pub lasted_ms: u64,
    /// How much there was of what.
    pub counts: Counts,
    /// How late deliveries were.
    pub lateness: Lateness,
    /// The faults.
    pub incidents: Vec<Incident>,
    /// Promises that were not kept.
    pub violations: Vec<Violation>,
    /// What came to devices before they saw something wrong.
    pub traces: Vec<Vec<String>>,
}

impl Report {
    /// True when nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// True when that promise was broken.
    pub fn broke(&self, promise: &str) -> bool {
        self.violations.iter().any(|violation| violation.promise == promise)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { messages_queued, changes_queued, stored, events, refused, dead, connections, .. } = &self.counts;
        let Scale { users, rooms, members } = self.scale;
        let defect = self.defect.as_ref().map_or(String::new(), |defect| format!(", with the defect {defect}"));
        writeln!(
            f,
            "seed {} ({:?}{defect}), {users} users, {members} in each of {rooms} rooms, {} s, {} times of trouble",
            self.seed,
            self.shape,
            self.lasted_ms / 1000,
            self.incidents.len()
        )?;
        writeln!(
            f,
            "  {messages_queued} messages and {changes_queued} changes QUEUED; {stored} messages, {events} changes stored; {refused} refused; {} dead letters",
            dead.len()
        )?;
        writeln!(
            f,
            "  {connections} connections; {} changes seen live, {} by sync",
            self.counts.seen_live, self.counts.seen_by_sync
        )?;
        let Lateness { deliveries, in_calm, p50_ms, p99_ms, max_ms } = self.lateness;
        writeln!(
            f,
            "  {deliveries} deliveries, {in_calm} of them in calm, late by p50 {p50_ms} ms, p99 {p99_ms} ms, at most {max_ms} ms"
        )?;
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(f, "  BROKEN ({}) {}", violation.promise, violation.what)?;
        }
        match self.violations.len() {
            0 => write!(f, "  every promise was kept"),
            many => write!(f, "  {many} violations"),
        }
    }
}
