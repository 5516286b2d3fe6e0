//! What sessions take up in memory: as many as one asks for, over sockets made of memory.
//!
//! What the kernel and the runtime's tasks take up is not in it; `loadgen idle` measures that. The invariant: what
//! is counted is what is held when the sessions have nothing to do, before and after each was told something.

use std::alloc::System;

use domain::RoomId;
use gateway::Dialect;
use protocol::{Channel, delivery};
use realtime::LogNumber;
use stats_alloc::StatsAlloc;
use uuid::Uuid;

use crate::data::{self, BEGINNING, ROOM};
use crate::paths::{House, keys};

/// Each session is in so many rooms,
const ROOMS: usize = 5;
/// each of which has so many sessions.
const MEMBERS: usize = 10;

/// Bytes of the heap for each session.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// With nothing said yet.
    pub fresh: usize,
    /// After each was told a message in each room.
    pub used: usize,
}

/// Opens so many sessions of that dialect.
pub fn measure(sessions: usize, dialect: Dialect, allocator: &StatsAlloc<System>) -> Held {
    let mut house = House::new();
    house.enter(data::member(0), dialect, &rooms_of(0));
    let before = held(allocator);
    for number in 1..=sessions {
        house.enter(data::member(number), dialect, &rooms_of(number));
    }
    house.step_all();
    let fresh = held(allocator) - before;
    let rooms = (sessions / MEMBERS + 1) * ROOMS;
    for index in 0..rooms {
        let channel = Channel::Room(room(index));
        let told = data::told_in(room(index), BEGINNING + 1);
        house.bench.take(channel, LogNumber(BEGINNING + 1 + index as u64), &delivery::seal(channel, &told, &keys()));
    }
    house.step_all();
    let told = house.pipes.iter().filter(|pipe| pipe.drained(data::OPENING)).count();
    assert_eq!(told, house.pipes.len(), "so many were told");
    Held { fresh: fresh / sessions, used: (held(allocator) - before) / sessions }
}

fn held(allocator: &StatsAlloc<System>) -> usize {
    let stats = allocator.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn rooms_of(session: usize) -> Vec<RoomId> {
    (0..ROOMS).map(|number| room(session / MEMBERS * ROOMS + number)).collect()
}

fn room(index: usize) -> RoomId {
    RoomId(Uuid::from_u128(ROOM.0.as_u128() + ((index as u128) << 16)))
}
