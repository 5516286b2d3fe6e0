//! `import`: users and rooms with the ids given, from a file or standard input.
//!
//! Every line is checked before the first row is written. The invariant: one bad line and nothing
//! is applied; the same file again changes nothing.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use config::Settings;
use domain::UserId;
use engine::service::block_on;
use store::{Store, StoreError};

use crate::apply::{ApplyError, apply};
use crate::line::{Line, RoomLine, UserLine};
use crate::say::{refuse, summary};

/// Ids in one question to the store.
const CHUNK: usize = 500;
/// A longer line is no line: a room of 20,000 members has 800 kB.
const LINE_BYTES: u64 = 64 * 1024 * 1024;

/// The end of `import --help`.
const FORMAT: &str = r#"Each line is a JSON object, a user or a room; other fields are ignored:
  {"user":{"id":UUID,"email"?,"firstName"?,"lastName"?,"password"?}}
  {"room":{"id":UUID,"type"?:"group"|"direct","title"?,"memberIds":[UUID,...]}}
The first member is the owner. Without a password a user cannot log in, but tokens for them work.
One bad line: exit code 2, its number, and nothing is applied. See docs/OPERATIONS.md, Import."#;

#[derive(Args)]
#[command(after_help = FORMAT)]
pub(crate) struct Arguments {
    /// The file with the lines, or `-` for standard input.
    file: PathBuf,
}

/// What is wrong with which line; the exit code is then 2.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: {reason}")]
pub(crate) struct BadLine {
    number: usize,
    reason: String,
}

/// What was read: users and rooms with their line numbers, in the order of the lines.
#[derive(Debug, Default)]
struct Input {
    users: Vec<UserLine>,
    user_numbers: Vec<usize>,
    rooms: Vec<RoomLine>,
    room_numbers: Vec<usize>,
}

/// Imports; exit code 2 if a line is bad.
pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let input = match read(arguments) {
        Ok(input) => input,
        Err(reason) => return refuse(&reason),
    };
    let mut code = None;
    let ended = block_on(settings, async {
        let store = engine::open_store(settings).await?;
        let outcome = input.apply(&store).await;
        store.close().await;
        match outcome? {
            Ok(new) => summary(&format!(
                "imported {} users ({} new) and {} rooms ({} new) in {:.1} s",
                input.users.len(),
                new.users,
                input.rooms.len(),
                new.rooms,
                started.elapsed().as_secs_f64()
            )),
            Err(bad_line) => code = Some(refuse(&bad_line.to_string())),
        }
        Ok(())
    });
    code.unwrap_or(ended)
}

fn read(arguments: &Arguments) -> Result<Input, String> {
    if arguments.file.as_os_str() == "-" {
        return Input::read(io::stdin().lock());
    }
    let shown = arguments.file.display();
    let file = File::open(&arguments.file).map_err(|error| format!("{shown}: cannot be read ({error})"))?;
    Input::read(BufReader::new(file)).map_err(|reason| format!("{shown}: {reason}"))
}

impl Input {
    /// Reads to the end; empty lines are left out.
    fn read(mut lines: impl BufRead) -> Result<Self, String> {
        let mut input = Self::default();
        let mut text = String::new();
        for number in 1.. {
            text.clear();
            let bad = |reason: String| BadLine { number, reason }.to_string();
            let mut limited = io::Read::take(&mut lines, LINE_BYTES);
            match limited.read_line(&mut text) {
                Ok(0) => break,
                Ok(_) if limited.limit() == 0 => return Err(bad("is too long".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(bad(error.to_string())),
            }
            if !text.trim().is_empty() {
                input.add(number, Line::parse(text.trim()).map_err(bad)?);
            }
        }
        input.check_addresses().map_err(|bad_line| bad_line.to_string())?;
        Ok(input)
    }

    fn add(&mut self, number: usize, line: Line) {
        match line {
            Line::User(user) => {
                self.users.push(user);
                self.user_numbers.push(number);
            }
            Line::Room(room) => {
                self.rooms.push(room);
                self.room_numbers.push(number);
            }
        }
    }

    /// No address for two people.
    fn check_addresses(&self) -> Result<(), BadLine> {
        let mut owners: HashMap<&str, UserId> = HashMap::new();
        for (user, number) in self.users.iter().zip(&self.user_numbers) {
            let Some(email) = &user.email else { continue };
            if *owners.entry(email).or_insert(user.id) != user.id {
                return Err(BadLine {
                    number: *number,
                    reason: "email: belongs to another user of these lines".into(),
                });
            }
        }
        Ok(())
    }

    /// Applies all of it, or says which line stands against it.
    async fn apply(&self, store: &Store) -> Result<Result<store::ImportCounts, BadLine>, ApplyError> {
        if let Some(bad_line) = self.unknown_member(store).await? {
            return Ok(Err(bad_line));
        }
        match apply(store, &self.users, &self.rooms).await {
            Err(ApplyError::Store(StoreError::Conflict("email"))) => Ok(Err(self.taken_address(store).await?)),
            outcome => outcome.map(Ok),
        }
    }

    /// The first room with a member that neither these lines nor the store know.
    async fn unknown_member(&self, store: &Store) -> Result<Option<BadLine>, StoreError> {
        let mut known: HashSet<UserId> = self.users.iter().map(|user| user.id).collect();
        let others: HashSet<UserId> = self
            .rooms
            .iter()
            .flat_map(|room| &room.members)
            .filter(|member| !known.contains(member))
            .copied()
            .collect();
        for chunk in others.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
            known.extend(store.users(chunk).await?.into_iter().map(|user| user.id));
        }
        let unknown = |room: &RoomLine| room.members.iter().find(|member| !known.contains(member)).copied();
        let first =
            self.rooms.iter().zip(&self.room_numbers).find_map(|(room, number)| Some((unknown(room)?, *number)));
        Ok(first.map(|(member, number)| BadLine { number, reason: format!("memberIds: there is no user {member}") }))
    }

    /// The first line whose address belongs to somebody else in the store. Slow, but only asked
    /// when there is one.
    async fn taken_address(&self, store: &Store) -> Result<BadLine, StoreError> {
        for (user, number) in self.users.iter().zip(&self.user_numbers) {
            let Some(email) = &user.email else { continue };
            if store.credentials(email).await?.is_some_and(|owner| owner.user.id != user.id) {
                return Ok(BadLine { number: *number, reason: "email: belongs to another user".to_owned() });
            }
        }
        Err(StoreError::Conflict("email"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = r#"{"user":{"id":"00000000-0000-0000-0000-00000000000a","email":"a@example.com"}}"#;

    #[test]
    fn a_bad_line_is_told_by_its_number() {
        let text = format!("{ANN}\n\n{{\"user\":7}}\n");
        let error = Input::read(text.as_bytes()).expect_err("line 3 is bad");
        assert!(error.starts_with("line 3: "), "{error}");
    }

    #[test]
    fn a_line_may_come_twice_but_an_address_has_one_owner() {
        assert_eq!(Input::read(format!("{ANN}\n{ANN}").as_bytes()).expect("fine").users.len(), 2);
        let other = ANN.replace("00000a", "00000b");
        let error = Input::read(format!("{ANN}\n{other}").as_bytes()).expect_err("one address, two people");
        assert!(error.starts_with("line 2: email"), "{error}");
    }

    #[test]
    fn what_is_not_text_is_a_bad_line() {
        let error = Input::read(&b"\xff\xfe\n"[..]).expect_err("not UTF-8");
        assert!(error.starts_with("line 1: "), "{error}");
    }
}
