//! What leaves no trace, in a batch: typing and wishes of presence.
//!
//! It comes after what is durable and never holds it up. The invariant: bounded in time, and what
//! cannot be done in it is logged and dropped, never tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::presence::Status;
use domain::{RoomId, Timestamp, UserId};
use protocol::{Change, VerifiedEnvelope};
use realtime::Wish;

use crate::apply::unavailable;
use crate::fanout::Planned;
use crate::{Handlers, Unavailable, presence};

/// Typing that waited longer says nothing any more.
const TYPING_FOR: Duration = Duration::from_secs(10);
/// How long the ephemeral events of one batch may take together.
const LIMIT: Duration = Duration::from_secs(2);

/// The last word of each, in a batch.
#[derive(Default)]
struct Newest {
    typing: BTreeMap<(RoomId, UserId), Planned>,
    wishes: BTreeMap<UserId, Wish>,
}

impl Newest {
    fn of<'a>(events: impl Iterator<Item = &'a VerifiedEnvelope>, now: Timestamp) -> Self {
        let mut newest = Self::default();
        for event in events {
            match &event.change {
                Change::Typing(typing) if now.since(event.accepted_at) <= TYPING_FOR => {
                    newest.typing.insert((event.room_id, event.actor), presence::typing(event, typing));
                }
                Change::PresenceSet(wish) => {
                    if let Ok(status) = Status::parse_wish(&wish.status) {
                        let wish = Wish { user: event.actor, status };
                        newest.wishes.insert(event.actor, wish);
                    }
                }
                _ => {}
            }
        }
        newest
    }
}

impl Handlers {
    /// Tells the last word of each.
    pub(crate) async fn apply_ephemeral(&self, events: Vec<&VerifiedEnvelope>) {
        let newest = Newest::of(events.into_iter(), self.parts.clock.now());
        let both = futures_util::future::join(self.tell_typing(newest.typing), self.carry_out(newest.wishes));
        match tokio::time::timeout(LIMIT, both).await {
            Ok((Ok(()), ())) => {}
            Ok((Err(error), ())) => tracing::warn!(%error, "typing was not told"),
            Err(_) => tracing::warn!("typing and presence of a batch took too long; the rest is dropped"),
        }
    }

    /// In one round, however many type; of those only who is a member now.
    async fn tell_typing(&self, typing: BTreeMap<(RoomId, UserId), Planned>) -> Result<(), Unavailable> {
        if typing.is_empty() {
            return Ok(());
        }
        let typers: Vec<(RoomId, UserId)> = typing.keys().copied().collect();
        let standings = self.store().standings(&typers).await.map_err(|error| unavailable(&error))?;
        let is_member = |typer: &(RoomId, UserId)| standings.get(typer).is_some_and(|standing| !standing.blocked);
        let told: Vec<Planned> =
            typing.into_iter().filter(|(typer, _)| is_member(typer)).map(|(_, planned)| planned).collect();
        self.publish(&told).await
    }

    /// In one round, however many wish.
    async fn carry_out(&self, wishes: BTreeMap<UserId, Wish>) {
        if !wishes.is_empty() {
            self.apply_wishes(&wishes.into_values().collect::<Vec<_>>()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{EventKind, JobId};
    use protocol::{EventData, wire};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const ANN: UserId = UserId(Uuid::from_u128(1));

    fn event(kind: EventKind, age_ms: i64, change: Change) -> VerifiedEnvelope {
        VerifiedEnvelope {
            job_id: JobId::generate(),
            kind,
            room_id: RoomId(Uuid::from_u128(9)),
            actor: ANN,
            device_id: String::new(),
            accepted_at: Timestamp(NOW.0 - age_ms),
            traceparent: None,
            change,
        }
    }

    #[test]
    fn typing_that_waited_too_long_is_dropped_and_the_last_word_counts() {
        let typing = |age_ms, is_typing| {
            let set = wire::SetTyping { is_typing, ..Default::default() };
            event(EventKind::Typing, age_ms, Change::Typing(set))
        };
        let words = |events: &[VerifiedEnvelope]| -> Vec<bool> {
            let newest = Newest::of(events.iter(), NOW);
            let word = |planned: &Planned| match &planned.delivery.event {
                EventData::Typing(typing) => typing.is_typing,
                other => panic!("{other:?}"),
            };
            newest.typing.values().map(word).collect()
        };
        assert_eq!(words(&[typing(10_001, true)]), [] as [bool; 0]);
        assert_eq!(words(&[typing(9_000, true), typing(8_000, false)]), [false]);
        assert_eq!(words(&[typing(-5_000, true)]), [true], "clocks of gateways differ");
    }

    #[test]
    fn of_many_wishes_of_one_person_the_last_is_carried_out() {
        let wish = |status: &str| {
            let set = wire::PresenceSet { status: status.to_owned() };
            event(EventKind::PresenceSet, 0, Change::PresenceSet(set))
        };
        let events = [wish("away"), wish("nonsense"), wish("busy")];
        let wish = Wish { user: ANN, status: Status::Busy };
        assert_eq!(Newest::of(events.iter(), NOW).wishes, BTreeMap::from([(ANN, wish)]));
    }
}
