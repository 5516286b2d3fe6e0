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
            let title = evidence.truth.titles.get(room);
            if view.title.as_ref() != title {
                findings.add("g", format!("{who}: is called {:?}, in the store {title:?}", view.title));
            }
            read_marks(evidence, &who, *room, view, findings);
        }
    }
    listed(evidence, &rows, findings);
    members(evidence, findings);
    acked_marks(evidence, findings);
}

/// Members are those who were there from the beginning, and what was told of coming and going; in the end
/// every guest is back.
fn members(evidence: &Evidence<'_>, findings: &mut Findings) {
    let world = evidence.world;
    for (number, room) in world.rooms.iter().enumerate() {
        let first = room.members.iter().map(|user| world.user_id(*user)).chain([world.owner.id.as_str()]);
        let mut wanted: BTreeSet<&str> = first.collect();
        for (_, name, data) in evidence.truth.timeline.get(&number).map_or(&[][..], Vec::as_slice) {
            let user = data["userId"].as_str().unwrap_or_default();
            match name.as_str() {
                "room.memberJoined" => drop(wanted.insert(user)),
                "room.memberLeft" => drop(wanted.remove(user)),
                _ => {}
            }
        }
        let stored = evidence.truth.members.keys().filter(|(of, _)| *of == number);
        let stored: BTreeSet<&str> = stored.map(|(_, user)| user.as_str()).collect();
        if stored != wanted {
            findings.add("d", format!("room {number}: its members are {stored:?}, told was {wanted:?}"));
        }
        if let Some(guest) = room.guest.map(|guest| world.user_id(guest)).filter(|guest| !stored.contains(guest)) {
            findings.add("d", format!("room {number}: {guest} was added last and is no member"));
        }
    }
}

/// A read mark that was acked stands, or a later one.
fn acked_marks(evidence: &Evidence<'_>, findings: &mut Findings) {
    for (user, sender) in evidence.senders.iter().enumerate() {
        for (room, (seq, at)) in &sender.read {
            let stored = evidence.truth.members.get(&(*room, evidence.world.user_id(user).to_owned()));
            if let Some(stored) = stored.filter(|stored| *stored < seq) {
                findings.add(
                    "g",
                    format!("user {user}, room {room}: is at {stored}, {seq} was acked as read at {} ms", at.0),
                );
            }
        }
    }
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
    let guest = evidence.guest(room).map(|guest| guest.to_string());
    for ((_, user), seq) in evidence.truth.members.iter().filter(|((of, _), _)| *of == room) {
        let held = view.reads.get(user).copied().unwrap_or_default();
        // Whoever joined again stands where they stood, of which nobody is told once more.
        let is_right = if guest.as_ref() == Some(user) { held <= *seq } else { held == *seq };
        if !is_right {
            findings.add("g", format!("{who}: {user} has read up to {seq}, which is known up to {held}"));
        }
    }
}

/// What `sync` by `seq` tells a newcomer is what stands in the store.
fn listed(evidence: &Evidence<'_>, rows: &BTreeMap<usize, Vec<&MessageRow>>, findings: &mut Findings) {
    let mut given: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (message, _, emoji) in &evidence.truth.reactions {
        *given.entry((message, emoji)).or_default() += 1;
    }
    for ((gateway, room), items) in &evidence.truth.listed {
        let rows = rows.get(room).map_or(&[][..], Vec::as_slice);
        let who = format!("gateway {gateway}, room {room}");
        if rows.len() != items.len() {
            findings.add("d", format!("{who}: sync tells {} messages, the store holds {}", items.len(), rows.len()));
        }
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let differs = |(row, item): &(&&MessageRow, &Value)| {
            text(item, "messageId") != row.id.to_string()
                || item["seq"].as_i64() != Some(row.seq)
                || text(item, "content") != row.content
                || item["deletedAt"].is_string() != row.deleted
                || counted(item) != of_message(&given, &row.id.to_string())
        };
        for (row, item) in rows.iter().zip(items).filter(differs).take(SHOWN) {
            let reactions = of_message(&given, &row.id.to_string());
            findings.add("d", format!("{who}: sync tells {item}, the store holds {row:?} with {reactions:?}"));
        }
    }
}

/// The reactions that an item counts.
fn counted(item: &Value) -> BTreeMap<&str, u64> {
    let reactions = item["reactions"].as_array().map_or(&[][..], Vec::as_slice);
    reactions.iter().filter_map(|it| Some((it["emoji"].as_str()?, it["count"].as_u64()?))).collect()
}

fn of_message<'a>(given: &BTreeMap<(&'a str, &'a str), u64>, id: &str) -> BTreeMap<&'a str, u64> {
    given.iter().filter(|((message, _), _)| *message == id).map(|((_, emoji), count)| (*emoji, *count)).collect()
}
