//! (h) Nothing is delivered later than a bound after the trouble that held it up was over.

use std::collections::HashMap;

use serde::Serialize;

use super::{Evidence, Findings};
use crate::history::{At, DeviceLog, Seen};

/// Of more only the number is told.
const SHOWN: usize = 5;

/// How late deliveries were, milliseconds: from when nothing stood in their way any more.
#[derive(Debug, Default, Serialize)]
pub struct Lateness {
    /// How many were looked at.
    pub deliveries: usize,
    /// Half of them were not later.
    pub p50_ms: u64,
    /// All but one in a hundred.
    pub p99_ms: u64,
    /// The latest.
    pub max_ms: u64,
}

pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) -> Lateness {
    let stored: HashMap<(usize, i64), At> = evidence
        .truth
        .events
        .iter()
        .map(|event| ((event.room, event.rev), evidence.world.clock.of_wall(event.wall_ms)))
        .collect();
    let mut late = Vec::new();
    let mut beyond = 0;
    for (number, (user, notes)) in evidence.devices.iter().enumerate() {
        for (room, seen) in &notes.log.seen {
            for seen in seen {
                let Some(stored) = stored.get(&(*room, seen.rev)) else { continue };
                // A guest who comes back learns of old things.
                let is_guest = evidence.world.rooms[*room].guest == Some(*user);
                let by = lateness(evidence, &notes.log, *stored, seen).filter(|_| seen.live || !is_guest);
                let Some(by) = by else { continue };
                late.push(by);
                if by > evidence.late_after_ms {
                    beyond += 1;
                    if beyond <= SHOWN {
                        let text = format!(
                            "device {number} of user {user}, room {room}: rev {} stored at {} ms was seen at {} ms, {by} ms late",
                            seen.rev, stored.0, seen.at.0
                        );
                        findings.add("h", text);
                    }
                }
            }
        }
    }
    if beyond > SHOWN {
        findings.add("h", format!("{} deliveries more were late", beyond - SHOWN));
    }
    spread(late)
}

/// From the last moment at which something stood in its way: it was not stored, the device was not
/// connected, a fault was not over.
fn lateness(evidence: &Evidence<'_>, log: &DeviceLog, stored: At, seen: &Seen) -> Option<u64> {
    let connected = log.spans.iter().rev().find(|span| span.from <= seen.at)?.from;
    let trouble = evidence.incidents.iter().filter(|incident| incident.overlaps(stored, seen.at));
    let over = trouble.map(|incident| incident.ready.unwrap_or(seen.at)).max().unwrap_or_default();
    Some(seen.at.since(stored.max(connected).max(over)))
}

fn spread(mut late: Vec<u64>) -> Lateness {
    late.sort_unstable();
    let at = |per_cent: usize| late.get((late.len().saturating_sub(1)) * per_cent / 100).copied().unwrap_or_default();
    Lateness { deliveries: late.len(), p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
}
