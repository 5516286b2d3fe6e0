//! What a connection missed since the last delivery it knows by number: all of it, or no answer.
//!
//! The logs say what came and prove that it is all; the contents come from the store, as they now
//! stand. The invariant: where anything is not proven, the answer is none.

use std::time::Duration;

use domain::{Rev, RoomId, Timestamp};
use prost::Message as _;
use protocol::wire::ServerEvent;
use protocol::{EventData, OpenedDelivery};
use realtime::{LogNumber, ROOM_LOG_KEPT, Since};
use store::member::{READS_SINCE_MOST, ReadMark};
use store::{RoomState, StoreError};

use crate::apply::unavailable;
use crate::read::MARKS_LAG;
use crate::{Handlers, Unavailable};

/// Changes that are worth bringing up to date one by one; over it a client reads the state anew.
const RECOVERED_CHANGES: usize = 500;
/// The same, bytes.
const RECOVERED_BYTES: usize = 96 * 1024;
/// By so much clocks and the way through the broker may differ.
const MARGIN: Duration = Duration::from_mins(1);
/// How often and how long it is waited for what is stored and not in the log yet.
const LOOKS: u32 = 5;
const LOOK_EVERY: Duration = Duration::from_millis(60);

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
    logged: Vec<(Rev, LogNumber)>,
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
        let Some((news, older)) = self.news(rooms, after).await? else { return Ok(None) };
        if !self.are_older(&older, after.given_at()).await? {
            return Ok(None);
        }
        let (mut missed, mut bytes) = (Vec::new(), 0);
        for news in &news {
            let Some(found) = self.read_news(news).await? else { return Ok(None) };
            bytes += found.iter().map(weight).sum::<usize>();
            if bytes > RECOVERED_BYTES {
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
            let delivery = OpenedDelivery::passing(EventData::MessageRead(mark.to_wire()));
            Missed { number: LogNumber::NONE, delivery }
        };
        Ok(Some(marks.into_iter().map(missed).collect()))
    }

    /// The rooms in which something came, and the changes that must be older than that for this to be all.
    async fn news<'a>(
        &self,
        rooms: &'a [RoomState],
        after: LogNumber,
    ) -> Result<Option<(Vec<News<'a>>, Vec<(RoomId, Rev)>)>, Unavailable> {
        let ids: Vec<RoomId> = rooms.iter().map(|state| state.room_id).collect();
        for _ in 0..LOOKS {
            match sort(rooms, self.realtime().since(&ids, after, RECOVERED_CHANGES).await?) {
                Sorted::Known { news, older } => return Ok(Some((news, older))),
                Sorted::Unknown => return Ok(None),
                Sorted::Early => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        Ok(None)
    }

    /// True if all of these changes happened a while before `at`: logs of rooms may have been lost.
    async fn are_older(&self, changes: &[(RoomId, Rev)], at: Timestamp) -> Result<bool, Unavailable> {
        if changes.is_empty() {
            return Ok(true);
        }
        let happened = self.store().happened_at(changes).await.map_err(|error| unavailable(&error))?;
        Ok(happened.len() == changes.len() && happened.iter().all(|happened| happened.plus(MARGIN) < at))
    }

    async fn read_news(&self, news: &News<'_>) -> Result<Option<Vec<Missed>>, Unavailable> {
        let wanted: Vec<_> = news.logged.iter().filter(|(rev, _)| *rev <= news.state.rev).collect();
        let Some((first, _)) = wanted.first() else { return Ok(Some(Vec::new())) };
        let (room, before) = (news.state.room_id, Rev(first.0 - 1));
        let page = match self.store().after_rev_within(room, before, wanted.len(), RECOVERED_BYTES).await {
            Err(StoreError::TooOld) => return Ok(None),
            page => page.map_err(|error| unavailable(&error))?,
        };
        if !page.iter().map(|entry| entry.rev).eq(wanted.iter().map(|(rev, _)| *rev)) {
            return Ok(None);
        }
        let missed = page.into_iter().zip(wanted).map(|(entry, (_, number))| Missed {
            number: *number,
            delivery: OpenedDelivery { rev: Some(entry.rev), epoch: entry.epoch, except: None, event: entry.event },
        });
        Ok(Some(missed.collect()))
    }
}

enum Sorted<'a> {
    Known {
        news: Vec<News<'a>>,
        /// Changes of which no log says that they came before.
        older: Vec<(RoomId, Rev)>,
    },
    /// Something is stored and not logged yet.
    Early,
    Unknown,
}

fn sort(rooms: &[RoomState], found: Vec<Since>) -> Sorted<'_> {
    let (mut news, mut older, mut is_early) = (Vec::new(), Vec::new(), false);
    for (state, since) in rooms.iter().zip(found) {
        let last_before = match since {
            Since::Unknown => return Sorted::Unknown,
            Since::NoLog => Some(state.rev),
            Since::Logged { newest, deliveries, begins_after } => {
                is_early |= newest < state.rev;
                if !deliveries.is_empty() {
                    news.push(News { state, logged: deliveries });
                }
                begins_after
            }
        };
        // A creation enters no log; who did not know the room knew another set of rooms.
        older.extend(last_before.filter(|rev| *rev > Rev(1)).map(|rev| (state.room_id, rev)));
    }
    if is_early { Sorted::Early } else { Sorted::Known { news, older } }
}

fn weight(missed: &Missed) -> usize {
    ServerEvent::from(missed.delivery.event.clone()).encoded_len() + 100
}
