//! The people of a run, their rooms, and what they share.
//!
//! Knows no fault. The invariant: everything in it follows from the seed, so two runs of one seed
//! have the same people in the same rooms.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use serde_json::json;
use testkit::cluster::{Node, System};
use uuid::Uuid;

use crate::history::{RunClock, Sender};

/// What comes after the faults takes less.
const AFTERWARDS_S: i64 = 3_600;

/// Somebody.
#[derive(Debug)]
pub struct User {
    /// The user's id.
    pub id: String,
    /// An access token that outlives the run.
    pub token: String,
    /// The numbers of the rooms the user begins in.
    pub rooms: Vec<usize>,
}

/// A group.
#[derive(Debug)]
pub struct Room {
    /// The room's id.
    pub id: String,
    /// The numbers of its first members, the owner excluded.
    pub members: Vec<usize>,
    /// The one of them who is removed and added again and again.
    pub guest: Option<usize>,
}

/// What all who take part share.
pub struct World {
    /// When it began.
    pub clock: RunClock,
    /// Those who connect.
    pub users: Vec<User>,
    /// The groups; the first one has everybody.
    pub rooms: Vec<Room>,
    /// Owner of all groups, who uses REST only.
    pub owner: User,
    /// What each user asked for; one more, the owner's.
    pub senders: Vec<Mutex<Sender>>,
    /// Where clients find gateways: `http://host:port`.
    pub gateways: Vec<String>,
    /// Where clients find the REST api.
    pub api: String,
    /// New things may be asked for.
    pub is_talking: AtomicBool,
    /// Stewards who have begun something and not ended it.
    pub stewards: AtomicUsize,
    /// Devices that are connected and caught up.
    pub up: AtomicUsize,
    /// Numbers of connections.
    connections: AtomicU64,
}

/// How many there are of what.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Scale {
    /// Users who connect; about half of them with two devices.
    pub users: usize,
    /// Groups beside the one with everybody.
    pub rooms: usize,
    /// Members of each of them.
    pub members: usize,
}

impl World {
    /// Makes people and rooms and imports them into the system.
    pub async fn make(system: &System, scale: Scale, seed: u64, length: Duration) -> anyhow::Result<Self> {
        let lifetime_s = length.as_secs() as i64 + AFTERWARDS_S;
        let mut world = Self::imagine(scale, seed, |id| system.token_lasting(id, lifetime_s));
        world.gateways = system.gateways().iter().map(Node::clients_url).collect();
        world.api = system.api().clients_url();
        world.import(system).await?;
        Ok(world)
    }

    /// True when one program is gateway and api.
    pub fn is_all_in_one(&self) -> bool {
        self.gateways.contains(&self.api)
    }

    /// The people and rooms of a seed, which nobody else knows yet.
    pub fn imagine(scale: Scale, seed: u64, token: impl Fn(&str) -> String) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut id = || Uuid::from_u128(rng.random()).to_string();
        let ids: Vec<String> = (0..=scale.users).map(|_| id()).collect();
        let room_ids: Vec<String> = (0..=scale.rooms).map(|_| id()).collect();
        let rooms = rooms(room_ids, scale, &mut rng);
        let user = |number: usize| User {
            id: ids[number].clone(),
            token: token(&ids[number]),
            rooms: (0..rooms.len()).filter(|room| rooms[*room].members.contains(&number)).collect(),
        };
        let users: Vec<User> = (0..scale.users).map(user).collect();
        let owner = User { rooms: (0..rooms.len()).collect(), ..user(scale.users) };
        Self {
            clock: RunClock::start(),
            senders: (0..=scale.users).map(|_| Mutex::default()).collect(),
            gateways: Vec::new(),
            api: String::new(),
            is_talking: AtomicBool::new(true),
            stewards: AtomicUsize::new(0),
            up: AtomicUsize::new(0),
            connections: AtomicU64::new(1),
            users,
            rooms,
            owner,
        }
    }

    async fn import(&self, system: &System) -> anyhow::Result<()> {
        let mut lines = String::new();
        for user in self.users.iter().chain([&self.owner]) {
            writeln!(lines, "{}", json!({"user": {"id": user.id}}))?;
        }
        for room in &self.rooms {
            let members = room.members.iter().map(|member| self.users[*member].id.as_str());
            let members: Vec<&str> = std::iter::once(self.owner.id.as_str()).chain(members).collect();
            writeln!(lines, "{}", json!({"room": {"id": room.id, "memberIds": members}}))?;
        }
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), lines)?;
        let path = file.path().to_str().context("a path of text")?;
        let (status, _, complaint) = system.spec("chatchit", 0).run(&["import", path]).await;
        ensure!(status.success(), "import failed: {complaint}");
        Ok(())
    }

    /// The number of a room by its id.
    pub fn room(&self, id: &str) -> Option<usize> {
        self.rooms.iter().position(|room| room.id == id)
    }

    /// True when that user is the one who is removed from a room and added again.
    pub fn is_guest(&self, room: usize, user: usize) -> bool {
        self.rooms[room].guest == Some(user)
    }

    /// The number of the owner in `senders`.
    pub fn owner_number(&self) -> usize {
        self.users.len()
    }

    /// The user's id by number, the owner's included.
    pub fn user_id(&self, number: usize) -> &str {
        self.users.get(number).map_or(&self.owner.id, |user| &user.id)
    }

    /// A number for a new connection.
    pub fn new_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Messages that somebody still has in hand.
    pub fn in_hand(&self) -> usize {
        self.senders.iter().map(|sender| sender.lock().in_hand).sum()
    }
}

fn rooms(ids: Vec<String>, scale: Scale, rng: &mut StdRng) -> Vec<Room> {
    let mut everybody: Vec<usize> = (0..scale.users).collect();
    let mut rooms = Vec::with_capacity(ids.len());
    for id in ids {
        if rooms.is_empty() {
            rooms.push(Room { id, members: everybody.clone(), guest: None });
            continue;
        }
        everybody.shuffle(rng);
        let mut members = everybody[..scale.members.min(scale.users)].to_vec();
        members.sort_unstable();
        let guest = members.choose(rng).copied();
        rooms.push(Room { id, members, guest });
    }
    rooms
}
