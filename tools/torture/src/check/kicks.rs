//! (f) Nobody learns of what came after their removal, and a second after it nothing at all.

use std::collections::HashMap;

use domain::JobId;
use serde_json::Value;
use uuid::Uuid;

use super::{Evidence, Findings};
use crate::history::{Answer, At, Change, DeviceLog, Wish};

/// By the contract.
const AFTER_MS: u64 = 1_000;
/// Clocks are read in milliseconds, by two programs on a busy machine.
const GRAIN_MS: u64 = 200;

/// A time without membership: the changes that ended and began it.
struct Away {
    left_rev: i64,
    left_at: At,
    back_rev: i64,
    back_at: At,
}

pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let first_seen = first_seen(evidence);
    for (number, room) in evidence.world.rooms.iter().enumerate() {
        let Some(guest) = room.guest else { continue };
        let away = aways(evidence, number, evidence.world.user_id(guest), &first_seen);
        for (_, notes) in evidence.devices.iter().filter(|(user, _)| *user == guest) {
            for away in &away {
                look(evidence, &notes.log, number, away, findings);
            }
        }
    }
}

fn look(evidence: &Evidence<'_>, log: &DeviceLog, room: usize, away: &Away, findings: &mut Findings) {
    let is_away = |at: At| at < away.back_at;
    let seen = log.seen.get(&room).map_or(&[][..], Vec::as_slice);
    let learned = seen.iter().filter(|seen| seen.rev > away.left_rev && seen.rev < away.back_rev && is_away(seen.at));
    for seen in learned {
        let text = format!(
            "room {room}: rev {} was seen at {} ms, though the guest left with rev {}",
            seen.rev, seen.at.0, away.left_rev
        );
        findings.add("f", text);
    }
    let after = At(away.left_at.0 + AFTER_MS + GRAIN_MS);
    let durable = seen.iter().filter(|seen| seen.rev != away.left_rev && seen.live).map(|seen| seen.at);
    let named = log.named.iter().filter(|(of, _)| *of == room).map(|(_, at)| *at);
    for at in durable.chain(named).filter(|at| *at > after && is_away(*at)) {
        // A gateway that stood still or was cut off cannot know in time; what it may tell is judged above.
        if log.gateway(at).is_some_and(|gateway| !evidence.is_blind(gateway, away.left_at, at)) {
            let text =
                format!("room {room}: it was named at {} ms, though the guest left at {} ms", at.0, away.left_at.0);
            findings.add("f", text);
        }
    }
}

/// When the first device saw a change: it was committed by then.
fn first_seen(evidence: &Evidence<'_>) -> HashMap<(usize, i64), At> {
    let mut first: HashMap<(usize, i64), At> = HashMap::new();
    for (_, notes) in evidence.devices {
        for (room, seen) in &notes.log.seen {
            for seen in seen {
                let at = first.entry((*room, seen.rev)).or_insert(seen.at);
                *at = seen.at.min(*at);
            }
        }
    }
    first
}

/// When the guest's return was first asked for after the removal that left as `left`: before that nobody
/// could know of it. The beginning of the run when the removal had no answer.
fn asked_back(evidence: &Evidence<'_>, room: usize, left: Option<Uuid>) -> At {
    let part = evidence.guest(room).unwrap_or_default();
    let is_left = |change: &&Change| match &change.answer {
        Answer::Queued { job, .. } => {
            job.parse().is_ok_and(|job| left == Some(job) || left == Some(JobId(job).part(part).0))
        }
        _ => false,
    };
    let of_room = |wish: Wish| {
        let changes = evidence.senders.iter().flat_map(|sender| &sender.changes);
        changes.filter(move |change| change.room == room && change.wish == wish)
    };
    let Some(removal) = of_room(Wish::Remove).find(is_left) else { return At(0) };
    // Each is asked for only when the one before was accepted.
    of_room(Wish::Add).map(|change| change.at).filter(|at| *at > removal.at).min().unwrap_or(At(u64::MAX))
}

fn aways(evidence: &Evidence<'_>, room: usize, guest: &str, first_seen: &HashMap<(usize, i64), At>) -> Vec<Away> {
    let row = |rev: i64| evidence.truth.events.iter().find(|event| event.room == room && event.rev == rev);
    let happened = |rev: i64| row(rev).map_or(At(0), |row| evidence.world.clock.of_wall(row.wall_ms));
    let changes = evidence.truth.timeline.get(&room).map_or(&[][..], Vec::as_slice);
    let of_guest = |(_, name, data): &&(i64, String, Value)| {
        matches!(name.as_str(), "room.memberLeft" | "room.memberJoined") && data["userId"] == guest
    };
    let mut aways: Vec<Away> = Vec::new();
    for (rev, name, _) in changes.iter().filter(of_guest) {
        if name == "room.memberLeft" {
            let (happened, seen) = (happened(*rev), first_seen.get(&(room, *rev)).copied().unwrap_or_default());
            // In calm it is committed at once.
            let is_known = evidence.clocks_ms == 0 && !evidence.is_struck(happened, seen);
            let left_at = if is_known { happened } else { happened.max(seen) };
            let back_at = asked_back(evidence, room, row(*rev).and_then(|row| row.job));
            aways.push(Away { left_rev: *rev, left_at, back_rev: i64::MAX, back_at });
        } else if let Some(away) = aways.last_mut() {
            away.back_rev = *rev;
        }
    }
    aways
}
