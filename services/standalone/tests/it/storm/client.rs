//! A light client: one task that keeps its rooms' lists through whatever happens to connections.
//!
//! It does what `docs/PROTOCOL.md` tells clients to do and no more. The invariant: it never gives
//! up, and whatever it is told that it should not be is noted in the book.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::connection::hint;
use testkit::client::line::{Heard, Kind};
use testkit::client::{Balancer, Connection, Recovery};
use tokio::time::{Instant, sleep_until};

use super::book::{Book, Wait};
use super::list::List;
use super::talk::Talk;

/// How long `session.ready` may take before a client tries elsewhere.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long an answer to `sync` may take.
const SYNC_LIMIT: Duration = Duration::from_secs(20);
/// A server that says nothing for two rounds of pings is gone.
const SILENCE_LIMIT: Duration = Duration::from_mins(1);
/// After a beacon: what is on its way comes in less.
const MOMENT: Duration = Duration::from_secs(5);
/// The stock client's first pause and its longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a client has of its rooms; looked at from outside at the end.
pub(crate) type Lists = Arc<Mutex<HashMap<String, List>>>;

/// What all clients share.
pub(crate) struct World {
    pub(crate) balancer: Arc<Balancer>,
    pub(crate) book: Book,
}

/// One client.
pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    /// Catches up by `afterSeq`, else by `afterRev`.
    pub(crate) by_seq: bool,
    pub(crate) token: String,
    pub(crate) lists: Lists,
    pub(crate) talk: Option<Talk>,
    pub(crate) memory: Memory,
}

/// What outlives a connection.
#[derive(Default)]
pub(crate) struct Memory {
    recovery: Recovery,
    lost: Option<Lost>,
    attempts: u32,
    is_up: bool,
}

/// When and in which part of the storm a connection was lost, and when to come back.
struct Lost {
    at: Instant,
    phase: &'static str,
    hint: Option<Duration>,
}

/// What belongs to one connection.
struct Session {
    connection: Connection,
    is_ready: bool,
    /// The id of a `sync` without an answer, and when it was asked.
    syncing: Option<(i64, Instant)>,
    /// Then to ask for what is missing.
    look_at: Option<Instant>,
    /// What a beacon said there is and was not there.
    behind: Vec<(String, i64)>,
}

impl Client {
    /// Lives until it is given up.
    pub(crate) async fn live(mut self) {
        loop {
            let world = Arc::clone(&self.world);
            let device = format!("storm-{}", self.number);
            let (base, recovery) = (world.balancer.pick(), &self.memory.recovery);
            let hint = match Connection::open(base, self.kind, &self.token, &device, recovery).await {
                Ok(connection) => self.converse(Session::new(connection)).await,
                Err(refused) => {
                    let status = refused.status.map_or_else(|| "nothing".to_owned(), |status| status.to_string());
                    self.book().count(format!("handshake answered by {status}"));
                    // The last word counts.
                    if let Some((lost, after)) = self.memory.lost.as_mut().zip(refused.retry_after) {
                        lost.hint = Some(lost.at.elapsed() + after);
                    }
                    refused.retry_after.map(|after| after + self.jitter(PAUSE / 2))
                }
            };
            let pause = hint.unwrap_or_else(|| self.pause());
            self.memory.attempts += 1;
            tokio::time::sleep(pause).await;
        }
    }

    fn book(&self) -> &Book {
        &self.world.book
    }

    /// As the stock client: a second, give or take half of it, doubled with each attempt.
    fn pause(&self) -> Duration {
        let base = (PAUSE * 2_u32.pow(self.memory.attempts.min(4))).min(LONGEST_PAUSE);
        base / 2 + self.jitter(base)
    }

    fn jitter(&self, up_to: Duration) -> Duration {
        let turn = self.number as f64 * 0.618 + f64::from(self.memory.attempts) * 0.414;
        up_to.mul_f64(turn % 1.0)
    }

    /// One connection from its beginning to its end; when to come back, if that was said.
    async fn converse(&mut self, mut session: Session) -> Option<Duration> {
        loop {
            let due = self.due(&session);
            let heard = tokio::select! {
                heard = session.connection.hear(&mut self.memory.recovery) => heard,
                () = sleep_until(due) => {
                    if self.act(&mut session).await { continue }
                    self.book().count("given up for silence");
                    Heard::Closed(None)
                }
            };
            match heard {
                Heard::Event { name, data, .. } => self.event(&mut session, &name, &data).await,
                Heard::Declined(refusal) => {
                    self.book().wrong(&format!("client {} was not let in: {refusal}", self.number));
                }
                Heard::Ack { id, body } => self.acked(&mut session, id, &body).await,
                Heard::Accepted { .. } | Heard::Nothing => {}
                Heard::Unreadable(text) => self.book().wrong(&format!("client {} was sent {text}", self.number)),
                Heard::Closed(code) => return self.closed(&session, code),
            }
        }
    }

    fn closed(&mut self, session: &Session, code: Option<u16>) -> Option<Duration> {
        if code.is_some_and(|code| code != 4503) {
            self.book().wrong(&format!("client {} ({:?}) was closed with {code:?}", self.number, self.kind));
        }
        let when = if session.is_ready { "closed" } else { "closed before it was ready" };
        let code = code.map_or_else(|| "nothing".to_owned(), |code| code.to_string());
        self.book().count(format!("{when} with {code}"));
        self.up(false);
        if session.is_ready {
            self.memory.lost =
                Some(Lost { at: Instant::now(), phase: self.book().phase(), hint: session.connection.hint });
            self.memory.attempts = 0;
        }
        session.connection.hint
    }

    fn up(&mut self, is_up: bool) {
        if std::mem::replace(&mut self.memory.is_up, is_up) != is_up {
            let up = &self.book().up;
            if is_up {
                up.fetch_add(1, Ordering::SeqCst)
            } else {
                up.fetch_sub(1, Ordering::SeqCst)
            };
        }
    }

    /// When to act without having heard anything.
    fn due(&self, session: &Session) -> Instant {
        let opening = (!session.is_ready).then_some(session.connection.opened + READY_LIMIT);
        let syncing = session.syncing.map(|(_, asked)| asked + SYNC_LIMIT);
        let talk = self.talk.as_ref().filter(|_| session.is_ready).map(Talk::due);
        let some = [opening, syncing, talk, session.look_at];
        some.into_iter().flatten().fold(session.connection.heard + SILENCE_LIMIT, Instant::min)
    }

    /// Does what is due; false to give the connection up.
    async fn act(&mut self, session: &mut Session) -> bool {
        let now = Instant::now();
        let is_late = |since: Instant, limit: Duration| now >= since + limit;
        if (!session.is_ready && is_late(session.connection.opened, READY_LIMIT))
            || session.syncing.is_some_and(|(_, asked)| is_late(asked, SYNC_LIMIT))
            || is_late(session.connection.heard, SILENCE_LIMIT)
        {
            return false;
        }
        if let Some(talk) = self.talk.as_mut().filter(|_| session.is_ready) {
            talk.speak(&mut session.connection, &self.world.book).await;
        }
        if session.look_at.take_if(|at| *at <= now).is_some() {
            self.look(session);
            self.sync(session).await;
        }
        true
    }

    async fn event(&mut self, session: &mut Session, name: &str, data: &Value) {
        match name {
            "session.ready" => self.ready(session, data).await,
            "rooms.beacon" => self.beacon(session, data),
            "message.failed" => self.book().wrong(&format!("a message failed: {data}")),
            _ => {
                let Some(room) = data["roomId"].as_str() else { return };
                let outcome = self.with_list(room, |list| list.live(name, data));
                self.judge(room, outcome);
            }
        }
    }

    fn with_list<T>(&self, room: &str, f: impl FnOnce(&mut List) -> T) -> T {
        f(self.lists.lock().unwrap().get_mut(room).unwrap_or_else(|| panic!("told of {room}, which is not its own")))
    }

    fn judge(&self, room: &str, outcome: Result<(), String>) {
        if let Err(wrong) = outcome {
            self.book().wrong(&format!("client {} ({:?}), room {room}: {wrong}", self.number, self.kind));
        }
    }

    async fn ready(&mut self, session: &mut Session, data: &Value) {
        session.is_ready = true;
        if let Some(Lost { at, phase, hint }) = self.memory.lost.take() {
            self.book().came_back(phase, Wait { waited: at.elapsed(), hint });
        }
        if let Some(talk) = &mut self.talk {
            talk.connected();
        }
        if self.kind == Kind::SocketIo {
            self.book().count(if session.connection.is_recovered {
                "recovered"
            } else {
                "connected anew by Socket.IO"
            });
        }
        if !session.connection.is_recovered {
            for room in data["rooms"].as_array().unwrap() {
                let rev = room["rev"].as_i64().unwrap();
                self.with_list(room["roomId"].as_str().unwrap(), |list| list.connected(rev));
            }
        }
        self.sync(session).await;
    }

    fn beacon(&self, session: &mut Session, data: &Value) {
        for room in data["rooms"].as_array().unwrap() {
            let (id, rev) = (room["roomId"].as_str().unwrap(), room["rev"].as_i64().unwrap());
            if self.with_list(id, |list| list.rev() < rev) {
                session.behind.push((id.to_owned(), rev));
                session.look_at = Some(Instant::now() + MOMENT);
            }
        }
    }

    /// A moment after a beacon: what has not come by now is not on its way.
    fn look(&self, session: &mut Session) {
        for (room, rev) in session.behind.drain(..) {
            if self.with_list(&room, |list| list.doubt(rev)) {
                self.book().count("behind a beacon");
            }
        }
    }

    /// Asks for whatever rooms are not caught up with.
    async fn sync(&mut self, session: &mut Session) {
        let ask = |(room, list): (&String, &List)| {
            let after = if self.by_seq { ("afterSeq", list.last_seq()) } else { ("afterRev", list.rev()) };
            json!({"roomId": room, after.0: after.1})
        };
        let rooms: Vec<Value> = self.lists.lock().unwrap().iter().filter(|it| !it.1.is_whole()).map(ask).collect();
        if rooms.is_empty() {
            return self.up(true);
        }
        let id = session.connection.send("sync", &json!({ "rooms": rooms })).await;
        session.syncing = Some((id, Instant::now()));
    }

    async fn acked(&mut self, session: &mut Session, id: i64, body: &Value) {
        if let Some(talk) = &mut self.talk
            && talk.acked(id, body, &self.world.book)
        {
            return;
        }
        if session.syncing.take_if(|(asked, _)| *asked == id).is_none() {
            return;
        }
        let Some(rooms) = body["rooms"].as_array() else {
            // The server cannot look anything up now: again in a while.
            self.book().count(format!("sync refused with {}", body["code"]));
            let after = hint(body).unwrap_or(PAUSE);
            session.look_at = Some(Instant::now() + after);
            return;
        };
        for page in rooms {
            let room = page["roomId"].as_str().unwrap_or_default();
            let outcome = match page["code"].as_str() {
                Some(code) => Err(format!("sync says {code}")),
                None => self.with_list(room, |list| if self.by_seq { list.by_seq(page) } else { list.by_rev(page) }),
            };
            self.judge(room, outcome);
        }
        self.sync(session).await;
    }
}

impl Session {
    fn new(connection: Connection) -> Self {
        Self { connection, is_ready: false, syncing: None, look_at: None, behind: Vec::new() }
    }
}
