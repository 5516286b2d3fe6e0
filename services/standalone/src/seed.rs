//! `seed`: users and rooms that are a function of the arguments.
//!
//! User `n` (from 1) is `PREFIX-n@example.com`; room `r` (from 1) has the `M` users that follow on
//! those of the room before, from the first again after the last. So every user is in as many rooms
//! as any other, give or take one. The first member of a room is its owner. With `--pairs` users 1 and 2, 3
//! and 4, and so on, have a direct conversation besides. With `--messages` the rooms have a history.

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use config::Settings;
use domain::room::RoomKind;
use domain::user::check_password;
use domain::{RoomId, UserId};
use engine::service::block_on;

use crate::apply::apply;
use crate::history::History;
use crate::line::{RoomLine, UserLine};
use crate::say::{refuse, summary};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many users.
    #[arg(long)]
    users: u32,
    /// How many rooms.
    #[arg(long, default_value_t = 0)]
    rooms: u32,
    /// How many members each room has; at most as many as there are users.
    #[arg(long, default_value_t = 0)]
    members: u32,
    /// Users 1 and 2, 3 and 4, and so on, have a direct conversation each.
    #[arg(long)]
    pairs: bool,
    /// How many messages there are in all rooms together, spread evenly.
    #[arg(long, default_value_t = 0)]
    messages: u64,
    /// What the addresses and ids are made from: up to 40 lower-case letters, digits, `-` and `_`.
    #[arg(long, default_value = "user")]
    prefix: String,
    /// The password of every user; without it they cannot log in, but tokens for them work.
    #[arg(long)]
    password: Option<String>,
}

/// Seeds and prints; exit code 2 for arguments that make no sense.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> ExitCode {
    if let Err(reason) = arguments.check() {
        return refuse(&reason);
    }
    block_on(settings, async {
        let started = Instant::now();
        let store = engine::open_store(settings).await?;
        let (users, rooms) = (arguments.user_lines(), arguments.room_lines());
        let new = apply(&store, &users, &rooms).await?;
        let said = History::new(&rooms, arguments.messages).store(&store).await?;
        store.close().await;
        match print(&users, &rooms) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            printed => printed?,
        }
        let (users, rooms, seconds) = (users.len(), rooms.len(), started.elapsed().as_secs_f64());
        let history = if arguments.messages > 0 { format!(", {said} messages in them new") } else { String::new() };
        summary(&format!(
            "seeded {users} users ({} new) and {rooms} rooms ({} new){history} in {seconds:.1} s",
            new.users, new.rooms
        ));
        Ok(())
    })
}

impl Arguments {
    fn check(&self) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if !(1..=40).contains(&self.prefix.len()) || !self.prefix.bytes().all(plain) {
            return Err("--prefix must be 1 to 40 lower-case letters, digits, '-' or '_'".to_owned());
        }
        if self.rooms > 0 && !(1..=self.users).contains(&self.members) {
            return Err("--members must be from 1 to the number of users".to_owned());
        }
        if self.messages > 0 && self.rooms == 0 && !self.pairs {
            return Err("--messages needs --rooms or --pairs: somewhere to be".to_owned());
        }
        self.password.as_deref().map_or(Ok(()), check_password).map_err(|invalid| format!("--{invalid}"))
    }

    fn user_lines(&self) -> Vec<UserLine> {
        let user = |number: u32| UserLine {
            id: UserId::seeded(&self.prefix, number.into()),
            email: Some(format!("{}-{number}@example.com", self.prefix)),
            first_name: self.prefix.clone(),
            last_name: number.to_string(),
            password: self.password.clone(),
        };
        (1..=self.users).map(user).collect()
    }

    fn room_lines(&self) -> Vec<RoomLine> {
        let (users, members) = (u64::from(self.users), u64::from(self.members));
        let member = |position: u64| UserId::seeded(&self.prefix, position % users + 1);
        let room = |number: u64| RoomLine {
            id: RoomId::seeded(&self.prefix, number),
            kind: RoomKind::Group,
            title: Some(format!("{} {number}", self.prefix)),
            members: ((number - 1) * members..number * members).map(member).collect(),
        };
        let pair = |first: u64| RoomLine {
            id: RoomId::direct(member(first), member(first + 1)),
            kind: RoomKind::Direct,
            title: None,
            members: vec![member(first), member(first + 1)],
        };
        let pairs = if self.pairs { users / 2 } else { 0 };
        (1..=u64::from(self.rooms)).map(room).chain((0..pairs).map(|number| pair(number * 2))).collect()
    }
}

fn print(users: &[UserLine], rooms: &[RoomLine]) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for user in users {
        writeln!(out, "{}", user.to_json())?;
    }
    for room in rooms {
        writeln!(out, "{}", room.to_json())?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn arguments(users: u32, rooms: u32, members: u32) -> Arguments {
        Arguments { users, rooms, members, pairs: false, messages: 0, prefix: "user".to_owned(), password: None }
    }

    #[test]
    fn everybody_but_an_odd_last_one_has_a_partner() {
        let rooms = Arguments { pairs: true, ..arguments(5, 1, 3) }.room_lines();
        let users = arguments(5, 0, 0).user_lines();
        let direct: Vec<_> = rooms.iter().filter(|room| room.kind == RoomKind::Direct).collect();
        assert_eq!((rooms.len(), direct.len()), (3, 2));
        assert_eq!(direct[1].members, [users[2].id, users[3].id]);
        assert_eq!(direct[1].id, RoomId::direct(users[3].id, users[2].id));
    }

    #[test]
    fn members_are_spread_evenly_and_none_is_there_twice() {
        let rooms = arguments(10, 7, 3).room_lines();
        let mut rooms_of: HashMap<UserId, u32> = HashMap::new();
        for room in &rooms {
            let mut members = room.members.clone();
            members.sort_unstable();
            members.dedup();
            assert_eq!(members.len(), 3);
            for member in members {
                *rooms_of.entry(member).or_default() += 1;
            }
        }
        assert!(rooms_of.len() == 10 && rooms_of.values().all(|count| (2..=3).contains(count)), "{rooms_of:?}");
    }

    #[test]
    fn ids_depend_on_the_arguments_alone() {
        assert_eq!(arguments(3, 2, 2).room_lines(), arguments(3, 2, 2).room_lines());
        let other = Arguments { prefix: "other".to_owned(), ..arguments(1, 0, 0) };
        assert_ne!(other.user_lines()[0].id, arguments(1, 0, 0).user_lines()[0].id);
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        assert!(arguments(2, 1, 3).check().is_err(), "more members than users");
        assert!(arguments(2, 1, 0).check().is_err(), "a room without members");
        assert!(Arguments { messages: 1, ..arguments(5, 0, 0) }.check().is_err(), "messages without a room");
        assert!(Arguments { prefix: "A b".to_owned(), ..arguments(1, 0, 0) }.check().is_err());
        assert!(Arguments { password: Some("short".to_owned()), ..arguments(1, 0, 0) }.check().is_err());
        assert!(arguments(0, 0, 0).check().is_ok() && arguments(5, 2, 5).check().is_ok());
    }
}
