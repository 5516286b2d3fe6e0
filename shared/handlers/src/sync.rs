//! Catching up: what came since a client's last position, and whether that is all of it.

use std::collections::HashMap;

use domain::{Rev, RoomId, Seq, UserId, limits};
use protocol::wire::{self, RevEvent, SyncedRoom};
use protocol::{Code, Refusal};
use store::room::RoomState;

use crate::{Handlers, store_refusal};

/// Read marks told with one room.
const READ_MARKS: usize = 200;

/// Where a client stands in a room.
enum Position {
    Seq(Seq),
    Rev(Rev),
}

impl Handlers {
    /// Answers a `sync`: for each room, in the order asked, its changes or `NOT_FOUND`.
    pub async fn sync(&self, user: UserId, sync: wire::Sync) -> Result<wire::SyncResult, Refusal> {
        if sync.rooms.len() > limits::SYNC_ROOMS {
            return Err(Refusal::invalid("rooms", format!("must be at most {}", limits::SYNC_ROOMS)));
        }
        let asked: Vec<(RoomId, Position)> = sync.rooms.iter().map(read_position).collect::<Result<_, _>>()?;
        let ids: Vec<RoomId> = asked.iter().map(|(room, _)| *room).collect();
        let states = self.store().room_states(user, &ids).await.map_err(|error| store_refusal(&error))?;
        let states: HashMap<RoomId, RoomState> = states.into_iter().map(|state| (state.room_id, state)).collect();

        let mut budget = limits::SYNC_ITEMS;
        let mut rooms = Vec::with_capacity(asked.len());
        for (room, position) in asked {
            rooms.push(if let Some(state) = states.get(&room) {
                self.sync_room(state, position, &mut budget).await?
            } else {
                let code = Some(Code::NotFound.as_str().to_owned());
                SyncedRoom { room_id: room.to_string(), code, ..SyncedRoom::default() }
            });
        }
        Ok(wire::SyncResult { rooms })
    }

    async fn sync_room(
        &self,
        state: &RoomState,
        position: Position,
        budget: &mut usize,
    ) -> Result<SyncedRoom, Refusal> {
        let room = state.room_id;
        let limit = limits::SYNC_ITEMS_PER_ROOM.min(*budget);
        let mut synced = SyncedRoom {
            room_id: room.to_string(),
            last_seq: state.last_seq.0,
            rev: state.rev.0,
            ..SyncedRoom::default()
        };
        match position {
            Position::Seq(after) => {
                let rows = self.store().after_seq(room, after, limit).await.map_err(|error| store_refusal(&error))?;
                let reached = rows.last().map_or(after, |row| row.seq);
                synced.complete = reached >= state.last_seq;
                // What was stored between the two readings is in the answer, so the answer says so.
                synced.last_seq = rows.last().map_or(synced.last_seq, |row| synced.last_seq.max(row.seq.0));
                synced.rev = rows.last().map_or(synced.rev, |row| synced.rev.max(row.rev.0));
                synced.messages = rows.iter().map(store::message::MessageRow::to_wire).collect();
                *budget -= synced.messages.len();
            }
            Position::Rev(after) => {
                let entries =
                    self.store().after_rev(room, after, limit).await.map_err(|error| store_refusal(&error))?;
                let reached = entries.last().map_or(after, |entry| entry.rev);
                synced.by_rev = true;
                synced.complete = reached >= state.rev;
                synced.rev = entries.last().map_or(synced.rev, |entry| synced.rev.max(entry.rev.0));
                synced.events = entries
                    .into_iter()
                    .map(|entry| RevEvent { rev: entry.rev.0, event: Some(entry.event.into()) })
                    .collect();
                *budget -= synced.events.len();
            }
        }
        let reads = self.store().reads(room, READ_MARKS).await.map_err(|error| store_refusal(&error))?;
        synced.reads =
            reads.into_iter().map(|(user, seq)| wire::ReadMark { user_id: user.to_string(), seq: seq.0 }).collect();
        Ok(synced)
    }
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
