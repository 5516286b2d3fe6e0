//! The judgement over a run: what every client sent, was acked and received, against what the system
//! holds in the end.
//!
//! Does no I/O. The invariant: a check looks only at what was seen and what is stored, never at what
//! the harness meant to do; the letters are those of `docs/GUARANTEES.md`.

mod convergence;
mod kicks;
mod lateness;
mod order;
mod outcomes;
mod rows;
mod wishes;

use serde::Serialize;
use uuid::Uuid;

use crate::device::Notes;
use crate::history::{At, Incident, Sender};
use crate::truth::Truth;
use crate::world::World;

pub use lateness::Lateness;

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which one: `a` to `i`, or `harness` for what kept the run from being judged.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

/// What a run left behind.
pub struct Evidence<'a> {
    /// People and rooms.
    pub world: &'a World,
    /// What each user asked for; the owner comes last.
    pub senders: &'a [Sender],
    /// What each device wrote down, with its user.
    pub devices: &'a [(usize, Notes)],
    /// What the system holds.
    pub truth: &'a Truth,
    /// The faults.
    pub incidents: &'a [Incident],
    /// How late a delivery may be once nothing is wrong any more, milliseconds.
    pub late_after_ms: u64,
    /// The clock by which things are stored may err by so much, milliseconds.
    pub clocks_ms: u64,
}

impl Evidence<'_> {
    /// True when a fault was there between the two moments that may keep a gateway from learning that a
    /// membership ended.
    fn is_blind(&self, gateway: usize, from: At, to: At) -> bool {
        self.incidents.iter().any(|incident| incident.blinds(gateway) && incident.overlaps(from, to))
    }

    /// True when any fault was there between the two moments.
    fn is_struck(&self, from: At, to: At) -> bool {
        self.incidents.iter().any(|incident| incident.overlaps(from, to))
    }

    /// The id of a room's guest.
    fn guest(&self, room: usize) -> Option<Uuid> {
        self.world.rooms[room].guest.and_then(|guest| self.world.user_id(guest).parse().ok())
    }
}

/// Collects what is found.
#[derive(Default)]
pub struct Findings {
    all: Vec<Violation>,
}

impl Findings {
    fn add(&mut self, promise: &'static str, what: impl Into<String>) {
        self.all.push(Violation { promise, what: what.into() });
    }
}

/// What is found.
pub struct Judgement {
    /// Promises that were not kept.
    pub violations: Vec<Violation>,
    /// How late deliveries were.
    pub lateness: Lateness,
    /// Of so many edits, deletions and reactions the order could be judged.
    pub changes_in_order: usize,
}

/// All promises but (i), which is about the time after.
pub fn judge(evidence: &Evidence<'_>) -> Judgement {
    let mut findings = Findings::default();
    for wrong in evidence.senders.iter().flat_map(|sender| &sender.wrongs) {
        findings.add("d", wrong.clone());
    }
    for (_, notes) in evidence.devices {
        for wrong in &notes.log.wrongs {
            findings.add("d", wrong.clone());
        }
    }
    outcomes::check(evidence, &mut findings);
    rows::check(evidence, &mut findings);
    let changes_in_order = order::check(evidence, &mut findings);
    kicks::check(evidence, &mut findings);
    wishes::check(evidence, &mut findings);
    convergence::check(evidence, &mut findings);
    let lateness = lateness::check(evidence, &mut findings);
    Judgement { violations: findings.all, lateness, changes_in_order }
}

#[cfg(test)]
mod tests;
