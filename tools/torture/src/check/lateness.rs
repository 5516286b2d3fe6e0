//! (h) Nothing is delivered later than a bound after the trouble that held it up was over, no connection
//! ends without trouble, and nothing is refused without, on a socket or by REST.

use std::collections::HashMap;

use serde::Serialize;

use super::{Evidence, Findings};
use crate::history::{API, At, DeviceLog, Incident, Seen, Span, Trouble};

/// Of more only the number is told.
const SHOWN: usize = 5;
/// A client gives up a silent connection after that; servers do sooner.
const SILENCE_MS: u64 = 60_000;

/// How late deliveries were, milliseconds: from when nothing stood in their way any more.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lateness {
    /// How many were looked at.
    pub deliveries: usize,
    /// Of these nothing stood in the way at any time.
    pub in_calm: usize,
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
    let (mut late, mut beyond, mut in_calm) = (Vec::new(), Vec::new(), 0);
    for (number, (user, notes)) in evidence.devices.iter().enumerate() {
        for (room, seen) in &notes.log.seen {
            // A guest who comes back learns of old things.
            let is_guest = evidence.world.is_guest(*room, *user);
            for seen in seen.iter().filter(|seen| seen.live || !is_guest) {
                let Some(stored) = stored.get(&(*room, seen.rev)) else { continue };
                let Some((by, calm)) = lateness(evidence, &notes.log, *room, *stored, seen) else { continue };
                late.push(by);
                in_calm += usize::from(calm);
                if by > evidence.late_after_ms {
                    beyond.push(format!(
                        "device {number} of user {user}, room {room}: rev {} stored at {} ms was seen at {} ms, {by} ms late",
                        seen.rev, stored.0, seen.at.0
                    ));
                }
            }
        }
        let ended = notes.log.spans.iter().filter_map(|span| ended_in_calm(evidence, span));
        let refused = notes.log.troubles.iter().filter_map(|trouble| refused_in_calm(evidence, trouble));
        beyond.extend(ended.chain(refused).map(|wrong| format!("device {number} of user {user}: {wrong}")));
    }
    for (user, sender) in evidence.senders.iter().enumerate() {
        let refused = sender.troubles.iter().filter_map(|trouble| refused_in_calm(evidence, trouble));
        beyond.extend(refused.map(|wrong| format!("user {user} by REST: {wrong}")));
    }
    let many = beyond.len();
    beyond.into_iter().take(SHOWN).for_each(|text| findings.add("h", text));
    if many > SHOWN {
        findings.add("h", format!("{} more were late, refused or ended", many - SHOWN));
    }
    Lateness { in_calm, ..spread(late) }
}

/// From the last moment at which something stood in its way: it was not stored, the device was not
/// connected or had the room switched off, a fault was not over that began before it was late. And whether no
/// fault did.
fn lateness(evidence: &Evidence<'_>, log: &DeviceLog, room: usize, stored: At, seen: &Seen) -> Option<(u64, bool)> {
    let span = log.spans.iter().rev().find(|span| span.from <= seen.at)?;
    let begin = log.on_from(room, stored.max(span.from), seen.at);
    let free = free_from(evidence, span.gateway, begin);
    Some((seen.at.since(free), free == begin))
}

/// When nothing stands in the way of a gateway's deliveries any more that begins before they are late.
fn free_from(evidence: &Evidence<'_>, gateway: usize, begin: At) -> At {
    let concerns = |incident: &&Incident| incident.delays(gateway);
    let mut free = begin;
    // In the order in which they struck.
    for incident in evidence.incidents.iter().filter(concerns) {
        let latest = At(free.0 + evidence.late_after_ms);
        if incident.overlaps(free, latest) {
            free = free.max(incident.ready.unwrap_or(At(u64::MAX)));
        }
    }
    free
}

/// A connection does not end but shortly after a fault that concerned it, or when it had gone silent.
fn ended_in_calm(evidence: &Evidence<'_>, span: &Span) -> Option<String> {
    let to = span.to?;
    let lately = At(to.0.saturating_sub(evidence.late_after_ms));
    let long_ago = At(lately.0.saturating_sub(SILENCE_MS));
    let is_cause = |incident: &Incident| {
        let since = if span.silent { long_ago } else { lately };
        incident.delays(span.gateway) && incident.overlaps(since, to)
            || incident.silences(span.gateway) && incident.overlaps(long_ago, to)
    };
    let wrong = || format!("its connection of {} ms ended at {} ms, and nothing had happened", span.from.0, to.0);
    (!evidence.incidents.iter().any(is_cause)).then(wrong)
}

/// Nothing is refused or left unanswered but during a fault that concerned the gateway, or shortly after it.
fn refused_in_calm(evidence: &Evidence<'_>, trouble: &Trouble) -> Option<String> {
    let since = At(trouble.from.0.saturating_sub(evidence.late_after_ms));
    let Trouble { gateway, from, to, what } = trouble;
    let asked = if *gateway == API && evidence.world.is_all_in_one() { 0 } else { *gateway };
    let is_cause = |incident: &Incident| incident.refuses(asked) && incident.overlaps(since, *to);
    let whom = if *gateway == API { "the api".to_owned() } else { format!("gateway {gateway}") };
    let wrong = || format!("asked {whom} at {} ms: {what} at {} ms, and nothing had happened", from.0, to.0);
    (!evidence.incidents.iter().any(is_cause)).then(wrong)
}

fn spread(mut late: Vec<u64>) -> Lateness {
    late.sort_unstable();
    let at = |per_cent: usize| late.get((late.len().saturating_sub(1)) * per_cent / 100).copied().unwrap_or_default();
    Lateness { deliveries: late.len(), in_calm: 0, p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
}
