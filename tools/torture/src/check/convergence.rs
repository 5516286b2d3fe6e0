//! (d) Clients and the store agree on content and order. (g) Edits, deletes, reactions and read marks
//! converge.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Evidence, Findings};
use crate::truth::MessageRow;
use crate::view::{Reaction, View};

/// Of one device and room only the first differences are told.
const SHOWN: usize = 3;

pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut rows: BTreeMap<usize, Vec<&MessageRow>> = BTreeMap::new();
    for row in &evidence.truth.messages {
        rows.entry(row.room).or_default().push(row);
    }
    for (number, (user, notes)) in evidence.devices.iter().enumerate() {
        let me = evidence.world.user_id(*user).to_owned();
        for (room, view) in &notes.views {
            if !evidence.truth.members.contains_key(&(*room, me.clone())) {
                continue;
            }
            let rows = rows.get(room).map_or(&[][..], Vec::as_slice);
            let reactions = reactions_of(rows, &evidence.truth.reactions);
            let who = format!("device {number} of user {user}, room {room}");
            let head = evidence.truth.heads.get(room).copied().unwrap_or_default();
            if (view.last_seq(), view.rev()) != head {
                findings.add(
                    "d",
                    format!("{who}: is at {:?}, the store at {head:?} (seq, rev)", (view.last_seq(), view.rev())),
                );
                continue;
            }
            messages(&who, view, rows, findings);
            if view.reactions != reactions {
                let (more, less) = (view.reactions.difference(&reactions), reactions.difference(&view.reactions));
                let text = format!(
                    "{who}: reactions too many {:?}, missing {:?}",
                    more.take(SHOWN).collect::<Vec<_>>(),
                    less.take(SHOWN).collect::<Vec<_>>()
                );
                findings.add("g", text);
            }
            read_marks(evidence, &who, *room, view, findings);
        }
    }
    listed(evidence, &rows, findings);
}

fn reactions_of(rows: &[&MessageRow], all: &BTreeSet<Reaction>) -> BTreeSet<Reaction> {
    let ids: BTreeSet<String> = rows.iter().map(|row| row.id.to_string()).collect();
    all.iter().filter(|reaction| ids.contains(&reaction.0)).cloned().collect()
}

fn messages(who: &str, view: &View, rows: &[&MessageRow], findings: &mut Findings) {
    let mut shown = 0;
    for row in rows {
        let Some(message) = view.messages.get(&row.seq) else { continue };
        let stored = (row.id.to_string(), row.content.as_str(), row.deleted);
        let held = (message.id.clone(), message.content.as_str(), message.deleted);
        if stored != held && shown < SHOWN {
            shown += 1;
            let promise = if stored.0 == held.0 { "g" } else { "d" };
            findings.add(promise, format!("{who}, seq {}: has {held:?}, the store {stored:?}", row.seq));
        }
    }
}

fn read_marks(evidence: &Evidence<'_>, who: &str, room: usize, view: &View, findings: &mut Findings) {
    let of_room = evidence.truth.members.iter().filter(|((of, _), _)| *of == room);
    for ((_, user), seq) in of_room.filter(|(_, seq)| **seq > 0) {
        let held = view.reads.get(user).copied().unwrap_or_default();
        // Whoever joined again begins at the last message of that moment, of which nobody is told.
        if held != *seq && !is_guest(evidence, room, user) {
            findings.add("g", format!("{who}: {user} has read up to {seq}, which is known up to {held}"));
        }
    }
}

fn is_guest(evidence: &Evidence<'_>, room: usize, user: &str) -> bool {
    evidence.world.rooms[room].guest.is_some_and(|guest| evidence.world.user_id(guest) == user)
}

/// What `sync` by `seq` tells a newcomer is what stands in the store.
fn listed(evidence: &Evidence<'_>, rows: &BTreeMap<usize, Vec<&MessageRow>>, findings: &mut Findings) {
    for (room, items) in &evidence.truth.listed {
        let rows = rows.get(room).map_or(&[][..], Vec::as_slice);
        if rows.len() != items.len() {
            findings
                .add("d", format!("room {room}: sync tells {} messages, the store holds {}", items.len(), rows.len()));
        }
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let differs = |(row, item): &(&&MessageRow, &Value)| {
            text(item, "messageId") != row.id.to_string()
                || item["seq"].as_i64() != Some(row.seq)
                || text(item, "content") != row.content
                || item["deletedAt"].is_string() != row.deleted
        };
        for (row, item) in rows.iter().zip(items).filter(differs).take(SHOWN) {
            findings.add("d", format!("room {room}: sync tells {item}, the store holds {row:?}"));
        }
    }
}
