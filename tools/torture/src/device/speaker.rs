//! The part of a device that asks for things, and does not give up on messages.
//!
//! The invariant: a message goes out under one name until it is acked `QUEUED` or refused for good;
//! whatever else is asked for is asked once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Notes;
use super::session::Session;
use crate::history::{Answer, At, Change, Failure, Message, Trouble, Try, Wish};
use crate::run::LATE_AFTER;
use crate::view::View;
use crate::world::World;

/// How long an ack may take before a message is sent again.
const ACK_LIMIT: Duration = LATE_AFTER;
/// Between two things a device does.
const PAUSE_MS: std::ops::Range<u64> = 200..900;
/// Messages sent at once.
const BURST: std::ops::Range<usize> = 3..13;
const EMOJI: [&str; 4] = ["👍", "🎉", "😢", "❤"];

/// What an ack is awaited for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// The message of that number in the sender's list.
    Message(usize),
    /// The change of that number.
    Change(usize),
    /// So much of a room was read.
    Read(usize, i64),
    /// Something about that room of which nothing durable comes.
    Other(usize),
    /// That room, on or off.
    Switch(usize, bool),
}

/// A room was switched on or off on this connection.
pub(super) struct Switched {
    pub(super) room: usize,
    pub(super) on: bool,
    /// When that was asked for.
    pub(super) asked: At,
    /// Where the room was.
    pub(super) rev: i64,
}

/// What was asked for and not answered.
struct Awaited {
    asked: Asked,
    sent: At,
    /// When to ask again; `None`: that was done, and the answer still counts.
    limit: Option<Instant>,
}

/// Somebody who talks.
pub(super) struct Speaker {
    world: Arc<World>,
    user: usize,
    device: usize,
    rng: StdRng,
    said: usize,
    due: Instant,
    /// By frame.
    awaited: BTreeMap<i64, Awaited>,
    /// Messages to be sent again, not before that time.
    again: VecDeque<(usize, Instant)>,
    /// A room into which the user has just been told to be let.
    invited: Option<usize>,
    /// Nobody knows whether a room is on: no answer came.
    is_unsure: bool,
    /// What was refused or not answered, to be written down.
    pub(super) troubles: Vec<Trouble>,
}

impl Speaker {
    pub(super) fn new(world: Arc<World>, user: usize, device: usize, mut rng: StdRng) -> Self {
        let due = Instant::now() + Duration::from_millis(rng.random_range(PAUSE_MS));
        let (said, awaited, again, invited, is_unsure, troubles) = Default::default();
        Self { world, user, device, rng, said, due, awaited, again, invited, is_unsure, troubles }
    }

    /// When it wants to do something next.
    pub(super) fn due(&self) -> Instant {
        let first = self.awaited.values().filter_map(|it| it.limit).min();
        self.again.front().map(|(_, at)| *at).into_iter().chain(first).fold(self.due, Instant::min)
    }

    /// What was not acked is sent again on this connection.
    pub(super) fn connected(&mut self) {
        let now = Instant::now();
        self.again.iter_mut().for_each(|(_, at)| *at = now);
    }

    /// Of what is not answered by now nobody knows what came of it; messages are asked for again.
    pub(super) fn disconnected(&mut self) {
        (self.invited, self.is_unsure) = (None, false);
        for (_, it) in std::mem::take(&mut self.awaited) {
            if it.limit.is_some() {
                self.ask_again(it.asked);
            }
        }
        // In the order in which they were said.
        self.again.make_contiguous().sort_by_key(|(number, _)| *number);
    }

    fn ask_again(&mut self, asked: Asked) {
        if let Asked::Message(number) = asked {
            self.again.push_back((number, Instant::now()));
        }
    }

    /// The user was let into a room: a time to do something about it.
    pub(super) fn invited(&mut self, room: usize) {
        self.invited = Some(room);
        self.due = Instant::now();
    }

    /// Only a new connection knows what is on.
    pub(super) fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    /// Does what is due.
    pub(super) async fn speak(&mut self, session: &mut Session, notes: &Mutex<Notes>) {
        let (now, at) = (Instant::now(), self.world.clock.now());
        let mut late = Vec::new();
        for it in self.awaited.values_mut().filter(|it| it.limit.is_some_and(|limit| limit <= now)) {
            it.limit = None;
            late.push(it.asked);
            self.is_unsure |= matches!(it.asked, Asked::Switch(..));
            let what = format!("no ack of {:?}", it.asked);
            self.troubles.push(Trouble { gateway: session.gateway, from: it.sent, to: at, what });
        }
        notes.lock().log.troubles.append(&mut self.troubles);
        for asked in late {
            self.ask_again(asked);
        }
        while let Some((number, _)) = self.again.pop_front_if(|(_, at)| *at <= now) {
            self.send(session, number).await;
        }
        if now < self.due {
            return;
        }
        self.due = now + Duration::from_millis(self.rng.random_range(PAUSE_MS));
        let is_talking = self.world.is_talking.load(Ordering::SeqCst);
        if let Some((room, on)) = self.switch(notes, is_talking) {
            let event = if on { "room.join" } else { "room.leave" };
            let data = json!({"roomId": self.room(room)});
            self.ask(session, event, &data, Asked::Switch(room, on)).await;
        } else if is_talking {
            self.act(session, notes).await;
        }
    }

    /// Which room to switch on (true) or off now, if any; in the end all are on.
    fn switch(&mut self, notes: &Mutex<Notes>, is_talking: bool) -> Option<(usize, bool)> {
        if self.awaited.values().any(|it| matches!(it.asked, Asked::Switch(..))) {
            return None;
        }
        let notes = notes.lock();
        let some = |is_meant: &dyn Fn(&View) -> bool, rng: &mut StdRng| {
            let meant = notes.views.iter().filter(|(_, view)| is_meant(view)).map(|(room, _)| *room);
            meant.choose(rng)
        };
        let rng = &mut self.rng;
        if !is_talking {
            return some(&View::is_off, rng).map(|room| (room, true));
        }
        let roll = rng.random_range(0..100);
        match (self.invited.take(), roll) {
            (Some(room), 0..25) => return Some((room, true)),
            (Some(room), 25..40) => return Some((room, false)),
            _ => {}
        }
        let (room, on) = match roll {
            0..30 => (some(&View::is_off, rng), true),
            30..32 => (some(&|view| view.is_member() && !view.is_off(), rng), false),
            // Perhaps the user was let in again, and was not told yet.
            32..35 => (some(&View::has_left, rng), true),
            35..36 => (some(&View::has_left, rng), false),
            _ => (None, false),
        };
        room.map(|room| (room, on))
    }

    async fn act(&mut self, session: &mut Session, notes: &Mutex<Notes>) {
        let rooms: Vec<usize> =
            notes.lock().views.iter().filter(|(_, view)| view.is_member()).map(|(room, _)| *room).collect();
        if rooms.is_empty() {
            return;
        }
        let room = rooms[self.rng.random_range(0..rooms.len())];
        match self.rng.random_range(0..100) {
            0..52 => self.say(session, room).await,
            52..60 => {
                for _ in 0..self.rng.random_range(BURST) {
                    self.say(session, room).await;
                }
            }
            60..64 => self.repeat(session).await,
            64..76 => self.edit(session).await,
            76..80 => self.delete(session).await,
            80..90 => self.react(session, room, notes).await,
            90..97 => self.read(session, room, notes).await,
            _ => {
                let typing = json!({"roomId": self.room(room), "isTyping": true});
                self.ask(session, "typing", &typing, Asked::Other(room)).await;
            }
        }
    }

    fn room(&self, number: usize) -> &str {
        &self.world.rooms[number].id
    }

    async fn ask(&mut self, session: &mut Session, event: &str, data: &Value, asked: Asked) -> i64 {
        let sent = self.world.clock.now();
        let id = session.connection.send(event, data).await;
        self.awaited.insert(id, Awaited { asked, sent, limit: Some(Instant::now() + ACK_LIMIT) });
        id
    }

    async fn say(&mut self, session: &mut Session, room: usize) {
        self.said += 1;
        let name = format!("{}.{}", self.device, self.said);
        let number = {
            let mut sender = self.world.senders[self.user].lock();
            sender.in_hand += 1;
            sender.messages.push(Message { name, room, tries: Vec::new(), answer: Answer::Unknown });
            sender.messages.len() - 1
        };
        self.send(session, number).await;
    }

    async fn send(&mut self, session: &mut Session, number: usize) {
        let (name, room) = {
            let sender = self.world.senders[self.user].lock();
            (sender.messages[number].name.clone(), sender.messages[number].room)
        };
        let content = format!("{name} says something");
        let data = json!({"roomId": self.room(room), "clientMsgId": name, "content": content});
        let at = self.world.clock.now();
        // Known before it is sent: its ack may be heard by nobody.
        let frame = self.ask(session, "message.send", &data, Asked::Message(number)).await;
        let this = Try { at, connection: session.number, frame };
        self.world.senders[self.user].lock().messages[number].tries.push(this);
    }

    /// Sends something again that was acked already.
    async fn repeat(&mut self, session: &mut Session) {
        if let Some(number) = self.own() {
            self.send(session, number).await;
        }
    }

    /// One of this user's latest messages that were acked.
    fn own(&mut self) -> Option<usize> {
        let back = self.rng.random_range(0..12);
        let sender = self.world.senders[self.user].lock();
        let queued = |message: &Message| matches!(message.answer, Answer::Queued { .. });
        let latest = sender.messages.iter().enumerate().rev().filter(|(_, message)| queued(message));
        latest.map(|(number, _)| number).take(back + 1).last()
    }

    async fn change(&mut self, session: &mut Session, event: &'static str, room: usize, wish: Wish) {
        let room_id = self.room(room);
        let data = match &wish {
            Wish::Edit { message, content } => json!({"roomId": room_id, "messageId": message, "content": content}),
            Wish::Delete { message } => json!({"roomId": room_id, "messageId": message, "forEveryone": true}),
            Wish::React { message, emoji, remove } => {
                json!({"roomId": room_id, "messageId": message, "emoji": emoji, "remove": remove})
            }
            Wish::Rename(_) | Wish::Remove | Wish::Add => return,
        };
        let at = self.world.clock.now();
        let number = {
            let mut sender = self.world.senders[self.user].lock();
            sender.changes.push(Change { wish, room, at, by: None, answer: Answer::Unknown });
            sender.changes.len() - 1
        };
        let frame = self.ask(session, event, &data, Asked::Change(number)).await;
        let by = Some(Try { at, connection: session.number, frame });
        self.world.senders[self.user].lock().changes[number].by = by;
    }

    fn own_message(&mut self) -> Option<(usize, String, String)> {
        let number = self.own()?;
        let sender = self.world.senders[self.user].lock();
        let message = &sender.messages[number];
        let Answer::Queued { job, .. } = &message.answer else { return None };
        Some((message.room, message.name.clone(), job.clone()))
    }

    async fn edit(&mut self, session: &mut Session) {
        let Some((room, name, id)) = self.own_message() else { return };
        self.said += 1;
        let content = format!("{name} is edit {} of device {}", self.said, self.device);
        self.change(session, "message.edit", room, Wish::Edit { message: id, content }).await;
    }

    async fn delete(&mut self, session: &mut Session) {
        let Some((room, _, id)) = self.own_message() else { return };
        self.change(session, "message.delete", room, Wish::Delete { message: id }).await;
    }

    async fn react(&mut self, session: &mut Session, room: usize, notes: &Mutex<Notes>) {
        let back = self.rng.random_range(0..10);
        let target = notes.lock().views.get(&room).and_then(|view| view.recent(back)).map(|it| it.id.clone());
        let Some(message) = target else { return };
        let emoji = EMOJI[self.rng.random_range(0..EMOJI.len())].to_owned();
        let remove = self.rng.random_bool(0.3);
        self.change(session, "message.react", room, Wish::React { message, emoji, remove }).await;
    }

    async fn read(&mut self, session: &mut Session, room: usize, notes: &Mutex<Notes>) {
        let seq = notes.lock().views.get(&room).map_or(0, View::last_seq);
        if seq > 0 {
            let data = json!({"roomId": self.room(room), "seq": seq});
            self.ask(session, "message.read", &data, Asked::Read(room, seq)).await;
        }
    }

    /// What was QUEUED has become impossible.
    pub(super) fn failed(&self, data: &Value) {
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let failure = Failure { job: text("jobId"), message: text("messageId"), code: text("code") };
        self.world.senders[self.user].lock().failed.insert(failure);
    }

    /// Takes an ack; an error when it says what it must not.
    pub(super) fn acked(&mut self, id: i64, ack: &Value, gateway: usize) -> Result<Option<Switched>, String> {
        let Some(it) = self.awaited.remove(&id) else { return Err(format!("an ack of nothing: {ack}")) };
        let Awaited { asked, sent, limit } = it;
        let at = self.world.clock.now();
        let code = ack["code"].as_str().unwrap_or_default();
        let passes = matches!(code, "UNAVAILABLE" | "OVERLOADED" | "RATE_LIMITED");
        // How long a backlog is worked off depends on what else the machine does.
        if passes && code != "OVERLOADED" {
            self.troubles.push(Trouble { gateway, from: sent, to: at, what: format!("{asked:?}: {code}") });
        }
        // Nobody but a guest ever loses a room. Whether a message is gone is looked at in the end.
        let may_be_gone = || matches!(asked, Asked::Change(_)) || self.world.is_guest(self.room_of(asked), self.user);
        if !(code.is_empty() || passes || (code == "NOT_FOUND" && may_be_gone())) {
            return Err(format!("was refused: {ack}"));
        }
        let answer = if ack["status"] == "QUEUED" {
            let job = ack["jobId"].as_str().or(ack["messageId"].as_str()).unwrap_or_default().to_owned();
            Answer::Queued { at, of: None, job }
        } else {
            Answer::Refused(code.to_owned())
        };
        match asked {
            Asked::Change(number) if code != "UNAVAILABLE" => {
                self.world.senders[self.user].lock().changes[number].answer = answer;
            }
            Asked::Read(room, seq) if code.is_empty() => {
                let mut sender = self.world.senders[self.user].lock();
                let read = sender.read.entry(room).or_default();
                *read = (seq, at).max(*read);
            }
            Asked::Switch(room, on) if code.is_empty() => {
                let rev = ack["rev"].as_i64().ok_or_else(|| format!("no rev in {ack}"))?;
                return Ok(Some(Switched { room, on, asked: sent, rev }));
            }
            // It may have been accepted all the same.
            Asked::Change(_) | Asked::Read(..) | Asked::Other(_) | Asked::Switch(..) => {}
            Asked::Message(number) if passes => {
                // If it came late, it is under way again.
                if limit.is_some() {
                    let after = Duration::from_millis(ack["retryAfterMs"].as_u64().unwrap_or(500));
                    self.again.push_back((number, Instant::now() + after));
                }
            }
            Asked::Message(number) => self.decided(number, answer)?,
        }
        Ok(None)
    }

    fn room_of(&self, asked: Asked) -> usize {
        let sender = self.world.senders[self.user].lock();
        match asked {
            Asked::Message(number) => sender.messages[number].room,
            Asked::Change(number) => sender.changes[number].room,
            Asked::Read(room, _) | Asked::Other(room) | Asked::Switch(room, _) => room,
        }
    }

    /// QUEUED counts whenever it comes, and a later one may not name another id.
    fn decided(&self, number: usize, answer: Answer) -> Result<(), String> {
        let mut sender = self.world.senders[self.user].lock();
        let message = &mut sender.messages[number];
        match (&message.answer, answer) {
            (Answer::Unknown, Answer::Queued { at, job, .. }) => {
                let of = (message.tries.len() == 1).then(|| message.tries[0]);
                message.answer = Answer::Queued { at, of, job };
            }
            // One attempt was refused, and another one was accepted.
            (Answer::Refused(_), Answer::Queued { at, job, .. }) => {
                message.answer = Answer::Queued { at, of: None, job };
                return Ok(());
            }
            (Answer::Unknown, other) => message.answer = other,
            (Answer::Queued { job, .. }, Answer::Queued { job: other, .. }) if *job != other => {
                return Err(format!("{} has two ids: {job} and {other}", message.name));
            }
            _ => return Ok(()),
        }
        sender.in_hand -= 1;
        Ok(())
    }
}
