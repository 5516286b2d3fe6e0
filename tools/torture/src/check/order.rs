//! (e) What one sender sent into one room, acked before the next was sent or accepted in frame order
//! on one connection, is never inverted.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Evidence, Findings};
use crate::history::{Answer, At, Message};

/// A message that was accepted, and its place.
struct Placed<'a> {
    message: &'a Message,
    acked: At,
    seq: i64,
}

pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let places: HashMap<Uuid, i64> = evidence.truth.messages.iter().map(|row| (row.id, row.seq)).collect();
    for (user, sender) in evidence.senders.iter().enumerate() {
        let mut rooms: HashMap<usize, Vec<Placed<'_>>> = HashMap::new();
        for message in &sender.messages {
            let Answer::Queued { at, job, .. } = &message.answer else { continue };
            // Not stored: refused or dead, which is judged elsewhere.
            let Some(seq) = job.parse().ok().and_then(|id: Uuid| places.get(&id)) else { continue };
            rooms.entry(message.room).or_default().push(Placed { message, acked: *at, seq: *seq });
        }
        for (room, mut placed) in rooms {
            placed.sort_by_key(|it| it.seq);
            for text in inverted_by_acks(&placed).into_iter().chain(inverted_by_frames(&placed)) {
                findings.add("e", format!("user {user}, room {room}: {text}"));
            }
        }
    }
}

/// In the order of the room, nobody may stand behind somebody who was sent after the ack of his.
fn inverted_by_acks(placed: &[Placed<'_>]) -> Vec<String> {
    let (mut texts, mut latest_first_try): (Vec<String>, Option<&Placed<'_>>) = Default::default();
    let first_try = |it: &Placed<'_>| it.message.tries.first().map_or(At(0), |first| first.at);
    for it in placed {
        if let Some(other) = latest_first_try.filter(|other| first_try(other) > it.acked) {
            texts.push(format!(
                "{} (acked at {} ms) stands behind {}, which was sent at {} ms",
                it.message.name,
                it.acked.0,
                other.message.name,
                first_try(other).0
            ));
        }
        if latest_first_try.is_none_or(|other| first_try(other) < first_try(it)) {
            latest_first_try = Some(it);
        }
    }
    texts
}

/// On one connection the accepted attempts stand in the order of their frames.
fn inverted_by_frames(placed: &[Placed<'_>]) -> Vec<String> {
    let mut texts = Vec::new();
    let mut last: HashMap<u64, (i64, &str)> = HashMap::new();
    for it in placed {
        let Answer::Queued { of: Some(of), .. } = &it.message.answer else { continue };
        let name = it.message.name.as_str();
        if let Some((frame, other)) = last.insert(of.connection, (of.frame, name))
            && frame > of.frame
        {
            texts.push(format!("{name} (frame {}) stands behind {other} (frame {frame}) of one connection", of.frame));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Try;

    fn message(name: &str, sent: u64, acked: u64, frame: i64) -> Message {
        let this = Try { at: At(sent), connection: 1, frame };
        let answer = Answer::Queued { at: At(acked), of: Some(this), job: String::new() };
        Message { name: name.to_owned(), room: 0, tries: vec![this], answer }
    }

    fn placed<'a>(messages: &[&'a Message]) -> Vec<Placed<'a>> {
        let acked = |message: &Message| if let Answer::Queued { at, .. } = message.answer { at } else { At(0) };
        messages.iter().zip(1..).map(|(message, seq)| Placed { message, acked: acked(message), seq }).collect()
    }

    #[test]
    fn what_was_acked_before_the_next_was_sent_may_not_stand_behind_it() {
        let (first, second) = (message("first", 0, 10, 1), message("second", 11, 20, 2));
        assert!(inverted_by_acks(&placed(&[&first, &second])).is_empty());
        assert_eq!(inverted_by_acks(&placed(&[&second, &first])).len(), 1);
    }

    #[test]
    fn what_was_sent_before_the_ack_may_stand_anywhere_unless_frames_say_otherwise() {
        let (first, second) = (message("first", 0, 10, 1), message("second", 5, 20, 2));
        assert!(inverted_by_acks(&placed(&[&second, &first])).is_empty());
        assert_eq!(inverted_by_frames(&placed(&[&second, &first])).len(), 1);
        assert!(inverted_by_frames(&placed(&[&first, &second])).is_empty());
    }
}
