//! Who types in which room: so that it ends by itself, and is not told more often than it helps.
//!
//! Pure: time comes in. The invariant: whoever was told that somebody types is told within
//! [`TYPING_MS`] and a sweep that it is over, whatever becomes of the typer and its gateway; and
//! rooms in which nobody types cost nothing.

use std::collections::HashMap;

use domain::{RoomId, UserId};
use parking_lot::{Mutex, MutexGuard};
use protocol::{EventData, OpenedDelivery, wire};
use telemetry::Counter;

use super::user::shard_of;
use crate::codec::Delivered;

/// So long somebody types without saying so again.
const TYPING_MS: u64 = 6_000;
/// Going on typing is told again after so long; a client that joined meanwhile learns of it then.
const AGAIN_MS: u64 = 3_000;
/// People who may type in one room; of more it is not told.
pub(super) const PER_ROOM: usize = 32;
/// The same in a crowd.
pub(super) const PER_CROWD: usize = 3;
/// Rooms with typers of one shard; in more it is not told.
const ROOMS: usize = 4096;
const SHARDS: usize = 16;

#[derive(Debug)]
struct Typer {
    user: UserId,
    until_ms: u64,
    again_ms: u64,
}

type Typers = HashMap<RoomId, Vec<Typer>>;

/// Who types.
pub(crate) struct Typing {
    shards: Box<[Mutex<Typers>]>,
}

impl Typing {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, room: RoomId) -> MutexGuard<'_, Typers> {
        self.shards[shard_of(room.as_bytes(), SHARDS)].lock()
    }

    /// Notes what came for a room of which at most `most` may type. False: the room need not be told.
    pub(super) fn is_news(&self, room: RoomId, event: &EventData, most: usize, now_ms: u64) -> bool {
        let EventData::Typing(typing) = event else { return true };
        let Ok(user) = typing.user_id.parse() else { return false };
        let is_news = if typing.is_typing { self.begin(room, user, most, now_ms) } else { self.end(room, user) };
        if !is_news {
            Counter::TypingCoalesced.inc();
        }
        is_news
    }

    /// True if it would be told that this person types, or stopped.
    pub(super) fn has_place(&self, room: RoomId, user: UserId, most: usize) -> bool {
        let shard = self.shard(room);
        shard.get(&room).is_none_or(|typers| typers.len() < most || typers.iter().any(|typer| typer.user == user))
    }

    fn begin(&self, room: RoomId, user: UserId, most: usize, now_ms: u64) -> bool {
        let mut shard = self.shard(room);
        if shard.len() >= ROOMS && !shard.contains_key(&room) {
            return false;
        }
        let typers = shard.entry(room).or_default();
        let until_ms = now_ms + TYPING_MS;
        let again_ms = now_ms + AGAIN_MS;
        if let Some(typer) = typers.iter_mut().find(|typer| typer.user == user) {
            typer.until_ms = until_ms;
            let is_due = typer.again_ms <= now_ms;
            if is_due {
                typer.again_ms = again_ms;
            }
            return is_due;
        }
        let has_room = typers.len() < most;
        if has_room {
            typers.push(Typer { user, until_ms, again_ms });
        }
        has_room
    }

    /// Somebody has stopped. False: nobody thinks otherwise.
    fn end(&self, room: RoomId, user: UserId) -> bool {
        let mut shard = self.shard(room);
        let Some(typers) = shard.get_mut(&room) else { return false };
        let Some(at) = typers.iter().position(|typer| typer.user == user) else { return false };
        typers.swap_remove(at);
        if typers.is_empty() {
            shard.remove(&room);
        }
        true
    }

    /// The end of somebody's typing that follows from something else: who has said it, or has left,
    /// does not type. To be told before what it follows from.
    pub(super) fn ended_by(&self, room: RoomId, event: &EventData) -> Option<Delivered> {
        let user = match event {
            EventData::MessageDelivered(message) => &message.sender_id,
            EventData::RoomMemberLeft(left) => &left.user_id,
            _ => return None,
        };
        if self.shard(room).is_empty() {
            return None;
        }
        let user = user.parse().ok()?;
        self.end(room, user).then(|| stopped(room, user))
    }

    /// Whose typing is over because nobody said so again.
    pub(super) fn expired(&self, now_ms: u64) -> Vec<(RoomId, Delivered)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.is_empty() {
                continue;
            }
            shard.retain(|room, typers| {
                for typer in typers.extract_if(.., |typer| typer.until_ms <= now_ms) {
                    all.push((*room, stopped(*room, typer.user)));
                }
                !typers.is_empty()
            });
            if shard.is_empty() {
                *shard = HashMap::new();
            }
        }
        all
    }
}

fn stopped(room: RoomId, user: UserId) -> Delivered {
    let typing = wire::Typing { room_id: room.to_string(), user_id: user.to_string(), is_typing: false };
    let event = EventData::Typing(typing);
    Delivered::new(OpenedDelivery { except: Some(user), ..OpenedDelivery::passing(event) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ROOM: RoomId = RoomId(Uuid::from_u128(7));
    const ANN: UserId = UserId(Uuid::from_u128(1));

    fn says(user: UserId, is_typing: bool) -> EventData {
        EventData::Typing(wire::Typing { room_id: ROOM.to_string(), user_id: user.to_string(), is_typing })
    }

    fn ends(typing: &Typing, now_ms: u64) -> usize {
        typing.expired(now_ms).len()
    }

    #[test]
    fn typing_ends_by_itself_once_and_only_if_nobody_renews_it() {
        let typing = Typing::new();
        assert!(typing.is_news(ROOM, &says(ANN, true), PER_ROOM, 0));
        typing.is_news(ROOM, &says(ANN, true), PER_ROOM, 4_000);
        assert_eq!(ends(&typing, 9_999), 0);
        assert_eq!(ends(&typing, 10_000), 1);
        assert_eq!(ends(&typing, 20_000), 0);
        assert!(typing.shards.iter().all(|shard| shard.lock().capacity() == 0), "nobody types: no memory");
    }

    #[test]
    fn going_on_is_told_every_three_seconds_and_an_end_once() {
        let typing = Typing::new();
        let told: Vec<u64> = (0..10)
            .map(|second| second * 1000)
            .filter(|now_ms| typing.is_news(ROOM, &says(ANN, true), PER_ROOM, *now_ms))
            .collect();
        assert_eq!(told, [0, 3_000, 6_000, 9_000]);
        assert!(typing.is_news(ROOM, &says(ANN, false), PER_ROOM, 9_500));
        assert!(!typing.is_news(ROOM, &says(ANN, false), PER_ROOM, 9_600));
        assert!(typing.is_news(ROOM, &says(ANN, true), PER_ROOM, 9_700), "begun anew");
    }

    #[test]
    fn a_message_or_leaving_ends_the_typing_of_its_person_only() {
        let typing = Typing::new();
        let message = |user: UserId| {
            EventData::MessageDelivered(wire::MessageDelivered { sender_id: user.to_string(), ..Default::default() })
        };
        let bob = UserId(Uuid::from_u128(2));
        typing.is_news(ROOM, &says(ANN, true), PER_ROOM, 0);
        assert!(typing.ended_by(ROOM, &message(bob)).is_none());
        let ended = typing.ended_by(ROOM, &message(ANN)).expect("she typed");
        assert!(matches!(&ended.event, EventData::Typing(typing) if !typing.is_typing));
        assert!(typing.ended_by(ROOM, &message(ANN)).is_none(), "told already");
        typing.is_news(ROOM, &says(bob, true), PER_ROOM, 0);
        let left = wire::RoomMemberLeft { user_id: bob.to_string(), ..Default::default() };
        assert!(typing.ended_by(ROOM, &EventData::RoomMemberLeft(left)).is_some());
    }

    #[test]
    fn the_number_of_typers_is_bounded() {
        let typing = Typing::new();
        let people = |number| UserId(Uuid::from_u128(number));
        let told = (0..1000).filter(|number| typing.is_news(ROOM, &says(people(*number), true), PER_ROOM, 0)).count();
        assert_eq!(told, PER_ROOM);
        assert!(!typing.is_news(ROOM, &says(people(999), false), PER_ROOM, 0), "nobody was told that it began");
        assert_eq!(ends(&typing, TYPING_MS), PER_ROOM);
    }
}
