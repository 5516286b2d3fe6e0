//! A device: one task that keeps its rooms through whatever happens to its connections, and talks.
//!
//! It does what `docs/PROTOCOL.md` tells clients to do and no more. The invariant: it never gives up,
//! and whatever it is told that it should not be is written down.

mod session;
mod speaker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use runtime::Shutdown;
use serde_json::{Value, json};
use testkit::client::connection::hint;
use testkit::client::line::{Heard, Kind};
use testkit::client::{Connection, Recovery};
use tokio::time::{Instant, sleep_until};

use crate::history::{At, DeviceLog, Span, Trouble};
use crate::view::View;
use crate::world::World;
use session::Session;
use speaker::{Speaker, Switched};

/// How long `session.ready` may take before a device tries elsewhere.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer to `sync` may take.
const SYNC_LIMIT: Duration = Duration::from_secs(10);
/// After a beacon: what is on its way comes in less.
const MOMENT: Duration = Duration::from_secs(3);
/// A server that says nothing for two rounds of pings is gone.
const SILENCE_LIMIT: Duration = Duration::from_mins(1);
/// The stock client's first pause and its longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What is counted of rooms that a device switched on and off for a connection.
pub const SWITCHED_ON: &str = "rooms switched on";
/// See [`SWITCHED_ON`].
pub const SWITCHED_OFF: &str = "rooms switched off";

/// What can be looked at from outside.
#[derive(Default)]
pub struct Notes {
    /// What it wrote down.
    pub log: DeviceLog,
    /// Its rooms, by number.
    pub views: BTreeMap<usize, View>,
}

/// A device of a user.
pub struct Device {
    world: Arc<World>,
    /// The user's number.
    user: usize,
    name: String,
    kind: Kind,
    notes: Arc<Mutex<Notes>>,
    speaker: Speaker,
    rng: StdRng,
    attempts: u32,
    is_up: bool,
    recovery: Recovery,
}

impl Device {
    /// Device `number` of all, which is `user`'s.
    pub fn new(world: &Arc<World>, number: usize, user: usize, kind: Kind, seed: u64) -> Self {
        let me = &world.users[user];
        let views = me.rooms.iter().map(|room| (*room, View::new(&me.id))).collect();
        let mut rng = StdRng::seed_from_u64(seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let speaker = Speaker::new(Arc::clone(world), user, number, StdRng::seed_from_u64(rng.random()));
        Self {
            world: Arc::clone(world),
            user,
            name: format!("device-{number}"),
            kind,
            notes: Arc::new(Mutex::new(Notes { log: DeviceLog::default(), views })),
            speaker,
            rng,
            attempts: 0,
            is_up: false,
            recovery: Recovery::default(),
        }
    }

    /// What it wrote down, for others to look at.
    pub fn notes(&self) -> Arc<Mutex<Notes>> {
        Arc::clone(&self.notes)
    }

    /// Lives until it is told to end.
    pub async fn live(mut self, stop: Shutdown) {
        while !stop.is_requested() {
            let pause = tokio::select! {
                pause = self.connect() => pause,
                () = stop.requested() => break,
            };
            self.attempts += 1;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.requested() => break,
            }
        }
        self.up(false);
    }

    /// One connection; how long to wait before the next.
    async fn connect(&mut self) -> Duration {
        let world = Arc::clone(&self.world);
        let gateway = self.rng.random_range(0..world.gateways.len());
        let base = &world.gateways[gateway];
        let token = &world.users[self.user].token;
        let began = world.clock.now();
        let hint = match Connection::open(base, self.kind, token, &self.name, &self.recovery).await {
            Ok(connection) => {
                let mut session = Session::new(connection, world.new_connection(), gateway, began);
                let hint = self.converse(&mut session).await;
                self.down(&session);
                hint
            }
            Err(refused) => {
                let what = format!("handshake answered by {}", refused.status.unwrap_or_default());
                self.count(what.clone());
                self.trouble(gateway, began, what);
                refused.retry_after
            }
        };
        let longest = (PAUSE * 2_u32.pow(self.attempts.min(4))).min(LONGEST_PAUSE);
        hint.unwrap_or_else(|| longest.mul_f64(self.rng.random_range(0.5..1.0)))
    }

    /// A connection ended by itself.
    fn down(&mut self, session: &Session) {
        self.up(false);
        self.speaker.disconnected();
        let now = self.world.clock.now();
        if let Some(span) = self.notes.lock().log.spans.last_mut().filter(|_| session.is_ready) {
            (span.to, span.silent) = (Some(now), session.is_silent);
        }
    }

    /// What was asked of a gateway then came to nothing now.
    fn trouble(&self, gateway: usize, from: At, what: impl Into<String>) {
        let (to, what) = (self.world.clock.now(), what.into());
        self.notes.lock().log.troubles.push(Trouble { gateway, from, to, what });
    }

    fn up(&mut self, is_up: bool) {
        if std::mem::replace(&mut self.is_up, is_up) != is_up {
            let up = &self.world.up;
            if is_up {
                up.fetch_add(1, Ordering::SeqCst)
            } else {
                up.fetch_sub(1, Ordering::SeqCst)
            };
        }
    }

    fn count(&self, what: impl Into<String>) {
        self.notes.lock().log.count(what);
    }

    fn wrong(&self, what: &str) {
        let at = self.world.clock.now().0;
        let line = format!("{at} ms, {} of user {} ({:?}): {what}", self.name, self.user, self.kind);
        self.notes.lock().log.wrong(line);
    }

    /// One connection from its beginning to its end; when to come back, if that was said.
    async fn converse(&mut self, session: &mut Session) -> Option<Duration> {
        loop {
            let due = self.due(session);
            let heard = tokio::select! {
                heard = session.connection.hear(&mut self.recovery) => heard,
                () = sleep_until(due) => {
                    if self.act(session).await { continue }
                    self.count("connections given up for silence");
                    session.is_silent = true;
                    return None;
                }
            };
            self.note(session, &heard);
            match heard {
                Heard::Event { name, data, .. } => self.event(session, &name, &data).await,
                Heard::Accepted { .. } if session.connection.is_recovered => self.count("connections recovered"),
                Heard::Declined(refusal) => {
                    self.wrong(&format!("was not let in: {refusal}"));
                    return None;
                }
                Heard::Ack { id, body } => self.acked(session, id, &body).await,
                Heard::Accepted { .. } | Heard::Nothing => {}
                Heard::Unreadable(text) => {
                    self.wrong(&format!("was sent {text}"));
                    return None;
                }
                Heard::Closed(code) => {
                    if let Some(code) = code.filter(|code| !matches!(code, 1001 | 4408 | 4409 | 4503 | 4508)) {
                        self.count(format!("closed with {code}"));
                    }
                    return session.connection.hint;
                }
            }
        }
    }

    fn note(&self, session: &Session, heard: &Heard) {
        let what = match heard {
            Heard::Event { name, data, offset } => {
                let room = data["roomId"].as_str().and_then(|room| self.world.room(room));
                format!("{name} room {room:?} rev {} offset {offset:?}", data["rev"])
            }
            Heard::Ack { id, .. } => format!("ack {id}"),
            other => format!("{other:?}"),
        };
        let at = self.world.clock.now().0;
        self.notes.lock().log.note(format!("{at} ms, connection {}: {what}", session.number));
    }

    /// When to act without having heard anything.
    fn due(&self, session: &Session) -> Instant {
        let opening = (!session.is_ready).then_some(session.connection.opened + READY_LIMIT);
        let syncing = session.syncing.as_ref().map(|asked| asked.at + SYNC_LIMIT);
        let talk = session.is_ready.then(|| self.speaker.due());
        let some = [opening, syncing, talk, session.look_at];
        some.into_iter().flatten().fold(session.connection.heard + SILENCE_LIMIT, Instant::min)
    }

    /// Does what is due; false to give the connection up.
    async fn act(&mut self, session: &mut Session) -> bool {
        let now = Instant::now();
        let is_late = |since: Instant, limit: Duration| now >= since + limit;
        if !session.is_ready && is_late(session.connection.opened, READY_LIMIT) {
            self.trouble(session.gateway, session.began, "no session.ready");
            return false;
        }
        if let Some(asked) = session.syncing.as_ref().filter(|asked| is_late(asked.at, SYNC_LIMIT)) {
            self.trouble(session.gateway, asked.sent, "no answer to sync");
            return false;
        }
        if is_late(session.connection.heard, SILENCE_LIMIT) {
            return false;
        }
        if session.is_ready && now >= self.speaker.due() {
            self.speaker.speak(session, &self.notes).await;
            if self.speaker.is_unsure() {
                return false;
            }
        }
        if session.look_at.take_if(|at| *at <= now).is_some() {
            for (room, rev) in session.behind.drain(..) {
                let is_behind = self.notes.lock().views.get_mut(&room).is_some_and(|view| view.doubt(rev));
                if is_behind {
                    self.count("rooms behind a beacon");
                }
            }
            self.sync(session).await;
        }
        true
    }

    async fn event(&mut self, session: &mut Session, name: &str, data: &Value) {
        match name {
            "session.ready" => self.ready(session, data).await,
            "rooms.beacon" => self.beacon(session, data),
            "message.failed" => self.speaker.failed(data),
            "message.read" | "typing" => self.fleeting(name, data),
            _ => self.changed(session, name, data).await,
        }
    }

    /// A change of a room.
    async fn changed(&mut self, session: &mut Session, name: &str, data: &Value) {
        let Some(room) = data["roomId"].as_str() else { return };
        let Some(number) = self.own(room) else { return self.wrong(&format!("was told {name} of {room}")) };
        let at = self.world.clock.now();
        let user = &self.world.users[self.user].id;
        let outcome = {
            let Notes { log, views } = &mut *self.notes.lock();
            let view = views.entry(number).or_insert_with(|| View::new(user));
            let outcome = view.live(name, data, at, log.seen.entry(number).or_default());
            log.switched(number, view.is_off(), at);
            outcome.map(|()| view.is_settled())
        };
        if name == "room.memberJoined" && data["userId"] == user.as_str() {
            self.speaker.invited(number);
        }
        match outcome {
            Ok(true) => {}
            Ok(false) => self.sync(session).await,
            Err(wrong) => self.wrong(&format!("room {number}: {wrong}")),
        }
    }

    /// The number of a room, of those in which the user ever is.
    fn own(&self, id: &str) -> Option<usize> {
        self.world.room(id).filter(|number| self.world.users[self.user].rooms.contains(number))
    }

    fn fleeting(&mut self, name: &str, data: &Value) {
        let room = data["roomId"].as_str().unwrap_or_default();
        let Some(number) = self.own(room) else { return self.wrong(&format!("was told {name} of {room}")) };
        let at = self.world.clock.now();
        let has_left = {
            let Notes { log, views } = &mut *self.notes.lock();
            log.named.push((number, at));
            let view = views.get_mut(&number);
            let has_left = view.as_ref().is_some_and(|view| view.has_left() || view.is_off());
            if let Some(view) = view.filter(|_| name == "message.read") {
                view.read(data);
            }
            has_left
        };
        if has_left {
            self.wrong(&format!("room {number}: {name} came of a room that was left, or switched off"));
        }
    }

    async fn ready(&mut self, session: &mut Session, data: &Value) {
        session.is_ready = true;
        let from = self.world.clock.now();
        let listed = data["rooms"].as_array().map_or(&[][..], Vec::as_slice);
        let rooms: BTreeMap<usize, i64> = listed
            .iter()
            .filter_map(|room| Some((self.own(room["roomId"].as_str()?)?, room["rev"].as_i64()?)))
            .collect();
        let mut lasting =
            self.world.users[self.user].rooms.iter().filter(|room| !self.world.is_guest(**room, self.user));
        if rooms.len() != listed.len() || !lasting.all(|room| rooms.contains_key(room)) {
            self.wrong(&format!("was told that these are the user's rooms: {}", data["rooms"]));
        }
        {
            let Notes { log, views } = &mut *self.notes.lock();
            log.spans.push(Span { from, to: None, silent: false, gateway: session.gateway });
            log.named.extend(rooms.keys().map(|room| (*room, from)));
            for (number, view) in views.iter_mut() {
                if session.connection.is_recovered {
                    view.recovered();
                } else {
                    view.connected(rooms.get(number).copied());
                }
                log.switched(*number, false, from);
            }
        }
        self.attempts = 0;
        self.speaker.connected();
        self.sync(session).await;
    }

    fn beacon(&self, session: &mut Session, data: &Value) {
        for room in data["rooms"].as_array().map_or(&[][..], Vec::as_slice) {
            let number = room["roomId"].as_str().and_then(|id| self.own(id));
            let (Some(number), Some(rev)) = (number, room["rev"].as_i64()) else {
                self.wrong(&format!("a beacon says {room}"));
                continue;
            };
            let mut notes = self.notes.lock();
            notes.log.named.push((number, self.world.clock.now()));
            if notes.views.get(&number).is_some_and(|view| view.rev() < rev) {
                session.behind.push((number, rev));
                session.look_at = Some(Instant::now() + MOMENT);
            }
        }
    }

    /// Asks for whatever rooms are not caught up with.
    async fn sync(&mut self, session: &mut Session) {
        if session.syncing.is_some() {
            return;
        }
        let (mut rooms, mut turns) = (Vec::new(), BTreeMap::new());
        for (number, view) in self.notes.lock().views.iter().filter(|(_, view)| !view.is_settled()) {
            rooms.push(json!({"roomId": self.world.rooms[*number].id, "afterRev": view.rev()}));
            turns.insert(*number, view.turns());
        }
        if rooms.is_empty() {
            return self.up(true);
        }
        let id = session.connection.send("sync", &json!({ "rooms": rooms })).await;
        session.syncing = Some(session::Asked { id, at: Instant::now(), sent: self.world.clock.now(), turns });
    }

    async fn switched(&mut self, session: &mut Session, switched: &Switched) {
        let Switched { room, on, asked, rev } = *switched;
        let now = self.world.clock.now();
        {
            let Notes { log, views } = &mut *self.notes.lock();
            let Some(view) = views.get_mut(&room) else { return };
            if on {
                view.switched_on(rev);
            } else {
                view.switched_off(rev);
            }
            log.switched(room, !on, if on { now } else { asked });
            log.count(if on { SWITCHED_ON } else { SWITCHED_OFF });
        }
        self.sync(session).await;
    }

    async fn acked(&mut self, session: &mut Session, id: i64, body: &Value) {
        let Some(asked) = session.syncing.take_if(|asked| asked.id == id) else {
            let answered = self.speaker.acked(id, body, session.gateway);
            self.notes.lock().log.troubles.append(&mut self.speaker.troubles);
            match answered {
                Ok(Some(switched)) => self.switched(session, &switched).await,
                Ok(None) => {}
                Err(wrong) => self.wrong(&wrong),
            }
            return;
        };
        let Some(rooms) = body["rooms"].as_array() else {
            // The server cannot look anything up now: again in a while.
            self.trouble(session.gateway, asked.sent, format!("sync answered by {body}"));
            session.look_at = Some(Instant::now() + hint(body).unwrap_or(PAUSE));
            return;
        };
        let at = self.world.clock.now();
        let mut wrongs = Vec::new();
        for page in rooms {
            let Some(number) = page["roomId"].as_str().and_then(|id| self.world.room(id)) else { continue };
            let Notes { log, views } = &mut *self.notes.lock();
            let Some(view) = views.get_mut(&number) else { continue };
            let (joins, beginnings) = asked.turns.get(&number).copied().unwrap_or_default();
            if page["code"] == "NOT_FOUND" {
                view.not_found(joins);
                if !self.world.is_guest(number, self.user) {
                    wrongs.push(format!("room {number}: sync says NOT_FOUND"));
                }
                continue;
            }
            log.named.push((number, at));
            if let Err(wrong) = view.page(page, beginnings, at, log.seen.entry(number).or_default()) {
                wrongs.push(format!("room {number}: {wrong}"));
            }
        }
        for wrong in wrongs {
            self.wrong(&wrong);
        }
        self.sync(session).await;
    }
}
