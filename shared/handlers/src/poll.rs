//! The long poll: what came in all rooms of a user since a cursor.
//!
//! Waits for nothing: it says what is there now. The invariant: what is told ends, in each room, at
//! the rev at which the store said that the user is a member, or at the user's own departure; and the
//! cursor that goes with it stands right behind what was told.

use std::collections::HashSet;

use domain::{Rev, RoomId, Timestamp, UserId, limits};
use protocol::wire::RevEvent;
use protocol::{Code, Cursor, EventData, Refusal, cursor};
use store::member::{READS_SINCE_MOST, ReadMark};
use store::room::RoomState;
use store::{Account, RoomsOf, StoreError};

use crate::Handlers;
use crate::read::MARKS_LAG;
use crate::timeline::{Behind, Budget};

/// Rooms joined since the cursor that one answer begins with.
const NEW_ROOMS: usize = 50;
/// Departures looked through.
const DEPARTURES: usize = limits::POLL_ROOMS;

/// How often it is read anew when the user's rooms changed meanwhile.
const READINGS: usize = 4;

/// What a poll answers.
#[derive(Debug)]
pub struct Polled {
    /// Events of rooms, ascending by rev within each; then read marks, which have no rev.
    pub items: Vec<RevEvent>,
    /// Where to go on.
    pub cursor: Cursor,
    /// False: there is more already.
    pub complete: bool,
    /// The user's rooms, to wait for.
    pub rooms: Vec<RoomId>,
    /// The user's account as it stands now.
    pub account: Account,
}

impl Polled {
    /// Whether there is anything to tell.
    pub fn is_news(&self) -> bool {
        !self.items.is_empty() || !self.complete
    }
}

/// What has been put together so far.
struct Draft {
    items: Vec<RevEvent>,
    positions: Vec<(RoomId, Rev)>,
    complete: bool,
    budget: Budget,
}

impl Handlers {
    /// What came since the cursor; without one nothing, and a cursor that stands here. `TOO_LARGE` for
    /// who is in more rooms than a cursor can name, `TOO_OLD` when not all that came is kept.
    pub async fn poll(&self, user: UserId, since: Option<&Cursor>) -> Result<Polled, Refusal> {
        for _ in 0..READINGS {
            let polled = self.poll_once(user, since).await?;
            if polled.items.is_empty() {
                return Ok(polled);
            }
            // Who was removed from a room while it was read might otherwise be told what came after it.
            let account = self.store().account(user).await.map_err(|error| error.refusal())?.ok_or_else(no_account)?;
            if account.membership == polled.account.membership {
                return Ok(Polled { account, ..polled });
            }
        }
        Err(Refusal::unavailable())
    }

    async fn poll_once(&self, user: UserId, since: Option<&Cursor>) -> Result<Polled, Refusal> {
        let found = self.store().membership_of(user).await.map_err(|error| error.refusal())?;
        let RoomsOf { account, rooms: states } = found.ok_or_else(no_account)?;
        if states.len() > limits::POLL_ROOMS {
            let words = format!("is for people in at most {} rooms: use sync on a socket", limits::POLL_ROOMS);
            return Err(Refusal::new(Code::TooLarge, format!("polling {words}")));
        }
        let polled = match since {
            Some(since) => self.poll_since(account, states, since).await,
            None => self.poll_start(account, states).await,
        };
        polled.map_err(|error| error.refusal())
    }

    async fn poll_start(&self, account: Account, states: Vec<RoomState>) -> Result<Polled, StoreError> {
        let rooms: Vec<RoomId> = states.iter().map(|state| state.room_id).collect();
        let until = self.marks_settled();
        let marks = self.store().reads_since(&rooms, until).await?;
        let positions: Vec<(RoomId, Rev)> = states.iter().map(|state| (state.room_id, state.rev)).collect();
        let (until, tags) = remember(&marks, until);
        Ok(Polled { items: Vec::new(), cursor: Cursor::new(until, &tags, &positions), complete: true, rooms, account })
    }

    async fn poll_since(&self, account: Account, states: Vec<RoomState>, since: &Cursor) -> Result<Polled, StoreError> {
        let user = account.id;
        let rooms: Vec<RoomId> = states.iter().map(|state| state.room_id).collect();
        let mut draft = Draft { items: Vec::new(), positions: Vec::new(), complete: true, budget: Budget::whole() };
        self.tell_departures(user, &rooms, since, &mut draft).await?;
        self.tell_events(user, &states, since, &mut draft).await?;
        let (until, tags) = self.tell_marks(&rooms, since, &mut draft).await?;
        let cursor = Cursor::new(until, &tags, &draft.positions);
        Ok(Polled { items: draft.items, cursor, complete: draft.complete, rooms, account })
    }

    /// Rooms that the cursor knows and the user is no member of any more: the one change that says so.
    async fn tell_departures(
        &self,
        user: UserId,
        rooms: &[RoomId],
        since: &Cursor,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let known = rooms.iter().filter(|room| since.rev_of(**room).is_some()).count();
        if known >= since.room_count() {
            return Ok(());
        }
        let rooms: HashSet<&RoomId> = rooms.iter().collect();
        let departures = self.store().departures(user, DEPARTURES).await?;
        let left = departures.iter().filter(|(room, _)| !rooms.contains(room) && since.rev_of(*room).is_some()).count();
        // Departures are kept as long as the changes that tell them.
        if departures.len() < DEPARTURES && known + left < since.room_count() {
            return Err(StoreError::TooOld);
        }
        for (room, rev) in departures {
            if rooms.contains(&room) || since.rev_of(room).is_none_or(|told| told >= rev) {
                continue;
            }
            let entries = self.store().after_rev(room, Rev(rev.0 - 1), 1).await?;
            let left = entries.into_iter().filter(|entry| is_departure_of(&entry.event, user));
            let left = left.map(|entry| RevEvent { rev: entry.rev.0, event: Some(entry.event.into()) });
            draft.items.extend(left);
        }
        draft.budget.spend(draft.items.len(), 0);
        Ok(())
    }

    async fn tell_events(
        &self,
        user: UserId,
        states: &[RoomState],
        since: &Cursor,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let mut behind = Vec::new();
        let mut new = Vec::new();
        for state in states {
            let (room, up_to) = (state.room_id, state.rev);
            match since.rev_of(room) {
                Some(after) if after < up_to => behind.push(Behind { room, after, up_to }),
                Some(_) => draft.positions.push((room, up_to)),
                None => new.push((room, up_to)),
            }
        }
        draft.complete &= new.len() <= NEW_ROOMS;
        let mut joined = HashSet::new();
        for (room, up_to) in new.into_iter().take(NEW_ROOMS) {
            // Who left again meanwhile is not told of the room at all.
            let Some(since) = self.store().joined_rev(room, user).await? else { continue };
            behind.push(Behind { room, after: Rev(since.0 - 1), up_to });
            joined.insert(room);
        }
        // Where little is missing comes first, so that a busy room keeps no other one waiting.
        behind.sort_by_key(|one| one.up_to.0 - one.after.0);
        let mut logged = self.logged(&behind).await;
        for one in behind {
            let events = self.events(one, &mut logged, &mut draft.budget).await?;
            let reached = events.last().map_or(one.after, |last| Rev(last.rev));
            draft.complete &= reached >= one.up_to;
            // A room of which nothing was told yet stays a new one.
            if reached > one.after || !joined.contains(&one.room) {
                draft.positions.push((one.room, reached));
            }
            draft.items.extend(events);
        }
        Ok(())
    }

    /// The read marks that moved, once everything before them was told; where to go on with them.
    async fn tell_marks(
        &self,
        rooms: &[RoomId],
        since: &Cursor,
        draft: &mut Draft,
    ) -> Result<(Timestamp, Vec<u32>), StoreError> {
        let from = since.marks_until.min(self.parts.clock.now());
        if !draft.complete || draft.budget.items < READS_SINCE_MOST {
            draft.complete = false;
            return Ok((from, since.marks().to_vec()));
        }
        let marks = self.store().reads_since(rooms, from).await?;
        let fresh = marks.iter().filter(|mark| !since.marks().contains(&tag(mark)));
        draft
            .items
            .extend(fresh.map(|mark| RevEvent { rev: 0, event: Some(EventData::MessageRead(mark.to_wire()).into()) }));
        let mut settled = self.marks_settled();
        if marks.len() >= READS_SINCE_MOST {
            draft.complete = false;
            settled = marks.last().map_or(settled, |last| settled.min(Timestamp(last.at.0 - 1)));
        }
        Ok(remember(&marks, settled.max(from)))
    }

    /// No mark of this moment or before can appear any more.
    fn marks_settled(&self) -> Timestamp {
        Timestamp(self.parts.clock.now().0 - MARKS_LAG.as_millis() as i64)
    }
}

fn no_account() -> Refusal {
    Refusal::unauthenticated("there is no such account")
}

/// The watermark, and the tags of those marks above it, ascending in time. When there are more than a
/// cursor holds, the watermark rises.
fn remember(marks: &[ReadMark], until: Timestamp) -> (Timestamp, Vec<u32>) {
    let above: Vec<&ReadMark> = marks.iter().filter(|mark| mark.at > until).collect();
    let until = match above.len().checked_sub(cursor::MARKS + 1) {
        Some(last) => above[last].at,
        None => until,
    };
    (until, above.into_iter().filter(|mark| mark.at > until).map(tag).collect())
}

fn tag(mark: &ReadMark) -> u32 {
    cursor::mark_tag(mark.room, mark.user, mark.seq)
}

fn is_departure_of(event: &EventData, user: UserId) -> bool {
    matches!(event, EventData::RoomMemberLeft(left) if left.user_id == user.to_string())
}

#[cfg(test)]
mod tests {
    use domain::Seq;
    use uuid::Uuid;

    use super::*;

    fn mark(at: i64) -> ReadMark {
        let (room, user) = (RoomId(Uuid::from_u128(1)), UserId(Uuid::from_u128(at as u128)));
        ReadMark { room, user, seq: Seq(1), at: Timestamp(at) }
    }

    #[test]
    fn marks_above_the_watermark_are_remembered_and_it_rises_when_they_are_many() {
        let marks: Vec<ReadMark> = (1..=100).map(mark).collect();
        assert_eq!(remember(&marks[..10], Timestamp(8)), (Timestamp(8), vec![tag(&marks[8]), tag(&marks[9])]));
        assert_eq!(remember(&marks, Timestamp(100)), (Timestamp(100), Vec::new()));
        let (until, tags) = remember(&marks, Timestamp(0));
        assert_eq!((until, tags.len()), (Timestamp(36), cursor::MARKS));
        assert_eq!(tags.first(), Some(&tag(&marks[36])));
    }
}
