//! What a connection missed since the last delivery it knows by number: all of it, or no answer.
//!
//! The logs say what came and prove that it is all; the contents come from the store, as they now
//! stand. The invariant: where anything is not proven, the answer is none.

use std::time::Duration;

use domain::{Rev, RoomId, Timestamp};
use prost::Message as _;
use protocol::wire::{self, ServerEvent};
use protocol::{EventData, OpenedDelivery};
use realtime::{LogNumber, Logged, ROOM_LOG_KEPT, Since};
use store::RoomState;
use store::member::{READS_SINCE_MOST, ReadMark};

use crate::apply::unavailable;
use crate::{Handlers, Unavailable};

/// Changes that are worth bringing up to date one by one; over it a client reads the state anew.
const CHANGES: usize = 500;
/// The same, bytes.
const CHANGES_BYTES: usize = 96 * 1024;
/// By so much clocks and the way through the broker may differ.
const MARGIN: Duration = Duration::from_mins(1);
/// How often and how long it is waited for what is stored and not in the log yet.
const LOOKS: u32 = 5;
const LOOK_EVERY: Duration = Duration::from_millis(60);

/// Clocks of edges may differ by so much, and a read mark be committed so much after its moment.
const MARKS_LAG: Duration = Duration::from_secs(10);

/// One missed delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Missed {
    /// Its number; read marks have none.
    pub number: LogNumber,
    /// What it says.
    pub delivery: OpenedDelivery,
}

/// What a room's log had.
struct News<'a> {
    state: &'a RoomState,
    logged: Vec<Logged>,
}

impl Handlers {
    /// What the rooms were told after `after`, in the order of the numbers, up to the revs that
    /// `rooms` say; then the read marks that moved since, some of them perhaps once more. `None`: it cannot be proven to be all, or is too much.
    pub async fn missed(&self, rooms: &[RoomState], after: LogNumber) -> Result<Option<Vec<Missed>>, Unavailable> {
        let age = self.parts.clock.now().since(after.given_at());
        let is_ahead = after.given_at() > self.parts.clock.now().plus(MARGIN);
        if is_ahead || age + MARGIN > ROOM_LOG_KEPT {
            return Ok(None);
        }
        let Some((news, quiet)) = self.news(rooms, after).await? else { return Ok(None) };
        let count: usize = news.iter().map(|news| news.logged.len()).sum();
        if count > CHANGES || !self.is_quiet(&quiet, after.given_at()).await? {
            return Ok(None);
        }
        let (mut missed, mut bytes) = (Vec::with_capacity(count), 0);
        for news in &news {
            let Some(found) = self.read_news(news).await? else { return Ok(None) };
            bytes += found.iter().map(weight).sum::<usize>();
            if bytes > CHANGES_BYTES {
                return Ok(None);
            }
            missed.extend(found);
        }
        missed.sort_unstable_by_key(|missed| missed.number);
        let Some(marks) = self.missed_marks(rooms, after.given_at()).await? else { return Ok(None) };
        missed.extend(marks);
        Ok(Some(missed))
    }

    async fn missed_marks(&self, rooms: &[RoomState], since: Timestamp) -> Result<Option<Vec<Missed>>, Unavailable> {
        let ids: Vec<RoomId> = rooms.iter().map(|state| state.room_id).collect();
        let since = Timestamp(since.0 - MARKS_LAG.as_millis() as i64);
        let marks = self.store().reads_since(&ids, since).await.map_err(|error| unavailable(&error))?;
        if marks.len() >= READS_SINCE_MOST {
            return Ok(None);
        }
        let missed = |mark: ReadMark| {
            let event = EventData::MessageRead(wire::MessageReadBy {
                room_id: mark.room.to_string(),
                user_id: mark.user.to_string(),
                seq: mark.seq.0,
                read_at: mark.at.to_rfc3339(),
            });
            let delivery = OpenedDelivery { rev: None, epoch: Rev::ZERO, except: None, event };
            Missed { number: LogNumber::NONE, delivery }
        };
        Ok(Some(marks.into_iter().map(missed).collect()))
    }

    /// The rooms in which something came, and those without a log.
    async fn news<'a>(
        &self,
        rooms: &'a [RoomState],
        after: LogNumber,
    ) -> Result<Option<(Vec<News<'a>>, Vec<RoomId>)>, Unavailable> {
        let ids: Vec<RoomId> = rooms.iter().map(|state| state.room_id).collect();
        for _ in 0..LOOKS {
            match sort(rooms, self.realtime().since(&ids, after).await?) {
                Sorted::Known { news, quiet } => return Ok(Some((news, quiet))),
                Sorted::Unknown => return Ok(None),
                Sorted::Early => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        Ok(None)
    }

    /// True if nothing happened in rooms without a log since a while before `at`.
    async fn is_quiet(&self, rooms: &[RoomId], at: Timestamp) -> Result<bool, Unavailable> {
        if rooms.is_empty() {
            return Ok(true);
        }
        let changes = self.store().last_changes(rooms).await.map_err(|error| unavailable(&error))?;
        Ok(changes.iter().all(|(_, changed_at)| changed_at.plus(MARGIN) < at))
    }

    async fn read_news(&self, news: &News<'_>) -> Result<Option<Vec<Missed>>, Unavailable> {
        let wanted: Vec<&Logged> = news.logged.iter().filter(|logged| logged.rev <= news.state.rev).collect();
        let Some(first) = wanted.first() else { return Ok(Some(Vec::new())) };
        let (room, before) = (news.state.room_id, Rev(first.rev.0 - 1));
        let page = self.store().after_rev_within(room, before, wanted.len(), CHANGES_BYTES).await;
        let page = page.map_err(|error| unavailable(&error))?;
        if !page.iter().map(|entry| entry.rev).eq(wanted.iter().map(|logged| logged.rev)) {
            return Ok(None);
        }
        let missed = page.into_iter().zip(wanted).map(|(entry, logged)| Missed {
            number: logged.number,
            delivery: OpenedDelivery { rev: Some(entry.rev), epoch: entry.epoch, except: None, event: entry.event },
        });
        Ok(Some(missed.collect()))
    }
}

enum Sorted<'a> {
    Known {
        news: Vec<News<'a>>,
        quiet: Vec<RoomId>,
    },
    /// Something is stored and not logged yet.
    Early,
    Unknown,
}

fn sort(rooms: &[RoomState], found: Vec<Since>) -> Sorted<'_> {
    let (mut news, mut quiet, mut is_early) = (Vec::new(), Vec::new(), false);
    for (state, since) in rooms.iter().zip(found) {
        match since {
            // A creation enters no log; who did not know the room knew another set of rooms.
            Since::NoLog if state.rev == Rev(1) => {}
            Since::NoLog => quiet.push(state.room_id),
            Since::Unknown => return Sorted::Unknown,
            Since::Logged { newest, .. } if newest < state.rev => is_early = true,
            Since::Logged { deliveries, .. } if deliveries.is_empty() => {}
            Since::Logged { deliveries, .. } => news.push(News { state, logged: deliveries }),
        }
    }
    if is_early { Sorted::Early } else { Sorted::Known { news, quiet } }
}

fn weight(missed: &Missed) -> usize {
    ServerEvent::from(missed.delivery.event.clone()).encoded_len() + 100
}
