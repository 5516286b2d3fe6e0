//! What happened in rooms since a rev, as members may read it: from the rooms' logs while they reach
//! that far, else from the store.
//!
//! Judges no rights: the callers have read from the store up to which rev somebody may see. The
//! invariant: log and store answer the same. What was taken back since stays away in both, what was
//! edited since is told as it now stands.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use domain::{Rev, RoomId, limits};
use prost::Message as _;
use protocol::wire::{self, RevEvent};
use protocol::{Channel, EventData, OpenedDelivery, delivery};
use realtime::{LogAsked, ROOM_LOG_ENTRIES};
use store::{RevEntry, StoreError};
use telemetry::Counter;

use crate::Handlers;

/// What the names of an item's fields add to its contents.
pub(crate) const ITEM_BYTES: usize = 256;
/// Entries asked of a log beyond those wanted: what was taken back a moment ago stands there.
const MORE: usize = 32;
/// The log only saves work: an engine that does not answer soon is not waited for.
const LOG_LIMIT: Duration = Duration::from_millis(500);

/// A room somebody is behind with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    pub(crate) room: RoomId,
    /// The last rev that is known already.
    pub(crate) after: Rev,
    /// The last rev that may be told.
    pub(crate) up_to: Rev,
}

/// What one answer may still hold.
pub(crate) struct Budget {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

impl Budget {
    pub(crate) fn whole() -> Self {
        Self { items: limits::SYNC_ITEMS, bytes: limits::ANSWER_BYTES }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.items == 0 || self.bytes == 0
    }

    pub(crate) fn spend(&mut self, items: usize, bytes: usize) {
        self.items = self.items.saturating_sub(items);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Behind {
    fn distance(&self) -> usize {
        usize::try_from(self.up_to.0.saturating_sub(self.after.0)).unwrap_or(0)
    }
}

/// Whole stretches of timelines that the logs had.
#[derive(Default)]
pub(crate) struct Logged(HashMap<RoomId, Vec<RevEvent>>);

impl Handlers {
    /// Reads in one round what the logs hold of these rooms, as much as one answer may hold. Rooms
    /// whose log does not reach from `after` to `up_to` are left to the store.
    pub(crate) async fn logged(&self, behind: &[Behind]) -> Logged {
        let mut entries = 0;
        let near: Vec<&Behind> = behind
            .iter()
            .filter(|one| (1..=ROOM_LOG_ENTRIES).contains(&one.distance()))
            .take_while(|one| {
                let fits = entries < limits::SYNC_ITEMS;
                entries += one.distance();
                fits
            })
            .collect();
        if near.is_empty() {
            return Logged::default();
        }
        let ask = |one: &&Behind| LogAsked { room: one.room, after: one.after, limit: one.distance() + MORE };
        let asked: Vec<LogAsked> = near.iter().map(ask).collect();
        let round = self.realtime().room_logs(&asked, limits::ANSWER_BYTES);
        let Ok(Ok(logs)) = tokio::time::timeout(LOG_LIMIT, round).await else { return Logged::default() };
        let read = |(one, payloads): (&Behind, Option<Vec<Bytes>>)| {
            let deliveries = self.open_all(one.room, one.after, &payloads?)?;
            let reached = deliveries.last()?.rev?;
            (reached >= one.up_to).then(|| (one.room, as_they_stand(deliveries, one.up_to)))
        };
        Logged(near.into_iter().zip(logs).filter_map(read).collect())
    }

    /// What a log had after `after`, if it is genuine and contiguous.
    pub(crate) fn open_all(&self, room: RoomId, after: Rev, payloads: &[Bytes]) -> Option<Vec<OpenedDelivery>> {
        let mut expected = after;
        let mut opened = Vec::with_capacity(payloads.len());
        for payload in payloads {
            let delivery = delivery::open(Channel::Room(room), payload, &self.parts.keys)?;
            expected = expected.next();
            if delivery.rev != Some(expected) {
                return None;
            }
            opened.push(delivery);
        }
        Some(opened)
    }

    /// The next events of a room, ascending and without a gap, as many as one room's part of the
    /// answer and the budget hold, at least one while the budget is not spent.
    pub(crate) async fn events(
        &self,
        behind: Behind,
        logged: &mut Logged,
        budget: &mut Budget,
    ) -> Result<Vec<RevEvent>, StoreError> {
        if budget.is_spent() || behind.distance() == 0 {
            return Ok(Vec::new());
        }
        let limit = limits::SYNC_ITEMS_PER_ROOM.min(budget.items).min(behind.distance());
        let mut events = if let Some(events) = logged.0.remove(&behind.room) {
            Counter::RoomsSynced.inc_with("log");
            events
        } else {
            Counter::RoomsSynced.inc_with("store");
            let entries = self.store().after_rev_within(behind.room, behind.after, limit, budget.bytes).await?;
            let event = |entry: RevEntry| RevEvent { rev: entry.rev.0, event: Some(entry.event.into()) };
            entries.into_iter().map(event).collect()
        };
        let mut bytes = 0;
        let fit = events.iter().take(limit).take_while(|event| {
            let fits = bytes < budget.bytes;
            bytes += if fits { event.encoded_len() + ITEM_BYTES } else { 0 };
            fits
        });
        let fit = fit.count();
        events.truncate(fit);
        budget.spend(events.len(), bytes);
        Ok(events)
    }
}

/// What later events of a stretch made of a message.
#[derive(Default)]
struct Later {
    edited: Option<wire::MessageEdited>,
    deleted_at: Option<String>,
    /// Who gave what.
    reactions: HashSet<(String, String)>,
}

/// A stretch of a log as the store would tell it now: what was said stands in the messages alone, so
/// an event shows what became of its message. A stretch that begins after a message's own event
/// cannot say who reacted before, and does not have to: only that event tells reactions. Of what
/// lies beyond `up_to` only what was taken back counts.
fn as_they_stand(deliveries: Vec<OpenedDelivery>, up_to: Rev) -> Vec<RevEvent> {
    let mut messages: HashMap<String, Later> = HashMap::new();
    for delivery in &deliveries {
        let beyond = delivery.rev.is_none_or(|rev| rev > up_to);
        match &delivery.event {
            EventData::MessageDeleted(deleted) => {
                let later = messages.entry(deleted.message_id.clone()).or_default();
                later.deleted_at = Some(deleted.deleted_at.clone());
            }
            EventData::MessageEdited(edited) if !beyond => {
                messages.entry(edited.message_id.clone()).or_default().edited = Some(edited.clone());
            }
            EventData::MessageReaction(reaction) if !beyond => {
                let later = messages.entry(reaction.message_id.clone()).or_default();
                let given = (reaction.emoji.clone(), reaction.user_id.clone());
                if reaction.removed {
                    later.reactions.remove(&given)
                } else {
                    later.reactions.insert(given)
                };
            }
            _ => {}
        }
    }
    let told = deliveries.into_iter().filter_map(|delivery| {
        let rev = delivery.rev.filter(|rev| *rev <= up_to)?;
        let event = match delivery.event {
            EventData::MessageDelivered(said) => EventData::MessageDelivered(delivered_as_it_stands(said, &messages)),
            EventData::MessageEdited(edited) => EventData::MessageEdited(edited_as_it_stands(edited, &messages)),
            other => other,
        };
        Some(RevEvent { rev: rev.0, event: Some(event.into()) })
    });
    told.collect()
}

fn delivered_as_it_stands(said: wire::MessageDelivered, messages: &HashMap<String, Later>) -> wire::MessageDelivered {
    let Some(later) = messages.get(&said.message_id) else {
        return said;
    };
    if let Some(deleted_at) = &later.deleted_at {
        return wire::MessageDelivered {
            room_id: said.room_id,
            message_id: said.message_id,
            seq: said.seq,
            rev: said.rev,
            sender_id: said.sender_id,
            sent_at: said.sent_at,
            deleted_at: Some(deleted_at.clone()),
            ..wire::MessageDelivered::default()
        };
    }
    let mut said = said;
    if let Some(edited) = &later.edited {
        said.content = Some(edited.content.clone());
        said.edited_at = Some(edited.edited_at.clone());
    }
    said.reactions = counted(&later.reactions);
    said
}

fn edited_as_it_stands(edited: wire::MessageEdited, messages: &HashMap<String, Later>) -> wire::MessageEdited {
    let content = match messages.get(&edited.message_id) {
        Some(Later { deleted_at: Some(_), .. }) => String::new(),
        Some(Later { edited: Some(last), .. }) => last.content.clone(),
        _ => return edited,
    };
    wire::MessageEdited { content, ..edited }
}

/// The reactions by emoji, the most frequent first, as the store counts them.
fn counted(given: &HashSet<(String, String)>) -> Vec<wire::ReactionCount> {
    let emoji: BTreeSet<&String> = given.iter().map(|(emoji, _)| emoji).collect();
    let count = |emoji: &String| given.iter().filter(|(other, _)| other == emoji).count() as i64;
    let mut counts: Vec<wire::ReactionCount> =
        emoji.into_iter().map(|emoji| wire::ReactionCount { emoji: emoji.clone(), count: count(emoji) }).collect();
    counts.sort_by_key(|it| std::cmp::Reverse(it.count));
    counts
}
