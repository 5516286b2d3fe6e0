//! Who plays: which user each connection is, in which rooms, under which token.
//!
//! Everything is a function of the arguments, as with `chatchit seed`, so nothing has to be read from the
//! server. Knows no connection. The invariant: the same arguments name the same people and rooms.

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{RoomId, UserId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;
use uuid::Uuid;

use crate::book::now_us;

/// How long a token lives, seconds.
const TOKEN_LIFE_S: u64 = 24 * 60 * 60;

/// By which rule ids are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Naming {
    /// As `chatchit seed --prefix` makes them.
    Seeded { prefix: String },
    /// As the peers' tables have them: the ids say how many members a room has.
    Peer,
}

/// The people and rooms of a run.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    pub(crate) naming: Naming,
    /// How many users there are.
    pub(crate) users: u32,
    /// How many rooms there are.
    pub(crate) rooms: u32,
    /// How many members each of them has.
    pub(crate) members: u32,
    /// The first user of this run, from 0.
    pub(crate) first: u32,
    /// Connections of this run; of each user one.
    pub(crate) connections: u32,
    /// What tokens are signed with.
    pub(crate) secret: String,
}

impl Cast {
    /// That the numbers fit together.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.connections > 0, "there has to be a connection");
        let last = u64::from(self.first) + u64::from(self.connections);
        ensure!(last <= u64::from(self.users), "there are only {} users", self.users);
        ensure!(self.rooms == 0 || self.members <= self.users, "a room cannot have more members than there are users");
        ensure!(self.rooms == 0 || self.members > 0, "a room has members");
        ensure!(
            self.naming != Naming::Peer || self.rooms_per_user() <= 1,
            "with the peers each user is in one room: users = rooms * members"
        );
        Ok(())
    }

    /// The most rooms that one user is in.
    pub(crate) fn rooms_per_user(&self) -> u32 {
        let seats = u64::from(self.rooms) * u64::from(self.members);
        seats.div_ceil(u64::from(self.users.max(1))) as u32
    }

    /// The user of a connection (from 0).
    pub(crate) fn user(&self, connection: u32) -> Uuid {
        let number = u64::from(self.first + connection);
        match &self.naming {
            Naming::Seeded { prefix } => UserId::seeded(prefix, number + 1).0,
            Naming::Peer => peer_id(self.members, 0x8000, number),
        }
    }

    /// A room's id, rooms from 0.
    pub(crate) fn room(&self, room: u32) -> Uuid {
        match &self.naming {
            Naming::Seeded { prefix } => RoomId::seeded(prefix, u64::from(room) + 1).0,
            Naming::Peer => peer_id(self.members, 0x9000, room.into()),
        }
    }

    /// The rooms that a connection's user is in.
    pub(crate) fn rooms_of(&self, connection: u32) -> impl Iterator<Item = u32> + '_ {
        let user = u64::from(self.first + connection);
        let seats = u64::from(self.rooms) * u64::from(self.members);
        let members = u64::from(self.members.max(1));
        (user..seats).step_by(self.users.max(1) as usize).map(move |seat| (seat / members) as u32)
    }

    /// How many connections of this run are in a room.
    pub(crate) fn listeners(&self, room: u32) -> u32 {
        let seats = u64::from(room) * u64::from(self.members)..u64::from(room + 1) * u64::from(self.members);
        let users = u64::from(self.users.max(1));
        let ours = u64::from(self.first)..u64::from(self.first) + u64::from(self.connections);
        seats.filter(|seat| ours.contains(&(seat % users))).count() as u32
    }

    /// An access token of a connection's user.
    pub(crate) fn token(&self, connection: u32) -> String {
        let now = now_us() / 1_000_000;
        let claims = json!({"sub": self.user(connection), "iat": now, "exp": now + TOKEN_LIFE_S});
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(&claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("any length is a key");
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

fn peer_id(members: u32, kind: u16, number: u64) -> Uuid {
    let number = number.to_be_bytes();
    let kind = kind.to_be_bytes();
    let tail = [kind[0], kind[1], number[2], number[3], number[4], number[5], number[6], number[7]];
    Uuid::from_fields(members << 16, 0, 0x4000, &tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(users: u32, rooms: u32, members: u32) -> Cast {
        let naming = Naming::Seeded { prefix: "user".to_owned() };
        Cast { naming, users, rooms, members, first: 0, connections: users, secret: "secret".to_owned() }
    }

    #[test]
    fn rooms_and_listeners_are_two_sides_of_the_same() {
        for (users, rooms, members) in [(10, 5, 4), (12, 3, 4), (7, 7, 3), (1000, 1, 1000)] {
            let cast = Cast { first: 1, connections: users - 1, ..cast(users, rooms, members) };
            for room in 0..rooms {
                let inside = (0..cast.connections).filter(|it| cast.rooms_of(*it).any(|its| its == room)).count();
                assert_eq!(inside as u32, cast.listeners(room), "{users} {rooms} {members} {room}");
            }
            assert!((0..cast.connections).all(|it| cast.rooms_of(it).count() as u32 <= cast.rooms_per_user()));
        }
    }

    #[test]
    fn peers_know_their_people_by_number() {
        let cast = Cast { naming: Naming::Peer, ..cast(1000, 100, 10) };
        assert_eq!(cast.user(25).to_string(), "000a0000-0000-4000-8000-000000000019");
        assert_eq!(cast.room(2).to_string(), "000a0000-0000-4000-9000-000000000002");
        assert_eq!(cast.rooms_of(25).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn more_connections_than_users_are_refused() {
        assert!(Cast { first: 1, ..cast(10, 1, 10) }.check().is_err());
        assert!(cast(10, 1, 11).check().is_err());
        assert!(Cast { naming: Naming::Peer, ..cast(10, 2, 10) }.check().is_err());
        assert!(cast(10, 1, 10).check().is_ok());
    }
}
