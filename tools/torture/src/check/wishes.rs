//! (d, g) What stands in the store is what was asked for: messages in their rooms, under their senders and
//! with their words, and each change as the last of those that were accepted says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::JobId;
use serde_json::Value;
use uuid::Uuid;

use super::{Evidence, Findings};
use crate::history::{Answer, Change, Message, Wish};
use crate::truth::MessageRow;
use crate::view::Reaction;

pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let asked = Asked::of(evidence);
    for room in 0..evidence.world.rooms.len() {
        let replay = asked.replay(evidence, room, findings);
        asked.compare(evidence, room, &replay, findings);
    }
}

/// What was asked for, by sender and job.
struct Asked<'a> {
    messages: HashMap<(Uuid, &'a str), &'a Message>,
    changes: HashMap<Uuid, (usize, &'a Change)>,
    /// Nobody knows whether these were accepted, and under which id: user and change.
    unknown: Vec<(usize, &'a Change)>,
}

/// What the accepted changes of a room come to, in the order of `rev`.
#[derive(Default)]
struct Replay {
    /// By message, what the last edit may have said: one thing, unless nobody knows which edit it was.
    edits: BTreeMap<String, BTreeSet<String>>,
    deleted: BTreeSet<String>,
    reactions: BTreeSet<Reaction>,
    /// Likewise; empty: it was never given one.
    titles: BTreeSet<String>,
}

impl<'a> Asked<'a> {
    fn of(evidence: &'a Evidence<'a>) -> Self {
        let mut asked = Self { messages: HashMap::new(), changes: HashMap::new(), unknown: Vec::new() };
        for (user, sender) in evidence.senders.iter().enumerate() {
            let me: Uuid = evidence.world.user_id(user).parse().unwrap_or_default();
            asked.messages.extend(sender.messages.iter().map(|message| ((me, message.name.as_str()), message)));
            for change in &sender.changes {
                match &change.answer {
                    Answer::Queued { job, .. } => {
                        let Ok(job) = job.parse::<Uuid>() else { continue };
                        let part = evidence.guest(change.room).unwrap_or_default();
                        asked.changes.insert(job, (user, change));
                        asked.changes.insert(JobId(job).part(part).0, (user, change));
                    }
                    Answer::Unknown => asked.unknown.push((user, change)),
                    Answer::Refused(_) => {}
                }
            }
        }
        asked
    }

    fn replay(&self, evidence: &Evidence<'_>, room: usize, findings: &mut Findings) -> Replay {
        let mut replay = Replay::default();
        let jobs: HashMap<i64, Uuid> = evidence
            .truth
            .events
            .iter()
            .filter(|it| it.room == room)
            .filter_map(|it| Some((it.rev, it.job?)))
            .collect();
        for (rev, name, data) in evidence.truth.timeline.get(&room).map_or(&[][..], Vec::as_slice) {
            if name == "message.delivered" {
                continue;
            }
            let known = jobs.get(rev).and_then(|job| self.changes.get(job)).copied();
            let fits = |(user, change): &(usize, &Change)| Self::fits(evidence, room, name, data, *user, change);
            let may_be: Vec<&Wish> = match known {
                Some(it) => [it].into_iter().filter(fits).map(|(_, change)| &change.wish).collect(),
                None => self.unknown.iter().copied().filter(fits).map(|(_, change)| &change.wish).collect(),
            };
            if may_be.is_empty() {
                findings.add("d", format!("room {room}, rev {rev}: nobody asked for {name} {data}; known: {known:?}"));
            }
            replay.take(&may_be, data);
        }
        replay
    }

    /// True when an event may have come of a change.
    fn fits(evidence: &Evidence<'_>, room: usize, name: &str, data: &Value, user: usize, change: &Change) -> bool {
        let is_about = |key: &str, value: &str| data[key] == value;
        let is_by = || is_about("userId", evidence.world.user_id(user));
        change.room == room
            && change.wish.event() == name
            && match &change.wish {
                // What an old edit said is not told any more once there is a newer one.
                Wish::Edit { message, .. } | Wish::Delete { message } => is_about("messageId", message),
                Wish::React { message, emoji, remove } => {
                    is_about("messageId", message) && is_about("emoji", emoji) && is_by() && data["removed"] == *remove
                }
                Wish::Rename(_) => true,
                Wish::Remove | Wish::Add => {
                    evidence.guest(room).is_some_and(|guest| is_about("userId", &guest.to_string()))
                }
            }
    }

    fn compare(&self, evidence: &Evidence<'_>, room: usize, replay: &Replay, findings: &mut Findings) {
        for row in evidence.truth.messages.iter().filter(|row| row.room == room) {
            if let Some(wrong) = self.differs(row, replay) {
                findings.add("d", format!("room {room}, seq {} ({}, {}): {wrong}", row.seq, row.id, row.name));
            }
        }
        let ids: BTreeSet<String> =
            evidence.truth.messages.iter().filter(|row| row.room == room).map(|row| row.id.to_string()).collect();
        let stored = evidence.truth.reactions.iter().filter(|it| ids.contains(&it.0));
        let (more, less): (Vec<_>, Vec<_>) = (
            stored.clone().filter(|it| !replay.reactions.contains(*it)).collect(),
            replay.reactions.iter().filter(|it| !evidence.truth.reactions.contains(*it)).collect(),
        );
        if !(more.is_empty() && less.is_empty()) {
            findings.add("g", format!("room {room}: reactions nobody asked for {more:?}, missing {less:?}"));
        }
        let title = evidence.truth.titles.get(&room);
        let is_right = title.map_or(replay.titles.is_empty(), |title| replay.titles.contains(title));
        if !is_right {
            findings.add("g", format!("room {room} is called {title:?}, last asked for was {:?}", replay.titles));
        }
    }

    fn differs(&self, row: &MessageRow, replay: &Replay) -> Option<String> {
        let Some(message) = self.messages.get(&(row.sender, row.name.as_str())) else {
            return Some(format!("{} never said that", row.sender));
        };
        if message.room != row.room {
            return Some(format!("it was said in room {}", message.room));
        }
        if let Answer::Queued { job, .. } = &message.answer
            && *job != row.id.to_string()
        {
            return Some(format!("it was acked as {job}"));
        }
        let id = row.id.to_string();
        if row.deleted != replay.deleted.contains(&id) {
            return Some(format!("taken back: {}", row.deleted));
        }
        let first = format!("{} says something", row.name);
        let wanted = match replay.edits.get(&id) {
            _ if row.deleted => [String::new()].into(),
            Some(edits) => edits.clone(),
            None => [first].into(),
        };
        (!wanted.contains(&row.content)).then(|| format!("it says {:?} instead of {wanted:?}", row.content))
    }
}

impl Replay {
    /// Takes a change, which was one of these.
    fn take(&mut self, may_be: &[&Wish], data: &Value) {
        let words = |wish: &&Wish| match wish {
            Wish::Edit { content: words, .. } | Wish::Rename(words) => Some(words.clone()),
            _ => None,
        };
        let words = may_be.iter().filter_map(words).collect();
        // They differ in their words at most.
        match may_be.first() {
            Some(Wish::Edit { message, .. }) => drop(self.edits.insert(message.clone(), words)),
            Some(Wish::Rename(_)) => self.titles = words,
            Some(Wish::Delete { message }) => {
                self.deleted.insert(message.clone());
                self.reactions.retain(|reaction| reaction.0 != *message);
            }
            Some(Wish::React { message, emoji, remove }) => {
                let reaction = (message.clone(), data["userId"].as_str().unwrap_or_default().to_owned(), emoji.clone());
                if *remove {
                    self.reactions.remove(&reaction);
                } else if !self.deleted.contains(message) {
                    self.reactions.insert(reaction);
                }
            }
            Some(Wish::Remove | Wish::Add) | None => {}
        }
    }
}
