//! (e) What one sender sent into one room, acked before the next was sent or accepted in frame order
//! on one connection, is never inverted.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Evidence, Findings};
use crate::history::{Answer, At, Change, Message, Try};

/// From when something says that it happened to its commit.
const COMMIT_MS: u64 = 1_000;

/// Something that was accepted, and its place.
struct Placed<'a> {
    name: &'a str,
    sent: At,
    acked: At,
    /// The attempt that was accepted, where there was only one.
    of: Option<Try>,
    place: i64,
}

/// How many edits, deletions and reactions could be judged.
pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) -> usize {
    let seqs: HashMap<Uuid, i64> = evidence.truth.messages.iter().map(|row| (row.id, row.seq)).collect();
    let revs: HashMap<Uuid, i64> = evidence.truth.events.iter().filter_map(|it| Some((it.job?, it.rev))).collect();
    let stored = stored(evidence);
    let mut judged = 0;
    for (user, sender) in evidence.senders.iter().enumerate() {
        let mut rooms: HashMap<(usize, &str), Vec<Placed<'_>>> = HashMap::new();
        for message in &sender.messages {
            let placed = Placed::message(message, &seqs);
            rooms.entry((message.room, "messages")).or_default().extend(placed);
        }
        // What came before its target failed first, and took its place when that was there.
        let waited = |change: &Change| {
            let stored = change.wish.message().and_then(|id| stored.get(&id.parse::<Uuid>().ok()?));
            stored.is_none_or(|stored| stored.0 + COMMIT_MS + evidence.clocks_ms > change.at.0)
        };
        for change in sender.changes.iter().filter(|change| change.by.is_some() && !waited(change)) {
            rooms.entry((change.room, "changes")).or_default().extend(Placed::change(change, &revs));
        }
        for ((room, what), mut placed) in rooms {
            placed.sort_by_key(|it| it.place);
            judged += usize::from(what == "changes") * placed.len();
            for text in inverted_by_acks(&placed).into_iter().chain(inverted_by_frames(&placed)) {
                findings.add("e", format!("user {user}, {what} of room {room}: {text}"));
            }
        }
    }
    judged
}

/// When each message was stored, as its first change says.
fn stored(evidence: &Evidence<'_>) -> HashMap<Uuid, At> {
    let mut stored = HashMap::new();
    for event in &evidence.truth.events {
        if let Some(message) = event.message {
            stored.entry(message).or_insert_with(|| evidence.world.clock.of_wall(event.wall_ms));
        }
    }
    stored
}

impl<'a> Placed<'a> {
    /// `None`: not stored, which is judged elsewhere.
    fn message(message: &'a Message, places: &HashMap<Uuid, i64>) -> Option<Self> {
        let sent = message.tries.first().map_or(At(0), |first| first.at);
        Self::of(&message.name, sent, &message.answer, places)
    }

    fn change(change: &'a Change, places: &HashMap<Uuid, i64>) -> Option<Self> {
        let it = Self::of(change.wish.event(), change.at, &change.answer, places)?;
        Some(Self { of: change.by, ..it })
    }

    fn of(name: &'a str, sent: At, answer: &Answer, places: &HashMap<Uuid, i64>) -> Option<Self> {
        let Answer::Queued { at, job, of } = answer else { return None };
        let place = *places.get(&job.parse().ok()?)?;
        Some(Self { name, sent, acked: *at, of: *of, place })
    }
}

/// In the order of the room, nobody may stand behind somebody who was sent after the ack of his.
fn inverted_by_acks(placed: &[Placed<'_>]) -> Vec<String> {
    let (mut texts, mut last_sent): (Vec<String>, Option<&Placed<'_>>) = Default::default();
    for it in placed {
        if let Some(other) = last_sent.filter(|other| other.sent > it.acked) {
            texts.push(format!(
                "{} ({}, acked at {} ms) stands behind {} ({}), which was sent at {} ms",
                it.name, it.place, it.acked.0, other.name, other.place, other.sent.0
            ));
        }
        if last_sent.is_none_or(|other| other.sent < it.sent) {
            last_sent = Some(it);
        }
    }
    texts
}

/// On one connection the accepted attempts stand in the order of their frames.
fn inverted_by_frames(placed: &[Placed<'_>]) -> Vec<String> {
    let mut texts = Vec::new();
    let mut last: HashMap<u64, (i64, &str)> = HashMap::new();
    for it in placed {
        let Some(of) = it.of else { continue };
        if let Some((frame, other)) = last.insert(of.connection, (of.frame, it.name))
            && frame > of.frame
        {
            texts.push(format!(
                "{} (frame {}) stands behind {other} (frame {frame}) of one connection",
                it.name, of.frame
            ));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(name: &str, sent: u64, acked: u64, frame: i64) -> Placed<'_> {
        let of = Some(Try { at: At(sent), connection: 1, frame });
        Placed { name, sent: At(sent), acked: At(acked), of, place: 0 }
    }

    #[test]
    fn what_was_acked_before_the_next_was_sent_may_not_stand_behind_it() {
        let (first, second) = (placed("first", 0, 10, 1), placed("second", 11, 20, 2));
        assert!(inverted_by_acks(&[first, second]).is_empty());
        let (first, second) = (placed("first", 0, 10, 1), placed("second", 11, 20, 2));
        assert_eq!(inverted_by_acks(&[second, first]).len(), 1);
    }

    #[test]
    fn what_was_sent_before_the_ack_may_stand_anywhere_unless_frames_say_otherwise() {
        let pair = || (placed("first", 0, 10, 1), placed("second", 5, 20, 2));
        let (first, second) = pair();
        assert!(inverted_by_acks(&[second, first]).is_empty());
        let (first, second) = pair();
        assert_eq!(inverted_by_frames(&[second, first]).len(), 1);
        let (first, second) = pair();
        assert!(inverted_by_frames(&[first, second]).is_empty());
    }
}
