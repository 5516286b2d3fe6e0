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
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Notes;
use super::session::Session;
use crate::history::{Answer, Change, Message, Try};
use crate::world::World;

/// How long an ack may take before a message is sent again.
const ACK_LIMIT: Duration = Duration::from_secs(4);
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
    /// Something of which nothing durable comes.
    Other,
}

/// Somebody who talks.
pub(super) struct Speaker {
    world: Arc<World>,
    user: usize,
    device: usize,
    rng: StdRng,
    said: usize,
    due: Instant,
    /// By frame, with the time of giving up waiting.
    awaited: BTreeMap<i64, (Asked, Instant)>,
    /// Messages to be sent again, not before that time.
    again: VecDeque<(usize, Instant)>,
}

impl Speaker {
    pub(super) fn new(world: Arc<World>, user: usize, device: usize, mut rng: StdRng) -> Self {
        let due = Instant::now() + Duration::from_millis(rng.random_range(PAUSE_MS));
        let (awaited, again) = (BTreeMap::new(), VecDeque::new());
        Self { world, user, device, rng, said: 0, due, awaited, again }
    }

    /// When it wants to do something next.
    pub(super) fn due(&self) -> Instant {
        let first = self.awaited.values().map(|(_, limit)| *limit).min();
        self.again.front().map(|(_, at)| *at).into_iter().chain(first).fold(self.due, Instant::min)
    }

    /// What was not acked is sent again on this connection.
    pub(super) fn connected(&mut self) {
        let now = Instant::now();
        self.again.iter_mut().for_each(|(_, at)| *at = now);
    }

    /// Of what is not answered by now nobody knows what came of it; messages are asked for again.
    pub(super) fn disconnected(&mut self) {
        for (_, (asked, _)) in std::mem::take(&mut self.awaited) {
            self.ask_again(asked, Duration::ZERO);
        }
        // In the order in which they were said.
        self.again.make_contiguous().sort_by_key(|(number, _)| *number);
    }

    fn ask_again(&mut self, asked: Asked, after: Duration) {
        if let Asked::Message(number) = asked {
            self.again.push_back((number, Instant::now() + after));
        }
    }

    /// Does what is due.
    pub(super) async fn speak(&mut self, session: &mut Session, notes: &Mutex<Notes>) {
        let now = Instant::now();
        let late: Vec<i64> = self.awaited.iter().filter(|(_, (_, limit))| *limit <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some((asked, _)) = self.awaited.remove(&id) {
                self.ask_again(asked, Duration::ZERO);
            }
        }
        while let Some((number, _)) = self.again.pop_front_if(|(_, at)| *at <= now) {
            self.send(session, number).await;
        }
        if now < self.due {
            return;
        }
        self.due = now + Duration::from_millis(self.rng.random_range(PAUSE_MS));
        if self.world.is_talking.load(Ordering::SeqCst) {
            self.act(session, notes).await;
        }
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
            76..80 => self.take_back(session).await,
            80..90 => self.react(session, room, notes).await,
            90..97 => self.read(session, room, notes).await,
            _ => {
                let typing = json!({"roomId": self.room(room), "isTyping": true});
                self.ask(session, "typing", &typing, Asked::Other).await;
            }
        }
    }

    fn room(&self, number: usize) -> &str {
        &self.world.rooms[number].id
    }

    async fn ask(&mut self, session: &mut Session, event: &str, data: &Value, asked: Asked) -> i64 {
        let id = session.line.send(event, data).await;
        self.awaited.insert(id, (asked, Instant::now() + ACK_LIMIT));
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

    async fn change(&mut self, session: &mut Session, event: &'static str, room: usize, data: Value) {
        let message = data["messageId"].as_str().map(str::to_owned);
        let at = self.world.clock.now();
        let number = {
            let mut sender = self.world.senders[self.user].lock();
            sender.changes.push(Change { what: event, room, message, at, answer: Answer::Unknown });
            sender.changes.len() - 1
        };
        self.ask(session, event, &data, Asked::Change(number)).await;
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
        let data = json!({"roomId": self.room(room), "messageId": id, "content": content});
        self.change(session, "message.edit", room, data).await;
    }

    async fn take_back(&mut self, session: &mut Session) {
        let Some((room, _, id)) = self.own_message() else { return };
        let data = json!({"roomId": self.room(room), "messageId": id, "forEveryone": true});
        self.change(session, "message.delete", room, data).await;
    }

    async fn react(&mut self, session: &mut Session, room: usize, notes: &Mutex<Notes>) {
        let back = self.rng.random_range(0..10);
        let target = notes.lock().views.get(&room).and_then(|view| view.recent(back)).map(|it| it.id.clone());
        let Some(id) = target else { return };
        let emoji = EMOJI[self.rng.random_range(0..EMOJI.len())];
        let remove = self.rng.random_bool(0.3);
        let data = json!({"roomId": self.room(room), "messageId": id, "emoji": emoji, "remove": remove});
        self.change(session, "message.react", room, data).await;
    }

    async fn read(&mut self, session: &mut Session, room: usize, notes: &Mutex<Notes>) {
        let seq = notes.lock().views.get(&room).map_or(0, crate::view::View::last_seq);
        if seq > 0 {
            let data = json!({"roomId": self.room(room), "seq": seq});
            self.ask(session, "message.read", &data, Asked::Other).await;
        }
    }

    /// What was QUEUED has become impossible.
    pub(super) fn failed(&self, data: &Value) {
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        self.world.senders[self.user].lock().failed.insert((text("messageId"), text("code")));
    }

    /// Takes an ack; an error when it says what it must not.
    pub(super) fn acked(&mut self, id: i64, ack: &Value) -> Result<(), String> {
        // Without an entry it was given up waiting for: a repeat is under way.
        let Some((asked, _)) = self.awaited.remove(&id) else { return Ok(()) };
        let at = self.world.clock.now();
        let code = ack["code"].as_str().unwrap_or_default();
        let passes = matches!(code, "UNAVAILABLE" | "OVERLOADED" | "RATE_LIMITED");
        if !(code.is_empty() || passes || code == "NOT_FOUND") {
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
            // It may have been accepted all the same.
            Asked::Change(_) | Asked::Other => {}
            Asked::Message(number) if passes => {
                let after = Duration::from_millis(ack["retryAfterMs"].as_u64().unwrap_or(500));
                self.again.push_back((number, Instant::now() + after));
            }
            Asked::Message(number) => return self.decided(number, answer),
        }
        Ok(())
    }

    /// The first decisive answer about a message counts; a later one may not name another id.
    fn decided(&self, number: usize, answer: Answer) -> Result<(), String> {
        let mut sender = self.world.senders[self.user].lock();
        let message = &mut sender.messages[number];
        match (&message.answer, answer) {
            (Answer::Unknown, Answer::Queued { at, job, .. }) => {
                let of = (message.tries.len() == 1).then(|| message.tries[0]);
                message.answer = Answer::Queued { at, of, job };
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
