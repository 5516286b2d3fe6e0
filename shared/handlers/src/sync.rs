//! Catching up: what came since a client's last position, and whether that is all of it.
//!
//! The invariant: an answer is bounded in items and bytes, and whoever is behind gets at least one.

use std::collections::{HashMap, HashSet};

use domain::{Rev, RoomId, Seq, UserId, limits};
use prost::Message as _;
use protocol::wire::{self, SyncedRoom};
use protocol::{Code, Refusal};
use store::StoreError;
use store::message::{MessageRow, Page};
use store::room::RoomState;
use telemetry::Counter;

use crate::Handlers;
use crate::timeline::{Behind, Budget, ITEM_BYTES, Logged};

/// Read marks told with one room, the latest; with each of very many rooms only a few.
const READ_MARKS: usize = 200;
const READ_MARKS_FEW: usize = 2;
/// Read marks of all rooms together, about.
const READ_MARKS_IN_ALL: usize = 500;
/// What a room takes in an answer without items and marks.
const ROOM_BYTES: usize = 144;
/// Left for items, however many rooms are asked for.
const LEAST_BYTES: usize = 16 * 1024;

/// Where a client stands in a room.
#[derive(Clone, Copy)]
enum Position {
    Seq(Seq),
    Rev(Rev),
}

/// What the answer may still hold.
struct Answer {
    budget: Budget,
    reads: HashMap<RoomId, Vec<(UserId, Seq)>>,
}

impl Handlers {
    /// Answers a `sync`: for each room, in the order first asked, its changes, or `NOT_FOUND`, or
    /// `TOO_OLD` when not all that came since is kept. When
    /// the answer is full, the rooms that are left are not `complete`.
    pub async fn sync(&self, user: UserId, sync: wire::Sync) -> Result<wire::SyncResult, Refusal> {
        if sync.rooms.len() > limits::SYNC_ROOMS {
            Counter::Limited.inc_with("sync_rooms");
            return Err(Refusal::invalid("rooms", format!("must be at most {}", limits::SYNC_ROOMS)));
        }
        let asked = read_positions(&sync.rooms)?;
        let ids: Vec<RoomId> = asked.iter().map(|(room, _)| *room).collect();
        let states = self.store().room_states(user, &ids).await.map_err(|error| error.refusal())?;
        let states: HashMap<RoomId, RoomState> = states.into_iter().map(|state| (state.room_id, state)).collect();

        let mut logged = self.logged(&behind(&asked, &states)).await;
        let bytes = limits::ANSWER_BYTES.saturating_sub(asked.len() * ROOM_BYTES).max(LEAST_BYTES);
        let budget = Budget { bytes, ..Budget::whole() };
        let known: Vec<RoomId> = states.keys().copied().collect();
        let marks = (READ_MARKS_IN_ALL / known.len().max(1)).clamp(READ_MARKS_FEW, READ_MARKS);
        let reads = self.store().reads_of(&known, marks).await.map_err(|error| error.refusal())?;
        let mut answer = Answer { budget, reads };
        let mut rooms = Vec::with_capacity(asked.len());
        for (room, position) in asked {
            rooms.push(if let Some(state) = states.get(&room) {
                let synced = self.sync_room(state, position, &mut logged, &mut answer).await;
                synced.map_err(|error| error.refusal())?
            } else {
                not_found(room.to_string())
            });
        }
        self.without_lost_rooms(user, &ids, &mut rooms).await?;
        Ok(wire::SyncResult { rooms })
    }

    /// Who was removed from a room while it was read might otherwise be told what came after it.
    async fn without_lost_rooms(
        &self,
        user: UserId,
        asked: &[RoomId],
        rooms: &mut [SyncedRoom],
    ) -> Result<(), Refusal> {
        if rooms.iter().all(|room| room.messages.is_empty() && room.events.is_empty()) {
            return Ok(());
        }
        let states = self.store().room_states(user, asked).await.map_err(|error| error.refusal())?;
        let left: HashSet<String> = states.iter().map(|state| state.room_id.to_string()).collect();
        for room in rooms.iter_mut().filter(|room| !left.contains(&room.room_id)) {
            *room = not_found(std::mem::take(&mut room.room_id));
        }
        Ok(())
    }

    async fn sync_room(
        &self,
        state: &RoomState,
        position: Position,
        logged: &mut Logged,
        answer: &mut Answer,
    ) -> Result<SyncedRoom, StoreError> {
        let mut synced = SyncedRoom {
            room_id: state.room_id.to_string(),
            last_seq: state.last_seq.0,
            rev: state.rev.0,
            by_rev: matches!(position, Position::Rev(_)),
            ..SyncedRoom::default()
        };
        match position {
            Position::Seq(after) if after < state.last_seq => {
                self.sync_messages(state, after, &mut answer.budget, &mut synced).await?;
            }
            Position::Rev(after) if after < state.rev => {
                let behind = Behind { room: state.room_id, after, up_to: state.rev };
                synced.events = match self.events(behind, logged, &mut answer.budget).await {
                    // Only a part could be told: none is.
                    Err(StoreError::TooOld) => {
                        return Ok(SyncedRoom { code: Some(Code::TooOld.as_str().to_owned()), ..synced });
                    }
                    events => events?,
                };
                synced.complete = synced.events.last().is_some_and(|last| last.rev >= state.rev.0);
            }
            _ => synced.complete = true,
        }
        let reads = answer.reads.remove(&state.room_id).unwrap_or_default();
        synced.reads =
            reads.into_iter().map(|(user, seq)| wire::ReadMark { user_id: user.to_string(), seq: seq.0 }).collect();
        Ok(synced)
    }

    async fn sync_messages(
        &self,
        state: &RoomState,
        after: Seq,
        budget: &mut Budget,
        synced: &mut SyncedRoom,
    ) -> Result<(), StoreError> {
        if budget.is_spent() {
            return Ok(());
        }
        let limit = limits::SYNC_ITEMS_PER_ROOM.min(budget.items);
        let rows = self.store().history_within(state.room_id, Page::After(after), limit, budget.bytes).await?;
        if let Some(last) = rows.last() {
            // What was stored between the two readings is in the answer, so the answer says so.
            synced.last_seq = synced.last_seq.max(last.seq.0);
            synced.rev = synced.rev.max(last.rev.0);
            synced.complete = last.seq >= state.last_seq;
        }
        synced.messages = rows.iter().map(MessageRow::to_wire).collect();
        let bytes = synced.messages.iter().map(|message| message.encoded_len() + ITEM_BYTES).sum();
        budget.spend(synced.messages.len(), bytes);
        Ok(())
    }
}

/// The rooms asked for by rev that are behind.
fn behind(asked: &[(RoomId, Position)], states: &HashMap<RoomId, RoomState>) -> Vec<Behind> {
    let one = |(room, position): &(RoomId, Position)| match (position, states.get(room)) {
        (Position::Rev(after), Some(state)) => Some(Behind { room: *room, after: *after, up_to: state.rev }),
        _ => None,
    };
    asked.iter().filter_map(one).collect()
}

fn not_found(room_id: String) -> SyncedRoom {
    SyncedRoom { room_id, code: Some(Code::NotFound.as_str().to_owned()), ..SyncedRoom::default() }
}

/// The rooms in the order first asked. One that is asked for twice is answered once, from the first
/// position.
fn read_positions(asked: &[wire::SyncRoom]) -> Result<Vec<(RoomId, Position)>, Refusal> {
    let mut positions = Vec::with_capacity(asked.len());
    let mut seen = HashSet::new();
    for room in asked {
        let (room, position) = read_position(room)?;
        if seen.insert(room) {
            positions.push((room, position));
        }
    }
    Ok(positions)
}

fn read_position(asked: &wire::SyncRoom) -> Result<(RoomId, Position), Refusal> {
    let room = RoomId::parse("rooms.roomId", &asked.room_id)?;
    match (asked.after_seq, asked.after_rev) {
        (Some(seq), None) if seq >= 0 => Ok((room, Position::Seq(Seq(seq)))),
        (None, Some(rev)) if rev >= 0 => Ok((room, Position::Rev(Rev(rev)))),
        (Some(_), None) => Err(Refusal::invalid("rooms.afterSeq", "must not be negative")),
        (None, Some(_)) => Err(Refusal::invalid("rooms.afterRev", "must not be negative")),
        _ => Err(Refusal::invalid("rooms.afterSeq", "or afterRev is required, one of the two")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_asked_for_twice_is_read_once() {
        let asked = |room: u128, after_seq| wire::SyncRoom {
            room_id: uuid::Uuid::from_u128(room).to_string(),
            after_seq: Some(after_seq),
            after_rev: None,
        };
        let positions = read_positions(&[asked(2, 5), asked(1, 0), asked(2, 0)]).expect("positions");
        let rooms: Vec<u128> = positions.iter().map(|(room, _)| room.0.as_u128()).collect();
        assert_eq!(rooms, [2, 1]);
        assert!(matches!(positions[0].1, Position::Seq(Seq(5))));
    }

    #[test]
    fn a_position_is_a_seq_or_a_rev() {
        let room_id = "00000000-0000-4000-8000-000000000001".to_owned();
        let asked = |after_seq, after_rev| wire::SyncRoom { room_id: room_id.clone(), after_seq, after_rev };
        assert!(read_position(&asked(Some(0), None)).is_ok());
        assert!(read_position(&asked(None, Some(3))).is_ok());
        for (seq, rev) in [(None, None), (Some(1), Some(1)), (Some(-1), None), (None, Some(-1))] {
            assert!(read_position(&asked(seq, rev)).is_err());
        }
    }
}
